"""DMFuse's tables: what Table 5 counts beside what it prints, and which images each training sees."""

import pytest

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.results import printed
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs
from fusionlab.targets import dmfuse

# Facts: Params without GroupNorm (M), Flops of one pass each (G), one U-Net pass (G).
COUNTS = {
    "Original": (392.728, 1470.2, 716.37),
    "1/2": (98.704, 382.08, 179.21),
    "1/4(Ours)": (24.981, 106.48, 44.86),
    "1/8": (6.441, 35.79, 11.24),
}


def test_table5_counts_what_the_paper_counts(tmp_path):
    made = targets.reproduce("dmfuse/table5", tmp_path)
    value = {(record.row, record.metric): record.value for record in made}
    assert records.lint(made) == [] and {record.data for record in made} == {"none"}
    for row, (params, flops, once) in COUNTS.items():
        paper = printed("dmfuse", "table5", "TNO", row)
        assert value[row, "Params"] == pytest.approx(params, abs=6e-4)
        assert value[row, "Flops"] == pytest.approx(flops, rel=3e-4)
        assert value[row, "one U-Net pass"] == pytest.approx(once, abs=6e-3)
        assert value[row, "Params"] == pytest.approx(paper["Params"], rel=1.3e-3)
        off = abs(value[row, "Flops"] / paper["Flops"] - 1)
        assert 0.02 < off < 0.04 if row == "Original" else off < 5e-3
    ours = "1/4(Ours)"
    assert value[ours, "as released"] == pytest.approx(288.7, abs=0.05)
    assert value[ours, "criss-cross attention"] == pytest.approx(2.76, abs=5e-3)
    assert value[ours, "as released"] / value[ours, "Flops"] == pytest.approx(2.7, abs=0.02)


def test_the_recipes_train_in_one_run_and_are_scored(shared, tmp_path):
    made = targets.reproduce("dmfuse/recipe", tmp_path, profile="smoke")
    assert records.lint(made) == []
    assert [(record.row, record.metric) for record in made] == [
        (row, metric) for row in ("paper", "released") for metric in ("EN", "SD", "Qabf", "VIF")
    ]
    assert len({record.weights for record in made}) == 2
    assert sorted(file.name for file in tmp_path.glob("checkpoints/*/*")) == [
        "ddpm-paper-4-0.safetensors",
        "ddpm-released-4-0.safetensors",
        "paper-0.safetensors",
        "released-0.safetensors",
    ]


def test_our_model_and_its_control_share_nothing_but_the_recipe_of_the_head(shared, tmp_path, seen):
    made = targets.reproduce("dmfuse/model", tmp_path, profile="smoke")
    assert records.lint(made) == [] and {r.split for r in made} == {"val"}
    weights = {r.row: r.weights for r in made}
    assert len(set(weights.values())) == 5 and weights["average"] == "none"
    assert {file.name for file in tmp_path.glob("checkpoints/*/ddpm*")} == {"ddpm-edm-8-0.safetensors"}
    unseen = set(seen.of(open_pairs("roadscene", 2, split="val")))
    assert all(set(scored) == unseen for scored in seen.scored)
    assert unseen.isdisjoint(seen.of(open_pairs("roadscene", split="train")))


def test_table4_trains_each_row_on_its_own_images(shared, tmp_path, monkeypatch):
    fed, train = {}, dmfuse.train

    def watched(recipe, pairs, seed, device, checkpoints, name, singles):
        fed[name] = (recipe.pretext, len(singles))
        return train(recipe, pairs, seed, device, checkpoints, name, singles)

    monkeypatch.setattr(dmfuse, "train", watched)
    made = targets.reproduce("dmfuse/table4", tmp_path, profile="smoke")
    assert records.lint(made) == [] and len({r.weights for r in made}) == 4
    run = Run.begin(None, "smoke")
    streets, photographs = len(dmfuse.streets(run)), len(dmfuse.photographs(run))
    assert fed == {
        "RoadScene": ("ddpm", streets), "photographs": ("ddpm", photographs),
        "both": ("ddpm", streets + photographs), "random-layers": ("random", 0),
    }  # fmt: skip
    assert min(streets, photographs) > 50

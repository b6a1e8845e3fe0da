"""DMFuse's tables: what Table 5 counts beside what it prints, and which images each training sees."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from fusionlab import load, targets
from fusionlab.bench import records
from fusionlab.bench.results import printed
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs
from fusionlab.machine import processor
from fusionlab.metrics import CONVENTIONS
from fusionlab.targets import dmfuse
from fusionlab.targets.mmdrfuse import middle
from fusionlab.training import fingerprint

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


def test_table6_changes_one_thing_a_row_and_shares_stage_1(shared, tmp_path, monkeypatch, seen):
    trained = []
    train = dmfuse.train

    def watched(recipe, images, *arguments):
        trained.append(seen.of(SimpleNamespace(vi=vi) for _, vi in images))
        return train(recipe, images, *arguments)

    monkeypatch.setattr(dmfuse, "train", watched)
    made = targets.reproduce("dmfuse/table6", tmp_path, profile="smoke")
    assert records.lint(made) == []
    rows = dmfuse.TABLES["dmfuse/table6"].rows
    scored = [r for r in made if r.data == "tno"]
    assert {(r.row, r.metric) for r in scored} == set(product(rows, CONVENTIONS["dmfuse"].variants))
    assert {(r.split, r.n) for r in scored} == {("test25", "2 of 42")}

    pairs = open_pairs("tno", 2, split="test25")
    middles = [replace(pair, ir=middle(pair.ir), vi=middle(pair.vi), chroma=None) for pair in pairs]
    assert middles[0].vi.shape[-2:] == (128, 128) and all(s == seen.of(middles) for s in seen.scored)
    assert all(t == seen.of(open_pairs("roadscene", split="train")) for t in trained) and len(trained) == 7

    gamma = {r.row: r.value for r in made if r.metric == "gamma"}
    assert set(gamma) == set(rows) - {"w/o CAIM", "concatenation", "average"}
    assert 0 < abs(gamma.pop("gamma at 1e-5")) < 3e-5  # two steps of Adam, in half precision
    assert all(1e-3 < abs(value) < 3e-2 for value in gamma.values())

    def unet_of(row):
        state = load("dmfuse", tmp_path / f"dmfuse-table6-smoke-{dmfuse.slug(row)}-seed0.safetensors")
        return fingerprint(state.network.unet.state_dict().values())

    unets = {row: unet_of(row) for row in rows if row != "average"}
    shared_by = {"w/o CAIM", "concatenation", "gamma at 1e-5", "ours"}
    assert {row for row in unets if unets[row] == unets["ours"]} == shared_by
    assert len(set(unets.values())) == 4  # with the CNN, random layers, and what has learnt nothing
    assert len(list(tmp_path.glob("checkpoints/*/ddpm-*"))) == 1
    assert [file.name for file in tmp_path.glob("figures/dmfuse/*")] == ["table6-seed0.png"]


def test_table1_scores_by_the_kind_of_pair(shared, tmp_path):
    made = targets.reproduce("dmfuse/table1", tmp_path, "maximum", "smoke")
    assert records.lint(made) == []
    assert {(r.data, r.split) for r in made} == {
        ("harvard", f"mri_{kind}") for kind in ("ct", "pet", "spect")
    }
    assert {r.metric for r in made} == set(printed("dmfuse", "table1", "Harvard", "Ours"))
    assert set(dmfuse.TABLES["dmfuse/table1"].rows) == {"ours", "average", "maximum", "laplacian"}


def test_table7_counts_two_passes_as_printed_and_six_as_done(tmp_path):
    made = targets.reproduce("dmfuse/table7", tmp_path, profile="smoke")
    assert records.lint(made) == []
    value = {(record.row, record.metric): record.value for record in made}
    paper = printed("dmfuse", "table7", "none", "Ours")
    assert value["1/4", "Params"] == pytest.approx((24_473_315 + 531_374) / 1e6)
    assert value["1/4", "Params"] == pytest.approx(paper["Params"], rel=2e-3)
    assert value["1/4", "Flops"] == pytest.approx(106.48, abs=0.04) == pytest.approx(paper["Flops"], rel=2e-3)
    # Six passes, head and criss-cross attention by the facts; about .2 a pass for the U-Net's own attention,
    # and less its output layer, which no feature needs.
    wanted = 288.7 + 6 * (0.2 - 9 * 32 * 3 * 256**2 / 1e9)
    assert value["1/4", "Flops of a fused image"] == pytest.approx(wanted, abs=0.2)
    for row in ("1/4", "1/8", "ours"):
        assert value[row, "Flops of a fused image"] > 1.5 * value[row, "Flops"]
        assert 0 < value[row, "Time 32x32"] < 60
    assert value["ours", "Params"] < value["1/8", "Params"] / 3
    timed_on = {r.note for r in made if r.metric.startswith("Time")}
    assert processor() and timed_on == {f"{processor()}, {torch.get_num_threads()} threads"}


def test_crops_of_tno_are_counted(shared, tmp_path):
    made = targets.reproduce("dmfuse/crops", tmp_path)
    value = {record.metric: record.value for record in made}
    assert records.lint(made) == [] and {record.n for record in made} == {"42"}
    assert value["crops of the 17 largest"] == 18_699 < 18_813 < value["crops of the 18 largest"]
    assert value["crops of the 42 largest"] == 27_540
    for size in ((256, 256), (255, 300), (267, 268), (280, 281)):
        image = torch.zeros(1, 1, *size)
        one_by_one = [
            image[..., y : y + 256, x : x + 256] for y in range(0, 30, 12) for x in range(0, 50, 12)
        ]
        whole = [crop for crop in one_by_one if crop.shape[-2:] == (256, 256)]
        assert dmfuse.grid_crops(image, 256, 12) == len(whole)


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


def test_our_model_and_its_rivals_are_trained_apart_from_what_judges_them(shared, tmp_path, seen):
    made = targets.reproduce("dmfuse/model", tmp_path, profile="smoke")
    assert records.lint(made) == [] and {r.split for r in made} == {"val"}
    weights = {r.row: r.weights for r in made}
    assert len(set(weights.values())) == 4 and weights["average"] == "none"
    assert {file.name for file in tmp_path.glob("checkpoints/*/ddpm*")} == {
        "ddpm-edm-8-0.safetensors",
        "ddpm-paper-8-0.safetensors",
    }
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


def test_figure6_meets_pairs_that_no_training_saw(shared, tmp_path, seen):
    made = targets.reproduce("dmfuse/figure6", tmp_path, "average", "smoke")
    assert records.lint(made) == []
    assert [(r.data, r.split, r.metric) for r in made] == [
        (*where, metric)
        for where in (("tno", "all"), ("roadscene", "test"))
        for metric in ("Qabf", "VIF", "SSIM")
    ]
    known = set(seen.of(open_pairs("roadscene", split="train")))
    assert all(known.isdisjoint(scored) for scored in seen.scored) and len(seen.scored) == 2

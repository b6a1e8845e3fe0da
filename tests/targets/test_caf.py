"""CAF's tables at smoke: what is learnt from and judged on is apart, searches are shared, files are small."""

import json

import pytest
from safetensors import safe_open

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.results import printed
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs
from fusionlab.fuser import load
from fusionlab.targets import caf


def measured(target, folder, row=None):
    made = targets.reproduce(target, folder, row, profile="smoke")
    assert records.lint(made) == []
    return {(record.row, record.metric): record for record in made}


def test_a_search_is_made_once_for_figure5_and_table3(tmp_path, monkeypatch):
    searches = []
    search = caf.search

    def watched(*arguments):
        searches.append(arguments[-1].exists())
        return search(*arguments)

    monkeypatch.setattr(caf, "search", watched)
    found = measured("caf/figure5", tmp_path)
    assert searches == [False] * 4 + [True] * 4  # and once more for the picture, from the checkpoint
    assert (tmp_path / "figures" / "caf" / "figure5.png").exists()
    shares = {row: [found[row, f"weight {name}"].value for name in caf.TERMS] for row in caf.SEARCHES}
    for row, weights in shares.items():
        assert sum(weights) == pytest.approx(1, abs=1e-5), row
    assert len({tuple(weights) for weights in shares.values()}) == 4  # each task, and the control, its own
    trial = measured("caf/table3", tmp_path, "people: searched")
    assert searches[8:] == [True]
    assert trial["people: searched", "mean IoU"].value == trial["people: searched", "IoU Person"].value
    again = measured("caf/table3", tmp_path, "people: searched")
    assert {key: r.value for key, r in again.items()} == {key: r.value for key, r in trial.items()}


def test_streets_that_are_learnt_from_tuned_on_and_judged_are_apart(tmp_path, monkeypatch, seen):
    opened = []
    open_scenes = caf.open_scenes

    def watched(n, seed, split, **settings):
        opened.append((n, seed, split))
        return open_scenes(n, seed, split, **settings)

    monkeypatch.setattr(caf, "open_scenes", watched)
    caf.labelled.cache_clear()
    run = Run.begin(tmp_path, "smoke", seed=3)
    task = caf.task_of("both", run)
    assert set(task.training.labels.unique().tolist()) == {0, 1, 2}
    found = measured("caf/table3", tmp_path, "both: infrared")
    assert {key[1:] for key in opened} >= {(3, "train"), (3, "val"), (0, "train"), (0, "val"), (0, "test")}
    assert {key[1] for key in opened if key[2] == "test"} == {0}  # judged on the same ones whatever the seed
    streets = [set(seen.of(caf.signs(2, 0, split))) for split in ("train", "val", "test")]
    assert not streets[0] & streets[1] and not streets[2] & (streets[0] | streets[1])
    assert found["both: infrared", "L1 to infrared"].value == 0
    assert found["both: infrared", "L1 to visible"].value > 20
    shuffled = caf.task_of("both", run, shuffled=True)
    assert (shuffled.training.ir == task.training.ir).all()
    assert (shuffled.training.labels == task.training.labels.roll(caf.SQUARES, 0)).all()


def test_every_network_and_every_weighting_has_its_trial():
    networks = {trial.network for trial in caf.TRIALS.values()}
    assert networks == {"CAF", "student", "teacher"}
    assert {trial.weights for trial in caf.TRIALS.values()} - {
        "infrared",
        "visible",
        "searched",
        "random",
    } == (set(caf.WEIGHTS))
    for name, weights in caf.WEIGHTS.items():
        assert sum(weights.values()) == pytest.approx(1) and set(weights) <= set(caf.TERMS), name
    drawn = [caf.loss_weights(caf.Trial("both", "random"), Run.begin(None, "smoke", seed)) for seed in (0, 1)]
    assert sum(drawn[0].values()) == pytest.approx(1) and drawn[0] != drawn[1]


def test_table2_has_the_columns_of_the_printed_one(tmp_path):
    found = measured("caf/table2", tmp_path, "visible")
    metrics = {metric for _, metric in found}
    wanted = {
        m
        for m in printed("caf", "table2", "MFNet", "Visible")
        if m.split()[0] in caf.TABLE2_CLASSES + ("mAcc", "mIoU")
    }
    assert metrics == wanted
    assert {record.unit for record in found.values()} == {"%"}


def test_figure7_scores_in_both_conventions_and_beside_baselines(shared, tmp_path):
    made = targets.reproduce("caf/figure7", tmp_path, "average", profile="smoke")
    assert records.lint(made) == []
    wanted = {("caf", m) for m in ("MI", "SD", "SCD", "VIF")} | {
        ("reference", m) for m in ("Qabf", "VIF", "SSIM")
    }
    for data in ("roadscene", "tno"):
        assert {(r.convention, r.metric) for r in made if r.data == data} == wanted
    assert {"average", "maximum", "caf"} < set(caf.TABLES["caf/figure7"].rows)


def test_the_model_is_small_and_says_what_made_it(shared, tmp_path):
    found = measured("caf/model", tmp_path, "both")
    assert {record.split for record in found.values()} == {"val", "test"}  # RoadScene's, and streets
    (file,) = tmp_path.glob("*.safetensors")
    assert file.stat().st_size < 1e6
    fuser = load("caf", file)
    assert fuser.sha256 == found["both", "VIF"].weights == found["both", "mean IoU"].weights
    with safe_open(file, "pt") as opened:
        weights = json.loads(opened.metadata()["weights"])
    assert tuple(weights) == caf.TERMS and sum(weights.values()) == pytest.approx(1, abs=1e-5)
    assert found["both", "mean IoU"].error is not None
    pair = open_pairs("roadscene", 1, split="val")[0]
    assert fuser(pair.ir, pair.vi).shape == pair.ir.shape

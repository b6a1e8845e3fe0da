"""The engine of all tables, on a made-up one: checks first, one profile recorded, means with their errors."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fusionlab.bench import records
from fusionlab.bench.run import Run
from fusionlab.bench.table import ANY, Score, Table, conventional, each, mean_and_error, run_table, scored
from fusionlab.data import open_pairs, read_image, to_uint8
from fusionlab.errors import UserError
from fusionlab.metrics import evaluate


def test_a_mean_and_its_standard_error_over_the_pairs(tmp_path, table):
    made = run_table(table, "x/y", tmp_path, profile="smoke", row="twice")
    levels = [2 * pair.vi.mean().item() for pair in open_pairs("scenes", 2, seed=0, split="test")]
    assert [(r.row, r.metric, r.data, r.split, r.n) for r in made] == [
        ("twice", "brightness", "scenes", "test", "2"),
        ("twice", "factor", "none", "none", "0"),
    ]
    assert made[0].value == pytest.approx(statistics.mean(levels))
    assert made[0].error == pytest.approx(statistics.stdev(levels) / math.sqrt(2))
    assert made[1].error is None
    assert records.read(tmp_path) == made


def test_the_range_of_a_sensors_values_is_recorded(tmp_path, table):
    counts = np.linspace(7000, 8000, 4096).reshape(64, 64).astype(np.uint16)
    for role, image in (("ir", counts), ("vi", np.full((64, 64), 50, np.uint8))):
        (tmp_path / "flight" / role).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "flight" / role / "a.png")
    with pytest.warns(UserWarning, match="infrared: 7000 to 7999 become 0 to 1"):
        made = run_table(
            replace(table, data=("scenes", ANY)), "a/b", tmp_path / "run", data=str(tmp_path / "flight")
        )
    notes = {(record.metric, record.note) for record in made}
    assert notes == {("brightness", "infrared 7000 to 7999 become 0 to 1"), ("factor", "")}


def test_what_a_pair_does_not_have_is_left_out_and_nan_is_no_mean():
    pairs = open_pairs("scenes", 3, size=(32, 32))

    def scores_of(pair):
        number = pairs.names.index(pair.name)
        yield Score("all", number)
        if number:
            yield Score("some", number)
        yield Score("broken", math.nan if number == 1 else 0.0)

    found = {score.metric: score for score in scored(scores_of, pairs)}
    assert found.keys() == {"all", "some"}
    assert (found["all"].value, found["some"].value) == (1, 1.5)
    assert found["some"].values == (1, 2)
    assert mean_and_error([0.25]) == (0.25, None)
    assert mean_and_error([1e16, 1.0, -1e16, 1.0])[0] == 0.5  # an exact sum


def test_conventional_scores_are_those_of_evaluate():
    pairs = open_pairs("scenes", 2, size=(48, 64))
    halved = lambda ir, vi: to_uint8((ir + vi) / 2)  # noqa: E731
    wanted = {"reference": ("EN", "SSIM"), "comofusion": None}
    found = {(s.convention, s.metric): s for s in scored(conventional(halved, wanted, "ab" * 8), pairs)}
    ir, vi = ([to_uint8(getattr(pair, role)) for pair in pairs] for role in ("ir", "vi"))
    fused = [halved(a / 255, b / 255) for a, b in zip(ir, vi, strict=True)]
    for convention, metrics in wanted.items():
        for metric, value in evaluate(ir, vi, fused, convention, metrics).mean().items():
            assert found[convention, metric].value == value
    assert found["reference", "EN"].unit == "bits"
    assert {s.weights for s in found.values()} == {"ab" * 8}


def test_a_row_profile_or_data_that_is_not_there_is_refused_before_anything_is_opened(tmp_path, table):
    with pytest.raises(UserError, match="no row 'thrice'; it has once, twice"):
        run_table(table, "x/y", tmp_path, row="thrice")
    with pytest.raises(UserError, match="not measured on 'tno'; it is on scenes"):
        run_table(table, "x/y", tmp_path, data="tno")
    with pytest.raises(UserError, match="no profile huge"):
        run_table(table, "x/y", tmp_path, profile="huge")
    assert not any(tmp_path.iterdir())


def test_a_profile_that_is_no_other_falls_back_and_is_recorded_as_what_was_run(tmp_path, table, capsys):
    made = run_table(table, "x/y", tmp_path, profile="gpu")
    assert {record.run.profile for record in made} == {"laptop"}
    assert {record.n for record in made} == {"8", "0"}
    assert "x/y is no other at profile gpu: running and recording laptop" in capsys.readouterr().err
    # A table of smoke and paper has no laptop: less is run, never more.
    long = Table(table.rows, table.measure, ("scenes",), profiles={"smoke": 1, "paper": 3})
    assert [long.profile(name) for name in ("smoke", "laptop", "gpu", "paper")] == [*["smoke"] * 3, "paper"]
    assert Table({}, table.measure, profiles={"gpu": None}).profile("smoke") == "gpu"


def test_what_is_there_is_not_written_twice_and_seeds_share_a_run(tmp_path, table):
    first = run_table(table, "x/y", tmp_path, row="once", profile="smoke")
    both = run_table(table, "x/y", tmp_path, profile="smoke", seeds=(0, 1))
    kept = records.read(tmp_path)
    assert len(kept) == 8 and kept[:2] == first
    assert {record.seed for record in both} == {0, 1}
    assert len({record.value for record in both if record.metric == "brightness"}) == 4
    assert len(records.read_stamps(tmp_path)) == 1


def test_scenes_of_a_training_are_the_same_for_every_seed(tmp_path, table):
    trained = Table(table.rows, table.measure, ("scenes",), trains=True)
    made = run_table(trained, "x/y", tmp_path, row="once", profile="smoke", seeds=(0, 1))
    assert len({record.value for record in made if record.metric == "brightness"}) == 1


def test_splits_are_taken_where_a_set_has_them(shared):
    run = Run.begin(None, "smoke")
    open_table = Table({}, each(lambda row, pairs, run: []), ("roadscene", "tno", ANY), ("val", "test"))
    opened = [(p.data, p.split) for data in ("roadscene", "tno") for p in open_table.open(data, run)]
    assert opened == [("roadscene", "val"), ("roadscene", "test"), ("tno", "all"), ("tno", "all")]
    assert [pairs.data for pairs in open_table.open("auto", run)] == ["roadscene"] * 2 + ["tno"] * 2


def test_pictures_of_scenes_may_be_promoted_and_others_images_may_not(tmp_path, shared):
    def picture(rows, pairs, run):
        return {f"seen-{pairs.data}.png": pairs[0].vi, "always.png": torch.zeros(1, 1, 16, 16)}

    table = Table({"a": 0}, each(lambda row, pairs, run: [Score("m", 1.0)]), (ANY,), picture=picture)
    run_table(table, "x/y", tmp_path, profile="smoke", data="scenes")
    run_table(table, "x/y", tmp_path, profile="smoke", data="tno")
    assert sorted(p.name for p in (tmp_path / "figures" / "x").iterdir()) == ["always.png", "seen-scenes.png"]
    assert [p.name for p in (tmp_path / "private" / "x").iterdir()] == ["seen-tno.png"]
    assert read_image(tmp_path / "figures" / "x" / "always.png").max() == 0


def test_values_of_each_pair_are_kept_where_a_table_asks(tmp_path, table):
    keeping = Table(table.rows, table.measure, ("scenes",), keep=True)
    made = run_table(keeping, "x/y", tmp_path, profile="smoke")
    kept = np.load(tmp_path / "figures" / "x" / "y.npz")
    brightness = [record for record in made if record.metric == "brightness"]
    assert sorted(kept.files) == sorted("|".join(record.key) for record in brightness)
    for record in brightness:
        assert kept["|".join(record.key)].mean() == pytest.approx(record.value)

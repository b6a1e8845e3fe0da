"""CoMoFusion's tables: baseline rows against an independent measurement, trainings that resume, noise."""

from dataclasses import replace

import pytest
import torch

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.run import Run
from fusionlab.bench.table import conventional, scored
from fusionlab.data import open_pairs, read_image, to_uint8
from fusionlab.data.pair import Pair
from fusionlab.errors import UserError
from fusionlab.fuser import fuse, load
from fusionlab.methods.comofusion import LAMBDAS, RECIPES, Recipe, Stage
from fusionlab.metrics import evaluate
from fusionlab.targets.comofusion import SHOWN, TABLES, WINDOW, fuser_of, noise_and_back, training_hours

# Figure 2.


def test_figure2_in_numbers_and_as_a_picture_of_scenes(tmp_path):
    made = targets.reproduce("comofusion/figure2", tmp_path, profile="smoke")
    value = {(record.row, record.metric): record.value for record in made}
    for i in (1, 10, 20, 30, 40):
        assert value["forward", f"variance ratio at t_{i}"] == pytest.approx(1, abs=0.03)
        difference = (
            value["forward", f"correlation at t_{i}"] - value["forward", f"predicted correlation at t_{i}"]
        )
        assert abs(difference) < 0.02
    assert value["euler", "error at N 40"] == pytest.approx(0.0221, abs=1e-3)
    assert value["heun", "error at N 40"] == pytest.approx(0.0037, abs=1e-3)
    assert value["euler", "order"] == pytest.approx(1, abs=0.05)
    assert value["heun", "order"] == pytest.approx(2, abs=0.1)
    assert value["one step", "spread kept at N 40"] == pytest.approx(0.9297, abs=1e-4)
    height, width = (side + 2 for side in WINDOW)
    picture = read_image(tmp_path / "figures" / "comofusion" / "figure2.png")
    assert picture.shape[-2:] == (4 * height, len(SHOWN) * width)
    with pytest.raises(UserError, match="forward"):
        targets.reproduce("comofusion/figure2", tmp_path, row="backward")


class Three(list):
    """Three pairs of noise, called like scenes."""

    data, split = "scenes", "test"


def test_the_way_back_ends_in_one_of_the_pairs():
    vi, ir = torch.rand(2, 3, 1, 1, *WINDOW, generator=torch.Generator().manual_seed(0))
    pairs = Three(Pair(str(k), ir[k], vi[k]) for k in range(3))
    height, width = (side + 2 for side in WINDOW)
    drawn = noise_and_back([], pairs, Run.begin(None, "smoke", seed=1))["figure2.png"][0, 0]
    end = torch.stack([drawn[r * height :, :width][1 : height - 1, 1 : width - 1] for r in (2, 3)])
    shown = ((2 * torch.cat([vi, ir], 2)[:, 0] - 1) / (1 + 2 * 0.002) + 1) / 2
    assert min((end - pair).abs().max().item() for pair in shown) < 0.01


# Tables 1 to 3.

# TNO, all 42 pairs, 8-bit: EN, SF, AG, SD, Qabf, SSIM in the paper's convention, measured independently.
ON_TNO = {
    "visible": (6.828, 9.706, 3.575, 45.04, 0.544, 0.498),
    "infrared": (6.670, 7.653, 2.892, 41.73, 0.534, 0.498),
    "maximum": (6.781, 9.503, 3.558, 38.58, 0.602, 0.498),
    "clipped sum": (6.618, 11.774, 4.402, 44.94, 0.438, 0.436),
}


def on_tno(row, metrics=None):
    fuser = fuser_of(row)
    rule = conventional(lambda ir, vi: fuse(fuser, ir, vi), {"comofusion": metrics})
    return {score.metric: score.value for score in scored(rule, open_pairs("tno"))}


def test_the_average_rounds_halves_up(shared):
    """Half of its values end in .5, and rounding them to even levels takes its EN to 6.157."""
    found = on_tno("average", ["EN", "SD"])
    assert found == pytest.approx({"EN": 6.346, "SD": 24.813}, abs=1e-3)


@pytest.mark.parametrize("row", ["maximum", "clipped sum"])
def test_rows_without_a_network_on_tno(shared, row):
    found = on_tno(row)
    for metric, wanted in zip(("EN", "SF", "AG", "SD", "Qabf", "SSIM"), ON_TNO[row], strict=True):
        assert found[metric] == pytest.approx(wanted, rel=2e-3, abs=1e-3), metric


def test_rows_of_table1_are_scored_in_both_conventions_and_drawn(tmp_path):
    made = targets.reproduce("comofusion/table1", tmp_path, "ours", "smoke", "scenes")
    metrics = {name: {r.metric for r in made if r.convention == name} for name in ("comofusion", "reference")}
    assert metrics == {
        "comofusion": {"EN", "SF", "AG", "SD", "Qabf", "SSIM"},
        "reference": {"Qabf", "VIF", "SSIM"},
    }
    assert len(made) == 9
    assert {record.weights for record in made} == {load("comofusion").sha256}
    assert records.lint(made) == []
    assert read_image(tmp_path / "figures" / "comofusion" / "table1.png").shape == (1, 1, 2 * 144, 192)


def test_table3_times_both(tmp_path):
    made = targets.reproduce("comofusion/table3", tmp_path, "average", "smoke")
    assert made[0].metric == "time 160x120"
    assert made[0].unit == "s" and 0 < made[0].value < 1
    assert read_image(tmp_path / "figures" / "comofusion" / "table3.png").shape == (1, 1, 120, 160)
    both = targets.reproduce("comofusion/table3", tmp_path, profile="smoke")
    assert [record.row for record in both if record.metric == "time 160x120"] == ["ours", "average"]
    assert read_image(tmp_path / "figures" / "comofusion" / "table3.png").shape == (1, 1, 2 * 120, 160)


# What is trained by the run.


def test_a_model_is_trained_saved_scored_and_taken_up_again(shared, tmp_path, assert_apart):
    made = targets.reproduce("comofusion/model", tmp_path, profile="smoke")
    assert {record.row for record in made} == {*LAMBDAS, "on random features", "average"}
    assert {(record.data, record.split) for record in made} == {("roadscene", "val")}
    assert records.lint(made) == []
    again = targets.reproduce("comofusion/model", tmp_path, profile="smoke")
    assert [r.value for r in again] == [r.value for r in made]
    assert records.read(tmp_path) == made  # nothing twice
    other = targets.reproduce("comofusion/model", tmp_path, "lambda 1", "smoke", seeds=(1,))
    assert other[0].weights != made[0].weights
    assert_apart(open_pairs("roadscene", 2, split="val"), open_pairs("roadscene", split="train"), 5 + 5 + 1)


def test_table4_trains_each_row_its_own_way_and_scores_it_on_other_pairs(shared, tmp_path, assert_apart):
    made = targets.reproduce("comofusion/table4", tmp_path, profile="smoke")
    rows = list(TABLES["comofusion/table4"].rows)
    hashes = {record.row: record.weights for record in made}
    assert list(hashes) == rows
    assert len(set(hashes.values())) == len(rows) == 8
    shared_stages = sorted(file.name for file in tmp_path.glob("checkpoints/*/*"))
    assert [name for name in shared_stages if name[:4] in ("auto", "cons", "tune")] == [
        "autoencoder-0.safetensors",
        "consistency-pseudo_huber-40-0.safetensors",
        "tuned-0.safetensors",
    ]
    assert {(record.data, record.split, record.n) for record in made} == {("msrs", "test", "2 of 361")}
    picture = read_image(tmp_path / "figures" / "comofusion" / "table4-seed0.png")
    assert picture.shape == (1, 1, 2 * 144, 8 * 192)
    unseen = open_pairs("msrs", 2, split="test")
    assert_apart(unseen, open_pairs("roadscene", split="train"), 8)

    # Each row again from its file, and what it minimised by the weights that are still random or are not.
    ir, vi = ([to_uint8(getattr(pair, role)) for pair in unseen] for role in ("ir", "vi"))
    values = {}
    for row in rows:
        (file,) = tmp_path.glob(f"*-{row.replace('/', '').replace(' ', '-')}-seed0.safetensors")
        fuser = load("comofusion", file)
        assert fuser.sha256 == hashes[row]
        fused = [fuse(fuser, a / 255, b / 255) for a, b in zip(ir, vi, strict=True)]
        wanted = evaluate(ir, vi, fused, "comofusion", ["EN", "SD"]).mean()
        values[row] = {r.metric: r.value for r in made if r.row == row}
        assert {metric: values[row][metric] for metric in wanted} == pytest.approx(wanted, rel=1e-6)
    # After three steps the tied average is still the untrained network, but for the last bits.
    assert len({tuple(found.values()) for found in values.values()}) >= 7


def test_the_papers_and_the_released_recipe_train_in_one_run_and_are_scored(shared, tmp_path, assert_apart):
    made = targets.reproduce("comofusion/recipe", tmp_path, profile="smoke")
    assert records.lint(made) == []
    assert [(record.row, record.metric) for record in made] == [
        (row, metric) for row in ("paper", "released") for metric in ("EN", "SD", "Qabf", "SSIM")
    ]
    assert len({record.weights for record in made}) == 2
    assert sorted(file.name for file in tmp_path.glob("checkpoints/*/*")) == [
        "consistency-lpips-40-0.safetensors",
        "consistency-lpips-growing-0.safetensors",
        "paper-0.safetensors",
        "released-0.safetensors",
    ]
    assert_apart(open_pairs("roadscene", 2, split="test"), open_pairs("roadscene", split="train"), 2)


def test_hours_of_a_recipe_are_those_once_measured():
    """10,000 steps of 15 crops of 160 pixels took a T4 2.4 hours; twice the steps or half the sides scale."""
    once = Recipe(64, Stage(10_000, 15, 160), Stage(0))
    assert training_hours(once)["T4"] == pytest.approx(2.4, rel=0.05)
    assert training_hours(replace(once, first=Stage(20_000, 15, 80)))["T4"] == pytest.approx(1.2, rel=0.05)
    assert training_hours(RECIPES["paper"])["T4"] > 24 > training_hours(RECIPES["paper"])["H200"]


def test_unknown_rows_name_the_known(tmp_path):
    for target in ("model", "table1", "table3", "table4"):
        with pytest.raises(UserError, match="average|ours"):
            targets.reproduce(f"comofusion/{target}", tmp_path, row="nobody")
    with pytest.raises(UserError, match="not measured on 'nonsense'; it is on none"):
        targets.reproduce("comofusion/table3", tmp_path, data="nonsense")

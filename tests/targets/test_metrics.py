"""Studies of metrics: ranks and flips by hand, tricks that do what they say, records of small runs."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.targets import agreement, metrics, tricks

IR, VI = torch.rand(2, 1, 1, 64, 72, generator=torch.Generator().manual_seed(0))


def test_flips_by_hand():
    means = {
        "reference": torch.tensor([3.0, 2.0, 1.0]),
        "doubled": torch.tensor([6.0, 4.0, 2.0]),
        "last two swapped": torch.tensor([3.0, 1.0, 2.0]),
        "upside down": torch.tensor([1.0, 2.0, 3.0]),
    }
    found = {(name, figure): value for name, figure, value, _ in metrics.flips(means, "abc", "higher")}
    assert found["all", "forms"] == 4
    assert found["doubled", "flips against reference"] == 0
    assert found["last two swapped", "flips against reference"] == pytest.approx(100 / 3)
    assert found["upside down", "flips against reference"] == found["all", "flips somewhere"] == 100
    assert [found["last two swapped", f"rank of {x}"] for x in "abc"] == [1, 3, 2]
    lower = {(name, figure): value for name, figure, value, _ in metrics.flips(means, "abc", "lower")}
    assert [lower["reference", f"rank of {x}"] for x in "abc"] == [3, 2, 1]


def test_spearman_is_that_of_scipy_and_leaves_out_what_has_no_value():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(0, 9, (2, 5, 12), generator=generator).double()
    for mine, a, b in zip(agreement.spearman(x, y), x, y, strict=True):
        assert mine == pytest.approx(spearmanr(a, b).statistic)
    x[0, 3] = math.nan
    there = [k for k in range(12) if k != 3]
    assert agreement.spearman(x, y)[0] == pytest.approx(spearmanr(x[0, there], y[0, there]).statistic)
    assert math.isnan(agreement.spearman(x, torch.ones_like(y))[0])
    assert math.isnan(agreement.spearman(x * math.nan, y)[0])


def test_mean_and_standard_error():
    mean, error = agreement.mean_of([1.0, math.nan, 3.0])
    assert (mean, error) == (2.0, 1.0)


def test_tricks_do_what_they_say():
    image = tricks.BASELINES["average"](IR, VI)
    assert (tricks.sharpened(image).diff().abs().mean() > 2 * image.diff().abs().mean()).item()
    full = tricks.stretched(image)
    assert (full == 0).double().mean().item() == pytest.approx(0.02, abs=0.005)
    assert (full == 1).double().mean().item() == pytest.approx(0.02, abs=0.005)
    grain = 255 * (tricks.noisy(image / 2 + 0.25, 10) - image / 2 - 0.25)
    assert grain.std().item() == pytest.approx(10, rel=0.05)
    assert torch.equal(tricks.TRICKS["infrared"](IR, VI), IR)
    for trick in tricks.TRICKS.values():
        made = trick(IR, VI)
        assert made.shape == IR.shape and 0 <= made.min() <= made.max() <= 1


def test_every_form_is_computed_once_and_by_its_saving_rule():
    class Counting:
        calls = 0

        def __call__(self, ir, vi, fused):
            Counting.calls += 1
            return fused.amax((1, 2, 3))

    clip = metrics.form("reference", "SD")[0].__class__("top", "1", "test", Counting())
    pairs = metrics.open_set("scenes", "smoke", 0)
    images = {"half": lambda ir, vi: ir / 2}
    found = metrics.score(pairs, images, [(clip, "clip"), (clip, "stretch"), (clip, "clip")])
    assert Counting.calls == 2 * len(pairs)
    assert (found[clip, "stretch"] == 255).all() and (found[clip, "clip"] <= 128).all()


def test_rows_of_conventions_carry_their_papers_and_their_weights(tmp_path):
    made = targets.reproduce("metrics/conventions", "mmdrfuse", "smoke", "scenes", 0, tmp_path)
    papers = {"comofusion", "coconet", "mmdrfuse", "dmfuse", "caf"}
    assert {record.convention for record in made} == papers | {"reference"}
    assert {len(record.weights) for record in made} == {64}
    assert records.lint(made) == []
    copy = targets.reproduce("metrics/conventions", "infrared", "smoke", "scenes", 0, tmp_path)
    assert "SCD" not in {record.metric for record in copy}  # a copy has none


def test_caf_is_measured_on_the_three_pairs_of_m3fd(tmp_path, shared, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_MIRROR", str(shared / "data"))
    made = targets.reproduce("metrics/conventions", "average", "laptop", "m3fd", 0, tmp_path)
    assert {record.metric for record in made if record.convention == "caf"} == {"SD", "MI", "VIF", "SCD"}
    assert {record.n for record in made} == {"3 of 4200"}


def test_noise_raises_entropy_and_gradients_and_nothing_else_that_sees_the_sources(tmp_path):
    made = targets.reproduce("metrics/noise", None, "smoke", "scenes", 0, tmp_path)
    value = {(record.row, record.metric): record.value for record in made}
    for metric in ("EN", "SD", "SF", "AG"):
        assert value["noise 20", metric] > value["noise 0", metric]
    for metric in ("MI", "VIF", "Qabf", "SSIM", "SCD", "CC"):
        assert value["noise 20", metric] < value["noise 0", metric]


def test_one_row_of_each_study(tmp_path):
    flips = targets.reproduce("metrics/rank-flips", "SSIM", "smoke", "scenes", 0, tmp_path)
    ranks = [record.value for record in flips if record.convention == "reference"]
    assert sorted(ranks) == list(range(1, 11))
    both = targets.reproduce("metrics/correlations", "SF ~ AG", "smoke", "scenes", 0, tmp_path)
    assert {record.metric for record in both} == {"over fusers", "over pairs"}
    assert both[0].value > 0.5
    alone = targets.reproduce("metrics/correlations", "EN ~ AG", "smoke", "scenes", 0, tmp_path)
    assert all(-1 <= record.value <= 1 for record in alone)
    agreeing = targets.reproduce("metrics/truth", "PSNR", "smoke", "auto", 0, tmp_path)
    assert [record.metric for record in agreeing][:2] == ["with PSNR, fusers", "with PSNR, all"]
    assert records.lint([*flips, *both, *alone, *agreeing]) == []


def test_unknown_rows_and_data_are_refused(tmp_path):
    for target in ("conventions", "noise", "rank-flips", "correlations", "truth"):
        with pytest.raises(UserError, match="nobody"):
            targets.reproduce(f"metrics/{target}", row="nobody", profile="smoke", run=tmp_path)
    with pytest.raises(UserError, match="truth is known"):
        targets.reproduce("metrics/truth", data="tno", profile="smoke", run=tmp_path)

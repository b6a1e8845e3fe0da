"""Agreement of orders: flips and places by hand, rank correlation as SciPy's."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from fusionlab.metrics.agreement import flips, mean_ranks, spearman


def test_flips_by_hand():
    means = {
        "reference": torch.tensor([3.0, 2.0, 1.0]),
        "doubled": torch.tensor([6.0, 4.0, 2.0]),
        "last two swapped": torch.tensor([3.0, 1.0, 2.0]),
        "upside down": torch.tensor([1.0, 2.0, 3.0]),
    }
    found = {(name, figure): value for name, figure, value, _ in flips(means, "abc", "higher")}
    assert found["all", "forms"] == 4
    assert found["doubled", "flips against reference"] == 0
    assert found["last two swapped", "flips against reference"] == pytest.approx(100 / 3)
    assert found["upside down", "flips against reference"] == found["all", "flips somewhere"] == 100
    assert [found["last two swapped", f"rank of {x}"] for x in "abc"] == [1, 3, 2]
    lower = {(name, figure): value for name, figure, value, _ in flips(means, "abc", "lower")}
    assert [lower["reference", f"rank of {x}"] for x in "abc"] == [3, 2, 1]


def test_spearman_is_that_of_scipy_and_leaves_out_what_has_no_value():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randint(0, 9, (2, 5, 12), generator=generator).double()
    for mine, a, b in zip(spearman(x, y), x, y, strict=True):
        assert mine == pytest.approx(spearmanr(a, b).statistic)
    x[0, 3] = math.nan
    there = [k for k in range(12) if k != 3]
    assert spearman(x, y)[0] == pytest.approx(spearmanr(x[0, there], y[0, there]).statistic)
    assert math.isnan(spearman(x, torch.ones_like(y))[0])
    assert math.isnan(spearman(x * math.nan, y)[0])


def test_places_by_hand():
    scores = {"a": {"x": 3.0, "y": 1.0}, "b": {"x": 2.0, "y": 1.0}, "c": {"x": 1.0, "y": 5.0}}
    assert mean_ranks(scores) == {"a": 1.5, "b": 2.0, "c": 2.0}

"""Separable filtering against dense two-dimensional windows."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from fusionlab.metrics.filters import gaussian_taps, separable, uniform_taps


@pytest.mark.parametrize(
    "taps", [gaussian_taps(3, 0.6), gaussian_taps(9, 1.8), uniform_taps(4)], ids=["3", "9", "uniform 4"]
)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_equals_the_dense_window(taps: list[float], step: int) -> None:
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 17, 22))
    filtered = separable(torch.from_numpy(x), taps, step).numpy()
    for index in np.ndindex(2, 3):
        dense = convolve2d(x[index], np.outer(taps, taps), mode="valid")[::step, ::step]
        np.testing.assert_allclose(filtered[index], dense, rtol=1e-13)


def test_input_is_left_as_it_was() -> None:
    x = torch.rand(1, 1, 9, 9, dtype=torch.float64)
    before = x.clone()
    separable(x, uniform_taps(1))
    separable(x, gaussian_taps(5, 1.0))
    assert torch.equal(x, before)


def test_gaussian_taps_are_normalised_and_of_the_given_width() -> None:
    taps = np.array(gaussian_taps(41, 3.0))
    assert taps.sum() == pytest.approx(1, abs=1e-15)
    assert (taps * (np.arange(41) - 20) ** 2).sum() == pytest.approx(9, rel=1e-6)

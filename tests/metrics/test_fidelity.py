"""VIFp against a slow version with dense two-dimensional windows, and at its limits."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor

from fusionlab.metrics.fidelity import saturated_vifp, viff, vifp


def slow_vifp(source: np.ndarray, fused: np.ndarray) -> float:
    kept = present = 0.0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        i, j = np.mgrid[:size, :size] - size // 2
        window = np.exp(-(i**2 + j**2) / (2 * (size / 5) ** 2))
        window /= window.sum()
        if scale > 1:
            source = convolve2d(source, window, mode="valid")[::2, ::2]
            fused = convolve2d(fused, window, mode="valid")[::2, ::2]
        mean_x, mean_f = (convolve2d(x, window, mode="valid") for x in (source, fused))
        xx, ff, xf = (convolve2d(x, window, mode="valid") for x in (source**2, fused**2, source * fused))
        for vx, vf, c in zip(
            (xx - mean_x**2).ravel(), (ff - mean_f**2).ravel(), (xf - mean_x * mean_f).ravel(), strict=True
        ):
            vx, vf = max(vx, 0.0), max(vf, 0.0)
            gain = c / (vx + 1e-10)
            rest = vf - gain * c
            if vx < 1e-10:
                gain, rest, vx = 0.0, vf, 0.0
            if vf < 1e-10:
                gain, rest = 0.0, 0.0
            if gain < 0:
                gain, rest = 0.0, vf
            kept += math.log10(1 + gain**2 * vx / (max(rest, 1e-10) + 2))
            present += math.log10(1 + vx / 2)
    return kept / present


def noise(seed: int, height: int = 61, width: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 1, height, width), generator=generator).double()


def test_equals_dense_windows() -> None:
    source = noise(0)
    fused = ((source + noise(1)) / 2).floor()
    source[..., :30, :25] = 90  # whole flat windows
    fused[..., 20:, :22] = 255
    expected = slow_vifp(source[0, 0].numpy(), fused[0, 0].numpy())
    assert vifp(source, fused).item() == pytest.approx(expected, rel=1e-11)


def test_copy_scores_one_and_contrast_more() -> None:
    x = noise(2).clamp(60, 180)
    assert vifp(x, x).item() == pytest.approx(1, abs=1e-6)
    assert vifp(x, 2 * x - 105).item() > 1.1
    assert vifp(x, 255 - x).item() < 0.05


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_constant_images(level: int) -> None:
    flat = torch.full((1, 1, 41, 41), float(level), dtype=torch.float64)
    assert vifp(noise(3, 41, 41), flat).item() == 0
    assert math.isnan(vifp(flat, noise(3, 41, 41)).item())


def test_saturated_products_inflate_the_value() -> None:
    """The first scale is left with rounding noise of huge weight: on noise the value triples."""
    source = noise(4)
    fused = ((source + noise(5)) / 2).floor()
    assert saturated_vifp(source, fused).item() > 1.5 * vifp(source, fused).item()
    dark = (source / 30).floor()  # no product of levels 0..8 reaches 255
    assert saturated_vifp(dark, (fused / 30).floor()).item() == pytest.approx(
        vifp(dark, (fused / 30).floor()).item(), rel=1e-12
    )


def test_range_of_the_images_changes_the_value() -> None:
    source, fused = noise(6), ((noise(6) + noise(7)) / 2).floor()
    assert vifp(source / 255, fused / 255).item() > 1.1 * vifp(source, fused).item()


def test_viff_takes_the_source_of_smaller_gain() -> None:
    ir, vi = noise(8), noise(9)
    assert viff(ir, vi, ir).item() < 0.1  # the gain of what is missing is the smaller one
    assert viff(ir, ir, ir).item() == pytest.approx(1, abs=1e-6)
    assert viff(ir, vi, torch.full_like(ir, 90.0)).item() < 1e-6

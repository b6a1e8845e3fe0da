"""Qabf against a slow version in plain loops, and at its limits."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionlab.metrics.gradient import qabf

SX = [(-1, -1, 1), (0, -1, 2), (1, -1, 1), (-1, 1, -1), (0, 1, -2), (1, 1, -1)]  # left minus right


def slow_edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape
    strength, angle = np.zeros(image.shape), np.zeros(image.shape)
    for i in range(height):
        for j in range(width):
            sx = sy = 0
            for a, b, weight in SX:
                if 0 <= i + a < height and 0 <= j + b < width:
                    sx += weight * int(image[i + a, j + b])
                if 0 <= i - b < height and 0 <= j + a < width:
                    sy += weight * int(image[i - b, j + a])
            strength[i, j] = math.sqrt(sx * sx + sy * sy)
            angle[i, j] = math.pi / 2 if sx == 0 else math.atan(sy / sx)
    return strength, angle


def slow_qabf(ir: np.ndarray, vi: np.ndarray, fused: np.ndarray) -> float:
    fused_strength, fused_angle = slow_edges(fused)
    above = below = 0.0
    for source in (ir, vi):
        strength, angle = slow_edges(source)
        for index in np.ndindex(*source.shape):
            g, f = strength[index], fused_strength[index]
            ratio = f if g == f else min(g, f) / max(g, f)
            turn = 1 - abs(angle[index] - fused_angle[index]) / (math.pi / 2)
            by_strength = 0.9994 / (1 + math.exp(-15 * (ratio - 0.5)))
            by_angle = 0.9879 / (1 + math.exp(-22 * (turn - 0.8)))
            above += by_strength * by_angle * g
            below += g
    return above / below


def noise(seed: int, levels: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (1, 1, 19, 23), generator=generator).double()


@pytest.mark.parametrize("levels", [256, 3])  # three levels: ties, flat ground and vertical edges abound
def test_equals_plain_loops(levels: int) -> None:
    ir, vi, fused = noise(0, levels), noise(1, levels), noise(2, levels)
    fused[..., :6, :] = ir[..., :6, :]
    expected = slow_qabf(*(x[0, 0].numpy() for x in (ir, vi, fused)))
    assert qabf(ir, vi, fused).item() == pytest.approx(expected, rel=1e-12)


def test_perfect_fusion_scores_the_end_of_the_sigmoids() -> None:
    end = 0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert end == pytest.approx(0.9753, abs=5e-5)
    x = 10 * noise(3, 25)
    assert qabf(x, x, x).item() == pytest.approx(end, rel=1e-9)


def test_rim_scores_for_a_constant_image() -> None:
    flat, black = torch.full((1, 1, 19, 23), 100.0).double(), torch.zeros(1, 1, 19, 23).double()
    assert qabf(noise(4), noise(5), flat).item() > 0.01
    assert math.isnan(qabf(black, black, flat).item())


def test_symmetric_in_the_sources_but_not_in_the_fused_image() -> None:
    ir, vi, fused = noise(6), noise(7), noise(8)
    assert qabf(ir, vi, fused).item() == pytest.approx(qabf(vi, ir, fused).item(), rel=1e-14)
    assert abs(qabf(ir, vi, fused).item() - qabf(ir, fused, vi).item()) > 1e-3

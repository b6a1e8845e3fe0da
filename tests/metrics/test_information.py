"""Entropy and mutual information: closed forms, bounds and invariances."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from fusionlab.metrics.information import (
    entropy,
    merged_information,
    mutual_information,
    normalised_information,
)

SIDES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
IMAGES = arrays(np.uint8, SIDES)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float64))[None, None]


def bits(x: Tensor, y: Tensor, fused: Tensor) -> float:
    return sum(mutual_information(source, fused, base=2).item() for source in (x, y))


def test_entropy_of_equal_shares_counts_the_levels() -> None:
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    assert math.isclose(entropy(levels, levels, levels).item(), 8, rel_tol=1e-12)
    assert math.isclose(entropy(levels, levels, levels % 4).item(), 2, rel_tol=1e-12)


def test_constant_image_has_no_information_and_no_minus_zero() -> None:
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    flat = torch.full_like(levels, 255)
    assert math.copysign(1, entropy(levels, levels, flat).item()) == 1
    assert entropy(levels, levels, flat).item() == bits(levels, levels, flat) == bits(flat, flat, levels) == 0


def test_independent_images_share_nothing() -> None:
    column = torch.arange(16, dtype=torch.float64)
    rows, columns = column[:, None].expand(16, 16)[None, None], column.expand(16, 16)[None, None]
    assert abs(bits(rows, columns, columns) - 4) < 1e-12


@given(IMAGES)
def test_entropy_is_bounded_by_levels_and_pixels(image: np.ndarray) -> None:
    x = tensor(image)
    value = entropy(x, x, x).item()
    assert -1e-12 <= value <= math.log2(min(256, image.size)) + 1e-12
    assert math.isclose(value, bits(x, x, x) / 2, abs_tol=1e-12)


@given(SIDES.flatmap(lambda shape: st.tuples(*[arrays(np.uint8, shape)] * 3)), st.permutations(range(256)))
@settings(max_examples=50)
def test_mutual_information_ignores_relabelling_and_order(
    images: tuple[np.ndarray, ...], labels: list[int]
) -> None:
    ir, vi, fused = map(tensor, images)
    relabelled = torch.tensor(labels, dtype=torch.float64)[fused.long()]
    value = bits(ir, vi, fused)
    assert math.isclose(bits(ir, vi, relabelled), value, rel_tol=1e-12, abs_tol=1e-12)
    assert math.isclose(bits(vi, ir, fused), value, rel_tol=1e-12, abs_tol=1e-12)
    nats = sum(mutual_information(source, fused, math.e).item() for source in (ir, vi))
    assert math.isclose(nats, value * math.log(2), abs_tol=1e-12)
    assert value <= 2 * entropy(ir, vi, fused).item() + 1e-12


def test_merged_levels_gain_information_that_was_never_shared() -> None:
    """Sources whose 254 and 255 are independent: merged in the joint histogram they still count as two."""
    rows, columns = (254 + torch.arange(2.0).double()[:, None]).expand(2, 2), 254 + torch.arange(2.0).double()
    x, y = rows[None, None], columns.expand(2, 2)[None, None]
    assert mutual_information(x, y, 2).item() == 0
    assert math.isclose(merged_information(x, y).item(), 2)
    below = x - 100, y - 100
    assert abs(merged_information(*below).item()) < 1e-12


def test_normalised_information_is_one_for_any_relabelled_copy() -> None:
    levels = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16)
    assert math.isclose(normalised_information(levels, 255 - levels).item(), 1)
    assert normalised_information(levels, levels * 0).item() == 0
    assert math.isnan(normalised_information(levels * 0, levels * 0).item())

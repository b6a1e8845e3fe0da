"""The three readings of Eq. 3 on lines whose edges are known."""

import pytest
import torch

from fusionlab.losses.gradient import gradient_loss, laplacian_edges, target_edges


def test_laplacian_answers_at_the_border_of_a_flat_white_image():
    edges = laplacian_edges(torch.ones(1, 1, 6, 5))
    assert edges[..., 1:-1, 1:-1].abs().max() == 0
    assert edges[0, 0, 0].tolist() == [-0.625, -0.375, -0.375, -0.375, -0.625]


def test_the_printed_target_prefers_a_weak_rising_edge_the_coded_one_follows_the_brighter_image():
    """A bright line in vi, flat ir: on the line the answer is negative, so the signed maximum drops it."""
    ir, vi = torch.full((1, 1, 9, 9), 0.3), torch.zeros(1, 1, 9, 9)
    vi[..., 4] = 1.0
    brighter = torch.maximum(ir, vi)
    assert gradient_loss(brighter, ir, vi, "released").item() == 0
    assert gradient_loss(brighter, ir, vi, "paper").item() > 0.01


def test_by_magnitude_both_a_bright_and_a_dark_line_are_kept():
    ir, vi = torch.full((1, 1, 9, 12), 0.5), torch.full((1, 1, 9, 12), 0.5)
    ir[..., 3], vi[..., 8] = 0.6, 0.1
    inside = (..., slice(1, -1), slice(1, -1))
    wanted = (laplacian_edges(ir) + laplacian_edges(vi))[inside]  # only one of them is not 0 there
    assert torch.equal(target_edges(ir, vi, "magnitude")[inside], wanted)
    dark_line = (0, 0, 4, 8)
    assert target_edges(ir, vi, "magnitude")[dark_line] == pytest.approx(0.3)
    bright_line = (0, 0, 4, 3)
    assert target_edges(ir, vi, "magnitude")[bright_line] == pytest.approx(-0.075)
    assert target_edges(ir, vi, "paper")[bright_line] == pytest.approx(0, abs=1e-6)

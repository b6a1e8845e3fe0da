"""Each loss against arithmetic done by hand."""

import pytest
import torch

from fusionlab.losses.gradient import gradient_loss, laplacian
from fusionlab.losses.pixel import intensity_loss


def test_intensity_is_the_mean_distance_to_the_brighter_source():
    ir, vi = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.25]]]])
    assert intensity_loss(torch.maximum(ir, vi), ir, vi).item() == 0
    assert intensity_loss(torch.zeros_like(ir), ir, vi).item() == pytest.approx(0.75)


def test_laplacian_answers_at_the_border_of_a_flat_white_image():
    edges = laplacian(torch.ones(1, 1, 6, 5))
    assert edges[..., 1:-1, 1:-1].abs().max() == 0
    assert edges[0, 0, 0].tolist() == [-0.625, -0.375, -0.375, -0.375, -0.625]


def test_the_printed_target_prefers_a_weak_rising_edge_the_coded_one_follows_the_brighter_image():
    """A bright line in vi, flat ir: on the line the answer is negative, so the signed maximum drops it."""
    ir, vi = torch.full((1, 1, 9, 9), 0.3), torch.zeros(1, 1, 9, 9)
    vi[..., 4] = 1.0
    brighter = torch.maximum(ir, vi)
    assert gradient_loss(brighter, ir, vi, "released").item() == 0
    assert gradient_loss(brighter, ir, vi, "paper").item() > 0.01

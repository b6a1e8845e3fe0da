"""Intensity against arithmetic done by hand."""

import pytest
import torch

from fusionlab.losses.pixel import brightness_loss, intensity_loss


def test_intensity_is_the_mean_distance_to_the_brighter_source():
    ir, vi = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.25]]]])
    assert intensity_loss(torch.maximum(ir, vi), ir, vi).item() == 0
    assert intensity_loss(torch.zeros_like(ir), ir, vi).item() == pytest.approx(0.75)


def test_brightness_is_that_of_squares_and_blind_to_what_is_smaller():
    ir, vi = torch.rand(2, 1, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    mean = (ir + vi) / 2
    stripes = torch.tensor([0.3, -0.3]).repeat(24)  # mean 0 in every square
    assert brightness_loss(mean + stripes, ir, vi).item() == pytest.approx(0, abs=1e-7)
    raised = mean.clone()
    raised[..., :16, :16] += 0.6
    assert brightness_loss(raised, ir, vi).item() == pytest.approx(0.6 / 6, rel=1e-5)
    assert brightness_loss(mean[..., :8, :8] + 0.2, ir[..., :8, :8], vi[..., :8, :8]).item() == pytest.approx(
        0.2
    )

"""Intensity against arithmetic done by hand."""

import pytest
import torch

from fusionlab.losses.pixel import intensity_loss


def test_intensity_is_the_mean_distance_to_the_brighter_source():
    ir, vi = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.25]]]])
    assert intensity_loss(torch.maximum(ir, vi), ir, vi).item() == 0
    assert intensity_loss(torch.zeros_like(ir), ir, vi).item() == pytest.approx(0.75)


def test_intensity_to_the_mean_of_both():
    ir, vi = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.25]]]])
    assert intensity_loss((ir + vi) / 2, ir, vi, "mean").item() == 0
    assert intensity_loss(torch.zeros_like(ir), ir, vi, "mean").item() == pytest.approx(0.4375)

"""Eq. 4 on feature maps made up by hand."""

import pytest
import torch

from fusionlab.losses.perceptual import perceptual_loss, source_maxima


def test_each_tap_counts_alike_whatever_its_size():
    ir, vi = (
        [torch.zeros(1, 2, 8, 8), torch.ones(1, 4, 2, 2)],
        [torch.ones(1, 2, 8, 8), torch.zeros(1, 4, 2, 2)],
    )
    target = source_maxima(ir, vi)
    assert all(torch.equal(tap, torch.ones_like(tap)) for tap in target)
    fused = [torch.full_like(target[0], 0.5), torch.full_like(target[1], 3.0)]
    assert perceptual_loss(fused, target).item() == pytest.approx((0.25 + 4.0) / 2)
    with pytest.raises(ValueError):
        perceptual_loss(fused[:1], target)

"""Eq. 4 on feature maps made up by hand."""

import pytest
import torch
import torch.nn.functional as F

from fusionlab.losses.perceptual import perceptual_loss, source_maxima


def taps(image):
    """The image twice, and three times its mean: two taps of different sizes, the second unlike the first."""
    return [image.expand(-1, 2, -1, -1), 3 * F.adaptive_avg_pool2d(image, 1)]


IR, VI = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
IR[..., :4], VI[..., :, 4:] = 0.5, 1.0


def test_each_tap_counts_alike_whatever_its_size():
    first, second = source_maxima(IR, VI, taps)
    assert torch.equal(first[:, :1], torch.maximum(IR, VI))
    assert second.item() == 1.5  # the larger of two means, not the mean of the maximum
    fused = torch.ones(1, 1, 8, 8)
    assert perceptual_loss(fused, IR, VI, taps).item() == pytest.approx((0.125 + 2.25) / 2)


def test_what_is_known_already_is_not_computed_again():
    seen_images = []

    def counted(image):
        seen_images.append(image)
        return taps(image)

    fused = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    whole = perceptual_loss(fused, IR, VI, counted)
    assert len(seen_images) == 3
    known = perceptual_loss(fused, IR, VI, counted, maxima=source_maxima(IR, VI, taps), seen=taps(fused))
    assert len(seen_images) == 3 and known.item() == whole.item()
    (gradient,) = torch.autograd.grad(known, fused)
    assert gradient.abs().max() > 0


def test_taps_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError):
        perceptual_loss(IR, IR, VI, taps, maxima=source_maxima(IR, VI, taps)[:1])

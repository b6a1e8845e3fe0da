"""SSIM against scikit-image in both forms, and at its limits."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from fusionlab.metrics.structure import ms_ssim, ssim, ssim_padded, ssim_uniform
from fusionlab.metrics.variant import averaged, summed

ssim_gaussian_mean = averaged(ssim)
ssim_uniform_sum = summed(partial(ssim_uniform, data_range=2))


def images(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ir, vi = torch.randint(0, 256, (2, 1, 1, 37, 52), generator=generator).double()
    return [ir, vi, torch.maximum(ir, vi).clamp(max=200)]


def each_source(x: list[Tensor], **options: object) -> list[float]:
    ir, vi, fused = (image[0, 0].numpy().astype(np.float64) for image in x)
    return [structural_similarity(source, fused, **options) for source in (ir, vi)]


def test_gaussian_form_is_that_of_scikit_image() -> None:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    x = images(0)
    assert ssim_gaussian_mean(*x).item() == pytest.approx(np.mean(each_source(x, **options)), rel=1e-12)


def test_uniform_form_is_that_of_scikit_image_with_the_range_of_floats() -> None:
    x = images(1)
    assert ssim_uniform_sum(*x).item() == pytest.approx(sum(each_source(x, data_range=2)), rel=1e-9)


def test_copy_scores_one_for_each_source() -> None:
    x = images(2)[0]
    assert ssim_gaussian_mean(x, x, x).item() == pytest.approx(1, rel=1e-12)
    assert ssim_uniform_sum(x, x, x).item() == pytest.approx(2, rel=1e-12)


def test_symmetric_in_the_sources_and_bounded() -> None:
    ir, vi, fused = images(3)
    assert ssim_gaussian_mean(ir, vi, fused).item() == ssim_gaussian_mean(vi, ir, fused).item()
    assert -1 <= ssim_gaussian_mean(ir, 255 - ir, 255 - ir).item() < 0.6


def test_range_two_takes_a_dark_offset_for_lost_structure() -> None:
    black = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    assert ssim_uniform_sum(black, black, black).item() == 2
    assert ssim_uniform_sum(black, black, black + 5).item() < 1e-4
    assert ssim_gaussian_mean(black, black, black + 5).item() > 0.2


def test_wrong_ranges_are_other_metrics() -> None:
    """On a plain average of two smooth sources range 1 gives less than range 255."""
    ir, vi, _ = images(4)
    smooth = [torch.nn.functional.avg_pool2d(x, 9, 1, 4).round() for x in (ir, vi)]
    fused = ((smooth[0] + smooth[1]) / 2).floor()
    right, wrong = (averaged(partial(ssim, data_range=r))(*smooth, fused).item() for r in (255, 1))
    assert wrong < right - 0.01
    assert ssim(ir / 255, fused / 255, data_range=1).item() == pytest.approx(ssim(ir, fused).item())


def test_padded_form_counts_every_pixel() -> None:
    ir, _, fused = images(5)
    replicated = [np.pad(x[0, 0].numpy(), 5, mode="edge") for x in (ir, fused)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ssim_padded(ir, fused).item() == pytest.approx(structural_similarity(*replicated, **options))


def test_five_scales_agree_with_one_on_a_copy_and_ignore_brightness_at_fine_scales() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randint(0, 200, (1, 1, 176, 161), generator=generator).double()
    assert ms_ssim(x, x).item() == pytest.approx(1)
    assert 1 > ms_ssim(x, x + 50).item() > ssim(x, x + 50).item()
    assert ms_ssim(x, 255 - x).item() == 0  # a negative mean would have no power

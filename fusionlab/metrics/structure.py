"""Metrics of structural similarity of one source and the fused image.

Every function takes float64 tensors (..., 1, H, W) of 0..255, whose leading axes broadcast, and returns one
value an image.
Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error
visibility to structural similarity", 2004, equation 13 with K1 = .01 and K2 = .03.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fusionlab.metrics.filters import IMAGE, FilterTaps, gaussian_taps, moments, uniform_taps
from fusionlab.metrics.memory import statistic

SSIM_TAPS = gaussian_taps(11, 1.5)
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the five scales, finest first
MULTISCALE_SIDE = 161  # the smallest side that is still 11 pixels long at the fifth scale


def ssim(x: Tensor, y: Tensor, data_range: float = 255) -> Tensor:
    """Mean SSIM over all whole 11 x 11 Gaussian windows, -1..1; sides from 11.

    A `data_range` far below the true one (evaluators take 1 or 2 on 0..255 by mistake) leaves the constants
    without effect: flat noise then counts as lost structure.
    """
    luminance, contrast = _maps(x, y, SSIM_TAPS, data_range)
    return (luminance * contrast).mean(IMAGE)


def ssim_padded(x: Tensor, y: Tensor, data_range: float = 255) -> Tensor:
    """The same mean over all H W windows, borders repeated by 5 pixels, as MATLAB's toolbox does."""
    x, y = (_repeat_border(image, len(SSIM_TAPS) // 2) for image in (x, y))
    return ssim(x, y, data_range)


def ssim_uniform(x: Tensor, y: Tensor, data_range: float = 255) -> Tensor:
    """Mean SSIM over whole 7 x 7 windows of equal weight, sample covariance: scikit-image's default form.

    Range 2 is what older scikit-image took for float arrays, even of 0..255. Its constants are so small that
    a black area scores about 0 wherever the fused image is not black too.
    """
    luminance, contrast = _maps(x, y, uniform_taps(7), data_range, correction=49 / 48)
    return (luminance * contrast).mean(IMAGE)


def ms_ssim(x: Tensor, y: Tensor, data_range: float = 255) -> Tensor:
    """SSIM over five scales: product of mean contrast and structure to the power of each scale's exponent.

    The luminance enters at the coarsest scale alone. Each scale halves the last by 2 x 2 means; an odd side
    is padded with a zero, as public code does. Negative means count as 0. Sides from 161.
    Source: Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality
    assessment", 2003.
    """
    product = torch.ones((), dtype=x.dtype, device=x.device)
    for scale, exponent in enumerate(EXPONENTS):
        if scale > 0:
            x, y = _halved(x), _halved(y)
        luminance, contrast = _maps(x, y, SSIM_TAPS, data_range)
        last = scale == len(EXPONENTS) - 1
        mean = (luminance * contrast if last else contrast).mean(IMAGE)
        product = product * mean.clamp(min=0) ** exponent
    return product


def _maps(
    x: Tensor, y: Tensor, taps: FilterTaps, data_range: float, correction: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps; `correction` multiplies variances and covariance."""
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y, taps)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * correction * covariance + c2) / (correction * (variance_x + variance_y) + c2)
    return luminance, contrast


@statistic
def _repeat_border(x: Tensor, width: int) -> Tensor:
    flat = pad(x.flatten(0, -4), (width,) * 4, mode="replicate")
    return flat.view(*x.shape[:-2], *flat.shape[-2:])


@statistic
def _halved(x: Tensor) -> Tensor:
    flat = x.flatten(0, -4)
    halves = avg_pool2d(pad(flat, (x.shape[-1] % 2, 0, x.shape[-2] % 2, 0)), 2)
    return halves.view(*x.shape[:-2], *halves.shape[-2:])

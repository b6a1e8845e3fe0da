"""Metrics of structural similarity.

Every function takes float64 tensors (B, 1, H, W) of 0..255 and returns (B,).
Source: Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error
visibility to structural similarity", 2004, equation 13 with K1 = .01 and K2 = .03.
"""

from torch import Tensor

from fusionlab.metrics.filters import gaussian, moments, uniform


def ssim(x: Tensor, y: Tensor, taps: list[float], data_range: float, correction: float = 1.0) -> Tensor:
    """Mean SSIM over all whole windows, -1..1; `correction` multiplies variances and covariance.

    The smallest usable side is the number of taps.
    """
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y, taps)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * correction * covariance + c2) / (correction * (variance_x + variance_y) + c2)
    return (luminance * contrast).mean((1, 2, 3))


def ssim_gaussian_mean(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Mean of both sources' SSIM as its paper defines it: 11 x 11 Gaussian of sigma 1.5, range 255."""
    taps = gaussian(11, 1.5)
    return (ssim(ir, fused, taps, 255) + ssim(vi, fused, taps, 255)) / 2


def ssim_uniform_sum(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Sum of both sources' SSIM, 7 x 7 moving average, sample covariance, range 2 although values reach 255.

    Range 2 is what older scikit-image took for float arrays. Its constants are so small that a black area
    scores about 0 wherever the fused image is not black too.
    """
    taps, sample = uniform(7), 49 / 48
    return ssim(ir, fused, taps, 2, sample) + ssim(vi, fused, taps, 2, sample)

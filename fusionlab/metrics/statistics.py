"""Metrics of plain pixel statistics: contrast, correlation and distance.

Every function takes float64 tensors (..., 1, H, W) of 0..255, whose leading axes broadcast, and returns one
value an image.
"""

import torch
from torch import Tensor

from fusionlab.metrics.filters import IMAGE
from fusionlab.metrics.memory import statistic


def standard_deviation(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Population standard deviation of the fused image in grey levels, 0..127.5."""
    return fused.flatten(1).std(1, correction=0)


def saturated_deviation(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """What "standard deviation" gives in 8-bit integers that saturate: 0..15.97, about 9 for most images.

    Differences below the mean become 0, squares stop at 255: little more than the share of bright pixels.
    Source: Linfeng-Tang/Evaluation-for-Image-Fusion @5d6c43a, SD_evaluation.m on uint8.
    """
    above = torch.floor(fused - fused.mean(IMAGE, keepdim=True) + 0.5).clamp(min=0)
    return (above**2).clamp(max=255).mean(IMAGE).sqrt()


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two images, -1..1; NaN where one of them is constant."""
    (x, squares_x), (y, squares_y) = _centred(x), _centred(y)
    return (x * y).sum(IMAGE) / (squares_x * squares_y).sqrt()


def correlation_of_differences(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """r(F - vi, ir) + r(F - ir, vi), -2..2: what was added to one source should look like the other.

    NaN where a source is constant or the fused image equals one of them.
    Source: V. Aslantas, E. Bendes, "A new image quality metric for image fusion: the sum of the correlations
    of differences", 2015.
    """
    return correlation(fused - vi, ir) + correlation(fused - ir, vi)


def squared_error(source: Tensor, fused: Tensor) -> Tensor:
    """Mean squared difference in squared grey levels, 0 for a copy."""
    return ((source - fused) ** 2).mean(IMAGE)


def psnr(ir: Tensor, vi: Tensor, fused: Tensor, peak: float | None = 255) -> Tensor:
    """10 log10(peak^2 / mean of both squared errors) in dB; infinite where all three images are equal.

    The peak is the fused image's own maximum where None.
    """
    error = (squared_error(ir, fused) + squared_error(vi, fused)) / 2
    top = fused.amax(IMAGE) if peak is None else peak
    return 10 * torch.log10(top**2 / error)


@statistic
def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """The image less its mean, and the sum of the squares of that."""
    x = x - x.mean(IMAGE, keepdim=True)
    return x, (x * x).sum(IMAGE)

"""MS-SSIM in its fusion form: how close the fused image comes to the best patch that both sources allow."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fusionlab.metrics.filters import IMAGE, local, separable
from fusionlab.metrics.memory import both, statistic
from fusionlab.metrics.structure import SSIM_TAPS

PATCH = 11
PATCH_PIXELS = PATCH**2
ONES = (1.0,) * PATCH
FUSION_EXPONENTS = (0.0448, 0.2856, 0.3001)  # exponents, finest first, before they are made to sum to 1
C = (0.03 * 255) ** 2
ULP = 2.0**-52
FUSION_SIDE = 4 * PATCH  # the smallest side that is still a window long at the third scale


def fusion_ms_ssim(ir: Tensor, vi: Tensor, fused: Tensor, scales: int = 3) -> Tensor:
    """Product over the scales of `scale_score`, (B,), 1 at best; sides from 44 for three scales.

    Takes float64 tensors (B, 1, H, W) of 0..255. Each scale is half the last by 2 x 2 means; negative
    scores count as 0.
    Source: K. Ma, K. Zeng, Z. Wang, "Perceptual quality assessment for multi-exposure image fusion", 2015.
    """
    exponents = [weight / sum(FUSION_EXPONENTS[:scales]) for weight in FUSION_EXPONENTS[:scales]]
    product = torch.ones((), dtype=fused.dtype, device=fused.device)
    for scale, exponent in enumerate(exponents):
        if scale > 0:
            ir, vi, fused = _halved(ir), _halved(vi), _halved(fused)
        product = product * scale_score(ir, vi, fused).clamp(min=0) ** exponent
    return product


def scale_score(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Mean over 11 x 11 windows of contrast and structure against the desired patch, (B,); no luminance term.

    The desired patch is as strong as the stronger source patch and points along the weighted sum of both,
    means removed; the more both agree, the more the stronger one decides.
    """
    sources = both(ir, vi)
    weight, variance = _desired(ir, vi)
    (mean_x, _), (mean_f, fused_variance) = local(sources, SSIM_TAPS), local(fused, SSIM_TAPS)
    with_fused = separable(sources * fused, SSIM_TAPS) - mean_x * mean_f
    covariance = (weight * with_fused).sum(0)
    return ((2 * covariance + C) / (variance + fused_variance + C)).mean(IMAGE)


@statistic
def _desired(ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (2, ...) whose sum of weight * source patch is the desired patch, and its variance."""
    sources = both(ir, vi)
    norm, dot = _patches(sources)
    strength = norm + 0.001
    agreement = ((norm**2).sum(0) + 2 * dot).clamp(min=0).sqrt() + ULP
    power = torch.tan(math.pi / 2 * (agreement / (norm.sum(0) + ULP)).clamp(max=1 - ULP)).clamp(max=10)
    weight = (strength / PATCH) ** power
    weight = weight / weight.sum(0) / strength
    length = ((weight**2 * norm**2).sum(0) + 2 * weight.prod(0) * dot).clamp(min=0).sqrt()
    weight = weight * torch.where(length > 0, strength.amax(0) / length, 0.0)
    # A sum of source patches, so that its variance follows from their moments.
    mean, square = local(sources, SSIM_TAPS)
    cross = separable(ir * vi, SSIM_TAPS) - mean[0] * mean[1]
    return weight, (weight**2 * square).sum(0) + 2 * weight.prod(0) * cross


def _patches(sources: Tensor) -> tuple[Tensor, Tensor]:
    """Norms of both zero-mean source patches (2, ...) and their dot product.

    Sums of grey levels and their halvings are exact in float64, so no rounding is left of flat patches.
    """
    total = separable(sources, ONES)
    square = PATCH_PIXELS * separable(sources**2, ONES) - total**2
    dot = PATCH_PIXELS * separable(sources[0] * sources[1], ONES) - total[0] * total[1]
    return (square.clamp(min=0) / PATCH_PIXELS).sqrt(), dot / PATCH_PIXELS


@statistic
def _halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; an odd side repeats its last row."""
    height, width = x.shape[-2:]
    return avg_pool2d(pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)

"""Visual information fidelity in the pixel domain (VIFp)."""

import torch
from torch import Tensor

from fusionlab.metrics.filters import gaussian, moments, separable

WINDOWS = (17, 9, 5, 3)  # one a scale, finest first; standard deviation a fifth of the size
NOISE = 2.0  # variance of the noise that the eye adds, in squared grey levels
TINY = 1e-10
SIDE = 41  # the smallest image that still holds a whole 3 x 3 window at the fourth scale


def vifp(source: Tensor, fused: Tensor) -> Tensor:
    """Share of the source's information that the fused image keeps; 1 for a copy, above 1 for more contrast.

    Takes float64 tensors (B, 1, H, W) of 0..255, sides from 41, and returns (B,). The fused image is modelled
    locally as F = g X + v of the source X; the value is the information left behind g and v, divided by
    the information of X itself. A constant source has none: 0 / 0, NaN. A constant fused image scores 0.
    Source: H. R. Sheikh, A. C. Bovik, "Image information and visual quality", 2006, and the authors'
    vifp_mscale.m. Of its repairs for flat windows those are kept that can change the value.
    """
    kept = present = torch.zeros(())
    for scale, size in enumerate(WINDOWS):
        taps = gaussian(size, size / 5)
        if scale > 0:
            source, fused = separable(source, taps, step=2), separable(fused, taps, step=2)
        _, _, variance, fused_variance, covariance = moments(source, fused, taps)
        variance = torch.where(variance < TINY, 0.0, variance)  # rounding must not pass for information
        gain = (covariance / (variance + TINY)).clamp(min=0)
        rest = fused_variance - gain * covariance  # never below 0 by more than rounding, far from -NOISE
        kept = kept + torch.log10(1 + gain**2 * variance / (rest + NOISE)).sum((1, 2, 3))
        present = present + torch.log10(1 + variance / NOISE).sum((1, 2, 3))
    return kept / present


def vifp_sum(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """VIFp of the infrared plus VIFp of the visible source, (B,)."""
    return vifp(ir, fused) + vifp(vi, fused)

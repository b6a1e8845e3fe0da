"""Fusion metrics that weigh SSIM locally by the source that matters there: Piella's and Yang's.

Every function takes float64 tensors (B, 1, H, W) of 0..255, whose leading axes broadcast, and returns (B,).
"""

import torch
from torch import Tensor

from fusionlab.metrics.filters import IMAGE, FilterTaps, gaussian_taps, moments
from fusionlab.metrics.gradient import prewitt
from fusionlab.metrics.memory import both, statistic
from fusionlab.metrics.structure import SSIM_TAPS

PIELLA = SSIM_TAPS, 6.5025, 58.5225  # window and constants of SSIM
YANG = gaussian_taps(7, 1.5), 2e-16, 2e-16
FLAT = 1e-6  # squared grey levels; rounding leaves less than that of a flat window's variance


def piella(ir: Tensor, vi: Tensor, fused: Tensor, flat: float = FLAT) -> Tensor:
    """Q: mean SSIM with each source, weighted in each window by that source's variance; sides from 11.

    Where the variances sum to no more than `flat` both weights are 1/2. The released code asks for exactly 0
    (flat=0), which rounding almost never gives: there noise decides which source a flat window belongs to.
    Source: G. Piella, H. Heijmans, "A new quality metric for image fusion", 2003, with SSIM in place of its
    universal index as in zhengliu6699/imageFusionMetrics, metricPeilla.m.
    """
    quality, _ = _weighted(ir, vi, fused, flat)
    return quality.mean(IMAGE)


def piella_weighted(ir: Tensor, vi: Tensor, fused: Tensor, flat: float = FLAT) -> Tensor:
    """Qw: the same, windows weighted by the larger of the two variances."""
    quality, saliency = _weighted(ir, vi, fused, flat)
    return (quality * saliency).sum(IMAGE) / _total(saliency)


def piella_edges(ir: Tensor, vi: Tensor, fused: Tensor, flat: float = FLAT) -> Tensor:
    """Qe: Qw of the images times Qw of their edge maps (Prewitt, zero-padded, range still 255).

    The released code reads an undefined name here and cannot run; its Qw is put in that place.
    """
    edges = prewitt(ir), prewitt(vi), prewitt(fused)
    return piella_weighted(ir, vi, fused, flat) * piella_weighted(*edges, flat=flat)


def yang(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Qy: as Q where the sources agree (SSIM from .75), else the better of both; 7 x 7, sides from 11.

    Its constants are 2e-16, so that flat windows are divided by rounding: values above 1 occur, and NaN where
    both sources are exactly flat.
    Source: C. Yang, J.-Q. Zhang, X.-R. Wang, X. Liu, "A novel similarity based quality metric for image
    fusion", 2008, as in zhengliu6699/imageFusionMetrics, metricYang.m.
    """
    with_fused, _, _ = _ssim_map(both(ir, vi), fused, *YANG)
    agree, share = _agreement(ir, vi)
    shared = share * with_fused[0] + (1 - share) * with_fused[1]
    return torch.where(agree, shared, with_fused.amax(0)).mean(IMAGE)


@statistic
def _agreement(ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
    """Windows in which the sources agree, and the share of the infrared image in both variances."""
    between, variance_ir, variance_vi = _ssim_map(ir, vi, *YANG)
    return between >= 0.75, variance_ir / (variance_ir + variance_vi)


def _weighted(ir: Tensor, vi: Tensor, fused: Tensor, flat: float) -> tuple[Tensor, Tensor]:
    """Map of quality and map of the larger source variance, each (B, 1, H - 10, W - 10)."""
    similarity, variance, _ = _ssim_map(both(ir, vi), fused, *PIELLA)
    share, saliency = _weights(variance, flat)
    return share * similarity[0] + (1 - share) * similarity[1], saliency


@statistic
def _total(saliency: Tensor) -> Tensor:
    return saliency.sum(IMAGE)


@statistic
def _weights(variance: Tensor, flat: float) -> tuple[Tensor, Tensor]:
    """Share of the infrared image in each window, and the larger variance, of both sources' (2, ...)."""
    if flat > 0:
        variance = variance.clamp(min=0)
    variance = variance + 0.5 * (variance.sum(0) <= flat if flat > 0 else (variance == 0).all(0))
    return variance[0] / variance.sum(0), variance.amax(0)


def _ssim_map(x: Tensor, y: Tensor, taps: FilterTaps, c1: float, c2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Map of SSIM, and the local variances of x and of y."""
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y, taps)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2), variance_x, variance_y

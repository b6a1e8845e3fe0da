"""Scores against a known truth: what a fusion kept of each camera, where that camera alone had something."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusionlab.metrics import structure

if TYPE_CHECKING:
    from fusionlab.data.scenes import Truth

SMALLEST = 64  # pixels; a smaller region has no correlation worth a number


def kept(fused: Tensor, truth: "Truth") -> dict[str, float]:
    """How closely a fused image (1, 1, H, W) follows the clear view of the camera that carries the signal.

    "kept ir" is the correlation with truth.ir over the pixels where infrared alone carries the signal
    (truth.both = 1), "kept vi" that with truth.vi where the visible camera alone does (2), each in [-1, 1];
    NaN where the region has fewer than 64 pixels or the fused image is constant in it. Our own definition.
    """
    scores = {}
    for name, code, clear in (("kept ir", 1, truth.ir), ("kept vi", 2, truth.vi)):
        inside = truth.both == code
        values = torch.stack([fused[0, 0][inside], clear[0, 0][inside]]).double()
        scores[name] = torch.corrcoef(values)[0, 1].item() if inside.sum() >= SMALLEST else float("nan")
    return scores


def psnr(fused: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two images in [0, 1], 10 log10(1 / MSE); higher is better."""
    return -10 * (fused - reference).double().square().mean().log10().item()


def ssim(fused: Tensor, reference: Tensor) -> float:
    """Structural similarity of two images in [0, 1], Gaussian 11 x 11 windows, range 1; higher is better."""
    return structure.ssim(reference.double(), fused.double(), data_range=1).item()

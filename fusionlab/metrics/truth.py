"""Scores against a known truth: what a fusion kept of each camera, where that camera alone had something."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics import structure

if TYPE_CHECKING:
    from fusionlab.scenes import Truth

SMALLEST = 64  # pixels; a smaller region has no correlation worth a number


def kept(fused: Tensor, truth: "Truth") -> dict[str, float]:
    """How closely a fused image (1, 1, H, W) follows the clear view of the camera that carries the signal.

    "kept ir" is the correlation with truth.ir over the pixels where infrared alone carries the signal
    (truth.both = 1), "kept vi" that with truth.vi where the visible camera alone does (2), each in [-1, 1];
    NaN where the region has fewer than 64 pixels or the fused image is constant in it. Our own definition.
    The fused image may be on another device than the truth.
    """
    fused = fused.to(truth.both.device)
    scores = {}
    for name, code, clear in (("kept ir", 1, truth.ir), ("kept vi", 2, truth.vi)):
        inside = truth.both == code
        values = torch.stack([fused[0, 0][inside], clear[0, 0][inside]]).double()
        scores[name] = torch.corrcoef(values)[0, 1].item() if inside.sum() >= SMALLEST else float("nan")
    return scores


def psnr(fused: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio to a scene's reference in dB, 10 log10(1 / MSE); higher is better.

    It rewards grey levels close to the reference, whatever their place, so that a bland image can win. Images
    (1, 1, H, W) in [0, 1] of any size. Raises UserError for other ranges.
    """
    _check(fused, reference, 1)
    reference = reference.to(fused.device)
    return -10 * (fused - reference).double().square().mean().log10().item()


def ssim(fused: Tensor, reference: Tensor) -> float:
    """Structural similarity to a scene's reference, -1..1 without a unit; higher is better.

    It rewards local contrast and structure of the reference, under Gaussian windows 11 x 11 with range 1.
    Images (1, 1, H, W) in [0, 1], sides from 11. Raises UserError for other ranges and smaller sides.
    """
    _check(fused, reference, 11)
    reference = reference.to(fused.device)
    return structure.ssim(reference.double(), fused.double(), data_range=1).item()


def _check(fused: Tensor, reference: Tensor, side: int) -> None:
    for name, image in (("fused", fused), ("reference", reference)):
        low, high = image.min().item(), image.max().item()
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"{name} holds values {low:g}..{high:g}; scores by the truth take images in [0, 1]"
            )
        if min(image.shape[-2:]) < side:
            raise UserError(f"{name} is smaller than {side} pixels a side; take a larger scene")

"""Scores against a known truth: what a fusion kept of each camera, where that camera alone had something.

As in `evaluate`, the truth is moved to the device of the fused image (to the CPU where that has no float64).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics.inputs import scoring_device
from fusionlab.metrics.structure import ssim

if TYPE_CHECKING:
    from fusionlab.scenes import Truth

FEWEST = 64  # pixels; a smaller region has no correlation worth a number


def kept(fused: Tensor, truth: "Truth") -> dict[str, float]:
    """How closely a fused image (1, 1, H, W) follows the clear view of the camera that carries the signal.

    "kept ir" is the correlation with truth.ir over the pixels where infrared alone carries the signal
    (truth.both = 1), "kept vi" that with truth.vi where the visible camera alone does (2), each in [-1, 1];
    NaN where the region has fewer than 64 pixels or the fused image is constant in it. Our own definition.
    """
    scores = {}
    device = scoring_device(fused)
    fused, both, ir, vi = (x.to(device) for x in (fused, truth.both, truth.ir, truth.vi))
    for name, code, clear in (("kept ir", 1, ir), ("kept vi", 2, vi)):
        inside = both == code
        values = torch.stack([fused[0, 0][inside], clear[0, 0][inside]]).double()
        scores[name] = torch.corrcoef(values)[0, 1].item() if inside.sum() >= FEWEST else float("nan")
    return scores


def psnr_to_truth(fused: Tensor, known: Tensor) -> float:
    """Peak signal-to-noise ratio to a known image in dB, 10 log10(1 / MSE); higher is better.

    It rewards grey levels close to the known ones, whatever their place, so that a bland image can win; to
    truth.weighted, a mean of both clear views, averages are near by construction. Images (1, 1, H, W) in
    [0, 1] of any size. Raises UserError for other ranges.
    """
    fused, known = _checked(fused, known, 1)
    return -10 * (fused - known).double().square().mean().log10().item()


def psnr_to_signal(fused: Tensor, truth: "Truth") -> float:
    """PSNR to the clear view of the camera that carries the signal, in dB; higher is better.

    Over the pixels where one camera alone carries it (truth.both = 1 or 2); where both do or none does,
    nobody says what is right, and nothing is asked. No average of the views is favoured. NaN where there are
    fewer than 64 such pixels. Image (1, 1, H, W) in [0, 1]; raises UserError for other ranges. Our own.
    """
    clear = torch.where(truth.both == 1, truth.ir, truth.vi)
    fused, clear = _checked(fused, clear, 1)
    alone = ((truth.both == 1) | (truth.both == 2)).to(fused.device)
    error = (fused - clear)[0, 0][alone].double().square().mean()
    return -10 * error.log10().item() if alone.sum() >= FEWEST else float("nan")


def ssim_to_truth(fused: Tensor, known: Tensor) -> float:
    """Structural similarity to a known image, -1..1 without a unit; higher is better.

    It rewards local contrast and structure of the known image, under Gaussian windows 11 x 11 with range 1.
    Images (1, 1, H, W) in [0, 1], sides from 11. Raises UserError for other ranges and smaller sides.
    """
    fused, known = _checked(fused, known, 11)
    return ssim(known.double(), fused.double(), data_range=1).item()


def _checked(fused: Tensor, known: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Both images, on one device."""
    for name, image in (("fused", fused), ("the truth", known)):
        low, high = image.min().item(), image.max().item()
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"{name} holds values {low:g}..{high:g}; scores by the truth take images in [0, 1]"
            )
        if min(image.shape[-2:]) < side:
            raise UserError(f"{name} is smaller than {side} pixels a side; take a larger scene")
    device = scoring_device(fused)
    return fused.to(device), known.to(device)

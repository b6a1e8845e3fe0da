"""Metrics of information theory: entropy of the fused image, mutual information with its sources.

Every function takes float64 tensors (..., 1, H, W) that hold whole values 0..255 and whose leading axes
broadcast, and returns one value an image.
"""

import math

import torch
from torch import Tensor

from fusionlab.metrics.filters import IMAGE
from fusionlab.metrics.memory import statistic

GREY_LEVELS = 256


def entropy(ir: Tensor, vi: Tensor, fused: Tensor, floor: float = 0.0) -> Tensor:
    """Entropy of the fused image in bits, 0..8: -sum p log2(p + floor) over 256 bins. A constant image has 0.

    Some evaluators add a `floor` of 1e-7 to p inside the logarithm.
    Source: C. E. Shannon, "A mathematical theory of communication", 1948.
    """
    counts = _counts(fused, GREY_LEVELS)
    if floor == 0:
        return _entropy(counts) / math.log(2)
    share = counts / counts.sum(-1, keepdim=True)
    return -(share * torch.log2(share + floor)).sum(-1)


def mutual_information(source: Tensor, fused: Tensor, base: float) -> Tensor:
    """I(F; source) from the 256 x 256 joint histogram, in bits (base 2) or nats (base e).

    A constant image shares no information: 0.
    Source: G. Qu, D. Zhang, P. Yan, "Information measure for performance of image fusion", 2002.
    """
    joint = _joint(source, fused)
    pixels = joint.sum((-2, -1), keepdim=True)
    independent = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    # In whole counts the ratio is exactly 1 where nothing is shared.
    information = joint / pixels * torch.log(joint * pixels / independent)
    return torch.where(joint > 0, information, 0.0).sum((-2, -1)) / math.log(base)


def merged_information(source: Tensor, fused: Tensor) -> Tensor:
    """H(F) + H(source) - H(F, source) in bits, levels 254 and 255 merged in the joint histogram alone.

    So it comes out of 8-bit integers in which 255 + 1 is 255; saturated areas gain what they never shared.
    Source: Linfeng-Tang/Evaluation-for-Image-Fusion, MI_evaluation.m.
    """
    joint = _joint(_merged(source), _merged(fused)).flatten(-2)
    single = _level_entropy(source) + _level_entropy(fused)
    return (single - _entropy(joint)) / math.log(2)


def normalised_information(source: Tensor, fused: Tensor) -> Tensor:
    """2 I(F; source) / (H(F) + H(source)), 0..1; NaN where both are constant.

    Source: M. Hossny, S. Nahavandi, D. Creighton, "Comments on 'Information measure for performance of image
    fusion'", 2008.
    """
    single = _level_entropy(source) + _level_entropy(fused)
    return 2 * mutual_information(source, fused, math.e) / single


@statistic
def _merged(x: Tensor) -> Tensor:
    return x.clamp(max=GREY_LEVELS - 2)


@statistic
def _level_entropy(x: Tensor) -> Tensor:
    """Entropy in nats of an image's grey levels."""
    return _entropy(_counts(x, GREY_LEVELS))


def _entropy(counts: Tensor) -> Tensor:
    """Entropy in nats of the shares along the last axis."""
    return torch.special.entr(counts / counts.sum(-1, keepdim=True)).sum(-1)


def _joint(source: Tensor, fused: Tensor) -> Tensor:
    """Joint histogram (..., 256, 256) of fused (rows) and source (columns) levels, in counts."""
    return _counts(GREY_LEVELS * fused + source, GREY_LEVELS**2).unflatten(-1, (GREY_LEVELS, GREY_LEVELS))


def _counts(values: Tensor, bins: int) -> Tensor:
    """How often each whole value 0..bins-1 occurs, one row an image: (..., bins) float64."""
    symbols = values.flatten(IMAGE[0]).long()
    images = symbols.shape[:-1]
    first = bins * torch.arange(images.numel(), device=symbols.device).view(*images, 1)
    counts = torch.bincount((symbols + first).flatten(), minlength=bins * images.numel())
    return counts.view(*images, bins).to(torch.float64)

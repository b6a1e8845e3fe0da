"""Metrics of information theory: entropy of the fused image, mutual information with its sources.

Every function takes float64 tensors (B, 1, H, W) that hold whole values 0..255 and returns (B,).
"""

import math

import torch
from torch import Tensor

LEVELS = 256


def entropy(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Entropy of the fused image in bits, 0..8: -sum p log2 p over 256 bins. A constant image has 0.

    Source: C. E. Shannon, "A mathematical theory of communication", 1948.
    """
    counts = _counts(fused, LEVELS)
    return torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1) / math.log(2)


def mutual_information(ir: Tensor, vi: Tensor, fused: Tensor, base: float) -> Tensor:
    """I(F; ir) + I(F; vi) from 256 x 256 joint histograms, in bits (base 2) or nats (base e).

    A constant image shares no information: 0.
    Source: G. Qu, D. Zhang, P. Yan, "Information measure for performance of image fusion", 2002.
    """
    return (_shared(fused, ir) + _shared(fused, vi)) / math.log(base)


def _shared(x: Tensor, y: Tensor) -> Tensor:
    """Mutual information of two images in nats, (B,): sum p(x, y) log(p(x, y) / (p(x) p(y)))."""
    joint = _counts(LEVELS * x + y, LEVELS**2).unflatten(1, (LEVELS, LEVELS))
    pixels = joint.sum((1, 2), keepdim=True)
    independent = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    # In whole counts the ratio is exactly 1 where nothing is shared.
    information = joint / pixels * torch.log(joint * pixels / independent)
    return torch.where(joint > 0, information, 0.0).sum((1, 2))


def _counts(values: Tensor, bins: int) -> Tensor:
    """How often each whole value 0..bins-1 occurs, one row an image: (B, bins) float64."""
    symbols = values.flatten(1).long()
    first = bins * torch.arange(len(symbols), device=symbols.device)[:, None]
    counts = torch.bincount((symbols + first).flatten(), minlength=bins * len(symbols))
    return counts.view(-1, bins).to(torch.float64)

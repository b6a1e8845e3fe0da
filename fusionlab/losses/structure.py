"""Whose structure the fused image should have: SSIM with both sources (DMFuse, Eq. 10)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.losses.gradient import edge_strength
from fusionlab.metrics.structure import ssim


def structure_loss(
    fused: Tensor, ir: Tensor, vi: Tensor, variant: Literal["paper", "released"] = "paper"
) -> Tensor:
    """w_1 (1 - ssim(I_f, I_ir)) + w_2 (1 - ssim(I_f, I_vi)): a scalar (DMFuse, Eq. 10).

    All (B, 1, H, W) in [0, 1], sides from 11: SSIM in Gaussian windows of 11 x 11, range 1. `paper` weighs
    both by .5, over whole windows. `released` weighs each by its share of the edges of the batch and takes
    black for what lies outside.
    """
    if variant == "paper":
        weights = torch.full((2,), 0.5).to(fused)
    else:
        edges = torch.stack([edge_strength(image, "zero").mean() for image in (ir, vi)])
        weights = edges / edges.sum().clamp(min=1e-12)
        fused, ir, vi = (F.pad(image, (5, 5, 5, 5)) for image in (fused, ir, vi))
    likeness = torch.stack([ssim(fused, image, 1.0).mean() for image in (ir, vi)])
    return (weights * (1 - likeness)).sum()

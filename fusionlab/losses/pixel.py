"""How bright the fused image should be."""

import torch
import torch.nn.functional as F
from torch import Tensor


def intensity_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """Mean distance to the brighter source, L_int = ||O - max(I_ir, I_vis)||_1 / HW (MMDRFuse, Eq. 2).

    All (B, 1, H, W) in [0, 1]; a scalar in [0, 1] for outputs in that range.
    """
    return (fused - torch.maximum(ir, vi)).abs().mean()


def brightness_loss(fused: Tensor, ir: Tensor, vi: Tensor, size: int = 16) -> Tensor:
    """Mean distance of the mean of each square of `size` pixels to that of both sources together.

    All (B, 1, H, W), one square where they are smaller; a scalar. An anchor for losses that see edges alone:
    what is smaller than a square is left to them, and an image fused with itself keeps its brightness.
    """
    return F.avg_pool2d(fused - (ir + vi) / 2, min(size, *fused.shape[-2:])).abs().mean()

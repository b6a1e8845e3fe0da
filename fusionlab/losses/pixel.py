"""How bright the fused image should be."""

import torch
from torch import Tensor


def intensity_loss(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """Mean distance to the brighter source, L_int = ||O - max(I_ir, I_vis)||_1 / HW (MMDRFuse, Eq. 2).

    All (B, 1, H, W) in [0, 1]; a scalar in [0, 1] for outputs in that range.
    """
    return (fused - torch.maximum(ir, vi)).abs().mean()

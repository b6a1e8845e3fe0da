"""How bright the fused image should be."""

from typing import Literal

import torch
from torch import Tensor


def intensity_loss(
    fused: Tensor, ir: Tensor, vi: Tensor, target: Literal["maximum", "mean"] = "maximum"
) -> Tensor:
    """Mean distance to the brighter source, L_int = ||O - max(I_ir, I_vis)||_1 / HW (MMDRFuse, Eq. 2).

    Or to the mean of both (DMFuse, Eq. 11 as printed; its released code takes the maximum). All (B, 1, H, W)
    in [0, 1]; a scalar in [0, 1] for outputs in that range.
    """
    wanted = torch.maximum(ir, vi) if target == "maximum" else (ir + vi) / 2
    return (fused - wanted).abs().mean()

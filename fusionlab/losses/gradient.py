"""Which edges the fused image should have."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def laplacian(image: Tensor) -> Tensor:
    """Mean of the eight neighbours minus the centre, (B, 1, H, W) to the same shape, zero padding.

    The operator MMDRFuse's released code calls a gradient. The zeros outside make even a flat white image
    answer at its border (-3/8 on a side, -5/8 in a corner).
    """
    kernel = torch.full((1, 1, 3, 3), 1 / 8, dtype=image.dtype, device=image.device)
    kernel[..., 1, 1] = -1
    return F.conv2d(image, kernel, padding=1)


def gradient_loss(fused: Tensor, ir: Tensor, vi: Tensor, variant: Literal["paper", "released"]) -> Tensor:
    """Mean squared distance of the fused image's edges to those of the sources (MMDRFuse, Eq. 3).

    `paper` takes the signed maximum of the two edge maps, as Eq. 3 is printed: it prefers a weak positive
    edge to a strong negative one, and no image has such edges. `released` takes the edges of the pixelwise
    maximum.
    All (B, 1, H, W); returns a scalar.
    """
    if variant == "paper":
        target = torch.maximum(laplacian(ir), laplacian(vi))
    else:
        target = laplacian(torch.maximum(ir, vi))
    return F.mse_loss(laplacian(fused), target)

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


def target_edges(ir: Tensor, vi: Tensor, variant: Literal["paper", "magnitude", "released"]) -> Tensor:
    """The edges that Eq. 3 of MMDRFuse asks for, (B, 1, H, W).

    `paper` takes the signed maximum of the two edge maps, as Eq. 3 is printed: it prefers a weak positive
    edge to a strong negative one, and no image has such edges. `magnitude` takes the stronger of the two,
    what the words around Eq. 3 describe. `released` takes the edges of the pixelwise maximum.
    """
    if variant == "released":
        return laplacian(torch.maximum(ir, vi))
    a, b = laplacian(ir), laplacian(vi)
    return torch.maximum(a, b) if variant == "paper" else torch.where(a.abs() >= b.abs(), a, b)


def gradient_loss(
    fused: Tensor, ir: Tensor, vi: Tensor, variant: Literal["paper", "magnitude", "released"]
) -> Tensor:
    """Mean squared distance of the fused image's edges to the `target_edges` (MMDRFuse, Eq. 3).

    All (B, 1, H, W); returns a scalar.
    """
    return F.mse_loss(laplacian(fused), target_edges(ir, vi, variant))

"""Which edges the fused image should have."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.errors import UserError

Border = Literal["replicate", "zero", "valid"]


def laplacian_edges(image: Tensor) -> Tensor:
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
        return laplacian_edges(torch.maximum(ir, vi))
    a, b = laplacian_edges(ir), laplacian_edges(vi)
    return torch.maximum(a, b) if variant == "paper" else torch.where(a.abs() >= b.abs(), a, b)


def gradient_loss(
    fused: Tensor, ir: Tensor, vi: Tensor, variant: Literal["paper", "magnitude", "released"]
) -> Tensor:
    """Mean squared distance of the fused image's edges to the `target_edges` (MMDRFuse, Eq. 3).

    All (B, 1, H, W); returns a scalar.
    """
    return F.mse_loss(laplacian_edges(fused), target_edges(ir, vi, variant))


def sobel(image: Tensor, border: Border = "replicate") -> tuple[Tensor, Tensor]:
    """Horizontal and vertical Sobel derivatives (weights 1 2 1, not divided) of (B, 1, H, W).

    `border` is what lies outside: "replicate" repeats the last pixel, "zero" is black, as in CoMoFusion's
    released code, where a flat white image gets edges; "valid" looks at whole windows, (B, 1, H-2, W-2).
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None].to(image)
    if border not in ("replicate", "zero", "valid"):
        raise UserError(f"there is no border {border!r}; use replicate, zero or valid")
    if border == "replicate":
        image = F.pad(image, (1, 1, 1, 1), mode="replicate")
    gx, gy = F.conv2d(image, kernels, padding=1 if border == "zero" else 0).split(1, dim=1)
    return gx, gy


def edge_strength(image: Tensor, border: Border = "replicate") -> Tensor:
    """|gx| + |gy| of the Sobel derivatives, what CoMoFusion's released code takes for the gradient."""
    gx, gy = sobel(image, border)
    return gx.abs() + gy.abs()


def strongest_edge_loss(fused: Tensor, ir: Tensor, vi: Tensor, border: Border = "replicate") -> Tensor:
    """||grad I_f - max(grad I_vis, grad I_ir)||_1 / HW (CoMoFusion, Eq. 9), grad by `edge_strength`.

    All (B, 1, H, W); returns a scalar. Blind to brightness and to the sign of contrast: 1 - I_f scores as I_f
    does. Never 0 in general, since a maximum of two magnitudes is not the gradient of any image.
    """
    strongest = torch.maximum(edge_strength(ir, border), edge_strength(vi, border))
    return (edge_strength(fused, border) - strongest).abs().mean()

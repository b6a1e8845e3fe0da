"""How alike two sets of images are: the sliced Wasserstein distance, and edges that two channels share.

What a model draws is like the data if projections of its pieces have the data's distribution, and if its two
channels have their edges in the same places. The control is `spectral.SpectralGaussian` of the data: all that
second moments know, without a single edge.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.errors import UserError


def sliced_wasserstein(x: Tensor, y: Tensor, generator: torch.Generator, directions: int = 256) -> Tensor:
    """Wasserstein-1 distance of two point sets (N, D) along random directions, the mean over these: a scalar.

    On a line the distance is that of sorted values (Rabin et al. 2012), so both need as many points. Unit
    directions: the units are those of the values. Raises UserError for sets of other sizes.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise UserError(f"sets of {tuple(x.shape)} and {tuple(y.shape)}; give two of the same size (N, D)")
    along = F.normalize(torch.randn(x.shape[1], directions, generator=generator), dim=0).to(x)
    return ((x @ along).sort(dim=0).values - (y @ along).sort(dim=0).values).abs().mean()


def patches(x: Tensor, size: int = 8) -> Tensor:
    """All squares of a grid, (B, C, H, W) to (B H/size W/size, C size size), without their own mean colour.

    Brightness would rule any projection; without it, structure does.
    """
    cut = F.unfold(x, size, stride=size).transpose(1, 2).reshape(-1, x.shape[1], size * size)
    return (cut - cut.mean(dim=2, keepdim=True)).flatten(1)


def edge_correlation(x: Tensor) -> Tensor:
    """Correlation of the gradient magnitudes of both channels, (B, 2, H, W) to (B,): are edges shared?"""
    dy, dx = x[..., 1:, 1:] - x[..., :-1, 1:], x[..., 1:, 1:] - x[..., 1:, :-1]
    edges = (dx.square() + dy.square()).sqrt().flatten(2)
    edges = edges - edges.mean(dim=2, keepdim=True)
    norms = edges.norm(dim=2).clamp(min=1e-12)
    return (edges[:, 0] * edges[:, 1]).sum(dim=1) / norms.prod(dim=1)

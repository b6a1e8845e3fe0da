"""Feature mutual information (FMI): what small windows of the fused image tell about those of a source.

Tensors are float64 (..., 1, H, W) of 0..255, sides from 3, and leading axes broadcast.
Source: M. Haghighat, M. A. Razian, "Fast-FMI: non-reference image fusion metric", 2014, and
the authors' code.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn.functional import conv2d, pad

from fusionlab.metrics.filters import IMAGE, TINY

CHUNK = 3 * 2**10  # windows at a time; a joint distribution of 9 x 9 each must fit into a cache
PATTERNS = 2**9


def fmi(source: Tensor, fused: Tensor, feature: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean over all 3 x 3 windows of the normalised mutual information of both feature maps, 1 for a copy.

    Windows that are equal count 1, two that each hold a single peak 0.
    """
    x, y = feature(source), feature(fused)
    axes = max(x.ndim, y.ndim)
    x, y = (z.view((1,) * (axes - z.ndim) + z.shape) for z in (x, y))
    images = torch.broadcast_shapes(x.shape[:-3], y.shape[:-3])
    height, width = (side - 2 for side in x.shape[-2:])
    rows = max(1, CHUNK // (width * (math.prod(images) or 1)))
    total = torch.zeros(images, dtype=x.dtype, device=x.device)
    for top in range(0, height, rows):
        strip = slice(top, top + rows + 2)
        total += _information(_windows(x[..., strip, :]), _windows(y[..., strip, :])).sum(-1)
    return (total / (height * width)).view(torch.broadcast_shapes(source.shape[:-3], fused.shape[:-3]))


def edge_fmi(source: Tensor, fused: Tensor) -> Tensor:
    """The same of `edges` maps: a window is one of 512 patterns, so each pair of them is scored only once."""
    pairs = PATTERNS * _patterns(edges(source)) + _patterns(edges(fused))
    seen = torch.bincount(pairs.flatten(), minlength=PATTERNS**2).nonzero()[:, 0]
    table = torch.zeros(PATTERNS**2, dtype=fused.dtype, device=fused.device)
    for part in seen.split(CHUNK):
        table[part] = _information(_spelled(part // PATTERNS, fused), _spelled(part % PATTERNS, fused))
    return table[pairs].mean(IMAGE)


def pixels(x: Tensor) -> Tensor:
    """Grey levels themselves."""
    return x


def slopes(x: Tensor) -> Tensor:
    """Horizontal derivative, central, one-sided at the border; what the authors' code calls gradient."""
    return torch.gradient(x, dim=-1)[0]


def cosines(x: Tensor) -> Tensor:
    """Orthonormal discrete cosine transform of the whole image; by SciPy, so that exact zeros stay zeros."""
    transformed = dctn(x.detach().cpu().numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(transformed).to(x.device)


def edges(x: Tensor) -> Tensor:
    """Thin Sobel edges, 0 or 1: strength above twice its root mean square and a maximum across the edge."""
    flat = pad(x.flatten(0, -4), (1, 1, 1, 1), mode="replicate")
    down = flat[..., :-2, :] + 2 * flat[..., 1:-1, :] + flat[..., 2:, :]
    across = flat[..., :-2] + 2 * flat[..., 1:-1] + flat[..., 2:]
    dx = (down[..., 2:] - down[..., :-2]).abs() / 8
    dy = (across[..., 2:, :] - across[..., :-2, :]).abs() / 8
    strength = dx**2 + dy**2
    beyond = pad(strength, (1, 1, 1, 1))
    left, right = beyond[..., 1:-1, :-2], beyond[..., 1:-1, 2:]
    above, below = beyond[..., :-2, 1:-1], beyond[..., 2:, 1:-1]
    thin = ((dx >= dy) & (left <= strength) & (strength > right)) | (
        (dy >= dx) & (above <= strength) & (strength > below)
    )
    strong = strength > 4 * strength.mean(IMAGE, keepdim=True)
    return (thin & strong).to(x.dtype).view(x.shape)


def _patterns(x: Tensor) -> Tensor:
    """Number 0..511 of the pattern in each 3 x 3 window of a map of 0 and 1."""
    places = 2.0 ** torch.arange(9, dtype=x.dtype, device=x.device)
    numbers = conv2d(x.flatten(0, -4), places.view(1, 1, 3, 3).mT).long()
    return numbers.view(*x.shape[:-2], *numbers.shape[-2:])


def _spelled(numbers: Tensor, like: Tensor) -> Tensor:
    """The pixels of patterns (n,) in column-major order, (9, n)."""
    return (numbers >> torch.arange(9, device=like.device)[:, None] & 1).to(like.dtype)


def _windows(x: Tensor) -> Tensor:
    """All 3 x 3 windows in column-major order, (9, ..., n): the pixels of a window first."""
    return x.unfold(-2, 3, 1).unfold(-2, 3, 1).movedim((-1, -2), (0, 1)).flatten(0, 1).flatten(-3)


def _information(x: Tensor, y: Tensor) -> Tensor:
    """Normalised mutual information of windows x and y, each (9, ..., n), as (..., n).

    The joint distribution mixes independence and the extreme dependence that the margins allow (Frechet's
    bounds) so as to have the windows' own correlation. The share of the bound may exceed 1 and leave negative
    entries; their logarithm is that of the absolute value, as in the authors' code.
    """
    p, q = _distribution(x), _distribution(y)
    correlation = _correlation(p, q)
    # The lower bound is the upper one with q in reverse order, which changes no entropy.
    q = torch.where(correlation < 0, q.flip(0), q)
    upper_p, upper_q = p.cumsum(0), q.cumsum(0)
    lower_p, lower_q = upper_p - p, upper_q - q
    upper = torch.minimum(upper_p[:, None], upper_q)
    excess = upper.sum((0, 1)) - upper_p.sum(0) * upper_q.sum(0)
    spread = (_variance(p) * _variance(q)).clamp(min=0).sqrt()
    share = torch.where(excess > 0, correlation.abs() * spread / excess, 0.0)
    lowest = torch.maximum(lower_p[:, None], lower_q)
    bound = upper.sub_(lowest).clamp_(min=0)
    joint = bound.mul_(share).addcmul_(((1 - share) * p)[:, None], q)
    single = _entropy(p) + _entropy(q)
    information = 2 * (single - _entropy(joint.flatten(0, 1))) / single
    information = torch.where(single > 0, information, 0.0)
    return torch.where((x == y).all(0), 1.0, information)


def _distribution(x: Tensor) -> Tensor:
    """The windows stretched to begin at 0 and to sum to 1; a flat one is uniform."""
    x = x - x.amin(0)
    total = x.sum(0)
    return torch.where(total > 0, x / total, 1 / len(x))


def _correlation(p: Tensor, q: Tensor) -> Tensor:
    """Pearson's correlation of the nine values; 0 where one of them is flat."""
    p, q = p - 1 / len(p), q - 1 / len(q)
    squares = (p * p).sum(0) * (q * q).sum(0)
    flat = (p == p[0]).all(0) | (q == q[0]).all(0)
    return torch.where(flat, 0.0, (p * q).sum(0) / squares.sqrt())


def _variance(p: Tensor) -> Tensor:
    """Variance of the position 1..9 under each distribution."""
    position = torch.arange(len(p), dtype=p.dtype, device=p.device).view(-1, *(1,) * (p.ndim - 1))
    return (position**2 * p).sum(0) - (position * p).sum(0) ** 2


def _entropy(p: Tensor) -> Tensor:
    """-sum p log|p| over the first axis; 0 where p is 0."""
    return -_log_(p.abs().clamp_(min=TINY)).mul_(p).sum(0)  # in place: half the time of 81 rows is memory


def _log_(x: Tensor) -> Tensor:
    """`x.log_()`; NumPy's takes a quarter of the time where it will do."""
    if x.device.type != "cpu" or x.requires_grad:
        return x.log_()
    np.log(x.numpy(), out=x.numpy())
    return x

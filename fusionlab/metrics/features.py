"""Feature mutual information (FMI): what small windows of the fused image tell about those of a source.

Tensors are float64 (..., 1, H, W) of 0..255, sides from 3, and leading axes broadcast.
Source: M. Haghighat, M. A. Razian, "Fast-FMI: non-reference image fusion metric", 2014, and
the authors' code.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn.functional import conv2d, pad

from fusionlab.metrics.filters import IMAGE, TINY
from fusionlab.metrics.memory import statistic

KEPT = 2**21  # pixels of both sources whose windows are kept for further fused images, 184 bytes each
CHUNK = 3 * 2**10  # windows at a time: the joint distributions, 81 numbers each, must fit into a cache
PATTERNS = 2**9


Feature = Callable[[Tensor], Tensor]


class Windows(NamedTuple):
    """Windows as distributions over their nine pixels, and what their mutual information needs of them."""

    p: Tensor  # (9, ..., n): not negative, of sum 1
    sums: Tensor  # (10, ..., n): cumulative, from 0
    area: Tensor  # (..., n): sum of these
    squares: Tensor  # (..., n): of p less its mean, summed; 0 where p is uniform
    variance: Tensor  # (..., n): of the position 1..9
    entropy: Tensor  # (..., n), nats


def fmi(source: Tensor, fused: Tensor, feature: Feature) -> Tensor:
    """Mean over all 3 x 3 windows of the normalised mutual information of both feature maps, 1 for a copy.

    Windows that are equal count 1, two that each hold a single peak 0.
    """
    axes = max(source.ndim, fused.ndim)
    x, y = _mapped(source, feature, axes), _mapped(fused, feature, axes)
    images = torch.broadcast_shapes(x.shape[:-3], y.shape[:-3])
    height, width = (side - 2 for side in x.shape[-2:])
    rows = max(1, CHUNK // (width * (math.prod(images) or 1)))
    windows = _kept_strips(x, rows) if x.numel() <= KEPT else _strips(x, rows)
    equal = _all_nine(x == y)
    total = torch.zeros(images, dtype=x.dtype, device=x.device)
    for strip, here, there in zip(equal.split(rows, -2), windows, _strips(y, rows), strict=True):
        information = _information(here, there)
        total += torch.where(strip.flatten(-3), 1.0, information).sum(-1)
    return total / (height * width)


def edge_fmi(source: Tensor, fused: Tensor) -> Tensor:
    """The same of `thin_edges`: a window is one of 512 patterns, so each pair of them is scored only once."""
    pairs = PATTERNS * _patterns(source) + _patterns(fused)
    seen = torch.bincount(pairs.flatten(), minlength=PATTERNS**2).nonzero()[:, 0]
    table = torch.zeros(PATTERNS**2, dtype=fused.dtype, device=fused.device)
    for part in seen.split(CHUNK):
        x, y = part // PATTERNS, part % PATTERNS
        information = _information(_described(_spelled(x, fused)), _described(_spelled(y, fused)))
        table[part] = torch.where(x == y, 1.0, information)
    return table[pairs].mean(IMAGE)


def grey_levels(x: Tensor) -> Tensor:
    """Grey levels themselves."""
    return x


def slopes(x: Tensor) -> Tensor:
    """Horizontal derivative, central, one-sided at the border; what the authors' code calls gradient."""
    return torch.gradient(x, dim=-1)[0]


def cosines(x: Tensor) -> Tensor:
    """Orthonormal discrete cosine transform of the whole image; by SciPy, so that exact zeros stay zeros."""
    transformed = dctn(x.detach().cpu().numpy(), axes=(-2, -1), norm="ortho")
    return torch.from_numpy(transformed).to(x.device)


def thin_edges(x: Tensor) -> Tensor:
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


@statistic
def _mapped(image: Tensor, feature: Feature, axes: int) -> Tensor:
    """The feature map of an image, with so many axes."""
    x = feature(image)
    return x.view((1,) * (axes - x.ndim) + x.shape)


def _strips(x: Tensor, rows: int) -> Iterator[Windows]:
    """All 3 x 3 windows of a feature map, so many rows of them at a time."""
    for top in range(0, x.shape[-2] - 2, rows):
        windows = x[..., top : top + rows + 2, :].unfold(-2, 3, 1).unfold(-2, 3, 1)
        # The nine pixels of a window first, in column-major order.
        yield _described(windows.movedim((-1, -2), (0, 1)).flatten(0, 1).flatten(-3))


@statistic
def _kept_strips(x: Tensor, rows: int) -> list[Windows]:
    return list(_strips(x, rows))


@statistic
def _patterns(x: Tensor) -> Tensor:
    """Number 0..511 of the pattern of edges in each 3 x 3 window of an image."""
    places = 2.0 ** torch.arange(9, dtype=x.dtype, device=x.device)
    numbers = conv2d(thin_edges(x).flatten(0, -4), places.view(1, 1, 3, 3).mT).long()
    return numbers.view(*x.shape[:-2], *numbers.shape[-2:])


def _spelled(numbers: Tensor, like: Tensor) -> Tensor:
    """The pixels of patterns (n,) in column-major order, (9, n)."""
    return (numbers >> torch.arange(9, device=like.device)[:, None] & 1).to(like.dtype)


def _all_nine(x: Tensor) -> Tensor:
    """Whether each 3 x 3 window of a Boolean map holds nothing but True."""
    x = x[..., :-2, :] & x[..., 1:-1, :] & x[..., 2:, :]
    return x[..., :-2] & x[..., 1:-1] & x[..., 2:]


def _described(x: Tensor) -> Windows:
    """Windows (9, ..., n) stretched to begin at 0 and to sum to 1; a flat one is uniform."""
    x = x - x.amin(0)
    total = x.sum(0)
    p = torch.where(total > 0, x / total, 1 / len(x))
    squares = torch.where(total > 0, (p * p).sum(0) - 1 / len(p), 0.0)
    position = torch.arange(len(p), dtype=p.dtype, device=p.device).view(-1, *(1,) * (p.ndim - 1))
    variance = (position**2 * p).sum(0) - (position * p).sum(0) ** 2
    sums = _sums(p)
    return Windows(p, sums, sums.sum(0), squares, variance, _entropy(p))


def _sums(p: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(p[:1]), p.cumsum(0)))


def _information(x: Windows, y: Windows) -> Tensor:
    """Normalised mutual information of windows x and y, each (9, ..., n), as (..., n).

    The joint distribution mixes independence and the extreme dependence that the margins allow (Frechet's
    bounds) so as to have the windows' own correlation. The share of the bound may exceed 1 and leave negative
    entries; their logarithm is that of the absolute value, as in the authors' code.
    """
    squares = x.squares * y.squares
    covariance = (x.p * y.p).sum(0) - 1 / len(x.p)
    correlation = torch.where(squares > 0, covariance / squares.sqrt(), 0.0)
    # The lower bound is the upper one with q in reverse order, which changes no entropy and no variance.
    q = torch.where(correlation < 0, y.p.flip(0), y.p)
    sums = _sums(q)
    upper = torch.minimum(x.sums[1:, None], sums[1:])
    excess = upper.sum((0, 1)) - x.area * sums.sum(0)
    spread = (x.variance * y.variance).clamp(min=0).sqrt()
    share = torch.where(excess > 0, correlation.abs() * spread / excess, 0.0)
    lowest = torch.maximum(x.sums[:-1, None], sums[:-1])
    bound = upper.sub_(lowest).clamp_(min=0)
    joint = bound.mul_(share).addcmul_(((1 - share) * x.p)[:, None], q)
    single = x.entropy + y.entropy
    information = 2 * (single - _entropy(joint.flatten(0, 1))) / single
    return torch.where(single > 0, information, 0.0)


def _entropy(p: Tensor) -> Tensor:
    """-sum p log|p| over the first axis; 0 where p is 0."""
    return -_log_(p.abs().clamp_(min=TINY)).mul_(p).sum(0)  # in place: half the time of 81 rows is memory


def _log_(x: Tensor) -> Tensor:
    """`x.log_()`; NumPy's takes a quarter of the time where it will do."""
    if x.device.type != "cpu" or x.requires_grad:
        return x.log_()
    np.log(x.numpy(), out=x.numpy())
    return x

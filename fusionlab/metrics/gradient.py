"""Metrics of edges: what the fused image kept of the sources' gradients, what it made up.

Tensors are float64 (..., 1, H, W) of 0..255, sides from 3, and leading axes broadcast.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from fusionlab.metrics.filters import IMAGE, TINY, safe_sqrt
from fusionlab.metrics.memory import both, statistic

SIMILARITY = 170.0  # the constant of GMSD, in squared grey levels


def qabf(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Edges of both sources found again in the fused image, weighted by their strength, (B,) of 0..0.9753.

    A fused image equal to both sources scores 0.9753, the product of the two sigmoids' ends. Borders are
    zero-padded, so that the rim of the image counts as an edge: a constant fused image does not score 0. Two
    black sources have no edge (0 / 0, NaN).
    Source: C. S. Xydeas, V. Petrovic, "Objective image fusion performance measure", 2000, and the public
    evaluators, whose rules for ties and vertical edges are kept.
    """
    strength, angle = _edges(both(ir, vi))
    kept = _preserved(strength, angle, *_edges(fused)) * strength
    return kept.sum(IMAGE).sum(0) / _total(strength)


def local_qabf(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Another reading of the same paper, (B,): softer sigmoids, wrapped angles, mean of local ratios.

    Each pixel weighs alike, however faint its edges, so flat ground decides.
    Source: zhengliu6699/imageFusionMetrics, metricXydeas.m, whose small numbers instead of 0 are kept.
    """
    small = 1e-5
    fused_strength, fused_angle = _edges(fused, upright=small)
    above: Tensor | float = 0.0
    below: Tensor | float = 0.0
    for source in (ir, vi):
        strength, angle = _edges(source, upright=small)
        filled = torch.where(strength == 0, small, strength)
        weakened = fused_strength / filled
        fused_strength_filled = torch.where(fused_strength == 0, small, fused_strength)
        ratio = torch.where(strength > fused_strength, weakened, filled / fused_strength_filled)
        turn = ((angle - fused_angle).abs() - math.pi / 2).abs() / (math.pi / 2)
        kept = torch.sigmoid(10 * (ratio - 0.5)) * torch.sigmoid(20 * (turn - 0.75))
        above, below = above + kept * filled, below + filled
        fused_strength = fused_strength_filled  # the file fills it before it looks at the second source
    return torch.as_tensor(above / below).mean(IMAGE)


def nabf(ir: Tensor, vi: Tensor, fused: Tensor, weak: float = 0.001) -> Tensor:
    """Share of edges that the fused image made up, (B,) from 0, lower is better.

    A pixel counts where its edge is stronger than in both sources, by what it does not share with them. Edges
    below 2 grey levels weigh `weak`, so the value needs 0..255. Two flat sources divide by weak weights only.
    Source: B. K. Shreyamsha Kumar, "Multifocus and multispectral image fusion based on pixel significance
    using discrete cosine harmonic wavelet transform", 2013, after V. Petrovic, C. Xydeas, "Objective image
    fusion performance characterisation", 2005.
    """
    strength, angle = _mirrored_edges(both(ir, vi))
    fused_strength, fused_angle = _mirrored_edges(fused)
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength).clamp(min=TINY)
    turn = ((angle - fused_angle).abs() - math.pi / 2).abs() / (math.pi / 2)
    by_strength = 0.9999 * torch.sigmoid(19 * (ratio - 0.5))
    by_angle = 0.9995 * torch.sigmoid(22 * (turn - 0.5))
    weight, total, strongest = _weights(strength, weak)
    lost = ((1 - (by_strength * by_angle).sqrt()) * weight).sum(0)
    made_up = fused_strength > strongest
    return torch.where(made_up, lost, 0.0).sum(IMAGE) / total


def gmsd(source: Tensor, fused: Tensor, correction: int = 1) -> Tensor:
    """Deviation of the similarity of gradient strengths from pixel to pixel, 0 for a copy, lower is better.

    Both images are halved first. correction: 1 is the authors' sample deviation, 0 the population's.
    Source: W. Xue, L. Zhang, X. Mou, A. C. Bovik, "Gradient magnitude similarity deviation", 2014.
    """
    x, y = (_prewitt(_halved(image)) for image in (source, fused))
    similarity = (2 * x * y + SIMILARITY) / (x**2 + y**2 + SIMILARITY)
    return similarity.flatten(IMAGE[0]).std(-1, correction=correction)


@statistic
def prewitt(x: Tensor) -> Tensor:
    """Magnitude of the 3 x 3 Prewitt gradient, weights 1, zero-padded, (..., 1, H, W)."""
    dx, dy = _derivatives(pad(x, (1, 1, 1, 1)), middle=1)
    return safe_sqrt(dx * dx + dy * dy)


@statistic
def _prewitt(x: Tensor) -> Tensor:
    return prewitt(x) / 3


@statistic
def _halved(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels; an odd side gains a row of zeros."""
    height, width = x.shape[-2:]
    flat = avg_pool2d(pad(x.flatten(0, -4), (0, width % 2, 0, height % 2)), 2)
    return flat.view(*x.shape[:-2], *flat.shape[-2:])


def _derivatives(x: Tensor, middle: int = 2) -> tuple[Tensor, Tensor]:
    """Right minus left and lower minus upper of the 3 x 3 operator 1, middle, 1, whole windows only.

    Summed down the columns, then across: on [0, 1] the order of rounding decides what ties.
    """
    down = x[..., :-2, :] + middle * x[..., 1:-1, :] + x[..., 2:, :]
    step = x[..., 2:, :] - x[..., :-2, :]
    return down[..., 2:] - down[..., :-2], step[..., :-2] + middle * step[..., 1:-1] + step[..., 2:]


@statistic
def _edges(x: Tensor, upright: float = 0.0) -> tuple[Tensor, Tensor]:
    """Strength and angle (radians, +-pi/2) of the Sobel gradient, zero-padded, each (..., 1, H, W).

    upright: what stands for a horizontal derivative of 0; where None, the angle is +pi/2.
    """
    x = pad(x, (1, 1, 1, 1))
    down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    sx = down[..., :-2] - down[..., 2:]
    sy = across[..., 2:, :] - across[..., :-2, :]
    strength = safe_sqrt(sx * sx + sy * sy)
    if upright:
        sx = -sx
        return strength, torch.atan(sy / torch.where(sx == 0, upright, sx))
    angle = torch.atan(sy / torch.where(sx == 0, 1.0, sx))  # no division by 0 for its gradient either
    return strength, torch.where(sx == 0, math.pi / 2, angle)


@statistic
def _mirrored_edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and angle of the Sobel gradient over 8, borders mirrored without repeating the edge."""
    flat = pad(x.flatten(0, -4), (1, 1, 1, 1), mode="reflect")
    dx, dy = (d / 8 for d in _derivatives(flat.view(*x.shape[:-2], *flat.shape[-2:])))
    level = dy == 0
    angle = torch.where(level, math.pi / 2 * dx.sign(), torch.atan(dx / torch.where(level, 1.0, dy)))
    return safe_sqrt(dx * dx + dy * dy), angle


@statistic
def _total(strength: Tensor) -> Tensor:
    """Sum over the pixels of both sources (2, ...)."""
    return strength.sum(IMAGE).sum(0)


@statistic
def _weights(strength: Tensor, weak: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weight of each edge of both sources (2, ...), their sum, and the stronger edge of each pixel."""
    weight = torch.where(strength >= 2, strength**1.5, weak)
    return weight, weight.sum(0).sum(IMAGE), strength.amax(0)


def _preserved(strength: Tensor, angle: Tensor, fused_strength: Tensor, fused_angle: Tensor) -> Tensor:
    """How much of each pixel's edge survives, by strength times by angle, (..., 1, H, W)."""
    most = torch.maximum(strength, fused_strength).clamp(min=TINY)
    # The evaluators put the strength itself where both are equal: 0 on flat ground, 1 or more elsewhere.
    by_strength = torch.where(
        strength == fused_strength, fused_strength, torch.minimum(strength, fused_strength) / most
    )
    by_angle = 1 - (angle - fused_angle).abs() / (math.pi / 2)
    return 0.9994 * torch.sigmoid(15 * (by_strength - 0.5)) * 0.9879 * torch.sigmoid(22 * (by_angle - 0.8))

"""Metrics of edges and gradients."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad


def qabf(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Edges of both sources found again in the fused image, weighted by their strength; 0..0.9753.

    Takes float64 tensors (B, 1, H, W) of 0..255 and returns (B,). A fused image equal to both sources scores
    0.9753, the product of the two sigmoids' ends. Borders are zero-padded, so that the rim of the image
    counts as an edge: a constant fused image does not score 0. Two black sources have no edge (0 / 0, NaN).
    Source: C. S. Xydeas, V. Petrovic, "Objective image fusion performance measure", 2000, and the public
    evaluators, whose rules for ties and vertical edges are kept.
    """
    ir_strength, ir_angle = _edges(ir)
    vi_strength, vi_angle = _edges(vi)
    fused_strength, fused_angle = _edges(fused)
    ir_kept = _preserved(ir_strength, ir_angle, fused_strength, fused_angle)
    vi_kept = _preserved(vi_strength, vi_angle, fused_strength, fused_angle)
    kept = (ir_kept * ir_strength + vi_kept * vi_strength).sum((1, 2, 3))
    return kept / (ir_strength + vi_strength).sum((1, 2, 3))


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """Strength and angle (radians, +-pi/2) of the Sobel gradient, each (B, 1, H, W)."""
    x = pad(x, (1, 1, 1, 1))
    down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    sx = down[..., :-2] - down[..., 2:]
    sy = across[..., 2:, :] - across[..., :-2, :]
    angle = torch.where(sx == 0, math.pi / 2, torch.atan(sy / sx))
    return torch.sqrt(sx * sx + sy * sy), angle


def _preserved(strength: Tensor, angle: Tensor, fused_strength: Tensor, fused_angle: Tensor) -> Tensor:
    """How much of each pixel's edge survives, by strength times by angle, (B, 1, H, W)."""
    ratio = torch.minimum(strength, fused_strength) / torch.maximum(strength, fused_strength)
    # The evaluators put the strength itself where both are equal: 0 on flat ground, 1 or more elsewhere.
    by_strength = torch.where(strength == fused_strength, fused_strength, ratio)
    by_angle = 1 - (angle - fused_angle).abs() / (math.pi / 2)
    return 0.9994 * torch.sigmoid(15 * (by_strength - 0.5)) * 0.9879 * torch.sigmoid(22 * (by_angle - 0.8))

"""Metrics of sharpness: how much neighbouring pixels of the fused image differ. They never see the sources.

Every function takes float64 tensors (B, 1, H, W) of 0..255, sides from 3, and returns (B,).
"""

from typing import Literal

import torch
from torch import Tensor

from fusionlab.metrics.filters import IMAGE, safe_sqrt

Divisor = Literal["own", "inner", "pixels"]


def spatial_frequency(
    ir: Tensor, vi: Tensor, fused: Tensor, divisor: Divisor = "own", scale: float = 1.0
) -> Tensor:
    """sqrt(RF^2 + CF^2), the root mean squares of horizontal and vertical steps, in `scale` grey levels.

    divisor: "own" takes each mean over its own differences, "pixels" divides both sums by all pixels.
    Source: A. M. Eskicioglu, P. S. Fisher, "Image quality measures and their performance", 1995.
    """
    across = (fused.diff(dim=-1) ** 2).sum(IMAGE)
    down = (fused.diff(dim=-2) ** 2).sum(IMAGE)
    height, width = fused.shape[-2:]
    if divisor == "pixels":
        return scale * safe_sqrt((across + down) / (height * width))
    return scale * safe_sqrt(across / (height * (width - 1)) + down / ((height - 1) * width))


def average_gradient(ir: Tensor, vi: Tensor, fused: Tensor, divisor: Divisor = "inner") -> Tensor:
    """Mean of sqrt((dx^2 + dy^2) / 2) in grey levels a pixel, central differences, one-sided at the border.

    divisor: "pixels" is the mean over H W; "inner" divides by (H - 1)(W - 1) although there are H W terms,
    as most evaluators do.
    """
    dy, dx = torch.gradient(fused, dim=(-2, -1))
    return safe_sqrt((dx**2 + dy**2) / 2).sum(IMAGE) / _terms(fused, divisor)


def average_forward_gradient(ir: Tensor, vi: Tensor, fused: Tensor, divisor: Divisor = "inner") -> Tensor:
    """The same mean of forward differences, which exist at (H - 1)(W - 1) pixels; noise weighs more."""
    dx = fused.diff(dim=-1)[..., :-1, :]
    dy = fused.diff(dim=-2)[..., :-1]
    return safe_sqrt((dx**2 + dy**2) / 2).sum(IMAGE) / _terms(fused, divisor)


def _terms(image: Tensor, divisor: Divisor) -> int:
    height, width = image.shape[-2:]
    return height * width if divisor == "pixels" else (height - 1) * (width - 1)

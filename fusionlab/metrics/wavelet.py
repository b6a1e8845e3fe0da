"""One level of the discrete Meyer wavelet transform, as a feature for FMI."""

import math

import torch
from torch import Tensor

from fusionlab.metrics.filters import FilterTaps, filtered

REACH = 30  # taps to either side of the middle one; those beyond are below 1e-4
LENGTH = 2 * REACH + 2  # as MATLAB's dmey counts them, the first of the low-pass being 0


def meyer_bands(x: Tensor) -> Tensor:
    """Approximation and three details of x (..., H, W) side by side, (..., 2 h, 2 w), h = (H + 61) // 2.

    Borders are mirrored with the edge repeated. The low-pass is sampled from Y. Meyer's scaling function; its
    rounded table in toolboxes differs from the fifth digit on.
    """
    low, high = _split(x, -1)
    return torch.cat((torch.cat(_split(low, -2), -1), torch.cat(_split(high, -2), -1)), -2)


def _split(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Every second value of x filtered by low-pass and by high-pass along `dim`."""
    size = x.shape[dim]
    index = torch.arange(2 - LENGTH, size + LENGTH - 2 + size % 2, device=x.device) % (2 * size)
    x = x.index_select(dim, torch.minimum(index, 2 * size - 1 - index))
    low = _low_pass()
    high = tuple(-tap if i % 2 == 0 else tap for i, tap in enumerate(low[::-1]))
    return filtered(x, low[::-1], dim, step=2), filtered(x, high[::-1], dim, step=2)


def _low_pass() -> FilterTaps:
    frequency = torch.fft.fftfreq(2**12, dtype=torch.float64) * 2 * math.pi
    t = (3 * frequency.abs() / math.pi - 1).clamp(0, 1)
    transfer = torch.cos(math.pi / 2 * t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3))
    taps = math.sqrt(2) * torch.fft.ifft(transfer).real.roll(REACH)
    return 0.0, *taps[: 2 * REACH + 1].tolist()

"""Metrics of plain statistics of the fused image."""

from torch import Tensor


def standard_deviation(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Population standard deviation of the fused image in grey levels, 0..127.5.

    Takes float64 tensors (B, 1, H, W) of 0..255 and returns (B,).
    """
    return fused.flatten(1).std(1, correction=0)

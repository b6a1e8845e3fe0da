"""One form of a metric as data, and the three ways in which scores of one source become one of both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from fusionlab.metrics.memory import both, statistic

Function = Callable[[Tensor, Tensor, Tensor], Tensor]
OneSource = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One exact form of a metric; `function` maps ir, vi, fused of 0..255 in float64 to one value an image.

    ir and vi are (1, 1, H, W) or (B, 1, H, W), fused is (B, 1, H, W), the values are (B,).
    """

    formula: str
    unit: str
    source: str
    function: Function
    side: int = 1  # smallest usable height and width in pixels


def summed(score: OneSource) -> Function:
    """The sum of a score of either source and the fused image."""
    return partial(_summed, score)


def averaged(score: OneSource) -> Function:
    """The mean of a score of either source and the fused image."""
    return partial(_averaged, score)


def on_unit(function: Function) -> Function:
    """The same function of images divided by 255, where that is more than a change of unit."""
    return partial(_on_unit, function)


def _summed(score: OneSource, ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    return score(both(ir, vi), fused).sum(0)


def _averaged(score: OneSource, ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    return score(both(ir, vi), fused).mean(0)


def _on_unit(function: Function, ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    return function(_on_unit_range(ir), _on_unit_range(vi), fused / 255)


@statistic
def _on_unit_range(x: Tensor) -> Tensor:
    return x / 255

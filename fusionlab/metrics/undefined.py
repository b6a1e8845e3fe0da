"""Why a metric has no value for an image: the first thing that is true of these very images."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import max_pool2d

from fusionlab.metrics.similarity import YANG


class Cause(NamedTuple):
    """A statement about infrared, visible and fused image, float64 (1, 1, H, W) of 0..255, and its test."""

    text: str
    true: Callable[[Tensor, Tensor, Tensor], bool]


def why_undefined(metric: str, ir: Tensor, vi: Tensor, fused: Tensor) -> str:
    """What of these images leaves the metric without a value, in words that end a sentence."""
    found = [cause.text for cause in CAUSES.get(metric, ()) if cause.true(ir, vi, fused)]
    return found[0] if found else "its formula divides 0 by 0"


def _constant(*images: Tensor) -> bool:
    return all(bool(image.min() == image.max()) for image in images)


def _flat_together(ir: Tensor, vi: Tensor) -> bool:
    """Whether some window of Yang's index is flat in both."""
    size = len(YANG[0])
    flat = [max_pool2d(x, size, 1) == -max_pool2d(-x, size, 1) for x in (ir, vi)]
    return bool((flat[0] & flat[1]).any())


BOTH_CONSTANT = Cause("both sources are constant", lambda ir, vi, fused: _constant(ir, vi))
IR_CONSTANT = Cause("the infrared image is constant", lambda ir, vi, fused: _constant(ir))
VI_CONSTANT = Cause("the visible image is constant", lambda ir, vi, fused: _constant(vi))
FUSED_CONSTANT = Cause("the fused image is constant", lambda ir, vi, fused: _constant(fused))
CONSTANT_SOURCE = (BOTH_CONSTANT, IR_CONSTANT, VI_CONSTANT)

CAUSES = {
    "CC": (*CONSTANT_SOURCE, FUSED_CONSTANT),
    "SCD": (
        *CONSTANT_SOURCE,
        Cause(
            "the fused image is the infrared one, up to a constant",
            lambda ir, vi, fused: _constant(fused - ir),
        ),
        Cause(
            "the fused image is the visible one, up to a constant",
            lambda ir, vi, fused: _constant(fused - vi),
        ),
    ),
    "NMI": (
        Cause(
            "the fused image and a source are constant",
            lambda ir, vi, fused: _constant(fused) and (_constant(ir) or _constant(vi)),
        ),
    ),
    "VIF": CONSTANT_SOURCE,
    "Qabf": (Cause("both sources are black", lambda ir, vi, fused: bool(ir.max() == vi.max() == 0)),),
    "Qy": (
        Cause(
            f"both sources are flat in one window of {len(YANG[0])}x{len(YANG[0])} pixels",
            lambda ir, vi, fused: _flat_together(ir, vi),
        ),
    ),
    "PC": (
        BOTH_CONSTANT,
        Cause("no pixel of either source is a feature", lambda ir, vi, fused: True),
    ),
    # With strengths below 2 left out, as `zoo` does; no other sum of theirs is 0.
    "Nabf": (Cause("neither source has an edge of 2 grey levels", lambda ir, vi, fused: True),),
    "PSNR": (Cause("all three images are black", lambda ir, vi, fused: bool(fused.max() == 0)),),
}

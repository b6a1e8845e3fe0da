"""Conventions: which exact variant of each metric stands behind a printed number, as plain data."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics import fidelity, gradient, information, statistics, structure

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One exact form of a metric; `function` maps ir, vi, fused (B, 1, H, W) of 0..255 in float64 to (B,)."""

    formula: str
    unit: str
    source: str
    function: Function
    side: int = 1  # smallest usable height and width in pixels


@dataclass(frozen=True)
class Convention:
    """A variant for each metric, and the rule by which a fused float image is written before it is scored."""

    name: str
    save: Literal["clip", "stretch"]
    evidence: str
    variants: dict[str, Variant]


EN = Variant(
    formula="-sum p log2 p, 256 bins",
    unit="bits",
    source="Shannon 1948",
    function=information.entropy,
)
SD = Variant(
    formula="sqrt(mean((F - mean F)^2)), population",
    unit="grey levels",
    source="textbook",
    function=statistics.standard_deviation,
)
MI_BITS = Variant(
    formula="I(F; ir) + I(F; vi), 256 bins, log2",
    unit="bits",
    source="Qu, Zhang, Yan 2002",
    function=partial(information.mutual_information, base=2),
)
MI_NATS = Variant(
    formula="I(F; ir) + I(F; vi), 256 bins, natural logarithm",
    unit="nats",
    source="Zhaozixiang1228/MMIF-CDDFuse:utils/Evaluator.py @fd8da1f",
    function=partial(information.mutual_information, base=math.e),
)
VIF_SUM = Variant(
    formula="VIFp(ir, F) + VIFp(vi, F), four scales, noise variance 2, on 0..255",
    unit="1",
    source="Sheikh, Bovik 2006; vifp_mscale.m",
    function=fidelity.vifp_sum,
    side=fidelity.SIDE,
)
QABF = Variant(
    formula="sum(Q_ir g_ir + Q_vi g_vi) / sum(g_ir + g_vi), Sobel with zero padding, on 0..255",
    unit="1",
    source="Xydeas, Petrovic 2000",
    function=gradient.qabf,
    side=3,
)
SSIM_MEAN = Variant(
    formula="mean of SSIM(ir, F) and SSIM(vi, F), Gaussian 11 x 11 sigma 1.5, whole windows, range 255",
    unit="1",
    source="Wang, Bovik, Sheikh, Simoncelli 2004",
    function=structure.ssim_gaussian_mean,
    side=11,
)
SSIM_SUM_RANGE_2 = Variant(
    formula="SSIM(ir, F) + SSIM(vi, F), uniform 7 x 7, whole windows, sample covariance, range 2 on 0..255",
    unit="1",
    source="Zhaozixiang1228/MMIF-CDDFuse:utils/Evaluator.py @fd8da1f with the range of older scikit-image",
    function=structure.ssim_uniform_sum,
    side=7,
)

REFERENCE = Convention(
    name="reference",
    save="clip",
    evidence="Each metric as its own paper defines it, on 8-bit grey levels.",
    variants={"EN": EN, "SD": SD, "MI": MI_BITS, "VIF": VIF_SUM, "Qabf": QABF, "SSIM": SSIM_MEAN},
)
MMDRFUSE = Convention(
    name="mmdrfuse",
    save="stretch",
    evidence=(
        "Evaluator of CDDFuse, of which yanglinDeng/MMDRFuse @c9e5014 ships a cut copy, after that "
        "repository's min-max stretch. With it the released student scores SSIM .403 on MRI-SPECT and .439 "
        "on MRI-PET; MMDRFuse Table 6 prints .40 and .45."
    ),
    variants={"EN": EN, "SD": SD, "MI": MI_NATS, "VIF": VIF_SUM, "Qabf": QABF, "SSIM": SSIM_SUM_RANGE_2},
)
CONVENTIONS: dict[str, Convention] = {c.name: c for c in (REFERENCE, MMDRFUSE)}


def find_convention(name: str) -> Convention:
    """The convention of that name; raises UserError with the known ones."""
    if name not in CONVENTIONS:
        raise UserError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]

"""Conventions: which exact variant of each metric stands behind a printed number, as plain data."""

from dataclasses import dataclass
from typing import Literal

from fusionlab.errors import UserError
from fusionlab.metrics import variants as v
from fusionlab.metrics.variant import Variant

__all__ = ["CONVENTIONS", "Convention", "Variant", "find_convention"]


@dataclass(frozen=True)
class Convention:
    """A variant for each metric, and the rule by which a fused float image is written before it is scored.

    strength: how sure it is that numbers of that name were made so. "defined" needs no evidence.
    """

    name: str
    save: Literal["clip", "stretch"]
    evidence: str
    strength: Literal["defined", "proven", "strong", "medium", "weak"]
    variants: dict[str, Variant]


REFERENCE = Convention(
    name="reference",
    save="clip",
    evidence=(
        "The textbook form on 8-bit grey levels, each with its source. Three differ from their papers as "
        "most code does: VIF is summed over both sources, Q, Qw and Qe take SSIM in place of Piella's index, "
        "and PC has the parameters of the MATLAB code that published values were made with."
    ),
    strength="defined",
    variants={
        "EN": v.EN,
        "SD": v.SD,
        "MI": v.MI_BITS,
        "VIF": v.VIF_SUM,
        "Qabf": v.QABF,
        "SSIM": v.SSIM_MEAN,
        "SF": v.SF,
        "AG": v.AG,
        "NMI": v.NMI,
        "SCD": v.SCD,
        "CC": v.CC,
        "VIFF": v.VIFF,
        "MS_SSIM": v.MS_SSIM_FUSION,
        "Q": v.Q,
        "Qw": v.QW,
        "Qe": v.QE,
        "Qy": v.QY,
        "FMI_pixel": v.FMI_PIXEL,
        "FMI_edge": v.FMI_EDGE,
        "FMI_gradient": v.FMI_GRADIENT,
        "FMI_dct": v.FMI_DCT,
        "PC": v.PC,
        "GMSD": v.GMSD,
        "Nabf": v.NABF,
        "MSE": v.MSE,
        "PSNR": v.PSNR,
    },
)

# Evaluators that many papers share: each is what its program computes, slips included.
TANG2023 = Convention(
    name="tang2023",
    save="clip",
    evidence=(
        "Linfeng-Tang/Evaluation-for-Image-Fusion @0e87153, the most used MATLAB evaluator since March 2023. "
        "Its program was run; toolbox functions by stand-ins."
    ),
    strength="proven",
    variants={
        "EN": v.EN,
        "SD": v.SD,
        "MI": v.MI_MERGED,
        "VIF": v.VIF_SUM,
        "Qabf": v.QABF,
        "SSIM": v.SSIM_PADDED_RANGE_1,
        "SF": v.SF,
        "AG": v.AG_INNER,
        "SCD": v.SCD,
        "CC": v.CC,
        "MS_SSIM": v.MS_SSIM_FUSION,
        "FMI_pixel": v.FMI_EDGE,  # what that program prints under this name
        "FMI_dct": v.FMI_DCT,
        "FMI_wavelet": v.FMI_WAVELET,
        "Nabf": v.NABF,
        "MSE": v.MSE_UNIT,
        "PSNR": v.PSNR_MIXED,
    },
)
TANG2022 = Convention(
    name="tang2022",
    save="clip",
    evidence=(
        "The same evaluator before March 2023 (@5d6c43a), which handed uint8 to SD and VIF and [0, 1] to SF "
        "and Qabf. The table it ships (Metric_TNO.xlsx) is met in every metric but Qabf to 13 digits."
    ),
    strength="proven",
    variants={
        **TANG2023.variants,
        "SD": v.SD_SATURATED,
        "VIF": v.VIF_SATURATED,
        "Qabf": v.QABF_UNIT,
        "SSIM": v.SSIM_FUSION,
        "SF": v.SF_UNIT,
        "Nabf": v.NABF_UNIT,
    },
)
TANGPY = Convention(
    name="tangpy",
    save="clip",
    evidence=(
        "A Python port of that evaluator found in many projects; two copies were read, not run. Its SSIM "
        "scales 0..255 by 255 once more, so range 255 acts as range 1. Some copies add the two SSIMs instead "
        "of averaging."
    ),
    strength="strong",
    variants={
        "EN": v.EN_FLOOR,
        "SD": v.SD,
        "MI": v.MI_BITS,
        "VIF": v.VIF_SUM,
        "Qabf": v.QABF,
        "SSIM": v.SSIM_MEAN_RANGE_1,
        "SF": v.SF,
        "AG": v.AG_INNER,
        "SCD": v.SCD,
        "CC": v.CC,
        "MS_SSIM": v.MS_SSIM_WANG_MEAN,
        "Nabf": v.NABF,
        "MSE": v.MSE_UNIT,
        "PSNR": v.PSNR_MIXED,
    },
)
CDDFUSE = Convention(
    name="cddfuse",
    save="stretch",
    evidence=(
        "Zhaozixiang1228/MMIF-CDDFuse:utils/Evaluator.py @fd8da1f, the most used Python evaluator, after "
        "that repository's min-max stretch. Run, but for one thing: that SSIM had the range 2 that older "
        "scikit-image took for float images is read from that version's code."
    ),
    strength="strong",
    variants={
        "EN": v.EN,
        "SD": v.SD,
        "MI": v.MI_NATS,
        "VIF": v.VIF_SUM,
        "Qabf": v.QABF,
        "SSIM": v.SSIM_SUM_RANGE_2,
        "SF": v.SF,
        "AG": v.AG_PIXELS,
        "SCD": v.SCD,
        "CC": v.CC,
        "MSE": v.MSE,
        "PSNR": v.PSNR_PEAK,
    },
)
ZOO = Convention(
    name="zoo",
    save="clip",
    evidence=(
        "RollingPlain/IVIF_ZOO:Metric @61b0a44, by the authors of CAF. It runs in float32, which shows from "
        "the fifth digit on."
    ),
    strength="proven",
    variants={
        **TANGPY.variants,
        "VIF": v.VIF_OFF_CENTRE,
        "SSIM": v.SSIM_SUM_RANGE_1,
        "AG": v.AG_PIXELS,
        "MS_SSIM": v.MS_SSIM_WANG_SUM,
        "Nabf": v.NABF_ZERO,
    },
)

# What each of the five papers evidently used, for the metrics that it prints.
COMOFUSION = Convention(
    name="comofusion",
    save="clip",
    evidence=(
        "The rows of RFN-Nest and DATFuse in CoMoFusion Table 1 come back from those methods' images on 42 "
        "TNO pairs, rounded as printed, and the DATFuse row of Table 2 from 361 MSRS pairs. Rejected, "
        "most by the third digit: AG over H W or of forward differences, Qabf on [0, 1], SSIM of range 255."
    ),
    strength="proven",
    variants={
        "EN": v.EN,
        "SD": v.SD,
        "Qabf": v.QABF,
        "SSIM": v.SSIM_MEAN_RANGE_1,
        "SF": v.SF,
        "AG": v.AG_INNER,
    },
)
DMFUSE = Convention(
    name="dmfuse",
    save="clip",
    evidence=(
        "Levels only, as rows by method exist as a figure: FMIp .906 is the edge feature (pixels reach .41), "
        "MS-SSIM .913 the fusion form, Qe .457 and PC .350 fit. VIF .423 may be the mean of two VIFp, whose "
        "small spread between methods it shares, or VIFF."
    ),
    strength="medium",
    variants={
        "EN": v.EN,
        "SD": v.SD,
        "VIF": v.VIF_MEAN,
        "Qabf": v.QABF,
        "MS_SSIM": v.MS_SSIM_FUSION,
        "Qe": v.QE,
        "FMI_pixel": v.FMI_EDGE,
        "PC": v.PC,
    },
)
CAF = Convention(
    name="caf",
    save="clip",
    evidence=(
        "On the three results that its repository ships, only the mean of two in bits reaches the printed MI "
        "(1.09 to 1.43) and only the saturated form the printed VIF (.82 to .98). Nothing tells the form of "
        "SD and SCD: the plain ones stand in, although no known evaluator pairs that SD with that VIF."
    ),
    strength="weak",
    variants={"SD": v.SD, "MI": v.MI_BITS_MEAN, "VIF": v.VIF_SATURATED, "SCD": v.SCD},
)
COCONET = Convention(
    name="coconet",
    save="clip",
    evidence=(
        "tang2022: no other formula brings SD to 9 or 10 on images whose deviation is 35. Released results "
        "of four methods come near its Table 1 in SD, SF, AG, VIF and SCD; its 20 pairs are unknown, so no "
        "row can be hit, and its U2Fusion images are others than the released ones."
    ),
    strength="strong",
    variants={
        "EN": v.EN,
        "SD": v.SD_SATURATED,
        "VIF": v.VIF_SATURATED,
        "SF": v.SF_UNIT,
        "AG": v.AG_INNER,
        "SCD": v.SCD,
    },
)
MMDRFUSE = Convention(
    name="mmdrfuse",
    save="stretch",
    evidence=(
        "Evaluator of CDDFuse, of which yanglinDeng/MMDRFuse @c9e5014 ships a cut copy, after that "
        "repository's min-max stretch. With it the released student scores SSIM .403 on MRI-SPECT and .439 "
        "on MRI-PET; MMDRFuse Table 6 prints .40 and .45."
    ),
    strength="strong",
    variants={metric: CDDFUSE.variants[metric] for metric in ("EN", "SD", "MI", "VIF", "Qabf", "SSIM")},
)
CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        REFERENCE,
        MMDRFUSE,
        COMOFUSION,
        DMFUSE,
        CAF,
        COCONET,
        TANG2022,
        TANG2023,
        TANGPY,
        CDDFUSE,
        ZOO,
    )
}


def find_convention(name: str) -> Convention:
    """The convention of that name; raises UserError with the known ones."""
    if name not in CONVENTIONS:
        raise UserError(f"unknown convention {name!r}; known: {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]

"""The exact forms of each metric, as plain data: formula, unit, source, function and smallest side."""

import math
from functools import partial

from fusionlab.metrics import (
    exposure,
    features,
    fidelity,
    gradient,
    information,
    phase,
    sharpness,
    similarity,
    statistics,
    structure,
    wavelet,
)
from fusionlab.metrics.variant import Variant, averaged, on_unit, summed

TANG22_CODE = "Linfeng-Tang/Evaluation-for-Image-Fusion @5d6c43a"
TANG23_CODE = "Linfeng-Tang/Evaluation-for-Image-Fusion @0e87153"
TANGPY_CODE = "Python port of Linfeng-Tang/Evaluation-for-Image-Fusion"
CDDFUSE_CODE = "Zhaozixiang1228/MMIF-CDDFuse:utils/Evaluator.py @fd8da1f"
ZOO_CODE = "RollingPlain/IVIF_ZOO:Metric @61b0a44"

# Information -----------------------------------------------------------------------------------------------
EN = Variant("-sum p log2 p, 256 bins", "bits", "Shannon 1948", information.entropy)
EN_FLOOR = Variant(
    "-sum p log2(p + 1e-7), 256 bins", "bits", ZOO_CODE, partial(information.entropy, floor=1e-7)
)
MI_BITS = Variant(
    "I(F; ir) + I(F; vi), 256 bins, log2",
    "bits",
    "Qu, Zhang, Yan 2002",
    summed(partial(information.mutual_information, base=2)),
)
MI_BITS_MEAN = Variant(
    "mean of I(F; ir) and I(F; vi), 256 bins, log2",
    "bits",
    "inferred from the printed level",
    averaged(partial(information.mutual_information, base=2)),
)
MI_NATS = Variant(
    "I(F; ir) + I(F; vi), 256 bins, natural logarithm",
    "nats",
    CDDFUSE_CODE,
    summed(partial(information.mutual_information, base=math.e)),
)
MI_MERGED = Variant(
    "I(F; ir) + I(F; vi), log2, levels 254 and 255 merged in the joint histograms alone",
    "bits",
    TANG23_CODE,
    summed(information.merged_information),
)
NMI = Variant(
    "2 I(F; ir) / (H(F) + H(ir)) + 2 I(F; vi) / (H(F) + H(vi))",
    "1",
    "Hossny, Nahavandi, Creighton 2008",
    summed(information.normalised_information),
)

# Pixel statistics ------------------------------------------------------------------------------------------
SD = Variant(
    "sqrt(mean((F - mean F)^2)), population", "grey levels", "textbook", statistics.standard_deviation
)
SD_SATURATED = Variant(
    "sqrt(mean(min(255, max(0, round(F - mean F))^2))), the saturation of uint8; at most 15.97",
    "grey levels",
    TANG22_CODE,
    statistics.saturated_deviation,
)
CC = Variant(
    "mean of r(ir, F) and r(vi, F), Pearson's correlation", "1", TANG23_CODE, averaged(statistics.correlation)
)
SCD = Variant(
    "r(F - vi, ir) + r(F - ir, vi), Pearson's correlation",
    "1",
    "Aslantas, Bendes 2015",
    statistics.correlation_of_differences,
)
MSE = Variant(
    "mean of both sources' mean((X - F)^2), on 0..255",
    "squared grey levels",
    CDDFUSE_CODE,
    averaged(statistics.squared_error),
)
MSE_UNIT = Variant(
    "mean of both sources' mean((X - F)^2), on [0, 1]",
    "1",
    TANG23_CODE,
    on_unit(averaged(statistics.squared_error)),
)
PSNR = Variant("10 log10(255^2 / MSE), MSE the mean of both sources'", "dB", "textbook", statistics.psnr)
PSNR_PEAK = Variant(
    "10 log10(max(F)^2 / MSE), MSE the mean of both sources'",
    "dB",
    CDDFUSE_CODE,
    partial(statistics.psnr, peak=None),
)
PSNR_MIXED = Variant(
    "20 log10(255 / sqrt(MSE)) with the MSE of images on [0, 1]: 48.13 dB too high",
    "dB",
    TANG23_CODE,
    partial(statistics.psnr, peak=255**2),
)

# Sharpness -------------------------------------------------------------------------------------------------
SF = Variant(
    "sqrt(mean(dx^2) + mean(dy^2)), each mean over its own differences",
    "grey levels",
    "Eskicioglu, Fisher 1995",
    sharpness.spatial_frequency,
    side=3,
)
SF_UNIT = Variant(
    "sqrt(mean(dx^2) + mean(dy^2)), each mean over its own differences, on [0, 1]",
    "1",
    TANG22_CODE,
    partial(sharpness.spatial_frequency, scale=1 / 255),
    side=3,
)
AG = Variant(
    "mean of sqrt((dx^2 + dy^2) / 2), forward differences, over the (H - 1)(W - 1) pixels that have both",
    "grey levels",
    "textbook",
    sharpness.average_forward_gradient,
    side=3,
)
AG_INNER = Variant(
    "sum of sqrt((dx^2 + dy^2) / 2) / ((H - 1)(W - 1)), central differences",
    "grey levels",
    TANG23_CODE,
    sharpness.average_gradient,
    side=3,
)
AG_PIXELS = Variant(
    "sum of sqrt((dx^2 + dy^2) / 2) / (H W), central differences",
    "grey levels",
    CDDFUSE_CODE,
    partial(sharpness.average_gradient, divisor="pixels"),
    side=3,
)

# Visual information fidelity -------------------------------------------------------------------------------
VIF_SUM = Variant(
    "VIFp(ir, F) + VIFp(vi, F), four scales, noise variance 2, on 0..255",
    "1",
    "Sheikh, Bovik 2006; vifp_mscale.m",
    summed(fidelity.vifp),
    side=fidelity.VIF_SIDE,
)
VIF_MEAN = Variant(
    "mean of VIFp(ir, F) and VIFp(vi, F), four scales, noise variance 2, on 0..255",
    "1",
    "inferred from the printed level",
    averaged(fidelity.vifp),
    side=fidelity.VIF_SIDE,
)
VIF_SATURATED = Variant(
    "VIFp(ir, F) + VIFp(vi, F), products of the first scale stop at 255, the saturation of uint8",
    "1",
    TANG22_CODE,
    summed(fidelity.saturated_vifp),
    side=fidelity.VIF_SIDE,
)
VIF_OFF_CENTRE = Variant(
    "VIFp(ir, F) + VIFp(vi, F), windows off centre, zeros around the image",
    "1",
    ZOO_CODE,
    summed(fidelity.off_centre_vifp),
    side=8,
)
VIFF = Variant(
    "per pixel the source of less gain, noise variance 325.125, scale weights 1 : 0 : .15 : 1, on 0..255",
    "1",
    "Han, Cai, Cao, Xu 2013; VIFF_Public.m",
    fidelity.viff,
    side=fidelity.VIF_SIDE,
)

# Edges -----------------------------------------------------------------------------------------------------
QABF = Variant(
    "sum(Q_ir g_ir + Q_vi g_vi) / sum(g_ir + g_vi), Sobel with zero padding, on 0..255",
    "1",
    "Xydeas, Petrovic 2000",
    gradient.qabf,
    side=3,
)
QABF_UNIT = Variant(
    "Qabf of images on [0, 1], where ties count as lost edges and rounding decides what is a tie",
    "1",
    TANG22_CODE,
    on_unit(gradient.qabf),
    side=3,
)
NABF = Variant(
    "edges made up / edges of both sources, strengths to the power 1.5, below 2 grey levels .001, on 0..255",
    "1",
    "Petrovic, Xydeas 2005; Shreyamsha Kumar 2013",
    gradient.nabf,
    side=3,
)
NABF_UNIT = Variant(
    "Nabf of images on [0, 1], where every edge weighs .001 and rounding decides which is stronger",
    "1",
    TANG22_CODE,
    on_unit(gradient.nabf),
    side=3,
)
NABF_ZERO = Variant(
    "edges made up / edges of both sources, strengths to the power 1.5, below 2 grey levels 0, on 0..255",
    "1",
    ZOO_CODE,
    partial(gradient.nabf, weak=0.0),
    side=3,
)
GMSD = Variant(
    "mean of GMSD(ir, F) and GMSD(vi, F): sample deviation of gradient similarity, Prewitt, c = 170",
    "1",
    "Xue, Zhang, Mou, Bovik 2014",
    averaged(gradient.gmsd),
    side=3,
)

# Structure -------------------------------------------------------------------------------------------------
SSIM_MEAN = Variant(
    "mean of SSIM(ir, F) and SSIM(vi, F), Gaussian 11 x 11 sigma 1.5, whole windows, range 255",
    "1",
    "Wang, Bovik, Sheikh, Simoncelli 2004",
    averaged(structure.ssim),
    side=11,
)
SSIM_MEAN_RANGE_1 = Variant(
    "mean of SSIM(ir, F) and SSIM(vi, F), Gaussian 11 x 11 sigma 1.5, whole windows, range 1 on 0..255",
    "1",
    TANGPY_CODE,
    averaged(partial(structure.ssim, data_range=1)),
    side=11,
)
SSIM_SUM_RANGE_1 = Variant(
    "SSIM(ir, F) + SSIM(vi, F), Gaussian 11 x 11 sigma 1.5, whole windows, range 1 on 0..255",
    "1",
    f"{ZOO_CODE}, in float32 there, which moves flat images by up to 3 %",
    summed(partial(structure.ssim, data_range=1)),
    side=11,
)
SSIM_PADDED_RANGE_1 = Variant(
    "mean of SSIM(ir, F) and SSIM(vi, F), Gaussian 11 x 11 sigma 1.5, borders repeated, range 1 on 0..255",
    "1",
    TANG23_CODE,
    averaged(partial(structure.ssim_padded, data_range=1)),
    side=3,
)
SSIM_SUM_RANGE_2 = Variant(
    "SSIM(ir, F) + SSIM(vi, F), uniform 7 x 7, whole windows, sample covariance, range 2 on 0..255",
    "1",
    f"{CDDFUSE_CODE} with the range of older scikit-image",
    summed(partial(structure.ssim_uniform, data_range=2)),
    side=7,
)
MS_SSIM_WANG_MEAN = Variant(
    "mean of five-scale MS-SSIM(ir, F) and MS-SSIM(vi, F), range 1 on 0..255",
    "1",
    TANGPY_CODE,
    averaged(partial(structure.ms_ssim, data_range=1)),
    side=structure.MULTISCALE_SIDE,
)
MS_SSIM_WANG_SUM = Variant(
    "five-scale MS-SSIM(ir, F) + MS-SSIM(vi, F), range 1 on 0..255",
    "1",
    ZOO_CODE,
    summed(partial(structure.ms_ssim, data_range=1)),
    side=structure.MULTISCALE_SIDE,
)
MS_SSIM_FUSION = Variant(
    "contrast and structure against the best patch of both sources, three scales, no luminance",
    "1",
    "Ma, Zeng, Wang 2015",
    exposure.fusion_ms_ssim,
    side=exposure.FUSION_SIDE,
)
SSIM_FUSION = Variant(
    "contrast and structure against the best patch of both sources, one scale, no luminance",
    "1",
    TANG22_CODE,
    exposure.scale_score,
    side=exposure.PATCH,
)
Q = Variant(
    "mean of lambda SSIM(ir, F) + (1 - lambda) SSIM(vi, F), lambda the share of ir in both local variances",
    "1",
    "Piella, Heijmans 2003, with SSIM",
    similarity.piella,
    side=11,
)
QW = Variant(
    "Q with windows weighted by the larger local variance",
    "1",
    "Piella, Heijmans 2003, with SSIM",
    similarity.piella_weighted,
    side=11,
)
QE = Variant(
    "Qw of the images times Qw of their edge maps, Prewitt with zero padding",
    "1",
    "Piella, Heijmans 2003, with SSIM",
    similarity.piella_edges,
    side=11,
)
Q_RELEASED, QW_RELEASED, QE_RELEASED = (
    Variant(
        f"{variant.formula}; windows flat only where both variances are exactly 0",
        "1",
        "zhengliu6699/imageFusionMetrics:metricPeilla.m @d6f7f1a",
        partial(function, flat=0.0),
        side=11,
    )
    for variant, function in (
        (Q, similarity.piella),
        (QW, similarity.piella_weighted),
        (QE, similarity.piella_edges),
    )
)
QY = Variant(
    "as Q where the sources agree (SSIM from .75), else the better of both; Gaussian 7 x 7, constants 2e-16",
    "1",
    "Yang, Zhang, Wang, Liu 2008; metricYang.m",
    similarity.yang,
    side=11,
)

# Features --------------------------------------------------------------------------------------------------
FMI_EDGE = Variant(
    "mean of FMI(ir, F) and FMI(vi, F), windows 3 x 3 of thin Sobel edges",
    "1",
    "Haghighat, Razian 2014; analysis_fmi.m, feature 'edge', its default",
    averaged(features.edge_fmi),
    side=3,
)
FMI_PIXEL, FMI_GRADIENT, FMI_DCT, FMI_WAVELET = (
    Variant(
        f"mean of FMI(ir, F) and FMI(vi, F), windows 3 x 3 of {what}",
        "1",
        f"Haghighat, Razian 2014; analysis_fmi.m, feature '{name}'",
        averaged(partial(features.fmi, feature=feature)),
        side=3,
    )
    for name, what, feature in (
        ("none", "grey levels", features.grey_levels),
        ("gradient", "horizontal derivatives", features.slopes),
        ("dct", "cosine coefficients of the whole image", features.cosines),
        ("wavelet", "the bands of a discrete Meyer wavelet", wavelet.meyer_bands),
    )
)
PC = Variant(
    "product of local correlations of phase congruency, its maximum and its minimum moment",
    "1",
    "Zhao, Laganiere, Liu 2007; metricZhao.m",
    phase.phase_quality,
    side=16,
)

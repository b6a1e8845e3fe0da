"""Visual information fidelity in the pixel domain: VIFp of one source, and VIFF of both for fusion.

Both model the fused image locally as F = g X + v of a source X and compare the information that g and v leave
with that of X itself, at four scales. Tensors are float64 (..., 1, H, W) of 0..255; leading axes broadcast.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from fusionlab.metrics.filters import IMAGE, FilterTaps, gaussian_taps, moments, separable
from fusionlab.metrics.memory import both, statistic

WINDOWS = (17, 9, 5, 3)  # one a scale, finest first; standard deviation a fifth of the size
EYE_NOISE = 2.0  # variance of the noise that the eye adds, in squared grey levels
LEAST_VARIANCE = 1e-10
VIF_SIDE = 41  # the smallest image that still holds a whole 3 x 3 window at the fourth scale
FUSION_NOISE = 0.005 * 255**2
FUSION_WEIGHTS = (1 / 2.15, 0.0, 0.15 / 2.15, 1 / 2.15)  # of the four scales in VIFF


def vifp(source: Tensor, fused: Tensor) -> Tensor:
    """Share of the source's information that the fused image keeps; 1 for a copy, above 1 for more contrast.

    Sides from 41. A constant source has no information: 0 / 0, NaN. A constant fused image scores 0.
    Source: H. R. Sheikh, A. C. Bovik, "Image information and visual quality", 2006, and the authors'
    vifp_mscale.m.
    """
    return _share(_scales(source, fused))


def saturated_vifp(source: Tensor, fused: Tensor) -> Tensor:
    """VIFp as 8-bit integers that saturate compute it: at the first scale every product stops at 255.

    What is left there is noise with large weight, so values rise; the other scales are ordinary.
    Source: Linfeng-Tang/Evaluation-for-Image-Fusion @5d6c43a, vifp_mscale.m on uint8.
    """
    taps = gaussian_taps(WINDOWS[0], WINDOWS[0] / 5)
    (mean_x, variance), (mean_f, fused_variance) = _saturated(source, taps), _saturated(fused, taps)
    covariance = separable((source * fused).clamp(max=255), taps) - mean_x * mean_f
    first = _model(variance, fused_variance, covariance)
    scales = _scales(source, fused)
    next(scales)
    return _share(iter([first, *scales]))


def off_centre_vifp(source: Tensor, fused: Tensor) -> Tensor:
    """VIFp with windows whose taps lie half a pixel and more off centre and with zeros around the image.

    The 17 taps sit evenly from -9 to 8, so that shift and border count as lost information. Any size.
    Source: RollingPlain/IVIF_ZOO @61b0a44, Metric_torch.py, which halves a negative odd number downwards.
    """
    return _share(_off_centre_scales(source, fused))


def viff(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Information of the sources kept, (B,), by the source of smaller gain in each pixel; sides from 41.

    Ties go to the visible image, so swapping the sources moves the value a little.
    Source: Y. Han, Y. Cai, Y. Cao, X. Xu, "A new image fusion performance metric based on visual information
    fidelity", 2013, and the authors' VIFF_Public.m.
    """
    value = torch.zeros((), dtype=fused.dtype, device=fused.device)
    for weight, (gain, variance, rest) in zip(FUSION_WEIGHTS, _scales(both(ir, vi), fused), strict=True):
        kept = torch.log10(1 + gain**2 * variance / (rest + FUSION_NOISE)) + 1e-7
        present = _present(variance, FUSION_NOISE) + 1e-7
        by_ir = gain[0] < gain[1]
        kept_there, present_there = (torch.where(by_ir, x[0], x[1]).sum(IMAGE) for x in (kept, present))
        value = value + weight * kept_there / present_there
    return value


Model = tuple[Tensor, Tensor, Tensor]  # gain g, variance of the source, variance of the rest v


def _share(scales: Iterator[Model]) -> Tensor:
    """Information kept in all scales over information present in them."""
    kept: Tensor | float = 0.0
    present: Tensor | float = 0.0
    for gain, variance, rest in scales:
        kept = kept + torch.log10(1 + gain**2 * variance / (rest + EYE_NOISE)).sum(IMAGE)
        present = present + _total_present(variance, EYE_NOISE)
    assert isinstance(kept, Tensor)
    return kept / present


def _scales(source: Tensor, fused: Tensor) -> Iterator[Model]:
    for scale, size in enumerate(WINDOWS):
        taps = gaussian_taps(size, size / 5)
        if scale > 0:
            source, fused = separable(source, taps, 2), separable(fused, taps, 2)
        yield _model(*moments(source, fused, taps)[2:])


def _off_centre_scales(source: Tensor, fused: Tensor) -> Iterator[Model]:
    for scale, size in enumerate(WINDOWS):
        reach = size // 2
        positions = torch.linspace(-reach - 1, reach, size, dtype=torch.float64)
        weights = torch.exp(-(positions**2) / (2 * (size / 5) ** 2))
        taps = tuple((weights / weights.sum()).tolist())
        if scale > 0:
            source, fused = (separable(_framed(x, reach), taps, 2) for x in (source, fused))
        yield _model(*moments(_framed(source, reach), _framed(fused, reach), taps)[2:])


def _model(variance: Tensor, fused_variance: Tensor, covariance: Tensor) -> Model:
    """Gain, source variance and rest of the local model; windows without variance keep nothing."""
    variance = _cleared(variance)
    gain = (covariance / (variance + LEAST_VARIANCE)).clamp(min=0)
    gain = torch.where(fused_variance < LEAST_VARIANCE, 0.0, gain)
    rest = (fused_variance - gain * covariance).clamp(min=LEAST_VARIANCE)
    return gain, variance, rest


@statistic
def _cleared(variance: Tensor) -> Tensor:
    """Variance without what rounding leaves of a flat window, which must not pass for information."""
    return torch.where(variance < LEAST_VARIANCE, 0.0, variance)


@statistic
def _present(variance: Tensor, noise: float) -> Tensor:
    """Information in each window of a source."""
    return torch.log10(1 + variance / noise)


@statistic
def _total_present(variance: Tensor, noise: float) -> Tensor:
    """The same in the whole image."""
    return _present(variance, noise).sum(IMAGE)


@statistic
def _saturated(x: Tensor, taps: FilterTaps) -> tuple[Tensor, Tensor]:
    """Local mean, and variance of squares that stop at 255."""
    mean = separable(x, taps)
    return mean, separable((x * x).clamp(max=255), taps) - mean * mean


@statistic
def _framed(x: Tensor, width: int) -> Tensor:
    return pad(x, (width,) * 4)

"""Phase congruency, and the fusion metric QP that compares its maps.

Fourier components of an edge agree in phase, whatever its contrast. Tensors are float64 (..., 1, H, W) of
0..255; images are taken to repeat beyond their borders.
Source: P. Kovesi, "Phase congruency detects corners and edges", 2003, with the parameters and slips of
zhengliu6699/imageFusionMetrics, myphasecong3.m: they are what published values were made with.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from fusionlab.metrics.filters import IMAGE, gaussian, separable
from fusionlab.metrics.memory import both, statistic

SCALES, ORIENTATIONS = 4, 6
WAVELENGTH, GROWTH = 3.0, 2.1  # of the finest filter in pixels, and from one scale to the next
BANDWIDTH = 0.55
SPREAD = math.pi / ORIENTATIONS / 1.2
CUTOFF, SHARPNESS = 0.5, 10.0  # of the sigmoid that demands a spread of frequencies
DEVIATIONS = 2.0  # of noise energy above its mean, below which nothing counts
EPS = 1e-4
THRESHOLD = 0.1  # of phase congruency, for a pixel to count as a feature
TAPS = gaussian(11, 1.5)


def phase_quality(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """QP, (B,): product of the agreement of three maps: phase congruency, its maximum and minimum moment.

    Each map of the fused image is correlated locally with that of either source and of the stronger one; the
    best of the three counts, averaged over the pixels in which a source shows a feature. NaN without any.
    Source: J. Zhao, R. Laganiere, Z. Liu, "Performance assessment of combinative pixel-level image fusion
    based on an absolute feature measurement", 2007.
    """
    inside, count, sources = _features(ir, vi)
    product = torch.ones((), dtype=fused.dtype, device=fused.device)
    for source, target in zip(sources, phase_maps(fused), strict=True):
        agreement = torch.where(inside, _agreement(source, target), 0.0)
        product = product * agreement.amax(0).sum(IMAGE) / count
    return product


@statistic
def _features(ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Pixels that are features of infrared, of visible, of either, how many those are, and the maps there.

    All (3, B, 1, H, W) but the count, (B,). Where either counts, the map is that of more phase congruency.
    """
    maps = phase_maps(both(ir, vi))
    by_ir = maps[0][0] > maps[0][1]
    inside = torch.cat((maps[0], maps[0].amax(0, keepdim=True))) > THRESHOLD
    with_either = [torch.cat((x, torch.where(by_ir, x[0], x[1])[None])) for x in maps]
    return inside, inside[-1].sum(IMAGE), [inside * x for x in with_either]


def phase_maps(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Phase congruency of the image, 0..1, and maximum and minimum moment over orientations, each as x."""
    size = x.shape[-2:]
    spectra = torch.fft.rfft2(x.reshape(-1, *size))
    radial, angles = _grid(x)
    mirrored = _mirror(radial)
    sums = x.new_zeros(5, len(spectra), *size)  # of energy and amplitude, and three moments
    for orientation in range(ORIENTATIONS):
        direction = orientation * math.pi / ORIENTATIONS
        turn = torch.remainder(angles - direction + math.pi, 2 * math.pi) - math.pi
        fan = torch.exp(-(turn**2) / (2 * SPREAD**2))
        even, odd = _parts(radial, fan, mirrored, _mirror(fan))
        moments = (
            math.cos(direction) ** 2,
            math.sin(direction) ** 2,
            math.cos(direction) * math.sin(direction),
        )
        for k, spectrum in enumerate(spectra):  # one by one, as all images together leave the cache
            part, total = _oriented_energy(spectrum, even, odd, size)
            sums[0, k] += part
            sums[1, k] += total
            square = torch.where(total > 0, part / total, 0.0).square_()  # a black image has no amplitude
            for moment, share in zip(sums[2:, k], moments, strict=True):
                moment.add_(square, alpha=share)
    energy, amplitude, xx, yy, xy = sums.view(5, *x.shape)
    xx, yy = xx / (ORIENTATIONS / 2), yy / (ORIENTATIONS / 2)
    xy = xy / ORIENTATIONS  # a quarter of Kovesi's
    apart = (xy**2 + (xx - yy) ** 2).sqrt() + EPS
    return energy / (amplitude + EPS), (yy + xx + apart) / 2, (yy + xx - apart) / 2


def _mirror(plane: Tensor) -> Tensor:
    """What the plane (..., H, W) holds at the opposite frequencies."""
    return plane.flip(-2, -1).roll((1, 1), (-2, -1))


def _parts(
    radial: Tensor, fan: Tensor, radial_mirrored: Tensor, fan_mirrored: Tensor
) -> tuple[Tensor, Tensor]:
    """Even and odd part of the filters radial * fan, (scale, H, W // 2 + 1).

    A real image answers an even filter with a real, an odd one with an imaginary response, so that both need
    half the frequencies.
    """
    half = fan.shape[-1] // 2 + 1
    there = radial[..., :half] * (fan[:, :half] / 2)
    back = radial_mirrored[..., :half] * (fan_mirrored[:, :half] / 2)
    return there + back, there - back


def _oriented_energy(spectrum: Tensor, even: Tensor, odd: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Energy in phase along one orientation, weighted, less noise, and the sum of amplitudes: (H, W) each."""
    real, imaginary = _responses(spectrum, even, size), _responses(-1j * spectrum, odd, size)
    amplitudes = [(e * e).addcmul_(o, o).sqrt_() for e, o in zip(real, imaginary, strict=True)]
    total, widest = sum(amplitudes[1:], amplitudes[0]), amplitudes[0]
    for amplitude in amplitudes[1:]:
        widest = torch.maximum(widest, amplitude)
    mean_e, mean_o = sum(real[1:], real[0]), sum(imaginary[1:], imaginary[0])
    # In phase with the mean response, less what stands across it.
    energy = mean_e**2 + mean_o**2
    length = energy.sqrt() + EPS
    for e, o in zip(real, imaginary, strict=True):
        energy = energy.sub_((e * mean_o).sub_(o * mean_e).abs_())
    power = _median_energy(amplitudes[0]) / math.log(2) / _total(even[0] ** 2 + odd[0] ** 2, size)
    energy = (energy / length - _noise(power, even, size)).clamp_(min=0)
    width = total / (widest + EPS) / SCALES
    return energy * torch.sigmoid(SHARPNESS * (width - CUTOFF)), total


def _responses(spectrum: Tensor, filters: Tensor, size: torch.Size) -> list[Tensor]:
    """The image (H, W) of half a spectrum behind each of the real filters (scale, H, W // 2 + 1)."""
    return [torch.fft.irfft2(spectrum * part, s=size) for part in filters]  # faster than all at once


def _total(half: Tensor, size: torch.Size) -> Tensor:
    """The sum over all frequencies of what is equal at opposite ones, given for half of them."""
    alone = half[..., 0].sum() + (half[..., -1].sum() if size[-1] % 2 == 0 else 0)
    return 2 * half.sum() - alone


def _noise(power: Tensor, even: Tensor, size: torch.Size) -> Tensor:
    """Energy below which noise of that power explains the response.

    The estimate sums products of the filters' real impulse responses, squares once and pairs twice. They
    belong to the even parts, and Parseval spares their inverse transform.
    """
    tau = (power * _total(even.sum(0) ** 2, size)).sqrt()
    mean, deviation = tau * math.sqrt(math.pi / 2), tau * math.sqrt(2 - math.pi / 2)
    return (mean + DEVIATIONS * deviation) / 1.7


def _median_energy(amplitude: Tensor) -> Tensor:
    """Median of the squares of an image (H, W)."""
    values = amplitude.flatten()
    middle = len(values) // 2
    upper = values.kthvalue(middle + 1).values
    if len(values) % 2:
        return upper**2
    below = values < upper  # of an even number the two in the middle are averaged, which may be equal
    lower = torch.where(below.sum() == middle, (values * below).amax(), upper)
    return (upper**2 + lower**2) / 2


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Radial log-Gabor filters (scale, H, W) and the angle of each frequency (H, W), lowest first."""
    height, width = x.shape[-2:]
    fy, fx = _frequencies(height, x), _frequencies(width, x)
    radius = torch.hypot(fy[:, None], fx).clamp(min=0)
    radius[0, 0] = 1
    angles = torch.atan2(-fy[:, None], fx.expand(height, width))
    edge = torch.hypot(_low_pass_frequencies(height, x)[:, None], _low_pass_frequencies(width, x))
    low_pass = 1 / (1 + (edge / 0.45) ** 30)
    waves = [WAVELENGTH * GROWTH**scale for scale in range(SCALES)]
    radial = torch.stack(
        [torch.exp(-(torch.log(radius * wave) ** 2) / (2 * math.log(BANDWIDTH) ** 2)) for wave in waves]
    )
    radial[:, 0, 0] = 0
    return radial * low_pass, angles


def _frequencies(size: int, like: Tensor) -> Tensor:
    """Frequencies in cycles a pixel, 0 first; on odd sides over size - 1, as the source has it."""
    centred = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    return torch.fft.ifftshift(centred / (size - size % 2))


def _low_pass_frequencies(size: int, like: Tensor) -> Tensor:
    """The same over size, and on odd sides one place off: the source shifts them the other way."""
    centred = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    return torch.fft.fftshift(centred / size)


def _agreement(x: Tensor, y: Tensor) -> Tensor:
    """Local correlation of two maps under an 11 x 11 Gaussian, zeros around them."""
    (mean_x, variance_x), (mean_y, variance_y) = _local(x), _local(y)
    covariance = _mean(x * y) - mean_x * mean_y
    return (covariance + EPS) / ((variance_x * variance_y).abs().sqrt() + EPS)


@statistic
def _local(x: Tensor) -> tuple[Tensor, Tensor]:
    """Local mean and variance."""
    mean = _mean(x)
    return mean, _mean(x * x) - mean**2


def _mean(x: Tensor) -> Tensor:
    return separable(pad(x, (len(TAPS) // 2,) * 4), TAPS)

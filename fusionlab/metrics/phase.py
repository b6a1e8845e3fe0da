"""Phase congruency, and the fusion metric QP that compares its maps.

Fourier components of an edge agree in phase, whatever its contrast. Tensors are float64 (..., 1, H, W) of
0..255; images are taken to repeat beyond their borders.
Source: P. Kovesi, "Phase congruency detects corners and edges", 2003, with the parameters and slips of
zhengliu6699/imageFusionMetrics, myphasecong3.m: they are what published values were made with.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from fusionlab.metrics.filters import IMAGE, separable
from fusionlab.metrics.memory import both, statistic
from fusionlab.metrics.structure import SSIM_TAPS

SCALES, ORIENTATIONS = 4, 6
WAVELENGTH, GROWTH = 3.0, 2.1  # of the finest filter in pixels, and from one scale to the next
BANDWIDTH = 0.55
SPREAD = math.pi / ORIENTATIONS / 1.2
CUTOFF, SHARPNESS = 0.5, 10.0  # of the sigmoid that demands a spread of frequencies
DEVIATIONS = 2.0  # of noise energy above its mean, below which nothing counts
PHASE_EPSILON = 1e-4
THRESHOLD = 0.1  # of phase congruency, for a pixel to count as a feature
LARGE = (
    2**21
)  # pixels from which the images are worked on one by one; their filters are then made anew for each


def phase_quality(ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """QP, (B,): product of the agreement of three maps: phase congruency, its maximum and minimum moment.

    Each map of the fused image is correlated locally with that of either source and of the stronger one; the
    best of the three counts, averaged over the pixels in which a source shows a feature. NaN without any.
    Source: J. Zhao, R. Laganiere, Z. Liu, "Performance assessment of combinative pixel-level image fusion
    based on an absolute feature measurement", 2007.
    """
    targets = phase_maps(fused)  # before those of the sources, which leave more behind
    inside, count, sources = _features(ir, vi)
    product = torch.ones((), dtype=fused.dtype, device=fused.device)
    for candidates, target in zip(sources, targets, strict=True):
        of_target = _local(target)
        agreements = [  # one by one, as each takes a handful of maps
            here * _agreement(candidate, target, _local(candidate), of_target)
            for here, candidate in zip(inside, candidates, strict=True)
        ]
        product = product * torch.stack(agreements).amax(0).sum(IMAGE) / count
    return product


@statistic
def _features(ir: Tensor, vi: Tensor) -> tuple[list[Tensor], Tensor, list[list[Tensor]]]:
    """Pixels that are features of infrared, of visible, of either, how many the last are, and the maps there.

    Where either counts, the maps are those of the source of more phase congruency.
    """
    if ir.numel() < LARGE:
        congruency, most, least = phase_maps(both(ir, vi))
    else:
        pairs = zip(phase_maps(ir), phase_maps(vi), strict=True)
        congruency, most, least = map(torch.stack, pairs)
        del pairs  # which holds every map a second time
    by_ir = congruency[0] > congruency[1]
    inside = [x > THRESHOLD for x in (*congruency, congruency.amax(0))]
    candidates = [(*x, torch.where(by_ir, x[0], x[1])) for x in (congruency, most, least)]
    masked = [[here * x for here, x in zip(inside, three, strict=True)] for three in candidates]
    return inside, inside[-1].sum(IMAGE), masked


def phase_maps(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Phase congruency of the image, 0..1, and maximum and minimum moment over orientations, each as x."""
    size = x.shape[-2:]
    spectra = torch.fft.rfft2(x.reshape(-1, *size))
    grid = _grid(size, x.dtype, x.device)
    sums = x.new_zeros(len(spectra), 5, *size)
    for orientation in range(ORIENTATIONS):
        direction = orientation * math.pi / ORIENTATIONS
        filters: Iterable[tuple[Tensor, Tensor]] = _filters(*grid, direction)
        if len(spectra) > 1:
            filters = list(filters)
        for k, spectrum in enumerate(spectra):  # one by one, as all images together leave the cache
            _add_orientation(sums[k], spectrum, filters, direction)
    energy, amplitude, xx, yy, xy = sums.movedim(1, 0).reshape(5, *x.shape)
    xx, yy = xx / (ORIENTATIONS / 2), yy / (ORIENTATIONS / 2)
    xy = xy / ORIENTATIONS  # a quarter of Kovesi's
    apart = (xy**2 + (xx - yy) ** 2).sqrt() + PHASE_EPSILON
    return energy / (amplitude + PHASE_EPSILON), (yy + xx + apart) / 2, (yy + xx - apart) / 2


def _mirror(plane: Tensor) -> Tensor:
    """What the plane (..., H, W) holds at the opposite frequencies."""
    return plane.flip(-2, -1).roll((1, 1), (-2, -1))


def _filters(
    radial: Tensor, mirrored: Tensor, angles: Tensor, direction: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Even and odd part of the filter of each scale in one orientation, (H, W // 2 + 1), the finest first.

    A real image answers an even filter with a real, an odd one with an imaginary response, so that both need
    half the frequencies.
    """
    turn = torch.remainder(angles - direction + math.pi, 2 * math.pi) - math.pi
    fan = torch.exp(-(turn**2) / (2 * SPREAD**2)) / 2
    half = radial.shape[-1]
    fan, opposite = fan[:, :half].clone(), _mirror(fan)[:, :half].clone()
    del turn
    for scale, mirror_image in zip(radial, mirrored, strict=True):
        here, there = scale * fan, mirror_image * opposite
        even, odd = here + there, here.sub_(there)
        del here, there  # of large images each is felt
        yield even, odd


def _add_orientation(
    sums: Tensor, spectrum: Tensor, filters: Iterable[tuple[Tensor, Tensor]], direction: float
) -> None:
    """Adds one orientation of one image to its sums (5, H, W): energy, amplitude, and three moments."""
    energy, amplitude = _oriented_energy(spectrum, filters, sums.shape[-2:])
    sums[0] += energy
    sums[1] += amplitude
    square = torch.where(amplitude > 0, energy / amplitude, 0.0).square_()  # a black image has none
    cos, sin = math.cos(direction), math.sin(direction)
    for k, share in enumerate((cos**2, sin**2, cos * sin), start=2):
        sums[k].add_(square, alpha=share)


def _oriented_energy(
    spectrum: Tensor, filters: Iterable[tuple[Tensor, Tensor]], size: torch.Size
) -> tuple[Tensor, Tensor]:
    """Energy in phase along one orientation, weighted, less noise, and the sum of amplitudes: (H, W) each."""
    real, imaginary, finest = [], [], spectrum.new_zeros(()).real
    evens = torch.zeros_like(spectrum.real)
    for even, odd in filters:
        real.append(torch.fft.irfft2(spectrum * even, s=size))
        imaginary.append(torch.fft.irfft2((spectrum * odd).mul_(-1j), s=size))
        evens += even
        if len(real) == 1:
            finest = _total(even**2 + odd**2, size)
    everywhere = _total(evens.square_(), size)
    del even, odd, evens
    total, widest, noise_energy = _amplitudes(real, imaginary)
    noise = _noise(noise_energy / math.log(2) / finest, everywhere)
    mean_e, mean_o = sum(real[1:], real[0]), sum(imaginary[1:], imaginary[0])
    # In phase with the mean response, less what stands across it.
    energy = (mean_e**2).addcmul_(mean_o, mean_o)
    while real:
        energy -= (real[0] * mean_o).addcmul_(imaginary[0], mean_e, value=-1).abs_()
        del real[0], imaginary[0]
    length = (mean_e**2).addcmul_(mean_o, mean_o).sqrt_().add_(PHASE_EPSILON)
    energy = energy.div_(length).sub_(noise).clamp_(min=0)
    width = total / (widest + PHASE_EPSILON) / SCALES
    return energy * torch.sigmoid(SHARPNESS * (width - CUTOFF)), total


def _amplitudes(real: list[Tensor], imaginary: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and maximum of the amplitudes of all scales, and the median energy of the finest."""
    amplitudes = ((e * e).addcmul_(o, o).sqrt_() for e, o in zip(real, imaginary, strict=True))
    finest = next(amplitudes)
    median = _median_energy(finest)
    total, widest = finest.clone(), finest
    for amplitude in amplitudes:
        total += amplitude
        widest = torch.maximum(widest, amplitude)
    return total, widest, median


def _total(half: Tensor, size: torch.Size) -> Tensor:
    """The sum over all frequencies of what is equal at opposite ones, given for half of them."""
    alone = half[..., 0].sum() + (half[..., -1].sum() if size[-1] % 2 == 0 else 0)
    return 2 * half.sum() - alone


def _noise(power: Tensor, response: Tensor) -> Tensor:
    """Energy below which noise of that power explains the response, whose sum of squares is given.

    The estimate sums products of the filters' real impulse responses, squares once and pairs twice. They
    belong to the even parts, and Parseval spares their inverse transform.
    """
    tau = (power * response).sqrt()
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


@statistic
def _grid(size: torch.Size, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Radial log-Gabor filters and their mirror images, (scale, H, W // 2 + 1), and angles (H, W).

    Lowest frequencies first.
    """
    height, width = size
    y, x = (torch.arange(side, dtype=dtype, device=device) - side // 2 for side in size)
    fy, fx = _frequencies(y), _frequencies(x)
    radius = torch.hypot(fy[:, None], fx)
    radius[0, 0] = 1
    angles = torch.atan2(-fy[:, None], fx.expand(height, width))
    # Over size also on odd sides, and there one place off: the source shifts these the other way.
    edge = torch.hypot(torch.fft.fftshift(y / height)[:, None], torch.fft.fftshift(x / width))
    low_pass = 1 / (1 + (edge / 0.45) ** 30)
    waves = [WAVELENGTH * GROWTH**scale for scale in range(SCALES)]
    radial = torch.stack(
        [torch.exp(-(torch.log(radius * wave) ** 2) / (2 * math.log(BANDWIDTH) ** 2)) for wave in waves]
    )
    radial[:, 0, 0] = 0
    radial = radial * low_pass
    half, mirrored_half = (x[..., : width // 2 + 1].contiguous() for x in (radial, _mirror(radial)))
    return half, mirrored_half, angles


def _frequencies(centred: Tensor) -> Tensor:
    """Frequencies in cycles a pixel, 0 first; on odd sides over size - 1, as the source has it."""
    size = len(centred)
    return torch.fft.ifftshift(centred / (size - size % 2))


Moments = tuple[Tensor, Tensor]


def _agreement(x: Tensor, y: Tensor, of_x: Moments, of_y: Moments) -> Tensor:
    """Local correlation of two maps under an 11 x 11 Gaussian, zeros around them."""
    (mean_x, variance_x), (mean_y, variance_y) = of_x, of_y
    covariance = _mean(x * y) - mean_x * mean_y
    return (covariance + PHASE_EPSILON) / ((variance_x * variance_y).abs().sqrt() + PHASE_EPSILON)


@statistic
def _local(x: Tensor) -> Moments:
    """Local mean and variance under the same window."""
    mean = _mean(x)
    return mean, _mean(x * x) - mean**2


def _mean(x: Tensor) -> Tensor:
    return separable(pad(x, (len(SSIM_TAPS) // 2,) * 4), SSIM_TAPS)

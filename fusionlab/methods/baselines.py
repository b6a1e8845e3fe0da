"""Three fusers without a single learned number: what every table should also contain."""

import torch
import torch.nn.functional as F
from torch import Tensor


def average(ir: Tensor, vi: Tensor) -> Tensor:
    """Mean of the two images, (B, 1, H, W) in [0, 1]. Halves the contrast of what only one of them shows."""
    return (ir + vi) / 2


def maximum(ir: Tensor, vi: Tensor) -> Tensor:
    """The brighter of the two pixels, (B, 1, H, W) in [0, 1]. A copy of one source at every pixel."""
    return torch.maximum(ir, vi)


def blur(image: Tensor) -> Tensor:
    """Binomial low-pass (1 4 6 4 1)/16 along both axes, (B, 1, H, W) to the same shape, reflected border."""
    taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=image.dtype, device=image.device) / 16
    image = F.pad(image, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(image, taps.view(1, 1, 1, 5)), taps.view(1, 1, 5, 1))


def expand(image: Tensor, size: torch.Size) -> Tensor:
    """Doubles a pyramid level to (B, 1, *size): zeros between the samples, then the same low-pass."""
    spread = image.new_zeros(*image.shape[:2], *size)
    spread[..., ::2, ::2] = image
    return 4 * blur(spread)


def laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """Detail of each octave, fine to coarse, then the remaining base (Burt and Adelson 1983).

    `collapse` of it returns the image exactly, since each detail is what expanding the next level misses.
    """
    bands = []
    for _ in range(levels):
        smaller = blur(image)[..., ::2, ::2]
        bands.append(image - expand(smaller, image.shape[-2:]))
        image = smaller
    return [*bands, image]


def collapse(pyramid: list[Tensor]) -> Tensor:
    """Adds the levels of a Laplacian pyramid up again."""
    image = pyramid[-1]
    for band in reversed(pyramid[:-1]):
        image = band + expand(image, band.shape[-2:])
    return image


def laplacian(ir: Tensor, vi: Tensor, levels: int = 4) -> Tensor:
    """Keeps the stronger detail of each octave and averages the base (Burt 1984; (B, 1, H, W) in [0, 1]).

    Levels whose shorter side would fall below four pixels are left out. Clipped, as part of the method: the
    strongest details of two images together overshoot, and a stretch would follow the few that do.
    """
    levels = min(levels, (min(ir.shape[-2:]) // 4).bit_length() - 1)
    *details, base = zip(laplacian_pyramid(ir, levels), laplacian_pyramid(vi, levels), strict=True)
    stronger = [torch.where(a.abs() >= b.abs(), a, b) for a, b in details]
    return collapse([*stronger, (base[0] + base[1]) / 2]).clamp(0, 1)

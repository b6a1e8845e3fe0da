"""Procedural textures: tiling noise read at any scale, box-filtered patterns, and integer hashes.

Everything is a function of world coordinates (metres), so a scene drawn twice as large shows the same
marks, and everything takes the footprint of a pixel, so that nothing finer than a pixel is drawn.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]  # of float32 unless a name says otherwise

SIZE = 256  # texels along a side of a noise tile, a power of two
TILE_LEVELS = 7  # 256, 128, ..., 4
# Spectral slope and low cut (cycles per tile) of each kind of noise.
_SPECTRA = {"grain": (0.35, 2.0), "stain": (1.25, 1.0), "cloud": (1.75, 1.0), "leaf": (0.75, 6.0)}


@cache
def _tile(kind: str) -> Array:
    """Mip pyramid of one periodic noise tile; the level of side n starts at n^2, where no other one reaches.

    The largest level has mean 0 and variance 1.
    Each entry holds a texel, what its right neighbour is more, and the same of the texel below (four float32
    seen as one complex128), so that one look-up serves an interpolation.
    """
    slope, low = _SPECTRA[kind]
    rng = np.random.default_rng(list(kind.encode()))
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) * SIZE
    shape = np.where(frequency < low, 0.0, np.maximum(frequency, 1.0) ** -slope)
    tile = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * shape, s=(SIZE, SIZE))
    level = tile / tile.std()
    pyramid = np.zeros((2 * SIZE * SIZE, 4), np.float32)
    for _ in range(TILE_LEVELS):
        texel = level.astype(np.float32)
        pair = (texel, np.roll(texel, -1, 1) - texel)
        corners = np.stack((*pair, *np.roll(pair, -1, 1)), -1).reshape(-1, 4)
        pyramid[level.size : 2 * level.size] = corners
        level = level.reshape(level.shape[0] // 2, 2, -1, 2).mean((1, 3))
    return pyramid.view(np.complex128)[:, 0]


def floats(values: ArrayLike) -> Array:
    """The values as float32, mostly a colour or a list of them."""
    return np.asarray(values, np.float32)


def pixels(mask: Array) -> tuple[Array, Array, Array]:
    """Numbers, rows and columns of the pixels of a mask (h, w), much faster than np.nonzero of two axes."""
    at = np.flatnonzero(mask)
    row = at // mask.shape[1]
    return at, row, at - row * mask.shape[1]


def put(planes: Array, at: Array | tuple[slice, slice] | tuple[Array, ...], values: Array) -> None:
    """planes[:, at] = values, one plane at a time, which takes numpy half as long."""
    for plane, value in zip(planes, values):
        plane[at] = value


def rgb(colour: ArrayLike, axes: int = 1) -> Array:
    """A colour as (3, 1) or, for two axes, (3, 1, 1), to go with planes; numpy likes long last axes."""
    return floats(colour).reshape(3, *[1] * axes)


def tile_noise(
    kind: str, u: Array, v: Array, texel: float, footprint: Array | float, shift: Array | float = 0.0
) -> Array:
    """Noise of mean 0 at the points (u, v) in metres; variance 1 where a pixel is no larger than a texel.

    `texel` is the finest detail in metres, `footprint` the size of a pixel in metres (a scalar or an array
    like u), `shift` moves the tile so that two objects do not share their marks.
    """
    # The level is log2 of the footprint in texels, rounded: the exponent of sqrt(2) times it, which a float32
    # holds in its bits from the 23rd on, plus 127.
    level = ((floats(footprint) * np.float32(2**0.5 / texel)).view(np.int32) >> 23) - 127
    level = level.clip(0, TILE_LEVELS - 1)
    scale = ((127 - level) << 23).view(np.float32)  # 1 / 2^level
    column, row = u * np.float32(1 / texel), v * np.float32(1 / texel)
    for along, moved in ((column, np.float32(1) * shift), (row, np.float32(1.7) * shift)):
        along += moved
        along *= scale
        along -= np.float32(0.5)
    left, top = np.floor(column), np.floor(row)
    column -= left
    row -= top
    size = SIZE >> level
    mask = size - 1
    texels = top.astype(np.int32)
    texels &= mask
    texels += size
    texels *= size
    aside = left.astype(np.int32)
    aside &= mask
    texels += aside
    corner = _tile(kind).take(texels).view(np.float32).reshape(*texels.shape, 4)
    upper, value = corner[..., 1] * column, corner[..., 3] * column
    upper += corner[..., 0]
    value += corner[..., 2]
    value -= upper
    value *= row
    value += upper
    return np.asarray(value)


def overlap(x: Array, low: Array | float, high: Array | float, width: Array | float) -> Array:
    """Share of a pixel of size `width` centred at x that lies in [low, high]: an edge without jags."""
    width = floats(width)
    half = np.float32(0.5) * width
    covered = np.asarray(np.minimum(x + half, high) - np.maximum(x - half, low))
    covered /= width
    return covered.clip(0, 1, out=covered)


def stripes(x: Array, period: float, on: float, width: Array | float) -> Array:
    """Square wave, 1 on the first `on` metres of each period, averaged over pixels of size `width`."""
    half = np.float32(0.5) * floats(width)

    def integral(t: Array) -> Array:
        whole = np.floor(t / period)
        return whole * on + np.minimum(t - whole * period, on)

    return (integral(x + half) - integral(x - half)) / (2 * half)


def ramp(x: Array, low: Array | float, high: Array | float) -> Array:
    """Smooth step from 0 at `low` to 1 at `high` (low may be the larger one)."""
    t = np.asarray((x - low) / (high - low)).clip(0, 1)
    step: Array = t * t
    step *= 3 - 2 * t
    return step


def chance(i: Array | int, j: Array | int, salt: Array | int) -> Array:
    """Uniform numbers in [0, 1), one for each pair of whole numbers (i, j): equal pairs, equal numbers."""
    h: Array = _whole(i) * np.uint32(374761393) + _whole(j) * np.uint32(668265263)
    h = h + _whole(salt) * np.uint32(1013904223)
    for _ in range(2):
        h ^= h >> np.uint32(16)
        h *= np.uint32(73244475)
    return ((h >> np.uint32(8)) & np.uint32(0xFFFFFF)).astype(np.float32) / np.float32(1 << 24)


def _whole(values: Array | int) -> Array:
    """Whole numbers modulo 2^32; at least one axis, so that products wrap around without a warning."""
    return np.atleast_1d(np.asarray(values)).astype(np.int32).view(np.uint32)


def bricks(u: Array, y: Array, width: Array | float, length: float = 0.5, course: float = 0.16) -> Array:
    """Share of mortar (0 brick, 1 mortar) of a running bond, averaged over pixels of size `width` metres."""
    row = np.floor(y / course)
    bed = stripes(y, course, 0.02, width)
    head = stripes(u + 0.5 * length * (row % 2), length, 0.02, width)
    return np.maximum(bed, head)


def capsules(x: Array, y: Array, ends: Array, radii: Array) -> tuple[Array, Array, Array]:
    """Signed distance (n, N) from N points to n tapered capsules, and offsets from their axes.

    `ends` is (4, n, 1): ax, ay, bx, by; `radii` (2, n, 1): at a and at b; or N for 1, where each point has
    capsules of its own. Offsets are in shares of the radius.
    """
    ax, ay, bx, by = ends
    ex, ey = bx - ax, by - ay
    square = ex * ex + ey * ey + np.float32(1e-9)
    px, py = x - ax, y - ay
    along = px * (ex / square)
    along += py * (ey / square)
    along.clip(0, 1, out=along)
    px -= along * ex
    py -= along * ey
    along *= radii[1] - radii[0]
    along += radii[0]
    distance = np.sqrt(px * px + py * py) - along
    px /= along
    py /= along
    return distance, px, py

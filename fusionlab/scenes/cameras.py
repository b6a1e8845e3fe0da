"""The two cameras: lens, glare, noise, tone curve or gain control, and 8 bits.

Visible pictures are handled as planes (3, H, W). Widths of blur are shares of the picture's height.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from fusionlab.scenes.textures import Array, pixels
from fusionlab.scenes.weather import Weather

LENS, LENS_IR = 0.0021, 0.0036
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)  # BT.601
HALO = ((0.012, 0.50), (0.04, 0.30), (0.12, 0.20))  # widths of glare and their shares
_STEPS, _BRIGHTEST = 4096, 4.0  # of the tabled tone curve


def photograph(radiance: Array, weather: Weather, rng: np.random.Generator | None) -> Array:
    """Visible picture (3, H, W) of radiance (3, H, W) in [0, 1], in steps of 1/255.

    Without a generator it is the truth: no glare and no noise. Noise is that of photons, with a variance in
    proportion to the light, and that of reading the sensor.
    """
    rows, columns = radiance.shape[1:]
    light = radiance * np.float32(exposure_gain(radiance, weather.exposure))
    if rng is not None:
        _add_glare(light, 1.2, weather.flare)
    light = gaussian_blur(light, LENS * rows)
    light.clip(0, np.inf, out=light)  # numpy takes twice as long for np.maximum with a number
    if rng is not None:
        spread = np.float32(5e-5 * weather.grain) * light
        spread += np.float32((0.0007 * weather.grain) ** 2)
        np.sqrt(spread, out=spread)
        spread *= rng.standard_normal(light.shape, dtype=np.float32)
        light += spread
    colour = develop(light)
    grey = (LUMA @ colour.reshape(3, -1)).reshape(rows, columns)
    colour *= np.float32(0.9)
    colour += np.float32(0.1) * grey
    return eight_bits(colour)


@cache
def _tone_curve() -> Array:
    """The developed value of (k / 2047.5)^2 for k = 0 to 4095."""
    x = np.linspace(0, np.sqrt(_BRIGHTEST), _STEPS) ** 2
    x = np.where(x < 0.55, x, 0.55 + 0.45 * (1 - np.exp(-np.maximum(x - 0.55, 0) / 0.45)))
    y = np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)
    return y.astype(np.float32)


def develop(linear: Array) -> Array:
    """Tone curve, from a table: a shoulder that saves highlights, then the sRGB transfer function."""
    root = linear.clip(0, np.inf)
    return _developed(np.sqrt(root, out=root))


def _developed(root: Array) -> Array:
    """`develop` of the square of what is given."""
    steps = root * np.float32((_STEPS - 1) / _BRIGHTEST**0.5)
    steps += np.float32(0.5)
    steps.clip(0, _STEPS - 1, out=steps)
    return np.take(_tone_curve(), steps.astype(np.intp))


def exposure_gain(light: Array, mean: float) -> float:
    """Gain for which planes (3, H, W) develop to a mean grey (bisection on a thinned picture)."""
    rows, columns = light.shape[1:]
    thin = light[:, :: max(1, rows // 48), :: max(1, columns // 64)]
    root = np.sqrt(np.maximum(thin, 0)).reshape(3, -1)
    low, high = 0.02**0.5, 200.0**0.5
    for _ in range(14):
        gain = (low * high) ** 0.5
        grey = float(LUMA[0] @ _developed(root * np.float32(gain)).mean(1))
        low, high = (gain, high) if grey < mean else (low, gain)
    return gain * gain


def _add_glare(light: Array, white: float, strength: float) -> None:
    """Adds the light that the lens spreads around whatever is brighter than `white`."""
    rows, columns = light.shape[1:]
    step = max(1, rows // 60)
    peak = light.max(0)
    at, r, c = pixels(peak > white)
    if not at.size:
        return
    shape = (-(-rows // step), -(-columns // step))
    bright = light.reshape(3, -1).take(at, axis=1)
    excess = np.minimum(bright * (1 - white / peak.take(at)), 40 * white)
    cell = r // step * shape[1] + c // step
    size = shape[0] * shape[1]
    small = np.array([np.bincount(cell, band, size).reshape(shape) for band in excess]).astype(np.float32)
    unit = rows / step
    halo = np.zeros_like(small)
    for width, share in HALO:
        down, across = (_spread(length, width * unit) for length in shape)
        halo += np.float32(share * strength / step**2) * (down @ small @ across.T)
    light += _enlarge(rows, step) @ halo @ _enlarge(columns, step).T


@cache
def _spread(length: int, sigma: float) -> Array:
    """Matrix of a Gaussian blur of `length` samples, dark beyond the ends."""
    place = np.arange(length)
    reach = np.arange(-length, length + 1)
    matrix = (
        np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2) / np.exp(-0.5 * (reach / sigma) ** 2).sum()
    )
    return matrix.astype(np.float32)


@cache
def _enlarge(length: int, step: int) -> Array:
    """Matrix of linear interpolation from the middles of blocks of `step` samples to all `length` samples."""
    blocks = -(-length // step)
    place = np.clip((np.arange(length) + 0.5) / step - 0.5, 0, blocks - 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(blocks)), 0).astype(np.float32)


def gaussian_blur(image: Array, sigma: float) -> Array:
    """Gaussian blur along the last two axes, mirrored at the borders, out to four sigma."""
    reach = int(4 * sigma + 0.5)
    if reach < 1:
        return image
    taps = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    taps = (taps / (2 * taps.sum() - 1)).astype(np.float32)
    for axis in (-1, -2):
        length = image.shape[axis]
        rim = np.minimum(np.arange(reach), length - 1)
        before, after = image.take(rim[::-1], axis), image.take(length - 1 - rim, axis)
        wide = np.concatenate((before, image, after), axis)

        def part(first: int, wide: Array = wide, axis: int = axis, length: int = length) -> Array:
            return wide[..., first : first + length] if axis == -1 else wide[..., first : first + length, :]

        image = taps[0] * part(reach)
        for k in range(1, reach + 1):
            pair = part(reach - k) + part(reach + k)
            pair *= taps[k]
            image += pair
    return image


def thermograph(
    heat: Array, rng: np.random.Generator, gain: str, polarity: str
) -> tuple[Array, Callable[[Array], Array]]:
    """Infrared picture (H, W) of `heat` in [0, 1], in steps of 1/255, and what makes it of a radiance.

    Optics resolve less than those of the visible camera. Each pixel has noise and each column an offset, the
    fixed pattern of a camera; every scene is taken by a camera of its own, so no two share a pattern. The
    truth has neither, and goes through the same gain control.
    """
    rows, columns = heat.shape
    image = gaussian_blur(heat, LENS_IR * rows)
    image = image + np.float32(0.007) * rng.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(0.0035) * rng.standard_normal((1, columns), dtype=np.float32)
    picture = partial(_infrared_picture, *gain_control(image, gain), polarity)
    return picture(image), picture


def _infrared_picture(levels: Array, values: Array, polarity: str, radiance: Array) -> Array:
    grey = np.interp(radiance, levels, values).astype(np.float32)
    return eight_bits(1 - grey if polarity == "black-hot" else grey)


def gain_control(image: Array, kind: str) -> tuple[Array, Array]:
    """Rising radiances and the grey values 0 to 1 that a gain control of settings.GAINS gives them."""
    if kind == "fixed":  # the top of the range is compressed, so that faces and clothes stay apart
        levels = np.concatenate([[0.0, 0.7], np.linspace(0.75, 2.0, 26)])
        return levels, np.where(levels <= 0.7, levels, 1 - 0.3 * np.exp(-np.maximum(levels - 0.7, 0) / 0.3))
    if kind == "linear":
        return np.percentile(image, (0.5, 99.5)), np.array([0.0, 1.0])
    counts, edges = np.histogram(image, 512)
    plateau = np.minimum(counts, 4 * image.size / 512)
    return edges, np.concatenate([[0.0], np.cumsum(plateau) / plateau.sum()])


def eight_bits(image: Array) -> Array:
    """The nearest steps of 1/255 within [0, 1]."""
    steps: Array = image * np.float32(255)
    steps += np.float32(0.5)
    np.floor(steps, out=steps)
    np.clip(steps, 0, 255, out=steps)
    steps /= np.float32(255)
    return steps

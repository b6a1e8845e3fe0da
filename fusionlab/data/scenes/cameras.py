"""From radiance to pictures: air, then the visible and the infrared camera."""

import numpy as np
from scipy.ndimage import gaussian_filter

from fusionlab.data.scenes.canvas import Canvas
from fusionlab.data.scenes.light import Lamp
from fusionlab.data.scenes.textures import Array
from fusionlab.data.scenes.weather import Weather


def luma(colour: Array) -> Array:
    """BT.601 luminance (...) of colours (..., 3)."""
    return 0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2]


def through_air(canvas: Canvas, weather: Weather) -> tuple[Array, Array]:
    """Visible (H, W, 3) and infrared (H, W) radiance after air: exp(-beta depth) of it, the rest airlight."""
    depth = 1 / np.maximum(canvas.nearness, 1 / 1500)
    clear = np.exp(-weather.beta * depth)[..., None]
    visible = canvas.radiance * clear + weather.airlight * (1 - clear)
    for lamp in weather.light.lamps:
        if lamp.spread > 0 and 2 < lamp.position[2] < 70:
            _add_cone(canvas, weather, lamp, visible, depth)
    clear_ir = np.exp(-weather.beta_ir * depth)
    air = 0.5 * (weather.heat["skyline"] + weather.heat["walk"])
    return visible, canvas.heat * clear_ir + air * (1 - clear_ir)


def _add_cone(canvas: Canvas, weather: Weather, lamp: Lamp, visible: Array, depth: Array) -> None:
    """Light of a lamp scattered by the air beneath it, in front of what lies farther off."""
    x, y, z = lamp.position
    region = canvas.window(x - 5, x + 5, 0.0, y + 2.5, z)
    if region is None:
        return
    across, up = canvas.plane(region, x, z)
    below = y - up
    reach = np.hypot(across, below)
    angle = below / np.maximum(reach, 0.05)
    cone = 0.30 + 0.70 / (1 + np.exp(-(angle - 0.80) / 0.07))
    strength = min(weather.beta, 0.05) * np.exp(-weather.beta * z) * 0.22
    glow = strength * cone * np.exp(-reach / 2.6) / (0.25 + reach)
    visible[region] += (glow * (depth[region] > 0.95 * z))[..., None] * lamp.colour


def glare(radiance: Array, white: float, strength: float) -> Array:
    """Light spread around whatever is brighter than `white`; widths are shares of the picture's height."""
    rows, columns = radiance.shape[:2]
    step = max(1, rows // 60)
    peak = np.maximum(np.maximum(radiance[..., 0], radiance[..., 1]), radiance[..., 2])[..., None]
    if peak.max() <= white:
        return np.zeros_like(radiance)
    pad = ((0, -rows % step), (0, -columns % step), (0, 0))
    excess = np.pad(radiance * np.clip(1 - white / np.maximum(peak, 1e-6), 0, 1), pad)
    excess = np.minimum(excess, 40 * white)
    small = excess.reshape(excess.shape[0] // step, step, -1, step, 3).mean((1, 3))
    unit = rows / step
    halo = np.zeros_like(small)
    for width, share in ((0.012, 0.50), (0.04, 0.30), (0.12, 0.20)):
        halo += share * gaussian_filter(small, (width * unit, width * unit, 0), mode="constant")
    return np.float32(strength) * _stretch(_stretch(halo, rows, step).swapaxes(0, 1), columns, step).swapaxes(
        0, 1
    )


def _stretch(image: Array, length: int, step: int) -> Array:
    """Linear interpolation along the first axis from middles of blocks of `step` samples to all samples."""
    place = np.clip((np.arange(length, dtype=np.float32) + 0.5) / step - 0.5, 0, len(image) - 1)
    first = np.floor(place).astype(np.int32)
    second = np.minimum(first + 1, len(image) - 1)
    share = (place - first).astype(np.float32).reshape(-1, *[1] * (image.ndim - 1))
    return image[first] * (1 - share) + image[second] * share


def exposure_gain(radiance: Array, mean: float) -> float:
    """Gain for which the developed picture has the given mean grey (bisection on a thinned picture)."""
    rows, columns = radiance.shape[:2]
    thin = radiance[:: max(1, rows // 48), :: max(1, columns // 64)]
    low, high = 0.02, 200.0
    for _ in range(16):
        gain = float(np.sqrt(low * high))
        low, high = (gain, high) if luma(develop(gain * thin)).mean() < mean else (low, gain)
    return gain


def develop(linear: Array) -> Array:
    """Tone curve: a shoulder that saves highlights, then the sRGB transfer function."""
    x = np.maximum(linear, 0)
    x = np.where(x < 0.55, x, 0.55 + 0.45 * (1 - np.exp(-np.maximum(x - 0.55, 0) / 0.45)))
    return np.where(x < 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def photograph(radiance: Array, weather: Weather, rng: np.random.Generator | None) -> Array:
    """Visible picture (H, W, 3) in [0, 1], in steps of 1/255; without a generator there is no noise."""
    rows = radiance.shape[0]
    gain = exposure_gain(radiance, weather.exposure)
    seen = radiance + glare(radiance, 1.2 / gain, weather.flare)
    linear = gaussian_filter(gain * seen, (0.0021 * rows, 0.0021 * rows, 0))
    if rng is not None:
        spread = np.sqrt(5e-5 * weather.grain * np.maximum(linear, 0) + (0.0007 * weather.grain) ** 2)
        linear = linear + spread * rng.standard_normal(linear.shape, dtype=np.float32)
    colour = develop(linear)
    grey = luma(colour)[..., None]
    return _eight_bits(grey + 0.9 * (colour - grey))


def thermograph(heat: Array, rng: np.random.Generator | None) -> Array:
    """Infrared picture (H, W) in [0, 1], in steps of 1/255; without a generator there is no noise."""
    rows, columns = heat.shape
    image = gaussian_filter(heat, 0.0036 * rows)
    if rng is not None:
        image = image + 0.007 * rng.standard_normal(image.shape, dtype=np.float32)
        image = image + 0.0035 * rng.standard_normal((1, columns), dtype=np.float32)
    # The top of the range is compressed, so that faces and clothes stay apart.
    image = np.where(image < 0.7, image, 1 - 0.3 * np.exp(-np.maximum(image - 0.7, 0) / 0.3))
    return _eight_bits(image)


def _eight_bits(image: Array) -> Array:
    return (np.floor(np.clip(image, 0, 1) * 255 + 0.5) / 255).astype(np.float32)

"""What lies between the street and the cameras: haze or fog, smoke, and air that lamps light up."""

import numpy as np

from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.light import Lamp
from fusionlab.scenes.textures import Array, tile_noise
from fusionlab.scenes.weather import Weather

SMOKE_NEAR, SMOKE_DEEP, SMOKE_TALL = 4.5, 3.0, 2.4  # metres
SMOKE_IR = 0.04  # infrared extinction of smoke over that of visible light: its particles are small


def through_air(canvas: Canvas, weather: Weather) -> tuple[Array, Array]:
    """Visible (3, H, W) and infrared (H, W) radiance after air: exp(-beta depth) of it, the rest airlight.

    The law of Koschmieder, in each band with its own extinction; smoke adds a bank of its own.
    """
    depth = canvas.depth()
    airlight = weather.airlight[:, None, None]
    visible = airlight + np.exp(-weather.beta * depth) * (canvas.radiance - airlight)
    for lamp in weather.light.lamps:
        if lamp.spread > 0 and 2 < lamp.position[2] < 70:
            _add_cone(canvas, weather, lamp, visible, depth)
    air = np.float32(0.5 * (weather.heat["skyline"] + weather.heat["walk"]))
    infrared = air + np.exp(-weather.beta_ir * depth) * (canvas.heat - air)
    if weather.smoke:
        thick = weather.smoke * _smoke(canvas, depth)
        grey = np.float32(0.45 * float(weather.light.sky.mean() + 0.3 * weather.light.sun.mean()))
        visible = grey + np.exp(-thick) * (visible - grey)
        infrared = air + np.exp(-SMOKE_IR * thick) * (infrared - air)
    return visible, infrared


def _smoke(canvas: Canvas, depth: Array) -> Array:
    """Metres of full smoke before each point (H, W): a bank across the street, in billows, thin on top."""
    x, y = canvas.plane((slice(0, canvas.rows), slice(0, canvas.columns)), 0.0, SMOKE_NEAR)
    billow = tile_noise("cloud", x, y, 0.07, SMOKE_NEAR * canvas.pixel, 17.0)
    density = np.clip(0.8 + 0.4 * billow, 0.1, 2) * np.exp(-((np.maximum(y, 0) / SMOKE_TALL) ** 2))
    return density * np.clip(depth - SMOKE_NEAR, 0, SMOKE_DEEP)


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
    visible[:, *region] += (glow * (depth[region] > 0.95 * z)) * lamp.colour[:, None, None]

"""What surfaces emit: one table of temperatures and emissivities, and the infrared band they are seen in.

A surface sends out its own thermal radiation and reflects that of the sky: e B(T) + (1 - e) B(T_sky), where
B is Planck's law between 8 and 14 micrometres. Pictures hold this radiance as a share of the camera's range.
"""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from fusionlab.scenes.textures import Array


class Material(NamedTuple):
    """Emissivity, and degrees Celsius on a spring day, at dusk, at night and in fog, chosen by hand."""

    emissivity: float
    day: float
    dusk: float
    night: float
    fog: float


# zenith and skyline are the apparent temperatures of the low sky; engine is the bonnet of a car that runs.
MATERIALS = {
    "zenith": Material(1.00, 0.4, -1.2, -0.6, 4.6),
    "skyline": Material(1.00, 4.2, 3.0, 2.4, 7.5),
    "road": Material(0.95, 21.3, 14.9, 7.3, 13.2),
    "walk": Material(0.94, 20.1, 15.7, 9.6, 14.0),
    "grass": Material(0.98, 13.0, 6.0, 2.8, 7.9),
    "wall": Material(0.93, 17.5, 14.4, 11.8, 15.5),
    "pane": Material(0.87, 9.9, 8.3, 7.1, 11.0),
    "leaf": Material(0.97, 12.8, 8.3, 6.1, 9.8),
    "wood": Material(0.94, 15.6, 11.8, 9.6, 12.9),
    "steel": Material(0.90, 18.0, 9.2, 4.1, 10.5),
    "body": Material(0.90, 17.3, 8.4, 4.1, 9.7),
    "glass": Material(0.87, 7.1, 3.7, 1.7, 6.9),
    "tyre": Material(0.95, 23.9, 17.9, 15.7, 18.4),
    "engine": Material(0.92, 32.2, 29.6, 29.7, 30.7),
    "skin": Material(0.98, 33.3, 31.2, 31.3, 32.3),
    "cloth": Material(0.95, 29.0, 24.4, 23.4, 25.0),
    "lamp": Material(0.90, 19.4, 27.6, 27.7, 26.0),
}
# Temperatures shown as 0 and as 1, before the gain that each scene draws.
RANGES = {"day": (0.0, 33.0), "dusk": (-2.0, 31.0), "night": (-1.0, 31.0), "fog": (0.0, 33.0)}


@cache
def _planck() -> tuple[Array, Array]:
    """Temperatures (degrees Celsius) and their radiance between 8 and 14 micrometres (W / m^2 / sr)."""
    celsius = np.arange(-80.0, 400.0, 0.5)
    wave = (np.arange(8.0, 14.0, 0.05) + 0.025) * 1e-6
    h, c, k = 6.62607015e-34, 299792458.0, 1.380649e-23
    exponent = h * c / (k * wave * (celsius[:, None] + 273.15))
    spectral = 2 * h * c * c / wave**5 / np.expm1(exponent)
    return celsius, spectral.sum(1) * 0.05e-6


def band_radiance(celsius: Array | float) -> Array:
    """Radiance of a black body between 8 and 14 micrometres, in W / m^2 / sr; -80 to 399 degrees Celsius."""
    return np.asarray(np.interp(celsius, *_planck()))


def surface_radiance(temperatures: Mapping[str, float]) -> dict[str, float]:
    """Radiance of each material at its temperature under the sky that the table of temperatures names."""
    sky = 0.5 * float(band_radiance(temperatures["zenith"]) + band_radiance(temperatures["skyline"]))
    return {
        name: MATERIALS[name].emissivity * float(band_radiance(t)) + (1 - MATERIALS[name].emissivity) * sky
        for name, t in temperatures.items()
    }

"""Light of the street: sky, sun, lamps and headlights, and the shadows they throw on the ground.

Colours are linear RGB. Light arrives as irradiance, surfaces send back albedo times irradiance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from fusionlab.scenes.textures import Array, floats, ramp, rgb

AHEAD = 0.2  # metres before a headlight at which its beam begins


@dataclass(frozen=True)
class Lamp:
    """A light that shines downward from `position`; irradiance at distance r is colour / r^2."""

    position: tuple[float, float, float]
    colour: Array
    spread: float = 0.25  # cosine from the vertical below which nothing arrives


@dataclass(frozen=True)
class Beam:
    """The headlights of one car: a flat cone from `position` along `heading` (unit vector x, z)."""

    position: tuple[float, float, float]
    heading: tuple[float, float]
    colour: Array


@dataclass
class Light:
    """All light of one scene, in the camera frame; `towards` is the unit vector to the sun."""

    sky: Array
    bounce: Array
    sun: Array
    towards: Array
    lamps: list[Lamp] = field(default_factory=list)
    beams: list[Beam] = field(default_factory=list)

    def near(self, x: float, z: float) -> "Light":
        """The same light without lamps and headlights too far to matter at (x, z), or turned away from it."""
        lamps = [p for p in self.lamps if math.hypot(p.position[0] - x, p.position[2] - z) < 22]
        beams = [p for p in self.beams if math.hypot(p.position[0] - x, p.position[2] - z) < 40]
        beams = [
            p for p in beams
            if (x - p.position[0]) * p.heading[0] + (z - p.position[2]) * p.heading[1] > AHEAD
        ]  # fmt: skip
        return replace(self, lamps=lamps, beams=beams)


# cover(across, up, softness) -> share of light held back.
Cover = Callable[[Array, Array, Array | float], Array]


@dataclass(frozen=True)
class Caster:
    """Something that throws shadow: `cover` is its outline as the light sees it, [0, 1].

    The outline stays within `edge`: metres to either side, and up. Bodies too deep for an outline say in
    `solid` what they hide.
    """

    x: float
    z: float
    reach: float
    top: float
    cover: Cover
    edge: tuple[float, float] = (0.0, 0.0)
    solid: Callable[[Array, Array, Array], Array] | None = None


def lamp_light(
    lamp: Lamp, x: Array | float, y: Array | float, z: Array | float, normal: Array | None
) -> Array:
    """Share of a lamp's colour that arrives at points with a normal (3, n); None is level ground."""
    lx, ly, lz = lamp.position
    vx, vy, vz = lx - x, ly - y, lz - z
    square = np.asarray(vx * vx + vy * vy + vz * vz)
    square += 0.05
    inverse = 1 / np.sqrt(square)
    down = vy * inverse
    if normal is None:
        facing = np.maximum(down, 0)
    else:
        facing = (normal[0] * vx + normal[1] * vy + normal[2] * vz) * inverse
        facing = np.maximum(0.75 * facing + 0.25, 0)  # wrapped: light also scatters around limbs and leaves
    return facing * ramp(down, lamp.spread - 0.15, lamp.spread + 0.35) / square


def beam_light(
    beam: Beam, x: Array | float, y: Array | float, z: Array | float, normal: Array | None
) -> Array:
    """Share of a headlight's colour that arrives at points with a normal (3, n); None is level ground."""
    bx, by, bz = beam.position
    vx, vy, vz = floats(x - bx), floats(y - by), floats(z - bz)
    ahead = vx * beam.heading[0] + vz * beam.heading[1]
    aside = vx * beam.heading[1] - vz * beam.heading[0]
    distance = np.maximum(ahead, 0.6)
    cone = np.exp(-((aside / (0.45 + 0.24 * distance)) ** 2)) * ramp(ahead, AHEAD, 3.0)
    cone = cone * ramp(vy, 0.72, -0.25)
    if normal is None:
        facing = np.minimum(by / distance, 1)
    else:
        facing = -(normal[0] * beam.heading[0] + normal[2] * beam.heading[1])
        facing = np.maximum(0.8 * facing + 0.2, 0)
    return cone * facing / (distance * distance + 4)


def irradiance(
    light: Light, x: Array | float, y: Array, z: Array | float, normal: Array, sunlit: Array | float
) -> Array:
    """Irradiance (3, n) at n points (x, y, z) of surfaces with normals (3, n); `sunlit` is 1 in full sun."""
    total = daylight(light, normal, sunlit)
    add_lamps(total, light, x, y, z, normal)
    return total


def daylight(light: Light, normal: Array, sunlit: Array | float) -> Array:
    """The part of irradiance (3, n) that comes from sky, ground and sun."""
    up = 0.5 + 0.5 * normal[1]
    total = rgb(light.sky - light.bounce) * up
    total += rgb(light.bounce)
    if light.sun.any():
        sx, sy, sz = light.towards.tolist()
        facing = normal[0] * sx + normal[1] * sy + normal[2] * sz
        total += rgb(light.sun) * (np.maximum(0.85 * facing + 0.15, 0) * sunlit)
    return total


def add_lamps(
    total: Array, light: Light, x: Array | float, y: Array, z: Array | float, normal: Array
) -> None:
    """Adds the part of irradiance (3, n) that comes from lamps and headlights."""
    for lamp in light.lamps:
        total += rgb(lamp.colour) * lamp_light(lamp, x, y, z, normal)
    for beam in light.beams:
        total += rgb(beam.colour) * beam_light(beam, x, y, z, normal)


def sun_shadow(caster: Caster, light: Light, x: Array, z: Array) -> Array:
    """Share of the sun that a caster hides from ground points (x, z)."""
    if caster.solid is not None:
        return caster.solid(x, z, light.towards)
    lx, ly, lz = light.towards.tolist()
    level = math.hypot(lx, lz)
    ax, az = lx / level, lz / level
    away = (caster.x - x) * ax + (caster.z - z) * az
    up = away * (ly / level)
    across = (x - caster.x) * az - (z - caster.z) * ax
    return _covered(caster, away, across, up, 0.02 + 0.02 * np.abs(away))


def lamp_shadow(caster: Caster, lamp: Lamp, x: Array, z: Array) -> Array:
    """Share of a lamp that a caster hides from ground points (x, z)."""
    lx, ly, lz = lamp.position
    if caster.solid is not None:
        return caster.solid(x, z, floats([lx - caster.x, ly - 0.7, lz - caster.z]))
    dx, dz = lx - caster.x, lz - caster.z
    level = math.hypot(dx, dz) + 1e-3
    ax, az = dx / level, dz / level
    away = (caster.x - x) * ax + (caster.z - z) * az
    share = away / np.maximum(away + level, 0.1)
    across = ((x - caster.x) * az - (z - caster.z) * ax) * (1 - share)
    shade = _covered(caster, away, across, share * ly, 0.03 + 0.06 * np.abs(away))
    return np.where(share < 0.95, shade, 0)


def _covered(caster: Caster, away: Array, across: Array, up: Array, soft: Array) -> Array:
    """Share of light held back where it passes a caster at (across, up), `away` metres before the ground.

    The outline is asked only within its edge, and a soft rim about it.
    """
    wide, tall = caster.edge
    at = np.flatnonzero((np.abs(across) < wide + soft) & (up < tall + soft) & (away > -0.1))
    shade = np.zeros_like(across)
    shade[at] = caster.cover(across[at], up[at], soft[at])
    return shade


def shadow_corners(
    caster: Caster, source: tuple[float, float, float], parallel: bool
) -> list[tuple[float, float]]:
    """Four corners, as (x, z), of the ground a shadow can reach; `source` is a direction or a place."""
    x, y, z = source
    if parallel:
        stretch = caster.top / max(y, 0.08)
    else:
        x, z = x - caster.x, z - caster.z
        stretch = caster.top / max(y - caster.top, 0.25 * y)
    level = math.hypot(x, z)
    tip, half = min(stretch * level, 40.0), 1.5 * caster.reach
    ax, az = x / max(level, 1e-3), z / max(level, 1e-3)
    return [
        (caster.x + ahead * ax + aside * az, caster.z + ahead * az - aside * ax)
        for ahead in (0.2, -tip)
        for aside in (half, -half)
    ]

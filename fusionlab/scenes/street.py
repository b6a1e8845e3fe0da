"""What does not move: sky, far horizon, ground with its marks and shadows, and the fronts of buildings."""

import math
from dataclasses import dataclass

import numpy as np

from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.light import (
    Caster,
    beam_light,
    lamp_light,
    lamp_shadow,
    shadow_corners,
    sun_shadow,
)
from fusionlab.scenes.plan import Plan
from fusionlab.scenes.textures import (
    Array,
    chance,
    floats,
    overlap,
    pixels,
    put,
    ramp,
    rgb,
    stripes,
    tile_noise,
)
from fusionlab.scenes.weather import Weather

GROUND_END = 400.0


def paint_sky(canvas: Canvas, plan: Plan, weather: Weather) -> None:
    """Gradient from skyline to zenith, clouds on a plane overhead, glow of the sun; cold in infrared."""
    rows = int(min(canvas.rows, np.ceil(canvas.camera.horizon * canvas.rows) + 1))
    region = (slice(0, rows), slice(0, canvas.columns))
    up = np.maximum(canvas.dy[:rows, None], 0.004)
    height = np.broadcast_to(1 - np.exp(-4.5 * up), (rows, canvas.columns))
    skyline, zenith = weather.skyline[:, None, None], weather.zenith[:, None, None]
    radiance = skyline + height * (zenith - skyline)
    u, v = canvas.dx[None, :] / (up + 0.06), 1 / (up + 0.06) + 0 * canvas.dx[None, :]
    texture = tile_noise("cloud", u, v, 0.035, canvas.pixel / up.clip(0.05), shift=plan.salt % 997)
    cover = ramp(texture, 1.0 - 2.2 * weather.clouds, 2.2 - 2.2 * weather.clouds) * ramp(up, 0.0, 0.05)
    if weather.sunglow.any():
        side = canvas.dx[None, :] - weather.light.towards[0]
        radiance = radiance + np.exp(-(side**2 * 1.2) - up * 5.0) * weather.sunglow[:, None, None]
    white = (skyline * 0.55 + radiance.mean((1, 2), keepdims=True) * 0.55) * np.float32(1.05)
    shade = 1.0 + 0.10 * texture
    radiance = radiance + (0.85 * cover) * (white * shade - radiance)
    heat = weather.heat["skyline"] + height * (weather.heat["zenith"] - weather.heat["skyline"])
    heat = heat + 0.06 * cover * (1 + 0.4 * texture)
    alpha = np.ones((rows, canvas.columns), np.float32)
    canvas.paint(region, alpha, radiance.astype(np.float32), heat.astype(np.float32), GROUND_END * 10)


def paint_horizon(canvas: Canvas, plan: Plan, weather: Weather) -> None:
    """A far line of trees and blocks where the ground ends."""
    z = 170.0
    region = canvas.window(-1e4, 1e4, -2, 22, z)
    if region is None:
        return
    x, y = canvas.plane(region, 0.0, z)
    column = x[:1]
    top = 6 + 2.5 * tile_noise("stain", column, 0 * column, 1.2, z * canvas.pixel, shift=plan.salt % 811)
    index = np.floor(column / 17)
    tower = 9 + 9 * chance(index, 3, plan.salt)
    is_tower = (chance(index, 5, plan.salt) < 0.35) & (np.abs(column / 17 - index - 0.5) < 0.36)
    top = np.where(is_tower, tower, np.maximum(top, 2))
    alpha = overlap(y, -3.0, top, z * canvas.pixel)
    mottle = tile_noise("leaf", x, y, 0.7, z * canvas.pixel, shift=5.0)
    albedo = np.where(
        is_tower, floats([0.24, 0.24, 0.25])[:, None, None], floats([0.05, 0.075, 0.035])[:, None, None]
    )
    albedo = albedo * np.clip(1 + 0.3 * mottle, 0.3, 2)
    panes = stripes(x, 3.0, 1.6, z * canvas.pixel) * stripes(y, 3.2, 1.7, z * canvas.pixel) * is_tower
    lit = (chance(np.floor(x / 3), np.floor(y / 3.2), plan.salt) < 0.25) * panes
    radiance = albedo * (0.7 * weather.light.sky + 0.35 * weather.light.sun)[:, None, None]
    if weather.lamps_on:
        radiance = radiance + (lit * weather.windows * 0.5) * floats([1.0, 0.8, 0.5])[:, None, None]
    heat = np.where(is_tower, weather.heat["wall"], weather.heat["leaf"]) * 0.9 + 0.02 * mottle
    canvas.paint(region, alpha, radiance.astype(np.float32), heat.astype(np.float32), z)


def paint_ground(
    canvas: Canvas, plan: Plan, weather: Weather, casters: list[Caster], contact: list[Caster], hidden: Array
) -> None:
    """Road, marks, kerbs, sidewalks and what lies beyond, lit and in shade.

    `casters` throw shadow from sun and lamps; `contact` darken the ground right beneath them in any light.
    In each column the rows down to `hidden` are not drawn, because something is painted over them.
    """
    first = int(np.ceil(canvas.camera.horizon * canvas.rows + 0.3))
    at, row, column = pixels(np.arange(first, canvas.rows)[:, None] > hidden - 2)
    if not at.size:
        return
    number = np.full((canvas.rows - first, canvas.columns), -1)
    number.ravel()[at] = np.arange(at.size)
    z = np.minimum(-canvas.camera.height / canvas.dy[first + row], np.float32(GROUND_END))
    ground = Ground(canvas, canvas.dx[column] * z, z, number, first)
    albedo, heat, gloss = _ground_cover(canvas, plan, weather, ground.x, z)
    light, heat_shade = _ground_light(ground, plan, weather, casters, contact, gloss)
    albedo *= light[0]
    albedo += light[1]
    canvas.paint((first + row, column), np.ones_like(z), albedo, heat * heat_shade, z)


@dataclass(frozen=True)
class Ground:
    """The n pixels of ground that are drawn: x and z (n), and their numbers in the rows from `first` on."""

    canvas: Canvas
    x: Array
    z: Array
    number: Array  # (rows, columns), -1 where hidden
    first: int

    def around(self, corners: list[tuple[float, float]]) -> Array:
        """Numbers of the pixels in the picture's box around ground points (x, z)."""
        canvas = self.canvas
        horizon, middle = canvas.camera.horizon * canvas.rows, canvas.columns / 2
        column = [x / max(z, 0.8) / canvas.pixel + middle for x, z in corners]
        row = [horizon + canvas.camera.height / max(z, 0.8) / canvas.pixel - self.first for _, z in corners]
        r0, c0 = max(int(min(row) - 2), 0), max(int(min(column) - 2), 0)
        r1, c1 = max(int(max(row) + 3), 0), max(int(max(column) + 3), 0)
        part = self.number[r0:r1, c0:c1].ravel()
        return part[part >= 0]


def _ground_cover(
    canvas: Canvas, plan: Plan, weather: Weather, x: Array, z: Array
) -> tuple[Array, Array, Array]:
    """Albedo (3, n), infrared radiance (n) and gloss (n) of the ground at points (x, z)."""
    street = plan.street
    cos, sin = math.cos(street.yaw), math.sin(street.yaw)
    s, w = sin * x + cos * z, cos * x - sin * z + street.offset
    deep = z * z * floats(canvas.pixel / canvas.camera.height)  # metres of depth a row
    wide = z * canvas.pixel
    size = np.sqrt(deep * wide)
    fw = np.hypot(cos * wide, (cos * x / z - sin) * deep)
    fs = np.hypot(sin * wide, (sin * x / z + cos) * deep)
    shift = float(plan.salt % 1013)
    stain = tile_noise("stain", s, w, 0.10, size, shift)
    broad = tile_noise("stain", s, w, 0.45, size, shift + 71)
    grit = tile_noise("grain", s, w, 0.016, size, shift)
    side = np.abs(w)

    # Asphalt: dark where oil drips in the middle of a lane, pale where tyres polish it, patched and cracked.
    lane = np.abs(side - street.half * 0.5)
    tyre = np.exp(-(((lane - 0.75) / 0.28) ** 2))
    oil = np.exp(-((lane / 0.30) ** 2))
    patch = (chance(np.floor(s / 7.3), np.floor(w / 2.9), plan.salt) < 0.10).astype(np.float32)
    tone = 0.125 * (1 + 0.16 * stain + 0.13 * broad + 0.20 * grit + 0.10 * tyre - 0.18 * oil - 0.22 * patch)
    at = np.flatnonzero((broad > 0.1) & (wide < 0.05))
    vein = tile_noise("stain", s[at], w[at], 0.22, size[at], shift + 37)
    tone[at] *= 1 - 0.35 * (np.exp(-((vein / 0.045) ** 2)) * ramp(wide[at], 0.05, 0.015))
    road = np.maximum(tone, 0.02) * rgb([1.0, 0.99, 0.96])
    road_heat = weather.heat["road"] * (
        1 + 0.045 * broad + 0.03 * stain + 0.02 * grit + 0.08 * tyre + 0.05 * oil - 0.09 * patch
    )

    marks, zebra = _marks(plan, s, w, fs, fw)
    at = np.flatnonzero(marks > 0)
    wear = np.clip(0.80 + 0.28 * stain[at] + 0.15 * grit[at], 0.15, 0.95) * marks[at]
    yellow = overlap(side[at], 0.0, 0.4, fw[at]) * (1 - zebra[at]) * street.double
    colour = rgb([0.62, 0.62, 0.58]) * (1 - yellow) + rgb([0.62, 0.44, 0.10]) * yellow
    bare = road.take(at, axis=1)
    put(road, at, bare + wear * (colour - bare))
    road_heat[at] *= 1 - 0.06 * wear

    kerb = overlap(side, street.half, street.half + 0.16, fw)
    gutter = overlap(side, street.half - 0.22, street.half, fw)
    on_walk = overlap(side, street.half + 0.16, street.half + street.walk, fw)
    beyond = overlap(side, street.half + street.walk, 1e4, fw)
    albedo = road * (1 - 0.30 * gutter)
    heat = road_heat * (1 + 0.03 * gutter)
    at = np.flatnonzero(on_walk + beyond > 0)
    walk, field = _roadside(
        plan, weather, *(of[at] for of in (s, w, fs, fw, size, stain, broad, grit, beyond))
    )
    cover, warmth = albedo.take(at, axis=1), heat[at]
    for share, (surface, warm) in ((on_walk[at], walk), (beyond[at], field)):
        cover += share * (surface - cover)
        warmth += share * (warm - warmth)
    put(albedo, at, cover)
    heat[at] = warmth
    at = np.flatnonzero(kerb > 0)
    stone = np.clip(0.40 + 0.04 * grit[at] + 0.03 * stain[at], 0.1, 1) * rgb([1.0, 0.98, 0.94])
    joint = 1 - 0.5 * stripes(s[at], 1.0, 0.02, fs[at])
    bare = albedo.take(at, axis=1)
    put(albedo, at, bare + (kerb[at] * joint) * (stone - bare))
    heat = heat + kerb * (weather.heat["walk"] * 1.06 - heat)
    puddle = ramp(broad + 0.5 * stain, 1.3 - 1.6 * street.wet, 2.0 - 1.6 * street.wet) * (side < street.half)
    wet = (
        street.wet
        * (not weather.light.sun.any())
        * np.maximum(0.35, puddle)
        * (1 - beyond)
        * (1 - 0.5 * on_walk)
    )
    return albedo * (1 - 0.45 * wet), heat * (1 - 0.06 * wet), wet


def _roadside(
    plan: Plan, weather: Weather, s: Array, w: Array, fs: Array, fw: Array, size: Array,
    stain: Array, broad: Array, grit: Array, beyond: Array,
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:  # fmt: skip
    """Albedo (3, n) and infrared radiance (n) of the sidewalk, and of what lies `beyond` it."""
    slab = 0.5 if plan.salt % 2 else 0.9
    joint = np.maximum(stripes(s, slab, 0.035, fs), stripes(w, slab, 0.035, fw))
    each = chance(np.floor(s / slab), np.floor(w / slab), plan.salt) - 0.5
    each = each * ramp(size, 0.8, 0.2)
    tone = (0.27 + 0.06 * (plan.salt % 3)) * (1 + 0.22 * each + 0.13 * stain + 0.10 * grit + 0.07 * broad)
    paving = np.maximum(tone * (1 - 0.55 * joint), 0.03) * rgb([1.0, 0.96, 0.89])
    walk_heat = weather.heat["walk"] * (1 + 0.05 * broad + 0.015 * grit + 0.10 * each - 0.10 * joint)

    # Grass where there is no building line.
    turf, grass_heat = paving * rgb([0.80, 0.79, 0.78]), walk_heat.copy()
    at = np.flatnonzero((beyond > 0) & np.where(w < 0, *plan.street.parks))
    blade = tile_noise("leaf", s[at], w[at], 0.03, size[at], float(plan.salt % 1013))
    tone = np.clip(1 + 0.28 * blade + 0.25 * broad[at] + 0.2 * stain[at], 0.2, 2.2)
    put(turf, at, tone * rgb([0.075, 0.105, 0.03]))
    grass_heat[at] = weather.heat["grass"] * (1 + 0.12 * broad[at] + 0.10 * blade)
    return (paving, walk_heat), (turf, grass_heat)


def _marks(plan: Plan, s: Array, w: Array, fs: Array, fw: Array) -> tuple[Array, Array]:
    """Share of each pixel under road paint (lines, crossing, stop line), and in the zone of the crossing."""
    street = plan.street
    side = np.abs(w)
    if street.double:
        marks = overlap(side, 0.10, 0.22, fw)
    else:
        marks = overlap(side, 0.0, 0.07, fw)
        at = np.flatnonzero(marks > 0)
        marks[at] *= stripes(s[at], 6.0, 2.6, fs[at])
    if plan.salt % 5 < 3:
        marks = np.maximum(marks, overlap(side, street.half - 0.55, street.half - 0.42, fw))
    zone = np.zeros_like(side)
    if street.crossing is not None:
        along = s - street.crossing
        zone = overlap(along, -2.3, 3.4, fs)
        at = np.flatnonzero(zone > 0)
        zone *= side < street.half
        along, fs, fw, w, side = (values[at] for values in (along, fs, fw, w, side))
        bars = overlap(along, -1.6, 1.6, fs) * stripes(w + 0.25, 1.0, 0.5, fw) * (side < street.half - 0.3)
        stop = overlap(along, 2.7, 3.1, fs) * overlap(w, -street.half + 0.2, -0.2, fw)
        marks[at] = np.maximum(marks[at] * (1 - zone[at]), np.maximum(bars, stop))
    return marks, zone


def _ground_light(
    ground: Ground, plan: Plan, weather: Weather, casters: list[Caster], contact: list[Caster], gloss: Array
) -> tuple[tuple[Array, Array], Array]:
    """Irradiance and mirrored light (3, n), and the factor by which shade cools the ground (n)."""
    light, wet = weather.light, plan.street.wet > 0.12
    canvas, x, z = ground.canvas, ground.x, ground.z
    open_sky = np.ones_like(z)
    for caster in contact:
        corners = [(caster.x + side * caster.reach, caster.z + side * caster.reach) for side in (-1, 1)]
        at = ground.around(corners)
        if at.size:
            open_sky[at] *= 1 - caster.cover(x[at] - np.float32(caster.x), z[at] - np.float32(caster.z), 0.0)
    total = open_sky * rgb(light.sky)
    low = gloss * np.float32(0.10) * (1 - np.minimum(1, np.float32(canvas.camera.height * 2.5) / z))
    mirrored = low * rgb(weather.skyline)
    cool = 0.8 + 0.2 * open_sky
    if light.sun.any():
        lit = 1 - building_shade(plan, weather, x, 0.0, z)
        towards = tuple(light.towards.tolist())
        for caster in casters:
            at = ground.around(shadow_corners(caster, towards, True))
            if at.size:
                lit[at] *= 1 - sun_shadow(caster, light, x[at], z[at])
        total += (lit * open_sky * light.towards[1]) * rgb(light.sun)
        cool *= 0.72 + 0.28 * lit
    for lamp in light.lamps:
        share = lamp_light(lamp, x, 0.0, z, None)
        place = floats(lamp.position)
        for caster in casters:
            if math.hypot(caster.x - place[0], caster.z - place[2]) < 11:
                at = ground.around(shadow_corners(caster, lamp.position, False))
                if at.size:
                    share[at] *= 1 - np.float32(0.9) * lamp_shadow(caster, lamp, x[at], z[at])
        total += (share * open_sky) * rgb(lamp.colour)
        if wet and lamp.spread > 0:
            mirrored += (gloss * _glint(canvas, place, x, z)) * rgb(lamp.colour)
    for beam in light.beams:
        total += (beam_light(beam, x, 0.0, z, None) * open_sky) * rgb(beam.colour)
        facing = max(0.0, -beam.heading[1]) ** 2
        if wet and facing > 0.1:
            glint = _glint(canvas, floats(beam.position), x, z)
            mirrored += (np.float32(facing * 0.6) * gloss * glint) * rgb(beam.colour)
    return (total, mirrored), cool


def _glint(canvas: Canvas, place: Array, x: Array, z: Array) -> Array:
    """Streak a light leaves on wet ground: how near the half vector of lamp and eye is to upright."""
    lx, ly, lz = place[0] - x, place[1], place[2] - z
    ll = 1 / np.sqrt(lx * lx + ly * ly + lz * lz)
    ee = 1 / np.sqrt(x * x + canvas.camera.height**2 + z * z)
    hx, hy, hz = lx * ll - x * ee, ly * ll + canvas.camera.height * ee, lz * ll - z * ee
    tilt = (hx * hx + 0.25 * hz * hz) / np.maximum(hy * hy, 1e-6)
    return 0.012 * np.exp(-tilt / 0.02)


def building_shade(
    plan: Plan, weather: Weather, x: Array | float, y: Array | float, z: Array | float
) -> Array:
    """Share of the sun that the rows of buildings hide from points of the street (soft at the edges)."""
    street, (lx, ly, lz) = plan.street, weather.light.towards.tolist()
    cos, sin = math.cos(street.yaw), math.sin(street.yaw)
    ls, lw = sin * lx + cos * lz, cos * lx - sin * lz
    s, w = sin * x + cos * z, cos * x - sin * z + street.offset
    shade = np.zeros(np.shape(x), np.float32)
    first, last = float(np.min(s)), float(np.max(s))
    for block in plan.buildings:
        drift = block.height / ly * ls
        if block.w * lw <= 0 or block.s0 > last + max(drift, 0) + 3 or block.s1 < first + min(drift, 0) - 3:
            continue
        reach = np.maximum((block.w - w) / lw, 0)
        soft = 0.08 + 0.03 * reach
        here = overlap(s + reach * ls, block.s0, block.s1, soft)
        here = here * overlap(y + reach * ly, -9.0, block.height, soft)
        shade = np.maximum(shade, here * (reach > 0.05))
    return shade

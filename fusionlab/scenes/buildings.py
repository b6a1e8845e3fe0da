"""Fronts and ends of buildings: walls of brick or plaster, windows and shops."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.light import irradiance
from fusionlab.scenes.plan import Plan
from fusionlab.scenes.street import building_shade
from fusionlab.scenes.textures import (
    Array,
    bricks,
    chance,
    floats,
    overlap,
    put,
    ramp,
    rgb,
    stripes,
    tile_noise,
)
from fusionlab.scenes.walls import View, Wall, step, view_of
from fusionlab.scenes.weather import Weather

LIT = floats([[1.0, 0.74, 0.42], [1.0, 0.86, 0.62], [0.88, 0.95, 1.0], [1.0, 0.66, 0.34]]).T
SIGNS = floats(
    [[0.5, 0.06, 0.05], [0.06, 0.14, 0.42], [0.05, 0.30, 0.14], [0.55, 0.42, 0.06], [0.45, 0.45, 0.45]]
).T


def paint_walls(canvas: Canvas, plan: Plan, weather: Weather, walls: list[Wall]) -> None:
    """Walls given near to far, each where no nearer one hides it."""
    skyline = np.full(canvas.columns, canvas.rows, np.float32)  # top row of what nearer walls hide
    visible = []
    for wall in walls:
        hidden = skyline[wall.columns]
        open_ = np.flatnonzero(wall.top < hidden)
        if open_.size:
            part = slice(max(int(open_[0]) - 1, 0), int(open_[-1]) + 2)
            visible.append((wall, part, np.minimum(hidden[part] + 2, canvas.rows)))
            skyline[wall.columns] = np.where(wall.solid, np.minimum(hidden, wall.top + 2), hidden)
    views = [view_of(canvas, wall, part, bottom) for wall, part, bottom in reversed(visible)]
    _paint_walls(canvas, plan, weather, [view for view in views if view.row.size])


def _paint_walls(canvas: Canvas, plan: Plan, weather: Weather, views: list[View]) -> None:
    """Draws all pixels of all walls at once, then lays wall over wall, far to near."""
    if not views:
        return
    counts = [view.row.size for view in views]
    starts = np.cumsum([0] + [len(view.u) for view in views])
    k = np.concatenate([start + view.column for start, view in zip(starts, views)])
    column = np.concatenate([np.arange(view.columns.start, view.columns.stop) for view in views])[k]
    row = np.concatenate([view.row for view in views])
    u, z = (np.concatenate([getattr(view, name) for view in views])[k] for name in ("u", "z"))
    fu = np.concatenate([step(view.u) for view in views])[k]
    y, fy = canvas.camera.height + canvas.dy[row] * z, z * np.float32(canvas.pixel)
    which = np.repeat(np.arange(len(views)), counts)
    walls = [view.wall for view in views]
    albedo, glow, heat = _facade(weather, walls, which, u, y, fu, fy)

    length, height = (floats(v)[which] for v in zip(*[(w.length, w.block.height) for w in walls]))
    alpha = overlap(u, 0, length, fu) * overlap(y, -0.5, height, fy)
    x = canvas.dx[column] * z
    outward = floats([(w.normal[0], 0.0, w.normal[1]) for w in walls])
    ends = np.cumsum([0, *counts])
    pieces = [slice(first, last) for first, last in zip(ends, ends[1:])]
    sunlit = np.zeros_like(u)
    if weather.light.sun.any():
        sun = weather.light.towards
        for piece, normal in zip(pieces, outward):
            facing = max(float(normal @ sun), 0.0)
            if facing > 0:
                sunlit[piece] = 1 - building_shade(plan, weather, x[piece], y[piece], z[piece])
            heat[piece] *= 0.92 + 0.38 * sunlit[piece] * facing
    light = irradiance(weather.light, x, y, z, outward.T.take(which, axis=1), sunlit)
    light *= 0.55 + 0.45 * ramp(y, 0.0, 5.0)  # the street hides half the sky from its foot
    radiance = albedo * light + glow
    for piece in pieces:
        canvas.paint((row[piece], column[piece]), alpha[piece], radiance[:, piece], heat[piece], z[piece])


def _facade(
    weather: Weather, walls: list[Wall], which: Array, u: Array, y: Array, fu: Array, fy: Array
) -> tuple[Array, Array, Array]:
    """Albedo (3, n), own light (3, n) and infrared radiance (n) at pixels (u along, y up) of walls[which]."""
    blocks = [wall.block for wall in walls]

    def of(values: ArrayLike) -> Array:
        return np.take(floats(values), which)

    salts = np.array([block.salt for block in blocks])
    salt = salts[which]
    front = np.array([wall.front for wall in walls])[which]
    size = np.sqrt(fu * fy)
    shift = of(salts % 1009)
    stain = tile_noise("stain", u, y, 0.12, size, shift)
    streak = tile_noise("stain", 4 * u, 0.35 * y, 0.14, np.maximum(4 * fu, 0.35 * fy), shift + 31)
    grit = tile_noise("grain", u, y, 0.04, size, shift)
    tone = 1 + 0.10 * stain + 0.11 * streak + 0.07 * grit
    brick = np.flatnonzero(np.array([block.brick for block in blocks])[which])
    if brick.size:
        bu, by, small = u[brick], y[brick], size[brick]
        course = np.floor(by / 0.16)
        each = chance(np.floor(bu / 0.25 + 0.5 * (course % 2)), course, salt[brick]) - 0.5
        tone[brick] *= (1 + 0.35 * each * ramp(small, 0.12, 0.03)) * (1 + 0.25 * bricks(bu, by, small))
    foot = np.exp(-np.maximum(y, 0) / floats(0.7))
    dirt = 1 - 0.30 * foot * (1 + 0.4 * stain)
    colour = floats([block.wall for block in blocks]).T
    albedo = np.clip(tone * dirt, 0.1, 2) * colour.take(which, axis=1)
    luck = chance(salts, 1, 2).astype(np.float64)
    warmth = of(weather.heat["wall"] * (0.82 + 0.36 * luck))
    heat = warmth * (1 + 0.035 * stain + 0.045 * streak + 0.08 * foot)
    glow = np.zeros_like(albedo)

    shops = np.array([wall.front and wall.block.shop for wall in walls])
    height, high = of([b.height for b in blocks]), of([b.storey for b in blocks])
    width, base = of([b.bay for b in blocks]), of(np.where(shops, 3.9, 0.9))
    floor = np.floor((y - base) / high)
    bay = np.floor(u / width)
    fits = (floor >= 0) & (base + (floor + 1) * high < height + 0.2) & (bay >= 0)
    across, above = u - bay * width, y - base - floor * high
    half = of([0.5 * b.pane[0] * b.bay for b in blocks])
    sill = of(np.where(shops, 0.26, 0.12)) * high
    lintel = sill + of([b.pane[1] for b in blocks]) * high
    middle = 0.5 * width
    left, right = middle - half, middle + half
    there = floats(fits & (front | (chance(bay, 7, salt) < 0.45)))
    opening = overlap(across, left, right, fu) * there
    hole = opening * overlap(above, sill, lintel, fy)
    surround = overlap(across, left - 0.14, right + 0.14, fu)
    surround = surround * overlap(above, sill - 0.18, lintel + 0.14, fy) * (there * of(salts % 3 > 0))
    ledge = overlap(across, left - 0.12, right + 0.12, fu) * overlap(above, sill - 0.12, sill, fy) * there
    band = overlap(above, -0.14, 0.10, fy) * fits * of(salts % 2)
    cornice = overlap(y, height - 0.55, height, fy)
    trim = np.maximum(np.maximum(surround, band), cornice) * 0.7
    pale = (colour * 0.5 + rgb([0.24, 0.23, 0.21])).take(which, axis=1)
    albedo = albedo + trim * (pale * tone - albedo)
    albedo = albedo * (1 - 0.35 * overlap(y, height - 0.75, height - 0.55, fy))
    albedo = albedo * (1 + 0.25 * ledge)
    under = overlap(above, sill - 1.0, sill - 0.12, fy) * opening
    albedo = albedo * (1 - 0.10 * under * (1 + streak).clip(0, 2))

    heat = heat * (1 + 0.13 * band + 0.08 * cornice + 0.08 * surround - 0.06 * ledge)
    at = np.flatnonzero(hole > 0)
    panes = Panes(
        which[at], salt[at], u[at], y[at], fu[at], fy[at], size[at], shift[at], bay[at], floor[at],
        across[at], above[at], middle[at], half[at], sill[at], lintel[at], hole[at], warmth[at],
    )  # fmt: skip
    wall, shine, heat[at] = _panes(weather, walls, panes, albedo.take(at, axis=1), heat[at])
    put(albedo, at, wall)
    put(glow, at, shine)
    if shops.any():
        _shops(
            weather,
            np.flatnonzero(shops[which] & (y < 3.8)),
            salt,
            of([_unit(w) for w in walls]),
            u,
            y,
            fu,
            fy,
            albedo,
            glow,
            heat,
        )
    return albedo, glow, heat


@dataclass(frozen=True)
class Panes:
    """The pixels of windows, as in _facade: walls, places on them, and shares of hole."""

    which: Array
    salt: Array
    u: Array
    y: Array
    fu: Array
    fy: Array
    size: Array
    shift: Array
    bay: Array
    floor: Array
    across: Array  # metres from the corner of the bay
    above: Array  # and from its floor
    middle: Array  # of the bay
    half: Array  # width of the hole in the wall, then its edges
    sill: Array
    lintel: Array
    hole: Array
    warmth: Array  # infrared radiance of the wall


def _panes(
    weather: Weather, walls: list[Wall], p: Panes, albedo: Array, heat: Array
) -> tuple[Array, Array, Array]:
    """Albedo, own light and infrared radiance of windows in a wall of the albedo and radiance given."""
    left, right, frame = p.middle - p.half, p.middle + p.half, 0.07
    glass = overlap(p.across, left + frame, right - frame, p.fu)
    glass = glass * overlap(p.above, p.sill + frame, p.lintel - frame, p.fy)
    glass = glass * (1 - overlap(p.across, p.middle - 0.035, p.middle + 0.035, p.fu))
    draw, kind = chance(p.bay, p.floor, p.salt), chance(p.bay, p.floor, p.salt + 1)
    cloth = ((kind < 0.4) & (p.across < p.middle - p.half * (0.1 + kind))) | (
        (kind > 0.65) & (p.above > p.lintel - (kind - 0.5) * 1.8)
    )
    fold = 1 + 0.25 * np.sin(p.across * 40) * ramp(p.fu, 0.12, 0.04)
    inside = np.where(cloth, rgb([0.36, 0.34, 0.30]) * fold, rgb([0.025, 0.028, 0.03]))
    recess = 1 - 0.6 * ramp(p.above, p.lintel - 0.40, p.lintel - 0.10)
    albedo = albedo + p.hole * (rgb([0.30, 0.29, 0.27]) * (0.6 + 0.4 * kind) - albedo)
    albedo = albedo + glass * (inside * (0.55 * recess) - albedo)
    rise = (p.above - p.sill) / (p.lintel - p.sill)
    sheen = glass * (0.03 + 0.20 * chance(p.bay, p.floor, p.salt + 2) ** 2) * (0.75 + 0.5 * rise)
    glow = sheen * rgb(weather.skyline * 0.6 + weather.zenith * 0.4)
    lit = draw < np.take(floats([wall.block.lit for wall in walls]), p.which)
    if weather.lamps_on:
        tint = LIT.take((chance(p.bay, p.floor, p.salt + 3) * 4).astype(np.intp), axis=1)
        room = (0.45 + 0.75 * rise) * (0.5 + 0.9 * kind) * np.where(cloth, 0.6 * fold, 1.0)
        room = room * (0.85 + 0.3 * tile_noise("stain", p.u, p.y, 0.15, p.size, p.shift + 53))
        glow = glow + (glass * lit * np.maximum(room, 0.05) * weather.windows) * tint
    pane = weather.heat["pane"] + 0.10 * lit * (kind + 0.3) + 0.06 * (kind - 0.5)
    heat = heat + p.hole * (0.96 * p.warmth - heat)
    return albedo, glow, heat + glass * (pane - heat)


def _unit(wall: Wall) -> float:
    """Width of one shop of a wall, about 6 m."""
    return wall.length / max(1, round(wall.length / 6.0))


def _shops(
    weather: Weather, at: Array, salt: Array, unit: Array, u: Array, y: Array, fu: Array, fy: Array,
    all_albedo: Array, all_glow: Array, all_heat: Array,
) -> None:  # fmt: skip
    """Ground floors with display windows and signs at the pixels `at`; changes the last three arrays."""
    salt, unit, u, y, fu, fy = (a[at] for a in (salt, unit, u, y, fu, fy))
    albedo, glow, heat = all_albedo.take(at, axis=1), all_glow.take(at, axis=1), all_heat[at]
    index = np.floor(u / unit)
    across = u - index * unit
    inset = overlap(across, 0.35, unit - 0.35, fu)
    display = inset * overlap(y, 0.55, 2.65, fy) * (1 - stripes(across - 0.35, 1.7, 0.08, fu))
    door = overlap(across, unit - 1.5, unit - 0.5, fu) * overlap(y, 0.05, 2.45, fy)
    pane = np.maximum(display, door * 0.8)
    # Behind the glass: a bright ceiling, goods on shelves below, a dark figure of stock here and there.
    goods = tile_noise("leaf", u, y, 0.09, np.sqrt(fu * fy), floats(salt % 601))
    level = chance(np.floor(u / 0.8), np.floor(y / 0.42), salt)
    rows = 1 - 0.6 * stripes(y, 0.42, 0.06, fy)
    stock = np.clip(0.50 + 0.28 * goods + 0.45 * (level - 0.5), 0.08, 1.2) * rows * ramp(y, 2.2, 1.7)
    shelf = stock + 0.9 * ramp(y, 1.8, 2.5) * (1 - 0.4 * stripes(u, 1.3, 0.35, fu))
    open_late = chance(index, 11, salt) < 0.75
    albedo += pane * (rgb([0.055, 0.05, 0.045]) * (0.2 + 1.5 * stock) - albedo)
    glow += (pane * (0.03 + 0.05 * ramp(y, 0.5, 2.6))) * rgb(weather.skyline)
    if weather.lamps_on:
        warm = np.where((index % 2 > 0), rgb([1.0, 0.82, 0.55]), rgb([0.92, 0.97, 1.0]))
        glow += (pane * shelf * open_late * weather.windows * 0.9) * warm
    heat += pane * (weather.heat["pane"] + 0.07 * open_late + 0.01 * goods - heat)

    # The sign: a coloured board with strokes that read as lettering, painted, so unseen in infrared.
    board = overlap(across, 0.3, unit - 0.3, fu) * overlap(y, 2.85, 3.55, fy)
    colour = SIGNS.take((chance(index, 13, salt) * SIGNS.shape[1]).astype(np.intp), axis=1)
    glyph = np.floor((across - 0.7) / 0.42)
    gx = (across - 0.7 - glyph * 0.42) / 0.42
    gy = (y - 2.98) / 0.44
    cell = chance(glyph * 3 + np.floor(gx * 3), index * 5 + np.floor(gy * 3), salt + 4) < 0.55
    letters = cell & (gx < 0.78) & (gy > 0) & (gy < 1) & (across > 0.7) & (across < unit - 0.8)
    ink = letters * ramp(fy, 0.4, 0.12)
    face = colour + (0.85 * ink) * (rgb([0.75, 0.75, 0.72]) - colour)
    albedo += board * (face - albedo)
    if weather.lamps_on:
        glow += (board * open_late * weather.windows * 0.5) * face
    heat += board * (weather.heat["wall"] * 0.97 - heat)
    shadow = overlap(y, 2.65, 2.85, fy)
    albedo *= 1 - 0.5 * shadow
    put(all_albedo, at, albedo)
    put(all_glow, at, glow)
    all_heat[at] = heat

"""Fronts and ends of buildings: walls of brick or plaster, windows and shops."""

import math
from dataclasses import dataclass

import numpy as np

from fusionlab.data.scenes.canvas import Canvas
from fusionlab.data.scenes.light import irradiance
from fusionlab.data.scenes.plan import Building, Plan
from fusionlab.data.scenes.street import building_shade
from fusionlab.data.scenes.textures import Array, bricks, chance, floats, noise, overlap, ramp, stripes
from fusionlab.data.scenes.weather import Weather

LIT = floats([[1.0, 0.74, 0.42], [1.0, 0.86, 0.62], [0.88, 0.95, 1.0], [1.0, 0.66, 0.34]])
SIGNS = floats(
    [[0.5, 0.06, 0.05], [0.06, 0.14, 0.42], [0.05, 0.30, 0.14], [0.55, 0.42, 0.06], [0.45, 0.45, 0.45]]
)


@dataclass(frozen=True)
class Wall:
    """An upright wall as the camera sees it: for each column, metres along it, depth, and its top row."""

    block: Building
    front: bool
    normal: tuple[float, float]  # outward, (x, z)
    length: float
    columns: slice
    u: Array
    z: Array
    top: Array


def paint_buildings(canvas: Canvas, plan: Plan, weather: Weather) -> None:
    """All visible walls, far to near."""
    street = plan.street
    sin, cos = math.sin(street.yaw), math.cos(street.yaw)
    walls = []
    for block in plan.buildings:
        side = 1.0 if block.w > 0 else -1.0
        back = block.w + block.depth
        ends = [((block.s0, block.w), (block.s1, block.w), (-side * cos, side * sin), True)]
        if block.s0 > 0:
            ends.append(((block.s0, block.w), (block.s0, back), (-sin, -cos), False))
        if block.s1 < 0:
            ends.append(((block.s1, block.w), (block.s1, back), (sin, cos), False))
        for a, b, normal, front in ends:
            wall = _seen(canvas, block, street.to_camera(*a), street.to_camera(*b), normal, front)
            if wall is not None:
                walls.append(wall)
    walls.sort(key=lambda wall: float(wall.z.mean()))
    skyline = np.full(canvas.columns, canvas.rows, np.float32)  # top row of what nearer walls hide
    visible = []
    for wall in walls:
        hidden = skyline[wall.columns]
        open_ = np.flatnonzero(wall.top < hidden)
        if open_.size:
            part = slice(max(int(open_[0]) - 1, 0), int(open_[-1]) + 2)
            visible.append((wall, part, int(min(hidden[part].max() + 2, canvas.rows))))
            skyline[wall.columns] = np.minimum(hidden, wall.top + 2)
    for wall, part, bottom in reversed(visible):
        _paint_wall(canvas, plan, weather, wall, part, bottom)


def _seen(
    canvas: Canvas,
    block: Building,
    a: tuple[float, float],
    b: tuple[float, float],
    normal: tuple[float, float],
    front: bool,
) -> Wall | None:
    """The wall over the ground line from a to b (x, z), met by the rays of each column; None if unseen."""
    length = math.hypot(b[0] - a[0], b[1] - a[1])
    ex, ez = (b[0] - a[0]) / length, (b[1] - a[1]) / length
    steep = canvas.dx * np.float32(ez) - np.float32(ex)
    u = (a[0] - canvas.dx * a[1]) / np.where(np.abs(steep) < 1e-6, np.float32(1e-6), steep)
    z = a[1] + ez * u
    seen = np.flatnonzero((z > 0.5) & (z < 300) & (u > -0.5) & (u < length + 0.5))
    if seen.size < 2:
        return None
    columns = slice(int(seen[0]), int(seen[-1]) + 1)
    u, z = u[columns], np.maximum(z[columns], 0.5)
    top = canvas.camera.horizon * canvas.rows - (block.height - canvas.camera.height) / z / canvas.pixel
    return Wall(block, front, normal, length, columns, u, z, top)


def _paint_wall(canvas: Canvas, plan: Plan, weather: Weather, wall: Wall, part: slice, bottom: int) -> None:
    """Paints the columns `part` of a wall down to the row `bottom`."""
    block, u, z = wall.block, wall.u[part], wall.z[part]
    start = wall.columns.start + part.start
    columns = slice(start, start + len(u))
    foot = canvas.camera.horizon * canvas.rows + canvas.camera.height / float(z.min()) / canvas.pixel
    r0, r1 = int(max(0, wall.top[part].min() - 2)), int(min(bottom, foot + 2))
    if r0 >= r1 or len(u) < 2:
        return
    region = (slice(r0, r1), columns)
    y = canvas.camera.height + canvas.dy[r0:r1, None] * z
    fy = np.broadcast_to(z * np.float32(canvas.pixel), y.shape)
    fu = np.broadcast_to(np.abs(np.gradient(u)), y.shape)
    u, z = np.broadcast_to(u, y.shape), np.broadcast_to(z, y.shape)
    alpha = overlap(u, 0, wall.length, fu) * overlap(y, -0.5, block.height, fy)

    albedo, glow, heat = _facade(weather, block, u, y, fu, fy, wall.front, wall.length)
    x = canvas.dx[columns] * z
    outward = np.broadcast_to(floats([wall.normal[0], 0.0, wall.normal[1]]), (*y.shape, 3))
    sunlit: Array | float = 0.0
    if weather.light.sun.any():
        sun = weather.light.towards.tolist()
        facing = wall.normal[0] * sun[0] + wall.normal[1] * sun[2]
        sunlit = 1 - building_shade(plan, weather, x, y, z) if facing > 0 else 0.0
        heat = heat * (0.92 + 0.38 * sunlit * max(facing, 0.0))
    light = irradiance(weather.light, x, y, z, outward, sunlit)
    open_sky = 0.55 + 0.45 * ramp(y, 0.0, 5.0)  # the street hides half the sky from its foot
    canvas.paint(region, alpha, albedo * light * open_sky[..., None] + glow, heat, z)


def _facade(
    weather: Weather, block: Building, u: Array, y: Array, fu: Array, fy: Array, front: bool, length: float
) -> tuple[Array, Array, Array]:
    """Albedo (h, w, 3), own light (h, w, 3) and infrared radiance (h, w) of a wall at (u along, y up)."""
    size = np.sqrt(fu * fy)
    shift = float(block.salt % 1009)
    stain = noise("stain", u, y, 0.12, size, shift)
    streak = noise("stain", 4 * u, 0.35 * y, 0.14, np.maximum(4 * fu, 0.35 * fy), shift + 31)
    grit = noise("grain", u, y, 0.04, size, shift)
    tone = 1 + 0.10 * stain + 0.11 * streak + 0.07 * grit
    if block.brick:
        mortar = bricks(u, y, size)
        each = (
            chance(np.floor(u / 0.25 + 0.5 * (np.floor(y / 0.16) % 2)), np.floor(y / 0.16), block.salt) - 0.5
        )
        tone = tone * (1 + 0.35 * each * ramp(size, 0.12, 0.03)) * (1 + 0.25 * mortar)
    dirt = 1 - 0.30 * np.exp(-np.maximum(y, 0) / 0.7) * (1 + 0.4 * stain)
    albedo = np.clip(tone * dirt, 0.1, 2)[..., None] * floats(block.wall)
    warmth = weather.heat["wall"] * (0.82 + 0.36 * float(chance(np.array(block.salt), 1, 2)))
    heat = warmth * (1 + 0.035 * stain + 0.045 * streak + 0.08 * np.exp(-np.maximum(y, 0) / 1.2))
    glow = np.zeros_like(albedo)

    base = 3.9 if block.shop and front else 0.9
    storey = (y - base) / block.storey
    floor = np.floor(storey)
    bay = np.floor(u / block.bay)
    fits = (floor >= 0) & (base + (floor + 1) * block.storey < block.height + 0.2) & (bay >= 0)
    across, above = u - bay * block.bay, y - base - floor * block.storey
    half = 0.5 * block.pane[0] * block.bay
    sill = 0.26 * block.storey if base > 1 else 0.12 * block.storey
    lintel = sill + block.pane[1] * block.storey
    middle = 0.5 * block.bay
    there = fits if front else fits & (chance(bay, 7, block.salt) < 0.45)
    hole = overlap(across, middle - half, middle + half, fu) * overlap(above, sill, lintel, fy) * there
    frame = 0.07
    glass = overlap(across, middle - half + frame, middle + half - frame, fu)
    glass = glass * overlap(above, sill + frame, lintel - frame, fy) * there
    glass = glass * (1 - overlap(across, middle - 0.035, middle + 0.035, fu))
    surround = overlap(across, middle - half - 0.14, middle + half + 0.14, fu)
    surround = surround * overlap(above, sill - 0.18, lintel + 0.14, fy) * there * (block.salt % 3 > 0)
    ledge = (
        overlap(across, middle - half - 0.12, middle + half + 0.12, fu)
        * overlap(above, sill - 0.12, sill, fy)
        * there
    )
    band = overlap(above, -0.14, 0.10, fy) * fits * (block.salt % 2)
    cornice = overlap(y, block.height - 0.55, block.height, fy)
    trim = np.maximum(np.maximum(surround, band), cornice) * 0.7
    pale = floats(block.wall) * 0.5 + floats([0.24, 0.23, 0.21])
    albedo = albedo + trim[..., None] * (pale * tone[..., None] - albedo)
    albedo = albedo * (1 - 0.35 * overlap(y, block.height - 0.75, block.height - 0.55, fy))[..., None]
    albedo = albedo * (1 + 0.25 * ledge)[..., None]
    under = (
        overlap(above, sill - 1.0, sill - 0.12, fy)
        * overlap(across, middle - half, middle + half, fu)
        * there
    )
    albedo = albedo * (1 - 0.10 * under * (1 + streak).clip(0, 2))[..., None]

    draw = chance(bay, floor, block.salt)
    kind = chance(bay, floor, block.salt + 1)
    cloth = ((kind < 0.4) & (across < middle - half * (0.1 + kind))) | (
        (kind > 0.65) & (above > lintel - (kind - 0.5) * 1.8)
    )
    fold = 1 + 0.25 * np.sin(across * 40) * ramp(fu, 0.12, 0.04)
    inside = np.where(
        cloth[..., None], floats([0.36, 0.34, 0.30]) * fold[..., None], floats([0.025, 0.028, 0.03])
    )
    recess = 1 - 0.6 * ramp(above, lintel - 0.40, lintel - 0.10)
    albedo = albedo + hole[..., None] * (floats([0.30, 0.29, 0.27]) * (0.6 + 0.4 * kind)[..., None] - albedo)
    albedo = albedo + glass[..., None] * (inside * (0.55 * recess)[..., None] - albedo)
    mirror = weather.skyline * 0.6 + weather.zenith * 0.4
    sheen = (
        glass
        * (0.03 + 0.20 * chance(bay, floor, block.salt + 2) ** 2)
        * (0.75 + 0.5 * (above - sill) / (lintel - sill))
    )
    glow = glow + sheen[..., None] * mirror
    tint = LIT[(chance(bay, floor, block.salt + 3) * 4).astype(np.int32)]
    lit = (draw < block.lit) & weather.lamps_on
    room = (
        (0.45 + 0.75 * (above - sill) / (lintel - sill))
        * (0.5 + 0.9 * kind)
        * np.where(cloth, 0.6 * fold, 1.0)
    )
    room = room * (0.85 + 0.3 * noise("stain", u, y, 0.15, size, shift + 53))
    glow = glow + (glass * lit * np.maximum(room, 0.05) * weather.windows)[..., None] * tint
    pane = weather.heat["pane"] + 0.10 * (draw < block.lit) * (kind + 0.3) + 0.06 * (kind - 0.5)
    heat = heat * (1 + 0.13 * band + 0.08 * cornice + 0.08 * surround - 0.06 * ledge)
    heat = heat + hole * (0.96 * warmth - heat)
    heat = heat + glass * (pane - heat)
    if block.shop and front:
        _shop(weather, block, u, y, fu, fy, albedo, glow, heat, length)
    return albedo, glow, heat


def _shop(
    weather: Weather, block: Building, u: Array, y: Array, fu: Array, fy: Array,
    albedo: Array, glow: Array, heat: Array, length: float,
) -> None:  # fmt: skip
    """Ground floor with display windows and a sign; changes the three arrays in place."""
    unit = length / max(1, round(length / 6.0))
    index = np.floor(u / unit)
    across = u - index * unit
    inset = overlap(across, 0.35, unit - 0.35, fu)
    display = inset * overlap(y, 0.55, 2.65, fy) * (1 - stripes(across - 0.35, 1.7, 0.08, fu))
    door = overlap(across, unit - 1.5, unit - 0.5, fu) * overlap(y, 0.05, 2.45, fy)
    pane = np.maximum(display, door * 0.8)
    # Behind the glass: a bright ceiling, goods on shelves below, a dark figure of stock here and there.
    goods = noise("leaf", u, y, 0.09, np.sqrt(fu * fy), block.salt % 601)
    level = chance(np.floor(u / 0.8), np.floor(y / 0.42), block.salt)
    rows = 1 - 0.6 * stripes(y, 0.42, 0.06, fy)
    stock = np.clip(0.50 + 0.28 * goods + 0.45 * (level - 0.5), 0.08, 1.2) * rows * ramp(y, 2.2, 1.7)
    shelf = stock + 0.9 * ramp(y, 1.8, 2.5) * (1 - 0.4 * stripes(u, 1.3, 0.35, fu))
    open_late = chance(index, 11, block.salt) < 0.75
    albedo += pane[..., None] * (floats([0.055, 0.05, 0.045]) * (0.2 + 1.5 * stock)[..., None] - albedo)
    glow += (pane * (0.03 + 0.05 * ramp(y, 0.5, 2.6)))[..., None] * weather.skyline
    if weather.lamps_on:
        warm = np.where((index % 2 > 0)[..., None], floats([1.0, 0.82, 0.55]), floats([0.92, 0.97, 1.0]))
        glow += (pane * shelf * open_late * weather.windows * 0.9)[..., None] * warm
    heat += pane * (weather.heat["pane"] + 0.07 * open_late + 0.01 * goods - heat)

    # The sign: a coloured board with strokes that read as lettering, painted, so unseen in infrared.
    board = overlap(across, 0.3, unit - 0.3, fu) * overlap(y, 2.85, 3.55, fy)
    colour = SIGNS[(chance(index, 13, block.salt) * len(SIGNS)).astype(np.int32)]
    glyph = np.floor((across - 0.7) / 0.42)
    gx = (across - 0.7 - glyph * 0.42) / 0.42
    gy = (y - 2.98) / 0.44
    cell = chance(glyph * 3 + np.floor(gx * 3), index * 5 + np.floor(gy * 3), block.salt + 4) < 0.55
    letters = cell & (gx < 0.78) & (gy > 0) & (gy < 1) & (across > 0.7) & (across < unit - 0.8)
    ink = letters * ramp(fy, 0.4, 0.12)
    face = colour + (0.85 * ink)[..., None] * (floats([0.75, 0.75, 0.72]) - colour)
    albedo += board[..., None] * (face - albedo)
    if weather.lamps_on:
        glow += (board * open_late * weather.windows * 0.5)[..., None] * face
    heat += board * (weather.heat["wall"] * 0.97 - heat)
    shadow = overlap(y, 2.65, 2.85, fy)
    albedo *= (1 - 0.5 * shadow)[..., None]

"""Cars: convex pieces met by camera rays, so that one sees side and end in perspective."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from fusionlab.scenes.canvas import Camera, Canvas
from fusionlab.scenes.palette import Colour
from fusionlab.scenes.plan import Car
from fusionlab.scenes.textures import Array, floats, pixels, ramp, rgb, tile_noise


@dataclass(frozen=True)
class Shape:
    """Side view in metres: heights of belt, bonnet, boot, roof; cabin a to b at the belt, roof c to d."""

    length: float
    width: float
    belt: float
    bonnet: float
    boot: float
    roof: float
    a: float  # foot of the windscreen, from the middle of the car towards the nose
    b: float  # foot of the rear window
    c: float  # front edge of the roof
    d: float  # rear edge of the roof


SHAPES = {
    "sedan": Shape(4.5, 1.78, 0.92, 0.80, 0.90, 1.44, 1.05, -1.75, 0.25, -1.05),
    "hatch": Shape(4.0, 1.74, 0.95, 0.84, 0.95, 1.50, 1.05, -1.93, 0.30, -1.60),
    "van": Shape(4.8, 1.92, 1.08, 1.00, 1.08, 1.92, 1.70, -2.33, 1.00, -2.22),
    "bus": Shape(6.4, 2.20, 1.10, 1.02, 1.10, 2.80, 2.85, -3.10, 2.45, -3.05),
}
WHEEL = 0.32  # radius of a wheel, metres


@cache
def _pieces(shape: Shape) -> list[Array]:
    """Body and cabin as half-spaces (n, 4): unit normal . (along, up, across) <= offset."""
    half, side = shape.length / 2, shape.width / 2
    body = [
        (0, -1, 0, -0.22), (1, 0, 0, half), (-1, 0, 0, half),
        (0, 0.05, 1, side + 0.03), (0, 0.05, -1, side + 0.03),
        (0, -0.35, 1, side - 0.10), (0, -0.35, -1, side - 0.10), (0, 1, 0, shape.belt),
        (1, 0.28, 0, half + 0.12), (1, -0.5, 0, half - 0.20),
        (-1, 0.22, 0, half + 0.10), (-1, -0.5, 0, half - 0.20),
        _slope(shape.a, shape.belt, half - 0.05, shape.bonnet - 0.10),
        _slope(half - 0.55, shape.bonnet, half, shape.bonnet - 0.20),
        _slope(-half, shape.boot - 0.06, shape.b, shape.belt),
        (0.8, 0, 0.6, 0.8 * half + 0.6 * side - 0.12), (0.8, 0, -0.6, 0.8 * half + 0.6 * side - 0.12),
        (-0.8, 0, 0.6, 0.8 * half + 0.6 * side - 0.12), (-0.8, 0, -0.6, 0.8 * half + 0.6 * side - 0.12),
    ]  # fmt: skip
    lean = 0.28 if shape.roof < 1.8 else 0.12
    top = side - 0.06 + lean * shape.belt
    cabin = [
        (0, -1, 0, -shape.belt + 0.10), (0, 1, 0, shape.roof), (0, lean, 1, top), (0, lean, -1, top),
        _slope(shape.c, shape.roof, shape.a, shape.belt), _slope(shape.b, shape.belt, shape.d, shape.roof),
        (0, 1, 0.16, shape.roof + 0.07), (0, 1, -0.16, shape.roof + 0.07),
        _slope(shape.c - 0.45, shape.roof, shape.c + 0.12, shape.roof - 0.09),
    ]  # fmt: skip
    planes = (np.array(body, np.float32), np.array(cabin, np.float32))
    return [p / np.linalg.norm(p[:, :3], axis=1, keepdims=True) for p in planes]


def _slope(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    """Half-space below the line through (x0, y0) and (x1, y1), x0 < x1, in side view."""
    nx, ny = -(y1 - y0), x1 - x0
    return nx, ny, 0.0, nx * x0 + ny * y0


def _local(car: Car, x: Array, z: Array) -> tuple[Array, Array]:
    """Along and across the car for camera-frame offsets (x, z) or directions."""
    cos, sin = math.cos(car.heading), math.sin(car.heading)
    return x * cos + z * sin, x * sin - z * cos


def shade_box(car: Car, x: Array, z: Array, towards: Array) -> Array:
    """Share of a distant light hidden from ground points (x, z) by two boxes, soft where thinly cut."""
    shape = SHAPES[car.body]
    px, pz = _local(car, x - car.x, z - car.z)
    towards = towards / np.linalg.norm(towards)
    dx, dz = (float(v) for v in _local(car, towards[0], towards[2]))
    shade = np.zeros(np.shape(px), np.float32)
    half, side = shape.length / 2 - 0.08, shape.width / 2 - 0.05
    for lo, hi, front, back in ((0.10, shape.belt, half, -half), (shape.belt, shape.roof, shape.c, shape.d)):
        enter, leave = lo / towards[1], hi / towards[1]
        t0, t1 = np.full_like(px, enter), np.full_like(px, leave)
        for p, d, a, b in ((px, dx, back, front), (pz, dz, -side, side)):
            d = d if abs(d) > 1e-3 else 1e-3
            u, v = (a - p) / d, (b - p) / d
            t0, t1 = np.maximum(t0, np.minimum(u, v)), np.minimum(t1, np.maximum(u, v))
        shade = np.maximum(shade, ramp(t1 - t0, 0.0, 0.25))
    return shade


def under_car(car: Car, x: Array, z: Array, soft: Array | float) -> Array:
    """Share of the sky hidden from the ground beneath and beside a car, at offsets (x, z) from it."""
    shape = SHAPES[car.body]
    along, across = _local(car, x, z)
    ax = np.abs(along) - (shape.length / 2 - 0.35)
    az = np.abs(across) - (shape.width / 2 - 0.30)
    outside = np.hypot(np.maximum(ax, 0), np.maximum(az, 0)) + np.minimum(np.maximum(ax, az), 0)
    return 0.94 * ramp(outside, 0.75, -0.15)


def outline(car: Car) -> Array:
    """Corners (8, 3) in the camera frame of the box around a car."""
    shape = SHAPES[car.body]
    half, side = shape.length / 2, shape.width / 2
    a, y, c = np.array(list(product((-half, half), (0, shape.roof), (-side, side)))).T
    cos, sin = np.cos(car.heading), np.sin(car.heading)
    return np.stack((car.x + a * cos + c * sin, y, car.z + a * sin - c * cos), -1)


@dataclass
class Hit:
    """The n rays that met a car: their places in the fine grid, points (3, n) in the car's frame, normals.

    Normals (3, n) are in the camera's frame; `part` is 1 body, 2 cabin, 3 tyre tread, 4 wheel side.
    """

    row: Array
    column: Array
    point: Array
    normal: Array
    depth: Array
    part: Array


def meet(car: Car, canvas: Canvas, region: tuple[slice, slice], fine: int) -> Hit:
    """Casts fine x fine rays a pixel of the region at the car."""
    shape = SHAPES[car.body]
    rows = np.arange(region[0].start * fine, region[0].stop * fine, dtype=np.float32)
    columns = np.arange(region[1].start * fine, region[1].stop * fine, dtype=np.float32)
    dy = (canvas.camera.horizon * canvas.rows - (rows + 0.5) / fine) * canvas.pixel
    dx = ((columns + 0.5) / fine - canvas.columns / 2) * canvas.pixel
    da, dc = _local(car, dx[None, :], np.ones_like(dx)[None, :])
    oa, oc = _local(car, floats(-car.x), floats(-car.z))
    origin = floats([float(oa), canvas.camera.height, float(oc)])
    best = np.full((len(rows), len(columns)), 1e6, np.float32)
    part = np.zeros(best.shape, np.int32)
    plane = np.zeros(best.shape, np.int32)  # through which a ray enters body or cabin
    pieces, first = _pieces(shape), 0

    # A ray meets a plane at 1 / s, where s = (normal . direction) / (offset - normal . origin).
    for index, piece in enumerate(pieces, start=1):
        away = piece[:, 3] - piece[:, :3] @ origin
        along = (piece[:, :1] * da + piece[:, 2:3] * dc) / away[:, None]
        up = piece[:, 1:2] * dy / away[:, None]
        enter, leave = np.full(best.shape, 1e6, np.float32), np.full(best.shape, 1e-6, np.float32)
        face = np.zeros(best.shape, np.int32)
        s, closer = np.empty_like(enter), np.empty(best.shape, bool)
        for number in range(len(piece)):
            np.add(up[number][:, None], along[number], out=s)
            if away[number] < 0:  # the camera is outside this plane: rays can only enter through it
                np.copyto(face, number, where=np.less(s, enter, out=closer))
                np.minimum(enter, s, out=enter)
            else:
                np.maximum(leave, s, out=leave)
        met = (enter > leave) & (enter < 10) & (enter * best > 1)
        np.divide(1, enter, out=best, where=met)
        np.copyto(part, index, where=met)
        np.add(face, first, out=plane, where=met)
        first += len(piece)

    side = shape.width / 2 - 0.02
    square = da * da + (dy * dy)[:, None]
    axles = (shape.length * 0.31, -shape.length * 0.29)
    for axle in axles:
        ox, oy = origin[0] - axle, origin[1] - np.float32(WHEEL)
        middle = ox * da + (oy * dy)[:, None]
        root = middle * middle - square * (ox * ox + oy * oy - np.float32(WHEEL**2))
        at, _, column = pixels(root > 0)
        a, b, root = square.take(at), -middle.take(at), np.sqrt(root.take(at))
        aside = dc[0, column]
        tread, past = (b - root) / a, (b + root) / a
        for sign in (-1, 1):
            slab0 = (sign * side - origin[2]) / aside
            slab1 = (sign * (side - 0.20) - origin[2]) / aside
            near = np.maximum(np.minimum(slab0, slab1), tread)
            far = np.minimum(np.maximum(slab0, slab1), past)
            # Wheels stand proud of the body by a hair so that they show in the arches.
            proud = np.flatnonzero((near < far) & (near > 0.1) & (near - 0.07 < best.take(at)))
            here, near = at[proud], near[proud]
            best.ravel()[here] = near
            part.ravel()[here] = np.where(near > tread[proud] + 1e-4, 4, 3)
    at, row, column = pixels(part > 0)
    depth, part = best.take(at), part.take(at)
    point = rgb(origin) + depth * np.array([da[0, column], dy[row], dc[0, column]])
    normal = np.concatenate(pieces)[:, :3].T.take(plane.take(at), axis=1)
    _turn_wheels(normal, part, point, floats(axles))
    cos, sin = math.cos(car.heading), math.sin(car.heading)
    turned = np.array([normal[0] * cos + normal[2] * sin, normal[1], normal[0] * sin - normal[2] * cos])
    return Hit(row, column, point, turned, depth, part)


def _turn_wheels(normal: Array, part: Array, point: Array, axles: Array) -> None:
    """Sets the normals (3, n) of points on wheels: treads are round, sides look along the axle."""
    tread, flat = np.flatnonzero(part == 3), np.flatnonzero(part == 4)
    a, y, c = point
    normal[0, tread] = (a[tread] - np.where(a[tread] > 0, *axles)) / np.float32(WHEEL)
    normal[1, tread] = (y[tread] - np.float32(WHEEL)) / np.float32(WHEEL)
    normal[2, tread] = 0
    normal[:, flat] = 0
    normal[2, flat] = np.sign(c[flat])


def _dim(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def surface(car: Car, hit: Hit, heat: dict[str, float], lamps_on: bool) -> tuple[Array, Array, Array, Array]:
    """Albedo and own light (3, n), gloss and infrared radiance (n) where rays met the car."""
    shape = SHAPES[car.body]
    a, y, c = hit.point
    half, side, warm = shape.length / 2, shape.width / 2, car.running or car.bonnet > 0
    body, cabin = hit.part == 1, hit.part == 2
    colours, coat = [car.paint], np.zeros(len(a), np.intp)  # coat: which of the colours a point has
    glow = np.zeros_like(hit.point)
    gloss = np.where(body | cabin, 0.35, 0.0).astype(np.float32)
    engine = ramp(a, 0.6, half) * (0.45 if car.running else 0.7 * car.bonnet)
    warmth = heat["body"] + engine * (heat["engine"] - heat["body"]) * ramp(y, 1.2, 0.5)

    def put(where: Array, colour: Colour, hot: Array | float, shine: float) -> None:
        np.copyto(coat, len(colours), where=where)
        colours.append(colour)
        np.copyto(warmth, hot, where=where)
        np.copyto(gloss, shine, where=where)

    side_glass, end_glass = _windows(car, hit)
    put(side_glass | end_glass, (0.012, 0.014, 0.016), heat["glass"], 0.75)
    if car.driver:
        driver = driver_at(car, hit)
        put(driver, (0.36, 0.24, 0.18), heat["glass"], 0.25)
        put(driver & (y < shape.belt + 0.71), (0.36, 0.38, 0.43), heat["glass"], 0.25)

    nose, tail = a > half - 0.32, a < -half + 0.28
    lower = body & (y < 0.40)
    put(lower, _dim(car.paint, 0.35), warmth, 0.1)
    put(body & (y < 0.28), (0.02, 0.02, 0.02), heat["body"] * 0.8 + 0.2 * heat["tyre"], 0.0)
    seam = (
        body
        & (np.abs(c) > side - 0.2)
        & (y > 0.35)
        & ((np.abs(a - 0.85) < 0.018) | (np.abs(a + 0.15) < 0.018) | (np.abs(a + 1.05) < 0.018))
    )
    put(seam, _dim(car.paint, 0.3), warmth, 0.1)
    for along in (shape.length * 0.31, -shape.length * 0.29):
        arch = body & (np.hypot(a - along, y - WHEEL) < WHEEL + 0.07) & (np.abs(c) > side - 0.35)
        put(arch, (0.01, 0.01, 0.01), heat["tyre"] * 0.8, 0.0)
    grill = body & nose & (np.abs(c) < 0.48) & (y > 0.42) & (y < 0.64)
    put(grill, (0.02, 0.02, 0.02), heat["engine"] if warm else heat["body"], 0.1)
    plate = body & (nose | tail) & (np.abs(c) < 0.26) & (np.abs(y - np.where(nose, 0.46, 0.62)) < 0.06)
    put(plate, (0.55, 0.55, 0.52), warmth, 0.0)
    eye = body & nose & (np.abs(c) > 0.50) & (np.abs(c) < 0.82) & (y > 0.57) & (y < 0.72)
    put(eye, (0.45, 0.46, 0.47), heat["engine"] * 0.8 if car.running and lamps_on else heat["body"], 0.6)
    lamp = body & tail & (np.abs(c) > 0.55) & (y > 0.66) & (y < 0.84)
    put(lamp, (0.25, 0.01, 0.01), heat["body"] * 1.1, 0.3)
    pipe = body & tail & (np.abs(c - 0.45) < 0.12) & (y < 0.36)
    if car.running:
        put(pipe, (0.03, 0.03, 0.03), heat["engine"] * 1.08, 0.0)
        if lamps_on:
            glow[:, eye] = rgb((90.0, 87.0, 80.0) if car.full_beam else (9.0, 8.7, 8.0))
            glow[:, lamp] = rgb((0.9, 0.035, 0.02))

    tyre = (hit.part == 3) | (hit.part == 4)
    put(tyre, (0.018, 0.018, 0.018), heat["tyre"] if warm else 0.5 * (heat["tyre"] + heat["body"]), 0.0)
    at = np.flatnonzero(hit.part == 4)
    along, up = a[at] - np.where(a[at] > 0, shape.length * 0.31, -shape.length * 0.29), y[at] - WHEEL
    r, spoke = np.full(len(a), np.inf), np.zeros(len(a), bool)
    r[at], spoke[at] = np.hypot(along, up), np.cos(5 * np.arctan2(up, along)) > -0.35
    rim = r < WHEEL * 0.66
    put(rim, (0.06, 0.06, 0.06), heat["tyre"] * (1.1 if warm else 0.8), 0.1)
    put(
        rim & (spoke | (r < 0.07) | (r > WHEEL * 0.58)),
        (0.34, 0.34, 0.35),
        heat["tyre"] * (1.12 if warm else 0.75),
        0.2,
    )
    put(r < WHEEL * 0.2, (0.20, 0.20, 0.20), heat["tyre"] * 1.0, 0.2)
    # Pressed steel bends gently: tilt the normals of flat panels as a real panel would.
    bent = body & (np.abs(hit.normal[1]) < 0.5)
    hit.normal[1] += np.where(bent, 0.75 * (y - 0.62), 0.0)
    hit.normal /= np.maximum(np.sqrt((hit.normal**2).sum(0)), 1e-6)
    dust = tile_noise("stain", a + c, y, 0.06, 0.05, 11.0)
    albedo = floats(colours).T.take(coat, axis=1)
    albedo *= np.clip(1 + 0.05 * dust - 0.15 * ramp(y, 0.7, 0.25), 0.3, 2)
    warmth = warmth * (1 + 0.03 * dust)
    up = np.maximum(hit.normal[1], 0)
    warmth = np.where(body | cabin, warmth * (1 - 0.22 * up * (1 - engine)), warmth)
    return albedo, glow, gloss, warmth.astype(np.float32)


def _windows(car: Car, hit: Hit) -> tuple[Array, Array]:
    """Which points (n) lie on glass, at the sides and at the ends of the cabin; roof and pillars are left."""
    shape = SHAPES[car.body]
    a, y, c = hit.point
    side = shape.width / 2
    share = (y - shape.belt) / (shape.roof - shape.belt)
    front, rear = shape.a + share * (shape.c - shape.a), shape.b + share * (shape.d - shape.b)
    inner = np.minimum(front - a, a - rear)
    flank = np.abs(c) > side - 0.06 - 0.28 * np.maximum(y - shape.belt, 0) - 0.12
    pillar = np.abs(a - (shape.a + shape.b) * 0.5 + 0.05) < 0.05
    window = (hit.part == 2) & (share > 0.10) & (share < 0.86)
    side_glass = window & flank & (inner > 0.14) & ~pillar & (inner < 9)
    if car.body == "van":
        side_glass &= a > -0.3
    return side_glass, window & (inner < 0.10) & (np.abs(c) < side - 0.16 - 0.2 * share)


def driver_at(car: Car, hit: Hit) -> Array:
    """Which points (n) of the windscreen of a bus show the driver: face and shoulders, above the dashboard.

    Glass lies about them wider than the ring that Truth.both looks at, so that it compares glass with glass.
    """
    a, y, c = hit.point
    belt = SHAPES[car.body].belt
    c, y = c - 0.36, y - belt - 0.48
    driver = (np.hypot(c / 0.11, (y - 0.38) / 0.15) < 1) | ((np.hypot(c / 0.27, y / 0.26) < 1) & (y > 0))
    return _windows(car, hit)[1] & (a > 0) & driver


def reflection(hit: Hit, camera: Camera, zenith: Array, skyline: Array) -> Array:
    """What polished paint and glass mirror (3, n): sky above, the dark street and its houses below."""
    rise = (hit.point[1] - camera.height) / hit.depth
    length = 1 / np.sqrt(1 + rise * rise)
    facing = (rise * hit.normal[1] + hit.normal[2]) * length
    up = rise * length - 2 * facing * hit.normal[1]
    fresnel = 0.10 + 0.6 * (1 - np.clip(-facing, 0, 1)) ** 3
    ripple = 0.06 * tile_noise("stain", hit.point[0], hit.point[1], 0.10, 0.05, 3.0)
    open_sky = np.clip(0.25 + 1.6 * (up + ripple - 0.15), 0.04, 1)
    return (fresnel * open_sky) * (rgb(skyline) + np.clip(up, 0, 1) * rgb(zenith - skyline))

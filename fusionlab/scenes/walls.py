"""Where walls of buildings are seen: for each column of the picture, how far along and how far off."""

import math
from dataclasses import dataclass

import numpy as np

from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.plan import Building, Plan
from fusionlab.scenes.textures import Array, floats, pixels


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
    solid: Array  # columns that the wall fills; those where it ends do not hide what is behind


def find_walls(canvas: Canvas, plan: Plan) -> list[Wall]:
    """All walls in the view, near to far."""
    street = plan.street
    sin, cos = math.sin(street.yaw), math.cos(street.yaw)
    sides = []
    for block in plan.buildings:
        side = 1.0 if block.w > 0 else -1.0
        back = block.w + block.depth
        ends = [((block.s0, block.w), (block.s1, block.w), (-side * cos, side * sin), True)]
        if block.s0 > 0:
            ends.append(((block.s0, block.w), (block.s0, back), (-sin, -cos), False))
        if block.s1 < 0:
            ends.append(((block.s1, block.w), (block.s1, back), (sin, cos), False))
        for a, b, normal, front in ends:
            sides.append(Side(block, front, normal, street.to_camera(*a), street.to_camera(*b)))
    return sorted(_seen(canvas, sides), key=lambda wall: float(wall.z.mean()))


def feet(canvas: Canvas, walls: list[Wall]) -> Array:
    """For each column the row down to which walls hide the ground."""
    rows = np.zeros(canvas.columns, np.float32)
    for wall in walls:
        foot = canvas.camera.horizon * canvas.rows + canvas.camera.height / wall.z / canvas.pixel
        rows[wall.columns] = np.where(wall.solid, np.maximum(rows[wall.columns], foot), rows[wall.columns])
    return rows


@dataclass(frozen=True)
class Side:
    """A side of a building, seen or not, over the ground line from a to b (x, z)."""

    block: Building
    front: bool
    normal: tuple[float, float]  # outward, (x, z)
    a: tuple[float, float]
    b: tuple[float, float]


def _seen(canvas: Canvas, sides: list[Side]) -> list[Wall]:
    """The walls of all sides that the rays of two columns or more meet."""
    if not sides:
        return []
    lengths = [math.hypot(side.b[0] - side.a[0], side.b[1] - side.a[1]) for side in sides]
    along = [
        ((side.b[0] - side.a[0]) / length, (side.b[1] - side.a[1]) / length)
        for side, length in zip(sides, lengths)
    ]
    ex, ez = floats(along).T[..., None]
    ax, az = floats([side.a for side in sides]).T[..., None]
    steep = canvas.dx * ez - ex
    u = (ax - canvas.dx * az) / np.where(np.abs(steep) < 1e-6, np.float32(1e-6), steep)
    z = az + ez * u
    beyond = floats([length + 0.5 for length in lengths])[:, None]
    seen = (z > 0.5) & (z < 300) & (u > -0.5) & (u < beyond)
    walls = []
    for k in np.flatnonzero(seen.sum(1) > 1).tolist():
        met = np.flatnonzero(seen[k])
        columns = slice(int(met[0]), int(met[-1]) + 1)
        walls.append(_wall(canvas, sides[k], lengths[k], columns, u[k, columns], z[k, columns]))
    return walls


def _wall(canvas: Canvas, side: Side, length: float, columns: slice, u: Array, z: Array) -> Wall:
    z = np.maximum(z, 0.5)
    block, horizon = side.block, canvas.camera.horizon * canvas.rows
    top = horizon - (block.height - canvas.camera.height) / z / canvas.pixel
    edge = step(u)
    solid = (u > edge) & (u < length - edge)
    return Wall(block, side.front, side.normal, length, columns, u, z, top, solid)


def step(u: Array) -> Array:
    """How much a row of 2 numbers or more changes from one to the next, as abs(np.gradient(u))."""
    change = np.empty_like(u)
    np.subtract(u[2:], u[:-2], out=change[1:-1])
    change[1:-1] /= 2
    change[0], change[-1] = u[1] - u[0], u[-1] - u[-2]
    return np.abs(change)


@dataclass(frozen=True)
class View:
    """The pixels of a wall that may be seen; `column` counts from the first of `columns`."""

    wall: Wall
    columns: slice  # of the picture
    u: Array  # of each column
    z: Array
    row: Array  # of each pixel
    column: Array


def view_of(canvas: Canvas, wall: Wall, part: slice, bottom: Array) -> View:
    """The columns `part` of a wall down to the rows `bottom`."""
    u, z, top = wall.u[part], wall.z[part], wall.top[part]
    start = wall.columns.start + part.start
    foot = canvas.camera.horizon * canvas.rows + canvas.camera.height / z / canvas.pixel
    r0, r1 = int(max(0, top.min() - 2)), int(min(bottom.max(), foot.max() + 2))
    rows = np.arange(r0, max(r0, r1))[:, None] if len(u) > 1 else np.zeros((0, 1), np.int64)
    _, row, column = pixels((rows > top - 2) & (rows < np.minimum(foot, bottom) + 2))
    return View(wall, slice(start, start + len(u)), u, z, row + r0, column)

"""The picture being drawn: a level pinhole camera and the layers painted over each other, far to near.

Camera frame in metres: x to the right, y up from the ground, z forward; the camera stands at (0, height, 0).
"""

from dataclasses import dataclass

import numpy as np

from fusionlab.scenes.textures import Array, floats, put

FAR = 1500.0  # metres; what is farther, such as the sky, is taken to be there


@dataclass(frozen=True)
class Camera:
    """Height above the ground (m), focal length and horizon row, both as shares of the picture's height."""

    height: float
    focal: float
    horizon: float

    def widened(self, rows: int, margin: int) -> "Camera":
        """The camera whose picture shows `margin` more pixels on every side of one with so many rows."""
        tall = rows + 2 * margin
        return Camera(self.height, self.focal * rows / tall, (self.horizon * rows + margin) / tall)


@dataclass
class Sprite:
    """What an object looks like before light falls on it: arrays (h, w), colours (3, h, w).

    `normal` points out of the surface in the camera frame (negative z: towards the camera), `glow` is light
    the object gives off itself, `heat` its infrared radiance.
    """

    alpha: Array
    albedo: Array
    heat: Array
    normal: Array
    glow: Array | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "Sprite":
        normal = np.zeros((3, *shape), np.float32)
        normal[2] = -1
        zeros = np.zeros(shape, np.float32)
        return cls(zeros, np.zeros_like(normal), zeros.copy(), normal)

    def flat(self) -> "Sprite":
        """The same sprite with its pixels in one row (writing to it writes to the whole)."""
        glow = None if self.glow is None else self.glow.reshape(3, -1)
        return Sprite(
            self.alpha.reshape(-1), self.albedo.reshape(3, -1), self.heat.reshape(-1),
            self.normal.reshape(3, -1), glow,
        )  # fmt: skip

    def stretch(self, span: slice, shape: tuple[int, ...]) -> "Sprite":
        """A stretch of a row of pixels, folded into a shape."""
        return Sprite(
            self.alpha[span].reshape(shape), self.albedo[:, span].reshape(3, *shape),
            self.heat[span].reshape(shape), self.normal[:, span].reshape(3, *shape),
        )  # fmt: skip

    def crop(self, region: tuple[slice, slice]) -> "Sprite":
        """The same sprite seen through a window (adding to it adds to the whole)."""
        return Sprite(self.alpha[region], self.albedo[:, *region], self.heat[region], self.normal[:, *region])

    def add(self, alpha: Array, albedo: Array, heat: Array | float, normal: Array | None = None) -> None:
        """Lays one part over what is there ("over" of Porter and Duff, colours not premultiplied)."""
        total = alpha + self.alpha * (1 - alpha)
        share = alpha / np.maximum(total, 1e-6)
        self.albedo += share * (albedo - self.albedo)
        self.heat += share * (heat - self.heat)
        if normal is not None:
            self.normal += share * (normal - self.normal)
        self.alpha[...] = total

    def add_at(self, at: Array, alpha: Array, albedo: Array, heat: Array, normal: Array) -> None:
        """`add` to the pixels `at` of a row of them."""
        part = Sprite(
            self.alpha[at], self.albedo.take(at, axis=1), self.heat[at], self.normal.take(at, axis=1)
        )
        part.add(alpha, albedo, heat, normal)
        self.alpha[at], self.heat[at] = part.alpha, part.heat
        put(self.albedo, at, part.albedo)
        put(self.normal, at, part.normal)


def unit(x: Array, y: Array, z: Array) -> Array:
    """Vectors (3, ...) of length 1 along (x, y, z)."""
    vector = np.array([x, y, z])
    vector /= np.sqrt(x * x + y * y + z * z)
    return vector


def within(x: Array, y: Array, left: float, right: float, bottom: float, top: float) -> tuple[slice, slice]:
    """Pixels of a crop whose plane coordinates (columns x rising, rows y falling) lie in a rectangle."""
    c0, c1 = np.searchsorted(x[0], (left, right))
    r0, r1 = np.searchsorted(-y[:, 0], (-top, -bottom))
    return slice(int(r0), int(r1)), slice(int(c0), int(c1))


class Canvas:
    """Visible radiance (3, H, W) and infrared radiance (H, W), both linear; inverse depth; owners (H, W)."""

    def __init__(self, camera: Camera, rows: int, columns: int) -> None:
        self.camera, self.rows, self.columns = camera, rows, columns
        self.layers = np.zeros((5, rows, columns), np.float32)
        self.owner = np.zeros((rows, columns), np.int32)
        self.pixel = 1 / (camera.focal * rows)  # metres a pixel at a distance of one metre
        self.dx = floats((np.arange(columns) + 0.5 - columns / 2) * self.pixel)
        self.dy = floats((camera.horizon * rows - np.arange(rows) - 0.5) * self.pixel)

    @property
    def radiance(self) -> Array:
        return self.layers[:3]

    @property
    def heat(self) -> Array:
        return self.layers[3]

    @property
    def nearness(self) -> Array:
        return self.layers[4]

    def depth(self) -> Array:
        """Distance along the view in metres (H, W), at most FAR."""
        return 1 / np.maximum(self.nearness, np.float32(1 / FAR))

    def window(
        self, left: float, right: float, bottom: float, top: float, z: float
    ) -> tuple[slice, slice] | None:
        """Pixels covering a rectangle of the plane at depth z, and one more; None when out of sight."""
        scale = 1 / (self.pixel * z)
        middle, horizon = self.columns / 2, self.camera.horizon * self.rows
        c0, c1 = int(np.floor(middle + left * scale)) - 1, int(np.ceil(middle + right * scale)) + 1
        r0 = int(np.floor(horizon - (top - self.camera.height) * scale)) - 1
        r1 = int(np.ceil(horizon - (bottom - self.camera.height) * scale)) + 1
        c0, c1, r0, r1 = max(c0, 0), min(c1, self.columns), max(r0, 0), min(r1, self.rows)
        return (slice(r0, r1), slice(c0, c1)) if r0 < r1 and c0 < c1 else None

    def plane(self, region: tuple[slice, slice], x: float, z: float) -> tuple[Array, Array]:
        """Coordinates (right of x, up from the ground) of the pixels of a region on the plane at depth z."""
        across = self.dx[region[1]] * np.float32(z) - np.float32(x)
        up = self.dy[region[0]] * np.float32(z) + np.float32(self.camera.height)
        grid = np.empty((2, len(up), len(across)), np.float32)
        grid[0], grid[1] = across, up[:, None]
        return grid[0], grid[1]

    def paint(
        self, region: tuple[slice, slice] | tuple[Array, ...], alpha: Array, radiance: Array,
        heat: Array | float, z: Array | float, owner: int = 0,
    ) -> None:  # fmt: skip
        """Lays a layer over a region (slices or pixel numbers); what it half covers is its own."""
        new = np.empty((5, *alpha.shape), np.float32)
        new[:3], new[3], new[4] = radiance, heat, np.float32(1) / z
        layers: Array = self.layers
        owners: Array = self.owner
        if isinstance(region[0], slice):
            old, below = layers[:, *region], owners[region]
        else:  # numpy is quicker with one index a pixel than with two, and quickest in take
            layers, owners = layers.reshape(5, -1), owners.ravel()
            region = (region[0] * self.columns + region[1],)
            old, below = layers.take(region[0], axis=1), owners.take(region[0])
        new -= old
        new *= alpha
        new += old
        put(layers, region, new)
        if owner or below.any():
            owners[region] = np.where(alpha >= 0.5, owner, below)

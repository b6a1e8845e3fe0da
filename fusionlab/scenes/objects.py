"""Trees, bushes, street lamps, signs and cones: flat shapes facing the camera, shaded as if round."""

from functools import lru_cache

import numpy as np

from fusionlab.scenes.canvas import Sprite, unit, within
from fusionlab.scenes.plan import Post, Tree
from fusionlab.scenes.textures import Array, capsules, floats, overlap, pixels, ramp, rgb, tile_noise

PANEL, PRINT = (1.80, 1.25), (0.97, 0.47)  # half widths and heights of case "sign", metres
# What is printed; the margin about it is wider than the ring that Truth.both looks at.
WORDS = (
    "##. ### .#. ##.",
    "#.# #.# #.# #.#",
    "##. #.# ### #.#",
    "#.# #.# #.# #.#",
    "#.# ### #.# ##.",
    "               ",
    "#.# ### ##. #.#",
    "#.# #.# #.# #.#",
    "### #.# ##. ##.",
    "### #.# #.# #.#",
    "#.# ### #.# #.#",
)

# For each pixel about a tree, metres right of its foot (h, w) and up (h, w); metres a pixel.
Place = tuple[Array, Array, float]
GIRTH = 0.024  # radius of a trunk over the height of its tree


@lru_cache(64)
def _blobs(tree: Tree) -> Array:
    """Clumps of a crown (n, 3): centre across, centre up, radius, in metres, those at the back first."""
    rng = np.random.default_rng([tree.salt, 3])
    count = 9 if tree.bush else 20
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    middle, tall = (0.42, 0.40) if tree.bush else (0.66, 0.29)
    x = tree.crown * 0.78 * reach * np.cos(angle)
    y = tree.height * (middle + tall * 0.82 * reach * np.sin(angle))
    radius = tree.crown * rng.uniform(0.26, 0.46, count) * (1.15 - 0.3 * reach)
    order = np.argsort(-y + rng.normal(0, 0.1, count))
    return np.stack([x, y, radius], -1)[order].astype(np.float32)


def crown_edge(tree: Tree) -> tuple[float, float]:
    """Metres to either side and up that no part of a tree passes, from the ranges in _blobs and of noise."""
    ragged = 0.05 + 0.54 * tree.crown
    return 1.18 * tree.crown + ragged, 0.9 * tree.height + 0.53 * tree.crown + ragged


def crown_cover(tree: Tree, x: Array, y: Array, soft: Array | float) -> Array:
    """Share of light a tree holds back at (x, y) metres on its plane, for shadows."""
    ragged = 0.30 * tile_noise("leaf", x, y, 0.10, soft, tree.salt % 907) * tree.crown * 0.4
    bx, by, radius = _blobs(tree).T[..., None]
    square = (x - bx) ** 2
    square += (y - by) ** 2
    field = (radius - np.sqrt(square, out=square)).max(0)
    crown = np.clip((field + ragged + 0.05) / (0.12 + soft), 0, 1) * 0.92
    trunk = np.clip(0.5 - (np.abs(x) - 0.03 * tree.height) / (soft + 0.02), 0, 1) * (y < 0.6 * tree.height)
    return np.maximum(crown, trunk * (y > 0))


def draw_trees(trees: list[Tree], places: list[Place], leaf_heat: float, wood_heat: float) -> list[Sprite]:
    """Each tree at its place, all shaded at once as one row of pixels: most are too small for numpy."""
    if not trees:
        return []
    ends = np.cumsum([0, *(x.size for x, _, _ in places)])
    row = Sprite.empty((int(ends[-1]),))
    _trunks(row, trees, places, ends, wood_heat)
    _crowns(row, trees, places, ends, leaf_heat)
    spans = [slice(first, last) for first, last in zip(ends, ends[1:])]
    return [row.stretch(span, x.shape) for span, (x, _, _) in zip(spans, places)]


def _crowns(sprite: Sprite, trees: list[Tree], places: list[Place], ends: Array, heat: float) -> None:
    """Lays crowns over a row of pixels that holds one tree after the other."""
    parts = [_clumps(tree, x, y) for tree, (x, y, _) in zip(trees, places)]
    which = np.repeat(np.arange(len(trees)), [part[0].size for part in parts])
    at, x, y, inside, px, py, each = (np.concatenate(values) for values in zip(*parts))
    at += ends[which]

    def of(values: list[float]) -> Array:
        return floats(values).take(which)

    pixel, shift = of([spot[2] for spot in places]), of([tree.salt % 907 for tree in trees])
    leaf = tile_noise("leaf", x, y, 0.05, pixel, shift)
    clump = tile_noise("leaf", x, y, 0.16, pixel, shift + 19)
    ragged = inside + 0.28 * clump + 0.14 * leaf
    size = of([0.35 * tree.crown for tree in trees])
    alpha = np.clip(ragged * size / of([max(0.10, 1.2 * spot[2]) for spot in places]), 0, 1)
    alpha *= np.clip(1.35 + 0.55 * leaf + 2.2 * ragged, 0, 1)
    seen = np.flatnonzero(alpha > 0)
    kept: tuple[Array, ...] = (at, alpha, which, y, px, py, each, leaf, clump)
    at, alpha, which, y, px, py, each, leaf, clump = (values.take(seen) for values in kept)
    deep = np.sqrt(np.maximum(1 - px * px - py * py, 0.08))
    normal = unit(px + 0.35 * clump, py + 0.35 + 0.35 * leaf, -deep)
    # Light from above is lost on the way down the crown and in the gaps between its clumps.
    blobs = [_blobs(tree) for tree in trees]
    low, high = of([(b[:, 1] - b[:, 2]).min() for b in blobs]), of([(b[:, 1] + b[:, 2]).max() for b in blobs])
    tone = (0.42 + 0.58 * ramp(py + 0.35 * clump, -0.9, 0.8)) * (0.55 + 0.45 * ramp(y, low, high))
    tone = tone * np.clip(1 + 0.40 * leaf, 0.25, 2.0) * (0.85 + 0.3 * each)
    hue = floats([tree.hue**2 for tree in trees])
    green = rgb([0.070, 0.100, 0.026]) + rgb([0.055, 0.018, -0.004]) * hue
    warm = heat * (0.88 + 0.16 * tone + 0.06 * clump + 0.03 * leaf)
    sprite.add_at(at, alpha, tone * green.take(which, axis=1), warm, normal)


def _clumps(tree: Tree, x: Array, y: Array) -> tuple[Array, ...]:
    """The pixels of a crown: number, x, y, depth inside, offsets in the foremost clump, and that clump's lot.

    Depth and offsets are in shares of a clump's radius.
    """
    blobs = _blobs(tree)
    bx, by, radius = blobs.T[..., None]
    u, v = (x[0] - bx) / radius, (y[:, 0] - by) / radius
    across, up = u * u, v * v
    # Farther than 1.6 radii from all clumps there is nothing: such rows and columns are left out.
    rows, columns = (_span(square.min(0) < 2.6) for square in (up, across))
    inside = 1 - np.sqrt((up[:, rows, None] + across[:, None, columns]).min(0))
    near, row, column = pixels((inside > -0.6) & (y[rows, :1] > -0.02))
    row, column = row + rows.start, column + columns.start
    at = row * x.shape[1] + column
    front = (up.T.copy().take(row, axis=0) + across.T.copy().take(column, axis=0)).argmin(1)
    lot = floats(np.arange(len(blobs)) * 37 % 17 / 17)[front]
    return at, x[0, column], y[row, 0], inside.take(near), u[front, column], v[front, row], lot


def _span(wanted: Array) -> slice:
    """From the first to the last place that is wanted."""
    at = np.flatnonzero(wanted)
    return slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0)


def _trunks(sprite: Sprite, trees: list[Tree], places: list[Place], ends: Array, heat: float) -> None:
    """Lays trunks and boughs over a row of pixels that holds one tree after the other."""
    stems = [k for k, tree in enumerate(trees) if not tree.bush]
    if not stems:
        return
    trees, places = [trees[k] for k in stems], [places[k] for k in stems]
    parts = [_near_trunk(tree, *place) for tree, place in zip(trees, places)]
    which = np.repeat(np.arange(len(stems)), [part[0].size for part in parts])
    at, px, py = (np.concatenate(values) for values in zip(*parts))
    at += ends[stems][which]
    boughs, radii = (np.array(values).T for values in zip(*map(_boughs, trees)))
    pixel = floats([spot[2] for spot in places])[which]
    distance, qx, _ = capsules(px, py, boughs.take(which, axis=2), radii.take(which, axis=2))
    root = floats([0.4 * (GIRTH * tree.height) for tree in trees])
    distance[0] -= root[which] * np.exp(-py / 0.25)  # roots spread at the foot
    alpha = np.clip(0.5 - distance.min(0) / pixel, 0, 1)
    seen = np.flatnonzero(alpha > 0)
    nearest = distance.take(seen, axis=1).argmin(0)
    at, px, py, alpha, which = (values.take(seen) for values in (at, px, py, alpha, which))
    round_ = qx[nearest, seen].clip(-1, 1)
    normal = unit(round_, 0 * round_ + 0.1, -np.sqrt(1 - 0.95 * round_ * round_))
    grain, shift = floats([2 * spot[2] for spot in places]), floats([tree.salt % 907 for tree in trees])
    bark = tile_noise("stain", 3 * px, py, 0.05, grain[which], shift[which])
    tone = np.clip(1 + 0.35 * bark, 0.3, 2)
    warm = heat * (1 + 0.05 * bark) * (0.95 + 0.05 * normal[2] ** 2)
    sprite.add_at(at, alpha, tone * rgb([0.105, 0.082, 0.062]), warm.astype(np.float32), normal)


@lru_cache(64)
def _boughs(tree: Tree) -> tuple[Array, Array]:
    """Trunk and boughs as capsules, ends (5, 4) and radii (5, 2); a far tree has its trunk five times."""
    girth, tip = GIRTH * tree.height, 0.62 * tree.height
    ends, radii = [(0.0, 0.0, 0.0, tip)], [(girth * 1.15, girth * 0.5)]
    if tree.z >= 45:
        return floats(5 * ends), floats(5 * radii)
    rng = np.random.default_rng([tree.salt, 5])
    for _ in range(4):
        y0 = float(rng.uniform(0.30, 0.5)) * tree.height
        x1, y1 = float(rng.uniform(-0.6, 0.6)) * tree.crown, float(rng.uniform(0.55, 0.8)) * tree.height
        ends.append((0.0, y0, x1, y1))
        radii.append((girth * 0.5, girth * 0.2))
    return floats(ends), floats(radii)


def _near_trunk(tree: Tree, x: Array, y: Array, pixel: float) -> tuple[Array, ...]:
    """Numbers, x and y of the pixels that trunk and boughs may reach."""
    girth = GIRTH * tree.height
    wide = max(2.2 * girth, float(np.abs(_boughs(tree)[0][:, 2]).max()) + girth) + pixel
    part = within(x, y, -wide, wide, -pixel, 0.82 * tree.height)
    number = np.arange(x.size).reshape(x.shape)[part].ravel()
    return number, x[part].ravel(), y[part].ravel()


def draw_post(post: Post, x: Array, y: Array, pixel: float, heat: dict[str, float], lamp: Array) -> Sprite:
    """A street lamp (`lamp` is its radiance) or a sign at points (x right of its foot, y up, metres)."""
    sprite = Sprite.empty(x.shape)
    sprite.glow = np.zeros_like(sprite.normal)
    grey = rgb([0.13, 0.14, 0.14] if post.salt % 2 else [0.26, 0.27, 0.27], 2)
    wide = 0.035 if post.sign else 0.12
    part = within(x, y, -wide - pixel, wide + pixel, -pixel, post.height + pixel)
    px, py = x[part], y[part]
    girth = 0.035 if post.sign else 0.07 - 0.028 * np.clip(py / post.height, 0, 1) + 0.05 * (py < 0.9)
    round_ = np.clip(px / floats(girth), -1, 1)
    normal = np.array([round_, 0 * round_, -np.sqrt(1 - 0.95 * round_ * round_)])
    pole = overlap(px, -floats(girth), floats(girth), pixel) * overlap(py, 0, post.height, pixel)
    sprite.crop(part).add(pole, grey, heat["steel"], normal)
    if post.sign:
        _sign(sprite, post, x, y, pixel, heat)
        return sprite
    top = within(x, y, -9, 9, post.height - 0.4 - pixel, post.height + 0.1 + pixel)
    px, py, lantern = x[top], y[top], sprite.crop(top)
    if not px.size:
        return sprite
    if post.arm:
        along = np.clip(px / np.float32(post.arm), 0, 1)
        bow = post.height - np.float32(0.05) - np.float32(0.28) * (1 - along) ** 2
        arm = overlap(py, bow - np.float32(0.035), bow + np.float32(0.035), pixel) * overlap(
            (px if post.arm > 0 else -px), 0.0, abs(post.arm), pixel
        )
        lantern.add(arm, grey, heat["steel"])
    lit = bool(lamp.any())
    warm = heat["lamp"] if lit else heat["steel"]
    for half, low, high, colour in ((0.34, 0.12, -0.06, 0.8 * grey), (0.27, 0.20, 0.10, rgb([0.5] * 3, 2))):
        cover = overlap(px, post.arm - half, post.arm + half, pixel)
        cover = cover * overlap(py, post.height - low, post.height - high, pixel)
        lantern.add(cover, colour, warm)
    sprite.glow[:, *top] += cover * rgb(lamp, 2)
    return sprite


def _sign(sprite: Sprite, post: Post, x: Array, y: Array, pixel: float, heat: dict[str, float]) -> None:
    """The plate of a traffic sign: colours the visible camera sees and the infrared camera does not."""
    v = y - (post.height - 0.05)
    if post.sign == "disc":
        distance = np.hypot(x, v) - 0.34
        inner = np.hypot(x, v) - 0.25
        plate, middle = rgb([0.42, 0.03, 0.03], 2), rgb([0.62, 0.62, 0.60], 2)
        mark = overlap(x, -0.17, 0.17, pixel) * overlap(v, -0.06, 0.06, pixel)
    elif post.sign == "triangle":
        distance = np.maximum(np.abs(x) * 0.866 + v * 0.5, -v) - 0.22
        inner = distance + 0.075
        plate, middle = rgb([0.42, 0.03, 0.03], 2), rgb([0.62, 0.60, 0.52], 2)
        mark = overlap(x, -0.035, 0.035, pixel) * overlap(v, -0.13, 0.14, pixel)
    elif post.sign == "panel":
        up = y - _middle(post)
        distance = np.maximum(np.abs(x) - PANEL[0], np.abs(up) - PANEL[1])
        inner = distance + 0.05
        plate, middle = rgb([0.55, 0.55, 0.55], 2), rgb([0.02, 0.10, 0.05], 2)
        mark = _letters(x, up)
    else:
        distance = np.maximum(np.abs(x) - 0.30, np.abs(v) - 0.42)
        inner = distance + 0.05
        plate, middle = rgb([0.55, 0.55, 0.55], 2), rgb([0.03, 0.09, 0.30], 2)
        mark = overlap(np.abs(x), 0.05, 0.16, pixel) * overlap(v, -0.26, 0.26, pixel)
    alpha = np.clip(0.5 - distance / pixel, 0, 1).astype(np.float32)
    inside = np.clip(0.5 - inner / pixel, 0, 1)
    colour = plate + inside * (middle - plate)
    ink = rgb([0.6, 0.6, 0.6], 2) if post.sign in ("board", "panel") else rgb([0.03, 0.03, 0.03], 2)
    colour = colour + (mark * inside) * (ink - colour)
    flat = np.zeros_like(sprite.normal)
    flat[2] = -1
    sprite.add(alpha, colour.astype(np.float32), heat["steel"] * 1.04, flat)


def print_mask(post: Post, x: Array, y: Array) -> Array:
    """Whether points (x, y) of the plane of a panel lie on its print."""
    return (np.abs(x) < PRINT[0]) & (np.abs(y - _middle(post)) < PRINT[1])


def _middle(post: Post) -> float:
    """Height of the middle of a panel, metres."""
    return post.height - PANEL[1] + 0.05


def _letters(x: Array, v: Array) -> Array:
    """1 where WORDS are inked, at points (x right of, v above the middle of the panel), else 0."""
    ink = np.array([[cell == "#" for cell in line] for line in WORDS], np.float32)
    rows, columns = ink.shape
    row = np.floor((PRINT[1] - v) / (2 * PRINT[1]) * rows).astype(np.intp)
    column = np.floor((x + PRINT[0]) / (2 * PRINT[0]) * columns).astype(np.intp)
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, ink[row.clip(0, rows - 1), column.clip(0, columns - 1)], np.float32(0))


def draw_cone(x: Array, y: Array, pixel: float, heat: float) -> Sprite:
    """An orange traffic cone with a white band, 0.7 m tall."""
    sprite = Sprite.empty(x.shape)
    radius = np.maximum(0.17 - 0.19 * y, 0.025)
    cone = overlap(x, -radius, radius, pixel) * overlap(y, 0.03, 0.70, pixel)
    base = overlap(x, -0.21, 0.21, pixel) * overlap(y, 0.0, 0.05, pixel)
    round_ = np.clip(x / radius, -1, 1)
    normal = np.array([round_, 0.25 + 0 * round_, -np.sqrt(1 - 0.95 * round_ * round_)])
    band = overlap(y, 0.30, 0.42, pixel) + overlap(y, 0.52, 0.60, pixel)
    colour = rgb([0.52, 0.10, 0.02], 2) + band * rgb([0.13, 0.52, 0.56], 2)
    sprite.add(base, rgb([0.05, 0.05, 0.05], 2), heat)
    sprite.add(cone, colour.astype(np.float32), heat * 1.02, normal)
    return sprite

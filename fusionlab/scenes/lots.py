"""The plan of a seed: everything in a scene that is drawn by lot, but for the weather."""

import math
from bisect import bisect
from dataclasses import replace
from itertools import accumulate

import numpy as np

from fusionlab.scenes.canvas import Camera
from fusionlab.scenes.palette import CLOTHES, PAINTS, SKINS, TROUSERS, WALLS
from fusionlab.scenes.plan import Building, Car, Person, Plan, Post, Street, Tree


def draw_plan(seed: int) -> Plan:
    """The scene of a seed."""
    rng = np.random.default_rng([seed, 1])
    salt = int(rng.integers(1 << 20))
    high = rng.random() < 0.4
    camera = Camera(
        height=_between(rng, 2.8, 4.6) if high else _between(rng, 1.5, 2.4),
        focal=_between(rng, 1.0, 1.35),
        horizon=_between(rng, 0.30, 0.37) if high else _between(rng, 0.37, 0.47),
    )
    street = _street(rng, salt)
    buildings, trees = _sides(rng, street)
    # A crown right before the lens would hide the street.
    trees = tuple(t for t in trees if t.z < 1.5 or t.crown * camera.focal < 0.30 * t.z)
    posts = _posts(rng, street)
    cars = _cars(rng, camera, street)
    people = _people(rng, camera, street, cars, [post for post in posts if not post.sign])
    cones = _cones(rng, camera, street, cars)
    return Plan(camera, street, buildings, trees, posts, cars, people, cones, salt)


def _street(rng: np.random.Generator, salt: int) -> Street:
    half, walk = _between(rng, 3.2, 5.2), _between(rng, 2.0, 3.6)
    turn = float(_side(rng))
    oblique = rng.random() < 0.3
    yaw = float(turn * (_between(rng, 0.5, 1.2) if oblique else _between(rng, 0.0, 0.30)))
    # Turned to the right (positive yaw of the road to the left) the camera stands on the far side, and so on.
    offset = float(turn * (half + 0.6 * walk) if oblique else _between(rng, -half, half) + turn * 0.8)
    crossing = _between(rng, 9, 20) if rng.random() < 0.4 else None
    return Street(
        yaw, offset, half, walk, half + walk + _between(rng, 0.2, 2.5), crossing,
        bool(rng.random() < 0.3), rng.random() ** 2,
        (bool(rng.random() < 0.35), bool(rng.random() < 0.35)), salt,
    )  # fmt: skip


def _sides(rng: np.random.Generator, street: Street) -> tuple[tuple[Building, ...], tuple[Tree, ...]]:
    buildings: list[Building] = []
    trees: list[Tree] = []
    for side, park in zip((-1, 1), street.parks, strict=True):
        avenue = rng.random() < (0.6 if park else 0.5)
        s = _between(rng, -30, -20)
        while s < 150:
            width = _between(rng, 9, 24)
            if not park or s > 70:
                buildings.append(
                    _building(rng, s, s + width, side * (street.line + (14 if park else 0)), side)
                )
            s += width + (_between(rng, 3, 9) if rng.random() < 0.3 else 0.05)
        if avenue:
            s = _between(rng, -6, 6)
            while s < 90:
                trees.append(_tree(rng, street, s, side * (street.half + 0.9), _between(rng, 5.5, 8.5)))
                s += _between(rng, 8, 14)
        if park:
            for _ in range(16):
                w = side * (street.half + street.walk + _between(rng, 1.5, 14))
                trees.append(_tree(rng, street, _between(rng, 6, 75), w, _between(rng, 6, 12)))
            for _ in range(14):
                w = side * (street.half + street.walk + _between(rng, 0.8, 6))
                trees.append(_tree(rng, street, _between(rng, 5, 60), w, _between(rng, 0.9, 1.8), bush=True))
    return tuple(buildings), tuple(trees)


def _building(rng: np.random.Generator, s0: float, s1: float, w: float, side: int) -> Building:
    wall = np.array(WALLS[rng.integers(len(WALLS))]) * _between(rng, 0.75, 1.1)
    storey, bay = _between(rng, 2.9, 3.6), _between(rng, 2.2, 3.6)
    floors = int(rng.integers(2, 8))
    return Building(
        s0, s1, w, side * 14.0, floors * storey + _between(rng, 0.6, 1.4), tuple(wall.tolist()),
        bool(wall[0] > 1.35 * wall[1] and rng.random() < 0.8),
        (s1 - s0) / max(2, round((s1 - s0) / bay)), storey,
        (_between(rng, 0.36, 0.7), _between(rng, 0.42, 0.6)), bool(rng.random() < 0.45),
        _between(rng, 0.05, 0.35), int(rng.integers(1 << 20)),
    )  # fmt: skip


def _tree(
    rng: np.random.Generator, street: Street, s: float, w: float, height: float, bush: bool = False
) -> Tree:
    x, z = street.to_camera(s, w)
    crown = height * (_between(rng, 0.6, 1.1) if bush else _between(rng, 0.28, 0.38))
    return Tree(x, z, float(height), float(crown), rng.random(), int(rng.integers(1 << 20)), bush)


def _posts(rng: np.random.Generator, street: Street) -> tuple[Post, ...]:
    posts = []
    side = _side(rng)
    s, gap, height = _between(rng, 4, 14), _between(rng, 16, 26), _between(rng, 5.0, 7.5)
    style = (0.0, 1.6)[rng.integers(2)]
    while s < 110:
        x, z = street.to_camera(s, side * (street.half + 0.45))
        posts.append(
            Post(x, z, height, -side * style * float(np.cos(street.yaw)), salt=int(rng.integers(1 << 20)))
        )
        s, side = s + gap, -side
    for _ in range(int(rng.integers(1, 4))):
        side = _side(rng)
        x, z = street.to_camera(_between(rng, 6, 30), side * (street.half + _between(rng, 0.4, 0.9)))
        sign = ("disc", "triangle", "board")[rng.integers(3)]
        posts.append(Post(x, z, _between(rng, 2.3, 2.9), 0.0, sign, int(rng.integers(1 << 20))))
    return tuple(posts)


def _side(rng: np.random.Generator) -> int:
    """Left or right, -1 or 1; as rng.choice, in a tenth of its time."""
    return 2 * int(rng.integers(2)) - 1


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two bounds; as rng.uniform, in a third of its time."""
    return low + (high - low) * rng.random()


def _lot(rng: np.random.Generator, names: tuple[str, ...], shares: tuple[float, ...]) -> str:
    """One of the names, drawn with shares that add up to 1; as rng.choice, in a tenth of its time."""
    return names[bisect(list(accumulate(shares)), rng.random())]


def _seen(camera: Camera, x: float, z: float, margin: float, near: float) -> bool:
    return z > near and abs(x) < margin * z / camera.focal


def _cars(rng: np.random.Generator, camera: Camera, street: Street) -> tuple[Car, ...]:
    cars: list[Car] = []
    wanted = int(rng.integers(2, 7))
    for _ in range(60):
        if len(cars) == wanted:
            break
        parked = rng.random() < 0.55
        side = _side(rng)
        s = _between(rng, 2, 14) if rng.random() < 0.4 else _between(rng, 8, 60)
        w = side * (street.half - 1.05 if parked else street.half * 0.42)
        x, z = street.to_camera(s, w)
        # Traffic keeps right; the nose of a car on the right points along +s.
        heading = float(np.pi / 2 - street.yaw + (0 if side > 0 else np.pi) + rng.normal(0, 0.02))
        far = all(math.hypot(x - c.x, z - c.z) > 6.2 for c in cars)
        if far and _seen(camera, x, z, 0.62, 6.5) and (z > 9 or abs(x) > 2):
            paint = tuple((np.array(PAINTS[rng.integers(len(PAINTS))]) * _between(rng, 0.8, 1.15)).tolist())
            body = _lot(rng, ("sedan", "hatch", "van"), (0.45, 0.35, 0.2))
            cars.append(Car(x, z, heading, paint, body, not parked or bool(rng.random() < 0.2)))
    return tuple(cars)


def _people(
    rng: np.random.Generator, camera: Camera, street: Street, cars: tuple[Car, ...], lamps: list[Post]
) -> tuple[Person, ...]:
    people: list[Person] = []
    places: list[tuple[float, float]] = []
    wanted = int(rng.integers(3, 8))
    for attempt in range(150):
        if len(people) == wanted:
            break
        close = len(people) < 2
        z = _between(rng, 6.5, 13) if close else _between(rng, 7, 32)
        x = _between(rng, -0.42, 0.42) * z / camera.focal
        s, w = street.to_street(x, z)
        walking = street.half + 0.4 < abs(w) < street.half + street.walk - 0.3
        on_crossing = street.crossing is not None and abs(s - street.crossing) < 2 and abs(w) < street.half
        place = walking or on_crossing or (close and attempt > 30 and abs(w) < street.line - 0.4)
        clear = all(math.hypot(x - c.x, z - c.z) > 3.0 for c in cars)
        clear = clear and not any(c.z < z and abs(x - c.x * z / c.z) < 2.5 * z / c.z for c in cars if close)
        clear = clear and all(math.hypot(x - p.x, z - p.z) > 0.7 for p in people)
        if not (place and clear):
            continue
        if not people:
            # The first keeps away from lamps, in dark clothes: at night the visible camera misses someone.
            places.append((x, z))
            if len(places) == 6 or attempt > 70:
                x, z = max(places, key=lambda p: min(math.hypot(p[0] - q.x, p[1] - q.z) for q in lamps))
                people.append(replace(_person(rng, x, z), coat=CLOTHES[0], trousers=TROUSERS[0]))
            continue
        people.append(_person(rng, x, z))
        if rng.random() < 0.25 and 1 < len(people) < wanted:
            people.append(_person(rng, x + _between(rng, 0.55, 0.8), z + _between(rng, -0.2, 0.2)))
    return tuple(people)


def _person(rng: np.random.Generator, x: float, z: float) -> Person:
    def pick(colours: tuple[tuple[float, float, float], ...]) -> tuple[float, float, float]:
        r, g, b = np.array(colours[rng.integers(len(colours))]) * _between(rng, 0.7, 1.2)
        return float(r), float(g), float(b)

    coat, trousers, skin = pick(CLOTHES), pick(TROUSERS), pick(SKINS)
    hair = (0.03, 0.022, 0.018) if rng.random() < 0.7 else (0.12, 0.07, 0.035)
    return Person(
        x, z, min(max(rng.normal(1.71, 0.08), 1.5), 1.92), _between(rng, 0.92, 1.15),
        bool(rng.random() < 0.45), bool(rng.random() < 0.5), float(_side(rng)),
        _between(rng, -1, 1), coat, trousers, skin, hair,
        _lot(rng, ("plain", "coat", "skirt", "bag", "pack"), (0.4, 0.2, 0.1, 0.15, 0.15)),
        int(rng.integers(1 << 20)),
    )  # fmt: skip


def _cones(
    rng: np.random.Generator, camera: Camera, street: Street, cars: tuple[Car, ...]
) -> tuple[tuple[float, float], ...]:
    if rng.random() < 0.65:
        return ()
    side, s = float(_side(rng)), _between(rng, 7, 14)
    spots = [
        street.to_camera(s + 2.2 * k, side * (street.half * 0.75 - 0.25 * k))
        for k in range(int(rng.integers(2, 5)))
    ]
    clear = [p for p in spots if all(math.hypot(p[0] - c.x, p[1] - c.z) > 3 for c in cars)]
    return tuple(p for p in clear if _seen(camera, *p, 0.6, 5.0))

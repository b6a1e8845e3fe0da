"""What stands in a scene and where, before a pixel is known; `lots` draws it from a seed.

Street frame: s along the street, w across it (0 in the middle of the road). Camera frame: x right, z forward.
The plan does not depend on the condition: one seed is one street by day, at dusk, at night and in fog.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fusionlab.scenes.canvas import Camera

CAR, PERSON, CONE = 1, 2, 7  # class numbers of MFNet and MSRS


@dataclass(frozen=True)
class Street:
    """Where the road runs (yaw to the view, offset of the camera) and its cross-section in metres."""

    yaw: float
    offset: float
    half: float  # half width of the road
    walk: float  # width of each sidewalk
    line: float  # distance from the middle to the buildings
    crossing: float | None  # s of a zebra crossing
    double: bool  # a double centre line instead of dashes
    wet: float
    parks: tuple[bool, bool]  # whether the left and the right side are open ground
    salt: int

    @cached_property
    def turn(self) -> tuple[float, float]:
        """Cosine and sine of the yaw."""
        return float(np.cos(self.yaw)), float(np.sin(self.yaw))

    def to_camera(self, s: float, w: float) -> tuple[float, float]:
        cos, sin = self.turn
        w = w - self.offset
        return float(sin * s + cos * w), float(cos * s - sin * w)

    def to_street(self, x: float, z: float) -> tuple[float, float]:
        cos, sin = self.turn
        return float(sin * x + cos * z), float(cos * x - sin * z + self.offset)


@dataclass(frozen=True)
class Building:
    """A block between s0 and s1 whose front stands at w, seen from the road; all lengths in metres."""

    s0: float
    s1: float
    w: float
    depth: float
    height: float
    wall: tuple[float, float, float]
    brick: bool
    bay: float
    storey: float
    pane: tuple[float, float]  # share of a bay and of a storey that is window
    shop: bool
    lit: float  # share of the windows lit after dark
    salt: int


@dataclass(frozen=True)
class Tree:
    """A tree or bush with its foot at (x, z); `crown` is the radius of the crown, hue 0 green to 1 yellow."""

    x: float
    z: float
    height: float
    crown: float
    hue: float
    salt: int
    bush: bool = False


@dataclass(frozen=True)
class Post:
    """A street lamp, or a sign where `sign` names a shape; `arm` reaches over the road (metres, signed)."""

    x: float
    z: float
    height: float
    arm: float
    sign: str = ""
    salt: int = 0


@dataclass(frozen=True)
class Car:
    """A car with its middle at (x, z)."""

    x: float
    z: float
    heading: float  # angle of its nose from the x axis towards z
    paint: tuple[float, float, float]
    body: str  # sedan, hatch, van, bus
    running: bool
    bonnet: float = 0.0  # warmth left in the bonnet of a parked car, 1 as when running
    driver: bool = False  # someone to be seen behind the windscreen
    full_beam: bool = False


@dataclass(frozen=True)
class Person:
    """Someone standing or walking at (x, z)."""

    x: float
    z: float
    height: float
    build: float
    side: bool  # walking across the view, else towards or away from the camera
    back: bool  # seen from behind
    facing: float  # -1 or 1
    stride: float  # -1 to 1
    coat: tuple[float, float, float]
    trousers: tuple[float, float, float]
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    wear: str  # plain, coat, skirt, bag, pack, leaves
    salt: int


@dataclass(frozen=True)
class Plan:
    """All of one scene."""

    camera: Camera
    street: Street
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    posts: tuple[Post, ...]
    cars: tuple[Car, ...]
    people: tuple[Person, ...]
    cones: tuple[tuple[float, float], ...]
    salt: int

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """Names of what owns pixels, in the order of the numbers in Canvas.owner, which start at 1."""
        return tuple(f"{kind} {k}" for kind, _, count in self._kinds for k in range(count))

    @cached_property
    def classes(self) -> np.ndarray:
        """Class number by owner's number, 0 for what has no owner."""
        labels, counts = zip(*((label, count) for _, label, count in self._kinds))
        return np.repeat(np.array([0, *labels]), (1, *counts))

    @property
    def _kinds(self) -> tuple[tuple[str, int, int], ...]:
        """Kind, class number and count of what owns pixels; the last two are parts of staged things."""
        return (
            ("car", CAR, len(self.cars)),
            ("person", PERSON, len(self.people)),
            ("cone", CONE, len(self.cones)),
            ("driver", CAR, sum(car.driver for car in self.cars)),
            ("print", 0, sum(post.sign == "panel" for post in self.posts)),
        )

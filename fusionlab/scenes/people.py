"""People: a pose of tapered limbs, dressed, shaded as round bodies, and warm."""

import math
from dataclasses import dataclass

import numpy as np

from fusionlab.scenes.canvas import Sprite
from fusionlab.scenes.palette import Colour
from fusionlab.scenes.plan import Person
from fusionlab.scenes.textures import Array, capsules, floats, put, ramp, rgb, tile_noise

Point = tuple[float, float]


@dataclass(frozen=True)
class Limb:
    """A tapered capsule from a to b, in shares of the body height: radii at both ends, cover, warmth."""

    a: Point
    b: Point
    ra: float
    rb: float
    colour: Colour
    heat: float
    shade: float = 1.0


def pose(person: Person, skin: float, cloth: float) -> list[Limb]:
    """The limbs of a person, those behind first. `skin` and `cloth` are infrared radiances."""
    cloth = cloth * (0.92 + 0.18 * (person.salt % 101) / 101)  # some are dressed more warmly
    return _side(person, skin, cloth) if person.side else _front(person, skin, cloth)


def _side(p: Person, skin: float, cloth: float) -> list[Limb]:
    f, k = p.facing, 0.20 + 0.28 * abs(p.stride)
    sleeve = cloth * 0.97
    shoe: Colour = (0.03, 0.03, 0.03)

    def leg(swing: float, shade: float) -> list[Limb]:
        bend = 0.10 + max(0.0, -swing) * 0.9
        hip = (0.0, 0.525)
        knee = (f * 0.245 * math.sin(swing), 0.525 - 0.245 * math.cos(swing))
        shin = swing - bend
        ankle = (knee[0] + f * 0.24 * math.sin(shin), knee[1] - 0.24 * math.cos(shin))
        drop = max(0.0, 0.035 - ankle[1])
        ankle = (ankle[0], ankle[1] + drop)
        toe = (ankle[0] + f * 0.075, max(0.018, ankle[1] - 0.022))
        bare = p.wear == "skirt"
        calf, warm = (p.skin, skin * 0.95) if bare else (p.trousers, cloth * 0.86)
        return [
            Limb(
                (ankle[0] - f * 0.015, max(0.02, ankle[1] - 0.012)),
                toe,
                0.022,
                0.017,
                shoe,
                cloth * 0.72,
                shade,
            ),
            Limb(knee, ankle, 0.040, 0.027, calf, warm, shade),
            Limb(hip, knee, 0.064, 0.043, p.trousers, cloth * 0.90, shade),
        ]

    def arm(swing: float, shade: float) -> list[Limb]:
        shoulder = (0.0, 0.79)
        elbow = (f * 0.165 * math.sin(swing), 0.79 - 0.165 * math.cos(swing))
        low = swing + 0.35
        wrist = (elbow[0] + f * 0.15 * math.sin(low), elbow[1] - 0.15 * math.cos(low))
        return [
            Limb(wrist, (wrist[0] + f * 0.01, wrist[1] - 0.03), 0.019, 0.016, p.skin, skin * 0.93, shade),
            Limb(elbow, wrist, 0.028, 0.021, p.coat, sleeve, shade * 1.06),
            Limb(shoulder, elbow, 0.037, 0.030, p.coat, sleeve, shade * 1.06),
        ]

    lean = f * 0.015
    limbs = arm(-k * 1.1, 0.72) + leg(-k, 0.72) + leg(k, 1.0)
    limbs += [
        Limb((0.0, 0.54), (lean, 0.66), 0.074, 0.072, p.coat, cloth),
        Limb((lean, 0.66), (lean * 1.4, 0.775), 0.074, 0.066, p.coat, cloth * 1.03),
    ]
    limbs += _wear(p, cloth, side=True)
    limbs += [
        Limb((lean * 1.5, 0.82), (lean * 2, 0.875), 0.030, 0.028, p.skin, skin),
        Limb((lean * 2.2 + f * 0.008, 0.905), (lean * 2.2 + f * 0.004, 0.945), 0.047, 0.050, p.skin, skin),
        Limb(
            (lean * 2.2 + f * 0.052, 0.913),
            (lean * 2.2 + f * 0.056, 0.910),
            0.012,
            0.010,
            p.skin,
            skin * 0.97,
        ),
        Limb(
            (lean * 2.0 - f * 0.016, 0.940),
            (lean * 2.2 + f * 0.004, 0.957),
            0.046,
            0.047,
            p.hair,
            0.5 * (cloth + skin) * 0.95,
        ),
        Limb(
            (lean * 2.0 - f * 0.024, 0.905),
            (lean * 2.0 - f * 0.022, 0.945),
            0.030,
            0.042,
            p.hair,
            0.5 * (cloth + skin) * 0.93,
        ),
    ]
    return limbs + arm(k * 0.9, 1.0)


def _front(p: Person, skin: float, cloth: float) -> list[Limb]:
    lift = 0.03 * p.stride
    shoe: Colour = (0.03, 0.03, 0.03)
    sway = 0.012 * p.stride
    limbs: list[Limb] = []
    bare = p.wear == "skirt"
    calf, warm = (p.skin, skin * 0.95) if bare else (p.trousers, cloth * 0.86)
    for side, rise in ((-1, max(0.0, lift)), (1, max(0.0, -lift))):
        hip, knee = (side * 0.047, 0.52), (side * 0.052 + sway * 0.5, 0.285 + 0.6 * rise)
        ankle = (side * 0.050 + sway, 0.045 + rise)
        shade = 1.0 - 4.0 * rise
        limbs += [
            Limb(
                (ankle[0], 0.022 + rise),
                (ankle[0] + side * 0.012, 0.016 + rise),
                0.026,
                0.020,
                shoe,
                cloth * 0.72,
                shade,
            ),
            Limb(knee, ankle, 0.040, 0.029, calf, warm, shade),
            Limb(hip, knee, 0.060, 0.043, p.trousers, cloth * 0.90, shade),
        ]
    arms: list[Limb] = []
    for side, swing in ((-1, p.stride), (1, -p.stride)):
        shoulder, elbow = (side * 0.112, 0.785), (side * (0.142 + 0.01 * abs(swing)), 0.63)
        wrist = (side * (0.140 - 0.02 * swing), 0.50 + 0.035 * max(0.0, swing))
        arms += [
            Limb(wrist, (wrist[0], wrist[1] - 0.028), 0.020, 0.017, p.skin, skin * 0.93),
            Limb(elbow, wrist, 0.030, 0.022, p.coat, cloth * 0.96, 0.92),
            Limb(shoulder, elbow, 0.040, 0.032, p.coat, cloth * 0.97, 0.96),
        ]
    limbs += arms
    limbs += [
        Limb((0.0, 0.535), (0.0, 0.63), 0.092, 0.084, p.coat, cloth),
        Limb((0.0, 0.63), (0.0, 0.745), 0.084, 0.100, p.coat, cloth * 1.03),
        Limb((-0.085, 0.785), (0.085, 0.785), 0.042, 0.042, p.coat, cloth * 1.02),
    ]
    limbs += _wear(p, cloth, side=False)
    face = (p.hair, 0.5 * (cloth + skin) * 0.97) if p.back else (p.skin, skin)
    limbs += [
        Limb((0.0, 0.82), (0.0, 0.875), 0.032, 0.030, p.skin, skin * (0.94 if p.back else 1.0)),
        Limb((0.0, 0.908), (0.0, 0.942), 0.043, 0.050, face[0], face[1]),
        Limb((-0.008, 0.964), (0.008, 0.964), 0.038, 0.038, p.hair, 0.5 * (cloth + skin) * 0.95),
    ]
    return limbs


def _wear(p: Person, cloth: float, side: bool) -> list[Limb]:
    wide = 0.075 if side else 0.098
    if p.wear == "coat":
        return [Limb((0.0, 0.56), (0.0, 0.40), wide, wide * 1.12, p.coat, cloth * 0.94)]
    if p.wear == "skirt":
        return [Limb((0.0, 0.55), (0.0, 0.38), wide * 0.9, wide * 1.2, p.trousers, cloth * 0.93)]
    if p.wear == "pack" and (side or p.back):
        pack: Colour = (p.trousers[2] * 1.5 + 0.02, p.trousers[1] + 0.02, p.trousers[0] + 0.02)
        x = -p.facing * 0.085 if side else 0.0
        return [
            Limb(
                (x, 0.63), (x, 0.755), 0.050 if side else 0.072, 0.046 if side else 0.066, pack, cloth * 0.62
            )
        ]
    if p.wear == "bag":
        x = p.facing * (0.03 if side else 0.155)
        return [Limb((x, 0.44), (x, 0.50), 0.042, 0.030, (0.10, 0.05, 0.03), cloth * 0.55)]
    return []


def _bones(limbs: list[Limb]) -> tuple[Array, Array]:
    ends, radii = [(*limb.a, *limb.b) for limb in limbs], [(limb.ra, limb.rb) for limb in limbs]
    return floats(ends).T[..., None], floats(radii).T[..., None]


def reach(person: Person, limbs: list[Limb]) -> float:
    """Metres from the middle of a person that no limb passes."""
    shares = (max(abs(limb.a[0]), abs(limb.b[0])) + max(limb.ra, limb.rb) for limb in limbs)
    return person.height * person.build * max(shares)


def silhouette(
    limbs: list[Limb], height: float, build: float, x: Array, y: Array, soft: Array | float
) -> Array:
    """Share covered at points (x, y) in metres on the body's plane, edges softened over `soft` metres."""
    u, v = (x * np.float32(1 / (height * build))).ravel(), (y * np.float32(1 / height)).ravel()
    nearest = capsules(u, v, *_bones(limbs))[0].min(0).reshape(x.shape)
    return np.clip(0.5 - nearest * height / np.maximum(soft, 1e-3), 0, 1)


def draw_person(person: Person, limbs: list[Limb], x: Array, y: Array, pixel: float) -> Sprite:
    """A person at points (x right of the feet's middle, y up, metres) for pixels of `pixel` metres.

    All limbs are shaded at once and laid over each other by weights, each less what covers it.
    """
    h = person.height
    sprite = Sprite.empty(x.shape)
    distance, qx, qy = capsules(
        (x / np.float32(h * person.build)).ravel(), (y / np.float32(h)).ravel(), *_bones(limbs)
    )
    at = np.flatnonzero(distance.min(0) < 0.5 * pixel / h)
    x, y = x.ravel()[at], y.ravel()[at]
    alpha = np.clip(0.5 - distance.take(at, axis=1) * np.float32(h / pixel), 0, 1)
    through = 1 - alpha  # of each limb, then of it and all before it
    for k in range(len(limbs) - 1, 0, -1):
        through[k - 1] *= through[k]
    weight, total = alpha, 1 - through[0]
    weight[:-1] *= through[1:]
    weight /= np.maximum(total, 1e-6)

    fold = tile_noise("stain", x, y, 0.05, pixel, person.salt % 911)
    qx, qy = (np.clip(q.take(at, axis=1), -1, 1) for q in (qx, qy))
    deep = np.sqrt(np.maximum(1 - qx * qx - 0.2 * qy * qy, 0.05))
    qx += 0.10 * fold
    qy = 0.4 * qy + 0.12
    lean = weight / np.sqrt(qx * qx + qy * qy + deep * deep)
    normal = np.array([(lean * qx).sum(0), (lean * qy).sum(0), -(lean * deep).sum(0)])
    warm = ((0.74 + 0.26 * deep) * weight * floats([[limb.heat] for limb in limbs])).sum(0)
    # Parts dim towards their edges, so overlapping limbs stay apart.
    tone = (0.70 + 0.30 * deep) * weight * floats([[limb.shade] for limb in limbs])
    albedo = (floats([limb.colour for limb in limbs]).T @ tone) * np.clip(1 + 0.14 * fold, 0.5, 1.5)
    if person.wear == "leaves":
        leaf = tile_noise("leaf", x, y, 0.05, pixel, person.salt % 907)
        albedo = rgb(person.coat) * np.clip(0.9 + 0.4 * leaf, 0.15, 2.5)
        low = 0.055 * person.z
        total *= ramp(y + 0.1 * leaf, low, low + 0.2)
    flat = sprite.flat()
    flat.alpha[at], flat.heat[at] = total, warm * (1 + 0.09 * fold)
    put(flat.normal, at, normal)
    put(flat.albedo, at, albedo * (0.72 + 0.28 * ramp(y, 0.0, 0.5)))
    return sprite

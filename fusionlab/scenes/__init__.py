"""Synthetic street scenes: registered visible and thermal pictures whose truth is known.

A seed fixes the street (lots, plan), a condition or an hour its light and heat (weather, materials). The
street is painted far to near in linear radiance with a depth map (paint, on a canvas); two cameras see it
through air (air, cameras). What a reader may change is in settings, what is known of the result in truth.

Frozen: a seed gives the same pixels for good (a test holds their hash), and what others may use is `__all__`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.ndimage import find_objects
from scipy.ndimage import shift as displaced
from torch import Tensor

from fusionlab.data.folders import Pairs
from fusionlab.data.pair import Pair, luminance, rgb_to_ycbcr
from fusionlab.errors import UserError
from fusionlab.scenes.air import through_air
from fusionlab.scenes.cameras import LENS_IR, gaussian_blur, photograph, thermograph
from fusionlab.scenes.canvas import Canvas
from fusionlab.scenes.cases import stage
from fusionlab.scenes.lots import draw_plan
from fusionlab.scenes.materials import MATERIALS, band_radiance
from fusionlab.scenes.paint import paint_scene
from fusionlab.scenes.plan import CAR, CONE, PERSON, Plan
from fusionlab.scenes.settings import CASES, DEFAULTS, GAINS, POLARITIES, Settings
from fusionlab.scenes.textures import Array
from fusionlab.scenes.truth import Box, Truth
from fusionlab.scenes.weather import CONDITIONS, Weather, draw_weather, hour_condition

__all__ = [
    "CASES", "CONDITIONS", "GAINS", "LABELS", "MATERIALS", "POLARITIES", "SPLITS",
    "Box", "Settings", "Truth", "band_radiance", "open_scenes", "scene",
]  # fmt: skip

# Class numbers of the MFNet and MSRS label maps, as far as they are drawn here.
LABELS = {0: "unlabelled", CAR: "car", PERSON: "person", CONE: "colour cone"}
SPLITS = ("train", "val", "test")
SMALLEST = 32


def scene(
    seed: int,
    height: int = 240,
    width: int = 320,
    condition: str | None = None,
    settings: Settings = DEFAULTS,
) -> Pair:
    """The street of a seed as a pair with its truth; vi and ir are (1, 1, height, width) in [0, 1].

    A seed shows the same street in every condition and, at the same aspect ratio, at every size; `condition`
    None draws one of CONDITIONS, or takes that of the settings' hour. What settings leave alone stays as it
    is. Raises UserError on an unknown condition, a condition that contradicts the settings, an object that
    they name and the scene lacks, a seed below 0 or a side below 32.
    """
    _check(seed, height, width, condition)
    condition = _suited(condition, settings)
    if condition is None:
        condition = CONDITIONS[int(np.random.default_rng([seed, 0]).integers(len(CONDITIONS)))]
    return _render(seed, height, width, condition, f"scene-{seed}-{condition}", settings)


def open_scenes(
    n: int,
    seed: int,
    split: str = "test",
    condition: str | None = None,
    height: int = 240,
    width: int = 320,
    settings: Settings = DEFAULTS,
) -> Pairs:
    """n scenes of a split, drawn when asked for, named like "test-0003-night".

    Conditions take turns where `condition` is None and the settings leave it open. Splits share no scene.
    Raises UserError on an unknown split, a negative n, and as `scene` does.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if n < 0:
        raise UserError(f"cannot draw {n} scenes: ask for 0 or more")
    _check(seed, height, width, condition)
    condition = _suited(condition, settings)
    names = tuple(f"{split}-{k:04d}-{condition or CONDITIONS[k % len(CONDITIONS)]}" for k in range(n))

    def read(name: str) -> Pair:
        if name not in names:
            raise UserError(f"there is no scene {name!r} among these {len(names)} of split {split}")
        number, drawn = int(name.split("-")[1]), name.split("-")[2]
        return _render(scene_seed(seed, split, number), height, width, drawn, name, settings)

    return Pairs("scenes", split, names, read)


def _check(seed: int, height: int, width: int, condition: str | None) -> None:
    """Raises UserError on what no scene can be drawn from."""
    if condition is not None and condition not in CONDITIONS:
        raise UserError(f"unknown condition {condition!r}: choose one of {', '.join(CONDITIONS)}, or None")
    if min(height, width) < SMALLEST:
        raise UserError(
            f"a scene of {height}x{width} is too small: both sides need {SMALLEST} pixels or more"
        )
    if seed < 0:
        raise UserError(f"the seed of a scene is {seed}: it must be 0 or more")


def _suited(condition: str | None, settings: Settings) -> str | None:
    """The condition that an hour or a case asks for, else the one given."""
    wanted = hour_condition(settings.hour) if settings.hour is not None else None
    if settings.case == "glare":
        if wanted == "day" or condition in ("day", "fog"):
            raise UserError("headlights glare after dark: leave the condition out, or use dusk or night")
        wanted = wanted or condition or "night"
    if settings.case == "sign":
        if "night" in (wanted, condition):
            raise UserError("a sign is read by daylight: leave the condition out, or use day, dusk or fog")
        wanted = wanted or condition or "day"
    if wanted is not None and condition not in (None, wanted):
        raise UserError(f"at hour {settings.hour} it is {wanted}, not {condition}: leave one of the two out")
    return wanted or condition


def scene_seed(seed: int, split: str, number: int) -> int:
    """Seed of the scene of a given number: splits take different remainders modulo 3, so they never meet."""
    draw = int(np.random.default_rng([seed, number]).integers(1 << 40))
    return draw * len(SPLITS) + SPLITS.index(split)


def _render(seed: int, height: int, width: int, condition: str, name: str, settings: Settings) -> Pair:
    plan = stage(draw_plan(seed), settings.case)
    for thing in settings.temperatures:
        if " " in thing and thing not in plan.owners:
            raise UserError(f"{name} has no {thing!r}: it has {', '.join(plan.owners)}")
    weather = draw_weather(plan, condition, seed, settings)
    margin = int(np.ceil(max(map(abs, settings.shift))))
    camera = plan.camera.widened(height, margin)
    canvas = Canvas(camera, height + 2 * margin, width + 2 * margin)
    paint_scene(canvas, plan, weather)
    air, air_ir = through_air(canvas, weather)
    rng = np.random.default_rng([seed, 3, CONDITIONS.index(condition)])
    inner = (slice(margin, margin + height), slice(margin, margin + width))

    visible = rgb_to_ycbcr(_tensor(photograph(air, weather, rng)[:, *inner]))
    still, picture = thermograph(air_ir, rng, settings.gain, settings.polarity)
    moved = displaced(still, settings.shift, order=1, mode="nearest") if margin else still

    owner = canvas.owner[inner]
    labels = np.take(plan.classes, owner)
    truth = Truth(
        labels=torch.from_numpy(labels),
        depth=torch.from_numpy(canvas.depth()[inner].copy()),
        owner=torch.from_numpy(owner.copy()),
        shift=settings.shift,
        seen=(visible[:, :1], _tensor(still[inner][None])),
        take_vi=partial(_clear_vi, canvas.radiance, weather, inner),
        take_ir=partial(_clear_ir, canvas.heat, picture, inner),
        find_boxes=partial(_boxes, owner, plan),
        find_targets=partial(_warm_targets, canvas.heat, 0.12 + weather.heat["road"], labels, inner),
    )
    return Pair(name, _tensor(moved[inner][None]), visible[:, :1], visible[:, 1:], truth)


def _clear_vi(radiance: Array, weather: Weather, inner: tuple[slice, slice]) -> Tensor:
    """Luminance (1, 1, H, W) of the part `inner` of the picture without air, glare and noise."""
    return luminance(_tensor(photograph(radiance, weather, None)[:, *inner]))


def _clear_ir(heat: Array, picture: Callable[[Array], Array], inner: tuple[slice, slice]) -> Tensor:
    """Picture (1, 1, H, W) of the part `inner` of the heat, without air and noise."""
    return _tensor(picture(_through_lens(heat)[inner])[None])


def _warm_targets(heat: Array, warm: float, labels: Array, inner: tuple[slice, slice]) -> Tensor:
    """Where people are, however warm, or parts of cars that the lens shows warmer than `warm`, (H, W)."""
    warmer = _through_lens(heat)[inner] > warm
    return torch.from_numpy((labels == PERSON) | ((labels == CAR) & warmer))


def _through_lens(heat: Array) -> Array:
    return gaussian_blur(heat, LENS_IR * len(heat))


def _tensor(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]


def _boxes(owner: Array, plan: Plan) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Boxes and names of what still owns pixels; specks of fewer than 8 pixels are left out."""
    boxes, names = [], []
    for number, window in enumerate(find_objects(owner), start=1):
        if window is None:
            continue
        inside = owner[window] == number
        label = int(plan.classes[number])
        name = plan.owners[number - 1]
        if name.startswith(("car", "person")) and inside.sum() >= 8:
            rows, columns = window
            boxes.append(Box(columns.start, rows.start, columns.stop, rows.stop, label))
            names.append(name)
    return tuple(boxes), tuple(names)

"""Synthetic street scenes: registered visible and thermal pictures whose truth is known.

A seed fixes the street (plan), a condition its light and heat (weather). The street is painted
far to near in linear radiance with a depth map (paint); two cameras see it through air (cameras).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionlab.data.folders import Pairs
from fusionlab.data.pair import Pair, rgb_to_ycbcr
from fusionlab.data.scenes.cameras import photograph, thermograph, through_air
from fusionlab.data.scenes.canvas import Canvas
from fusionlab.data.scenes.paint import CAR, CONE, PERSON, paint_scene
from fusionlab.data.scenes.plan import draw_plan
from fusionlab.data.scenes.textures import Array
from fusionlab.data.scenes.weather import CONDITIONS, draw_weather
from fusionlab.errors import UserError

__all__ = ["CONDITIONS", "LABELS", "SPLITS", "Box", "Truth", "open_scenes", "scene"]

# Class numbers of the MFNet and MSRS label maps, as far as they are drawn here.
LABELS = {0: "unlabelled", CAR: "car", PERSON: "person", CONE: "colour cone"}
SPLITS = ("train", "val", "test")
SMALLEST = 32


class Box(NamedTuple):
    """Visible extent of a car or person in pixels: columns x0 to x1 - 1, rows y0 to y1 - 1; class number."""

    x0: int
    y0: int
    x1: int
    y1: int
    label: int


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a scene.

    vi, ir: (1, 1, H, W) luminance and infrared in [0, 1] without noise and without fog.
    labels: (H, W) int64, the keys of LABELS. boxes: visible extents of cars and people.
    saliency: (H, W) bool, warm targets (people, and the parts of cars that are clearly warmer than the road).
    """

    vi: Tensor
    ir: Tensor
    labels: Tensor
    boxes: tuple[Box, ...]
    saliency: Tensor


def scene(seed: int, height: int = 240, width: int = 320, condition: str | None = None) -> Pair:
    """The street of a seed as a pair with its truth; vi and ir are (1, 1, height, width) in [0, 1].

    A seed shows the same street in every condition and, at the same aspect ratio, at every size; `condition`
    None draws one of CONDITIONS. Raises UserError on an unknown condition, a seed below 0 or a side below 32.
    """
    _check(seed, height, width, condition)
    if condition is None:
        condition = CONDITIONS[int(np.random.default_rng([seed, 0]).integers(len(CONDITIONS)))]
    return _render(seed, height, width, condition, f"scene-{seed}-{condition}")


def open_scenes(
    n: int,
    seed: int,
    split: str = "test",
    condition: str | None = None,
    height: int = 240,
    width: int = 320,
) -> Pairs:
    """n scenes of a split, drawn when asked for, named like "test-0003-night".

    Conditions take turns where `condition` is None. Splits share no scene. Raises UserError on an unknown
    split or condition, a negative n or seed, or a side below 32 pixels.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if n < 0:
        raise UserError(f"cannot draw {n} scenes: ask for 0 or more")
    _check(seed, height, width, condition)
    names = tuple(f"{split}-{k:04d}-{condition or CONDITIONS[k % len(CONDITIONS)]}" for k in range(n))
    return Pairs("scenes", split, names, partial(_read, seed=seed, height=height, width=width))


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


def _read(name: str, seed: int, height: int, width: int) -> Pair:
    split, number, condition = name.split("-")
    return _render(scene_seed(seed, split, int(number)), height, width, condition, name)


def scene_seed(seed: int, split: str, number: int) -> int:
    """Seed of the scene of a given number: splits take different remainders modulo 3, so they never meet."""
    draw = int(np.random.default_rng([seed, number]).integers(1 << 40))
    return draw * len(SPLITS) + SPLITS.index(split)


def _render(seed: int, height: int, width: int, condition: str, name: str) -> Pair:
    plan = draw_plan(seed)
    weather = draw_weather(plan, condition, seed)
    canvas = Canvas(plan.camera, height, width)
    paint_scene(canvas, plan, weather)
    air, air_ir = through_air(canvas, weather)
    rng = np.random.default_rng([seed, 3, CONDITIONS.index(condition)])
    colour = rgb_to_ycbcr(_tensor(photograph(air, weather, rng).transpose(2, 0, 1)))
    clear = rgb_to_ycbcr(_tensor(photograph(canvas.radiance, weather, None).transpose(2, 0, 1)))
    clear_ir = thermograph(canvas.heat, None)
    warm = (canvas.labels == PERSON) | ((canvas.labels == CAR) & (clear_ir > 0.12 + weather.heat["road"]))
    truth = Truth(
        vi=clear[:, :1],
        ir=_tensor(clear_ir[None]),
        labels=torch.from_numpy(canvas.labels),
        boxes=_boxes(canvas),
        saliency=torch.from_numpy(warm),
    )
    return Pair(name, _tensor(thermograph(air_ir, rng)[None]), colour[:, :1], colour[:, 1:], truth)


def _tensor(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]


def _boxes(canvas: Canvas) -> tuple[Box, ...]:
    """Boxes of the instances that still own pixels; specks of fewer than 8 pixels are left out."""
    boxes = []
    for owner in np.unique(canvas.owner[canvas.owner > 0]):
        rows, columns = np.nonzero(canvas.owner == owner)
        label = int(canvas.labels[rows[0], columns[0]])
        if label in (CAR, PERSON) and rows.size >= 8:
            boxes.append(
                Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1, label)
            )
    return tuple(boxes)

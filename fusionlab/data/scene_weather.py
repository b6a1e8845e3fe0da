"""The four conditions: how bright the sky is, what burns, how warm things look, how thick the air is."""

from dataclasses import dataclass

import numpy as np

from fusionlab.data.scene_light import Beam, Lamp, Light
from fusionlab.data.scene_plan import Car, Plan
from fusionlab.data.textures import Array

CONDITIONS = ("day", "dusk", "night", "fog")

# Infrared radiance of each material as a share of the camera's range, by condition: relative values, set by
# eye from what long-wave cameras show; there are no temperatures behind them.
_MATERIALS = (
    "zenith", "skyline", "road", "walk", "grass", "wall", "pane", "leaf", "wood", "steel", "body", "glass",
    "tyre", "engine", "skin", "cloth", "lamp",
)  # fmt: skip
_HEAT = {
    "day": (
        0.01,
        0.11,
        0.62,
        0.57,
        0.36,
        0.47,
        0.24,
        0.34,
        0.42,
        0.46,
        0.44,
        0.17,
        0.66,
        0.90,
        0.97,
        0.76,
        0.5,
    ),
    "dusk": (
        0.02,
        0.13,
        0.45,
        0.47,
        0.21,
        0.43,
        0.25,
        0.27,
        0.36,
        0.28,
        0.26,
        0.14,
        0.54,
        0.88,
        0.99,
        0.72,
        0.8,
    ),
    "night": (
        0.01,
        0.09,
        0.22,
        0.28,
        0.10,
        0.34,
        0.20,
        0.19,
        0.28,
        0.13,
        0.13,
        0.07,
        0.46,
        0.88,
        0.99,
        0.68,
        0.8,
    ),
    "fog": (
        0.12,
        0.20,
        0.35,
        0.37,
        0.21,
        0.41,
        0.28,
        0.26,
        0.34,
        0.27,
        0.25,
        0.18,
        0.50,
        0.86,
        0.96,
        0.68,
        0.7,
    ),
}


@dataclass(frozen=True)
class Weather:
    """The state of one scene. Radiances are linear; extinctions are per metre; exposure is the grey mean aimed at."""

    condition: str
    light: Light
    zenith: Array
    skyline: Array
    sunglow: Array
    clouds: float
    airlight: Array
    beta: float  # extinction of visible light
    beta_ir: float
    exposure: float
    grain: float  # sensor noise of the visible camera, 1 by day
    windows: float  # radiance of a lit window
    lamps_on: bool
    lamp_glow: Array  # radiance of a street lamp seen directly
    heat: dict[str, float]


def _rgb(*values: float) -> Array:
    return np.array(values, np.float32)


def draw_weather(plan: Plan, condition: str, seed: int) -> Weather:
    """The light and heat of a plan under a condition."""
    rng = np.random.default_rng([seed, 2, CONDITIONS.index(condition)])
    azimuth = rng.uniform(0.35, 1.2) * rng.choice([-1, 1]) + rng.choice([0, np.pi])
    elevation = rng.uniform(0.45, 0.95)
    towards = _rgb(
        np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)
    )
    clouds = float(rng.uniform(0, 1))
    dark = _rgb(0, 0, 0)
    heat = dict(zip(_MATERIALS, _HEAT[condition], strict=True))
    offset, gain = rng.uniform(0.04, 0.09), rng.uniform(1.10, 1.42)
    heat = {name: float(np.clip((value - offset) * gain, 0.01, 1.0)) for name, value in heat.items()}
    tint = (_rgb(1.0, 0.62, 0.28), _rgb(1.0, 0.86, 0.62), _rgb(0.86, 0.97, 1.0))[int(rng.integers(3))]
    lamps_on = condition != "day" and not (condition == "fog" and rng.uniform() < 0.4)
    if condition == "day":
        overcast = clouds > 0.72
        sun = dark if overcast else _rgb(3.1, 2.85, 2.45)
        sky_light = _rgb(0.92, 0.95, 0.98) if overcast else _rgb(0.62, 0.72, 0.90)
        light = Light(sky_light, _rgb(0.30, 0.28, 0.25), sun, towards)
        sky = _rgb(0.20, 0.46, 1.05), _rgb(1.05, 1.20, 1.35), _rgb(0.5, 0.45, 0.35)
        if overcast:
            sky = _rgb(0.80, 0.84, 0.90), _rgb(1.15, 1.17, 1.20), dark
        medium = sky[1] * 0.8, float(rng.uniform(0.0006, 0.0025)), 0.0003
        exposure, grain, windows = float(rng.uniform(0.38, 0.47)), 1.0, 0.12
    elif condition == "dusk":
        light = Light(_rgb(0.21, 0.23, 0.34), _rgb(0.07, 0.06, 0.06), dark, towards)
        warm = _rgb(1.0, 0.55, 0.28) if rng.uniform() < 0.6 else _rgb(0.75, 0.55, 0.60)
        sky = _rgb(0.07, 0.12, 0.30), warm * np.float32(0.62) + _rgb(0.05, 0.08, 0.12), warm * np.float32(0.6)
        medium = _rgb(0.32, 0.28, 0.30), float(rng.uniform(0.001, 0.004)), 0.0004
        exposure, grain, windows = float(rng.uniform(0.29, 0.36)), 2.0, 0.55
    elif condition == "night":
        moon = np.float32(rng.uniform(0.5, 1.3))
        light = Light(_rgb(0.0085, 0.0100, 0.0135) * moon, _rgb(0.004, 0.004, 0.004), dark, towards)
        sky = _rgb(0.0022, 0.0028, 0.0045), _rgb(0.016, 0.013, 0.011) * moon, dark
        medium = _rgb(0.008, 0.008, 0.009), float(rng.uniform(0.001, 0.005)), 0.0004
        exposure, grain, windows = float(rng.uniform(0.145, 0.205)), 5.0, 0.55
    else:
        grey = _rgb(0.62, 0.66, 0.70) * np.float32(rng.uniform(0.5, 1.0))
        light = Light(grey * 1.1, grey * 0.3, dark, towards)
        sky = grey * 0.98, grey, dark
        medium = grey * 0.95, float(rng.uniform(0.018, 0.05)), 0.0014
        exposure, grain, windows = float(rng.uniform(0.44, 0.55)), 1.5, 0.5
        clouds = 0.9
    power = {"day": 0.0, "dusk": 9.0, "night": 7.5, "fog": 9.0}[condition]
    if lamps_on:
        light.lamps += _lamps(plan, tint, power)
        light.lamps += _shop_glow(plan, power)
    if condition != "day":
        light.beams += [_beam(car) for car in plan.cars if car.running]
    return Weather(
        condition, light, *sky, clouds, *medium, exposure, grain, windows, lamps_on, tint * np.float32(6 * lamps_on), heat,
    )  # fmt: skip


def _lamps(plan: Plan, tint: Array, power: float) -> list[Lamp]:
    """The street lamps near enough to matter."""
    return [
        Lamp((post.x + post.arm, post.height - 0.15, post.z), tint * np.float32(power * post.height / 6))
        for post in plan.posts
        if not post.sign and -6 < post.z < 60
    ]


def _shop_glow(plan: Plan, power: float) -> list[Lamp]:
    """Light that lit shop windows throw on the sidewalk, one lamp a shop."""
    lamps = []
    for block in plan.buildings:
        middle = 0.5 * (block.s0 + block.s1)
        x, z = plan.street.to_camera(middle, block.w - np.sign(block.w) * 1.0)
        if block.shop and 2 < z < 40 and block.lit > 0.14:
            lamps.append(Lamp((x, 2.8, z), _rgb(1.0, 0.9, 0.75) * np.float32(0.25 * power), spread=0.0))
    return lamps


def _beam(car: Car) -> Beam:
    """The headlights of a running car."""
    nose = (float(np.cos(car.heading)), float(np.sin(car.heading)))
    position = (car.x + 2.1 * nose[0], 0.68, car.z + 2.1 * nose[1])
    return Beam(position, nose, _rgb(1.0, 0.97, 0.90) * np.float32(26))

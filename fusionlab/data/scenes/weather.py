"""The four conditions: how bright the sky is, what burns, how warm things look, how thick the air is."""

from dataclasses import dataclass

import numpy as np

from fusionlab.data.scenes.light import Beam, Lamp, Light
from fusionlab.data.scenes.plan import Car, Plan
from fusionlab.data.scenes.textures import Array, floats

CONDITIONS = ("day", "dusk", "night", "fog")

# Infrared radiance of each material as a share of the camera's range, by condition: relative values, set by
# eye from what long-wave cameras show; there are no temperatures behind them.
_MATERIALS = (
    "zenith", "skyline", "road", "walk", "grass", "wall", "pane", "leaf", "wood",
    "steel", "body", "glass", "tyre", "engine", "skin", "cloth", "lamp",
)  # fmt: skip
_HEAT = {
    "day": (
        0.01, 0.11, 0.58, 0.54, 0.35, 0.46, 0.24, 0.34, 0.41,
        0.46, 0.44, 0.17, 0.66, 0.90, 0.99, 0.82, 0.50,
    ),
    "dusk": (
        0.02, 0.13, 0.45, 0.47, 0.21, 0.43, 0.25, 0.27, 0.36,
        0.28, 0.26, 0.14, 0.54, 0.88, 0.99, 0.74, 0.80,
    ),
    "night": (
        0.01, 0.09, 0.22, 0.28, 0.10, 0.34, 0.20, 0.19, 0.28,
        0.13, 0.13, 0.07, 0.46, 0.88, 0.99, 0.70, 0.80,
    ),
    "fog": (
        0.12, 0.20, 0.35, 0.37, 0.21, 0.41, 0.28, 0.26, 0.34,
        0.27, 0.25, 0.18, 0.50, 0.86, 0.96, 0.70, 0.70,
    ),
}  # fmt: skip
_BULBS = floats([[1.0, 0.62, 0.28], [1.0, 0.86, 0.62], [0.86, 0.97, 1.0]])  # sodium, warm white, cold white
_DARK = floats([0, 0, 0])


@dataclass
class Weather:
    """State of one scene: linear radiances, extinctions per metre, and how the visible camera is set."""

    light: Light
    zenith: Array
    skyline: Array
    sunglow: Array
    clouds: float  # 0 clear to 1 overcast
    airlight: Array
    beta: float  # extinction of visible light
    beta_ir: float
    exposure: float  # mean grey aimed at
    grain: float  # noise, 1 by day
    flare: float  # share of a highlight that the lens spreads
    windows: float  # radiance of a lit window
    power: float  # intensity of a street lamp 6 m high; 0 where lamps are off
    lamp_glow: Array  # radiance of a street lamp seen directly
    heat: dict[str, float]
    unlit: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, z and radius of a stretch whose lamps are out

    def burns(self, x: float, z: float) -> bool:
        """Whether a lamp at (x, z) is on."""
        return self.lamps_on and float(np.hypot(x - self.unlit[0], z - self.unlit[1])) >= self.unlit[2]

    @property
    def lamps_on(self) -> bool:
        """Whether lamps, windows and headlights burn."""
        return self.power > 0


def draw_weather(plan: Plan, condition: str, seed: int) -> Weather:
    """The light and heat of a plan under a condition."""
    rng = np.random.default_rng([seed, 2, CONDITIONS.index(condition)])
    offset, gain = rng.uniform(0.04, 0.09), rng.uniform(1.10, 1.42)
    heat = {
        name: max(0.01, float((value - offset) * gain))
        for name, value in zip(_MATERIALS, _HEAT[condition], strict=True)
    }
    bulb = _BULBS[rng.integers(len(_BULBS))]
    weather = {"day": _day, "dusk": _dusk, "night": _night, "fog": _fog}[condition](rng, heat)
    if weather.lamps_on:
        weather.lamp_glow = bulb * floats(6)
        if condition == "night" and plan.people:
            weather.unlit = (plan.people[0].x, plan.people[0].z, 15.0)
        weather.light.lamps += _lamps(plan, weather, bulb)
        weather.light.lamps += _shop_glow(plan, weather)
        weather.light.beams += [_beam(car) for car in plan.cars if car.running]
    return weather


def _day(rng: np.random.Generator, heat: dict[str, float]) -> Weather:
    azimuth = rng.uniform(0.35, 1.2) * rng.choice([-1, 1]) + rng.choice([0, np.pi])
    elevation = rng.uniform(0.45, 0.95)
    level = np.cos(elevation)
    towards = floats([np.sin(azimuth) * level, np.sin(elevation), np.cos(azimuth) * level])
    clouds = float(rng.uniform(0, 1))
    if clouds > 0.72:
        light = Light(floats([0.92, 0.95, 0.98]), floats([0.30, 0.28, 0.25]), _DARK, towards)
        zenith, skyline, glow = floats([0.95, 1.0, 1.08]), floats([1.35, 1.37, 1.40]), _DARK
    else:
        light = Light(
            floats([0.66, 0.75, 0.90]), floats([0.34, 0.31, 0.27]), floats([3.1, 2.85, 2.45]), towards
        )
        zenith, skyline, glow = (
            floats([0.26, 0.58, 1.25]), floats([1.25, 1.42, 1.60]), floats([0.6, 0.5, 0.4]),
        )  # fmt: skip
    return Weather(
        light, zenith, skyline, glow, clouds, airlight=0.75 * skyline,
        beta=float(rng.uniform(0.0006, 0.0025)), beta_ir=0.0003, exposure=float(rng.uniform(0.41, 0.50)),
        grain=1.0, flare=0.9, windows=0.0, power=0.0,
        lamp_glow=_DARK, heat=heat,
    )  # fmt: skip


def _dusk(rng: np.random.Generator, heat: dict[str, float]) -> Weather:
    west = floats([rng.uniform(-0.6, 0.6), 0.1, 1.0])
    light = Light(floats([0.22, 0.235, 0.32]), floats([0.07, 0.06, 0.06]), _DARK, west)
    warm = floats([1.0, 0.55, 0.28] if rng.uniform() < 0.6 else [0.80, 0.56, 0.56])
    return Weather(
        light, zenith=floats([0.08, 0.13, 0.30]), skyline=0.62 * warm + floats([0.05, 0.08, 0.12]),
        sunglow=0.7 * warm, clouds=float(rng.uniform(0, 0.8)), airlight=floats([0.32, 0.28, 0.30]),
        beta=float(rng.uniform(0.001, 0.004)), beta_ir=0.0004, exposure=float(rng.uniform(0.29, 0.37)),
        grain=2.0, flare=1.6, windows=0.55, power=9.0, lamp_glow=_DARK, heat=heat,
    )  # fmt: skip


def _night(rng: np.random.Generator, heat: dict[str, float]) -> Weather:
    moon = float(rng.uniform(0.5, 1.3))
    light = Light(moon * floats([0.0085, 0.0100, 0.0135]), floats([0.004, 0.004, 0.004]), _DARK, _DARK)
    return Weather(
        light, zenith=floats([0.0022, 0.0028, 0.0045]), skyline=moon * floats([0.016, 0.013, 0.011]),
        sunglow=_DARK, clouds=float(rng.uniform(0, 1)), airlight=floats([0.008, 0.008, 0.009]),
        beta=float(rng.uniform(0.001, 0.005)), beta_ir=0.0004, exposure=float(rng.uniform(0.12, 0.19)),
        grain=5.0, flare=1.6, windows=0.55, power=7.5, lamp_glow=_DARK, heat=heat,
    )  # fmt: skip


def _fog(rng: np.random.Generator, heat: dict[str, float]) -> Weather:
    grey = float(rng.uniform(0.5, 1.0)) * floats([0.62, 0.66, 0.70])
    light = Light(1.1 * grey, 0.3 * grey, _DARK, _DARK)
    return Weather(
        light, zenith=0.98 * grey, skyline=grey, sunglow=_DARK, clouds=0.9, airlight=0.95 * grey,
        beta=float(rng.uniform(0.016, 0.045)), beta_ir=0.0014, exposure=float(rng.uniform(0.43, 0.54)),
        grain=1.5, flare=1.6, windows=0.5,
        power=9.0 if rng.uniform() < 0.65 else 0.0, lamp_glow=_DARK, heat=heat,
    )  # fmt: skip


def _lamps(plan: Plan, weather: Weather, bulb: Array) -> list[Lamp]:
    """The street lamps near enough to matter."""
    return [
        Lamp((post.x + post.arm, post.height - 0.15, post.z), bulb * floats(weather.power * post.height / 6))
        for post in plan.posts
        if not post.sign and -6 < post.z < 60 and weather.burns(post.x, post.z)
    ]


def _shop_glow(plan: Plan, weather: Weather) -> list[Lamp]:
    """Light that lit shop windows throw on the sidewalk, one lamp a shop."""
    lamps = []
    for block in plan.buildings:
        x, z = plan.street.to_camera(0.5 * (block.s0 + block.s1), block.w - np.sign(block.w))
        if block.shop and 2 < z < 40 and block.lit > 0.14 and weather.burns(x, z):
            lamps.append(
                Lamp((x, 2.8, z), floats([1.0, 0.9, 0.75]) * floats(0.25 * weather.power), spread=0.0)
            )
    return lamps


def _beam(car: Car) -> Beam:
    """The headlights of a running car."""
    nose = (float(np.cos(car.heading)), float(np.sin(car.heading)))
    return Beam((car.x + 2.1 * nose[0], 0.68, car.z + 2.1 * nose[1]), nose, floats([26, 25.2, 23.4]))

"""The four conditions, or any hour: light of the sky, what burns, how warm things are, how thick the air."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from fusionlab.scenes.light import Beam, Lamp, Light
from fusionlab.scenes.materials import MATERIALS, RANGES, band_radiance, surface_radiance
from fusionlab.scenes.plan import Car, Plan
from fusionlab.scenes.settings import DEFAULTS, Settings
from fusionlab.scenes.textures import Array, floats

CONDITIONS = ("day", "dusk", "night", "fog")

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
    heat: dict[str, float]  # infrared radiance of each material, 0 to 1 over the camera's range
    smoke: float = 0.0  # extinction of visible light per metre in a bank of smoke
    warmed: dict[str, dict[str, float]] = field(default_factory=dict)  # heat of objects set by name
    unlit: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, z and radius of a stretch whose lamps are out

    dark: bool = False  # night, when a stretch of lamps is out

    def burns(self, x: float, z: float) -> bool:
        """Whether a lamp at (x, z) is on."""
        return self.lamps_on and float(np.hypot(x - self.unlit[0], z - self.unlit[1])) >= self.unlit[2]

    def heat_of(self, name: str) -> dict[str, float]:
        """Infrared radiance of the materials of one object, such as "car 0"."""
        return self.warmed.get(name, self.heat)

    @property
    def lamps_on(self) -> bool:
        """Whether lamps, windows and headlights burn."""
        return self.power > 0


def draw_weather(plan: Plan, condition: str, seed: int, settings: Settings = DEFAULTS) -> Weather:
    """The light and heat of a plan under a condition; the hour of the settings, if any, overrules it."""
    rng = np.random.default_rng([seed, 2, CONDITIONS.index(condition)])
    offset, gain = rng.uniform(0.04, 0.09), rng.uniform(1.10, 1.42)
    bulb = _BULBS[rng.integers(len(_BULBS))]
    if settings.hour is None:
        weather, celsius, span = _DRAW[condition](rng), _celsius(condition), RANGES[condition]
    else:
        weather, celsius, span = _at_hour(rng, settings.hour)
    low, high = (float(band_radiance(t)) for t in span)

    def heat(own: dict[str, float]) -> dict[str, float]:
        shares = {name: (value - low) / (high - low) for name, value in surface_radiance(own).items()}
        return {name: max(0.01, (share - offset) * gain) for name, share in shares.items()}

    celsius |= {name: t for name, t in settings.temperatures.items() if name in MATERIALS}
    weather.heat = heat(celsius)
    sky = {name: celsius[name] for name in ("zenith", "skyline")}
    weather.warmed = {
        name: heat(dict.fromkeys(MATERIALS, t) | sky)
        for name, t in settings.temperatures.items()
        if name not in MATERIALS
    }
    if settings.fog is not None:
        _fill_with_fog(weather, settings.fog)
    weather.smoke = settings.smoke
    if settings.case == "glare":
        weather.flare *= 3.5  # a lens in need of cleaning
    if weather.lamps_on:
        weather.lamp_glow = bulb * floats(6)
        if weather.dark and plan.people and settings.case != "glare":
            weather.unlit = (plan.people[0].x, plan.people[0].z, 15.0)
        weather.light.lamps += _lamps(plan, weather, bulb)
        weather.light.lamps += _shop_glow(plan, weather)
        weather.light.beams += [_beam(car) for car in plan.cars if car.running]
    return weather


def _celsius(condition: str) -> dict[str, float]:
    return {name: float(getattr(material, condition)) for name, material in MATERIALS.items()}


def sun_elevation(hour: float) -> float:
    """Height of the sun in radians at a local hour of an equinox day at 35 degrees of latitude."""
    return float(np.arcsin(np.cos(np.radians(35)) * np.sin(np.pi * (hour - 6) / 12)))


def hour_condition(hour: float) -> str:
    """The condition that an hour is nearest to: "day", "dusk" or "night"."""
    height = sun_elevation(hour)
    return "day" if height > 0.14 else "dusk" if height > -0.12 else "night"


def _at_hour(rng: np.random.Generator, hour: float) -> tuple[Weather, dict[str, float], tuple[float, float]]:
    """Weather, temperatures and range of an hour, between those of night, dusk and day.

    Light follows the height of the sun, with a sun that reddens as it sinks; temperatures follow the sun of
    an hour and a half before, as ground and walls do.
    """
    night, dusk, day = (_DRAW[name](rng) for name in ("night", "dusk", "day"))
    height = sun_elevation(hour)
    turn = np.radians(15 * (hour - 12))
    x, _, z = day.light.towards.tolist()
    level = np.cos(max(height, 0.05)) / max(float(np.hypot(x, z)), 1e-3)
    east, north = np.cos(turn) * x - np.sin(turn) * z, np.sin(turn) * x + np.cos(turn) * z
    towards = floats([level * east, np.sin(max(height, 0.05)), level * north])
    path = 1 / max(np.sin(height), 0.04)
    sun = (
        day.light.sun * np.exp(-floats([0.06, 0.11, 0.22]) * (path - 1)) * float(np.clip(height / 0.05, 0, 1))
    )
    day.light = replace(day.light, sun=floats(sun), towards=towards)
    after = sun_elevation(hour - 1.5)
    celsius = {
        name: float(np.interp(after, _HEIGHTS, (material.night, material.dusk, material.day)))
        for name, material in MATERIALS.items()
    }
    span = [np.interp(after, _HEIGHTS, [RANGES[c][k] for c in ("night", "dusk", "day")]) for k in (0, 1)]
    darker, brighter, share = (
        (dusk, day, height / _HEIGHTS[2]) if height > 0 else (night, dusk, 1 - height / _HEIGHTS[0])
    )
    weather = _between(darker, brighter, float(np.clip(share, 0, 1)))
    weather.light = replace(weather.light, sun=day.light.sun, towards=towards)
    weather.power = 8.0 if height < 0.06 else 0.0
    weather.dark = height <= -0.12
    return weather, celsius, (float(span[0]), float(span[1]))


_HEIGHTS = (-0.25, 0.0, 0.3)  # of the sun, at which night, dusk and day are as their tables say


def _between(first: Weather, second: Weather, share: float) -> Weather:
    """Weather on the way from the first to the second; light goes in equal ratios."""

    def mean(a: Any, b: Any) -> Any:
        if isinstance(a, np.ndarray):
            return floats(np.exp((1 - share) * np.log(a + 1e-4) + share * np.log(b + 1e-4)) - 1e-4)
        return (1 - share) * a + share * b

    middle = {
        f.name: mean(getattr(first, f.name), getattr(second, f.name))
        for f in fields(Weather)
        if isinstance(getattr(first, f.name), (np.ndarray, float))
    }
    light = {
        name: mean(getattr(first.light, name), getattr(second.light, name)) for name in ("sky", "bounce")
    }
    return replace(first, **middle, light=replace(first.light, **light))


def _fill_with_fog(weather: Weather, beta: float) -> None:
    """Sets the extinction; droplets hold back a twentieth as much of the infrared, and soften the sun."""
    weather.beta, weather.beta_ir = beta, 0.0003 + 0.04 * beta
    lost = 1 - np.exp(-60 * beta)
    weather.light.sky = weather.light.sky + floats(0.3 * lost * weather.light.towards[1]) * weather.light.sun
    weather.light.sun = weather.light.sun * floats(1 - lost) if lost < 0.95 else 0 * weather.light.sun
    weather.grain += 0.5 * lost


def _day(rng: np.random.Generator) -> Weather:
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
        lamp_glow=_DARK, heat={},
    )  # fmt: skip


def _dusk(rng: np.random.Generator) -> Weather:
    west = floats([rng.uniform(-0.6, 0.6), 0.1, 1.0])
    light = Light(floats([0.22, 0.235, 0.32]), floats([0.07, 0.06, 0.06]), _DARK, west)
    warm = floats([1.0, 0.55, 0.28] if rng.uniform() < 0.6 else [0.80, 0.56, 0.56])
    return Weather(
        light, zenith=floats([0.08, 0.13, 0.30]), skyline=0.62 * warm + floats([0.05, 0.08, 0.12]),
        sunglow=0.7 * warm, clouds=float(rng.uniform(0, 0.8)), airlight=floats([0.32, 0.28, 0.30]),
        beta=float(rng.uniform(0.001, 0.004)), beta_ir=0.0004, exposure=float(rng.uniform(0.29, 0.37)),
        grain=2.0, flare=1.6, windows=0.55, power=9.0, lamp_glow=_DARK, heat={},
    )  # fmt: skip


def _night(rng: np.random.Generator) -> Weather:
    moon = float(rng.uniform(0.5, 1.3))
    light = Light(moon * floats([0.0085, 0.0100, 0.0135]), floats([0.004, 0.004, 0.004]), _DARK, _DARK)
    return Weather(
        light, zenith=floats([0.0022, 0.0028, 0.0045]), skyline=moon * floats([0.016, 0.013, 0.011]),
        sunglow=_DARK, clouds=float(rng.uniform(0, 1)), airlight=floats([0.008, 0.008, 0.009]),
        beta=float(rng.uniform(0.001, 0.005)), beta_ir=0.0004, exposure=float(rng.uniform(0.12, 0.19)),
        grain=5.0, dark=True, flare=1.6, windows=0.55, power=7.5, lamp_glow=_DARK, heat={},
    )  # fmt: skip


def _fog(rng: np.random.Generator) -> Weather:
    grey = float(rng.uniform(0.5, 1.0)) * floats([0.62, 0.66, 0.70])
    light = Light(1.1 * grey, 0.3 * grey, _DARK, _DARK)
    return Weather(
        light, zenith=0.98 * grey, skyline=grey, sunglow=_DARK, clouds=0.9, airlight=0.95 * grey,
        beta=float(rng.uniform(0.016, 0.045)), beta_ir=0.0014, exposure=float(rng.uniform(0.43, 0.54)),
        grain=1.5, flare=1.6, windows=0.5,
        power=9.0 if rng.uniform() < 0.65 else 0.0, lamp_glow=_DARK, heat={},
    )  # fmt: skip


_DRAW = {"day": _day, "dusk": _dusk, "night": _night, "fog": _fog}


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
    colour = floats([26, 25.2, 23.4]) * floats(3 if car.full_beam else 1)
    return Beam((car.x + 2.1 * nose[0], 0.68, car.z + 2.1 * nose[1]), nose, colour)

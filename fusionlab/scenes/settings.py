"""What a reader may choose about a scene besides its seed, size and condition."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fusionlab.errors import UserError
from fusionlab.scenes.materials import MATERIALS

POLARITIES = ("white-hot", "black-hot")
GAINS = ("fixed", "linear", "plateau")
# Things that one of the two cameras cannot see, put into the middle of the street.
CASES = ("camouflage", "sign", "windscreen", "parked car", "glare")
_OBJECT = re.compile(r"(car|person) \d+")


@dataclass(frozen=True)
class Settings:
    """Choices that leave the street as it is; the defaults change nothing.

    polarity: "white-hot", or "black-hot" where warm is dark.
    gain: how infrared radiance becomes 8 bits. "fixed" is a range of temperatures set by hand with a soft
    shoulder, "linear" stretches each picture between its 0.5 and 99.5 percentile, "plateau" equalises its
    histogram with counts limited to a plateau.
    hour: local time, 0 to 24, in place of day, dusk and night: sun, sky, lamps and temperatures follow it.
    fog: extinction of visible light per metre, in place of the drawn one; 0 is clear, 0.03 a dense fog.
    smoke: extinction per metre at the heart of a bank of smoke 3 m deep; 1 hides what is behind it.
    temperatures: degrees Celsius by name, either of a material (the keys of MATERIALS) or of one object
    ("car 0", "person 2": the names that Truth.names gives to its boxes), which then has it all over.
    case: one of CASES, things that one camera alone can see, or None; "glare" needs lamps (dusk or night) and
    "sign" light (not night), and "windscreen" shows its driver by day.
    shift: (rows, columns) by which the infrared picture is displaced down and right, at most 32 pixels each.
    Raises UserError on values outside these.
    """

    polarity: str = "white-hot"
    gain: str = "fixed"
    hour: float | None = None
    fog: float | None = None
    smoke: float = 0.0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    case: str | None = None
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for what, value, known in (
            ("polarity", self.polarity, POLARITIES),
            ("gain", self.gain, GAINS),
            ("case", self.case, (*CASES, None)),
        ):
            if value not in known:
                names = ", ".join(str(name) for name in known)
                raise UserError(f"unknown {what} {value!r} of a scene: choose one of {names}")
        for what, number, low, high in (
            ("hour", self.hour or 0.0, 0, 24),
            ("fog", self.fog or 0.0, 0, 1),
            ("smoke", self.smoke, 0, 10),
            *(("shift", step, -32, 32) for step in self.shift),
            *((f"temperature of {name}", celsius, -60, 200) for name, celsius in self.temperatures.items()),
        ):
            if not low <= number <= high:
                raise UserError(f"the {what} of a scene is {number}: it must lie between {low} and {high}")
        for name in self.temperatures:
            if name not in MATERIALS and not _OBJECT.fullmatch(name):
                raise UserError(
                    f"nothing in a scene is called {name!r}: name a material ({', '.join(MATERIALS)}) "
                    "or an object such as 'car 0' or 'person 2'"
                )


DEFAULTS = Settings()

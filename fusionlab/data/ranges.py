"""From a sensor's values to [0, 1]: one range for all images of a role, found by a named rule.

An 8-bit image is a picture already. What a thermal camera stores is a measurement (14-bit counts, hundredths
of a kelvin, degrees) of which one scene fills a sliver: divided by 65535, a street would keep a dozen grey
levels. A range of its own for every image would let a wall change its grey from frame to frame; so the range
is that of the whole folder or sequence.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from fusionlab.data.imagefile import READABLE, read_bytes
from fusionlab.data.pair import GREATEST, Kind, Raw, Scale, decode_raw, full
from fusionlab.errors import UserError
from fusionlab.paths import open_regular

# "auto": the robust range of all images; "full": that of the file type; (low, high): the values that become 0
# and 1; None: "auto" where the values are a sensor's, else "full".
Rule = str | tuple[float, float] | None

TAIL = 0.001  # the share of the values that may lie below, and above, a robust range
USED = 0.5  # 16-bit images whose robust range is narrower than this share of 0..65535 do not use their range


@dataclass(frozen=True)
class Range:
    """The values `low` and `high` become 0 and 1, what lies beyond is clipped. It is a Scale for read_image.

    kind: files of other kinds keep their full range; None is a range somebody gave, which holds for all
    files. Such a range raises UserError where an image has no value inside.
    """

    low: float
    high: float
    kind: Kind | None = None

    def __call__(self, raw: Raw) -> NDArray[np.float32]:
        if self.kind not in (None, raw.kind):
            return full(raw)
        least, most = raw.values.min(), raw.values.max()
        if self.kind is None and least < most and (most <= self.low or least >= self.high):
            raise UserError(
                f"{raw.path} has values from {least:g} to {most:g}, all outside the range {self.low:g} to "
                f"{self.high:g}; give the range in the units of the file, or auto"
            )
        low, high = np.float32(self.low), np.float32(self.high)
        return ((raw.values - low) / (high - low)).clip(0, 1)

    def __str__(self) -> str:
        return f"{self.low:.9g} to {self.high:.9g} become 0 to 1"


def check_rule(rule: str | Sequence[float] | None, role: str) -> Rule:
    """A rule as find_range takes it: "20,45" and [20, 45] are (20.0, 45.0); raises UserError for others."""
    if rule is None or rule in ("auto", "full"):
        return rule
    try:
        low, high = (float(part) for part in (rule.split(",") if isinstance(rule, str) else rule))
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(
            f"{rule!r} is no range of {role}; give auto, full or two increasing numbers LOW,HIGH in the "
            "units of the files, such as 20,45"
        )
    return low, high


def find_range(role: str, files: Sequence[Path], rule: Rule = None) -> tuple[Scale, list[str]]:
    """How the files of a role are scaled, and a line or two that say so; nothing is said of 8-bit pictures.

    role: "infrared" or "visible"; files: all images of the folder or sequence; rule: as check_rule gives it.
    By default (None) single-channel 16-bit images take the range that 99.8 % of their values have, unless
    that is half of 0..65535 or more, and float images do where values lie outside [0, 1]; all others the full
    range of their type. Only images that may be a sensor's are read for this, one at a time; those that
    cannot be read are passed over. Raises UserError where counts and temperatures are mixed.
    """
    if isinstance(rule, tuple):
        return Range(*rule), [_line(role, Range(*rule), "as given")]
    if rule == "full":
        return full, [f"{role}: the full range of each file becomes 0 to 1 (as given)"]
    headers = [header for header in map(_header, files) if header]
    scales: list[Range] = []
    notes: list[str] = []
    for kind in GREATEST:
        chosen = [header for header in headers if header.kind == kind]
        if not chosen or (kind == "8-bit" and rule is None):
            continue
        values = _Values(role, chosen)
        if values.count and (rule == "auto" or values.are_a_sensors(kind)):
            scales.append(Range(*values.range(role), kind))
            notes.append(_line(role, scales[-1], f"auto: 0.1 to 99.9 % of the values of {values.images}"))
        elif values.count and kind == "16-bit":
            low, high = values.robust()
            why = "whose range is used" if low < high else f"whose values are all {low:g}"
            notes.append(_line(role, Range(0, 65535), f"full: {values.images} of 16 bits, {why}"))
        if values.exchanged * 2 > values.count:
            notes.append(
                f"{role}: {values.images} of 16 bits look byte-swapped, as some cameras store counts: with "
                "low and high byte exchanged, neighbouring pixels agree far better; save them anew with "
                "numpy's byteswap()"
            )
    if len(scales) > 1:
        mixed = " and ".join(str(scale.kind) for scale in scales)
        raise UserError(f"{role}: {mixed} values in one folder have no range in common; sort them by kind")
    if rule is None:
        notes += _halved(role, [header for header in headers if header.kind == "upper half"])
    return scales[0] if scales else full, notes


def _line(role: str, scale: Range, why: str) -> str:
    return f"{role}: {scale} ({why}); the same in fuse and evaluate"


class _Values:
    """What the values of some images have in common: the least and the greatest, as many as TAIL asks for."""

    def __init__(self, role: str, headers: list["_Header"]) -> None:
        self.count = self.pixels = self.exchanged = 0
        self.least = self.most = np.empty(0, np.float32)
        # Enough for the tails of all: what is read later can only push values out again.
        keep = 1 + int(TAIL * sum(header.values for header in headers))
        for raw in _read(role, [header.file for header in headers]):
            self.count += 1
            self.pixels += raw.values.size
            self.exchanged += raw.kind == "16-bit" and _exchanged(raw.values)
            self.least = _first(np.concatenate([self.least, raw.values.ravel()]), keep)
            self.most = -_first(np.concatenate([-self.most, -raw.values.ravel()]), keep)

    @property
    def images(self) -> str:
        return f"{self.count} image{'s' * (self.count != 1)}"

    def robust(self) -> tuple[float, float]:
        tail = int(TAIL * self.pixels)
        low, high = float(np.sort(self.least)[tail]), float(np.sort(self.most)[-1 - tail])
        return (low, high) if low < high else (float(self.least.min()), float(self.most.max()))

    def are_a_sensors(self, kind: Kind) -> bool:
        low, high = self.robust()
        if kind == "float":
            return bool(self.least.min() < 0 or self.most.max() > 1)
        return low < high and high - low < USED * GREATEST[kind]

    def range(self, role: str) -> tuple[float, float]:
        low, high = self.robust()
        if low == high:
            raise UserError(f"{role}: all values are {low:g}, which have no range; give one as LOW,HIGH")
        # As many digits as are shown, so that giving the range shown is the same.
        shown = float(f"{low:.7g}"), float(f"{high:.7g}")
        return shown if shown[0] < shown[1] else (low, high)


def _first(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    return np.partition(values, count - 1)[:count] if len(values) > count else values


def _read(role: str, files: list[Path]) -> Iterator[Raw]:
    """Those that can be read; whoever works on the others names them."""
    for file in tqdm(files, f"range of {role}", unit="image", disable=len(files) == 1, leave=False):
        try:
            yield decode_raw(read_bytes(file), file)
        except (UserError, MemoryError):
            continue


def _exchanged(values: NDArray[np.float32]) -> bool:
    """Whether neighbours agree more than twice as well once the bytes of each 16-bit value change places."""
    counts = values[:1024, :1024].astype(np.uint16)
    return _roughness(counts) > 2 * _roughness(counts.byteswap())


def _roughness(counts: NDArray[np.uint16]) -> float:
    """How far neighbours differ, in standard deviations; about 1.1 for noise, .1 for a picture, 0 if flat."""
    deviation = float(counts.std())
    if counts.shape[1] < 2 or deviation == 0:
        return 0
    return float(np.abs(np.diff(counts.astype(np.float32), axis=1)).mean()) / deviation


def _halved(role: str, headers: list["_Header"]) -> list[str]:
    """What is lost where 16-bit values in several channels are read with their upper 8 bits."""
    if not headers:
        return []
    values = _Values(role, headers)
    if not values.count or not values.are_a_sensors("8-bit"):
        return []
    low, high = values.robust()
    return [
        f"{role}: {values.images} with 16 bits in each of several channels are read with their upper 8 bits, "
        f"of which they use {high - low + 1:.0f} of 256 levels; save the values with one channel"
    ]


class _Header(NamedTuple):
    """What is known of a file before it is decoded; the kind "upper half" is that of 16-bit colour.

    values: how many it has at most.
    """

    file: Path
    kind: str
    values: int


def _header(file: Path) -> _Header | None:
    """None where not even the header can be read; whoever reads the file says why."""
    try:
        with warnings.catch_warnings(), open_regular(file) as stream:
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=sorted(set(READABLE.values()))) as image:
                return _Header(file, _kind(image), 3 * math.prod(image.size))
    # As in decode_image: Pillow raises almost any exception on damaged bytes.
    except Exception:
        return None


def _kind(image: Image.Image) -> str:
    if image.mode == "F":
        return "float"
    if image.mode.startswith("I;16"):
        return "16-bit"
    stored: list[tuple[object, ...]] = getattr(image, "tile", [])  # how Pillow is about to decode it
    return "upper half" if any(";16" in str(tile[-1]) for tile in stored) else "8-bit"

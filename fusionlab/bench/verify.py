"""Promoted records computed again: does this machine confirm them?"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.data import name_of
from fusionlab.errors import UserError
from fusionlab.paths import asset
from fusionlab.targets import TRAINING, reproduce

# Relative or absolute. Another processor rounds otherwise, which can move single pixels by one grey level.
TOLERANCE = 1e-3
TIMES = ("s", "ms")


@dataclass(frozen=True)
class Verdict:
    """One promoted record beside what was computed now, in a line."""

    text: str
    confirmed: bool


def find_promoted(target: str, row: str | None, profile: str, data: str, seed: int | None) -> list[Record]:
    """The promoted records of a target; None or "auto" leaves row, profile, data or seed open.

    Measured times are left out, since no machine repeats them. Raises UserError where no record fits.
    """
    path = asset("figures") / target.split("/")[0] / "records.csv"
    promoted = [
        record
        for record in (records.read(path) if path.exists() else [])
        if record.target == target
        and row in (None, record.row)
        and profile in ("auto", record.profile)
        and (data == "auto" or name_of(data) == record.data)
        and seed in (None, record.seed)
        and record.unit not in TIMES
    ]
    if not promoted:
        raise UserError(
            f"no such record of {target} is promoted; run the target, then `fusionlab promote RUN`"
        )
    return promoted


def recompute(promoted: Sequence[Record], row: str | None, data: str, run: Path) -> list[Verdict]:
    """Runs the target of promoted records once for each profile, data and seed among them, and compares.

    `row` and `data` are handed to the target as the user gave them; data "auto" is that of the record.
    """
    fresh: dict[tuple[str, ...], Record] = {}
    settings = [(record.target, record.profile, record.data, record.seed) for record in promoted]
    for target, profile, recorded, seed in dict.fromkeys(settings):
        source = recorded if data == "auto" and recorded != "none" else data
        for record in reproduce(target, row, profile, source, seed, run):
            fresh[_identity(record)] = record
    return [_verdict(old, fresh.get(_identity(old))) for old in promoted]


def _identity(record: Record) -> tuple[str, ...]:
    """The key but for device and weights: a number must hold on whatever device, and weights are compared."""
    return dataclasses.replace(record, device="", weights="").key


def _verdict(old: Record, new: Record | None) -> Verdict:
    text = f"{old.row} {old.metric} ({old.profile}, {old.data}, seed {old.seed}): promoted {old.value:.6g}"
    if new is None:
        return Verdict(f"{text}, NOT RECOMPUTED: nothing of this key came out", False)
    # Another processor or thread count trains other weights, which must still reach the number.
    if old.target not in TRAINING and old.weights != new.weights:
        return Verdict(f"{text}, OTHER WEIGHTS: {old.weights[:12]} then, {new.weights[:12]} now", False)
    for field in ("n", "unit"):
        then, now = getattr(old, field), getattr(new, field)
        if then != now:
            return Verdict(f"{text}, OTHER {field.upper()}: {then!r} then, {now!r} now", False)
    if old.value.is_integer() and new.value.is_integer():
        confirmed = old.value == new.value  # counts, of parameters say, leave no room
    else:
        confirmed = math.isclose(old.value, new.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return Verdict(f"{text}, now {new.value:.6g}, {'confirmed' if confirmed else 'DIFFERS'}", confirmed)

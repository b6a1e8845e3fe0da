"""Promoted records computed again: does this machine confirm them?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.bench.table import Table, run_table
from fusionlab.data import name_of
from fusionlab.errors import UserError
from fusionlab.paths import asset

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
    folder = asset("figures") / target.split("/")[0]
    promoted = [
        record
        for record in (records.read(folder) if (folder / "records.csv").exists() else [])
        if record.target == target
        and row in (None, record.row)
        and profile in ("auto", record.run.profile)
        and (data == "auto" or name_of(data) == record.data)
        and seed in (None, record.seed)
        and record.unit not in TIMES
    ]
    if not promoted:
        raise UserError(
            f"no such record of {target} is promoted; run the target, then `fusionlab promote RUN`"
        )
    return promoted


def recompute(
    tables: Mapping[str, Table], promoted: Sequence[Record], row: str | None, data: str, folder: Path
) -> list[Verdict]:
    """Measures the tables of promoted records once for each profile, data and seed among them, and compares.

    `row` and `data` are handed to the table as the user gave them; data "auto" is that of the record.
    """
    fresh: dict[tuple[str, ...], Record] = {}
    settings = [(record.target, record.run.profile, record.data, record.seed) for record in promoted]
    for target, profile, recorded, seed in dict.fromkeys(settings):
        source = recorded if data == "auto" and recorded != "none" else data
        for record in run_table(tables[target], target, folder, row, profile, source, [seed]):
            fresh[record.key] = record
    return [_verdict(old, fresh.get(old.key), tables[old.target].trains) for old in promoted]


def _verdict(old: Record, new: Record | None, trains: bool) -> Verdict:
    text = (
        f"{old.row} {old.metric} ({old.run.profile}, {old.data}, seed {old.seed}): promoted {old.value:.6g}"
    )
    if new is None:
        return Verdict(f"{text}, NOT RECOMPUTED: nothing of this key came out", False)
    # Another processor or thread count trains other weights, which must still reach the number.
    if not trains and old.weights != new.weights:
        return Verdict(f"{text}, OTHER WEIGHTS: {old.weights[:12]} then, {new.weights[:12]} now", False)
    for name in ("n", "unit"):
        then, now = getattr(old, name), getattr(new, name)
        if then != now:
            return Verdict(f"{text}, OTHER {name.upper()}: {then!r} then, {now!r} now", False)
    if old.value.is_integer() and new.value.is_integer():
        confirmed = old.value == new.value  # counts, of parameters say, leave no room
    else:
        confirmed = math.isclose(old.value, new.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return Verdict(f"{text}, now {new.value:.6g}, {'confirmed' if confirmed else 'DIFFERS'}", confirmed)

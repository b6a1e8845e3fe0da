"""Records: one measured number a row, and beside them one row a run that says where they come from.

A folder of records holds `runs.csv` (what all numbers of a run share) and `records.csv` (the numbers).
"""

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusionlab.errors import UserError

HASH = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Stamp:
    """What all numbers of one run share, known before its first; a row of `runs.csv`."""

    run: str
    commit: str
    versions: str
    device: str
    profile: str
    date: str
    command: str


@dataclass(frozen=True)
class Record:
    """One number; a row of `records.csv`, in which `run` is the stamp's number.

    n: "42", or "25 of 42" where the set is partial, "0" without images. weights: "none" or a sha256. error:
    the standard error of a mean over n images, None where there is none.
    """

    run: Stamp
    target: str
    row: str
    metric: str
    convention: str
    data: str
    split: str
    n: str
    seed: int
    weights: str
    value: float
    error: float | None
    unit: str
    note: str

    @property
    def key(self) -> tuple[str, ...]:
        """What two measurements of the same number have in common, whoever made them with what profile."""
        return (*self.block, self.row, self.metric, self.convention, str(self.seed))

    @property
    def block(self) -> tuple[str, str, str]:
        """What is promoted together: target, data and split."""
        return self.target, self.data, self.split


STAMP_FIELDS = tuple(field.name for field in fields(Stamp))
FIELDS = tuple(field.name for field in fields(Record))


def read(folder: Path) -> list[Record]:
    """The records of a folder, in order; raises UserError with the line that cannot be read."""
    file = folder / "records.csv"
    stamps = {stamp.run: stamp for stamp in read_stamps(folder)}
    return [_record(row, stamps, file, line) for line, row in enumerate(_rows(file, FIELDS), start=1)]


def read_stamps(folder: Path) -> list[Stamp]:
    """The runs behind a folder's records, in order; none where there is no `runs.csv` yet."""
    file = folder / "runs.csv"
    return [Stamp(**row) for row in _rows(file, STAMP_FIELDS)] if file.exists() else []


def append(folder: Path, record: Record) -> None:
    """Adds a record to a folder, and its run where this is the first of it.

    Each file grows by one write of whole rows, the run first, so that an interrupt leaves nothing half.
    """
    there = read_stamps(folder)
    if record.run not in there:
        if record.run.run in {stamp.run for stamp in there}:
            raise UserError(f"{folder} has another run called {record.run.run}; begin a new one")
        _append(folder / "runs.csv", STAMP_FIELDS, astuple(record.run))
    _append(folder / "records.csv", FIELDS, _cells(record))


def write(folder: Path, records: Iterable[Record]) -> None:
    """Replaces the records of a folder, sorted by what they measure, and its runs by those that remain."""
    ordered = sorted(records, key=lambda r: (r.target, r.row, r.metric, r.convention, *r.key[1:3], r.key[-1]))
    stamps = sorted({record.run for record in ordered}, key=lambda stamp: stamp.run)
    if twice := [a.run for a, b in pairwise(stamps) if a.run == b.run]:
        raise UserError(f"two runs are called {twice[0]}; rename the folder of one and run again")
    texts = {
        "runs.csv": _text([STAMP_FIELDS, *map(astuple, stamps)]),
        "records.csv": _text([FIELDS, *map(_cells, ordered)]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        draft = folder / f"{name}.part"
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder / name)


def lint(records: Iterable[Record]) -> list[str]:
    """What keeps a record from being trusted, one sentence a fault; an empty list means all are sound."""
    faults = []
    for record in records:
        name = f"{record.target} {record.row} {record.metric}"
        if not re.fullmatch(r"\w[\w-]*/\w[\w-]*", record.target):
            faults.append(f"{name}: the target is not of the form paper/table")
        faults += [f"{name}: no {field}" for field in ("row", "metric", "data") if not getattr(record, field)]
        faults += [f"{name}: no {field}" for field in STAMP_FIELDS if not getattr(record.run, field)]
        if record.weights != "none" and not HASH.fullmatch(record.weights):
            faults.append(f"{name}: weights must be none or a sha256 of 12 digits or more")
        if not math.isfinite(record.value):
            faults.append(f"{name}: the value is {record.value}")
        if record.error is not None and not (math.isfinite(record.error) and record.error >= 0):
            faults.append(f"{name}: the standard error is {record.error}")
    return faults


def _append(file: Path, columns: Sequence[str], cells: Sequence[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    begun = file.exists() and file.stat().st_size > 0
    if begun:
        _check_columns(file, columns)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, _text([cells] if begun else [columns, cells]).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _cells(record: Record) -> list[Any]:
    # repr keeps every digit of a float, str of a numpy scalar might not.
    own = {
        "run": record.run.run,
        "value": repr(float(record.value)),
        "error": "" if record.error is None else repr(float(record.error)),
    }
    return [own[name] if name in own else getattr(record, name) for name in FIELDS]


def _text(lines: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _rows(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file that has exactly these columns; raises UserError for another file."""
    _check_columns(file, columns)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{file}, record {number}: wrong number of columns; remove or mend the row")
    return rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    if not file.is_file():
        raise UserError(f"there is no {file}")
    with file.open(newline="", encoding="utf-8") as stream:
        found = next(csv.reader(stream), [])
    if tuple(found) != tuple(columns):
        raise UserError(f"{file} is not a records file: its columns are {', '.join(found) or 'missing'}")


def _record(row: dict[str, str], stamps: dict[str, Stamp], file: Path, line: int) -> Record:
    texts: dict[str, Any] = dict(row)
    if row["run"] not in stamps:
        raise UserError(
            f"{file}, record {line}: no row of runs.csv is called {row['run']!r}; mend one of them"
        )
    try:
        texts |= {"value": float(row["value"]), "seed": int(row["seed"])}
        texts["error"] = float(row["error"]) if row["error"] else None
    except ValueError as fault:
        raise UserError(f"{file}, record {line}: {fault}; remove or mend the row") from None
    return Record(**{**texts, "run": stamps[row["run"]]})

"""Records: one measured number a row, and beside them one row a run that says where they come from.

A folder of records holds `runs.csv` (what all numbers of a run share) and `records.csv` (the numbers).
"""

import csv
import io
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from fusionlab.errors import UserError
from fusionlab.files import lock, naming, replacing
from fusionlab.paths import open_regular

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

    Each file grows by whole rows or not at all, the run first; several processes may append, in turn.
    Raises UserError where a file cannot be written, which then is as long as before.
    """
    file = folder / "records.csv"
    row = _text([_cells(record)])  # before anything is written, as it may fail
    with naming(file):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock(handle, file)
        mend(folder)
        there = read_stamps(folder)
        if record.run not in there:
            if record.run.run in {stamp.run for stamp in there}:
                raise UserError(f"{folder} has another run called {record.run.run}; begin a new one")
            _append(folder / "runs.csv", STAMP_FIELDS, _text([astuple(record.run)]))
        _append(file, FIELDS, row)
    finally:
        os.close(handle)


def mend(folder: Path) -> None:
    """Removes what a broken write left at the end of a folder's files, half a row, and says so on stderr."""
    for name in ("runs.csv", "records.csv"):
        file = folder / name
        content = _file_bytes(file) if file.exists() else b""
        whole = _whole(content)
        if whole < len(content):
            with naming(file):
                os.truncate(file, whole)
            torn = content[whole : whole + 60].decode("utf-8", "backslashreplace")
            print(f"{file}: the last row was cut off and is removed: {torn!r}", file=sys.stderr)


def _whole(content: bytes) -> int:
    """How many bytes of a CSV file are whole rows: up to the last end of a line that is in no quotes."""
    end = content.rfind(b"\n") + 1
    while content.count(b'"', 0, end) % 2:
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end


def write(folder: Path, records: Iterable[Record]) -> None:
    """Replaces the records of a folder, sorted by what they measure, and its runs by those that remain.

    Both files are written beside the old ones before either takes its place.
    """
    ordered = sorted(records, key=lambda r: (r.target, r.row, r.metric, r.convention, *r.key[1:3], r.key[-1]))
    stamps = sorted({record.run for record in ordered}, key=lambda stamp: stamp.run)
    if twice := [a.run for a, b in pairwise(stamps) if a.run == b.run]:
        raise UserError(f"two runs are called {twice[0]}; rename the folder of one and run again")
    numbers = _text([FIELDS, *map(_cells, ordered)])
    remaining = _text([STAMP_FIELDS, *map(astuple, stamps)])
    every = _text([STAMP_FIELDS, *map(astuple, dict.fromkeys([*stamps, *read_stamps(folder)]))])
    # They take their places last first, so that a kill in between leaves no record without its run.
    with ExitStack() as drafts:
        for name, content in (("runs.csv", remaining), ("records.csv", numbers), ("runs.csv", every)):
            drafts.enter_context(replacing(folder / name)).write_bytes(content)


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


def _append(file: Path, columns: Sequence[str], row: bytes) -> None:
    begun = file.exists() and file.stat().st_size > 0
    if begun:
        _check_columns(file, columns)
    left = row if begun else _text([columns]) + row
    with naming(file):
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(handle).st_size
        try:
            while left:  # on a disk that fills up, a write takes only a part
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        except BaseException:
            os.ftruncate(handle, size)
            raise
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


def _text(lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return utf8(text.getvalue())


def utf8(text: str) -> bytes:
    """The bytes of a text; raises UserError for what UTF-8 cannot hold, as file names of another code."""
    try:
        return text.encode()
    except UnicodeEncodeError as fault:
        raise UserError(
            f"a name that is not UTF-8 cannot be recorded ({ascii(text[:80])}); rename the file or folder"
        ) from fault


def _rows(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file that has exactly these columns; raises UserError for another file."""
    content = _check_columns(file, columns)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as fault:
        if _whole(content) == len(content):
            raise UserError(f"{file} is damaged ({fault}); mend or replace it") from fault
        rows = [{}]  # cut off, within quotes perhaps
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise UserError(f"{file}, record {number}: wrong number of columns; remove or mend the row")
    if _whole(content) < len(content):
        raise UserError(f"{file}: its last row is cut off; remove it, or go on with the run, which does")
    return rows


def _check_columns(file: Path, columns: Sequence[str]) -> bytes:
    """The content of a file that begins with these columns; raises UserError for another file."""
    if not file.exists():
        raise UserError(f"there is no {file}")
    content = _file_bytes(file)
    found = content.partition(b"\n")[0].decode("utf-8", "backslashreplace").rstrip("\r").split(",")
    if content and tuple(found) != tuple(columns):
        raise UserError(f"{file} is not a records file: its columns are {', '.join(found)[:200]}")
    return content


def _file_bytes(file: Path) -> bytes:
    with open_regular(file) as stream:
        return stream.read()


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

"""Records: one measured number with everything needed to trust it, kept as rows of a CSV file."""

import csv
import dataclasses
import io
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fusionlab.errors import UserError
from fusionlab.paths import PACKAGE

if TYPE_CHECKING:
    from fusionlab.data.folders import Pairs

HASH = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Record:
    """One number. `n` is "42", or "25 of 42" where the set is partial; `weights` is "none" or a sha256."""

    target: str
    row: str
    metric: str
    value: float
    unit: str
    convention: str
    data: str
    split: str
    n: str
    profile: str
    seed: int
    weights: str
    device: str
    versions: str
    commit: str
    command: str
    date: str
    note: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two records measurements of the same thing."""
        return tuple(str(getattr(self, name)) for name in KEY)


KEY = ("target", "row", "metric", "convention", "data", "split", "profile", "seed", "weights", "device")
FIELDS = tuple(field.name for field in dataclasses.fields(Record))


def measured(
    target: str,
    row: str,
    metric: str,
    value: float,
    pairs: "Pairs | None" = None,
    *,
    profile: str,
    seed: int,
    command: str,
    device: str = "cpu",
    unit: str = "",
    convention: str = "",
    weights: str = "none",
    note: str = "",
) -> Record:
    """One number measured now on this machine, with its surroundings filled in.

    `pairs` are the images behind it (None for numbers without any, such as parameter counts), `weights` is
    "none" or the sha256 (12 digits or more) of the weights used, `command` what a reader types to repeat it.
    """
    return Record(
        target=target,
        row=row,
        metric=metric,
        value=float(value),
        unit=unit,
        convention=convention,
        data=pairs.data if pairs is not None else "none",
        split=pairs.split if pairs is not None else "none",
        n=_count(pairs),
        profile=profile,
        seed=seed,
        weights=weights,
        command=command,
        note=note,
        **environment(device),
    )


def _count(pairs: "Pairs | None") -> str:
    if pairs is None:
        return "0"
    partial = pairs.total is not None and pairs.total != len(pairs)
    return f"{len(pairs)} of {pairs.total}" if partial else str(len(pairs))


def append(run: Path, records: Iterable[Record]) -> Path:
    """Adds rows to `<run>/records.csv` in one write, so that an interrupt leaves whole rows only."""
    path = Path(run) / "records.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size:
        _check_header(path)
        text = _rows(records)
    else:
        text = ",".join(FIELDS) + "\n" + _rows(records)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


def read(path: Path) -> list[Record]:
    """All rows of a records file, in order; raises UserError with the line that cannot be read."""
    path = Path(path)
    _check_header(path)
    with path.open(newline="", encoding="utf-8") as file:
        return [_record(row, path, number) for number, row in enumerate(csv.DictReader(file), start=1)]


def write(path: Path, records: Iterable[Record]) -> None:
    """Replaces a records file as a whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(",".join(FIELDS) + "\n" + _rows(records), encoding="utf-8")
    draft.replace(path)


def merge(old: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """Old rows, replaced by new ones of the same key; another data set, device or weights adds a row."""
    merged = {record.key: record for record in old}
    merged.update((record.key, record) for record in new)
    return list(merged.values())


def promote(run: Path, figures_root: Path) -> list[Path]:
    """Merges a run's records into `<figures_root>/<paper>/records.csv` and returns the files written.

    Raises UserError where a record fails the lint or comes from code of no commit; then nothing is written.
    """
    fresh = read(Path(run) / "records.csv")
    faults = lint(fresh)
    if not all(re.fullmatch(r"[0-9a-f]{40}", record.commit) for record in fresh):
        faults.append("made from code that no commit holds; commit it and run again")
    if faults:
        raise UserError(f"{Path(run).name} cannot be promoted: " + "; ".join(faults))
    written = []
    for paper in sorted({record.target.split("/")[0] for record in fresh}):
        path = Path(figures_root) / paper / "records.csv"
        old = read(path) if path.exists() else []
        mine = [record for record in fresh if record.target.split("/")[0] == paper]
        write(path, sorted(merge(old, mine), key=lambda record: record.key))
        written.append(path)
    return written


def lint(records: Iterable[Record]) -> list[str]:
    """What keeps a record from being trusted, one sentence a fault; an empty list means all are sound."""
    faults = []
    for record in records:
        name = f"{record.target} {record.row} {record.metric}"
        if not re.fullmatch(r"\w[\w-]*/\w[\w-]*", record.target):
            faults.append(f"{name}: the target is not of the form paper/table")
        for field in ("row", "metric", "data", "profile", "device", "versions", "commit", "command", "date"):
            if not getattr(record, field):
                faults.append(f"{name}: no {field}")
        if record.weights != "none" and not HASH.fullmatch(record.weights):
            faults.append(f"{name}: weights must be none or a sha256 of 12 digits or more")
        if not math.isfinite(record.value):
            faults.append(f"{name}: the value is {record.value}")
    return faults


def environment(device: str = "cpu") -> dict[str, str]:
    """The fields `device`, `versions`, `commit` and `date` of a record made now on this machine."""
    versions = [f"python {platform.python_version()}"]
    versions += [f"{name} {_version(name)}" for name in ("torch", "numpy", "scipy")]
    return {
        "device": _device_name(device),
        "versions": ", ".join(versions),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def this_command() -> str:
    """The command line of this process, the program by its name only, and without a --resume of its run."""
    words = sys.argv[1:]
    if "--resume" in words:
        at = words.index("--resume")
        words = words[:at] + words[at + 2 :]
    return shlex.join([Path(sys.argv[0]).name, *words])


def commit(root: Path = PACKAGE.parent) -> str:
    """The checkout's commit, with "+dirty" where code, notebooks or data differ from it.

    Of an installation from a repository its commit, of another `wheel-<version>`; "unknown" where git does
    not answer. `promote` takes none of the last three.
    """
    if not (root / ".git").exists():
        return _installed_commit()
    head = _git(root, "rev-parse", "HEAD")
    return (
        f"{head}+dirty"
        if head and _git(root, "status", "--porcelain", "--", *_SOURCES)
        else head or "unknown"
    )


def _installed_commit() -> str:
    from fusionlab import __version__

    try:
        origin = metadata.distribution("fusionlab-course").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    return json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", f"wheel-{__version__}")


# What makes a number; a promoted table under figures/ does not make the next record dirty.
_SOURCES = ("fusionlab", "notebooks", "data", "pyproject.toml")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"


def _rows(records: Iterable[Record]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    # repr keeps every digit of a float, str of a numpy scalar might not.
    writer.writerows(
        [
            repr(float(value)) if name == "value" else value
            for name, value in dataclasses.asdict(record).items()
        ]
        for record in records
    )
    return text.getvalue()


def _check_header(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"there is no {path}")
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    if tuple(header) != FIELDS:
        raise UserError(f"{path} is not a records file: its columns are {', '.join(header) or 'missing'}")


def _record(row: dict[str, str], path: Path, number: int) -> Record:
    try:
        if set(row) != set(FIELDS) or None in row.values():
            raise ValueError("wrong number of columns")
        return Record(**{**row, "value": float(row["value"]), "seed": int(row["seed"])})  # type: ignore[arg-type]  # the other fields are text
    except ValueError as fault:
        raise UserError(f"{path}, record {number}: {fault}; remove or mend the row") from None

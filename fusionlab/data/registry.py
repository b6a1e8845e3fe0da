"""The registry: which files each dataset and network has, with size, SHA-256, source and split.

Plain csv files read by the standard library alone, so that what has no torch (the doctor) can look, too.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fusionlab.errors import UserError

REGISTRY = Path(__file__).with_name("registry.csv")
# Parts that begin with a letter or digit: no "..", drive, backslash, hidden or empty name gets through.
SAFE_PATH = re.compile(r"[a-z0-9][\w.-]*(/[a-z0-9][\w.-]*)+", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Dataset:
    """What holds for all files of a set; total is the size of the full public one, splits those of its parts.

    kind is "pairs", "photographs" or "networks". TNO: the 42 pairs of the usual evaluation; Harvard: those
    that CDDFuse ships; LLVIP: as its authors count; M3FD: as DMFuse counts. Splits of our own have no size.
    """

    name: str
    kind: str
    total: int
    splits: dict[str, int]
    licence: str
    citation: str

    def of(self, split: str | None = None) -> int:
        """Size of a split where it has one of its own, else of the whole set."""
        return self.splits.get(split or "", self.total)

    def size(self, split: str | None = None) -> str:
        """How much of it, or of a split, is registered: "20 of 1444 pairs"."""
        return f"{len({file.pair for file in choose(self.name, split)})} of {self.of(split)} {self.kind}"


@dataclass(frozen=True)
class File:
    """One row of the registry; path is relative to the cache or mirror, source to the repository.

    Our safetensors reading of a released weight file has a row too, of split "reading", but no repository.
    """

    dataset: str
    split: str
    role: str
    pair: str
    path: str
    bytes: int
    sha256: str
    repository: str
    commit: str
    source: str


def load_registry(path: str | Path) -> tuple[File, ...]:
    """Reads a registry, one row a file; raises UserError for a path that could leave its set's folder."""
    with open(path, newline="", encoding="utf-8") as stream:
        files = tuple(File(bytes=int(row.pop("bytes")), **row) for row in csv.DictReader(stream))
    for file in files:
        if not (SAFE_PATH.fullmatch(file.path) and file.path.startswith(f"{file.dataset}/")):
            raise UserError(f"{path}: {file.path} leaves the data folder; correct this row")
    return files


@cache
def datasets() -> dict[str, Dataset]:
    """The registered sets by name."""
    with Path(__file__).with_name("datasets.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {row["name"]: _dataset(**row) for row in rows}


def _dataset(total: str, splits: str, **texts: str) -> Dataset:
    parts = (part.split("=") for part in splits.split())
    return Dataset(total=int(total), splits={name: int(size) for name, size in parts}, **texts)


@cache
def registry() -> tuple[File, ...]:
    """The registry shipped with the package."""
    return load_registry(REGISTRY)


def choose(name: str, split: str | None = None) -> list[File]:
    """The registered files of a set or split; raises UserError where there is none of that name."""
    files = [file for file in registry() if file.dataset == name]
    if not files:
        raise UserError(f"no dataset {name!r} is registered; use one of {', '.join(datasets())}")
    splits = sorted({file.split for file in files})
    if split is not None and split not in splits:
        raise UserError(f"{name} has no split {split!r}; use one of {', '.join(splits)}")
    return [file for file in files if split in (None, file.split)]

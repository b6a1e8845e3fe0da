"""Registered datasets and weights: their files, with size, SHA-256 and source, read from a local copy."""

import csv
import hashlib
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from torch import Tensor

from fusionlab import paths
from fusionlab.data.folders import Pairs, join_pair
from fusionlab.data.pair import Pair, decode_image, read_bytes, rgb_to_ycbcr
from fusionlab.errors import UserError

# What goes in as ir and as vi. In medical pairs MRI is the visible side, as CDDFuse and MMDRFuse have it.
IR_ROLES = {"ir", "ct", "pet", "spect"}
VI_ROLES = {"vis", "mri"}


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
    return load_registry(Path(__file__).with_name("registry.csv"))


def open_source(name: str, split: str | None = None) -> Pairs:
    """The pairs of a registered dataset, or of one of its splits, from the cache or else the mirror.

    Splits: tno test25, extra17; roadscene train, val, test; msrs and llvip train, test; m3fd sample; harvard
    mri_ct, mri_pet, mri_spect, where MRI is vi, the other image is ir, and chroma is that of PET or SPECT.
    Size and SHA-256 of a file are checked whenever it is read; nothing is fetched.
    Raises UserError for an unknown name or split and for missing files; reading raises it for changed files.
    """
    files = [file for file in choose(name, split) if file.role in IR_ROLES | VI_ROLES]
    if not files:
        kind = datasets()[name].kind
        raise UserError(f"{name} holds {kind}, no pairs; {_OTHERWISE[kind]}")
    found = _find(name, files)
    ir = {file.pair: file for file in files if file.role in IR_ROLES}
    vi = {file.pair: file for file in files if file.role in VI_ROLES}

    def read(pair: str) -> Pair:
        if pair not in ir:
            raise UserError(f"{name} has no pair {pair}; its names run from {min(ir)} to {max(ir)}")
        ir_path, vi_path = found[ir[pair]], found[vi[pair]]
        ir_image, vi_image = _read(ir[pair], ir_path), _read(vi[pair], vi_path)
        joined = join_pair(pair, ir_image, vi_image, f"{ir_path} and {vi_path}")
        if name == "harvard" and ir_image.shape[1] == 3:
            return replace(joined, chroma=rgb_to_ycbcr(ir_image)[:, 1:])
        return joined

    return Pairs(name, split or "all", tuple(sorted(ir)), read, datasets()[name].of(split))


def read_photos(split: str | None = None) -> list[Tensor]:
    """The photographs of the BSDS500 sample (split train or val), sorted by name, (1, 3, H, W) in [0, 1].

    Raises UserError as open_source does.
    """
    files = choose("bsds500", split)
    found = _find("bsds500", files)
    return [_read(file, found[file]) for file in files]


def choose(name: str, split: str | None = None) -> list[File]:
    """The registered files of a set or split; raises UserError where there is none of that name."""
    files = [file for file in registry() if file.dataset == name]
    if not files:
        raise UserError(f"no dataset {name!r} is registered; use one of {', '.join(datasets())}")
    splits = sorted({file.split for file in files})
    if split is not None and split not in splits:
        raise UserError(f"{name} has no split {split!r}; use one of {', '.join(splits)}")
    return [file for file in files if split in (None, file.split)]


def locate(file: File) -> Path | None:
    """Where a file lies: cache or mirror folder; FUSIONLAB_WEIGHTS or cache for weights; None if nowhere."""
    if file.role == "weights":
        return paths.find_weights(file.path)
    roots = [root for root in (paths.cache(), paths.mirror()) if root is not None]
    return next((root / file.path for root in roots if (root / file.path).is_file()), None)


class WrongBytesError(UserError):
    """A file that can be read and is not the registered one."""


def read_verified(file: File, path: Path) -> bytes:
    """The bytes of a file; raises UserError where it cannot be read, WrongBytesError where it is another."""
    data = read_bytes(path)
    if len(data) != file.bytes:
        raise WrongBytesError(f"{path} has {len(data)} bytes, registered are {file.bytes}; fetch it again")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise WrongBytesError(f"{path} differs from the registered file (SHA-256); fetch it again")
    return data


# What to do with a set that has no pairs.
_OTHERWISE = {
    "photographs": "read them with sources.read_photos",
    "networks": "load one with weights='official'",
}


def _find(name: str, files: list[File]) -> dict[File, Path]:
    """File -> where it lies; all of them must be there, so that a set is never silently smaller."""
    found = {file: locate(file) for file in files}
    missing = [file.path for file, path in found.items() if path is None]
    if missing:
        roots = [str(root) for root in (paths.cache(), paths.mirror()) if root is not None]
        raise UserError(
            f"{len(missing)} of {len(files)} files of {name} ({missing[0]} first) are not in "
            f"{' or '.join(roots)}; fetch them with `fusionlab data get {name}`, set FUSIONLAB_MIRROR to a "
            "folder laid out like the registry, or give a folder of your own as data"
        )
    return {file: path for file, path in found.items() if path is not None}


def _read(file: File, path: Path) -> Tensor:
    """Decodes a file after checking that it is the registered one."""
    return decode_image(read_verified(file, path), path)

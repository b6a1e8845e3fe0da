"""Registered datasets: the files they have, with size and SHA-256, read from a local copy."""

import csv
import hashlib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath

from torch import Tensor

from fusionlab import paths
from fusionlab.data.folders import Pairs, join_pair
from fusionlab.data.pair import Pair, decode_image, read_bytes, rgb_to_ycbcr
from fusionlab.errors import UserError

# Pairs in the full public sets. TNO: the 42 of the usual evaluation; Harvard: the 21 MRI-CT, 42 MRI-PET and
# 73 MRI-SPECT that CDDFuse ships; MSRS: 361 test and 1083 train; LLVIP: as its authors count. The size of
# M3FD could not be verified.
TOTALS: dict[str, int | None] = {
    "harvard": 136,
    "llvip": 15488,
    "m3fd": None,
    "msrs": 1444,
    "roadscene": 221,
    "tno": 42,
}
PHOTOS = "bsds500"
# What goes in as ir and as vi. In medical pairs MRI is the visible side, as CDDFuse and MMDRFuse have it.
IR_ROLES = {"ir", "ct", "pet", "spect"}
VI_ROLES = {"vis", "mri"}


@dataclass(frozen=True)
class File:
    """One row of the registry; path is relative to the cache or mirror, source is owner/repo:path@commit."""

    dataset: str
    split: str
    role: str
    pair: str
    path: str
    bytes: int
    sha256: str
    source: str
    licence: str


def load_registry(path: str | Path) -> tuple[File, ...]:
    """Reads a registry, one row a file; raises UserError for a path that could leave the data folder."""
    with open(path, newline="", encoding="utf-8") as stream:
        files = tuple(File(bytes=int(row.pop("bytes")), **row) for row in csv.DictReader(stream))
    for file in files:
        parts = PurePosixPath(file.path)
        if parts.is_absolute() or ".." in parts.parts or any(sign in file.path for sign in "\\:"):
            raise UserError(f"{path}: {file.path} leaves the data folder; correct this row")
    return files


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
    if name == PHOTOS:
        raise UserError(f"{name} holds single photographs, no pairs; read them with sources.read_photos")
    if name not in TOTALS:
        raise UserError(f"no dataset {name!r} is registered; use one of {', '.join(TOTALS)}")
    files = _choose(name, split)
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

    return Pairs(name, split or "all", tuple(sorted(ir)), read, TOTALS[name])


def read_photos(split: str | None = None) -> list[Tensor]:
    """The photographs of the BSDS500 sample (split train or val), sorted by name, (1, 3, H, W) in [0, 1].

    Raises UserError as open_source does.
    """
    files = _choose(PHOTOS, split)
    found = _find(PHOTOS, files)
    return [_read(file, found[file]) for file in files]


def _choose(name: str, split: str | None) -> list[File]:
    files = [file for file in registry() if file.dataset == name and file.role != "boxes"]
    splits = sorted({file.split for file in files})
    if split is not None and split not in splits:
        raise UserError(f"{name} has no split {split!r}; use one of {', '.join(splits)}")
    return [file for file in files if split in (None, file.split)]


def _find(name: str, files: list[File]) -> dict[File, Path]:
    """File -> where it lies; all of them must be there, so that a set is never silently smaller."""
    roots = [root for root in (paths.cache(), paths.mirror()) if root is not None]
    found = {
        file: next((root / file.path for root in roots if (root / file.path).is_file()), None)
        for file in files
    }
    missing = [file.path for file, path in found.items() if path is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} files of {name} ({missing[0]} first) are not in "
            f"{' or '.join(map(str, roots))}; set FUSIONLAB_MIRROR to a folder laid out like the registry, "
            "or give a folder of your own as data"
        )
    return {file: path for file, path in found.items() if path is not None}


def _read(file: File, path: Path) -> Tensor:
    """Decodes a file after checking that it is the registered one."""
    data = read_bytes(path)
    if len(data) != file.bytes:
        raise UserError(f"{path} has {len(data)} bytes, registered are {file.bytes}; fetch it again")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(f"{path} differs from the registered file (SHA-256); fetch it again")
    return decode_image(data, path)

"""Opening pairs: synthetic scenes, a folder, or a registered dataset whose files are found and verified."""

import os
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fusionlab import paths
from fusionlab.data.copies import locate, read_verified
from fusionlab.data.folders import Pairs, join_pair, open_folder
from fusionlab.data.pair import Pair, decode_image, rgb_to_ycbcr
from fusionlab.data.ranges import Rule
from fusionlab.data.registry import File, choose, datasets
from fusionlab.errors import UserError
from fusionlab.paths import is_utf8

# What goes in as ir and as vi. In medical pairs MRI is the visible side, as CDDFuse and MMDRFuse have it.
IR_ROLES = {"ir", "ct", "pet", "spect"}
VI_ROLES = {"vis", "mri"}


def open_pairs(
    data: str | Path = "auto",
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    condition: str | None = None,
    size: tuple[int, int] | None = None,
    ir_range: Rule = None,
    vi_range: Rule = None,
    ir_suffix: str | None = None,
    vi_suffix: str | None = None,
) -> Pairs:
    """Opens pairs of synthetic scenes, of a registered dataset or of a folder.

    data: "scenes"; a registered name (looked for in the cache, then in FUSIONLAB_MIRROR); or a folder with
    subfolders ir and vi. "auto" is what FUSIONLAB_DATA names, else scenes. A registered name wins over a
    folder of that name; a Path, and a text with a separator or a leading "." or "~", is always a folder.
    n: at most so many pairs, of real data the first by name, whatever the seed; of scenes 8 unless given.
    split: of a registered dataset, of scenes ("test" unless given), or of a folder in parts (train/ir or
    ir/train). seed, condition and size (height, width) are for scenes only.
    ir_range, vi_range: for folders, which values become 0 and 1: "auto", the range of the whole folder but
    for the lowest and the highest .1 % of its values; "full", that of the file type (0..255, 0..65535, floats
    0..1); or (low, high) in the units of the files. Unless given, "auto" for a sensor's values (16-bit grey
    images that use less than half of 0..65535, floats outside [0, 1]), else "full"; a warning says which.
    ir_suffix, vi_suffix: for folders, how the names of a role end, as "_T" and "_RGB" in 1157_T.jpg and
    1157_RGB.jpg; other names are passed over. Unless given, endings that say the role are recognised.
    Raises UserError for an unknown name, for arguments that the data does not have, and as the readers do.
    """
    if data == "auto":
        data = os.environ.get("FUSIONLAB_DATA") or "scenes"
    if n is not None and n < 1:
        raise UserError(f"n is {n}; ask for at least one pair")
    own = {"range": (ir_range, vi_range), "suffix": (ir_suffix, vi_suffix)}
    for what, given in own.items():
        if given != (None, None) and not _is_folder(data):
            raise UserError(f"{data} has no {what} to choose; leave out ir_{what} and vi_{what}")
    if data == "scenes":
        from fusionlab.scenes import open_scenes

        return open_scenes(n or 8, seed, split or "test", condition, *(size or ()))
    if condition is not None or size is not None:
        raise UserError(f"{data} has no condition or size to choose; leave them out, or use data='scenes'")
    if not _is_folder(data):
        return open_source(str(data), split)[:n]
    opened = open_folder(_found_folder(data), split, ir_range, vi_range, ir_suffix, vi_suffix)
    return replace(opened, data=name_of(data))[:n]


def name_of(data: str | Path) -> str:
    """What pairs are called in captions and records: a folder never like the scenes or a registered set.

    data: as open_pairs takes it, but "auto".
    """
    known = ("scenes", *datasets())
    if not _is_path(data) and data in known:
        return str(data)
    folder = Path(data).expanduser().resolve().name
    return f"folder-{folder}" if folder in known else folder


def is_there(data: str | Path) -> bool:
    """Whether `data` names the scenes, a registered set of pairs (fetched or not) or a folder that exists."""
    if not _is_path(data) and data in ("scenes", *datasets()):
        return data == "scenes" or datasets()[str(data)].kind == "pairs"
    return Path(data).expanduser().is_dir()


def _found_folder(data: str | Path) -> Path:
    """The folder that is meant, where it is there and no set is; raises UserError else."""
    if not _is_path(data) and not Path(data).is_dir():
        known = ", ".join(["scenes", *(s.name for s in datasets().values() if s.kind == "pairs")])
        raise UserError(f"{data!r} is neither a dataset nor a folder; use one of {known}, or a folder")
    if not is_utf8(name_of(data)):
        raise UserError(f"{data} has a name that is not UTF-8, which no record can hold; rename it")
    return Path(data).expanduser()


def _is_folder(data: str | Path) -> bool:
    return _is_path(data) or data not in ("scenes", *datasets())


def _is_path(data: str | Path) -> bool:
    return isinstance(data, Path) or data.startswith((".", "~")) or os.sep in data or "/" in data


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
    files = sorted(choose("bsds500", split), key=lambda file: file.pair)
    found = _find("bsds500", files)
    return [_read(file, found[file]) for file in files]


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

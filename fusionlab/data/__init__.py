"""Pairs of images by one call: synthetic scenes, registered datasets or a folder of one's own."""

import os
from dataclasses import replace
from pathlib import Path

from fusionlab.data.folders import Pairs, open_folder, open_pair
from fusionlab.data.pair import Pair, read_image, to_uint8, write_image
from fusionlab.data.sources import datasets, open_source
from fusionlab.errors import UserError

__all__ = [
    "Pair",
    "Pairs",
    "name_of",
    "open_pair",
    "open_pairs",
    "read_image",
    "to_uint8",
    "write_image",
]


def open_pairs(
    data: str | Path = "auto",
    n: int | None = None,
    seed: int = 0,
    split: str | None = None,
    condition: str | None = None,
    size: tuple[int, int] | None = None,
) -> Pairs:
    """Opens pairs of synthetic scenes, of a registered dataset or of a folder.

    data: "scenes"; a registered name (looked for in the cache, then in FUSIONLAB_MIRROR); or a folder with
    subfolders ir and vi. "auto" is what FUSIONLAB_DATA names, else scenes. A registered name wins over a
    folder of that name; a Path, and a text with a separator or a leading "." or "~", is always a folder.
    n: at most so many pairs, of real data the first by name, whatever the seed; of scenes 8 unless given.
    split: of a registered dataset, or of scenes ("test" unless given). seed, condition and size (height,
    width) are for scenes only.
    Raises UserError for an unknown name, for arguments that the data does not have, and as the readers do.
    """
    if data == "auto":
        data = os.environ.get("FUSIONLAB_DATA") or "scenes"
    if n is not None and n < 1:
        raise UserError(f"n is {n}; ask for at least one pair")
    if data == "scenes":
        from fusionlab.scenes import open_scenes

        return open_scenes(n or 8, seed, split or "test", condition, *(size or ()))
    if condition is not None or size is not None:
        raise UserError(f"{data} has no condition or size to choose; leave them out, or use data='scenes'")
    return _open_real(data, split)[:n]


def name_of(data: str | Path) -> str:
    """What pairs are called in captions and records: a folder never like the scenes or a registered set.

    data: as open_pairs takes it, but "auto".
    """
    known = ("scenes", *datasets())
    if not _is_path(data) and data in known:
        return str(data)
    folder = Path(data).expanduser().resolve().name
    return f"folder-{folder}" if folder in known else folder


def _open_real(data: str | Path, split: str | None) -> Pairs:
    if not _is_path(data):
        if data in datasets():
            return open_source(str(data), split)
        if not Path(data).is_dir():
            known = ", ".join(["scenes", *(s.name for s in datasets().values() if s.kind == "pairs")])
            raise UserError(f"{data!r} is neither a dataset nor a folder; use one of {known}, or a folder")
    if split is not None:
        raise UserError(f"{data} is a folder and has no split {split!r}; give the subfolder of that split")
    return replace(open_folder(Path(data).expanduser()), data=name_of(data))


def _is_path(data: str | Path) -> bool:
    return isinstance(data, Path) or data.startswith((".", "~")) or os.sep in data or "/" in data

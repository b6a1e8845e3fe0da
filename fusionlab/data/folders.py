"""Pairs in folders: partners are found by file name and read one at a time."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import overload

from torch import Tensor

from fusionlab.data.names import holds_images, match_images, match_roles, says_roles
from fusionlab.data.pair import Pair, Scale, full, luminance, read_image, rgb_to_ycbcr
from fusionlab.data.ranges import Rule, check_rule, find_range
from fusionlab.errors import UserError

__all__ = ["Pairs", "doubt", "join_pair", "match_images", "open_folder", "open_pair", "read_pair"]

IR_FOLDERS = ("ir", "inf", "infrared")
VI_FOLDERS = ("vi", "vis", "visible")
COLOURED = 2 / 255  # how far the channels of a coloured image differ at least, on average


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """Some pairs of one set, each read when it is asked for: pairs[0], pairs[:5], pairs.read("FLIR_00211").

    data and split say where they come from, names which they are, total how many the full public set has
    (None where that is not known). read(name) raises UserError where a file is damaged or the name unknown.
    ranges() says which of a sensor's values became 0 and 1, "" where files kept their full range.
    """

    data: str
    split: str
    names: tuple[str, ...]
    read: Callable[[str], Pair] = field(repr=False)
    total: int | None = None
    ranges: Callable[[], str] = field(default=str, repr=False)

    @property
    def caption(self) -> str:
        """What a figure or table says of its data: "tno, 25 of 42 pairs"."""
        count = f"{len(self)}" if self.total is None else f"{len(self)} of {self.total}"
        return f"{self.data}, {count} {'pair' if (self.total or len(self)) == 1 else 'pairs'}"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Pair]:
        return map(self.read, self.names)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...
    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        if isinstance(index, slice):
            return replace(self, names=self.names[index])
        return self.read(self.names[index])


def open_pair(
    ir_path: str | Path,
    vi_path: str | Path,
    name: str | None = None,
    ir_range: Rule = None,
    vi_range: Rule = None,
) -> Pair:
    """Reads a pair from two files; its name is the infrared file's stem unless given.

    The infrared image is reduced to luminance, the visible one split into luminance and chroma. ir_range,
    vi_range: which values become 0 and 1, as open_pairs says. Warns of the range taken and of what the files
    look like. Raises UserError where both are one file or the sizes differ, and as read_image does.
    """
    scales = []
    for role, path, rule in (("infrared", ir_path, ir_range), ("visible", vi_path, vi_range)):
        scale, notes = find_range(role, [Path(path)], check_rule(rule, role))
        scales.append(scale)
        _warn(notes)
    pair = read_pair(ir_path, vi_path, name, *scales)
    _warn([pair.doubt] * bool(pair.doubt))
    return pair


def read_pair(
    ir_path: str | Path, vi_path: str | Path, name: str | None, ir_scale: Scale, vi_scale: Scale
) -> Pair:
    """As open_pair, with the scale of each role (data/ranges.py) at hand and without warning."""
    refuse_one_file(Path(ir_path), Path(vi_path))
    ir, vi = read_image(ir_path, ir_scale), read_image(vi_path, vi_scale)
    pair = join_pair(name or Path(ir_path).stem, ir, vi, f"{ir_path} and {vi_path}")
    return replace(pair, doubt=doubt(ir, vi))


def refuse_one_file(ir_path: Path, vi_path: Path) -> None:
    """Raises UserError where two paths, or the links they are, lead to one file."""
    if ir_path.exists() and vi_path.exists() and ir_path.samefile(vi_path):
        raise UserError(f"{ir_path} and {vi_path} are one file; give the infrared and the visible image")


def doubt(ir: Tensor, vi: Tensor) -> str:
    """What two images (1, 1 or 3, H, W) look like that a pair should not, or ""."""
    if not _coloured(ir):
        return ""
    if not _coloured(vi):
        return "infrared is coloured and visible is grey; if the two are exchanged, give infrared first"
    return (
        "infrared is in false colours (three unequal channels), whose brightness is no temperature: the "
        "hottest may come out dark. Export grey or 16-bit values; of a thermal camera's JPEG, only the "
        "coloured preview is read"
    )


def _coloured(image: Tensor) -> bool:
    return image.shape[1] == 3 and float((image.amax(dim=1) - image.amin(dim=1)).mean()) > COLOURED


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=3)


def join_pair(name: str, ir: Tensor, vi: Tensor, files: str) -> Pair:
    """A pair of two images (1, 1 or 3, H, W) in [0, 1]; files serves the error message."""
    if ir.shape[-2:] != vi.shape[-2:]:
        sizes = " and ".join(f"{width}x{height}" for height, width in (ir.shape[-2:], vi.shape[-2:]))
        raise UserError(f"{files} are {sizes} pixels; register and crop both to one size")
    if vi.shape[1] == 1:
        return Pair(name, luminance(ir), vi)
    ycbcr = rgb_to_ycbcr(vi)
    return Pair(name, luminance(ir), ycbcr[:, :1], ycbcr[:, 1:])


def open_folder(
    folder: str | Path,
    split: str | None = None,
    ir_range: Rule = None,
    vi_range: Rule = None,
    ir_suffix: str | None = None,
    vi_suffix: str | None = None,
) -> Pairs:
    """The pairs of a folder with one subfolder ir (inf, infrared) and one vi (vis, visible), in any case.

    Partners share the file name up to the suffix, or up to an ending that says the role (data/names.py):
    ir_suffix and vi_suffix, or one that all have. With endings the images may also lie in the folder itself.
    split: the part, of a folder with train/ir or infrared/train. Names are sorted, sizes may differ from pair
    to pair, and files of other kinds are passed over. ir_range, vi_range: as open_pairs says; a range is
    found over all images of the folder when the first pair is read. Warns of it, of endings and of what the
    first doubtful pair looks like. Raises UserError for a missing folder, subfolder, part or partner, for two
    files of one name, for one folder or file in both roles and for no pairs at all; damaged files and unequal
    sizes raise when that pair is read.
    """
    folder = Path(folder)
    rules = {"infrared": check_rule(ir_range, "infrared"), "visible": check_rule(vi_range, "visible")}
    endings = {"infrared": ir_suffix, "visible": vi_suffix}
    suffixes = {role: suffix for role, suffix in endings.items() if suffix is not None}
    roles = _find_roles(folder, split, bool(suffixes))
    if not any(map(holds_images, roles.values())):
        raise UserError(f"{folder} holds no pairs; put images of equal names into its subfolders ir and vi")
    matches = match_roles(roles, suffixes)
    whole, faults = matches.whole, matches.faults
    if faults:
        first = next(iter(faults.values()))
        raise UserError(f"{first} (names at fault: {len(faults)})" if len(faults) > 1 else first)
    _warn(matches.notes)

    @cache
    def scales() -> list[Scale]:
        found = [find_range(role, matches.images[role], rule) for role, rule in rules.items()]
        _warn([note for _, notes in found for note in notes])
        return [scale for scale, _ in found]

    def ranges() -> str:
        return "; ".join(f"{role} {scale}" for role, scale in zip(rules, scales()) if scale is not full)

    doubted: set[str] = set()

    def read(name: str) -> Pair:
        if name not in whole:
            raise UserError(f"{folder} has no pair {name}; its names run from {min(whole)} to {max(whole)}")
        ir_path, vi_path = whole[name]
        pair = read_pair(ir_path, vi_path, name, *scales())
        if pair.doubt and pair.doubt not in doubted:
            doubted.add(pair.doubt)
            _warn([f"{name}: {pair.doubt}"])
        return pair

    return Pairs(folder.resolve().name, split or "all", tuple(whole), read, len(whole), ranges)


def _find_roles(folder: Path, split: str | None, endings: bool) -> dict[str, Path]:
    """Role -> where its images are, in a folder laid out in a usual way; `endings` may tell them apart."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; check the path")
    if split is not None and (folder / split).is_dir():
        folder, split = folder / split, None
    if not _subfolders(folder, IR_FOLDERS) and (endings or says_roles(folder)):
        return {"infrared": folder, "visible": folder}
    roles = {"infrared": _subfolder(folder, IR_FOLDERS), "visible": _subfolder(folder, VI_FOLDERS)}
    ir_parts, vi_parts = ({path.name for path in role.iterdir() if path.is_dir()} for role in roles.values())
    parts = sorted(ir_parts & vi_parts)
    if split is None and len(parts) > 1 and not any(holds_images(path, 0) for path in roles.values()):
        raise UserError(f"{folder} is in parts: {', '.join(parts)}; choose one with split={parts[0]!r}")
    if split is not None and split not in parts:
        raise UserError(f"{folder} is a folder and has no split {split!r}; give the subfolder of that split")
    return roles if split is None else {role: path / split for role, path in roles.items()}


def _subfolder(folder: Path, known: tuple[str, ...]) -> Path:
    found = _subfolders(folder, known)
    if len(found) == 1:
        return found[0]
    has = " and ".join(path.name for path in found) or "none"
    parts = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _subfolders(path, known)]
    remedy = f"; give its subfolder {' or '.join(parts)}" if parts else ""
    raise UserError(
        f"{folder} needs one subfolder named {', '.join(known[:-1])} or {known[-1]}, and has {has}{remedy}"
    )


def _subfolders(folder: Path, known: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in known)

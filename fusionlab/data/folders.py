"""Pairs in folders: partners are found by file name and read one at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

from torch import Tensor

from fusionlab.data.pair import FORMATS, Pair, luminance, read_image, rgb_to_ycbcr
from fusionlab.errors import UserError
from fusionlab.paths import is_utf8

IR_FOLDERS = ("ir", "inf", "infrared")
VI_FOLDERS = ("vi", "vis", "visible")


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """Some pairs of one set, each read when it is asked for: pairs[0], pairs[:5], pairs.read("FLIR_00211").

    data and split say where they come from, names which they are, total how many the full public set has
    (None where that is not known). read(name) raises UserError where a file is damaged or the name unknown.
    """

    data: str
    split: str
    names: tuple[str, ...]
    read: Callable[[str], Pair] = field(repr=False)
    total: int | None = None

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


def open_pair(ir_path: str | Path, vi_path: str | Path, name: str | None = None) -> Pair:
    """Reads a pair from two files; its name is the infrared file's stem unless given.

    The infrared image is reduced to luminance, the visible one split into luminance and chroma.
    Raises UserError where the sizes differ, and as read_image does.
    """
    ir, vi = read_image(ir_path), read_image(vi_path)
    return join_pair(name or Path(ir_path).stem, ir, vi, f"{ir_path} and {vi_path}")


def join_pair(name: str, ir: Tensor, vi: Tensor, files: str) -> Pair:
    """A pair of two images (1, 1 or 3, H, W) in [0, 1]; files serves the error message."""
    if ir.shape[-2:] != vi.shape[-2:]:
        sizes = " and ".join(f"{width}x{height}" for height, width in (ir.shape[-2:], vi.shape[-2:]))
        raise UserError(f"{files} are {sizes} pixels; register and crop both to one size")
    if vi.shape[1] == 1:
        return Pair(name, luminance(ir), vi)
    ycbcr = rgb_to_ycbcr(vi)
    return Pair(name, luminance(ir), ycbcr[:, :1], ycbcr[:, 1:])


def open_folder(folder: str | Path) -> Pairs:
    """The pairs of a folder with one subfolder ir (inf, infrared) and one vi (vis, visible), in any case.

    Partners share the file name up to the suffix; names are sorted, sizes may differ from pair to pair, and
    files that are no PNG, JPEG, BMP or TIFF are passed over. Raises UserError for a missing folder, subfolder
    or partner, for two files of one name and for no pairs at all; damaged files and unequal sizes raise when
    that pair is read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; check the path")
    whole, faults = match_images([_subfolder(folder, IR_FOLDERS), _subfolder(folder, VI_FOLDERS)])
    if faults:
        first = next(iter(faults.values()))
        raise UserError(f"{first} (names at fault: {len(faults)})" if len(faults) > 1 else first)
    if not whole:
        raise UserError(f"{folder} holds no pairs; put images of equal names into its subfolders ir and vi")

    def read(name: str) -> Pair:
        if name not in whole:
            raise UserError(f"{folder} has no pair {name}; its names run from {min(whole)} to {max(whole)}")
        ir_path, vi_path = whole[name]
        return open_pair(ir_path, vi_path)

    return Pairs(folder.resolve().name, "all", tuple(whole), read, total=len(whole))


def _subfolder(folder: Path, known: tuple[str, ...]) -> Path:
    found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower() in known)
    if len(found) != 1:
        has = "none" if not found else " and ".join(path.name for path in found)
        raise UserError(
            f"{folder} needs one subfolder named {', '.join(known[:-1])} or {known[-1]}, and has {has}"
        )
    return found[0]


def match_images(folders: Sequence[Path]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """What several folders hold under one name: stem -> its image in each of them, sorted by stem.

    The second mapping says of every other stem what is at fault: no image in a folder, two in one, or a name
    that no table could hold. Files that are no PNG, JPEG, BMP or TIFF, and hidden ones, are passed over.
    """
    held = [_images(folder) for folder in folders]
    whole, faults = {}, {}
    for stem in sorted(set().union(*held)):
        found = [images.get(stem, []) for images in held]
        absent = [str(folder) for folder, images in zip(folders, found) if not images]
        double = next((images for images in found if len(images) > 1), None)
        if absent:
            (alone, *_), *_ = filter(None, found)
            faults[stem] = (
                f"{alone} has no partner of that name in {' and '.join(absent)}; "
                "add the missing image or remove this one"
            )
        elif double:
            faults[stem] = f"{double[0]} and {double[1].name} have one name; keep one of them"
        else:
            whole[stem] = [image for (image,) in found]
    for stem in [stem for stem in whole if not is_utf8(stem)]:
        faults[stem] = f"{whole.pop(stem)[0]} has a name that is not UTF-8; rename it and its partners"
    return whole, faults


def _images(folder: Path) -> dict[str, list[Path]]:
    """File stem -> the image files of that stem."""
    images: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file():
            images.setdefault(path.stem, []).append(path)
    return images

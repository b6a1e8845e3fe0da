"""Which image of one folder belongs to which of another: partners have one name, up to the suffix.

Names are compared in composed Unicode (NFC), so that a folder copied from another system keeps its partners.
Where names say their role at the end (1157_T, 1157_RGB), that ending is set aside.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fusionlab.data.imagefile import READABLE
from fusionlab.errors import UserError
from fusionlab.paths import is_utf8

# How names end that say their role, after "_" or "-" and in any case; sets that are published so: FLIR, DJI,
# CVC-14, LLVIP, M3FD, KAIST.
ENDINGS = {
    "infrared": ("t", "ir", "inf", "infrared", "lwir", "thermal", "tir"),
    "visible": ("rgb", "v", "vi", "vis", "visible", "w"),
    "fused": ("fused", "fusion"),
}
OPTIONS = {"infrared": "--ir-suffix", "visible": "--vi-suffix", "fused": "--fused-suffix"}

# Images that other programs write and this package does not read.
UNREAD = re.compile(
    r"\.(gif|npy|npz|mat|jp2|j2k|jxl|heic|heif|avif|dng|raw|pgm|ppm|pnm|pfm|exr|hdr|fff|seq)", re.IGNORECASE
)

DEPTH = 3  # how far below a given folder its images are looked for


@dataclass(frozen=True)
class Matches:
    """The images of several roles that belong together.

    whole: name -> its image in each role, in the order of the roles; faults: what is wrong with other names.
    images: all images of each role, partners or not; folders: where they lie; notes: what was decided.
    """

    whole: dict[str, list[Path]]
    faults: dict[str, str]
    images: dict[str, list[Path]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Side:
    """One role's folder: stem, composed -> the images of that stem, and the files of unread kinds."""

    role: str
    folder: Path
    images: dict[str, list[Path]]
    unread: dict[str, Path]

    def without(self, suffix: str) -> "_Side":
        """Only the images whose names end so, under their names without it."""
        ends = re.compile(f"(.+){re.escape(suffix)}", re.DOTALL)
        images = {found[1]: files for stem, files in self.images.items() if (found := ends.fullmatch(stem))}
        unread = {found[1]: file for stem, file in self.unread.items() if (found := ends.fullmatch(stem))}
        return replace(self, images=images, unread=unread)

    @cached_property
    def plain(self) -> dict[str, str]:
        """Names without regard to letter case and leading zeros -> names."""
        return {_plain(stem): stem for stem in self.images}

    @cached_property
    def longer(self) -> dict[str, list[str]]:
        """Beginnings of names, up to a "_", "-" or "." -> the names that go on from there."""
        found: dict[str, list[str]] = {}
        for stem in self.images:
            for end in re.finditer(r"(?<=.)[_.-]", stem):
                found.setdefault(stem[: end.start()], []).append(stem)
        return found


def match_roles(roles: Mapping[str, Path], suffixes: Mapping[str, str] | None = None) -> Matches:
    """Pairs the images of folders, role -> folder, where roles are "infrared", "visible" and "fused".

    suffixes: role -> how its names end, before the file's suffix; images of other names are passed over, and
    so one folder may hold both roles. Where names as they are make no pair, endings that every name of a
    folder has and that say its role are set aside. A folder without images stands for the one below it that
    has some. Raises UserError where there are several of them, where a folder has no images, where infrared
    and visible are one folder that no ending tells apart, and where no name has a partner.
    """
    given = {role: unicodedata.normalize("NFC", suffix) for role, suffix in (suffixes or {}).items()}
    folders, notes = _descend(roles)
    sides = {role: _side(role, folder) for role, folder in folders.items()}
    if not any(side.images for side in sides.values()):
        unread = sorted({file.suffix for side in sides.values() for file in side.unread.values()})
        there = f"; {' and '.join(unread)} files are not read" if unread else ""
        raise UserError(f"there are no {_kinds('or')} images in {_listed(folders.values(), 'or')}{there}")
    sources = {"infrared", "visible"} <= folders.keys()
    one_folder = sources and folders["infrared"].samefile(folders["visible"])
    listed = sides
    sides, chosen = _split(sides, given) if one_folder else (sides, given)
    cut = [side.without(chosen.get(role, "")) for role, side in sides.items()]
    for side in cut:
        if not side.images and listed[side.role].images and side.role in given:
            raise UserError(
                f"no name in {side.folder} ends in {given[side.role]!r}, as {OPTIONS[side.role]} says; they "
                f"are such as {min(listed[side.role].images)}"
            )
    if not one_folder and not _shared(cut):
        chosen = given | _recognised(sides, given)
        cut = [side.without(chosen.get(role, "")) for role, side in sides.items()]
    found = {role: suffix for role, suffix in chosen.items() if suffix and role not in given}
    whole, faults = _match(cut)
    if not whole:
        raise UserError(_none_pair(faults))
    for name in [name for name, files in whole.items() if sources and files[0].samefile(files[1])]:
        ir, vi, *_ = whole.pop(name)
        faults[name] = f"{ir} and {vi} are one file; give the infrared and the visible image"
    if found:
        ends = " and ".join(f"{role} names end in {suffix}" for role, suffix in found.items())
        options = " and ".join(OPTIONS[role] for role in found)
        notes.append(f"{ends}, set aside to find partners ({options} would say otherwise)")
    images = {side.role: [file for files in side.images.values() for file in files] for side in cut}
    return Matches(whole, faults, images, folders, notes)


def match_images(folders: Sequence[Path]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """What several folders hold under one name: stem -> its image in each of them, sorted by stem.

    The second mapping says of every other stem what is at fault: no image in a folder, or two in one. Files
    of kinds that are not read, and hidden ones, are passed over.
    """
    return _match([_side("", folder) for folder in folders])


def _match(sides: Sequence[_Side]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    whole, faults = {}, {}
    for stem in sorted(set().union(*(side.images for side in sides))):
        found = [side.images.get(stem, []) for side in sides]
        absent = [side for side, images in zip(sides, found) if not images]
        double = next((images for images in found if len(images) > 1), None)
        if absent:
            (alone, *_), *_ = filter(None, found)
            remedy = _hint(stem, absent) or "add the missing image or remove this one"
            folders = _listed((side.folder for side in absent), "and")
            faults[stem] = f"{alone} has no partner of that name in {folders}; {remedy}"
        elif double:
            faults[stem] = f"{double[0]} and {double[1].name} have one name; keep one of them"
        else:
            whole[stem] = [image for (image,) in found]
    for stem in [stem for stem in whole if not is_utf8(stem)]:
        faults[stem] = f"{whole.pop(stem)[0]} has a name that is not UTF-8; rename it and its partners"
    return whole, faults


def _side(role: str, folder: Path) -> _Side:
    images: dict[str, list[Path]] = {}
    unread: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem, suffix = unicodedata.normalize("NFC", path.stem), path.suffix.lower()
        if path.name.startswith(".") or not path.is_file():
            continue
        if suffix in READABLE:
            images.setdefault(stem, []).append(path)
        elif UNREAD.fullmatch(suffix):
            unread[stem] = path
    return _Side(role, folder, images, unread)


# --- folders as they are published: infrared/train, or both roles in one ---


def _descend(roles: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Role -> the one folder at or below the given one that holds images, and what was chosen, in words."""
    folders, below = dict(roles), {}
    for role, folder in roles.items():
        found = _with_images(folder)
        if len(found) > 1:
            raise UserError(
                f"{folder} has no images itself, only in {_listed(found[:4], 'and')}"
                f"{', ...' if len(found) > 4 else ''}; give the folder that is meant as {role}"
            )
        if found and found[0] != folder:
            folders[role], below[role] = found[0], found[0].relative_to(folder)
    if len({below[role] for role in ("infrared", "visible") if role in below}) > 1:
        different = _listed((folders[role] for role in ("infrared", "visible")), "and")
        raise UserError(f"images are in {different}, which differ; give two folders of the same part")
    return folders, [f"{role} images are in {folders[role]}" for role in below]


def _with_images(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The folder itself where it holds images, else those below it that do."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if any(path.suffix.lower() in READABLE and path.is_file() for path in entries):
        return [folder]
    if not depth:
        return []
    return [found for path in entries if path.is_dir() for found in _with_images(path, depth - 1)]


def _split(sides: dict[str, _Side], given: dict[str, str]) -> tuple[dict[str, _Side], dict[str, str]]:
    """The sides of a folder that is infrared and visible at once, and how the names of each role end."""
    folder, images = sides["infrared"].folder, sides["infrared"].images
    if "infrared" in given or "visible" in given:
        ends = {"infrared": given.get("infrared", ""), "visible": given.get("visible", "")}
    else:
        ends = _told_apart(images)
    if not ends or ends["infrared"] == ends["visible"]:
        raise UserError(
            f"{folder} is given as infrared and as visible; give two folders, or say with --ir-suffix and "
            "--vi-suffix how the names of each role end"
        )
    longest = sorted(ends, key=lambda role: len(ends[role]), reverse=True)
    role_of = {stem: next((role for role in longest if stem.endswith(ends[role])), None) for stem in images}
    own = {
        role: replace(sides[role], images={stem: images[stem] for stem in images if role_of[stem] == role})
        for role in ends
    }
    return sides | own, given | ends


def says_roles(folder: Path) -> bool:
    """Whether a folder holds both roles and every name says its own, as in 1157_T and 1157_RGB."""
    return bool(_told_apart(_side("", folder).images))


def holds_images(folder: Path, depth: int = DEPTH) -> bool:
    """Whether there are images in a folder, or so far below it."""
    return bool(_with_images(folder, depth))


def _told_apart(stems: Iterable[str]) -> dict[str, str]:
    """How infrared and visible names end where each name has one of two endings, else nothing."""
    ir = {stem for stem in stems if _ending(stem, "infrared")}
    ends = {"infrared": _common(ir, "infrared"), "visible": _common(set(stems) - ir, "visible")}
    return ends if all(ends.values()) else {}


# --- endings that say the role ---


def _ending(stem: str, role: str) -> str:
    """The ending of a name that says this role, with its "_" or "-", or ""."""
    found = re.fullmatch(rf".+([_-](?:{'|'.join(ENDINGS[role])}))", stem, re.IGNORECASE)
    return found[1] if found else ""


def _common(stems: Iterable[str], *roles: str) -> str:
    """The ending that says one of these roles and that all names have, or ""."""
    endings = {next(filter(None, (_ending(stem, role) for role in roles)), "") for stem in stems}
    return endings.pop() if len(endings) == 1 else ""


def _recognised(sides: Mapping[str, _Side], given: dict[str, str]) -> dict[str, str]:
    """How the names of each role end, none given, where setting that aside makes pairs; else nothing.

    A fused image may be called like a source. Raises UserError where the names say that roles are exchanged.
    """
    if {"infrared", "visible"} <= sides.keys() and not {"infrared", "visible"} & given.keys():
        exchanged = _common(sides["infrared"].images, "visible"), _common(sides["visible"].images, "infrared")
        if all(exchanged):
            raise UserError(
                f"names in {sides['infrared'].folder}, given as infrared, end in {exchanged[0]}, and in "
                f"{sides['visible'].folder} in {exchanged[1]}: give infrared first, or --ir-suffix "
                f"{exchanged[0]} --vi-suffix {exchanged[1]} if they are right"
            )
    found = {
        role: _common(side.images, role, *(("infrared", "visible") if role == "fused" else ()))
        for role, side in sides.items()
        if role not in given
    }
    cut = [side.without((given | found)[role]) for role, side in sides.items()]
    return found if _shared(cut) else {}


def _shared(sides: Sequence[_Side]) -> set[str]:
    return set.intersection(*(set(side.images) for side in sides))


# --- what is said of names without partner ---


def _hint(stem: str, absent: Sequence[_Side]) -> str:
    """How a name could find its partner in the folders that lack it, or ""."""
    for side in absent:
        if stem in side.unread:
            return f"{side.unread[stem]} is of a kind that is not read ({_kinds('and')} are); convert it"
        if other := side.plain.get(_plain(stem)):
            return f"{side.images[other][0]} differs only in {_difference(stem, other)}; rename one of them"
        if (longer := side.longer.get(stem)) and side.role:
            option = OPTIONS[side.role]
            endings = sorted({other.removeprefix(stem) for other in longer})
            return (
                f"its name goes on there with {_listed(endings[:4], 'and')}; say how names end, such as "
                f"{option} {endings[0]}"
            )
    return ""


def _none_pair(faults: Mapping[str, str]) -> str:
    """One line where no name has a partner: the first fault that says how names could pair, if any does."""
    told = next((fault for fault in faults.values() if "add the missing" not in fault), None)
    told = told or next(iter(faults.values()))
    return f"{told} (names at fault: {len(faults)})" if len(faults) > 1 else told


def _plain(stem: str) -> str:
    return _unpadded(stem).casefold()


def _unpadded(stem: str) -> str:
    """Numbers without their leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", stem)


def _difference(stem: str, other: str) -> str:
    case = ["letter case"] * (_unpadded(stem) != _unpadded(other))
    zeros = ["leading zeros"] * (stem.casefold() != other.casefold())
    return " and ".join(case + zeros)


def _kinds(conjunction: str) -> str:
    return f"PNG, JPEG, BMP, TIFF {conjunction} WebP"


def _listed(things: Iterable[object], conjunction: str) -> str:
    *most, last = dict.fromkeys(map(str, things))
    return f"{', '.join(most)} {conjunction} {last}" if most else last

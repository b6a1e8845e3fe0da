"""Where things are: files shipped with the project, weights, data mirrors, caches and runs."""

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from fusionlab.errors import UserError

PACKAGE = Path(__file__).parent


def asset(relative: str) -> Path:
    """A file shipped with the project: `papers/...`, `weights/...` or `figures/...`.

    In the wheel these lie in `fusionlab/assets`; in a checkout in `data/` and `figures/`.
    Raises UserError where the file is in neither.
    """
    checkout = PACKAGE.parent
    for candidate in (PACKAGE / "assets" / relative, checkout / "data" / relative, checkout / relative):
        if candidate.exists():
            return candidate
    raise UserError(f"{relative} is not part of this installation; reinstall fusionlab-course")


def find_weights(relative: str) -> Path | None:
    """First file of this path in the folders of FUSIONLAB_WEIGHTS (separated as in PATH) or the cache."""
    named = os.environ.get("FUSIONLAB_WEIGHTS", "").split(os.pathsep)
    folders = [*(Path(folder) for folder in named if folder), cache()]
    return next((folder / relative for folder in folders if (folder / relative).is_file()), None)


def mirror() -> Path | None:
    """The folder FUSIONLAB_MIRROR names, laid out like the registry; None where unset or an address."""
    folder = os.environ.get("FUSIONLAB_MIRROR", "")
    if not folder or mirror_address():
        return None
    if not Path(folder).is_dir():
        raise UserError(
            f"FUSIONLAB_MIRROR names {without_password(folder)}, which is no folder; unset it or correct it"
        )
    return Path(folder)


def mirror_address() -> str | None:
    """The http(s) address FUSIONLAB_MIRROR names, laid out like the registry; None where it is no address.

    Raises UserError where it is malformed.
    """
    address = os.environ.get("FUSIONLAB_MIRROR", "")
    if not address.lower().startswith(("http://", "https://")):
        return None
    try:
        parts = urlsplit(address)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # such as a port that is no number
        well_formed = False
    if not well_formed:  # it is not shown, since a password may stand anywhere in it
        raise UserError("FUSIONLAB_MIRROR is no well-formed address; write http(s)://host/path, %2F for /")
    return address.rstrip("/")


def without_password(text: str) -> str:
    """A text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=//)[^/\s]*@", "", text)


def printable(text: str) -> str:
    """A text that any terminal shows on one line: control characters and bytes that are no UTF-8 escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1].replace("\\udc", "\\x")
        for character in text
    )


def is_utf8(name: str | Path) -> bool:
    """Whether a name can be written into a table, a page or a record: not every file system asks for that."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def open_regular(path: str | Path) -> BinaryIO:
    """A file opened to be read; raises UserError for a pipe or device, which may never end, else OSError.

    What is opened is looked at, and not what bore the name a moment before.
    """
    _refuse_endless(path, os.stat(path).st_mode)  # so that whoever waits at a pipe goes on waiting
    stream = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  # the caller closes it
    try:
        _refuse_endless(path, os.fstat(stream.fileno()).st_mode)
    except UserError:
        stream.close()
        raise
    return stream


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer


def _refuse_endless(path: str | Path, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe or device and is not read; save its content to a file")


def cache() -> Path:
    """Where fetched data is kept: FUSIONLAB_CACHE, else `~/.cache/fusionlab`."""
    try:
        return Path(os.environ.get("FUSIONLAB_CACHE") or Path.home() / ".cache" / "fusionlab")
    except RuntimeError as error:  # a user without a home
        raise UserError(f"no place for a cache ({error}); name one in FUSIONLAB_CACHE") from error


def runs() -> Path:
    """Where runs are written: FUSIONLAB_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("FUSIONLAB_RUNS") or "runs")

"""Files that are written whole or not at all, and folders that one process at a time writes into."""

import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusionlab.errors import UserError

# Windows has no such module.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

DRAFT = re.compile(r"\..*\.[0-9a-f]{16}\.draft", re.DOTALL)  # the names of unfinished files


@contextmanager
def naming(file: str | Path) -> Iterator[None]:
    """Within, what the system says against writing (full disk, no permission) is a UserError on this file."""
    try:
        yield
    except OSError as fault:
        raise UserError(
            f"{file} cannot be written ({fault.strerror or fault}); mend that, or name another place"
        ) from fault


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """A draft beside a file, in whose place it is put in one step where the block ends well.

    Whatever else happens, the draft goes and the file stays as it was. Folders are made as needed; a link
    stays a link, to a new file. Raises UserError, which names the file, where it cannot be written, and for
    a folder or device.
    """
    with naming(file):
        target = Path(os.path.realpath(file))
        there = target.exists()
        if there and not target.is_file():
            raise UserError(f"{file} is a folder or a device; name a file")
        if there and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        target.parent.mkdir(parents=True, exist_ok=True)
        with drafted(target) as draft:
            yield draft


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """As `replacing`, for a file that is no link, in a folder that is there; raises OSError.

    The first draft of a process in a folder sweeps what killed ones left there.
    """
    if target.parent not in _swept:
        _swept.add(target.parent)
        sweep(target.parent)
    draft, handle = _begin(target)
    try:
        yield draft
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


_swept: set[Path] = set()


def _begin(target: Path) -> tuple[Path, int | None]:
    """A new draft, empty, and the handle that keeps it locked while this process lives, if a system can."""
    while True:
        draft = target.with_name(f".{target.name[:32]}.{secrets.token_hex(8)}.draft")  # not to be guessed
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is None:
            os.close(handle)
            return draft, None
        with suppress(OSError):  # some network drives have no locks; there nobody sweeps
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return draft, handle
        os.close(handle)  # another process swept it before it was locked


def sweep(folder: Path) -> None:
    """Removes the drafts that killed processes of this user left in a folder: those that nobody locks."""
    for draft in [path for path in folder.iterdir() if DRAFT.fullmatch(path.name)]:
        # It may be gone by now, or not ours to remove: what is to be written goes on.
        with suppress(OSError):
            _remove_if_left(draft)


def _remove_if_left(draft: Path) -> None:
    found = draft.lstat()
    if fcntl is None or not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        return
    handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), draft.lstat()):
            draft.unlink()
    finally:
        os.close(handle)


def write_bytes(file: str | Path, content: bytes) -> None:
    """Writes a file as `replacing` does; into a device or pipe, such as /dev/stdout, as into any other."""
    if _is_stream(file):
        with naming(file), open(file, "wb") as stream:
            stream.write(content)
        return
    with replacing(file) as draft:
        draft.write_bytes(content)


def write_text(file: str | Path, text: str) -> None:
    r"""As write_bytes, in UTF-8; of a name that is none, odd bytes stand as \udcff."""
    write_bytes(file, text.encode("utf-8", "backslashreplace"))


def _is_stream(file: str | Path) -> bool:
    with naming(file):
        path = Path(os.path.abspath(file))
        return path.is_relative_to("/dev") or path.is_fifo() or path.is_char_device() or path.is_socket()


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Within, this process alone holds a folder that is there; at its death, however it dies, it lets go.

    Raises UserError where another process holds it, unless told to `wait` for that one's end. A system that
    cannot lock is said so on stderr.
    """
    if fcntl is None:
        _no_lock(folder)
        yield
        return
    handle = os.open(folder, os.O_RDONLY)  # the folder itself, so that no file of ours is left in it
    try:
        lock(handle, folder, wait)
        yield
    finally:
        os.close(handle)


def lock(handle: int, name: Path, wait: bool = True) -> None:
    """Locks an open file or folder until it is closed; the rules are those of `locked`."""
    if fcntl is None:
        _no_lock(name)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise UserError(
            f"another process is writing into {name}; wait for its end, or name another folder"
        ) from None
    except OSError:  # some network drives have none
        _no_lock(name)


_told: set[str] = set()


def _no_lock(name: Path) -> None:
    if str(name) not in _told:
        _told.add(str(name))
        print(
            f"{name} cannot be locked on this system: see that one process alone writes there",
            file=sys.stderr,
        )

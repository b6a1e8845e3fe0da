"""Files that are written whole or not at all, and folders that one process at a time writes into."""

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fusionlab.errors import UserError

# Windows has no such module.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None


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
        draft = target.with_name(
            f".{target.name[:32]}.{secrets.token_hex(8)}"
        )  # short, and not to be guessed
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield draft
            if there:
                draft.chmod(stat.S_IMODE(target.stat().st_mode))
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)


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

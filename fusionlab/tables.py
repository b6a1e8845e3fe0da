"""Tables on disk: which files they may not replace, and rows that are there as soon as they are known."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from fusionlab.errors import UserError
from fusionlab.files import naming, write_text


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raises UserError where a file to write is one of those read (links count), or is to be written twice.

    None stands for a file that nobody asked for.
    """
    read = {_identity(file) for file in inputs if file.exists()}
    seen: set[Path] = set()
    for file in filter(None, outputs):
        if file.is_dir():
            raise UserError(f"{file} is a folder; name a file to write")
        if resolved(file).exists() and _identity(resolved(file)) in read:
            raise UserError(f"{file} is one of the input images; choose another output")
        if resolved(file) in seen:
            raise UserError(f"{file} is to hold two results; name a file for each")
        seen.add(resolved(file))


def resolved(file: Path) -> Path:
    """The file that is meant, its folder freed from links and "..", existing or not; itself it may be a link.

    A path through a folder yet to be made, as new/../i.png, exists only afterwards.
    """
    return file.parent.resolve() / file.name


def _identity(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


class RowFile:
    """A table of which every row is there as soon as it is known: what an end by force leaves is whole.

    The first row replaces what the file held; a device or pipe takes no rows, but the text at the end.
    """

    def __init__(self, file: Path, header: str) -> None:
        self.file, self.header = file, header
        self.begun = False

    def add(self, row: str) -> None:
        """Writes one row, its line end included; raises UserError, the row taken back, where that fails."""
        if self.file.exists() and not self.file.is_file():
            return
        if not self.begun:
            write_text(self.file, self.header + row)
            self.begun = True
            return
        with naming(self.file), self.file.open("ab", buffering=0) as table:
            before, data = table.tell(), row.encode("utf-8", "backslashreplace")
            try:
                if table.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                table.truncate(before)
                raise

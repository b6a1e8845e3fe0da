"""Copies of registered files on this machine: where they lie, and whether they are what is registered.

No torch, so that listing, fetching and verifying start at once.
"""

import hashlib
from pathlib import Path

from fusionlab import paths
from fusionlab.data.imagefile import read_bytes
from fusionlab.data.registry import File
from fusionlab.errors import UserError


def locate(file: File) -> Path | None:
    """Where a file lies: cache or mirror folder; FUSIONLAB_WEIGHTS or cache for weights; None if nowhere."""
    if file.role == "weights":
        return paths.find_weights(file.path)
    roots = [root for root in (paths.cache(), paths.mirror()) if root is not None]
    return next((root / file.path for root in roots if (root / file.path).is_file()), None)


class WrongBytesError(UserError):
    """A file that can be read and is not the registered one."""


def read_verified(file: File, path: Path) -> bytes:
    """The bytes of a file; raises UserError where it cannot be read, WrongBytesError where it is another."""
    data = read_bytes(path, file.bytes + 1)  # one byte more tells a longer file
    if len(data) != file.bytes:
        found = f"{len(data)} bytes" if len(data) < file.bytes else f"more than {file.bytes} bytes"
        raise WrongBytesError(f"{path} has {found}, registered are {file.bytes}; fetch it again")
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise WrongBytesError(f"{path} differs from the registered file (SHA-256); fetch it again")
    return data

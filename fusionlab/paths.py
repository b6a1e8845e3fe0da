"""Where things are: files shipped with the project, weights, data mirrors, caches and runs."""

import os
from pathlib import Path

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
        raise UserError(f"FUSIONLAB_MIRROR names {folder}, which is no folder; unset it or correct it")
    return Path(folder)


def mirror_address() -> str | None:
    """The http(s) address FUSIONLAB_MIRROR names, laid out like the registry; None where it is no address."""
    address = os.environ.get("FUSIONLAB_MIRROR", "")
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None


def cache() -> Path:
    """Where fetched data is kept: FUSIONLAB_CACHE, else `~/.cache/fusionlab`."""
    try:
        return Path(os.environ.get("FUSIONLAB_CACHE") or Path.home() / ".cache" / "fusionlab")
    except RuntimeError as error:  # a user without a home
        raise UserError(f"no place for a cache ({error}); name one in FUSIONLAB_CACHE") from error


def runs() -> Path:
    """Where runs are written: FUSIONLAB_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("FUSIONLAB_RUNS") or "runs")

"""Counts what was tried, and offers disks that are full."""

import subprocess

import pytest

from .places import fill, small_disk

TRIED: dict[str, int] = {}


@pytest.fixture
def tried():
    """Adds to a count that is printed at the end: tried("flipped bits", 300)."""
    return lambda what, count: TRIED.__setitem__(what, TRIED.get(what, 0) + count)


def pytest_terminal_summary(terminalreporter):
    for what, count in TRIED.items():
        terminalreporter.write_line(f"hostile: {count} {what}")


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB and a function that fills it; skips where nothing may be mounted."""
    try:
        with small_disk(tmp_path / "disk") as place:
            yield place, lambda: fill(place)
    except (OSError, FileNotFoundError, subprocess.SubprocessError) as fault:
        pytest.skip(f"no small disk can be mounted: {fault}")

"""A campaign of hostile inputs and kills; what was tried is counted and printed at the end.

The whole of it runs with FUSIONLAB_NIGHTLY=1, a fast part without.
"""

import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from .places import fill, small_disk

sys.path.append(str(Path(__file__).parents[1] / "data"))

from badserver import mirror, server  # noqa: E402, F401  # fixtures

TALLY: Counter[str] = Counter()
TRIED: dict[str, int] = {}


@pytest.fixture
def tally() -> Counter[str]:
    """Counts "inputs" and "kills"."""
    return TALLY


@pytest.fixture
def tried():
    """Adds to a count that is printed at the end: tried("flipped bits", 300)."""
    return lambda what, count: TRIED.__setitem__(what, TRIED.get(what, 0) + count)


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB and a function that fills it; skips where nothing may be mounted."""
    try:
        with small_disk(tmp_path / "disk") as place:
            yield place, lambda: fill(place)
    except (OSError, FileNotFoundError, subprocess.SubprocessError) as fault:
        pytest.skip(f"no small disk can be mounted: {fault}")


@pytest.fixture
def within():
    """A context that fails where its body takes longer than some seconds: a hang must not hang the tests."""

    def late(*_: object) -> None:
        raise TimeoutError("still at it")

    @contextmanager
    def limit(seconds: float):
        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return limit


def pytest_terminal_summary(terminalreporter):
    for what, count in TRIED.items():
        terminalreporter.write_line(f"hostile: {count} {what}")
    terminalreporter.write_line(f"hostile: {TALLY['inputs']} inputs, {TALLY['kills']} kills")

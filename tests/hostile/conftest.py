"""A campaign of hostile inputs and kills; what was tried is counted and printed at the end.

The whole of it runs with FUSIONLAB_NIGHTLY=1, a fast part without.
"""

import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "data"))

from badserver import mirror, server  # noqa: E402, F401  # fixtures

TALLY: Counter[str] = Counter()


@pytest.fixture
def tally() -> Counter[str]:
    """Counts "inputs" and "kills"."""
    return TALLY


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
    terminalreporter.write_line(f"hostile: {TALLY['inputs']} inputs, {TALLY['kills']} kills")

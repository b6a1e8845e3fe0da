"""A campaign of hostile inputs and kills; what was tried is counted and printed at the end.

The whole of it runs with FUSIONLAB_NIGHTLY=1, a fast part without.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from .places import fill, small_disk

sys.path.append(str(Path(__file__).parents[1] / "data"))

from badserver import mirror, server  # noqa: E402, F401  # fixtures


@pytest.fixture
def tally(record_property) -> Iterator[Counter[str]]:
    """What this test tries: "inputs", "kills" or a kind of its own; the sums are printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    record_property("tally", dict(counts))


@pytest.fixture
def tried(tally):
    """Adds to the tally: tried("flipped bits", 300)."""
    return lambda what, count: tally.update({what: count})


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 kB and a function that fills it; skips where nothing may be mounted."""
    try:
        with small_disk(tmp_path / "disk") as place:
            yield place, lambda: fill(place)
    except (OSError, FileNotFoundError, subprocess.SubprocessError) as fault:
        pytest.skip(f"no small disk can be mounted: {fault}")

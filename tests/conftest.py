"""Points the tests at the shared data where it exists and counts what is skipped without it."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("FUSIONLAB_SHARED") or ROOT.parent / "shared")
NEEDS_SHARED = "needs the shared data beside the checkout"

TALLY: Counter[str] = Counter()  # of what tests/hostile tried

HAS_SHARED = (SHARED / "data" / "manifest.csv").is_file()

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is loaded
if "GIT_CONFIG_COUNT" not in os.environ:  # git refuses a checkout of another user unless told
    os.environ |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
settings.register_profile("fusionlab", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("fusionlab")

if HAS_SHARED:
    os.environ.setdefault("FUSIONLAB_MIRROR", str(SHARED / "data"))
    os.environ.setdefault(
        "FUSIONLAB_WEIGHTS", os.pathsep.join([str(SHARED / "official"), str(SHARED / "weights")])
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, golden values and official weights; skips where it is absent."""
    if not HAS_SHARED:
        pytest.skip(NEEDS_SHARED)
    return SHARED


@pytest.fixture(scope="session")
def make() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs make in `cwd`, as from a plain shell; skips where there is no make."""
    if shutil.which("make") is None:
        pytest.skip("make is not on PATH")
    plain = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL"}}

    def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *arguments], cwd=cwd, env=plain, capture_output=True, text=True)

    return run


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: a process for each core that this one may use; each may take 1 GB of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8)


def pytest_collection_modifyitems(items):
    """What is marked `nightly` takes long and runs where FUSIONLAB_NIGHTLY is set."""
    if not os.environ.get("FUSIONLAB_NIGHTLY"):
        items[:] = [item for item in items if item.get_closest_marker("nightly") is None]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With the shared data present, a test skipped for lack of it is a failure."""
    report = yield
    if report.skipped and HAS_SHARED and NEEDS_SHARED in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped although {SHARED.name} is present: {report.longrepr}"
    return report


def pytest_runtest_logreport(report):
    """Adds up what tests tried; it comes in their reports, from whichever process ran them."""
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == "tally":
                TALLY.update(value)


def pytest_terminal_summary(terminalreporter):
    for what in sorted(TALLY.keys() - {"inputs", "kills"}):
        terminalreporter.write_line(f"hostile: {TALLY[what]} {what}")
    if TALLY:
        terminalreporter.write_line(f"hostile: {TALLY['inputs']} inputs, {TALLY['kills']} kills")
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if NEEDS_SHARED in str(r.longrepr)]
    terminalreporter.write_line(f"skipped for lack of the shared data: {len(skipped)}")

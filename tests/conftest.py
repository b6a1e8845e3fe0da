"""Points the tests at the shared data where it exists and counts what is skipped without it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("FUSIONLAB_SHARED") or ROOT.parent / "shared")
NEEDS_SHARED = "needs the shared data beside the checkout"

if SHARED.is_dir():
    os.environ.setdefault("FUSIONLAB_MIRROR", str(SHARED / "data"))
    os.environ.setdefault(
        "FUSIONLAB_WEIGHTS", os.pathsep.join([str(SHARED / "official"), str(SHARED / "weights")])
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, golden values and official weights; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(NEEDS_SHARED)
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With the shared data present, a test skipped for lack of it is a failure."""
    report = yield
    if report.skipped and SHARED.is_dir() and NEEDS_SHARED in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped although {SHARED.name} is present: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if NEEDS_SHARED in str(r.longrepr)]
    terminalreporter.write_line(f"skipped for lack of the shared data: {len(skipped)}")

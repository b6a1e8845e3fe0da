"""The course's notebooks, and a kernel for them that cannot reach the network."""

import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def pytest_generate_tests(metafunc):
    """One test a notebook for every test that takes a `path`."""
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@pytest.fixture(scope="session")
def notebooks() -> list[Path]:
    return NOTEBOOKS


@pytest.fixture
def notebook(path):
    """The stored notebook, as a tree of cells."""
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="session")
def offline() -> dict[str, str]:
    """Variables of a kernel that can reach nothing but this machine."""
    guard = str(Path(__file__).parent / "offline")
    python_path = [guard, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(python_path), "OMP_NUM_THREADS": "1"}

"""What a user gets from the wheel, away from the checkout: package, assets, a notebook that runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
ASSETS = {
    "papers": ROOT / "data" / "papers",
    "weights": ROOT / "data" / "weights",
    "figures": ROOT / "figures",
}


def python(*arguments: str | Path, cwd: Path, **variables: str) -> str:
    """The output of this interpreter in a folder outside the checkout; fails with its stderr."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the unpacked wheel; as PYTHONPATH it comes before the editable installation."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    offline = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    python("-m", "pip", "wheel", *offline, "--no-build-isolation", "--wheel-dir", wheels, ROOT, cwd=wheels)
    (wheel,) = wheels.glob("fusionlab_course-*-py3-none-any.whl")
    python("-m", "pip", "install", *offline, "--target", site, wheel, cwd=wheels)
    return site


def test_package_comes_from_the_wheel(site, tmp_path):
    where = python("-c", "import fusionlab; print(fusionlab.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where).is_relative_to(site)
    assert (site / "fusionlab" / "data" / "registry.csv").is_file()
    assert not (site / "tests").exists()


def test_assets_are_those_of_the_checkout(site, tmp_path):
    for kind, folder in ASSETS.items():
        expected = {
            path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        shipped = site / "fusionlab" / "assets" / kind
        assert expected, f"{folder.name} is empty"
        assert {path: (shipped / path).read_bytes() for path in expected} == expected
    names = {path.name for folder in ASSETS.values() for path in folder.rglob("*")}
    assert {"mmdrfuse.csv", "records.csv"} <= names
    code = "from fusionlab.paths import asset; print(asset('papers/mmdrfuse.csv'))"
    found = python("-c", code, cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(found).is_relative_to(site)


def test_shipped_weights_load(site, tmp_path):
    (tmp_path / "none").mkdir()
    code = """
import torch, fusionlab
image = torch.rand(1, 1, 17, 16, generator=torch.Generator().manual_seed(0))
print(tuple(fusionlab.load("mmdrfuse")(image, 1 - image).shape))
"""
    shape = python("-c", code, cwd=tmp_path, PYTHONPATH=str(site), FUSIONLAB_WEIGHTS=str(tmp_path / "none"))
    assert shape.splitlines()[-1] == "(1, 1, 17, 16)"


def test_command_line(site, tmp_path):
    name = "fusionlab.exe" if os.name == "nt" else "fusionlab"
    done = subprocess.run(
        [site / "bin" / name, "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "reproduce" in done.stdout


def test_first_notebook_runs(site, tmp_path):
    notebook = tmp_path / NOTEBOOK.name
    notebook.write_bytes(NOTEBOOK.read_bytes())
    settings = {
        "PYTHONPATH": str(site),
        "FUSIONLAB_PROFILE": "smoke",
        "FUSIONLAB_RUNS": str(tmp_path / "runs"),
    }
    options = [
        "--no-progress-bar",
        "--execution-timeout",
        "120",
        "--kernel",
        "python3",
        "-p",
        "data",
        "scenes",
    ]
    python("-m", "papermill", notebook, tmp_path / "done.ipynb", *options, cwd=tmp_path, **settings)
    assert (tmp_path / "done.ipynb").is_file()

"""What a user gets from the wheel in an environment of its own: package, assets, a notebook that runs."""

import os
import subprocess
import sys
import sysconfig
import venv
from fnmatch import fnmatch
from pathlib import Path

import nbformat
import pytest

import fusionlab
from fusionlab.bench import records

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "00_start_here.ipynb"
ASSETS = {
    "papers": ROOT / "data" / "papers",
    "weights": ROOT / "data" / "weights",
    "figures": ROOT / "figures",
}
OURS = ("*fusionlab*", "__editable__*", "*.pth", "__pycache__")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


def output(program: str | Path, *arguments: str | Path, cwd: Path) -> str:
    """What a program prints in `cwd`, with no variable that leads to the checkout; fails with its stderr."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("FUSIONLAB_", "PYTHON"))}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def link_requirements(links: Path) -> None:
    """Fills a folder with links to what is installed here, all but fusionlab and what leads to it."""
    links.mkdir()
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            if not any(fnmatch(entry.name, pattern) for pattern in OURS):
                (links / entry.name).symlink_to(entry)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A new environment that holds the wheel, and fusionlab by nothing else."""
    folder = tmp_path_factory.mktemp("installed").resolve()
    home, links, python = folder / "venv", folder / "requirements", folder / "venv" / "bin" / "python"
    venv.create(home, symlinks=True, with_pip=False)
    link_requirements(links)
    site = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder))
    (site / "requirements.pth").write_text(f"{links}\n", encoding="utf-8")
    find = "import importlib.util, torch; print(importlib.util.find_spec('fusionlab'))"
    assert output(python, "-c", find, cwd=folder) == "None"

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--quiet", "--no-deps", "--no-index"]
    output(*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("fusionlab_course-*-py3-none-any.whl")
    output(*pip, "--python", python, "install", *offline, wheel, cwd=folder)
    return home


def test_package_comes_from_the_wheel(installed, tmp_path):
    where = output(
        installed / "bin" / "python", "-c", "import fusionlab; print(fusionlab.__file__)", cwd=tmp_path
    )
    package = Path(where).parent
    assert package.is_relative_to(installed)
    assert (package / "data" / "registry.csv").is_file()
    assert not (package.parent / "tests").exists()


def test_assets_are_those_of_the_checkout(installed, tmp_path):
    find = "from fusionlab.paths import asset; print(asset('papers').parent)"
    assets = Path(output(installed / "bin" / "python", "-c", find, cwd=tmp_path))
    assert assets.is_relative_to(installed)
    for kind, folder in ASSETS.items():
        paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        expected = {path: (folder / path).read_bytes() for path in paths}
        assert {path: (assets / kind / path).read_bytes() for path in paths} == expected
    needed = ("papers/mmdrfuse.csv", "weights/mmdrfuse_student.safetensors", "figures/mmdrfuse/records.csv")
    assert all((assets / name).is_file() for name in needed)


def test_shipped_weights_load(installed, tmp_path):
    code = """
import torch, fusionlab
image = torch.rand(1, 1, 17, 16, generator=torch.Generator().manual_seed(0))
print(tuple(fusionlab.load("mmdrfuse")(image, 1 - image).shape))
"""
    assert output(installed / "bin" / "python", "-c", code, cwd=tmp_path) == "(1, 1, 17, 16)"


def test_the_doctor_finds_nothing_of_ours_missing(installed, tmp_path):
    found = output(installed / "bin" / "fusionlab", "doctor", cwd=tmp_path)
    assert f"fusionlab {fusionlab.__version__}" in found
    assert "mmdrfuse, weights ours: absent" not in found


def test_first_notebook_runs(installed, tmp_path):
    notebook = nbformat.read(NOTEBOOK, 4)
    whose = f"import pathlib\nassert pathlib.Path(fusionlab.__file__).is_relative_to({str(installed)!r})"
    notebook.cells.append(nbformat.v4.new_code_cell(whose))
    nbformat.write(notebook, tmp_path / NOTEBOOK.name)
    output(installed / "bin" / "fusionlab", "run", NOTEBOOK.name, "--profile", "smoke", cwd=tmp_path)
    (run,) = (tmp_path / "runs").iterdir()
    assert nbformat.read(run / "notebooks" / NOTEBOOK.name, 4).cells[-1].execution_count
    made = records.read(run)
    assert {record.run.commit for record in made} == {f"wheel-{fusionlab.__version__}"}

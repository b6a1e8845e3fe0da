"""The requirements stand in several files, for several installers: they must say the same."""

import csv
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import fusionlab

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def lower_bounds(requirements: list[str]) -> dict[str, Version]:
    """Package to lower bound; every requirement must be of the form `name>=bound`."""
    bounds = {}
    for requirement in map(Requirement, requirements):
        (only,) = requirement.specifier
        assert only.operator == ">=", f"{requirement}: lower bounds only"
        bounds[requirement.name] = Version(only.version)
    return bounds


DECLARED = lower_bounds([*PROJECT["dependencies"], *EXTRAS["course"], *EXTRAS["dev"]])


def files(root: Path = ROOT) -> list[Path]:
    """The files of the checkout that git tracks or would track; without git, those not ignored."""
    if not (root / ".git").exists():  # a repository further up knows nothing of this folder
        return list(walk(root, ignored(root)))
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        names = subprocess.run(listing, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return list(walk(root, ignored(root)))
    return [root / name for name in names if name and (root / name).is_file()]


def ignored(root: Path) -> list[str]:
    """The names in .gitignore, all of them folders at any depth, and git's own."""
    lines = (root / ".gitignore").read_text(encoding="utf-8").split()
    assert all(re.fullmatch(r"[^/]+/", line) for line in lines)
    return [".git", *(line.rstrip("/") for line in lines)]


def walk(folder: Path, left_out: list[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, name) for name in left_out):
            continue
        if path.is_dir():
            yield from walk(path, left_out)
        else:
            yield path


@pytest.mark.parametrize("refusal", ["no .git", "no git", "git fails"])
def test_files_are_found_without_git(tmp_path, monkeypatch, refusal):
    kept, left_out = ["a.txt", "pkg/b.py"], [".venv/bin/x", "pkg/__pycache__/y", "x.egg-info/z"]
    for name in kept + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    if refusal != "no .git":
        (tmp_path / ".git").write_text("gitdir: nowhere", encoding="utf-8")
    if refusal == "no git":
        monkeypatch.setenv("PATH", "")
    found = {path.relative_to(tmp_path).as_posix() for path in files(tmp_path)}
    assert found == {".gitignore", *kept}


def test_conda_asks_for_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    asked = lower_bounds([line for line in conda if line != "pip" and not line.startswith("python ")])
    assert asked.pop("lpips") == Version("0.1.4")
    assert {CONDA_NAMES.get(name, name): bound for name, bound in asked.items()} == DECLARED
    assert pip == {"pip": ["--editable ."]}
    (python,) = (line for line in conda if line.startswith("python "))
    assert PROJECT["requires-python"] in python


def test_colab_has_what_we_ask_for():
    """Its packages stay as they are on `pip install`; versions of the runtime image of August 2026."""
    with (ROOT / "tests" / "colab.csv").open(encoding="utf-8", newline="") as table:
        colab = {row["package"]: Version(row["version"]) for row in csv.DictReader(table)}
    assert set(lower_bounds(PROJECT["dependencies"])) <= set(colab)
    newer = {name: bound for name, bound in DECLARED.items() if name in colab and bound > colab[name]}
    assert not newer


def test_constraints_pin_every_requirement_and_name_no_index():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for line in lines:
        if not line.startswith("#"):
            assert (pin := re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line)), line
            pins[pin[1].lower().replace("_", "-")] = Version(pin[2])
    assert "lpips" in pins
    assert "torchvision" not in pins
    too_old = {name: bound for name, bound in DECLARED.items() if pins[name] < bound}
    assert not too_old


def test_lpips_is_no_requirement():
    """It requires torchvision, which exchanges torch; `make setup` adds it without its requirements."""
    assert not {"lpips", "torchvision"} & set(DECLARED)


def test_version_stands_in_one_place():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert version(PROJECT["name"]) == fusionlab.__version__ == citation["version"]
    assert len(citation["references"]) == 5


def test_public_address_stands_in_one_place():
    """Notebooks carry it in their badge, written there when they are built."""
    slug = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    holders = {
        path.relative_to(ROOT).as_posix()
        for path in files()
        if path.suffix != ".ipynb" and slug.encode() in path.read_bytes()
    }
    assert holders == {"pyproject.toml"}


def test_no_package_index_but_the_vendors_for_torch():
    """A mirror's address would make the lists useless elsewhere; torch's CPU builds have a public index."""
    index = re.compile(
        rb"(?:index-url|find-links|INDEX)[\"']?[ =:]+[\"']?((?:https?|file)://[\w./-]+\w)", re.I
    )
    named = {host.decode() for path in files() for host in index.findall(path.read_bytes())}
    assert named == {"https://download.pytorch.org/whl/cpu"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for job in workflow["jobs"].values():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        made = [command.split()[1] for command in commands if command.startswith("make ")]
        assert made
        assert set(made) <= set(targets)


def test_ci_runs_make_test_and_nothing_else():
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert set(ci[True]) == {"push", "pull_request"}  # YAML reads the key `on` as a boolean
    (job,) = ci["jobs"].values()
    *prepared, last = job["steps"]
    assert all(step["uses"].startswith(("actions/checkout@", "actions/setup-python@")) for step in prepared)
    assert last == {"run": "make test"}
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines() == ["#!/bin/sh", "exec make test"]
    assert os.name == "nt" or script.stat().st_mode & stat.S_IXUSR


def test_nightly_keeps_what_it_ran():
    nightly = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8"))
    (job,) = nightly["jobs"].values()
    assert any("PROFILE=laptop" in step.get("run", "") for step in job["steps"])
    assert any("--nbval" in step.get("run", "") for step in job["steps"])
    assert any("upload-artifact" in step.get("uses", "") for step in job["steps"])


def test_nightly_runs_what_is_marked_so():
    nightly = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8"))
    (job,) = nightly["jobs"].values()
    whole = [
        step
        for step in job["steps"]
        if step.get("run", "").startswith(".venv/bin/python -m pytest --durations")
    ]
    assert [step["env"].get("FUSIONLAB_NIGHTLY") for step in whole] == ["1"]
    marked = [path for path in files() if path.suffix == ".py" and b"mark.nightly" in path.read_bytes()]
    assert len(marked) > 2


def test_make_help_lists_every_command(make):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    listed = re.findall(r"^make (\w+) ", make("help", cwd=ROOT).stdout, re.MULTILINE)
    assert listed == phony[1].split()


def interpreter(path: Path, version: tuple[int, int], missing: str = "") -> Path:
    """A stand-in for a Python of that version, from which a module may be missing."""
    pretend = f"import sys; sys.version_info = {version}; sys.modules[{missing!r}] = None; exec(sys.argv[1])"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$2"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def fresh(tmp_path) -> Path:
    """A checkout in which nothing was set up."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "version, missing, message",
    [
        ((3, 10), "", "needs Python 3.11, 3.12 or 3.13"),
        ((3, 14), "", "needs Python 3.11, 3.12 or 3.13"),
        ((3, 11), "ensurepip", "install its venv package"),
    ],
)
def test_setup_refuses_an_unfit_python(make, fresh, version, missing, message):
    unfit = interpreter(fresh / "unfit", version, missing)
    refused = make("setup", f"PYTHON={unfit}", cwd=fresh)
    assert refused.returncode != 0
    assert message in refused.stderr
    assert str(unfit) in refused.stderr
    assert not (fresh / ".venv").exists()


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_setup_refuses_an_environment_of_an_unfit_python(make, fresh, version):
    interpreter(fresh / ".venv" / "bin" / "python", version)
    refused = make("setup", "PYTHON=false", cwd=fresh)
    assert refused.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and .venv is not; remove it with make clean" in refused.stderr
    assert not (fresh / ".venv" / "ready").exists()


@pytest.mark.parametrize("version", [(3, 11), (3, 13)])
def test_setup_goes_on_with_an_environment_of_a_fit_python(make, fresh, version):
    """This one has no pip, so that it is made anew: the next to be asked is PYTHON."""
    interpreter(fresh / ".venv" / "bin" / "python", version)
    refused = make("setup", "PYTHON=false", cwd=fresh)
    assert "needs Python 3.11, 3.12 or 3.13, and false is not" in refused.stderr

"""The requirements stand in several files, for several installers: they must say the same."""

import csv
import os
import re
import stat
import subprocess
import tomllib
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


def files() -> list[Path]:
    """The files of the checkout that git tracks or would track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


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
        assert any("upload-artifact" in step.get("uses", "") for step in job["steps"])


def test_ci_runs_make_test():
    triggers = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))[
        True
    ]  # `on` is a boolean
    assert set(triggers) == {"push", "pull_request"}
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines() == ["#!/bin/sh", "exec make test"]
    assert os.name == "nt" or script.stat().st_mode & stat.S_IXUSR


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    plain = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(["make", *arguments], cwd=cwd, env=plain, capture_output=True, text=True)


def test_make_help_lists_every_command():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    listed = re.findall(r"^make (\w+) ", make("help", cwd=ROOT).stdout, re.MULTILINE)
    assert listed == phony[1].split()


@pytest.mark.parametrize(
    "python, message",
    [
        ("exit 1", "needs Python 3.11, 3.12 or 3.13"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "install its venv package"),
    ],
    ids=["too old", "without pip"],
)
def test_setup_refuses_an_unfit_python(tmp_path, python, message):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    unfit = tmp_path / "unfit"
    unfit.write_text(f"#!/bin/sh\n{python}\n", encoding="utf-8")
    unfit.chmod(0o755)
    refused = make("setup", f"PYTHON={unfit}", cwd=tmp_path)
    assert refused.returncode != 0
    assert message in refused.stderr
    assert not (tmp_path / ".venv").exists()

"""The README's commands do what it says; make test runs in CI, make reproduce every night."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from fusionlab.data import open_pairs, write_image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with what the commands name: one pair of files, a folder of pairs, the notebooks."""
    folder = tmp_path_factory.mktemp("reader")
    for number, pair in enumerate(open_pairs("scenes", n=2, size=(96, 128)), start=1):
        write_image(pair.ir, folder / "tno" / "ir" / f"{number:02d}.png")
        write_image(pair.colour(pair.vi), folder / "tno" / "vis" / f"{number:02d}.png")
    shutil.copyfile(folder / "tno" / "ir" / "01.png", folder / "ir.png")
    shutil.copyfile(folder / "tno" / "vis" / "01.png", folder / "vis.png")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


def test_the_two_commands_stand_on_the_first_screen():
    screen = "\n".join(README.splitlines()[:24])
    assert "make reproduce" in screen
    assert "make test" in screen


def test_every_make_target_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert named >= {"reproduce", "test", "setup", "bench", "notebooks", "student", "lock", "clean"}
    assert named <= targets


def test_make_help_names_what_the_readme_does(make):
    helped = make("help", cwd=ROOT)
    assert helped.returncode == 0, helped.stderr
    listed = set(re.findall(r"^make (\w+) ", helped.stdout, re.MULTILINE))
    assert listed >= set(re.findall(r"\bmake ([a-z]+)", README))


def test_make_student_writes_the_edition_without_solutions(make, tmp_path):
    """In a copy, so that nobody's half-solved exercises in build/student are overwritten."""
    shutil.copytree(ROOT / "fusionlab", tmp_path / "fusionlab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    done = make("-o", ".venv/ready", f"BIN={Path(sys.executable).parent}", "student", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.name: nbformat.read(path, 4) for path in (tmp_path / "build" / "student").iterdir()}
    assert set(written) == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    tags = [tag for book in written.values() for cell in book.cells for tag in cell.metadata.get("tags", [])]
    assert "exercise" in tags
    assert "solution" not in tags


@pytest.mark.parametrize("target", ["bench", "notebooks", "lock", "clean"])
def test_the_other_make_commands_are_sound(make, target):
    planned = make("-n", "-o", ".venv/ready", target, cwd=ROOT)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.strip()
    assert "pip install" not in planned.stdout


def test_every_measured_figure_is_filled_in():
    prose = re.sub(r"```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    assert re.findall(r"\b(?:SETUP|REPRODUCE|TEST|SIZE)\b", prose) == []


def test_the_shell_commands_succeed_in_order(workplace):
    commands = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")
    ]
    assert len(commands) >= 6
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=workplace,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (workplace / "fused.png").is_file()
    assert len(list((workplace / "fused").iterdir())) == 2


def test_the_python_lines_run(workplace):
    (code,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 8
    for link in links:
        assert (ROOT / link).exists(), link

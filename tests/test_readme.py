"""The README's commands do what it says; make test runs in CI, make reproduce every night."""

import re
import shlex
import shutil
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

import fusionlab
from fusionlab import cli
from fusionlab.data import open_pairs, write_image
from fusionlab.processes import in_processes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The folder one is in, with what the commands name: a pair of files, a folder of pairs, notebooks.

    The notebooks have the names of the course's and one short cell; tests/notebooks runs the real ones.
    """
    for number, pair in enumerate(open_pairs("scenes", n=2, size=(48, 64)), start=1):
        write_image(pair.ir, tmp_path / "tno" / "ir" / f"{number:02d}.png")
        write_image(pair.colour(pair.vi), tmp_path / "tno" / "vis" / f"{number:02d}.png")
    shutil.copyfile(tmp_path / "tno" / "ir" / "01.png", tmp_path / "ir.png")
    shutil.copyfile(tmp_path / "tno" / "vis" / "01.png", tmp_path / "vis.png")
    (tmp_path / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        short = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
        nbformat.write(short, tmp_path / "notebooks" / path.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    return tmp_path


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


def test_the_shell_commands_succeed_in_order(workplace, monkeypatch):
    """In this process, which has torch already; tests/test_cli.py starts new ones, and several workers."""
    monkeypatch.setattr("fusionlab.batch.in_processes", lambda work, jobs, _: in_processes(work, jobs))
    commands = [
        line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")
    ]
    assert len(commands) >= 6
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "fusionlab"
        done = CliRunner().invoke(cli.app, arguments)
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    assert (workplace / "fused.png").is_file()
    assert len(list((workplace / "fused").iterdir())) == 2
    (page,) = (workplace / "runs").glob("*/index.html")
    assert "00_start_here" in page.read_text("utf-8")
    (script,) = entry_points(group="console_scripts", name="fusionlab")
    assert script.value == "fusionlab.cli:app"


def test_the_python_lines_run(capsys, monkeypatch):
    monkeypatch.setattr(fusionlab, "open_pairs", partial(open_pairs, size=(48, 64)))
    (code,) = blocks("python")
    names = {}
    exec(code, names)
    assert "reference" in capsys.readouterr().out
    assert names["picture"].shape == (1, 3, 48, 64) and names["image"].shape == (1, 1, 48, 64)


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) >= 8
    for link in links:
        assert (ROOT / link).exists(), link

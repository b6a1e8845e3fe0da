"""Notebooks as stored, and as students get them: `python -m fusionlab.tools.edition build|student`."""

import argparse
import copy
import hashlib
import re
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusionlab.errors import UserError
from fusionlab.paths import PACKAGE

ROOT = PACKAGE.parent
COLAB = "https://colab.research.google.com"
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
INSTALL = re.compile(r"git\+https?://[^\s\"'#]+")
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def repository_address(root: Path | None = None) -> str:
    """The project's address, `[project.urls] Repository` of pyproject.toml; raises UserError without one."""
    path = (root or ROOT) / "pyproject.toml"
    if not path.is_file():
        raise UserError(f"there is no {path.name} beside the package; editions are made in a checkout")
    repository = tomllib.loads(path.read_text("utf-8")).get("project", {}).get("urls", {}).get("Repository")
    if not repository:
        raise UserError("pyproject.toml names no Repository in [project.urls]")
    return str(repository).removesuffix("/").removesuffix(".git")


def code_hash(notebook: Any) -> str:
    """The sha256 of all code cells' sources, in order; text and outputs do not enter."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode())
            digest.update(b"\0")
    return digest.hexdigest()


def addressed(notebook: Any, name: str, repository: str) -> Any:
    """A copy whose Colab badge and install line name `repository`."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        cell.source = INSTALL.sub(f"git+{repository}", cell.source)
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(badge(name, repository), cell.source)
    return made


def badge(name: str, repository: str) -> str:
    """The Markdown of the badge that opens a notebook in Colab."""
    place = repository.removeprefix("https://").replace("github.com/", "github/", 1)
    page = f"{COLAB}/{place}/blob/main/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({page})"


def executed(notebook: Any, folder: Path) -> Any:
    """A copy run in a fresh kernel, at `laptop` on scenes; a failing cell raises CellExecutionError."""
    from nbclient import NotebookClient

    from fusionlab.tools.notebooks import own_kernel

    surroundings = {"FUSIONLAB_PROFILE": "laptop", "FUSIONLAB_DATA": "scenes", "FUSIONLAB_RUN": ""}
    # What is stored must not depend on what else lies on the machine that builds it.
    surroundings |= {"FUSIONLAB_WEIGHTS": "", "FUSIONLAB_MIRROR": ""}
    made = copy.deepcopy(notebook)
    NotebookClient(
        made,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        kernel_manager_class=own_kernel(surroundings),
        coalesce_streams=True,
    ).execute()
    return made


def stripped(notebook: Any) -> Any:
    """A copy without what differs between two runs, and with the hash of its code.

    Kept are sources, ids, tags and outputs, but for stderr (progress bars) and widgets (live only).
    """
    made = copy.deepcopy(notebook)
    made.nbformat, made.nbformat_minor = 4, 5
    made.metadata.clear()
    made.metadata.update(
        kernelspec=KERNEL, language_info={"name": "python"}, fusionlab={"code_sha256": code_hash(made)}
    )
    for position, cell in enumerate(made.cells):
        cell.setdefault("id", f"cell-{position:02d}")
        tags = cell.metadata.get("tags", [])
        cell.metadata.clear()
        if tags:
            cell.metadata["tags"] = tags
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _stored(output)]
    return made


def _stored(output: Any) -> bool:
    if output.output_type == "stream":
        return bool(output.name != "stderr")
    return WIDGET not in output.get("data", {})


def _warnings(notebook: Any) -> list[str]:
    """Lines of stderr that an author has to see, since they are not stored."""
    streams = [output for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output]
    lines = [line for stream in streams if stream.name == "stderr" for line in stream.text.splitlines()]
    return [line for line in lines if "Warning" in line]


def student_edition(notebook: Any) -> Any:
    """A copy without solutions and outputs; its check cells say what is not solved yet instead of failing."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            # The badge opens the edition with the solutions.
            cell.source = BADGE.sub("", cell.source).strip()
        if "check" in cell.metadata.get("tags", []):
            cell.source = (
                f"try:\n{textwrap.indent(cell.source, '    ')}\n"
                'except lab.NotSolved as exercise:\n    print(f"not solved yet: {exercise}")'
            )
    made.metadata["fusionlab"] = {"edition": "student"}
    return made


def build(root: Path | None = None, only: Sequence[str] = (), check: bool = False) -> list[str]:
    """Executes `notebooks/*.ipynb` (or `only` these names) and stores them; returns what was stale.

    Stale is a notebook whose code changed since it was executed, or that names another address. With `check`
    nothing is executed or written.
    """
    import nbformat

    root = root or ROOT
    repository, stale = repository_address(root), []
    for path in _notebooks(root, only):
        old = nbformat.read(path, as_version=4)
        new = addressed(old, path.stem, repository)
        if new != old or old.metadata.get("fusionlab", {}).get("code_sha256") != code_hash(new):
            stale.append(path.name)
        if not check:
            print(f"executing {path.name}", flush=True)
            ran = executed(new, path.parent)
            print("".join(f"  {line}\n" for line in _warnings(ran)), end="")
            nbformat.write(stripped(ran), path)
    return stale


def write_students(root: Path | None = None, only: Sequence[str] = (), check: bool = False) -> list[str]:
    """Writes `build/student/*.ipynb`; returns what was stale. With `check` nothing is written."""
    import nbformat

    root, stale = root or ROOT, []
    for path in _notebooks(root, only):
        text = nbformat.writes(student_edition(nbformat.read(path, as_version=4))) + "\n"
        target = root / "build" / "student" / path.name
        if not target.exists() or target.read_text("utf-8") != text:
            stale.append(path.name)
            if not check:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
    return stale


def _notebooks(root: Path, only: Sequence[str]) -> list[Path]:
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    chosen = [path for path in paths if not only or any(path.stem.startswith(name) for name in only)]
    if not chosen:
        raise UserError(f"no notebook {', '.join(only)} in notebooks".replace("  ", " "))
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 where `--check` found something stale or the user made a mistake."""
    parser = argparse.ArgumentParser(prog="python -m fusionlab.tools.edition", description=__doc__)
    parser.add_argument("edition", choices=("build", "student"))
    parser.add_argument(
        "only", nargs="*", help="begin of the names of the notebooks, such as 00; all by default"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is stale")
    chosen = parser.parse_args(arguments)
    make = build if chosen.edition == "build" else write_students
    try:
        stale = make(only=chosen.only, check=chosen.check)
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 1
    if chosen.check and stale:
        remedy = "make notebooks" if chosen.edition == "build" else "make student"
        print(f"stale: {', '.join(stale)}; run {remedy}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

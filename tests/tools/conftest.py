"""Small notebooks for the tests of the machinery; the course's own are tested in tests/notebooks."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


@pytest.fixture
def write_notebook(tmp_path):
    """Writes a notebook of (kind, source, *tags) cells, kind being "md" or "code", and returns its path."""

    def write(name: str, *cells: tuple[str, ...]) -> Path:
        notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
        for kind, source, *tags in cells:
            made = new_markdown_cell(source) if kind == "md" else new_code_cell(source)
            if tags:
                made.metadata["tags"] = list(tags)
            notebook.cells.append(made)
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return write

"""What every notebook keeps to, read from the stored file without running it."""

import ast
import json
import re

import nbformat

from fusionlab.tools import edition

TAGS = {"parameters", "exercise", "solution", "check", "nbval-check-output", "nbval-ignore-output"}
MACHINE_PATH = re.compile(
    r"(?<![\w./:])/(?:work|root|home|tmp|Users|content|mnt|opt|usr|var)/|\b[A-Z]:\\\\?\w"
)
INDEX_HOST = re.compile(r"pypi\.org|pythonhosted|download\.pytorch|index-url|find-links", re.IGNORECASE)
IMPORT = re.compile(r"^\s*(?:import|from)\s+fusionlab\b", re.MULTILINE)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def lines_of_text(cell):
    """The source and what a reader sees of the outputs; pictures are left out."""
    yield cell.source
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield from (
            str(text) for kind, text in output.get("data", {}).items() if not kind.startswith("image/")
        )


def test_there_are_notebooks_to_test(notebooks):
    assert notebooks


def test_the_first_code_cell_holds_the_three_parameters(notebook):
    tagged = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    assert tagged == code_cells(notebook)[:1]
    assigned = {node.targets[0].id: node.value.value for node in ast.parse(tagged[0].source).body}
    assert assigned == {"profile": "auto", "data": "auto", "seed": 0}


def test_cells_are_short(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25, cell.source
        else:
            assert len(cell.source.split()) <= 120, cell.source


def test_no_code_ends_in_a_semicolon(notebook):
    for cell in code_cells(notebook):
        assert not cell.source.rstrip().endswith(";"), cell.source


def test_nothing_names_a_machine_or_a_package_index(notebook):
    for cell in notebook.cells:
        for text in lines_of_text(cell):
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)
            assert not INDEX_HOST.search(text), INDEX_HOST.search(text)


def test_tags_are_known_and_kernels_plain(notebook):
    assert {tag for cell in notebook.cells for tag in tags(cell)} <= TAGS
    assert notebook.metadata.kernelspec.name == "python3"
    nbformat.validate(notebook)


def test_every_picture_has_alt_text(notebook):
    pictures = [
        (kind, output.metadata)
        for cell in code_cells(notebook)
        for output in cell.outputs
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]
    assert pictures, "a notebook shows at least one picture"
    for kind, metadata in pictures:
        assert len(metadata.get(kind, {}).get("alt", "")) >= 20


def test_outputs_are_stored_whole_in_order_and_small(notebook):
    cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"
    ]
    assert len(json.dumps(outputs)) < 1_000_000


def test_the_stored_outputs_belong_to_the_code(notebook):
    assert notebook.metadata.fusionlab.code_sha256 == edition.code_hash(notebook), "stale: run make notebooks"


def test_badge_and_install_line_name_the_project_s_address(path, notebook):
    address = edition.repository_address()
    assert notebook.cells[0].cell_type == "markdown"
    assert edition.badge(path.stem, address) in notebook.cells[0].source
    assert any(f"git+{address}" in cell.source for cell in notebook.cells), "no line that installs the course"
    assert edition.addressed(notebook, path.stem, address) == notebook


def test_what_is_checked_is_built_by_hand(notebook):
    for cell in code_cells(notebook):
        if "lab.check(" in cell.source:
            assert not IMPORT.search(cell.source), cell.source

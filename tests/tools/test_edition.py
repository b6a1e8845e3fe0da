import nbformat
import pytest

from fusionlab.errors import UserError
from fusionlab.tools import edition

ADDRESS = "https://github.com/someone/fusionlab"
BADGE = (
    "[![Open in Colab](old.svg)](https://colab.research.google.com/github/x/y/blob/main/notebooks/a.ipynb)"
)


@pytest.fixture
def checkout(tmp_path, write_notebook, monkeypatch):
    """A checkout with one notebook; returns its root."""
    write_notebook(
        "00_a",
        ("md", f"# Title\n\n{BADGE}"),
        ("code", 'profile = "auto"', "parameters"),
        (
            "code",
            '# %pip install "fusionlab-course[course] @ git+https://example.org/old/place.git"\nimport sys',
        ),
        ("code", 'import os\nprint("bar", file=sys.stderr)\nprint(os.environ["FUSIONLAB_PROFILE"])'),
        ("code", "from fusionlab import lab\nanswer = ...", "exercise"),
        ("code", "answer = 2", "solution"),
        ("code", 'lab.grade("exercise 1", answer, 2)', "check"),
    )
    (tmp_path / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{ADDRESS}.git"\n')
    monkeypatch.setattr(edition, "ROOT", tmp_path)
    return tmp_path


def read(root, folder="notebooks"):
    return nbformat.read(root / folder / "00_a.ipynb", as_version=4)


def test_a_built_notebook_is_executed_addressed_and_fresh_until_its_code_changes(checkout, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_PROFILE", "smoke")
    before = read(checkout)
    assert edition.build(checkout) == ["00_a.ipynb"]
    built = read(checkout)
    assert (
        f"({edition.COLAB}/github/someone/fusionlab/blob/main/notebooks/00_a.ipynb)" in built.cells[0].source
    )
    assert f'@ git+{ADDRESS}"' in built.cells[2].source
    assert [cell.execution_count for cell in built.cells[1:]] == [1, 2, 3, 4, 5, 6]
    assert [[o.text for o in cell.outputs] for cell in built.cells[1:]] == [
        *([], [], ["laptop\n"], [], []),
        ["exercise 1: solved\n"],
    ]
    assert [cell.id for cell in built.cells] == [cell.id for cell in before.cells]
    assert set(built.metadata) == {"kernelspec", "language_info", "fusionlab"}
    assert all(set(cell.metadata) <= {"tags"} for cell in built.cells)

    assert edition.build(checkout, check=True) == []
    text = (checkout / "notebooks" / "00_a.ipynb").read_text()
    assert edition.build(checkout) == []
    assert (checkout / "notebooks" / "00_a.ipynb").read_text() == text

    built.cells[0].source += "\n\nMore prose."
    nbformat.write(built, checkout / "notebooks" / "00_a.ipynb")
    assert edition.build(checkout, check=True) == []
    built.cells[5].source = "answer = 1 + 1"
    nbformat.write(built, checkout / "notebooks" / "00_a.ipynb")
    assert edition.build(checkout, check=True) == ["00_a.ipynb"]


def test_the_hash_sees_the_order_and_the_borders_of_code_cells():
    def hashed(*sources):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        return edition.code_hash(nbformat.v4.new_notebook(cells=cells))

    assert len({hashed("a", "b"), hashed("b", "a"), hashed("ab"), hashed("ab", ""), hashed("a\nb")}) == 5


def test_the_student_edition_has_the_stub_but_not_the_answer(checkout):
    assert edition.write_students(checkout, check=True) == ["00_a.ipynb"]
    assert not (checkout / "build").exists()
    edition.write_students(checkout)
    assert edition.write_students(checkout, check=True) == []
    given = read(checkout, "build/student")
    sources = [cell.source for cell in given.cells]
    assert sources[0] == "# Title"
    assert "answer = 2" not in sources
    assert all(not cell.outputs for cell in given.cells if cell.cell_type == "code")


def test_a_check_cell_of_the_student_edition_speaks_of_what_is_open_and_still_fails_what_is_wrong(
    checkout, capsys
):
    from fusionlab import lab

    source = edition.student_edition(read(checkout)).cells[-1].source
    exec(source, {"lab": lab, "answer": ...})
    exec(source, {"lab": lab, "answer": 2})
    assert capsys.readouterr().out == "not solved yet: exercise 1\nexercise 1: solved\n"
    with pytest.raises(AssertionError, match="not yet right"):
        exec(source, {"lab": lab, "answer": 3})


def test_outputs_that_no_page_can_show_are_not_stored():
    new = nbformat.v4
    outputs = [
        new.new_output("stream", name="stderr", text="50%"),
        new.new_output("display_data", {edition.WIDGET: {}, "text/plain": "interactive(...)"}),
        new.new_output("display_data", {"image/png": "x"}, metadata={"image/png": {"alt": "a"}}),
        new.new_output("stream", name="stdout", text="kept"),
    ]
    cell = new.new_code_cell("1", outputs=outputs, metadata={"tags": ["check"], "papermill": {"duration": 1}})
    notebook = new.new_notebook(cells=[cell], metadata={"widgets": {}, "papermill": {}})
    made = edition.stripped(notebook)
    assert made.cells[0].outputs == outputs[2:]
    assert made.cells[0].metadata == {"tags": ["check"]}
    assert made.metadata["fusionlab"]["code_sha256"] == edition.code_hash(notebook)
    nbformat.validate(made)


def test_the_command_line_says_what_to_run(checkout, monkeypatch, capsys):
    assert edition.main(["student", "--check"]) == 1
    assert "00_a.ipynb; run make student" in capsys.readouterr().err
    assert edition.main(["student"]) == 0
    assert edition.main(["student", "--check"]) == 0
    assert edition.main(["student", "07"]) == 1
    assert "no notebook 07" in capsys.readouterr().err
    (checkout / "pyproject.toml").unlink()
    with pytest.raises(UserError, match="checkout"):
        edition.repository_address(checkout)

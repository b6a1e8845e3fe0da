"""Every exercise is open until its solution is there; test_run.py shows that with the solutions none is."""

import itertools

from nbclient import NotebookClient

from fusionlab.tools.notebooks import own_kernel


def tags(cell):
    return set(cell.metadata.get("tags", []))


def errors(cell):
    return [output for output in cell.get("outputs", []) if output.output_type == "error"]


def execute(notebook, folder, variables):
    """Runs a notebook at smoke on scenes, on through failing cells."""
    smoke = {**variables, "FUSIONLAB_PROFILE": "smoke", "FUSIONLAB_DATA": "scenes", "FUSIONLAB_RUN": ""}
    NotebookClient(
        notebook,
        timeout=60,
        allow_errors=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        kernel_manager_class=own_kernel(smoke),
    ).execute()


def test_three_to_six_exercises_each_with_stub_solution_and_check(notebook):
    steps = ("exercise", "solution", "check")
    order = [step for cell in notebook.cells for step in steps if step in tags(cell)]
    assert 3 <= order.count("exercise") <= 6
    assert order == list(itertools.islice(itertools.cycle(steps), len(order)))
    assert len(order) % 3 == 0


def test_without_solutions_every_check_is_open_and_nothing_else_fails(path, notebook, offline):
    notebook.cells = [cell for cell in notebook.cells if "solution" not in tags(cell)]
    execute(notebook, path.parent, offline)
    for cell in notebook.cells:
        raised = [error.ename for error in errors(cell)]
        assert raised == (["NotSolved"] if "check" in tags(cell) else []), cell.source

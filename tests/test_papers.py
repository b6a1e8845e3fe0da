"""The printed numbers: every cell of every table, checked against the text and against itself."""

import csv
import re
from collections import Counter, defaultdict

import pytest

from fusionlab import paths

CELLS = {
    "comofusion": {"table1": 8 * 6, "table2": 8 * 6, "table3": 8 * 2, "table4": 5 * 4},
    "mmdrfuse": {
        "table1": 12, "table2": 12, "table3": 20, "table4": 21, "table5": 3 * 7 * 6, "table6": 2 * 7 * 6,
    },
}  # fmt: skip
LINES = {"comofusion": 8 + 8 + 8 + 5, "mmdrfuse": 3 + 3 + 4 + 7 + 21 + 14}
# Printed with all its datasets on one line, where other tables have a line for each dataset.
ONE_LINE = {("comofusion", "table3")}


def read(paper: str) -> list[dict[str, str]]:
    with paths.asset(f"papers/{paper}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(paper: str) -> dict[tuple[str, ...], str]:
    return {(row["table"], row["dataset"], row["method"], row["metric"]): row["value"] for row in read(paper)}


@pytest.mark.parametrize("paper", CELLS)
def test_every_cell_is_there_once(paper):
    rows = read(paper)
    assert {row["paper"] for row in rows} == {paper}
    assert Counter(row["table"] for row in rows) == CELLS[paper]
    assert len(values(paper)) == len(rows)


def test_rows_printed_twice_agree():
    """Papers repeat configurations in several tables; a slip of transcription would part them."""
    value = values("mmdrfuse")
    for metric in ("SD", "VIF", "Qabf", "SSIM"):
        assert (
            value["table1", "LLVIP", "III After dynamic refresh", metric]
            == value["table3", "LLVIP", "teacher", metric]
        )
        student = {
            value["table2", "LLVIP", "III with digestible distillation", metric],
            value["table3", "LLVIP", "student3", metric],
            value["table5", "LLVIP", "MMDRFuse", metric],
        }
        assert len(student) == 1
    value = values("comofusion")
    for metric in ("EN", "SD", "Qabf", "SSIM"):
        assert value["table2", "MSRS", "CoMoFusion", metric] == value["table4", "MSRS", "ours", metric]


@pytest.mark.parametrize("paper", CELLS)
def test_numbers_stand_in_the_paper_in_this_order(paper, shared):
    """Row by row: a line of the paper's text holds the method's name and exactly these numbers."""
    number = re.compile(r"-?\d+\.\d+")
    printed = []
    for line in (shared / "papers" / f"{paper}.txt").read_text().splitlines():
        cells = [cell.strip() for cell in re.sub(r"</?u>|\*\*", "", line).split("\t")]
        names = {cell.split()[0] for cell in cells if cell and not number.fullmatch(cell)}
        printed.append((names, [cell for cell in cells if number.fullmatch(cell)]))
    wanted = defaultdict(list)
    for row in read(paper):
        dataset = "" if (paper, row["table"]) in ONE_LINE else row["dataset"]
        wanted[row["table"], dataset, row["method"]].append(row["value"])
    assert len(wanted) == LINES[paper]
    for (table, _, method), numbers in wanted.items():
        found = any(method.split()[0] in names and numbers == line for names, line in printed)
        assert found, f"{table}: {method} {numbers}"

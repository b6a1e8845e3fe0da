"""The printed numbers: every cell of every table, checked against the text and against itself."""

import csv
import re
from collections import Counter, defaultdict

import pytest

from fusionlab import paths

CELLS = {"table1": 12, "table2": 12, "table3": 20, "table4": 21, "table5": 3 * 7 * 6, "table6": 2 * 7 * 6}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with paths.asset("papers/mmdrfuse.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_is_there_once(rows):
    assert Counter(row["table"] for row in rows) == CELLS
    keys = Counter((row["table"], row["dataset"], row["method"], row["metric"]) for row in rows)
    assert max(keys.values()) == 1


def test_rows_printed_twice_agree(rows):
    """The paper repeats two configurations in several tables; a slip of transcription would part them."""
    value = {(row["table"], row["dataset"], row["method"], row["metric"]): row["value"] for row in rows}
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


def test_numbers_stand_in_the_paper_in_this_order(rows, shared):
    """Row by row: the method's name followed by exactly these numbers is a line of the paper's text."""
    text = (shared / "papers" / "mmdrfuse.txt").read_text()
    lines = [re.sub(r"</?u>", "", line) for line in text.splitlines() if "\t" in line]
    printed = Counter()
    for line in lines:
        name, *cells = [cell.strip() for cell in line.split("\t")]
        numbers = tuple(cell for cell in cells if re.fullmatch(r"\d+\.\d+", cell))
        printed[name.split()[0] if name else "", numbers] += 1
    wanted = defaultdict(list)
    for row in rows:
        wanted[row["table"], row["dataset"], row["method"]].append(row["value"])
    for (table, _, method), numbers in wanted.items():
        assert printed[method.split()[0], tuple(numbers)] >= 1, f"{table}: {method} {numbers}"
    assert len(wanted) == 3 + 3 + 4 + 7 + 21 + 14

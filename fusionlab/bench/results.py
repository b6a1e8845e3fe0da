"""What a notebook puts side by side: numbers as a paper prints them, and promoted records of full runs."""

import csv
from collections import Counter
from collections.abc import Iterable

from fusionlab import paths
from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.errors import UserError


class Printed(float):
    """A number with the digits that the paper prints, which tables show: .70 stays .70."""

    def __new__(cls, digits: str) -> "Printed":
        number = super().__new__(cls, digits)
        number.digits = digits
        return number

    digits: str


def printed(paper: str, table: str, dataset: str, method: str) -> dict[str, Printed]:
    """One printed row, metric -> value; raises UserError where the paper's table has no such row."""
    with paths.asset(f"papers/{paper}.csv").open(newline="", encoding="utf-8") as file:
        cells = [
            cell for cell in csv.DictReader(file) if cell["table"] == table and cell["dataset"] == dataset
        ]
    row = {cell["metric"]: Printed(cell["value"]) for cell in cells if cell["method"] == method}
    if not row:
        known = ", ".join(dict.fromkeys(cell["method"] for cell in cells)) or "nothing of this name"
        raise UserError(f"{paper} {table} has no row {method!r} for {dataset!r}; it has {known}")
    return row


def printed_methods(paper: str, table: str, dataset: str) -> list[str]:
    """The methods of a printed table in its order; raises UserError where there is no such table."""
    with paths.asset(f"papers/{paper}.csv").open(newline="", encoding="utf-8") as file:
        cells = [
            cell for cell in csv.DictReader(file) if (cell["table"], cell["dataset"]) == (table, dataset)
        ]
    if not cells:
        raise UserError(f"{paper} {table} prints nothing of {dataset!r}")
    return list(dict.fromkeys(cell["method"] for cell in cells))


def verdicts(paper: str) -> list[dict[str, str]]:
    """What became of each figure and table of a paper, in its order: {"item", "verdict", "where", "reason"}.

    "reproduced" is the number itself, "same order" that of the rows; "contradicts" says that ours are in
    another; "in kind" is the same experiment on other data or at another scale; "out of reach" has none.
    Raises UserError for a paper without.
    """
    with paths.asset("papers/verdicts.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    found = [{k: v for k, v in cell.items() if k != "paper"} for cell in cells if cell["paper"] == paper]
    if not found:
        known = ", ".join(dict.fromkeys(cell["paper"] for cell in cells))
        raise UserError(f"there is no verdict on {paper!r}; there is one on {known}")
    return found


def decoded(paper: str, table: str, dataset: str, method: str) -> list[dict[str, str | float]]:
    """What the printed row's own images score by rival formulas, {"metric", "formula", "value", "fits"}.

    From `papers/decoded.csv`, measured on images that others released; raises UserError for another row.
    """
    with paths.asset("papers/decoded.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    asked = paper, table, dataset, method
    found = [cell for cell in cells if tuple(cell.values())[:4] == asked]
    if not found:
        known = dict.fromkeys(" ".join(list(cell.values())[:4]) for cell in cells)
        raise UserError(f"nobody decoded {' '.join(asked)}; there are {', '.join(known)}")
    return [
        {
            "metric": cell["metric"],
            "formula": cell["formula"],
            "value": Printed(cell["value"]),
            "fits": cell["fits"],
        }
        for cell in found
    ]


def results(target: str, data: str, convention: str | None = None) -> list[Record]:
    """The promoted records of a target on one data set, of one convention where named: the only reader.

    Raises UserError where there are none, and where a number stands twice or two profiles are promoted.
    """
    paper = target.split("/")[0]
    found = [
        record
        for record in records.read(paths.asset(f"figures/{paper}"))
        if record.target == target and record.data == data and convention in (None, record.convention)
    ]
    if not found:
        raise UserError(f"no record of {target} on {data}; run `fusionlab reproduce {target}`, then promote")
    profiles = {record.run.profile for record in found}
    if len(profiles) > 1:
        raise UserError(f"{target} on {data} is promoted at {' and '.join(sorted(profiles))}; promote one")
    if twice := [key for key, times in Counter(record.key for record in found).items() if times > 1]:
        raise UserError(f"{' '.join(twice[0])} stands twice in figures/{paper}; promote {target} anew")
    return found


def wide(found: Iterable[Record]) -> list[dict[str, str | float]]:
    """Records as rows of a table, {"row": ..., metric: value, ...}.

    Raises UserError where two seeds, splits or conventions would be mixed up.
    """
    rows: dict[str, dict[str, str | float]] = {}
    for record in found:
        row = rows.setdefault(record.row, {"row": record.row})
        if record.metric in row:
            raise UserError(
                f"{record.target} {record.row} has more than one {record.metric} on {record.data}; "
                "choose a convention, split or seed"
            )
        row[record.metric] = record.value
    return list(rows.values())

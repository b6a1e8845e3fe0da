"""What a notebook puts side by side: numbers as a paper prints them, and promoted records of full runs."""

import csv

from fusionlab import paths
from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.errors import UserError


def printed(paper: str, table: str, dataset: str, method: str) -> dict[str, float]:
    """One printed row, metric -> value; raises UserError where the paper's table has no such row."""
    with paths.asset(f"papers/{paper}.csv").open(newline="", encoding="utf-8") as file:
        cells = [
            cell for cell in csv.DictReader(file) if cell["table"] == table and cell["dataset"] == dataset
        ]
    row = {cell["metric"]: float(cell["value"]) for cell in cells if cell["method"] == method}
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
            "value": float(cell["value"]),
            "fits": cell["fits"],
        }
        for cell in found
    ]


def promoted(target: str, data: str) -> list[Record]:
    """The promoted records of a target on one data set; raises UserError where there are none."""
    found = records.read(paths.asset(f"figures/{target.split('/')[0]}/records.csv"))
    found = [record for record in found if record.target == target and record.data == data]
    if not found:
        raise UserError(f"no record of {target} on {data}; run `fusionlab reproduce {target}`, then promote")
    return found


def recorded(target: str, data: str, convention: str | None = None) -> list[dict[str, str | float]]:
    """Promoted records as rows of a table, {"row": ..., metric: value, ...}, of one convention where named.

    Raises UserError where there are none, and where two profiles, seeds or conventions would be mixed up.
    """
    rows: dict[str, dict[str, str | float]] = {}
    for record in promoted(target, data):
        if convention not in (None, record.convention):
            continue
        row = rows.setdefault(record.row, {"row": record.row})
        if record.metric in row:
            raise UserError(
                f"{target} {record.row} has more than one {record.metric} on {data}; use promoted()"
            )
        row[record.metric] = record.value
    return list(rows.values())

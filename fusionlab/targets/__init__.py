"""Targets: what `fusionlab reproduce` runs for each table or figure of a paper.

A target is a function `(row, profile, data, seed, run) -> records`; `row=None` means all its rows.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from fusionlab.errors import UserError
from fusionlab.lab import records
from fusionlab.lab.records import Record
from fusionlab.targets import metrics, mmdrfuse, mmdrfuse_training, scenes

Target = Callable[[str | None, str, str, int, Path], Iterator[Record]]

TARGETS: dict[str, Target] = {
    "mmdrfuse/table5": mmdrfuse.table5,
    "mmdrfuse/student": mmdrfuse.student,
    "mmdrfuse/teacher": mmdrfuse_training.teacher,
    "scenes/statistics": scenes.statistics,
    "metrics/truth-preview": metrics.truth_preview,
}


# Targets whose weights are made by the run itself.
TRAINING = {"mmdrfuse/student", "mmdrfuse/teacher"}

# Why a printed row and ours differ, for the report.
DIFFERENCES = {
    "mmdrfuse/table5": (
        "the released weights are probably not those of the table, since the text trains on MSRS and the "
        "released code on LLVIP, and the paper does not list its 50 RoadScene pairs. The convention is the "
        "same: the stretched rows agree in EN."
    ),
}


def reproduce(
    target: str,
    row: str | None = None,
    profile: str = "laptop",
    data: str = "auto",
    seed: int = 0,
    run: Path = Path("."),
) -> list[Record]:
    """Runs a target and appends each record to `<run>/records.csv` as soon as it is measured.

    Raises UserError for an unknown target or row.
    """
    if target not in TARGETS:
        raise UserError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
    measured = []
    for record in TARGETS[target](row, profile, data, seed, run):
        records.append(run, [record])
        measured.append(record)
    return measured

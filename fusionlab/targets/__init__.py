"""Targets: the tables and figures that `fusionlab reproduce` measures, a file a paper."""

from collections.abc import Sequence
from pathlib import Path

from fusionlab.bench import table
from fusionlab.bench.records import Record
from fusionlab.errors import UserError
from fusionlab.targets import caf, comofusion, dmfuse, metrics, mmdrfuse, scenes

TARGETS = caf.TABLES | comofusion.TABLES | dmfuse.TABLES | mmdrfuse.TABLES | scenes.TABLES | metrics.TABLES


def reproduce(
    target: str,
    folder: Path,
    row: str | None = None,
    profile: str = "auto",
    data: str = "auto",
    seeds: Sequence[int] = (0,),
) -> list[Record]:
    """Measures a target into a run's folder, as `table.run_table` does; raises UserError for another."""
    if target not in TARGETS:
        raise UserError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
    return table.run_table(TARGETS[target], target, folder, row, profile, data, seeds)

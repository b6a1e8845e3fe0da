"""Targets, the tables and figures that `fusionlab reproduce` measures: a file a paper, two of networks."""

from collections.abc import Sequence
from pathlib import Path

from fusionlab.bench import table
from fusionlab.bench.records import Record
from fusionlab.errors import UserError
from fusionlab.targets import caf, comofusion, dmfuse, learnt, metrics, mmdrfuse, probes, scenes

FILES = (caf, comofusion, dmfuse, learnt, probes, mmdrfuse, scenes, metrics)
TARGETS: dict[str, table.Table] = {name: each for file in FILES for name, each in file.TABLES.items()}


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

"""Scores folders as `fusionlab evaluate --workers N` does, and says what each process spent.

`python score_folders.py WORKERS IR VI FUSED CONVENTION METRIC...` prints, as JSON, the rows, the wall seconds
of the whole, the CPU seconds of this process and those of each worker, importing included.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

from fusionlab.batch import find_jobs, score_job
from fusionlab.processes import in_processes


def timed(convention, metrics, job):
    (row,) = next(iter(score_job(convention, metrics, job).scores.values())).rows
    return row, os.getpid(), time.process_time()


if __name__ == "__main__":
    workers, ir, vi, fused, convention, *metrics = sys.argv[1:]
    jobs, _ = find_jobs(Path(ir), Path(vi), [Path(fused)])
    rows, spent = [], {}
    start = time.perf_counter()
    for _, (row, process, seconds) in in_processes(partial(timed, convention, metrics), jobs, int(workers)):
        rows.append(row)
        spent[process] = max(seconds, spent.get(process, 0))
    wall = time.perf_counter() - start
    own = time.process_time()
    spent.pop(os.getpid(), None)
    rows.sort(key=lambda row: row["name"])
    json.dump({"rows": rows, "wall": wall, "own": own, "workers": list(spent.values())}, sys.stdout)

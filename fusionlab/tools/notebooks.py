"""Runs notebooks: each in a fresh kernel of this interpreter, none stopping the next."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionlab.bench.run import Run, find_profile
from fusionlab.data.registry import datasets
from fusionlab.errors import UserError, require_seed
from fusionlab.files import naming, write_text
from fusionlab.lab.session import NOTEBOOK_PROFILES, resolve_data
from fusionlab.paths import mirror_address


@dataclass(frozen=True)
class Outcome:
    """How one notebook ended; `error` is its traceback, empty where it ran to the end."""

    name: str
    ok: bool
    seconds: float
    error: str = ""


def run_notebooks(
    paths: Iterable[Path],
    profile: str,
    data: str,
    seed: int | None,
    run: Path,
    progress: bool = True,
    *,
    limit: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Executes notebooks into `<run>/notebooks`, then writes `<run>/index.html`, also after Ctrl-C.

    Profile or data "auto" and seed None leave the notebook's own parameter; a profile given here wins over
    FUSIONLAB_PROFILE. `limit` is in seconds a cell, `variables` are added to the kernels' environment.
    A failing notebook is reported in its Outcome. Raises UserError for an unknown profile, a seed that is
    none, and where the run cannot be written.
    """
    from fusionlab.tools.report import write_report

    require_seed(seed or 0)
    run, paths = Path(run).resolve(), [Path(path).resolve() for path in paths]
    if len({path.name for path in paths}) < len(paths):
        raise UserError("two notebooks have one name, so one would replace the other; run them apart")
    settings = {"profile": find_profile(profile, NOTEBOOK_PROFILES), "data": located(resolve_data(data))}
    stamp = Run.begin(run, settings["profile"]).stamp
    with naming(run):
        (run / "notebooks").mkdir(parents=True, exist_ok=True)
    parameters: dict[str, Any] = {} if profile == "auto" else {"profile": settings["profile"]}
    parameters |= {} if data == "auto" else {"data": settings["data"]}
    parameters |= {} if seed is None else {"seed": seed}
    surroundings = {
        **_absolute_folders(),
        "FUSIONLAB_COMMAND": stamp.command,
        **(variables or {}),
        "FUSIONLAB_PROFILE": settings["profile"],
        "FUSIONLAB_RUN": str(run),
    }
    outcomes: list[Outcome] = []
    try:
        for path in paths:
            outcomes.append(_execute(path, run, parameters, surroundings, progress, limit))
    except KeyboardInterrupt:
        outcomes.append(Outcome(path.stem, False, 0.0, "interrupted"))
        raise
    finally:
        made = f"{stamp.date}, fusionlab {stamp.commit}, {stamp.versions}"
        kept = {**settings, "made": made, "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
        write_text(run / "run.json", json.dumps(kept, indent=1))
        write_report(run)
    return outcomes


def own_kernel(variables: Mapping[str, str]) -> type:
    """A kernel manager whose `python3` is this interpreter, not a kernel the user registered so."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    spec = KernelSpec(
        argv=[
            sys.executable,
            "-Xfrozen_modules=off",
            "-m",
            "ipykernel_launcher",
            "--log-level=ERROR",
            "-f",
            "{connection_file}",
        ],
        display_name="Python 3",
        language="python",
        # A kernel's variables are templates; a dollar in a path stands for itself.
        env={name: value.replace("$", "$$") for name, value in variables.items()},
    )

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return OwnKernel


def located(data: str) -> str:
    """A folder as an absolute path, since kernels start in the notebook's folder; a name stays a name."""
    path = Path(data).expanduser()
    is_name = data == "scenes" or data in datasets()
    return str(path.resolve()) if path.is_dir() and not is_name else data


def _absolute_folders() -> dict[str, str]:
    """The FUSIONLAB variables that name folders, as seen from the notebooks' folder."""
    absolute = {}
    named = ["FUSIONLAB_WEIGHTS", "FUSIONLAB_CACHE", "FUSIONLAB_RUNS"]
    for name in named if mirror_address() else ["FUSIONLAB_MIRROR", *named]:
        folders = [folder for folder in os.environ.get(name, "").split(os.pathsep) if folder]
        if folders:
            absolute[name] = os.pathsep.join(str(Path(folder).resolve()) for folder in folders)
    if os.environ.get("FUSIONLAB_DATA"):
        absolute["FUSIONLAB_DATA"] = located(os.environ["FUSIONLAB_DATA"])
    return absolute


def _execute(
    path: Path,
    run: Path,
    parameters: Mapping[str, Any],
    variables: Mapping[str, str],
    progress: bool,
    limit: int | None,
) -> Outcome:
    import papermill
    from nbconvert.filters import strip_ansi

    begin = time.perf_counter()
    error = ""
    try:
        papermill.execute_notebook(
            path,
            run / "notebooks" / path.name,
            parameters=dict(parameters),
            kernel_name="python3",
            language="python",
            cwd=path.parent,
            progress_bar=progress,
            execution_timeout=limit,
            kernel_manager_class=own_kernel(variables),
        )
    except Exception as fault:  # whatever stops this notebook is reported and must not stop the next
        error = strip_ansi(str(fault)).strip() or repr(fault)
    return Outcome(path.stem, not error, round(time.perf_counter() - begin, 1), error)

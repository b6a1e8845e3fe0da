"""Runs notebooks: each in a fresh kernel of this interpreter, none stopping the next."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusionlab.bench.run import Run, find_profile
from fusionlab.data.registry import datasets
from fusionlab.errors import UserError, require_seed
from fusionlab.files import naming, write_text
from fusionlab.lab.session import NOTEBOOK_PROFILES, resolve_data
from fusionlab.paths import is_utf8, mirror_address, open_regular, printable


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
    """Executes notebooks into `<run>/notebooks`, then writes `<run>/index.html`, also when stopped.

    Profile or data "auto" and seed None leave the notebook's own parameter; a profile given here wins over
    FUSIONLAB_PROFILE. `limit` is in seconds a cell, `variables` are added to the kernels' environment.
    A failing notebook is reported in its Outcome. What ran is kept in `<run>/run.json` after each, for
    `write_report`, even where this process is killed. Raises UserError for an unknown profile, a seed that is
    none, and where the run cannot be written.
    """
    from fusionlab.tools.report import write_report

    require_seed(seed or 0)
    run, paths = Path(run).resolve(), [Path(path).resolve() for path in paths]
    if foreign := [path.name for path in paths if not is_utf8(path)]:
        raise UserError(f"{printable(foreign[0])} has a name that is not UTF-8; rename it or its folder")
    for path in paths:
        if path.exists():
            open_regular(path).close()
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

    def keep() -> None:
        made = f"{stamp.date}, fusionlab {stamp.commit}, {stamp.versions}"
        kept = {**settings, "made": made, "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]}
        write_text(run / "run.json", json.dumps(kept, indent=1))

    with _endable() as end:
        kernel = own_kernel(surroundings, end.is_set)
        try:
            for path in paths:
                outcomes.append(_execute(path, run, parameters, kernel, progress, limit))
                keep()
        except KeyboardInterrupt:
            outcomes.append(Outcome(path.stem, False, 0.0, "interrupted"))
            raise
        finally:
            keep()
            write_report(run)
    return outcomes


class Terminated(KeyboardInterrupt):
    """A request to end that came from whoever shuts down the job or the machine: SIGTERM or SIGHUP."""


@contextmanager
def _endable() -> Iterator[threading.Event]:
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt or Terminated once, and set the event; then no more.

    What follows is short, and a second signal must not keep it from being done. A signal that this process
    was told to ignore, as by nohup, stays ignored.
    """
    end = threading.Event()
    usual = {signal.SIG_DFL, signal.default_int_handler}
    named = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in named if signal.getsignal(number) in usual}
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        before = {}

    def obey(number: int, _: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        end.set()
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(signal.Signals(number).name)

    try:
        for number in before:
            signal.signal(number, obey)
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def own_kernel(variables: Mapping[str, str], hurried: Callable[[], bool] = lambda: False) -> type:
    """A kernel manager whose `python3` is this interpreter, not a kernel the user registered so.

    A kernel that is shut down while `hurried()` is killed, and not asked to come to an end.
    """
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

        async def shutdown_kernel(  # type: ignore[override]  # jupyter_client's own type is that of its other face
            self, now: bool = False, restart: bool = False
        ) -> None:
            await super().shutdown_kernel(now=now or hurried(), restart=restart)

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
    kernel: type,
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
            kernel_manager_class=kernel,
        )
    except Exception as fault:  # whatever stops this notebook is reported and must not stop the next
        error = strip_ansi(str(fault)).strip() or repr(fault)
    return Outcome(path.stem, not error, round(time.perf_counter() - begin, 1), error)

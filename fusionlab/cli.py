"""The command line: `fusionlab fuse | export | evaluate | conventions | data | run | reproduce | ...`.

Torch and all that needs it is imported inside the commands, so that `fusionlab --help` answers at once.
"""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from fusionlab import __version__, data_cli
from fusionlab.errors import UserError, require_seed
from fusionlab.methods import DEFAULT, METHODS
from fusionlab.paths import printable


class Friendly(TyperGroup):
    """Turns a user's mistake into one line on stderr and exit code 1; a real bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # for a file name that is not UTF-8
        try:
            return super().invoke(ctx)
        except UserError as error:
            reason = str(error)
        except OSError as error:
            if error.filename is not None:
                reason = f"{error.filename}: {error.strerror}"
            elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                reason = f"the output cannot be written ({error.strerror})"
                _drop_output()
            else:  # a broken pipe, with which click ends in silence, or a bug
                raise
        except KeyboardInterrupt as stop:
            typer.echo("stopped", err=True)
            # 128 and the number of the signal, which only a request to end brings along.
            raise typer.Exit(
                143 if "SIGTERM" in stop.args else 129 if "SIGHUP" in stop.args else 130
            ) from None
        typer.echo(f"error: {printable(reason)}", err=True)
        raise typer.Exit(1)


def _drop_output() -> None:
    """What is left in the buffer of a full disk would fail once more, with a traceback, at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


app = typer.Typer(
    cls=Friendly,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_cli.data_app, name="data")

STUDENTS = [name for name, method in METHODS.items() if method.network == "mmdrfuse.Student"]


def _either(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fusionlab {__version__}")
        raise typer.Exit


@app.callback()
def fusionlab(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fuse infrared and visible images, score the result, reproduce the papers' tables.

    \b
    Examples:
      fusionlab fuse ir.png vi.png -o fused.png
      fusionlab fuse tno/ir tno/vis -o fused --method laplacian
      fusionlab evaluate tno/ir tno/vis fused --convention reference --csv scores.csv
      fusionlab data get roadscene
      fusionlab run 00 --profile smoke
      fusionlab reproduce --list
      fusionlab doctor
    """


IrRange = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH|auto|full",
        help="Infrared values that become black and white. auto: 0.1 to 99.9 % of the whole folder's; full: "
        "all of the file type. Left out: auto for a sensor's counts and temperatures, else full.",
    ),
]
ViRange = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH|auto|full", help="Visible values, as --ir-range.")
]
IrSuffix = Annotated[
    str | None,
    typer.Option(metavar="END", help="How infrared names end, as _T in 1157_T.jpg; others are passed over."),
]
ViSuffix = Annotated[str | None, typer.Option(metavar="END", help="How visible names end, as _RGB.")]


def _given(**options: str | None) -> dict[str, str]:
    return {role: value for role, value in options.items() if value is not None}


@app.command()
def fuse(
    ir: Annotated[Path, typer.Argument(help="Infrared image, or a folder of them.")],
    vi: Annotated[Path, typer.Argument(help="Visible image, or a folder of equal names.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Fused image, or a folder.")],
    method: Annotated[
        str,
        typer.Option(
            help=f"{_either(METHODS)}. Left out: {DEFAULT}, of all that is shipped the best on validation "
            "pairs by mean rank over SSIM, VIF, Qabf and the truth of scenes (record metrics/default)."
        ),
    ] = DEFAULT,
    weights: Annotated[str, typer.Option(help="ours, official or a file.")] = "ours",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA where there is one.")
    ] = "auto",
    save: Annotated[
        Literal["clip", "stretch"], typer.Option(help="stretch: each image from its minimum to its maximum.")
    ] = "clip",
    ir_range: IrRange = None,
    vi_range: ViRange = None,
    ir_suffix: IrSuffix = None,
    vi_suffix: ViSuffix = None,
) -> None:
    """Fuse two images, or two folders of them.

    The colour of the visible image is kept. In folders, partners have the same name up to the suffix, and the
    results are PNG. One folder may hold both roles where names say theirs: --ir-suffix and --vi-suffix, or
    endings such as _T and _RGB, _ir and _vis, that all names have. 16-bit counts and float temperatures get
    one range for the whole folder, which is printed. Pairs that cannot be fused are skipped and named at the
    end, with exit code 1.

    \b
    Examples:
      fusionlab fuse ir.png vi.png -o fused.png
      fusionlab fuse tno/ir tno/vis -o fused --method maximum
      fusionlab fuse ir.png vi.png -o fused.png --method mmdrfuse --weights official --save stretch
      fusionlab fuse celsius rgb -o fused --ir-range 10,45
      fusionlab fuse flight flight -o fused --ir-suffix _T --vi-suffix _RGB
    """
    from fusionlab.batch import fuse_files
    from fusionlab.fuser import describe, find_device, load

    chosen = find_device(device)
    fuser = load(method, weights, chosen)
    typer.echo(describe(fuser), err=True)
    ranges = _given(infrared=ir_range, visible=vi_range)
    suffixes = _given(infrared=ir_suffix, visible=vi_suffix)
    done, failures = fuse_files(ir, vi, output, fuser, chosen, save, ranges, suffixes)
    _finish(done, failures, f"fused into {output}")


@app.command()
def export(
    method: Annotated[str, typer.Argument(help=f"{_either(STUDENTS)}: 113 parameters.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The ONNX file to write.")],
    weights: Annotated[str, typer.Option(help="ours, official or a file.")] = "ours",
) -> None:
    """Write the student as ONNX.

    Its inputs ir and vi and its output fused are float32 (batch, 1, height, width) in [0, 1], of any size.
    Needs the package onnx: pip install 'fusionlab-course[export]'.

    \b
    Example:
      fusionlab export mmdrfuse -o student.onnx
    """
    from fusionlab.fuser import describe, load
    from fusionlab.methods.export import export_student

    fuser = load(method, weights)
    typer.echo(describe(fuser), err=True)
    typer.echo(export_student(fuser, output))


@app.command()
def evaluate(
    ir: Annotated[Path, typer.Argument(help="Infrared image, or a folder of them.")],
    vi: Annotated[Path, typer.Argument(help="Visible image, or a folder of equal names.")],
    fused: Annotated[
        list[Path], typer.Argument(help="Fused image, or a folder of equal names; of several methods.")
    ],
    convention: Annotated[
        str, typer.Option(metavar="NAME", help="Exact variants of the metrics: see fusionlab conventions.")
    ],
    metrics: Annotated[str | None, typer.Option(metavar="EN,SD", help="Only these metrics.")] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a row an image, all digits.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table for reading.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes, of one thread each.")] = 1,
    ir_range: IrRange = None,
    vi_range: ViRange = None,
    ir_suffix: IrSuffix = None,
    vi_suffix: ViSuffix = None,
    fused_suffix: Annotated[
        str | None, typer.Option(metavar="END", help="How fused names end, as _CBF.")
    ] = None,
) -> None:
    """Score fused images against their sources.

    The convention (reference, mmdrfuse, ...) names the exact variant of each metric. Files are scored as they
    are, as 8-bit luminance; sources of more bits get the range that fuse gives them (--ir-range, --vi-range).
    mmdrfuse is meant for images fused with --save stretch. Prints mean and spread (sample standard deviation
    over images); of several methods one after the other, read and scored together. A metric without a value
    for an image is left out of its mean, which says of how many it is; the reason is named. Images that
    cannot be scored are named at the end; exit code 1.

    \b
    Examples:
      fusionlab evaluate ir.png vi.png fused.png --convention reference
      fusionlab evaluate tno/ir tno/vis fused --convention mmdrfuse --metrics EN,SD --csv scores.csv
      fusionlab evaluate tno/ir tno/vis average maximum --convention reference --workers 4
    """
    from fusionlab.batch import score_files, summary, undefined_lines

    wanted = [name.strip() for name in metrics.split(",")] if metrics is not None else None
    ranges = _given(infrared=ir_range, visible=vi_range)
    suffixes = _given(infrared=ir_suffix, visible=vi_suffix, fused=fused_suffix)
    scores, failures = score_files(
        ir, vi, fused, convention, wanted, workers, ranges, suffixes, csv, markdown
    )
    for method, found in scores.items():
        if len(fused) > 1:
            typer.echo(f"{method}, {len(found.rows)} scored")
        typer.echo(summary(found))
        for line in undefined_lines(found):
            typer.echo(line, err=True)
    done = sum(len(found.rows) for found in scores.values())
    _finish(done, failures, f"scored, convention {convention}")


@app.command()
def conventions(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only this one, with its forms.")
    ] = None,
) -> None:
    """List the conventions of evaluate.

    With each: how images are saved for it, how sure it is that numbers of that name were made so (proven,
    strong, medium, weak), and its metrics. With a NAME also the evidence, and each metric's exact form.

    \b
    Examples:
      fusionlab conventions
      fusionlab conventions mmdrfuse
    """
    from fusionlab.metrics import CONVENTIONS, find_convention

    if name is None:
        for known in CONVENTIONS.values():
            typer.echo(f"{known.name:<10} {known.strength:<7} {known.save:<7} {', '.join(known.variants)}")
        return
    chosen = find_convention(name)
    typer.echo(f"{chosen.name}, {chosen.strength}, for images saved by {chosen.save}\n{chosen.evidence}")
    width = max(map(len, chosen.variants))
    for metric, variant in chosen.variants.items():
        typer.echo(f"{metric:<{width}} {variant.formula}; unit {variant.unit}, sides from {variant.side}")


def _finish(done: int, failures: dict[str, str], what: str) -> None:
    """Names what was left out on stderr, prints the count, and exits with 1 where anything failed."""
    for name, reason in sorted(failures.items()):
        typer.echo(f"error: {printable(f'{name}: {reason}')}", err=True)
    typer.echo(printable(f"{done} of {done + len(failures)} {what}"))
    if failures:
        raise typer.Exit(1)


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NOTEBOOK]...", help="Numbers, names or files; all where left out."),
    ] = None,
    profile: Annotated[
        Literal["auto", "smoke", "laptop", "gpu"],
        typer.Option(help="auto: gpu where there is one, else laptop."),
    ] = "auto",
    data: Annotated[str, typer.Option(help="scenes, a data set's name or a folder.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="The notebook's own where left out.")] = None,
    folder: Annotated[Path, typer.Option("--notebooks", metavar="FOLDER", help="Where they are.")] = Path(
        "notebooks"
    ),
    limit: Annotated[
        int | None,
        typer.Option(
            "--cell-limit", metavar="SECONDS", min=1, help="Longer cells fail; none where left out."
        ),
    ] = None,
) -> None:
    """Execute notebooks and write a report.

    All goes into a new run folder. A notebook that fails does not stop the next one; the exit code is then 1.
    Stopped by Ctrl-C or SIGTERM, it reports what was done.

    \b
    Examples:
      fusionlab run
      fusionlab run 00 07 --profile smoke
      fusionlab run my_notebook.ipynb --data tno --seed 1 --cell-limit 600
    """
    _need_course()
    from fusionlab.tools.notebooks import run_notebooks

    require_seed(seed or 0)
    files = _notebooks(notebooks or [], folder)
    with _new_run() as target:
        outcomes = run_notebooks(files, profile, data, seed, target, limit=limit)
    for outcome in outcomes:
        verdict = "ok" if outcome.ok else f"failed: {outcome.error.splitlines()[-1]}"
        typer.echo(printable(f"{outcome.name} {outcome.seconds:.0f} s {verdict}"))
    typer.echo(target / "index.html")
    if not all(outcome.ok for outcome in outcomes):
        raise typer.Exit(1)


def _need_course() -> None:
    if find_spec("papermill") is None:
        raise UserError("notebooks need more packages: pip install 'fusionlab-course[course]'")


def _notebooks(wanted: list[str], folder: Path) -> list[Path]:
    """The files meant by numbers ("07"), names ("07_distillation") or paths; all where none is named."""
    known = sorted(folder.glob("*.ipynb"))
    if not wanted and not known:
        raise UserError(f"no notebooks in {folder}; name the folder with --notebooks")
    return list(dict.fromkeys(_notebook(name, known, folder) for name in wanted)) or known


def _notebook(name: str, known: list[Path], folder: Path) -> Path:
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    fits = [path for path in known if name in (path.stem, path.name) or path.stem.startswith(f"{name}_")]
    if len(fits) != 1:
        names = ", ".join(path.stem for path in fits or known)
        raise UserError(
            f"{len(fits)} notebooks in {folder} are called {name}; there are {names or 'none at all'}"
        )
    return fits[0]


@app.command()
def reproduce(
    target: Annotated[str | None, typer.Argument(help="Such as mmdrfuse/table5.")] = None,
    row: Annotated[str | None, typer.Option(help="Only this row.")] = None,
    profile: Annotated[
        Literal["auto", "smoke", "laptop", "gpu", "paper"],
        typer.Option(help="auto: gpu where there is one, else laptop."),
    ] = "auto",
    data: Annotated[str, typer.Option(help="auto: the target's own; else a data set or folder.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="0 where left out.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many seeds, one after the other.")] = 1,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on in the folder of a stopped run.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--verify", help="Compute promoted rows again and compare.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop after so long; exit code 3, and --resume goes on.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the targets.")] = False,
) -> None:
    """Recompute a table or figure of a paper.

    Its numbers are recorded in a new run folder. A stopped training goes on where it was with --resume, so
    that with --minutes a long one can be made in pieces.

    With --verify the promoted rows are computed again, in the profile, data and seed they were recorded with;
    --row, --profile, --data and --seed narrow the choice. Exit code 1 where one differs.

    \b
    Examples:
      fusionlab reproduce --list
      fusionlab reproduce mmdrfuse/table5 --row maximum/stretch
      fusionlab reproduce mmdrfuse/table5 --verify
      fusionlab reproduce comofusion/table4 --seeds 3
    """
    from fusionlab import targets
    from fusionlab.bench import verify

    if listing:
        typer.echo("\n".join(targets.TARGETS))
        return
    if target not in targets.TARGETS:
        raise UserError(f"name a target: {', '.join(targets.TARGETS)}")
    require_seed(seed or 0)
    if not compare:
        first = seed or 0
        require_seed(first + seeds - 1)
        with (
            nullcontext(_run_folder(resume)) if resume else _new_run() as folder,
            _time_limit(minutes, f"fusionlab reproduce {target} ... --resume {folder}"),
        ):
            made = targets.reproduce(target, folder, row, profile, data, range(first, first + seeds))
        for record in made:
            unit = "" if record.unit == "1" else f" {record.unit}"
            typer.echo(f"{record.row} {record.metric} {record.value:.6g}{unit}")
        typer.echo(folder / "records.csv")
        return
    promoted = verify.find_promoted(target, row, profile, data, seed)
    with _new_run() as folder:
        verdicts = verify.recompute(targets.TARGETS, promoted, row, data, folder)
    for verdict in verdicts:
        typer.echo(verdict.text)
    typer.echo(f"{sum(verdict.confirmed for verdict in verdicts)} of {len(verdicts)} confirmed")
    if not all(verdict.confirmed for verdict in verdicts):
        raise typer.Exit(1)


@contextmanager
def _time_limit(minutes: float | None, further: str) -> Iterator[None]:
    """Presses Ctrl-C after so many minutes, at which a training keeps what it has; says how to go on."""
    if minutes is None:
        yield
        return
    alarm = threading.Timer(60 * minutes, signal.raise_signal, [signal.SIGINT])
    alarm.daemon = True
    alarm.start()
    try:
        yield
    except KeyboardInterrupt:
        if alarm.is_alive():  # it was somebody else's
            raise
        typer.echo(f"stopped after {minutes:g} minutes; go on with: {further}", err=True)
        raise typer.Exit(3) from None
    finally:
        alarm.cancel()


@contextmanager
def _new_run() -> Iterator[Path]:
    """A new run folder, named on stderr at once; removed again where nothing was written into it."""
    from fusionlab.bench.run import new_folder

    folder = new_folder()
    typer.echo(f"writing to {folder}", err=True)
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Write the report of a run again."""
    _need_course()
    from fusionlab.tools.report import write_report

    typer.echo(write_report(_run_folder(folder)))


@app.command()
def promote(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with records.csv.")],
    row: Annotated[
        list[str] | None, typer.Option(help="Replace only this row; may be given several times.")
    ] = None,
) -> None:
    """Move the records of a run into figures/, with their pictures.

    They replace what was promoted for the same target, data and split. Nothing is moved where a record lacks
    its command, commit or weight hash, where rows or seeds are missing that the table or its promoted block
    has (name rows with --row to replace those alone), and where the run was made at smoke.

    \b
    Examples:
      fusionlab promote runs/20260131-120000
      fusionlab promote runs/20260131-120000 --row ours
    """
    from fusionlab.bench.promote import promote as promote_run
    from fusionlab.paths import asset
    from fusionlab.targets import TARGETS

    known = {target: table.rows for target, table in TARGETS.items()}
    for file in promote_run(_run_folder(folder), asset("figures"), known, row or ()):
        typer.echo(file)


def _run_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder} is no run folder; name one, such as runs/20260131-120000")
    return folder


@app.command()
def doctor() -> None:
    """Say what is installed and what is missing.

    Versions, device, data sets and weights, with a remedy for each that is not found. Exit code 1 only where
    the package cannot work.
    """
    from fusionlab.tools.doctor import examine

    findings = examine()
    typer.echo(findings.text())
    if not findings.usable:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()

"""Fusing and scoring image files: two or three of them, or folders whose images are matched by name.

The work behind `fusionlab fuse` and `fusionlab evaluate`, without a command line; it knows fusers and
metrics, as neither data nor metrics may.
"""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from tqdm import tqdm

from fusionlab.data.folders import doubt, read_pair, refuse_one_file
from fusionlab.data.names import Matches, match_roles
from fusionlab.data.pair import FORMATS, Scale, full, luminance, read_image, to_uint8, write_image
from fusionlab.data.ranges import Rule, check_rule, find_range
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, fuse
from fusionlab.metrics import METRICS, Scores, compare
from fusionlab.metrics.conventions import find_convention
from fusionlab.metrics.scores import Row
from fusionlab.processes import in_processes

# Name of each image that could not be worked on, and why.
Failures = dict[str, str]


def fuse_files(
    ir: Path,
    vi: Path,
    output: Path,
    fuser: Fuser,
    device: str = "cpu",
    save: str = "clip",
    ranges: Mapping[str, Rule] | None = None,
    suffixes: Mapping[str, str] | None = None,
) -> tuple[int, Failures]:
    """Fuses two files into the file `output`, or the pairs of two folders into PNG files of a folder.

    The colour of the visible image is kept. ranges: "infrared" or "visible" -> which values become 0 and 1
    (data/ranges.py); suffixes: role -> how its names end (data/names.py); what is decided unasked is said on
    stderr. Returns how many were written and why others were not, among them any whose result would overwrite
    an input. Raises UserError where paths do not exist or fit together.
    """
    matches = match_paths({"infrared": ir, "visible": vi}, suffixes)
    whole, failures = matches.whole, dict(matches.faults)
    folders = vi.is_dir()
    inputs = [ir, vi, *matches.folders.values()]
    if folders and output.exists() and (not output.is_dir() or any(map(output.samefile, inputs))):
        raise UserError(f"{output} is a file or an input folder; name another folder for the results")
    if not folders and (output.is_dir() or output.suffix.lower() not in FORMATS):
        raise UserError(f"{output} names no image file to write; give it a suffix of {', '.join(FORMATS)}")
    say = Once()
    for note in matches.notes:
        say(note)
    scales = find_scales(matches, ranges, say)

    def one(name: str) -> None:
        target = output / f"{name}.png" if folders else output
        if target.exists() and any(target.samefile(source) for source in whole[name]):
            raise UserError(f"{target} is one of the input images; choose another output")
        ir_file, vi_file = whole[name]
        pair = read_pair(ir_file, vi_file, name, *scales)
        say(pair.doubt, ir_file)
        fused = fuse(fuser, pair.ir.to(device), pair.vi.to(device), save=save).cpu()
        write_image(pair.colour(fused / 255), target)

    failures |= attempt(whole, one, "fusing")
    return len(whole) - len(failures.keys() & whole.keys()), failures


@dataclass(frozen=True)
class Job:
    """One pair of sources and the fused images to score against it: FUSED argument -> its file."""

    ir: Path
    vi: Path
    fused: dict[Path, Path]
    ir_scale: Scale = full
    vi_scale: Scale = full


def score_files(
    ir: Path,
    vi: Path,
    fused: Sequence[Path],
    convention: str,
    metrics: list[str] | None = None,
    workers: int = 1,
    ranges: Mapping[str, Rule] | None = None,
    suffixes: Mapping[str, str] | None = None,
) -> tuple[dict[Path, Scores], Failures]:
    """Scores fused files, or folders of them matched by name, against their sources as 8-bit luminance.

    fused: the results of one or several methods; the sources are read once for all of them.
    workers: how many processes, of one thread each; values do not depend on it. ranges, suffixes: as
    fuse_files takes them; the sources get the range that they were fused with. Returns the scores of each of
    `fused` (left out where no image could be scored) and why others were not. Raises UserError before any
    work for an unknown convention or metric, and where paths are missing or do not fit each other.
    """
    known = find_convention(convention).variants
    if unknown := [name for name in metrics or [] if name not in known]:
        raise UserError(
            f"convention {convention!r} has no metric {', '.join(unknown)}; it has {', '.join(known)}"
        )
    say = Once()
    jobs, failures = find_jobs(ir, vi, fused, ranges, suffixes, say)
    rows: dict[Path, list[Row]] = {method: [] for method in fused}
    done = in_processes(partial(score_job, convention, metrics), jobs, workers)
    for job, outcome in tqdm(done, "scoring", len(jobs), unit="pair", disable=len(jobs) == 1):
        if not isinstance(outcome, UserError):
            say(outcome.doubt, job.ir)
        for method, file in job.fused.items():
            row = outcome if isinstance(outcome, UserError) else outcome.rows[method]
            if isinstance(row, UserError):
                failures[_label(method, file.stem, fused)] = str(row)
            else:
                rows[method].append(row)
    scores = {
        method: Scores(convention, tuple(sorted(found, key=lambda row: str(row["name"]))))
        for method, found in rows.items()
        if found
    }
    return scores, failures


def find_jobs(
    ir: Path,
    vi: Path,
    fused: Sequence[Path],
    ranges: Mapping[str, Rule] | None = None,
    suffixes: Mapping[str, str] | None = None,
    say: "Once | None" = None,
) -> tuple[list[Job], Failures]:
    """The fused images grouped by their sources, and why others are left out."""
    if len(set(fused)) < len(fused):
        raise UserError(f"{max(fused, key=fused.count)} is given twice; name each once")
    say = say or Once()
    jobs: dict[tuple[Path, Path], Job] = {}
    failures: Failures = {}
    scales: tuple[Scale, Scale] | None = None
    for method in fused:
        matches = match_paths({"infrared": ir, "visible": vi, "fused": method}, suffixes)
        for note in matches.notes:
            say(note)
        failures |= {_label(method, name, fused): reason for name, reason in matches.faults.items()}
        scales = scales or find_scales(matches, ranges, say)
        for ir_file, vi_file, file in matches.whole.values():
            job = jobs.setdefault((ir_file, vi_file), Job(ir_file, vi_file, {}, *scales))
            job.fused[method] = file
    return list(jobs.values()), failures


class Once:
    """Says a line on stderr the first time that it comes up; as a warning if it came up with one file."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def __call__(self, line: str, file: Path | None = None) -> None:
        if line and line not in self.said:
            self.said.add(line)
            tqdm.write(f"warning: {file}: {line}" if file else line, file=sys.stderr)


def find_scales(matches: Matches, ranges: Mapping[str, Rule] | None, say: Once) -> tuple[Scale, Scale]:
    """How infrared and visible values become [0, 1], of all images there are and not of matched ones alone.

    So fusing and scoring agree, also where a result is missing.
    """
    found = []
    for role in ("infrared", "visible"):
        scale, notes = find_range(role, matches.images[role], check_rule((ranges or {}).get(role), role))
        found.append(scale)
        for note in notes:
            say(note)
    return found[0], found[1]


def _label(method: Path, name: str, fused: Sequence[Path]) -> str:
    """What a failure is called: by the image alone where one method is scored."""
    if len(fused) == 1:
        return name
    return str(method / name if method.is_dir() else method)


class Scored(NamedTuple):
    """The row of each fused image, or what is wrong with it; and what is odd about its sources."""

    rows: dict[Path, Row | UserError]
    doubt: str


def score_job(convention: str, metrics: list[str] | None, job: Job) -> Scored:
    """Scores what was fused of one pair; raises UserError for its sources."""
    sources = read_image(job.ir, job.ir_scale), read_image(job.vi, job.vi_scale)
    ir, vi = map(_grey, sources)
    if ir.shape != vi.shape:
        raise UserError(f"{job.ir} and {job.vi} are {_size(ir)} and {_size(vi)} pixels; they must be equal")
    images: dict[Path, Tensor] = {}
    outcome: dict[Path, Row | UserError] = {}
    for method, file in job.fused.items():
        try:
            image = _grey(read_image(file))
            if image.shape != ir.shape:
                raise UserError(f"{file} is {_size(image)} pixels, its sources are {_size(ir)}")
            images[method] = image
        except UserError as error:
            outcome[method] = error
    if images:
        named = {str(method): image for method, image in images.items()}
        scores = compare(ir, vi, named, convention, metrics, names=[job.ir.stem])
        outcome |= {
            method: scores[str(method)].rows[0] | {"name": job.fused[method].stem} for method in images
        }
    return Scored(outcome, doubt(*sources))


def _grey(image: Tensor) -> Tensor:
    return to_uint8(luminance(image))


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"


def tables(scores: dict[Path, Scores]) -> tuple[str, str]:
    """All rows as CSV and as Markdown; where there are several methods, each row or table names its own."""
    if len(scores) == 1:
        (only,) = scores.values()
        return only.csv(), only.markdown()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for first, (method, found) in enumerate(scores.items()):
        header, *rows = csv.reader(found.csv().splitlines())
        writer.writerows([["fused", *header]] * (first == 0) + [[str(method), *row] for row in rows])
    return text.getvalue(), "\n".join(
        f"## {method}\n\n{found.markdown()}" for method, found in scores.items()
    )


def summary(scores: Scores) -> str:
    """Mean and spread of each metric in aligned columns; a single image has no spread."""
    mean, spread = scores.mean(), scores.spread()
    lines = [f"{'metric':<6} {'better':<6} {'mean':>10} {'spread':>10}"]
    for metric in scores.metrics:
        deviation = f"{spread[metric]:.4f}" if len(scores.rows) > 1 else "-"
        lines.append(f"{metric:<6} {METRICS[metric].better:<6} {mean[metric]:>10.4f} {deviation:>10}")
    return "\n".join(lines)


def attempt(names: Iterable[str], work: Callable[[str], None], doing: str) -> Failures:
    """Does `work` for each name, behind a progress bar on stderr where there are several."""
    names = list(names)
    failures = {}
    for name in tqdm(names, desc=doing, unit="pair", disable=len(names) == 1):
        try:
            work(name)
        except (UserError, OSError) as error:
            failures[name] = str(error)
    return failures


def match_paths(roles: dict[str, Path], suffixes: Mapping[str, str] | None = None) -> Matches:
    """The images that belong together, as data/names.py finds them, and why others are left out.

    `roles` maps "infrared", "visible" and so on to files, which are one match named by the last of them, or
    to folders. Raises UserError where a path is missing, files and folders are mixed, infrared and visible
    are one, or there is no match.
    """
    for role, path in roles.items():
        if not path.exists():
            raise UserError(f"{path} does not exist; give the {role} image, or the folder of them")
    paths = list(roles.values())
    if files := [str(path) for path in paths if not path.is_dir()]:
        if len(files) < len(paths):
            raise UserError(f"{' and '.join(files)} beside a folder: give only files or only folders")
        if suffixes:
            raise UserError(f"{' and '.join(files)} are files; say how names end for folders only")
        refuse_one_file(roles["infrared"], roles["visible"])
        return Matches({paths[-1].stem: paths}, {}, {role: [path] for role, path in roles.items()})
    return match_roles(roles, suffixes)

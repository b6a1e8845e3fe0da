"""Tables as data: which rows, on which pairs, how they are measured. What all tables do is here, once."""

import io
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from tqdm import tqdm

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.bench.run import PROFILES, Run, find_profile
from fusionlab.data import Pair, Pairs, open_pairs, to_uint8, write_image
from fusionlab.data.registry import choose, datasets
from fusionlab.data.sources import is_there
from fusionlab.errors import UserError, require_seed
from fusionlab.files import locked, naming, write_bytes
from fusionlab.metrics import CONVENTIONS, evaluate

ANY = "any"  # among a table's data: every other set or folder is welcome, by name


class Score(NamedTuple):
    """One number of a row, without the run's stamp: of one pair, or, from `scored`, a mean over pairs.

    error: the standard error of the mean. values: what it is the mean of, pair by pair. of: the pairs behind
    it where they are not the table's, None for no image at all.
    """

    metric: str
    value: float
    unit: str = "1"
    convention: str = ""
    weights: str = "none"
    note: str = ""
    row: str = ""
    error: float | None = None
    values: tuple[float, ...] = ()
    of: Any = "table"


# The chosen rows by name, the pairs (None for a table without), the run -> scores with their rows.
Measure = Callable[[Mapping[str, Any], Any, Run], Iterable[Score]]
Fused = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper, or a study of our own.

    rows: name -> what `measure` needs to know of it; `each` makes a measure of one row into one of all.
    data: the sets that it is measured on unless told otherwise ("none" for no images at all); ANY at the end
    admits others. splits: which of their splits; a set without such a split is taken whole.
    profiles: those that differ in work, and how many pairs each takes, None for all.
    picture: files to draw, by name, from the chosen rows, the pairs and the run.
    differs: why printed numbers and ours part, for the report.
    trains: the run makes its own weights from its seed. So scenes to score on are those of seed 0, whatever
    the seed, and another machine may reach the same numbers with other weights.
    device: "cpu" for what is measured there even beside a GPU. keep: keep the values of each pair.
    """

    rows: Mapping[str, Any]
    measure: Measure
    data: tuple[str, ...] = ("none",)
    splits: tuple[str | None, ...] = ("test",)
    profiles: Mapping[str, int | None] = field(default_factory=lambda: {"smoke": 2, "laptop": None})
    picture: Callable[[Sequence[str], Any, Run], Mapping[str, Tensor]] | None = None
    differs: str = ""
    trains: bool = False
    device: str = "auto"
    keep: bool = False

    def profile(self, asked: str) -> str:
        """The profile that is run where `asked` is: itself, or the next smaller one that differs in work."""
        if asked not in PROFILES:
            raise UserError(f"there is no profile {asked}; use auto, {', '.join(PROFILES)}")
        below = [name for name in PROFILES[: PROFILES.index(asked) + 1] if name in self.profiles]
        return below[-1] if below else next(name for name in PROFILES if name in self.profiles)

    def check(self, target: str, row: str | None, data: str) -> None:
        """Raises UserError for a row or data that the table does not have."""
        if row is not None and row not in self.rows:
            raise UserError(f"{target} has no row {row!r}; it has {', '.join(self.rows)}")
        own = [name for name in self.data if name != ANY]
        if data not in ("auto", *own) and not (ANY in self.data and is_there(data)):
            others = " and any other set or folder that is there" if ANY in self.data else ""
            raise UserError(f"{target} is not measured on {data!r}; it is on {', '.join(own)}{others}")

    def open(self, data: str, run: Run) -> Iterator[Pairs | None]:
        """The pairs of each set and split, None once for a table without."""
        for name in (own for own in self.data if own != ANY) if data == "auto" else [data]:
            for split in self.splits:
                yield (
                    None
                    if name == "none"
                    else open_pairs(
                        name,
                        self.profiles[run.profile],
                        seed=0 if self.trains else run.seed,
                        split=split if _has(name, split) else None,
                    )
                )


def _has(data: str, split: str | None) -> bool:
    """Whether a set is registered with such a split; scenes have every one, a folder none."""
    splits = {file.split for file in choose(data)} if data in datasets() else set()
    return data == "scenes" or split in splits


def run_table(
    table: Table,
    target: str,
    folder: Path,
    row: str | None = None,
    profile: str = "auto",
    data: str = "auto",
    seeds: Sequence[int] = (0,),
) -> list[Record]:
    """Measures a table, one row or all, for each seed; appends each record to the folder as soon as it is.

    What a stopped run wrote into the folder is not written twice. A profile that the table lacks becomes the
    next smaller one, said on stderr and recorded as that. Raises UserError, before anything is opened, for a
    row, profile, data or seed that the table does not have, and while another process runs in the folder.
    """
    table.check(target, row, data)
    for seed in (*seeds[:1], *seeds[-1:]):
        require_seed(seed)
    asked = find_profile(profile)
    chosen = table.profile(asked)
    if chosen != asked:
        print(f"{target} is no other at profile {asked}: running and recording {chosen}", file=sys.stderr)
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = []
    with locked(folder):
        records.mend(folder)
        begun = replace(Run.begin(folder, chosen, seeds[0], table.device), target=target)
        there = records.read(folder) if (folder / "records.csv").exists() else []
        known = {(record.key, record.run.profile) for record in there}
        for seed in seeds:
            for record in _measured(table, target, replace(begun, seed=seed), row, data):
                if (record.key, chosen) not in known:
                    records.append(folder, record)
                made.append(record)
    return made


def _measured(table: Table, target: str, run: Run, row: str | None, data: str) -> Iterator[Record]:
    rows = {row: table.rows[row]} if row else table.rows
    kept: dict[str, tuple[float, ...]] = {}
    for pairs in table.open(data, run):
        for score in table.measure(rows, pairs, run):
            record = stamped(target, score, pairs if score.of == "table" else score.of, run)
            yield record
            if table.keep and score.values:
                kept["|".join(record.key)] = score.values
        if table.picture:
            _draw(table.picture(list(rows), pairs, run), target, pairs, run)
    if kept:
        _keep(kept, target, run)


def stamped(target: str, score: Score, pairs: Pairs | None, run: Run) -> Record:
    """The record of a score of these pairs, of a run."""
    return Record(
        run=run.stamp,
        target=target,
        row=score.row,
        metric=score.metric,
        convention=score.convention,
        data=pairs.data if pairs is not None else "none",
        split=pairs.split if pairs is not None else "none",
        n=count(pairs),
        seed=run.seed,
        weights=score.weights,
        value=float(score.value),
        error=score.error,
        unit=score.unit,
        note="; ".join(filter(None, [score.note, pairs.ranges() if pairs is not None else ""])),
    )


def count(pairs: Pairs | None) -> str:
    """How many pairs are behind a number: "42", "25 of 42" where the set is partial, "0" for none."""
    if pairs is None:
        return "0"
    partial = pairs.total is not None and pairs.total != len(pairs)
    return f"{len(pairs)} of {pairs.total}" if partial else str(len(pairs))


# Where pictures lie in a run: those drawn of scenes, which `promote` takes, and others' images, which stay.
PICTURES, PRIVATE = "figures", "private"


def _draw(pictures: Mapping[str, Tensor], target: str, pairs: Pairs | None, run: Run) -> None:
    """Writes pictures; a name that holds the name of the pairs' set is drawn of them.

    The names are those of the table; of another seed than 0 they say so: figure5.png, figure5-seed1.png.
    """
    for name, picture in pictures.items():
        real = pairs is not None and pairs.data != "scenes" and pairs.data in name
        file = run.place / (PRIVATE if real else PICTURES) / target.split("/")[0] / name
        own = f"-seed{run.seed}"
        write_image(picture, file.with_stem(file.stem + own) if run.seed and own not in name else file)


def _keep(values: Mapping[str, tuple[float, ...]], target: str, run: Run) -> None:
    """Writes the values of each pair, key of the record -> values, compressed; adds to what is there."""
    file = run.place / PICTURES / f"{target}.npz"
    there = dict(np.load(file)) if file.exists() else {}
    fresh: dict[str, Any] = {key: np.array(found) for key, found in values.items() if key not in there}
    content = io.BytesIO()
    np.savez_compressed(content, **there, **fresh)
    write_bytes(file, content.getvalue())


def each(measure: Callable[[Any, Any, Run], Iterable[Score]]) -> Measure:
    """Makes a measure of one row into one of all rows, one after the other."""

    def all_of_them(rows: Mapping[str, Any], pairs: Any, run: Run) -> Iterator[Score]:
        for name, row in rows.items():
            for score in measure(row, pairs, run):
                yield score._replace(row=name)

    return all_of_them


def collected(
    scores_of: Callable[[Pair], Iterable[Score]], pairs: Iterable[Pair], device: str = "cpu", title: str = ""
) -> dict[tuple[str, str, str], list[Score]]:
    """(row, convention, metric) -> the scores of each pair, whose images `scores_of` gets on the device."""
    found: dict[tuple[str, str, str], list[Score]] = {}
    for pair in tqdm(pairs, desc=title, unit="pair", leave=False):
        for score in scores_of(replace(pair, ir=pair.ir.to(device), vi=pair.vi.to(device))):
            found.setdefault((score.row, score.convention, score.metric), []).append(score)
    return found


def scored(
    scores_of: Callable[[Pair], Iterable[Score]], pairs: Iterable[Pair], device: str = "cpu", title: str = ""
) -> Iterator[Score]:
    """The mean of each score over the pairs, with its standard error: the only way from pairs to a mean.

    A score that `scores_of` leaves out for a pair (which has no such value) is left out of that mean; one
    that is NaN for any pair has no mean and is not given.
    """
    for scores in collected(scores_of, pairs, device, title).values():
        values = tuple(score.value for score in scores)
        value, error = mean_and_error(values)
        if not math.isnan(value):
            yield scores[0]._replace(value=value, error=error, values=values)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, an exact sum whatever the order, and its standard error, which a single value does not have."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or math.isnan(mean):
        return mean, None
    return mean, statistics.stdev(values) / math.sqrt(len(values))


def conventional(
    image: Fused, wanted: Mapping[str, Sequence[str] | None], weights: str = "none", note: str = ""
) -> Callable[[Pair], Iterator[Score]]:
    """What an image rule (ir, vi) -> uint8 scores on a pair, in the metrics wanted of each convention.

    None wants all of them. The rule sees 8-bit luminance, as the papers' scripts read it.
    """

    def scores_of(pair: Pair) -> Iterator[Score]:
        ir, vi = to_uint8(pair.ir), to_uint8(pair.vi)
        fused = image(ir / 255, vi / 255)
        for convention, metrics in wanted.items():
            variants = CONVENTIONS[convention].variants
            for metric, value in evaluate(ir, vi, fused, convention, metrics).mean().items():
                yield Score(metric, value, variants[metric].unit, convention, weights, note)

    return scores_of

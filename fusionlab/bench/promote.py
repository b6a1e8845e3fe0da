"""From a run to the project: whole blocks of records replace what stood there, pictures with them."""

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.bench.table import PICTURES
from fusionlab.errors import UserError
from fusionlab.files import locked, replacing


def promote(
    folder: Path, figures: Path, known: Mapping[str, Collection[str]], rows: Sequence[str] = ()
) -> list[Path]:
    """Replaces the blocks (target, data, split) of a run in `<figures>/<paper>/`; returns the files written.

    known: target -> the rows that its table has. A run that lacks one of them, or a row and seed that are
    promoted in one of its blocks, is refused, unless `rows` names the rows to replace; then the others stay,
    and so do the pictures.
    A target has one promoted profile, never smoke: a run of another has to bring every block of it.
    Raises UserError where a record fails the lint or comes from code of no commit. Then, as in every other
    case of refusal, nothing is written. While one process promotes, the next one waits.
    """
    with locked(figures, wait=True):
        return _promote(folder, figures, known, rows)


def _promote(
    folder: Path, figures: Path, known: Mapping[str, Collection[str]], rows: Sequence[str]
) -> list[Path]:
    fresh = [record for record in records.read(folder) if not rows or record.row in rows]
    faults = records.lint(fresh)
    if not fresh:
        faults.append(f"it has no row called {' or '.join(rows)}" if rows else "it has no records")
    if not all(re.fullmatch(r"[0-9a-f]{40}", record.run.commit) for record in fresh):
        faults.append("made from code that no commit holds; commit it and run again")
    papers = sorted({record.target.split("/")[0] for record in fresh})
    old = {paper: _read(figures / paper) for paper in papers}
    promoted = [record for paper in papers for record in old[paper]]
    for target in sorted({record.target for record in fresh}):
        mine, theirs = ([r for r in group if r.target == target] for group in (fresh, promoted))
        faults += _profile_faults(target, mine, theirs)
        if not rows:
            faults += _missing(mine, theirs, known.get(target, ()))
    if faults:
        raise UserError(f"{folder.name} cannot be promoted: " + "; ".join(faults))
    written = []
    for paper in papers:
        mine = [record for record in fresh if record.target.split("/")[0] == paper]
        kept = [record for record in old[paper] if not _is_replaced(record, mine, rows)]
        with ExitStack() as drafts:  # pictures take their place where the records have taken theirs
            pictures = [] if rows else _copies(folder / PICTURES / paper, figures / paper, drafts)
            records.write(figures / paper, [*kept, *mine])
        written += [figures / paper / "runs.csv", figures / paper / "records.csv", *pictures]
    return written


def _read(folder: Path) -> list[Record]:
    return records.read(folder) if (folder / "records.csv").exists() else []


def _profile_faults(target: str, fresh: Sequence[Record], promoted: Sequence[Record]) -> list[str]:
    profiles = {record.run.profile for record in fresh}
    if len(profiles) > 1:
        return [f"{target} was run at {' and '.join(sorted(profiles))}; promote one profile"]
    if profiles == {"smoke"}:
        return [f"{target} was run at smoke, which shows that it runs and no more"]
    others = {record.block for record in promoted if record.run.profile not in profiles}
    left = sorted(others - {record.block for record in fresh})
    if left:
        place = ", ".join(f"{data} {split}" for _, data, split in left)
        return [f"{target} is promoted at another profile on {place}; bring these blocks too"]
    return []


def _missing(fresh: Sequence[Record], promoted: Sequence[Record], rows: Collection[str]) -> list[str]:
    """What of the table, and of each block as it is promoted, a run did not measure."""
    target, faults = fresh[0].target, []
    if absent := [row for row in rows if row not in {record.row for record in fresh}]:
        faults.append(f"{target} lacks the rows {', '.join(absent)}; run them, or name the rows to replace")
    for block in sorted({record.block for record in fresh}):
        mine = {(record.row, record.seed) for record in fresh if record.block == block}
        theirs = {(record.row, record.seed) for record in promoted if record.block == block}
        if lost := sorted((row, seed) for row, seed in theirs - mine if row in rows):
            which = ", ".join(f"{row} of seed {seed}" for row, seed in lost[:3])
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            faults.append(f"{' '.join(block)} lacks {which}{more}; run them, or name the rows to replace")
    return faults


def _is_replaced(old: Record, fresh: Sequence[Record], rows: Sequence[str]) -> bool:
    return any(old.block == new.block and (not rows or old.row == new.row) for new in fresh)


def _copies(source: Path, place: Path, drafts: ExitStack) -> list[Path]:
    """Copies the pictures beside their places, which they take at the end of `drafts`."""
    pictures = sorted(source.iterdir()) if source.is_dir() else []
    for picture in pictures:
        shutil.copyfile(picture, drafts.enter_context(replacing(place / picture.name)))
    return [place / picture.name for picture in pictures]

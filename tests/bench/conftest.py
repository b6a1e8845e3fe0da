"""A sound record and its run, and a made-up table that needs neither networks nor data sets."""

from dataclasses import replace

import pytest

from fusionlab.bench.records import Record, Stamp
from fusionlab.bench.table import Score, Table, each, scored

STAMP = Stamp(
    run="20260131-120000",
    commit="c" * 40,
    versions="python 3.11.7, torch 2.13.0",
    device="cpu",
    profile="laptop",
    date="2026-01-31",
    command="fusionlab reproduce mmdrfuse/table5",
)
SOUND = Record(
    run=STAMP,
    target="mmdrfuse/table5",
    row="student",
    metric="EN",
    convention="mmdrfuse",
    data="roadscene",
    split="test",
    n="50 of 221",
    seed=0,
    weights="0123456789ab",
    value=6.5,
    error=0.125,
    unit="bit",
    note="",
)


@pytest.fixture
def sound() -> Record:
    return SOUND


def brightness(factor, pairs, run):
    """The mean grey level of the visible images times a factor, and what has no images behind it."""
    yield from scored(lambda pair: [Score("brightness", factor * pair.vi.mean().item())], pairs, run.device)
    yield Score("factor", factor, of=None)


@pytest.fixture
def table() -> Table:
    return Table({"once": 1.0, "twice": 2.0}, each(brightness), ("scenes",))


@pytest.fixture(autouse=True)
def committed(monkeypatch):
    """Runs made by tests come from a commit, and the machine has no profile of its own."""
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "c" * 40)
    monkeypatch.delenv("FUSIONLAB_PROFILE", raising=False)


@pytest.fixture
def stamped():
    """The sound record in another run."""
    return lambda record=SOUND, **stamp: replace(record, run=replace(record.run, **stamp))

"""Records in files: every digit survives, a damaged file is named, what cannot be trusted is listed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.bench import records
from fusionlab.errors import UserError

from .conftest import SOUND

text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\x00"), max_size=12)


@given(
    value=st.floats(allow_nan=False),
    error=st.none() | st.floats(min_value=0, allow_infinity=False),
    note=text,
    seed=st.integers(-5, 2**40),
)
def test_a_record_survives_the_file_to_the_last_digit(tmp_path_factory, value, error, note, seed):
    folder = tmp_path_factory.mktemp("run")
    elsewhere = replace(SOUND.run, run="another", profile="gpu", command=note or "x")
    written = [replace(SOUND, value=value, error=error, note=note, seed=seed), replace(SOUND, run=elsewhere)]
    for record in written:
        records.append(folder, record)
    assert records.read(folder) == written
    assert records.read_stamps(folder) == [SOUND.run, elsewhere]
    assert (folder / "records.csv").read_text(encoding="utf-8").count("run,target,row") == 1


def test_what_a_run_shares_is_written_once(tmp_path):
    for k in range(50):
        records.append(tmp_path, replace(SOUND, seed=k))
    assert (tmp_path / "runs.csv").read_text().count(SOUND.run.command) == 1
    assert SOUND.run.command not in (tmp_path / "records.csv").read_text()


def test_writing_keeps_the_runs_that_are_left_and_orders_by_what_is_measured(tmp_path):
    gone = replace(SOUND.run, run="gone")
    records.append(tmp_path, replace(SOUND, run=gone))
    rows = [replace(SOUND, row=row, seed=seed) for row in ("b", "a") for seed in (1, 0)]
    records.write(tmp_path, rows)
    assert [(r.row, r.seed) for r in records.read(tmp_path)] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert records.read_stamps(tmp_path) == [SOUND.run]
    with pytest.raises(UserError, match="another run called 20260131-120000"):
        records.append(tmp_path, replace(SOUND, run=replace(SOUND.run, profile="gpu")))
    with pytest.raises(UserError, match="two runs are called 20260131-120000"):
        records.write(tmp_path, [SOUND, replace(SOUND, seed=1, run=replace(SOUND.run, profile="gpu"))])
    assert len(records.read(tmp_path)) == 4


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path):
    records.append(tmp_path, SOUND)
    records.append(tmp_path, replace(SOUND, seed=1))
    file = tmp_path / "records.csv"
    whole = file.read_text()
    file.write_text(whole.rstrip("\n").rsplit(",", 5)[0])
    with pytest.raises(UserError, match=r"records\.csv, record 2: wrong number of columns"):
        records.read(tmp_path)
    file.write_text(whole.replace("6.5", "six", 1))
    with pytest.raises(UserError, match=r"record 1: could not convert .*six"):
        records.read(tmp_path)
    file.write_text(whole.replace("20260131-120000", "lost", 1))
    with pytest.raises(UserError, match=r"record 1: no row of runs\.csv is called 'lost'"):
        records.read(tmp_path)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a records file"):
        records.append(tmp_path, SOUND)
    with pytest.raises(UserError, match="there is no"):
        records.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"command": ""}, "no command"),
        ({"commit": ""}, "no commit"),
        ({"device": ""}, "no device"),
        ({"weights": ""}, "weights"),
        ({"weights": "official"}, "weights"),
        ({"weights": "0123456789a"}, "weights"),
        ({"value": float("nan")}, "nan"),
        ({"value": float("inf")}, "inf"),
        ({"error": float("nan")}, "standard error"),
        ({"error": -1.0}, "standard error"),
        ({"target": "table5"}, "paper/table"),
        ({"data": ""}, "no data"),
    ],
)
def test_the_lint_names_what_is_missing(change, fault):
    assert records.lint([SOUND, replace(SOUND, weights="none", error=None)]) == []
    stamp = {name: change.pop(name) for name in list(change) if name in records.STAMP_FIELDS}
    faults = records.lint([SOUND, replace(SOUND, run=replace(SOUND.run, **stamp), **change)])
    assert len(faults) == 1
    assert fault in faults[0]

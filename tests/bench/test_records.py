import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionlab.bench import records
from fusionlab.bench.records import Record
from fusionlab.errors import UserError

SOUND = Record(
    target="mmdrfuse/table5",
    row="student",
    metric="EN",
    value=6.5,
    unit="bit",
    convention="wang",
    data="roadscene",
    split="test",
    n="40 of 221",
    profile="paper",
    seed=0,
    weights="0123456789ab",
    device="cpu",
    versions="python 3.11.7, torch 2.13.0",
    commit="a" * 40,
    command="fusionlab reproduce mmdrfuse/table5 --row student",
    date="2026-11-21",
)
text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\x00"), max_size=12)


@given(value=st.floats(allow_nan=False), note=text, seed=st.integers(-5, 2**40))
def test_a_record_survives_the_file_to_the_last_digit(tmp_path_factory, value, note, seed):
    run = tmp_path_factory.mktemp("run")
    written = [replace(SOUND, value=value, note=note, seed=seed), SOUND]
    records.append(run, written[:1])
    path = records.append(run, written[1:])
    assert records.read(path) == written
    assert path.read_text(encoding="utf-8").count("target,row,metric") == 1


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path):
    path = records.append(tmp_path, [SOUND, SOUND])
    path.write_text(path.read_text().rstrip("\n").rsplit(",", 9)[0])
    with pytest.raises(UserError, match=r"records\.csv, record 2: wrong number of columns"):
        records.read(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a records file"):
        records.append(tmp_path, [SOUND])
    with pytest.raises(UserError, match="there is no"):
        records.read(tmp_path / "absent.csv")


@pytest.mark.parametrize("field", ["data", "device", "weights", "seed", "profile", "split", "convention"])
def test_a_new_measurement_replaces_its_own_key_only(field):
    other = replace(SOUND, **{field: 9 if field == "seed" else "other"})
    again = replace(SOUND, value=7.0, date="2026-12-01", commit="b" * 40)
    assert records.merge([SOUND], [other]) == [SOUND, other]
    assert records.merge([SOUND, other], [again]) == [again, other]


def test_promoting_merges_by_paper_and_leaves_the_rest(tmp_path):
    run, figures = tmp_path / "run", tmp_path / "figures"
    elsewhere = replace(SOUND, target="caf/table3")
    records.append(figures / "mmdrfuse", [SOUND, replace(SOUND, row="teacher")])
    records.append(run, [replace(SOUND, value=6.75), replace(SOUND, data="scenes"), elsewhere])
    written = records.promote(run, figures)
    assert [path.parent.name for path in written] == ["caf", "mmdrfuse"]
    kept = {(r.data, r.row): r.value for r in records.read(figures / "mmdrfuse" / "records.csv")}
    assert kept == {("roadscene", "student"): 6.75, ("roadscene", "teacher"): 6.5, ("scenes", "student"): 6.5}
    assert records.read(figures / "caf" / "records.csv") == [elsewhere]


def test_an_unsound_record_is_not_promoted(tmp_path):
    records.append(tmp_path / "run", [SOUND, replace(SOUND, row="x", commit="")])
    with pytest.raises(UserError, match="no commit"):
        records.promote(tmp_path / "run", tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"command": ""}, "no command"),
        ({"commit": ""}, "no commit"),
        ({"weights": ""}, "weights"),
        ({"weights": "official"}, "weights"),
        ({"weights": "0123456789a"}, "weights"),
        ({"value": float("nan")}, "nan"),
        ({"value": float("inf")}, "inf"),
        ({"target": "table5"}, "paper/table"),
    ],
)
def test_the_lint_names_what_is_missing(change, fault):
    assert records.lint([SOUND, replace(SOUND, weights="none")]) == []
    faults = records.lint([SOUND, replace(SOUND, **change)])
    assert len(faults) == 1
    assert fault in faults[0]


def git(root, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on PATH")
def test_the_commit_of_a_checkout_and_of_a_wheel(tmp_path):
    assert records.commit(tmp_path).startswith("wheel-")
    git(tmp_path, "init")
    assert records.commit(tmp_path) == "unknown"
    (tmp_path / "fusionlab").mkdir()
    (tmp_path / "fusionlab" / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "figures.csv").write_text("a result is not code\n")
    assert records.commit(tmp_path) == head
    (tmp_path / "fusionlab" / "b.py").write_text("x = 2\n")
    assert records.commit(tmp_path) == f"{head}+dirty"


def test_the_environment_names_the_versions_without_a_machine_path():
    found = records.environment("cpu")
    assert found["device"] == "cpu"
    assert "torch 2." in found["versions"]
    assert "/" not in found["versions"]

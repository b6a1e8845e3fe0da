"""From a run to a promoted, verified record: whole blocks, one profile, nothing lost without a word."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fusionlab import cli, paths
from fusionlab.bench import records, results, verify
from fusionlab.bench.promote import promote
from fusionlab.errors import UserError

ROWS = {"mmdrfuse/table5": ("student", "teacher")}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The folder that records are promoted into and read from, in a project of its own."""
    (tmp_path / "figures").mkdir()
    real = paths.asset
    fake = lambda name: tmp_path / name if name.startswith("figures") else real(name)  # noqa: E731
    monkeypatch.setattr(paths, "asset", fake)
    monkeypatch.setattr(verify, "asset", fake)
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "figures"


@pytest.fixture
def run_of(tmp_path, stamped):
    """Writes a run of both rows for the seeds, every value raised by `more`; `change` alters each record."""

    def make(name, more=0.0, seeds=(0,), rows=("student", "teacher"), profile="laptop", **change):
        folder = tmp_path / "made" / name
        for seed in seeds:
            for row in rows:
                one = replace(stamped(run=name, profile=profile), row=row, seed=seed)
                records.append(folder, replace(one, value=one.value + more, **change))
        return folder

    return make


def values(target="mmdrfuse/table5", data="roadscene"):
    return {(r.row, r.seed): r.value for r in results.results(target, data)}


def test_a_second_run_replaces_the_block_and_nothing_else(figures, run_of):
    promote(run_of("one"), figures, ROWS)
    promote(run_of("msrs", 1.0, data="msrs"), figures, ROWS)
    promote(run_of("val", 2.0, split="val"), figures, ROWS)
    promote(run_of("two", 3.0), figures, ROWS)
    kept = records.read(figures / "mmdrfuse")
    assert {(r.data, r.split): r.value for r in kept} == {
        ("msrs", "test"): 7.5,
        ("roadscene", "val"): 8.5,
        ("roadscene", "test"): 9.5,
    }
    assert {stamp.run for stamp in records.read_stamps(figures / "mmdrfuse")} == {"msrs", "val", "two"}


def test_a_smoke_run_is_refused_and_what_notebooks_read_stays(figures, run_of):
    promote(run_of("one"), figures, ROWS)
    before = (figures / "mmdrfuse" / "records.csv").read_bytes()
    with pytest.raises(UserError, match="run at smoke"):
        promote(run_of("smoke", -3.0, profile="smoke"), figures, ROWS)
    assert (figures / "mmdrfuse" / "records.csv").read_bytes() == before
    assert values() == {("student", 0): 6.5, ("teacher", 0): 6.5}


def test_retrained_weights_leave_no_rows_of_dead_ones(figures, run_of):
    promote(run_of("one", seeds=(0, 1)), figures, ROWS)
    promote(run_of("two", 1.0, seeds=(0, 1, 2), weights="ba9876543210"), figures, ROWS)
    assert {r.weights for r in results.results("mmdrfuse/table5", "roadscene")} == {"ba9876543210"}
    assert set(values().values()) == {7.5} and len(values()) == 6


def test_another_profile_has_to_bring_every_block(figures, run_of, stamped):
    promote(run_of("one"), figures, ROWS)
    promote(run_of("msrs", data="msrs"), figures, ROWS)
    gpu = run_of("gpu", 1.0, profile="gpu")
    with pytest.raises(UserError, match="promoted at another profile on msrs test; bring these blocks too"):
        promote(gpu, figures, ROWS)
    run_of("gpu", 1.0, profile="gpu", data="msrs")
    promote(gpu, figures, ROWS)
    assert {r.run.profile for r in records.read(figures / "mmdrfuse")} == {"gpu"}
    assert set(values().values()) == {7.5}
    both = run_of("both", profile="laptop")
    records.append(both, replace(stamped(run="both-2", profile="gpu"), split="val"))
    with pytest.raises(UserError, match="run at gpu and laptop; promote one profile"):
        promote(both, figures, ROWS)


def test_part_of_a_block_is_refused_unless_its_rows_are_named(figures, run_of):
    with pytest.raises(UserError, match="lacks the rows teacher; run them, or name the rows"):
        promote(run_of("part", rows=("student",)), figures, ROWS)
    promote(run_of("one", seeds=(0, 1)), figures, ROWS)
    with pytest.raises(UserError, match="lacks student of seed 1, teacher of seed 1"):
        promote(run_of("seed", 1.0), figures, ROWS)
    promote(run_of("row", 1.0, rows=("student",), seeds=(0, 1)), figures, ROWS, ["student"])
    assert values() == {
        ("student", 0): 7.5,
        ("student", 1): 7.5,
        ("teacher", 0): 6.5,
        ("teacher", 1): 6.5,
    }
    with pytest.raises(UserError, match="no row called maximum"):
        promote(run_of("none"), figures, ROWS, ["maximum"])


def test_pictures_come_with_a_whole_block(figures, run_of):
    def drawn(name, *rows):
        folder = run_of(name, **({"rows": rows} if rows else {}))
        for place in ("figures", "private"):
            (folder / place / "mmdrfuse").mkdir(parents=True)
            (folder / place / "mmdrfuse" / f"{place}.png").write_text(name)
        return folder

    promote(drawn("one"), figures, ROWS)
    assert (figures / "mmdrfuse" / "figures.png").read_text() == "one"
    promote(drawn("two"), figures, ROWS)
    promote(drawn("part", "student"), figures, ROWS, ["student"])
    assert (figures / "mmdrfuse" / "figures.png").read_text() == "two"
    assert not (figures / "mmdrfuse" / "private.png").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"command": ""}, "no command"),
        ({"commit": ""}, "no commit"),
        ({"commit": "c" * 40 + "+dirty"}, "made from code that no commit holds"),
        ({"commit": "wheel-0.1.0"}, "made from code that no commit holds"),
    ],
)
def test_a_run_that_cannot_be_traced_is_refused_and_nothing_is_written(
    figures, run_of, stamped, change, reason
):
    promote(run_of("one"), figures, ROWS)
    before = (figures / "mmdrfuse" / "records.csv").read_bytes()
    folder = run_of("two", 1.0)
    records.append(folder, replace(stamped(run="three", **change), split="val"))
    with pytest.raises(UserError, match=reason):
        promote(folder, figures, ROWS)
    assert (figures / "mmdrfuse" / "records.csv").read_bytes() == before


TARGET, ROW = "mmdrfuse/table5", "student-ours/clip"
SMALL = ["--row", ROW, "--data", "scenes", "--profile", "laptop"]


def fusionlab(*arguments: object):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_reproduced_promoted_and_verified_by_the_command_line(figures, stamped):
    done = fusionlab("reproduce", TARGET, *SMALL)
    assert done.exit_code == 0, done.output
    run = Path(done.stdout.splitlines()[-1]).parent
    made = records.read(run)
    refused = fusionlab("promote", run)
    assert (refused.exit_code, "lacks the rows student-released/stretch" in refused.stderr) == (1, True)
    assert fusionlab("promote", run, "--row", ROW).exit_code == 0
    kept = records.read(figures / "mmdrfuse")
    assert sorted(kept, key=repr) == sorted(made, key=repr)

    confirmed = fusionlab("reproduce", TARGET, *SMALL, "--verify")
    assert confirmed.exit_code == 0, confirmed.stdout
    assert confirmed.stdout.splitlines()[-1] == f"{len(made)} of {len(made)} confirmed"

    (victim,) = (r for r in kept if (r.metric, r.convention) == ("SSIM", "mmdrfuse"))
    altered = replace(victim, value=victim.value + 0.002)
    records.write(figures / "mmdrfuse", [altered if record == victim else record for record in kept])
    refuted = fusionlab("reproduce", TARGET, *SMALL, "--verify")
    assert refuted.exit_code == 1
    assert [line.split()[1] for line in refuted.stdout.splitlines() if "DIFFERS" in line] == ["SSIM"]


def test_a_record_that_claims_something_else_is_not_confirmed(sound):
    assert verify._verdict(sound, replace(sound, value=6.5004), trains=False).confirmed
    assert not verify._verdict(sound, replace(sound, value=6.52), trains=False).confirmed
    for change, text in (
        ({"n": "7"}, "OTHER N"),
        ({"unit": "dB"}, "OTHER UNIT"),
        ({"weights": "0" * 64}, "OTHER WEIGHTS"),
    ):
        verdict = verify._verdict(sound, replace(sound, **change), trains=False)
        assert text in verdict.text and not verdict.confirmed
    assert verify._verdict(sound, replace(sound, weights="0" * 64), trains=True).confirmed
    assert not verify._verdict(sound, None, trains=False).confirmed
    count = replace(sound, value=556489.0)
    assert not verify._verdict(count, replace(count, value=556488.0), trains=False).confirmed

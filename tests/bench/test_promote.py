"""From a run to a promoted, verified record, by the command line: what may enter figures/ and what stands."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fusionlab import cli, paths
from fusionlab.bench import records, verify
from fusionlab.bench.records import Record

TARGET, ROW = "mmdrfuse/table5", "student-ours/clip"
SMOKE = ["--row", ROW, "--profile", "smoke", "--data", "scenes"]


def fusionlab(*arguments: object):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture
def promoted(tmp_path, monkeypatch) -> Path:
    """The file that records are promoted into, in a project of its own whose code is committed."""
    (tmp_path / "figures").mkdir()
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    real = paths.asset
    fake = lambda name: tmp_path / name if name == "figures" else real(name)  # noqa: E731
    monkeypatch.setattr(paths, "asset", fake)
    monkeypatch.setattr(verify, "asset", fake)
    monkeypatch.setattr(records, "commit", lambda: "c" * 40)
    return tmp_path / "figures" / "mmdrfuse" / "records.csv"


def reproduce() -> Path:
    """A run of one row on scenes at smoke."""
    done = fusionlab("reproduce", TARGET, *SMOKE)
    assert done.exit_code == 0, done.output
    return Path(done.stdout.splitlines()[-1]).parent


def test_scenes_never_replace_a_real_result_and_an_altered_record_fails(promoted):
    run = reproduce()
    made = records.read(run / "records.csv")
    real = [replace(record, data="roadscene", split="test", n="50 of 221", value=-1.0) for record in made]
    records.write(promoted, real)

    assert fusionlab("promote", run).exit_code == 0
    kept = records.read(promoted)
    assert {record for record in kept if record.data == "roadscene"} == set(real)
    assert sorted(r.metric for r in kept if r.data == "scenes") == sorted(r.metric for r in made)

    confirmed = fusionlab("reproduce", TARGET, *SMOKE, "--verify")
    assert (confirmed.exit_code, confirmed.stdout.splitlines()[-1]) == (
        0,
        f"{len(made)} of {len(made)} confirmed",
    )

    (victim,) = (r for r in kept if (r.data, r.metric, r.convention) == ("scenes", "SSIM", "mmdrfuse"))
    altered = replace(victim, value=victim.value + 0.002)
    records.write(promoted, [altered if record == victim else record for record in kept])
    refuted = fusionlab("reproduce", TARGET, *SMOKE, "--verify")
    assert refuted.exit_code == 1
    assert [line.split()[1] for line in refuted.stdout.splitlines() if "DIFFERS" in line] == ["SSIM"]

    # Nor does one pass that claims other images or another unit, or misses a count by one.
    for change, text in (({"n": "7"}, "OTHER N"), ({"unit": "dB"}, "OTHER UNIT")):
        records.write(promoted, [replace(victim, **change)])
        other = fusionlab("reproduce", TARGET, *SMOKE, "--verify")
        assert (other.exit_code, text in other.stdout) == (1, True)
    verdict = verify._verdict(replace(victim, value=556489.0), replace(victim, value=556488.0))
    assert not verdict.confirmed

    # Nor does one pass that claims other weights than those that made the number.
    records.write(promoted, [replace(victim, weights="0" * 64)])
    foreign = fusionlab("reproduce", TARGET, *SMOKE, "--verify")
    assert (foreign.exit_code, "OTHER WEIGHTS" in foreign.stdout) == (1, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"command": ""}, "no command"),
        ({"commit": ""}, "no commit"),
        ({"weights": ""}, "weights must be none or a sha256"),
        ({"weights": "ours"}, "weights must be none or a sha256"),
        ({"commit": "c" * 40 + "+dirty"}, "made from code that no commit holds"),
        ({"commit": "wheel-0.1.0"}, "made from code that no commit holds"),
    ],
)
def test_an_untraceable_record_is_refused_and_nothing_is_merged(promoted, tmp_path, change, reason):
    sound = Record(
        *(TARGET, ROW, "EN", 6.5, "bit", "mmdrfuse", "scenes", "test", "4", "smoke", 0),
        *("0123456789ab", "cpu", "python 3.11", "c" * 40, "fusionlab reproduce", "2026-01-31"),
    )
    records.write(promoted, [replace(sound, value=6.25)])
    before = promoted.read_bytes()
    run = records.append(tmp_path / "run", [sound, replace(sound, metric="SD", **change)]).parent
    refused = fusionlab("promote", run)
    assert (refused.exit_code, reason in refused.stderr) == (1, True)
    assert promoted.read_bytes() == before
    records.write(run / "records.csv", [sound])
    assert fusionlab("promote", run).exit_code == 0
    assert [record.value for record in records.read(promoted)] == [6.5]


def test_a_run_from_changed_code_is_not_promoted(promoted, monkeypatch):
    monkeypatch.setattr(records, "commit", lambda: "c" * 40 + "+dirty")
    run = reproduce()
    refused = fusionlab("promote", run)
    assert (refused.exit_code, "commit it and run again" in refused.stderr) == (1, True)
    assert not promoted.exists()


def test_every_record_in_the_project_passes_the_lint():
    files = sorted(paths.asset("figures").glob("*/records.csv"))
    assert files
    for file in files:
        found = records.read(file)
        assert records.lint(found) == []
        assert not [record for record in found if record.commit.endswith("+dirty")]

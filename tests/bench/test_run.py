"""A run knows its commit, device, time and command before its first number, and asks once."""

import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

from fusionlab.bench import run as bench_run
from fusionlab.bench import table as bench_table
from fusionlab.bench.run import Run, find_profile, new_folder
from fusionlab.bench.table import Score, Table
from fusionlab.errors import UserError
from fusionlab.fuser import find_device


def git(root, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def real_commit(monkeypatch):
    """`commit` as it is, undone by the folder's fixture."""
    monkeypatch.undo()
    return bench_run.commit


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on PATH")
def test_the_commit_of_a_checkout_and_of_a_wheel(tmp_path, real_commit):
    assert real_commit(tmp_path).startswith("wheel-")
    git(tmp_path, "init")
    assert real_commit(tmp_path) == "unknown"
    (tmp_path / "fusionlab").mkdir()
    (tmp_path / "fusionlab" / "a.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "figures.csv").write_text("a result is not code\n")
    assert real_commit(tmp_path) == head
    (tmp_path / "fusionlab" / "b.py").write_text("x = 2\n")
    assert real_commit(tmp_path) == f"{head}+dirty"


def test_a_commit_made_during_a_run_does_not_reach_its_records(tmp_path, monkeypatch):
    """The code that runs is that of the start, whatever git says later; and git is asked once a run."""
    asked = []

    def commit():
        asked.append(1)
        return str(len(asked)) * 40

    def measure(rows, pairs, run):
        for name in rows:
            bench_run.commit()  # what stands in git has moved on
            yield Score("m", 1.0, row=name)

    monkeypatch.setattr(bench_run, "commit", commit)
    made = bench_table.run_table(Table({"a": 0, "b": 0, "c": 0}, measure), "x/y", tmp_path, seeds=(0, 1))
    assert len(made) == 6
    assert {record.run.commit for record in made} == {"1" * 40}
    assert len(asked) == 1 + 6


def test_a_run_begun_again_keeps_its_number_and_another_gets_its_own(tmp_path, sound, stamped, monkeypatch):
    from fusionlab.bench import records

    folder = tmp_path / "20260131-120000"
    first = Run.begin(folder, "smoke", command="fusionlab x")
    records.append(folder, replace(sound, run=first.stamp))
    assert first.stamp.run == "20260131-120000"
    assert Run.begin(folder, "smoke", seed=4, command="fusionlab x").stamp == first.stamp
    other = Run.begin(folder, "laptop", command="fusionlab x").stamp
    assert (other.run, other.profile) == ("20260131-120000-2", "laptop")
    records.append(folder, replace(sound, run=other))
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "d" * 40)
    third = Run.begin(folder, "laptop", command="fusionlab x").stamp
    assert (third.run, third.commit) == ("20260131-120000-3", "d" * 40)
    assert len(records.read_stamps(folder)) == 2  # begun, but nothing measured


def test_a_run_on_a_gpu_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    run = Run.begin(None, "gpu")
    assert (run.device, run.stamp.device) == ("cuda", "Tesla T4")
    assert Run.begin(None, "gpu", device="cpu").stamp.device == "cpu"
    with pytest.raises(UserError, match="no folder"):
        _ = run.place


def test_profiles_and_devices_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (find_profile(), find_device("auto")) == ("laptop", "cpu")
    with pytest.raises(UserError, match="no CUDA device"):
        find_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (find_profile(), find_device("auto"), find_device("cpu")) == ("gpu", "cuda", "cpu")
    monkeypatch.setenv("FUSIONLAB_PROFILE", "smoke")
    assert find_profile() == "smoke"
    assert find_profile("paper") == "paper"
    with pytest.raises(UserError, match="reproduce"):
        find_profile("paper", ("smoke", "laptop", "gpu"))
    with pytest.raises(UserError, match="no profile huge"):
        find_profile("huge")


def test_the_stamp_names_the_versions_without_a_machine_path():
    stamp = Run.begin(None, "smoke").stamp
    assert stamp.device == "cpu"
    assert "torch 2." in stamp.versions
    assert "/" not in stamp.versions


def test_a_command_is_named_without_its_folder_and_its_resume(monkeypatch):
    import sys

    monkeypatch.setattr(
        sys, "argv", ["/opt/bin/fusionlab", "reproduce", "a/b", "--resume", "runs/1", "--row", "x y"]
    )
    assert bench_run.this_command() == "fusionlab reproduce a/b --row 'x y'"


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    made = {new_folder(tmp_path) for _ in range(4)}
    assert len(made) == 4
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "elsewhere"))
    assert new_folder().parent == tmp_path / "elsewhere"

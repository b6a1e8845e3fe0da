"""Runs on disks that fill up, through kills, beside each other and taken up with something else."""

import csv
import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fusionlab import files, paths, targets
from fusionlab.bench import records, run, table
from fusionlab.bench.promote import promote
from fusionlab.bench.records import Record, Stamp
from fusionlab.bench.table import Score, Table
from fusionlab.data import open_pairs, write_image
from fusionlab.errors import UserError
from fusionlab.methods import comofusion, mmdrfuse
from fusionlab.training import fit

from .places import command, error_line, snapshot

STAMP = Stamp("20260131-120000", "c" * 40, "python 3.11.7", "cpu", "laptop", "2026-01-31", "fusionlab x")
RECORD = Record(STAMP, "x/y", "a", "EN", "reference", "tno", "all", "2", 0, "none", 6.5, None, "1", "note")
FORK = multiprocessing.get_context("fork") if sys.platform != "win32" else None


@pytest.fixture
def images(tmp_path):
    """A pair of files and its mean."""
    pair = open_pairs("scenes", 1, size=(48, 64))[0]
    for name, image in (("ir", pair.ir), ("vi", pair.vi), ("fused", (pair.ir + pair.vi) / 2)):
        write_image(image, tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


@pytest.fixture
def writers(images, monkeypatch):
    """Name -> a command that writes a file, by its place."""
    score = ["evaluate", *(images / f"{n}.png" for n in ("ir", "vi", "fused")), "--convention", "reference"]
    score += ["--metrics", "EN"]
    return {
        "scores.csv": lambda file: [*score, "--csv", file],
        "scores.md": lambda file: [*score, "--markdown", file],
        "student.onnx": lambda file: ["export", "mmdrfuse", "-o", file],
        "fused.png": lambda file: ["fuse", images / "ir.png", images / "vi.png", "-o", file],
    }


@pytest.fixture
def notebook(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    file = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), file)
    return file


def test_a_full_disk_costs_no_file_that_was_there(writers, disk, tried):
    place, fill = disk
    for name in writers:
        (place / name).write_text(f"an earlier {name}")
    fill()
    before = snapshot(place)
    for name, words in writers.items():
        line = error_line(*words(place / name))
        assert f"{name} cannot be written (No space left on device)" in line
        tried("commands on a full disk", 1)
    assert snapshot(place) == before


def test_a_disk_that_may_not_be_written(writers, disk, tried):
    place, _ = disk
    for name in writers:
        (place / name).write_text(f"an earlier {name}")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    before = snapshot(place)
    for name, words in writers.items():
        for file in (place / name, place / "new" / name):
            assert name in error_line(*words(file))
            tried("commands on a read-only disk", 1)
    assert snapshot(place) == before


def test_names_too_long_folders_and_devices(writers, tmp_path, tried):
    (tmp_path / "file").write_text("no folder")
    for name, words in writers.items():
        (tmp_path / "folder" / name).mkdir(parents=True)
        places = [tmp_path / ("x" * 300 + name), tmp_path / "folder" / name, tmp_path / "file" / name]
        for file in places:
            assert name in error_line(*words(file))
            tried("places that are none", 1)
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_the_full_device_and_a_broken_pipe(writers, tried):
    for name in ("scores.csv", "scores.md", "student.onnx"):
        assert "/dev/full cannot be written" in error_line(*writers[name]("/dev/full"))
    assert Path("/dev/full").is_char_device()
    listing = [sys.executable, "-m", "fusionlab.cli", "data", "list"]  # which starts at once, without torch
    with open("/dev/full", "w") as full:
        done = subprocess.run(listing, stdout=full, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (1, 1) and "cannot be written" in lines[0], done.stderr
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(listing, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    tried("full devices and broken pipes", 5)


def test_links_stay_links_and_modes_stay(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    files.write_text(tmp_path / "link.csv", "new")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_text() == "new"
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.csv", "real.csv"]


def test_reproduce_and_run_on_a_full_disk(disk, monkeypatch, notebook, tried):
    place, fill = disk
    monkeypatch.setenv("FUSIONLAB_RUNS", str(place / "runs"))
    (place / "runs").mkdir()
    fill()
    words = ["reproduce", "mmdrfuse/student", "--profile", "smoke"]
    assert "mmdrfuse-student-smoke-seed0.safetensors cannot be written (No space" in error_line(*words)
    words = ["reproduce", "mmdrfuse/table4", "--profile", "smoke", "--row", "student"]
    assert ".csv cannot be written (No space left on device)" in error_line(*words)
    assert "run.json cannot be written (No space" in error_line("run", notebook, "--profile", "smoke")
    tried("commands on a full disk", 3)


def test_a_checkpoint_on_a_full_disk_keeps_the_last(disk):
    place, fill = disk
    file = place / "run.safetensors"
    curve = small_training(file, steps=4)
    before = file.read_bytes()
    fill()
    with pytest.raises(UserError, match=r"run\.safetensors cannot be written \(No space"):
        small_training(file, steps=4, stop=0, fresh=place / "other" / "run.safetensors")
    assert file.read_bytes() == before and small_training(file, steps=4) == curve


def small_training(file, steps=6, stop=None, fresh=None, note="a"):
    torch.manual_seed(0)
    network = nn.Linear(4, 4)

    def step(k, generator):
        return (network(torch.rand(8, 4, generator=generator)) - 1).square().mean()

    optimiser = torch.optim.Adam(network.parameters())
    where = {"checkpoint": fresh or file, "settings": {"note": note}, "every": 0.0}
    return fit(step, {"net": network}, optimiser, steps=steps, seed=0, **where)


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path, tried):
    file = tmp_path / "run.safetensors"
    small_training(file)
    whole, flipped = file.read_bytes(), 0
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 400):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"run\.safetensors (is damaged|is no checkpoint)"):
            small_training(file)
        flipped += 1
    tried("flipped bits of a checkpoint", flipped)
    for cut in (0, 1, 7, 8, 100, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="remove it to begin anew"):
            small_training(file)


def test_rows_are_written_whole_or_not_at_all(tmp_path, monkeypatch, tried):
    records.append(tmp_path, RECORD)
    before, real = snapshot(tmp_path), os.write
    for room in range(0, 60, 3):
        left = [room]

        def short(handle, content, left=left):
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = real(handle, bytes(content)[: min(7, left[0])])
            left[0] -= taken
            return taken

        monkeypatch.setattr(os, "write", short)
        with pytest.raises(UserError, match=r"records\.csv cannot be written \(No space"):
            records.append(tmp_path, replace(RECORD, seed=1))
        monkeypatch.setattr(os, "write", real)
        assert snapshot(tmp_path) == before
        tried("short writes", 1)
    monkeypatch.setattr(os, "write", lambda handle, content: real(handle, bytes(content)[:7]))
    records.append(tmp_path, replace(RECORD, seed=1))
    assert records.read(tmp_path) == [RECORD, replace(RECORD, seed=1)]


def test_a_disk_that_fills_up_tears_no_row(disk, tried):
    place, fill = disk
    run_folder, kept = place / "run", []
    records.append(run_folder, RECORD)
    fill()
    for seed in range(1, 200):
        record = replace(RECORD, seed=seed, note="n" * 30)
        try:
            records.append(run_folder, record)
        except UserError as full:
            reason = str(full)
            break
        kept.append(record)
    assert "records.csv cannot be written (No space left on device)" in reason
    assert records.read(run_folder) == [RECORD, *kept] and kept
    (place / "filler").unlink()
    records.append(run_folder, record)
    assert records.read(run_folder) == [RECORD, *kept, record]
    tried("rows on a disk that fills up", len(kept) + 1)


def test_a_torn_last_row_is_named_and_mended_at_the_next_start(tmp_path, capsys, tried):
    note = 'two\nlines, "quoted"\nand é'
    first, last = RECORD, replace(RECORD, seed=1, note=note)
    records.append(tmp_path, first)
    short = len((tmp_path / "records.csv").read_bytes())
    records.append(tmp_path, last)
    whole = (tmp_path / "records.csv").read_bytes()
    for cut in range(short + 1, len(whole)):
        (tmp_path / "records.csv").write_bytes(whole[:cut])
        with pytest.raises(UserError, match="records.csv"):
            records.read(tmp_path)
        records.append(tmp_path, replace(RECORD, seed=2))
        assert records.read(tmp_path) == [first, replace(RECORD, seed=2)]
        assert "records.csv: the last row was cut off and is removed" in capsys.readouterr().err
        tried("torn rows", 1)


def test_damaged_records_are_read_or_named(tmp_path, tried):
    for seed in range(5):
        records.append(tmp_path, replace(RECORD, seed=seed, note='a "b", c\né'))
    rng, whole = random.Random(1), snapshot(tmp_path)
    for number in range(300):
        name = "records.csv" if number % 3 else "runs.csv"
        damaged = bytearray(whole[name])
        start = rng.randrange(len(damaged))
        damaged[start : start + rng.randrange(3)] = rng.choice(
            [b"\xff", b"\0", b'"', b"\n", b",", b"\r", b""]
        )
        (tmp_path / name).write_bytes(damaged)
        try:
            records.read(tmp_path)
        except UserError as refused:
            assert str(tmp_path) in str(refused)  # noqa: PT017  # either is right
        (tmp_path / name).write_bytes(whole[name])
        tried("damaged records", 1)


@pytest.mark.skipif(FORK is None, reason="no fork")
def test_processes_append_in_turn(tmp_path, tried):
    def many(start):
        for seed in range(start, start + 40):
            records.append(tmp_path, replace(RECORD, seed=seed))

    for trial in range(5):
        (tmp_path / "records.csv").unlink(missing_ok=True)
        (tmp_path / "runs.csv").unlink(missing_ok=True)
        workers = [FORK.Process(target=many, args=(1000 * k,)) for k in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(records.read(tmp_path)) == 120, trial
        assert len(records.read_stamps(tmp_path)) == 1
    tried("appends of three processes", 600)


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from fusionlab.bench import records
from fusionlab.bench.records import Record, Stamp
stamp = Stamp("r", "c" * 40, "v", "cpu", "laptop", "2026-01-31", "fusionlab x")
print("go", flush=True)
for seed in range(10**6):
    values = "x/y", "a", "EN", "r", "d", "s", "2", seed, "none", 6.5, None, "1", "é" * 99
    records.append(Path(sys.argv[1]), Record(stamp, *values))
"""


def test_kills_leave_whole_rows(tmp_path, tried):
    rng, here = random.Random(2), os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for number in range(10):
        folder = tmp_path / str(number)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder)], env=here, stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.01, 0.15))
            process.kill()
        if folder.exists():
            records.mend(folder)
            rows = records.read(folder) if (folder / "records.csv").exists() else []
            assert [record.seed for record in rows] == list(range(len(rows)))
        tried("kills", 1)


@pytest.mark.skipif(FORK is None, reason="no fork")
def test_two_promotions_at_once_lose_nothing(tmp_path, tried):
    figures = tmp_path / "figures"
    figures.mkdir()
    for number in range(20):
        one = replace(RECORD, data=f"d{number}", run=replace(STAMP, run=f"r{number}"))
        records.append(tmp_path / str(number), one)

    def half(start):
        for number in range(start, 20, 2):
            promote(tmp_path / str(number), figures, {"x/y": ["a"]})

    workers = [FORK.Process(target=half, args=(start,)) for start in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert {record.data for record in records.read(figures / "x")} == {f"d{n}" for n in range(20)}
    tried("promotions at once", 20)


def test_promotion_on_a_full_disk_changes_nothing(disk, tmp_path):
    place, fill = disk
    run_folder, figures = tmp_path / "run", place / "figures"
    records.append(run_folder, RECORD)
    (run_folder / "figures" / "x").mkdir(parents=True)
    (run_folder / "figures" / "x" / "y.png").write_bytes(bytes(5000))
    figures.mkdir()
    promote(run_folder, figures, {"x/y": ["a"]})
    other = tmp_path / "other"
    records.append(other, replace(RECORD, value=7.5, run=replace(STAMP, run="other")))
    (other / "figures" / "x").mkdir(parents=True)
    (other / "figures" / "x" / "y.png").write_bytes(b"1" * 5000)
    fill()
    before = snapshot(place)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        promote(other, figures, {"x/y": ["a"]})
    assert snapshot(place) == before
    (place / "filler").unlink()
    promote(other, figures, {"x/y": ["a"]})
    assert records.read(figures / "x")[0].value == 7.5
    assert (figures / "x" / "y.png").read_bytes() == b"1" * 5000


def slow(rows, pairs, begun):
    """Says that it runs, and runs on."""
    (begun.place / "begun").touch()
    time.sleep(60)
    yield Score("m", 1.0, row="a")


def quick(rows, pairs, begun):
    yield Score("m", 1.0, row="a")


@pytest.mark.skipif(FORK is None, reason="no fork")
def test_two_processes_refuse_one_run_and_death_frees_it(tmp_path, monkeypatch, tried):
    monkeypatch.setattr(run, "commit", lambda: "c" * 40)
    folder = tmp_path / "run"
    first = FORK.Process(target=table.run_table, args=(Table({"a": 0}, slow), "x/y", folder))
    first.start()
    while not (folder / "begun").exists():
        time.sleep(0.02)
    with pytest.raises(UserError, match="another process is writing into .*run; wait for its end"):
        table.run_table(Table({"a": 0}, quick), "x/y", folder)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert len(table.run_table(Table({"a": 0}, quick), "x/y", folder)) == 1
    tried("kills", 1)


def test_a_system_without_locks_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "commit", lambda: "c" * 40)
    monkeypatch.setattr(files, "fcntl", None)
    assert len(table.run_table(Table({"a": 0}, quick), "x/y", tmp_path)) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path} cannot be locked on this system" in said


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    recipe = replace(mmdrfuse.SCENES["smoke"], passes=1)
    pairs, file = open_pairs("scenes", 3, size=(80, 96)), tmp_path / "student.safetensors"
    mmdrfuse.train_student(pairs, recipe, seed=0, checkpoint=file)
    mmdrfuse.train_student(pairs, recipe, seed=0, checkpoint=file)
    others = {
        "data scenes, 3 pairs .test. there, scenes, 2 pairs .test. here": pairs[:2],
        "data .*there, roadscene, 3 of 3 pairs": replace(pairs, data="roadscene", total=3),
        "data .*there, .*train": open_pairs("scenes", 3, split="train", size=(80, 96)),
        "images [0-9a-f]{12} there": open_pairs("scenes", 3, seed=1, size=(80, 96)),
    }
    for difference, other in others.items():
        with pytest.raises(UserError, match=f"is of another run: {difference}"):
            mmdrfuse.train_student(other, recipe, seed=0, checkpoint=file)
    with pytest.raises(UserError, match="teacher none there"):
        mmdrfuse.train_student(pairs, recipe, seed=0, teacher=mmdrfuse.Teacher(4), checkpoint=file)


def test_a_checkpoint_of_other_images_is_refused_in_each_stage(tmp_path):
    tiny = comofusion.Stage(1, 1, 32)
    recipe = comofusion.Recipe(8, tiny, tiny)
    images = [(pair.ir, pair.vi) for pair in open_pairs("scenes", 2, size=(48, 64))]
    comofusion.train(recipe, images, checkpoints=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    other = [images[0], (images[1][0] / 2, images[1][1])]
    with pytest.raises(UserError, match="consistency.* images [0-9a-f]{12} there"):
        comofusion.train(recipe, other, checkpoints=tmp_path)
    with pytest.raises(UserError, match="pairs 2 there, 1 here|images"):
        comofusion.train(recipe, images[:1], checkpoints=tmp_path)
    next(tmp_path.glob("consistency*")).unlink()
    with pytest.raises(UserError, match="comofusion-0.* images [0-9a-f]{12} there"):
        comofusion.train(recipe, other, checkpoints=tmp_path)


TWO_SEEDS = {"mmdrfuse/teacher": "ours", "mmdrfuse/student": "ours"}
ALL_SEEDS = TWO_SEEDS | {
    "mmdrfuse/distilled": "ours",
    "comofusion/model": "lambda 1",
    "comofusion/table4": "ours",
}


@pytest.mark.parametrize("trained", [TWO_SEEDS, pytest.param(ALL_SEEDS, marks=pytest.mark.nightly)])
def test_targets_and_seeds_in_one_folder_overwrite_nothing(tmp_path, shared, tried, trained):
    made = []
    for target, row in trained.items():
        seeds = (0, 1) if target.startswith("mmdrfuse") else (0,)
        made += targets.reproduce(target, tmp_path, row=row, profile="smoke", seeds=seeds)
    kept = {hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.glob("*.safetensors")}
    files = sum(2 if target.startswith("mmdrfuse") else 1 for target in trained)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    assert {record.weights for record in made} == kept
    for file in tmp_path.glob("*.safetensors"):
        assert "-smoke-" in file.name and "-seed" in file.name
    tried("trainings in one folder", files)


def test_pictures_of_two_seeds(tmp_path):
    targets.reproduce("mmdrfuse/figure5", tmp_path, row="I", profile="smoke", seeds=(0, 1))
    drawn = sorted(file.name for file in (tmp_path / "figures" / "mmdrfuse").glob("*.png"))
    assert drawn == ["figure5-seed1.png", "figure5.png"]


def test_the_threads_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "commit", lambda: "c" * 40)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            (made,) = table.run_table(Table({"a": 0}, quick), f"x/y{count}", tmp_path)
            assert made.run.versions.endswith(f", threads {count}")
    finally:
        torch.set_num_threads(threads)
    assert len(records.read_stamps(tmp_path)) == 2
    assert records.read(paths.asset("figures/mmdrfuse"))  # without, as they were


ODD = [b"", b"{", b"[]", b"null", b"3", b"\xff\xfe", b"\0" * 40, b"{}", b'{"outcomes": 3}', b"[" * 10**5]
SOUND = {"profile": "smoke", "data": "scenes", "made": "today", "outcomes": []}
GOOD = {"name": "00", "ok": True, "seconds": 1.0, "error": ""}
ODD += [json.dumps(SOUND | {name: odd}).encode() for name in SOUND for odd in (None, 3, [3], {"a": 1})]
ODD += [json.dumps(SOUND | {"outcomes": [GOOD | {n: o}]}).encode() for n in GOOD for o in (None, [3], {})]
ODD += [json.dumps(SOUND | {"outcomes": [GOOD | {"name": name}]}).encode() for name in ("", "../x", "a/b")]


def test_an_odd_run_json_is_one_line(tmp_path, tried):
    pytest.importorskip("nbconvert")
    for content in ODD:
        (tmp_path / "run.json").write_bytes(content)
        assert "run.json" in error_line("report", tmp_path), content
        tried("odd run.json", 1)
    (tmp_path / "run.json").write_text(json.dumps(SOUND | {"outcomes": [GOOD]}))
    assert command("report", tmp_path).exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf8(images, tmp_path, monkeypatch, tried):
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    odd = Path(os.fsdecode(b"caf\xe9"))
    for role in ("ir", "vi", "fused"):
        (tmp_path / odd / role).mkdir(parents=True)
        (tmp_path / odd / role / odd.with_suffix(".png")).write_bytes((images / f"{role}.png").read_bytes())
    sources = [tmp_path / odd / role for role in ("ir", "vi", "fused")]
    score = ["evaluate", *sources, "--convention", "reference", "--metrics", "EN"]
    assert command(*score, "--csv", tmp_path / "s.csv").exit_code == 0
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["caf\\udce9"]
    assert command("fuse", *sources[:2], "-o", tmp_path / odd / "out").exit_code == 0
    monkeypatch.setattr(sys, "argv", ["fusionlab", "reproduce", "--data", str(tmp_path / odd)])
    words = ("reproduce", "mmdrfuse/table5", "--row", "average/clip", "--profile", "smoke")
    assert "not UTF-8" in error_line(*words, "--data", tmp_path / odd)
    with pytest.raises(UserError, match="not UTF-8"):
        records.append(tmp_path / "made", replace(RECORD, row=str(odd)))
    for name in ("records.csv", "runs.csv"):
        records.append(tmp_path / name, RECORD)
        damaged = (tmp_path / name / name).read_bytes().replace(b"cpu" if "runs" in name else b"EN", b"\xe9")
        (tmp_path / name / name).write_bytes(damaged)
        for words in (("report", tmp_path / name), ("promote", tmp_path / name)):
            assert f"{name} is damaged" in error_line(*words)
    tried("names and records that are not UTF-8", 8)

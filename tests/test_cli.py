"""The commands as a user meets them: on files, in a process where imports and exit codes count."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import fusionlab
from fusionlab import cli, paths, targets, training
from fusionlab.bench import verify
from fusionlab.bench.records import read, write
from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, each
from fusionlab.data.pair import luminance, read_image, to_uint8, write_image
from fusionlab.methods import DEFAULT, METHODS
from fusionlab.scenes import scene
from fusionlab.tools import doctor

ROOT = Path(__file__).parents[1]


def shell(
    *arguments: object, python: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `fusionlab ARGUMENTS` in a new process."""
    return subprocess.run(
        [sys.executable, *python, "-m", "fusionlab.cli", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **environment},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six names, of which three are whole pairs of different or odd sizes; day is grey, the others colour."""
    root = tmp_path_factory.mktemp("folders")
    for name, height, width in (("day", 64, 80), ("fog", 61, 47), ("night", 61, 75), ("uneven", 48, 64)):
        pair = scene(1, height, width, condition="day" if name == "uneven" else name)
        rgb = pair.vi if name == "day" else pair.colour(pair.vi)
        write_image(pair.ir, root / "ir" / f"{name}.png")
        write_image(rgb, root / "vis" / f"{name}.{'bmp' if name == 'fog' else 'png'}")
    write_image(scene(1, 48, 60).vi, root / "vis" / "uneven.png")
    shutil.copy(root / "vis" / "day.png", root / "vis" / "alone.png")
    shutil.copy(root / "vis" / "day.png", root / "vis" / "damaged.png")
    (root / "ir" / "damaged.png").write_bytes((root / "ir" / "day.png").read_bytes()[:99])
    (root / "ir" / "Thumbs.db").write_bytes(b"no image")
    return root


def test_help_and_version_answer_without_torch() -> None:
    shown = shell("--help", python=("-X", "importtime"))
    assert shown.returncode == 0
    assert all(f"  {name} " in shown.stdout for name in ("fuse", "evaluate", "run", "reproduce", "doctor"))
    assert "fusionlab fuse ir.png vi.png -o fused.png" in shown.stdout
    loaded = {line.split("|")[-1].strip() for line in shown.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "matplotlib"}
    version = shell("--version")
    assert (version.returncode, version.stdout) == (0, f"fusionlab {fusionlab.__version__}\n")


def test_fuse_two_files_keeps_size_and_colour(folders: Path, tmp_path: Path) -> None:
    ir, vi, out = folders / "ir" / "night.png", folders / "vis" / "night.png", tmp_path / "new" / "fused.tif"
    done = shell("fuse", ir, vi, "-o", out, "--method", "average", python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"1 of 1 fused into {out}\n"
    assert "average (no weights)" in done.stderr
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "torch" in loaded
    assert not loaded & {"scipy.signal", "matplotlib", "torchvision", "lpips", "pandas"}
    # The same by hand: BT.601 luminance averaged, rounded to 8 bits, and the chroma of the visible image.
    hot, rgb, fused = (np.asarray(Image.open(path), dtype=float) for path in (ir, vi, out))
    y = rgb @ [0.299, 0.587, 0.114]
    blue, red = (rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402
    mean = np.floor((hot + y) / 2 + 0.5)
    green = (mean - 0.299 * (mean + 1.402 * red) - 0.114 * (mean + 1.772 * blue)) / 0.587
    expected = np.stack([mean + 1.402 * red, green, mean + 1.772 * blue], axis=-1).clip(0, 255)
    assert np.ptp(rgb, axis=-1).max() > 30, "the test needs a colourful image"
    assert fused.shape == rgb.shape == (61, 75, 3)
    assert (
        np.abs(fused - expected).max() <= 1.6
    )  # one level for a tie in the luminance, the rest for rounding


def test_fuse_takes_the_measured_default_and_says_which_and_why(folders: Path, tmp_path: Path) -> None:
    ir, vi = folders / "ir" / "fog.png", folders / "vis" / "fog.bmp"
    for name, choice in (("plain", ()), ("named", ("--method", DEFAULT))):
        done = shell("fuse", ir, vi, "-o", tmp_path / f"{name}.png", *choice)
        assert done.returncode == 0 and done.stderr.startswith(DEFAULT), done.stderr
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "named.png").read_bytes()
    shown = " ".join(shell("fuse", "--help").stdout.split())
    assert f"Left out: {DEFAULT}, of all that is shipped the best on validation pairs" in shown
    assert "mean rank over SSIM, VIF, Qabf and the truth of scenes (record metrics/default)" in shown


def test_folders_are_fused_and_scored_past_bad_pairs(folders: Path, tmp_path: Path) -> None:
    ir, vi, out = folders / "ir", folders / "vis", tmp_path / "fused"
    done = shell("fuse", ir, vi, "-o", out, "--method", "laplacian")
    assert done.returncode == 1
    assert done.stdout == f"3 of 6 fused into {out}\n"
    assert "Traceback" not in done.stderr
    assert "fusing: 100%" in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(":")[1].strip() for line in errors] == ["alone", "damaged", "uneven"]
    assert str(ir) in errors[0]
    assert str(ir / "damaged.png") in errors[1]
    assert "64x48 and 60x48" in errors[2]
    sizes = {path.name: Image.open(path) for path in out.iterdir()}
    assert {name: (image.size, image.mode) for name, image in sizes.items()} == {
        "day.png": ((80, 64), "L"),
        "fog.png": ((47, 61), "RGB"),
        "night.png": ((75, 61), "RGB"),
    }

    (out / "fog.png").write_bytes(b"broken")
    files = ("--csv", tmp_path / "o" / "scores.csv", "--markdown", tmp_path / "scores.md")
    scored = shell("evaluate", ir, vi, out, "--convention", "reference", "--metrics", "EN,SD,SSIM", *files)
    assert scored.returncode == 1
    assert "Traceback" not in scored.stderr
    assert f"error: fog: {out / 'fog.png'}" in scored.stderr
    names = ["day", "night"]
    triples = [
        [to_uint8(luminance(read_image(folder / f"{name}.png"))) for name in names]
        for folder in (ir, vi, out)
    ]
    expected = fusionlab.evaluate(*triples, convention="reference", metrics=["EN", "SD", "SSIM"], names=names)
    assert (tmp_path / "o" / "scores.csv").read_text("utf-8") == expected.csv()
    assert (tmp_path / "scores.md").read_text("utf-8") == expected.markdown()
    table = {line.split()[0]: line.split()[1:] for line in scored.stdout.splitlines()[:-1]}
    assert list(table) == ["metric", "EN", "SD", "SSIM"]
    for metric in ("EN", "SD", "SSIM"):
        assert table[metric] == [
            "higher",
            f"{expected.mean()[metric]:.4f}",
            f"{expected.spread()[metric]:.4f}",
        ]
    assert scored.stdout.splitlines()[-1] == "2 of 6 scored, convention reference"


@pytest.fixture(scope="module")
def methods(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The average and the maximum of the three whole pairs; one average is damaged, one maximum too small."""
    found = []
    for method in ("average", "maximum"):
        out = tmp_path_factory.mktemp("methods") / method
        shell("fuse", folders / "ir", folders / "vis", "-o", out, "--method", method)
        found.append(out)
    average, maximum = found
    (average / "fog.png").write_bytes((average / "fog.png").read_bytes()[:300])
    shutil.copy(maximum / "fog.png", maximum / "night.png")
    return found


def test_folders_of_several_methods_are_scored_at_once_by_any_number_of_processes(
    folders: Path, methods: list[Path], tmp_path: Path
) -> None:
    average, maximum = methods
    choice = ("--convention", "reference", "--metrics", "EN,MI,SSIM,Qabf")
    sources, seen = (folders / "ir", folders / "vis"), []
    for workers in (1, 2):
        file = tmp_path / f"{workers}.csv"
        done = shell("evaluate", *sources, *methods, *choice, "--workers", workers, "--csv", file)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "scoring: 100%" in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        seen.append((done.stdout, errors, file.read_text("utf-8")))
    assert seen[0] == seen[1]
    out, errors, table = seen[0]
    assert out.splitlines()[0] == f"{average}, 2 scored"
    assert f"{maximum}, 2 scored" in out.splitlines()
    assert out.splitlines()[-1] == "4 of 12 scored, convention reference"
    reasons = dict(line.removeprefix("error: ").split(": ", 1) for line in errors)
    assert len(reasons) == 8  # fog or night, and for either method alone, damaged and uneven
    assert "fog.png is damaged" in reasons[str(average / "fog")]
    assert "night.png is 47x61 pixels, its sources are 75x61" in reasons[str(maximum / "night")]
    assert str(sources[0]) in reasons[str(maximum / "alone")]

    # As each method scored alone, the rest of the table included.
    rows = table.splitlines()
    assert rows[0] == "fused,convention,name,EN,MI,SSIM,Qabf"
    assert [row.split(",")[:3:2] for row in rows[1:]] == [
        [str(average), "day"],
        [str(average), "night"],
        [str(maximum), "day"],
        [str(maximum), "fog"],
    ]
    alone = shell("evaluate", *sources, maximum, *choice, "--csv", tmp_path / "alone.csv")
    assert alone.stdout.splitlines()[:5] == out.splitlines()[-6:-1]
    for ours, row in zip(rows[3:], (tmp_path / "alone.csv").read_text("utf-8").splitlines()[1:], strict=True):
        values = [[float(cell) for cell in cells.split(",")[-4:]] for cells in (ours, row)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_damaged_sources_are_named_and_files_of_several_methods_scored(
    folders: Path, methods: list[Path], tmp_path: Path
) -> None:
    ir, vi = folders / "ir", folders / "vis"
    lost = shell("evaluate", ir, vi, vi, "--convention", "reference", "--metrics", "EN", "--workers", 2)
    assert lost.returncode == 1
    assert f"error: damaged: {ir / 'damaged.png'} is damaged" in lost.stderr
    assert "error: uneven:" in lost.stderr and "64x48 and 60x48 pixels; they must be equal" in lost.stderr
    assert lost.stdout.splitlines()[-1] == "3 of 6 scored, convention reference"
    files = [method / "day.png" for method in methods]
    day = (ir / "day.png", vi / "day.png")
    both = shell("evaluate", *day, *files, "--convention", "reference", "--markdown", tmp_path / "day.md")
    assert both.returncode == 0, both.stderr
    assert "scoring" not in both.stderr  # one pair needs no progress bar
    assert [line for line in (tmp_path / "day.md").read_text("utf-8").splitlines() if line[:1] == "#"] == [
        f"## {file}" for file in files
    ]
    assert both.stdout.splitlines()[-1] == "2 of 2 scored, convention reference"
    twice = shell("evaluate", *day, files[0], files[0], "--convention", "reference")
    assert (twice.returncode, twice.stderr) == (1, f"error: {files[0]} is given twice; name each once\n")


@pytest.mark.skipif(os.name != "posix", reason="interrupts are sent to groups of processes on POSIX only")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_stops_scoring_and_its_processes(folders: Path, tmp_path: Path, workers: int) -> None:
    for role in ("ir", "vis"):
        (tmp_path / role).mkdir()
        for i in range(400):
            (tmp_path / role / f"{i}.png").symlink_to(folders / role / "day.png")
    command = [sys.executable, "-m", "fusionlab.cli", "evaluate", tmp_path / "ir", tmp_path / "vis"]
    options = [tmp_path / "vis", "--convention", "reference", "--metrics", "PC", "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, *options], env=environment, stderr=subprocess.PIPE, stdout=-3, start_new_session=True
    ) as process:
        seen = b""
        while not re.search(rb" [1-9]\d*/400", seen):  # something is done, but far from all
            seen += process.stderr.read(1)
            assert process.poll() is None, seen
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        rest = process.communicate()[1].decode()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "stopped"
    assert "Traceback" not in rest
    deadline = time.monotonic() + 60
    while group_lives(process.pid):  # soon nobody of it is left
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_real_pairs_give_the_released_pictures(shared: Path, tmp_path: Path) -> None:
    for name in ("tno_01_256x256", "tno_35_256x256"):
        for role in ("ir", "vis"):
            (tmp_path / role).mkdir(exist_ok=True)
            shutil.copy(
                shared / "official" / "mmdrfuse" / "pairs" / name / f"{role}.png",
                tmp_path / role / f"{name}.png",
            )
    choice = ("--method", "mmdrfuse", "--weights", "official", "--save", "stretch", "--device", "cpu")
    done = shell("fuse", tmp_path / "ir", tmp_path / "vis", "-o", tmp_path / "fused", *choice)
    assert (done.returncode, done.stdout) == (0, f"2 of 2 fused into {tmp_path / 'fused'}\n")
    assert "mmdrfuse, weights official, sha256 b541cbab67c0" in done.stderr
    for name in ("tno_01_256x256", "tno_35_256x256"):
        folder = shared / "official" / "mmdrfuse" / "pairs" / name
        released = np.asarray(Image.open(folder / "student_official.png"), dtype=int)
        fused = np.asarray(Image.open(tmp_path / "fused" / f"{name}.png"), dtype=int)
        assert np.abs(fused - released).max() <= 1
        assert np.mean(fused != released) < 1e-3


MISTAKES = {
    "missing file": (["fuse", "{r}/nope.png", "{r}/vis/day.png", "-o", "x.png"], "nope.png does not exist"),
    "file beside folder": (["fuse", "{r}/ir/day.png", "{r}/vis", "-o", "x"], "only files or only folders"),
    "empty folder": (["fuse", "{r}/empty", "{r}/empty", "-o", "x"], "there are no PNG"),
    "output over input": (
        ["fuse", "{r}/ir/day.png", "{r}/vis/day.png", "-o", "{r}/ir/day.png"],
        "is one of the input",
    ),
    "output is input folder": (["fuse", "{r}/ir", "{r}/vis", "-o", "{r}/vis"], "name another folder"),
    "unknown format": (["fuse", "{r}/ir/day.png", "{r}/vis/day.png", "-o", "x.gif"], ".png, .jpg"),
    "unknown method": (
        ["fuse", "{r}/ir", "{r}/vis", "-o", "x", "--method", "foo"],
        "laplacian, comofusion, dmfuse",
    ),
    "missing weights": (
        ["fuse", "a", "b", "-o", "x", "--method", "mmdrfuse", "--weights", "no.bin"],
        "no.bin",
    ),
    "unknown convention": (["evaluate", "a", "b", "c", "--convention", "foo"], "known: reference, mmdrfuse"),
    "unknown metric": (
        ["evaluate", "a", "b", "c", "--convention", "reference", "--metrics", "EN,foo"],
        "EN, SD",
    ),
    "unknown target": (["reproduce", "foo/table1"], "mmdrfuse/table5"),
    "no notebooks": (["run", "--notebooks", "{r}/ir"], "no notebooks in"),
    "unknown notebook": (["run", "99", "--notebooks", "{r}/ir"], "are called 99"),
    "no run": (["report", "{r}/nope"], "is no run folder"),
    "no records": (["promote", "{r}/ir"], "records.csv"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_line_and_exit_code_1(
    mistake: str, folders: Path, tmp_path: Path, monkeypatch
) -> None:
    (folders / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[mistake]
    method = [] if "--method" in arguments or arguments[0] != "fuse" else ["--method", "average"]
    before = {path: path.read_bytes() for path in folders.rglob("*.*")}
    result = CliRunner().invoke(cli.app, [part.format(r=folders) for part in arguments] + method)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert {path: path.read_bytes() for path in folders.rglob("*.*")} == before
    assert not list(tmp_path.rglob("*.*"))


def test_usage_errors_exit_with_2_and_an_interrupt_with_130(folders: Path, monkeypatch) -> None:
    runner = CliRunner()
    assert runner.invoke(cli.app, ["evaluate", "a", "b", "c"]).exit_code == 2  # no convention is assumed
    assert runner.invoke(cli.app, ["fuse", "a", "b", "-o", "c", "--save", "foo"]).exit_code == 2

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fusionlab.batch.read_pair", interrupted)
    pair = [str(folders / role / "day.png") for role in ("ir", "vis")]
    result = runner.invoke(cli.app, ["fuse", *pair, "-o", "x.png", "--method", "average"])
    assert result.exit_code == 130


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(doctor, "examine", broken)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert isinstance(result.exception, RuntimeError)


def test_help_names_every_method() -> None:
    shown = (
        CliRunner()
        .invoke(cli.app, ["fuse", "--help"], env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"})
        .stdout
    )
    assert all(method in " ".join(shown.split()).replace("- ", "-") for method in METHODS)


def test_help_of_export_names_every_student() -> None:
    shown = " ".join(CliRunner().invoke(cli.app, ["export", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert "mmdrfuse or mmdrfuse-distilled: 113 parameters" in shown


def test_doctor_names_causes_and_remedies(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    (broken / "torchvision").mkdir(parents=True)
    (broken / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms')")
    (broken / "torchvision-9.dist-info").mkdir()
    (broken / "torchvision-9.dist-info" / "METADATA").write_text("Name: torchvision\nVersion: 9\n")
    empty = {"FUSIONLAB_WEIGHTS": "", "FUSIONLAB_CACHE": str(tmp_path / "cache"), "FUSIONLAB_MIRROR": ""}
    path = os.pathsep.join([str(broken), str(ROOT)])
    found = shell("doctor", **empty, PYTHONPATH=path)
    assert found.returncode == 0, found.stderr
    assert "torchvision 9, does not import (RuntimeError: operator torchvision::nms)" in found.stdout
    assert "tno: 0 of 84 registered files (42 of 42 pairs)" in found.stdout
    assert "set FUSIONLAB_MIRROR" in found.stdout
    assert "mmdrfuse, weights official: not usable" in found.stdout

    (broken / "torch").mkdir()
    (broken / "torch" / "__init__.py").write_text("raise OSError('libcudart.so')")
    (tmp_path / "cache" / "tno" / "ir").mkdir(parents=True)
    (tmp_path / "cache" / "tno" / "ir" / "01.png").touch()
    lost = shell("doctor", **empty, PYTHONPATH=path)
    assert lost.returncode == 1
    assert "does not import (OSError: libcudart.so)" in lost.stdout
    assert "torch: pip install torch" in lost.stdout
    assert "tno: 1 of 84 registered files (42 of 42 pairs)" in lost.stdout
    assert "Traceback" not in lost.stderr


def test_doctor_knows_the_packages_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for known, wanted in (
        ((*doctor.CORE, *doctor.DOWNLOADS), project["dependencies"]),
        (doctor.COURSE, project["optional-dependencies"]["course"]),
    ):
        assert sorted(known) == sorted(requirement.split(">=")[0] for requirement in wanted)


class Alarm:
    """A timer that rings when the test says so."""

    set_for: list[float] = []
    on: "Alarm | None" = None

    def __init__(self, seconds, function, arguments):
        self.set_for.append(seconds)
        self.ring, self.rung = lambda: function(*arguments), False

    def start(self):
        Alarm.on = self

    def is_alive(self):
        return not self.rung

    def cancel(self):
        Alarm.on = None


def test_a_long_training_is_made_in_pieces(tmp_path, monkeypatch):
    """Two calls that reach their time limit in the middle, and a third: the same weights as in one."""
    stops = [30, 60]

    def measure(row, pairs, run):
        layer, data = torch.nn.Linear(2, 1), torch.arange(12.0).reshape(6, 2)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.zeros_(layer.bias)

        def step(k, generator):
            if Alarm.on and k in stops:
                stops.remove(k)
                Alarm.on.rung = True
                Alarm.on.ring()
            return (layer(data + torch.randn(6, 2, generator=generator)) - 1).square().mean()

        optimiser = torch.optim.SGD(layer.parameters(), lr=1e-4, momentum=0.5)
        options = {"steps": 100, "seed": run.seed, "checkpoint": run.checkpoints / "piece.safetensors"}
        yield Score("steps", len(training.fit(step, {"layer": layer}, optimiser, **options)))
        yield Score("weight", layer.weight[0, 0].item())

    table = Table({"a": None}, each(measure), profiles={"laptop": None})
    monkeypatch.setattr(targets, "TARGETS", {"demo/long": table})
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path))
    monkeypatch.setattr(cli.threading, "Timer", Alarm)
    runner, settings = CliRunner(), ["reproduce", "demo/long", "--profile", "laptop"]
    first = runner.invoke(cli.app, [*settings, "--minutes", "8"])
    assert first.exit_code == 3, first.output
    folder = first.stderr.strip().splitlines()[-1].split("--resume ")[1]
    assert "stopped after 8 minutes; go on with: fusionlab reproduce demo/long" in first.stderr
    assert list(Path(folder).glob("checkpoints/*/piece.safetensors")) and not read_all(folder)
    second = runner.invoke(cli.app, [*settings, "--minutes", "0.5", "--resume", folder])
    assert second.exit_code == 3 and not read_all(folder) and stops == []
    third = runner.invoke(cli.app, [*settings, "--minutes", "5", "--resume", folder])
    assert third.exit_code == 0 and "a steps 100" in third.stdout
    whole = runner.invoke(cli.app, settings)
    assert third.stdout.splitlines()[:2] == whole.stdout.splitlines()[:2]
    assert Alarm.set_for == [480, 30, 300]


def read_all(folder):
    """The records of a run, none where it has written none."""
    return read(Path(folder)) if (Path(folder) / "records.csv").exists() else []


def test_reproduce_promote_and_verify(tmp_path: Path, monkeypatch) -> None:
    def demo(row: tuple[float, str], pairs: object, run: Run) -> Iterator[Score]:
        assert (run.profile, run.seed, run.device) == ("laptop", 7, "cpu")
        yield Score("x", row[0], row[1])

    rows = {"a": (1.25, "bits"), "b": (2.5, "1"), "time": (3.0, "ms")}
    figures = tmp_path / "figures"
    figures.mkdir()
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "c" * 40)
    monkeypatch.setitem(targets.TARGETS, "demo/table1", Table(rows, each(demo), ("scenes",), device="cpu"))
    monkeypatch.setattr(paths, "asset", lambda relative: tmp_path / relative)
    monkeypatch.setattr(verify, "asset", paths.asset)
    runner = CliRunner()

    assert "demo/table1" in runner.invoke(cli.app, ["reproduce", "--list"]).stdout.splitlines()
    unknown = runner.invoke(cli.app, ["reproduce", "demo/table1", "--verify"])
    assert (unknown.exit_code, "promoted" in unknown.stderr) == (1, True)

    settings = ["--profile", "laptop", "--data", "scenes", "--seed", "7"]
    first = runner.invoke(cli.app, ["reproduce", "demo/table1", *settings])
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[:2] == ["a x 1.25 bits", "b x 2.5"]
    run = Path(lines[-1]).parent
    assert [record.value for record in read(run)] == [1.25, 2.5, 3.0]
    written = runner.invoke(cli.app, ["promote", str(run)]).stdout.splitlines()
    assert written == [str(figures / "demo" / name) for name in ("runs.csv", "records.csv")]

    confirmed = runner.invoke(cli.app, ["reproduce", "demo/table1", "--verify"])
    assert confirmed.exit_code == 0, confirmed.output
    assert "2 of 2 confirmed" in confirmed.stdout  # times are not compared

    # Another device confirms the same number; another value, or a row that no longer comes out, does not.
    promoted = [
        dataclasses.replace(record, run=dataclasses.replace(record.run, device="Tesla T4"))
        for record in read(figures / "demo")
    ]
    a, b, _ = promoted
    gone = dataclasses.replace(a, metric="gone", value=4.0)
    write(figures / "demo", [a, dataclasses.replace(b, value=2.6), gone])
    refuted = runner.invoke(cli.app, ["reproduce", "demo/table1", "--verify"])
    assert refuted.exit_code == 1
    verdicts = {line.split()[0] + " " + line.split()[1]: line for line in refuted.stdout.splitlines()}
    assert "confirmed" in verdicts["a x"]
    assert "DIFFERS" in verdicts["b x"]
    assert "NOT RECOMPUTED" in verdicts["a gone"]
    assert refuted.stdout.splitlines()[-1] == "1 of 3 confirmed"
    write(figures / "demo", [a, dataclasses.replace(b, value=2.6)])
    assert runner.invoke(cli.app, ["reproduce", "demo/table1", "--verify", "--row", "a"]).exit_code == 0


def test_run_executes_notebooks_and_reports(tmp_path: Path, monkeypatch) -> None:
    for name, source in (("00_good", "print(6 * 7)"), ("01_bad", "1 / 0"), ("02_other", "1 / 0")):
        cells = [nbformat.v4.new_code_cell(source)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path / "runs"))
    arguments = ["run", "01", "00_good", "--notebooks", str(tmp_path), "--profile", "smoke"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1, result.output
    bad, good, page = result.stdout.splitlines()
    assert bad.startswith("01_bad")
    assert "ZeroDivisionError" in bad
    assert (good.split()[0], good.split()[-1]) == ("00_good", "ok")
    assert "42" in Path(page).read_text("utf-8")
    before = Path(page).read_bytes()
    Path(page).unlink()
    again = CliRunner().invoke(cli.app, ["report", str(Path(page).parent)])
    assert again.stdout.strip() == page
    assert Path(page).read_bytes() == before
    assert len(list((Path(page).parent / "notebooks").glob("*.ipynb"))) == 2

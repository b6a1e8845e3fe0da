"""Folders of images with something wrong in them: the rest is kept, each fault is named with its cause."""

import csv
import itertools
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fusionlab import cli
from fusionlab.batch import fuse_files, score_files, summary
from fusionlab.errors import UserError, out_of_memory
from fusionlab.fuser import Fuser
from fusionlab.metrics import CONVENTIONS, METRICS, Scores, compare, evaluate
from fusionlab.processes import in_processes

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are those of POSIX")


def run(*arguments: object):
    """A command in this process: exit code, stdout and stderr; no traceback, whatever happens."""
    done = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def put(root: Path, **roles: list[np.ndarray]) -> list[Path]:
    """Writes the images of each role as 0.png, 1.png and so on; returns the folders."""
    for role, images in roles.items():
        (root / role).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / role / f"{i}.png")
    return [root / role for role in roles]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three whole triples."""
    ir, vi = ([picture(10 * k + i) for i in range(3)] for k in (1, 2))
    mean = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(ir, vi)]
    return put(tmp_path, ir=ir, vi=vi, fused=mean)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


# Values


@pytest.mark.parametrize("name", [name for name, known in CONVENTIONS.items() if "PSNR" in known.variants])
def test_images_equal_to_their_sources_are_scored(folders: list[Path], tmp_path: Path, name: str) -> None:
    ir, *_ = folders
    (tmp_path / "same").mkdir()
    for file in ir.iterdir():
        (tmp_path / "same" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "more").mkdir()
    for file in ir.iterdir():
        (tmp_path / "more" / file.name).write_bytes(file.read_bytes())
    scores, _ = score_files(ir, tmp_path / "same", [tmp_path / "more"], name, ["PSNR", "SD"])
    (found,) = scores.values()
    assert [row["PSNR"] for row in found.rows] == [math.inf] * 3
    assert found.mean()["PSNR"] == math.inf and math.isnan(found.spread()["PSNR"])
    assert re.search(r"PSNR +higher +inf +-$", summary(found), re.MULTILINE)
    done = run(
        "evaluate", ir / "0.png", tmp_path / "same" / "0.png", tmp_path / "more" / "0.png",
        "--convention", name, "--csv", tmp_path / "s.csv", "--markdown", tmp_path / "s.md",
    )  # fmt: skip
    assert done.exit_code == 0
    assert rows(tmp_path / "s.csv")[0]["PSNR"] == "inf"


def test_values_of_both_infinities_have_no_mean() -> None:
    both = Scores("zoo", ({"name": "a", "PSNR": math.inf}, {"name": "b", "PSNR": -math.inf}))
    assert math.isnan(both.mean()["PSNR"]) and math.isnan(both.spread()["PSNR"])


def test_a_dark_frame_leaves_the_means_of_the_others(tmp_path: Path) -> None:
    ir, vi = ([picture(10 * k + i) for i in range(3)] for k in (1, 2))
    vi[1] = np.zeros_like(vi[1])
    fused = [np.maximum(a // 2, b // 2) for a, b in zip(ir, vi)]
    folders = put(tmp_path, ir=ir, vi=vi, fused=fused)
    done = run("evaluate", *folders, "--convention", "reference", "--metrics", "EN,VIF,CC",
               "--markdown", tmp_path / "s.md", "--csv", tmp_path / "s.csv")  # fmt: skip
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.endswith("  2 of 3") for line in lines] == [False, False, True, True, False]
    found = [float(row["VIF"]) for row in rows(tmp_path / "s.csv")]
    assert math.isnan(found[1])
    assert f"{(found[0] + found[2]) / 2:.4f}" in lines[2]
    assert "(2 of 3)" in (tmp_path / "s.md").read_text("utf-8")
    assert "1: VIF, CC undefined: the visible image is constant" in done.stderr.splitlines()


def test_a_copy_of_a_source_is_named_as_the_cause(folders: list[Path]) -> None:
    ir, vi, _ = (folder / "0.png" for folder in folders)
    for source, name in ((ir, "infrared"), (vi, "visible")):
        done = run("evaluate", ir, vi, source, "--convention", "reference", "--metrics", "SCD,CC")
        assert f"0: SCD undefined: the fused image is the {name} one, up to a constant" in done.stderr
        assert "constant source" not in done.stderr


def test_every_undefined_value_has_a_true_reason() -> None:
    """All metrics of all conventions on images that are black, constant, copies, flat in parts."""
    plain, other = (torch.tensor(picture(i)) for i in (1, 2))
    half = plain.clone()
    half[:24] = 90
    kinds = {
        "plain": plain, "other": other, "black": torch.zeros_like(plain),
        "constant": torch.full_like(plain, 90), "half": half, "faint": 90 + plain % 2,
    }  # fmt: skip
    undefined = set()
    for ir, vi in itertools.product(kinds, repeat=2):
        for name in ("reference", "tang2022", "zoo", "cddfuse"):
            # What is slow and always has a value.
            metrics = [m for m in CONVENTIONS[name].variants if not m.startswith(("FMI", "MS", "PC", "Q"))]
            metrics += ["Qabf"] + ["Qy"] * (name == "reference")
            for fused, scores in compare(kinds[ir], kinds[vi], kinds, name, metrics, names=["x"]).items():
                for metric in metrics:
                    if math.isnan(scores.rows[0][metric]):
                        reason = scores.undefined["x", metric]
                        assert "divides" not in reason, (name, metric, ir, vi, fused)
                        undefined.add((metric, reason))
                    else:
                        assert ("x", metric) not in scores.undefined
    assert ("VIF", "both sources are constant") in undefined
    assert ("Qy", "both sources are flat in one window of 7x7 pixels") in undefined
    assert ("Qabf", "both sources are black") in undefined
    assert {metric for metric, _ in undefined} == {"NMI", "VIF", "CC", "SCD", "Qabf", "Qy", "Nabf", "PSNR"}


def test_phase_congruency_without_features_says_so() -> None:
    flat = np.full((32, 32), 7, np.uint8)
    scores = evaluate(flat, flat, picture(1, 32, 32), "reference", ["PC", "EN"])
    assert scores.undefined == {("0", "PC"): "both sources are constant"}


def test_a_smallest_side_costs_one_metric_and_not_the_image(tmp_path: Path) -> None:
    images = [picture(i, 181, 149) for i in range(3)]
    large = [picture(i, 192, 161) for i in range(3)]
    folders = put(tmp_path, **{role: [a, b] for role, a, b in zip(("ir", "vi", "fused"), images, large)})
    done = run("evaluate", *folders, "--convention", "zoo", "--csv", tmp_path / "s.csv")
    assert done.exit_code == 0
    small, whole = rows(tmp_path / "s.csv")
    values = [metric for metric in METRICS if metric in small and small[metric] != "nan"]
    assert len(values) == 13 and "MS_SSIM" not in values
    assert whole["MS_SSIM"] != "nan"
    assert "0: MS_SSIM undefined: of 149x181 pixels, 161 a side are needed" in done.stderr
    none = run("evaluate", *(folder / "0.png" for folder in folders), "--convention", "zoo",
               "--metrics", "MS_SSIM")  # fmt: skip
    assert none.exit_code == 1
    assert "MS_SSIM needs at least 161 pixels a side" in none.stderr


def test_images_that_were_never_meant_are_warned_of_once(folders: list[Path], tmp_path: Path) -> None:
    ir, vi, fused = folders
    for i in (0, 1):
        Image.fromarray(picture(i) // 128).save(fused / f"{i}.png")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(fused / "2.png")
    done = run("evaluate", ir, vi, fused, "--convention", "reference", "--metrics", "EN,Qabf")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == [
        f"warning: {fused / '0.png'}: holds only the values 0 and 1 of 0..255; was it saved without times "
        "255?",
        f"warning: {fused / '2.png'}: all pixels have one value; is this the fused image?",
    ]
    assert done.exit_code == 0
    good = run("evaluate", ir, vi, ir, "--convention", "reference", "--metrics", "EN")
    assert "warning" not in good.stderr


def test_columns_fit_names_of_any_length() -> None:
    row = {"name": "a", **dict.fromkeys(METRICS, 1.5)}
    lines = summary(Scores("reference", (row, row))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len({line.index("er ") for line in lines[1:]}) <= 2  # higher, lower
    assert all(line[lines[0].index("better") - 1] == " " for line in lines)


# Memory


def exhausted(how: str) -> None:
    """Runs out of memory for true, or as a GPU would."""
    if how == "torch":
        torch.empty(2**50, dtype=torch.float64)
    elif how == "numpy":
        np.empty(2**55)
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free.")


@pytest.mark.parametrize("how", ["torch", "numpy", "cuda"])
def test_memory_belongs_to_the_image_that_is_fused(folders: list[Path], tmp_path: Path, how: str) -> None:
    ir, vi, _ = folders
    for role in (ir, vi):
        Image.fromarray(picture(5, 80, 80)).save(role / "1.png")

    def network(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.shape[-1] == 80:
            exhausted(how)
        return (a + b) / 2

    done, failures = fuse_files(ir, vi, tmp_path / "out", Fuser("hungry", "no weights", "none", network))
    assert done == 2 and sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0.png", "2.png"]
    assert failures.keys() == {"1"}
    assert failures["1"].startswith("memory ran out (") and "\n" not in failures["1"]
    assert "shrink the image" in failures["1"]


def test_another_runtime_error_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="sizes differ"):
        out_of_memory(RuntimeError("sizes differ"))

    def broken(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("sizes differ")

    with pytest.raises(RuntimeError, match="sizes differ"):
        list(in_processes(lambda item: broken(item, item), [torch.zeros(1)]))


def hungry(item: int) -> int:
    if item == 1:
        exhausted("torch")
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_belongs_to_the_item_of_a_process(workers: int) -> None:
    found = dict(in_processes(hungry, [0, 1, 3], workers))
    assert (found[0], found[3]) == (0, 3)
    assert isinstance(found[1], UserError) and "8589934592 MiB" in str(found[1])


@posix
def test_a_killed_process_costs_its_own_item_alone() -> None:
    found = dict(in_processes(hungry, [0, 2, 3, 4, 5, 6], 2))
    assert {item: found[item] for item in (0, 3, 4, 5, 6)} == {item: item for item in (0, 3, 4, 5, 6)}
    assert "was killed, perhaps for want of memory" in str(found[2])


LIMITED = """
import resource, sys, torch, numpy
from fusionlab import cli
import fusionlab.batch, fusionlab.methods.mmdrfuse, scipy.fft
torch.set_num_threads(1)
size = next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 400 * 2**20, -1))
sys.argv = ["fusionlab", *sys.argv[1:]]
cli.app()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited as Linux does it")
def test_scores_survive_an_image_too_large_for_the_machine(tmp_path: Path) -> None:
    """The case 11_memory of the bug search in little: small, large, small."""
    images = [picture(1), picture(2, 2000, 1800), picture(3)]
    folders = put(tmp_path, ir=images, vi=images[:], fused=images[:])
    command = [sys.executable, "-c", LIMITED, "evaluate", *map(str, folders), "--convention", "reference"]
    options = ["--metrics", "EN,Qabf,Qe", "--csv", str(tmp_path / "s.csv")]
    done = subprocess.run([*command, *options], env=ENVIRONMENT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 1
    assert re.search(r"^error: 1: memory ran out \(\d+ MiB more were asked for\)", done.stderr, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "2 of 3 scored, convention reference"
    assert [row["name"] for row in rows(tmp_path / "s.csv")] == ["0", "2"]


PEAK = """
import sys, torch
from fusionlab.metrics import CONVENTIONS, memory, phase, score_pair
torch.set_num_threads(1)
phase.LARGE, memory.Memory.keep = 1, lambda *_: None  # as of larger frames
size = lambda name: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name))
side = int(sys.argv[2])
make = lambda: torch.nn.functional.interpolate(255 * torch.rand(1, 1, side, 50), scale_factor=16).byte()
ir, vi, fused = make(), make(), make()
before = size("VmRSS")
score_pair(CONVENTIONS["reference"].variants[sys.argv[1]], ir, vi, fused)
print((size("VmHWM") - before) * 1024 / ir.numel())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize(("metric", "side"), [("FMI_pixel", 320), ("Qe", 320), ("PC", 80)])
def test_the_memory_of_a_metric_stays_below_40_maps(metric: str, side: int) -> None:
    """320 bytes a pixel are 3.6 GiB at 12 megapixels; FMI took 450, PC, which is slow, 670."""
    environment = {**ENVIRONMENT, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # as for larger tensors anyway
    command = [sys.executable, "-c", PEAK, metric, str(side)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 320


def test_large_frames_score_the_same_with_nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(i, 64, 80) for i in range(3)]
    metrics = ["FMI_pixel", "FMI_dct", "PC", "Qabf", "VIF", "MS_SSIM"]
    kept = evaluate(*images, "reference", metrics).rows
    monkeypatch.setattr("fusionlab.metrics.phase.LARGE", 1)
    monkeypatch.setattr("fusionlab.metrics.features.KEPT", 1)
    monkeypatch.setattr("fusionlab.metrics.memory.Memory.keep", lambda *_: None)
    assert evaluate(*images, "reference", metrics).rows == kept


# Files


def test_no_table_overwrites_an_image_or_another_table(folders: list[Path], tmp_path: Path) -> None:
    ir, vi, fused = (folder / "0.png" for folder in folders)
    before = {file: file.read_bytes() for file in (ir, vi, fused)}
    (tmp_path / "link.csv").symlink_to(vi)
    os.link(fused, tmp_path / "hard.csv")
    choice = ("evaluate", ir, vi, fused, "--convention", "reference", "--metrics", "EN")
    for option in ("--csv", "--markdown"):
        for target, reason in [
            (vi, "is one of the input images"),
            (tmp_path / "link.csv", "is one of the input images"),
            (tmp_path / "hard.csv", "is one of the input images"),
            (tmp_path / "new" / ".." / "vi" / "0.png", "is one of the input images"),
            (tmp_path / "v.png", "names an image"),
            (tmp_path, "is a folder"),
        ]:
            done = run(*choice, option, target)
            assert (done.exit_code, done.stdout) == (1, ""), target
            assert done.stderr.startswith(f"error: {target} {reason}"), done.stderr
    twice = run(*choice, "--csv", tmp_path / "t", "--markdown", tmp_path / "x" / ".." / "t")
    assert twice.exit_code == 1 and "is to hold two results" in twice.stderr
    assert {file: file.read_bytes() for file in before} == before
    assert not (tmp_path / "t").exists() and not (tmp_path / "x").exists()


def test_fuse_resolves_the_path_before_it_is_checked(folders: list[Path], tmp_path: Path) -> None:
    ir, vi, _ = (folder / "0.png" for folder in folders)
    before = ir.read_bytes()
    done = run("fuse", ir, vi, "-o", folders[0] / "new" / ".." / "0.png", "--method", "average")
    assert done.exit_code == 1 and "is one of the input images" in done.stderr
    assert ir.read_bytes() == before
    # A folder whose results would fall upon the images of another pair.
    (tmp_path / "out").mkdir()
    os.link(folders[0] / "1.png", tmp_path / "out" / "0.png")
    done = run("fuse", *folders[:2], "-o", tmp_path / "out", "--method", "average")
    assert done.stdout.startswith("2 of 3") and "error: 0: " in done.stderr
    fine = run("fuse", ir, vi, "-o", tmp_path / "new" / ".." / "o.png", "--method", "average")
    assert fine.exit_code == 0 and (tmp_path / "o.png").is_file() and not (tmp_path / "new").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("option", ["--csv", "--markdown"])
def test_a_full_device_is_one_line(folders: list[Path], option: str) -> None:
    done = run("evaluate", *folders, "--convention", "reference", "--metrics", "EN", option, "/dev/full")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: /dev/full cannot be written (No space left on device); mend that, or name another place"
    )


def test_a_table_that_cannot_be_written_leaves_what_was_there(folders: list[Path], tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    done = run("evaluate", *folders, "--convention", "reference", "--metrics", "EN", "--csv", long)
    assert done.exit_code == 1 and done.stderr == f"error: {long}: File name too long\n"
    (tmp_path / "s.csv").write_text("earlier\n")
    (tmp_path / "broken").mkdir()
    for i in range(3):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"no image")
    none = run("evaluate", *folders[:2], tmp_path / "broken", "--convention", "reference",
               "--csv", tmp_path / "s.csv")  # fmt: skip
    assert none.exit_code == 1 and "0 of 3 scored" in none.stdout
    assert (tmp_path / "s.csv").read_text() == "earlier\n"


CROWDED = """
import resource, signal, sys
from pathlib import Path
from fusionlab.errors import UserError
from fusionlab.tables import RowFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
table = RowFile(Path(sys.argv[1]), "head\\n")
table.add("a" * 30 + "\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (50, -1))
try:
    table.add("b" * 30 + "\\n")
except UserError as error:
    print(error)
"""


@posix
def test_a_torn_row_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    command = [sys.executable, "-c", CROWDED, str(file)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert "s.csv cannot be written" in done.stdout, done.stderr
    assert file.read_text() == "head\n" + "a" * 30 + "\n"


def many(tmp_path: Path, folders: list[Path], count: int) -> list[Path]:
    roots = [tmp_path / "many" / role for role in ("ir", "vi", "fused")]
    for root, folder in zip(roots, folders):
        root.mkdir(parents=True)
        for i in range(count):
            (root / f"{i:03}.png").symlink_to(folder / "0.png")
    return roots


@posix
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_evaluate_leaves_the_rows_it_had(folders: list[Path], tmp_path: Path, workers: int) -> None:
    file = tmp_path / "s.csv"
    file.write_text("of an earlier run\n")
    command = [sys.executable, "-m", "fusionlab.cli", "evaluate", *many(tmp_path, folders, 400)]
    options = ["--convention", "reference", "--metrics", "EN,PC", "--workers", workers, "--csv", file]
    with subprocess.Popen(
        [*map(str, [*command, *options])], env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while file.read_text().count("\n") < 5:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    found = rows(file)
    assert len(found) >= 4
    assert all(float(row["PC"]) > 0 and row["convention"] == "reference" for row in found)
    ends(process.pid)


@posix
@pytest.mark.parametrize("gap", [0.02, 0.5])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_interrupt_ends_it_and_its_processes(
    folders: list[Path], tmp_path: Path, workers: int, gap: float
) -> None:
    command = [sys.executable, "-m", "fusionlab.cli", "evaluate", *many(tmp_path, folders, 400)]
    options = ["--convention", "reference", "--metrics", "PC", "--workers", workers]
    with subprocess.Popen(
        [*map(str, [*command, *options])],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        seen = b""
        while not re.search(rb" [2-9]\d*/400", seen):
            seen += process.stderr.read(1)
            assert process.poll() is None, seen
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
            time.sleep(gap)
        rest = process.communicate(timeout=60)[1].decode()
    assert process.returncode in (130, -signal.SIGINT)
    assert "stopped" in rest or gap < 0.1
    ends(process.pid)


def ends(group: int) -> None:
    """Waits until no process of the group is left."""
    deadline = time.monotonic() + 60
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


# The list of conventions


def test_the_conventions_are_listed_with_their_strength_and_metrics() -> None:
    done = run("conventions")
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines.keys() == CONVENTIONS.keys()
    for name, known in CONVENTIONS.items():
        assert known.strength in lines[name] and known.save in lines[name]
        assert lines[name].endswith(", ".join(known.variants))
    one = run("conventions", "dmfuse").stdout
    assert CONVENTIONS["dmfuse"].evidence in one
    assert all(variant.formula in one for variant in CONVENTIONS["dmfuse"].variants.values())
    assert "known: reference" in run("conventions", "nope").stderr

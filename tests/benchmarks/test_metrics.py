"""Metrics of a 640x480 pair against the public Python evaluator, and folders against one process."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionlab.data import to_uint8, write_image
from fusionlab.methods.baselines import average, laplacian, maximum
from fusionlab.metrics import CONVENTIONS, compare, evaluate
from fusionlab.scenes import scene

PLAIN = Path(__file__).with_name("plain_evaluator.py")
FOLDERS = Path(__file__).with_name("score_folders.py")
IMAGES = int(os.environ.get("FUSIONLAB_BENCH_IMAGES", "1000"))
NINE = ["EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM"]
# CPU seconds of that evaluator on another machine: the shares of the whole say whether ours is no straw man.
FACTS = {"MI": 0.135, "VIF": 1.317, "Qabf": 0.061, "SSIM": 0.036}
FACTS_TOTAL = 1.55
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    """A scene of 640x480 and its fusions by three baselines, uint8."""
    torch.set_num_threads(1)
    pair = scene(0, height=480, width=640)
    fusers = {"average": average, "maximum": maximum, "laplacian": laplacian}
    fused = {name: to_uint8(fuser(pair.ir, pair.vi)) for name, fuser in fusers.items()}
    return {"ir": to_uint8(pair.ir), "vi": to_uint8(pair.vi), **fused}


@pytest.fixture(scope="module")
def public(images, tmp_path_factory):
    """Runs the public evaluator in a process of its own: metric -> its CPU seconds and value."""
    file = tmp_path_factory.mktemp("public") / "triple.npz"
    np.savez(file, *(images[name][0, 0].numpy() for name in ("ir", "vi", "laplacian")))

    def run() -> dict[str, dict[str, float]]:
        done = subprocess.run(
            [sys.executable, PLAIN, file], env=ONE_THREAD, check=True, capture_output=True, text=True
        )
        return json.loads(done.stdout)

    return run


def test_nine_metrics_against_the_public_evaluator(images, cpu_seconds, public):
    ir, vi, fused = (images[name] for name in ("ir", "vi", "laplacian"))
    # Either side twice, turn by turn: the machine may be busier at one time than at another.
    rounds = []
    for _ in range(2):
        peer = public()
        rounds.append((peer, cpu_seconds(lambda: evaluate(ir, vi, fused, "cddfuse", NINE), 6)))
    plain = {name: min(peer[name]["seconds"] for peer, _ in rounds) for name in NINE}
    total, ours = sum(plain.values()), min(seconds for _, seconds in rounds)
    print(f"\nnine metrics, 640x480: {ours:.3f} s CPU, public evaluator {total:.3f} s; ", end="")
    print(f"ratio {total / ours:.1f}")
    for name, seconds in plain.items():
        own = cpu_seconds(partial(evaluate, ir, vi, fused, "cddfuse", [name]), 4)
        print(f"  {name:<5} {own:.4f} s, public {seconds:.4f} s, {seconds / total:.1%} of its time")
    values = evaluate(ir, vi, fused, "cddfuse", NINE).mean()
    for name, value in values.items():
        assert value == pytest.approx(rounds[0][0][name]["float64"], rel=1e-9)
    for name, seconds in FACTS.items():
        assert plain[name] / total == pytest.approx(seconds / FACTS_TOTAL, rel=0.3), name
    assert total / ours >= 8


def test_all_of_reference(images, cpu_seconds, public):
    ir, vi, fused = (images[name] for name in ("ir", "vi", "laplacian"))
    seconds = {
        name: cpu_seconds(partial(evaluate, ir, vi, fused, "reference", [name]), 3)
        for name in CONVENTIONS["reference"].variants
    }
    rounds = [
        (cpu_seconds(lambda: evaluate(ir, vi, fused, "reference")), public()) for _ in range(3)
    ]  # turn by turn, as above
    whole = min(ours for ours, _ in rounds)
    plain = sum(min(peer[name]["seconds"] for _, peer in rounds) for name in NINE)
    print(
        f"\nall {len(seconds)} of reference, 640x480: {whole:.2f} s CPU, nine by the public evaluator ",
        end="",
    )
    print(f"{plain:.2f} s; ratio {whole / plain:.2f}; slowest ", end="")
    slowest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:8]
    print(", ".join(f"{name} {seconds[name]:.3f}" for name in slowest))
    assert whole < 2.5 * plain


def test_sources_are_worked_on_once_for_several_methods(images, cpu_seconds):
    ir, vi = images["ir"], images["vi"]
    methods = {name: images[name] for name in ("average", "maximum", "laplacian")} | {"ir": ir, "vi": vi}
    together = cpu_seconds(lambda: compare(ir, vi, methods, "reference"), 3)
    apart = cpu_seconds(lambda: [evaluate(ir, vi, fused, "reference") for fused in methods.values()], 3)
    print(f"\n{len(methods)} methods, reference: together {together:.2f} s CPU, ", end="")
    print(f"one by one {apart:.2f} s; ratio {apart / together:.2f}")
    assert together < apart


MEMORY = """
import sys
import numpy as np, torch
from fusionlab.metrics import compare
torch.set_num_threads(1)
ir, vi, *fused = np.load(sys.argv[1]).values()
methods = {str(k): image for k, image in enumerate(fused)}
small = [image[:64, :64] for image in (ir, vi)], {k: image[:64, :64] for k, image in methods.items()}
compare(*small[0], small[1], "reference")  # what the libraries keep for themselves

def peak():  # of this very program; what getrusage gives on Linux begins at the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before = peak()
compare(ir, vi, methods, "reference")
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak")
@pytest.mark.parametrize("count", [1, 5])
def test_memory_beyond_the_images(images, tmp_path, count):
    """The peak of a fresh process, above its peak after scoring a corner of 64x64."""
    fused = [images[name] for name in ("laplacian", "average", "maximum", "ir", "vi")][:count]
    triple = [image[0, 0].numpy() for image in (images["ir"], images["vi"], *fused)]
    np.savez(tmp_path / "images.npz", *triple)
    command = [sys.executable, "-c", MEMORY, tmp_path / "images.npz"]
    done = subprocess.run(command, env=ONE_THREAD, check=True, capture_output=True, text=True)
    megabytes = int(done.stdout) * 1024 / 1e6
    maps = int(done.stdout) * 1024 / (8 * images["ir"].numel())
    print(f"\nall of reference, 640x480, {count} methods: {megabytes:.0f} MB at the peak, ", end="")
    print(f"{maps:.0f} float64 images")
    assert maps < 120


def test_a_thousand_images_by_two_processes(tmp_path):
    """1,000 names for 20 scenes of 256x256, all of reference but the two slowest families.

    Wall time says something on a machine with two idle cores only. The path that two such cores would take is
    judged: the CPU seconds of the parent and half of its workers', against those of one process. How the
    two share the images is no measure: the one that the machine favours takes more of them.
    """
    for k in range(20):
        pair = scene(k, height=256, width=256)
        for role, image in {"ir": pair.ir, "vi": pair.vi, "fused": average(pair.ir, pair.vi)}.items():
            write_image(image, tmp_path / "drawn" / role / f"{k}.png")
            (tmp_path / role).mkdir(exist_ok=True)
            for n in range(k, IMAGES, 20):
                (tmp_path / role / f"{n:04d}.png").symlink_to(tmp_path / "drawn" / role / f"{k}.png")
    metrics = [name for name in CONVENTIONS["reference"].variants if not name.startswith(("PC", "FMI"))]
    folders = [tmp_path / role for role in ("ir", "vi", "fused")]
    done = {}
    for workers in (1, 2):
        command = [sys.executable, FOLDERS, str(workers), *folders, "reference", *metrics]
        run = subprocess.run(command, env=ONE_THREAD, check=True, capture_output=True, text=True)
        done[workers] = json.loads(run.stdout)
    one, two = done[1], done[2]
    path = two["own"] + sum(two["workers"]) / 2
    each = " + ".join(f"{seconds:.1f}" for seconds in (two["own"], *two["workers"]))
    print(f"\n{IMAGES} images, 256x256, {len(metrics)} metrics, one process: {one['wall']:.1f} s, ", end="")
    print(f"{one['own']:.1f} s CPU; two workers: {two['wall']:.1f} s, {each} s CPU (parent first); ", end="")
    print(f"ratio of wall {one['wall'] / two['wall']:.2f}, of the CPU path {one['own'] / path:.2f}, ", end="")
    print(f"to the longer worker alone {one['own'] / max(two['workers']):.2f}")
    assert one["rows"] == two["rows"] and len(one["rows"]) == IMAGES
    assert one["own"] / path >= 1.7

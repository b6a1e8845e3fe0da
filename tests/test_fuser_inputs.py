"""What a fuser is given: wrong inputs, each with its remedy, weights that do not fit, frames of any size."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fusionlab
from fusionlab.errors import UserError
from fusionlab.fuser import describe, fuse
from fusionlab.methods import METHODS
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.nets import frames

GOOD = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
REMEDIES = {
    "half": (GOOD.half(), r"is float16, not float32; convert it with \.float\(\)$"),
    "double": (GOOD.double(), r"is float64, not float32; convert it with \.float\(\)$"),
    "bytes": ((255 * GOOD).to(torch.uint8), r"is uint8.*convert it with \.float\(\) / 255$"),
    "whole numbers": (torch.ones(1, 1, 32, 32, dtype=torch.int64), r"is int64.*\.float\(\) and scale it"),
    "NaN": (torch.where(GOOD > 0.9, torch.nan, GOOD), "holds NaN or infinite values; look where they come"),
    "infinity": (torch.where(GOOD > 0.9, torch.inf, GOOD), "holds NaN or infinite values"),
    "255": (255 * GOOD, r"not within \[0, 1\]; divide 8-bit values by 255$"),
    "tanh": (2 * GOOD - 1, r"runs from -.* to .*, not within \[0, 1\]; scale it"),
    "slightly above": (GOOD * 1.2, r"to 1\.1.*; scale it, or cut it with \.clamp\(0, 1\)$"),
    "kelvin": (300 + GOOD, "from 300 to 301, .*; scale it"),
    "NumPy": (GOOD.numpy(), r"is a NumPy array, so convert it with torch\.from_numpy"),
    "NumPy bytes": (np.zeros((32, 32), np.uint8), r"torch\.from_numpy"),
    "list": ([GOOD], "of type list; needed is a float32 tensor"),
}


@pytest.mark.parametrize("kind", REMEDIES)
@pytest.mark.parametrize("role", ["infrared", "visible"])
def test_each_wrong_input_has_its_own_remedy(kind, role):
    wrong, message = REMEDIES[kind]
    images = (wrong, GOOD) if role == "infrared" else (GOOD, wrong)
    with pytest.raises(UserError, match=f"^the {role} image .*{message}") as caught:
        fusionlab.load("average")(*images)
    assert "\n" not in str(caught.value)
    assert ("255" in str(caught.value)) == (kind in ("255", "bytes"))


# Weights


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_the_names_of_dataparallel_are_taken_off_and_this_is_said(tmp_path, form):
    torch.manual_seed(1)
    network = Student()
    file = tmp_path / f"parallel.{form}"
    state = torch.nn.DataParallel(network).state_dict()
    assert all(key.startswith("module.") for key in state)
    save_file(dict(state), file) if form == "safetensors" else torch.save(state, file)
    fuser = fusionlab.load("mmdrfuse", file)
    assert torch.equal(fuser.unclipped(GOOD, GOOD), network(GOOD, GOOD).detach())
    assert "module. taken off" in describe(fuser)


def without(state: dict, *keys: str) -> dict:
    return {key: value for key, value in state.items() if key not in keys}


STUDENT = Student().state_dict()
MISFITS = {
    "of another network": (
        Teacher(16).state_dict(),
        r"22 are none of its own \(conv3\.1\.weight, .* and 19 more\), 4 have another shape",
    ),
    "one is missing": (without(STUDENT, "conv2.1.bias"), r"1 of 4 tensors are missing \(conv2\.1\.bias\)"),
    "one too many": (STUDENT | {"epoch": torch.ones(1)}, r"1 are none of its own \(epoch\)"),
    "wider": (
        Student(hidden=8).state_dict(),
        r"3 have another shape \(conv1.1.weight \(8, 2, 3, 3\) for \(4,",
    ),
    "half wrapped": (STUDENT | {"module.a": torch.ones(1)}, r"\(module\.a\)"),
    "empty": ({}, "4 of 4 tensors are missing"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path, misfit):
    state, message = MISFITS[misfit]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"w.pth does not fit mmdrfuse: .*{message}") as caught:
        fusionlab.load("mmdrfuse", tmp_path / "w.pth")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_checkpoint_of_more_names_what_it_holds(tmp_path):
    torch.save({"epoch": 7, "model_state_dict": STUDENT}, tmp_path / "epoch.pth")
    with pytest.raises(UserError, match=r"more than a state dict \(epoch, model_state_dict\); save"):
        fusionlab.load("mmdrfuse", tmp_path / "epoch.pth")


# Large frames


def network_of(name: str):
    """A method with weights of its own kind that need no file of others."""
    if name == "mmdrfuse-teacher":
        torch.manual_seed(2)
        return Teacher().eval()
    return fusionlab.load(name).network


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.reach is not None])
@pytest.mark.parametrize("size", [(257, 330), (160, 131)])
@torch.no_grad()
def test_tiles_are_exact_and_the_reach_is_true(name, size, monkeypatch):
    monkeypatch.setattr(frames, "TILE", 64)
    network, reach = network_of(name), METHODS[name].reach
    ir, vi = torch.rand(2, 2, 1, *size, generator=torch.Generator().manual_seed(3))
    whole = network(ir, vi)
    assert (frames.in_tiles(network, ir, vi, reach) - whole).abs().max() < 2e-6
    # One pixel changes the output as far as the reach says, and not beyond.
    other = ir.clone()
    y, x = 100, 70
    other[..., y, x] = 1 - other[..., y, x]
    rows, columns = ((network(other, vi) - whole).abs() > 1e-6).amax((0, 1)).nonzero().unbind(1)
    distance = max((rows - y).abs().max(), (columns - x).abs().max()).item()
    assert distance <= reach


def test_a_fuser_takes_tiles_for_large_frames_alone(monkeypatch):
    sizes = []
    monkeypatch.setattr(frames, "TILE", 64)
    monkeypatch.setattr("fusionlab.fuser.WHOLE", 100 * 100)
    fuser = fusionlab.load("mmdrfuse")
    fuser.network.register_forward_pre_hook(lambda _, images: sizes.append(tuple(images[0].shape)))
    small, large = (torch.rand(2, 1, 100, side) for side in (100, 101))
    fuse(fuser, small, small)
    assert sizes == [(2, 1, 100, 100)]
    fuse(fuser, large, large)
    assert max(height * width for *_, height, width in sizes[1:]) <= 128**2


def measured(code: str, *arguments: object) -> float:
    """The number that a new process prints, in which memory that is freed goes back at once."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}  # as for larger tensors anyway
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


PEAK = """
import sys, torch, fusionlab
torch.set_num_threads(1)
fuser = fusionlab.load(sys.argv[1])
ir, vi = torch.rand(2, 1, 1, int(sys.argv[2]), 2000)
peak = lambda name: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name))
before = peak("VmRSS")
fusionlab.fuse(fuser, ir, vi)
print((peak("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
def test_the_memory_of_a_large_frame_stays_bounded():
    """Twice the frame costs no more than its own images do; the network's maps are those of one tile."""
    peaks = [measured(PEAK, "mmdrfuse", height) for height in (1500, 3000)]
    assert peaks[1] < 300  # MiB; as a whole 700
    assert peaks[1] - peaks[0] < 1500 * 2000 * 24 / 2**20


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.reach is None])
def test_a_method_that_has_no_tiles_says_how_much_it_needs(name):
    fuser = fusionlab.load(name)
    assert fuser.bytes_per_pixel is not None
    assert f", {fuser.bytes_per_pixel / 1000:.1f} GB of memory a megapixel" in describe(fuser)


def test_a_frame_that_would_not_fit_is_refused_with_figure_and_remedy(monkeypatch):
    fuser = fusionlab.load("comofusion")
    assert METHODS["comofusion"].reach is None
    assert "0.8 GB of memory a megapixel" in describe(fuser)
    monkeypatch.setattr("fusionlab.fuser.free_memory", lambda: 5 * 10**9)
    large = torch.zeros(1, 1, 3000, 4000)
    with pytest.raises(
        UserError, match=r"needs about 9\.8 GB .*4000x3000 pixels and 5\.0 GB are free; shrink"
    ):
        fuser(large, large)
    monkeypatch.setattr("fusionlab.fuser.WHOLE", 32 * 32)
    middle = torch.rand(2, 1, 1, 48, 48)
    assert fuser(*middle).shape == (1, 1, 48, 48)
    monkeypatch.setattr("fusionlab.fuser.free_memory", lambda: None)  # not known: no refusal
    assert fuser(*middle).shape == (1, 1, 48, 48)


ESTIMATE = """
import sys, torch
from fusionlab.methods.comofusion import CoMoFusion
from fusionlab.methods.dmfuse import DMFuse
torch.set_num_threads(1)
network = {"CoMoFusion": CoMoFusion, "DMFuse": DMFuse}[sys.argv[1]](**eval(sys.argv[2])).eval()
ir, vi = torch.rand(2, 1, 1, int(sys.argv[3]), 800)
peak = lambda name: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name))
before = peak("VmRSS")
with torch.no_grad(): network(ir, vi)
print((peak("VmHWM") - before) * 1024 / ir.numel() / network.bytes_per_pixel)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
@pytest.mark.parametrize(
    ("network", "settings", "height"),
    [
        ("CoMoFusion", {"width": 16}, 600),
        ("CoMoFusion", {"width": 24}, 600),
        ("CoMoFusion", {"width": 24, "features": "decoder"}, 600),
        ("DMFuse", {"width": 8, "channels": 1, "noise": "edm"}, 128),
        ("DMFuse", {"width": 16, "channels": 1, "noise": "edm"}, 128),
    ],
)
def test_the_estimate_is_near_the_truth(network, settings, height):
    assert 0.6 < measured(ESTIMATE, network, settings, height) < 1.2


# The face


@pytest.mark.parametrize(
    "use",
    [
        "fusionlab.metrics.explain('EN')",
        "fusionlab.data.to_uint8",
        "fusionlab.scenes.scene",
        "fusionlab.metrics.CONVENTIONS",
    ],
)
def test_modules_are_there_after_import_fusionlab_alone(use):
    code = f"import sys, fusionlab; assert 'torch' not in sys.modules; assert {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'metric'"):
        fusionlab.metric  # noqa: B018

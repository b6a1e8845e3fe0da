"""Weight files that someone else made: refused in one line, before memory is asked for, or finite."""

import io
import json
import random
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save

import fusionlab
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, fuse
from fusionlab.methods.comofusion import CoMoFusion
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.paths import asset

from .places import error_line


def state(**changed):
    torch.manual_seed(0)
    return Student().state_dict() | changed


def como(**settings):
    """A small CoMoFusion whose file claims other settings."""
    torch.manual_seed(0)
    network = CoMoFusion(8)
    return save(network.state_dict(), {"settings": json.dumps(network.settings | settings)})


def header(**entries):
    """A safetensors file of a header alone."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def pickled(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def compressed(content: bytes) -> bytes:
    """A PyTorch file packed anew, with gigabytes of zeros in little more than a megabyte."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
        with new.open("archive/data/99", "w", force_zip64=True) as bomb:
            for _ in range(64):
                bomb.write(bytes(2**24))
    return file.getvalue()


def refusal(call) -> str:
    """What a call is refused with; nothing where it gives what is finite."""
    try:
        fused = call()
    except UserError as refused:
        return str(refused)
    assert fused.isfinite().all()
    return ""


def with_nan(value):
    changed = state()
    changed["conv1.1.weight"][0, 0, 0, 0] = value
    return changed


BIAS = "conv2.1.bias"
HUGE = torch.zeros(1).half().expand(10**6, 10**6)
# Name of the file -> method, its bytes, and what the line says.
FILES = {
    "nan.safetensors": ("mmdrfuse", lambda: save(with_nan(float("nan"))), "NaN or infinite weights"),
    "inf.safetensors": ("mmdrfuse", lambda: save(with_nan(float("-inf"))), "NaN or infinite weights"),
    "half.safetensors": (
        "mmdrfuse",
        lambda: save({key: value.half() for key, value in with_nan(1e6).items()}),
        "NaN or infinite weights",
    ),
    "double.pth": (
        "mmdrfuse",
        lambda: pickled({key: value.double() * 1e300 for key, value in state().items()}),
        "NaN or infinite weights",
    ),
    "nan.pth": ("mmdrfuse", lambda: pickled(with_nan(float("nan"))), "NaN or infinite weights"),
    "features.safetensors": ("comofusion", lambda: como(features="encodeur"), "no 'encodeur'"),
    "variant.safetensors": ("comofusion", lambda: como(variant="Paper"), "no 'Paper'"),
    "list.safetensors": ("comofusion", lambda: como(features=["encoder"]), "encoder"),
    "odd.safetensors": ("comofusion", lambda: como(width=9), "even width"),
    "text.safetensors": ("comofusion", lambda: como(width="8"), "whole number"),
    "four.safetensors": ("comofusion", lambda: como(multipliers=[1, 2, 4, 8]), "three"),
    "number.safetensors": ("comofusion", lambda: como(multipliers=3), "three"),
    "many.safetensors": ("comofusion", lambda: como(multipliers=[1] * 10**5), "three"),
    "wide.safetensors": ("comofusion", lambda: como(width=1024, multipliers=[64, 64, 64]), "does not fit"),
    "unknown.safetensors": ("comofusion", lambda: como(depth=3), "depth"),
    "hidden1e7.safetensors": (
        "mmdrfuse", lambda: save(state(), {"settings": '{"hidden": 10000000}'}), "whole number",
    ),
    "hidden4.5.safetensors": (
        "mmdrfuse", lambda: save(state(), {"settings": '{"hidden": 4.5}'}), "whole number",
    ),
    "hidden0.safetensors": ("mmdrfuse", lambda: save(state(), {"settings": '{"hidden": 0}'}), "whole"),
    "hidden-true.safetensors": ("mmdrfuse", lambda: save(state(), {"settings": '{"hidden": true}'}), "whole"),
    "hidden4096.safetensors": ("mmdrfuse", lambda: save(state(), {"settings": '{"hidden": 4096}'}), "shape"),
    "width.safetensors": (
        "mmdrfuse-teacher-half", lambda: save(state(), {"settings": '{"width": 512}'}), "does not fit",
    ),
    "settings-list.safetensors": ("mmdrfuse", lambda: save(state(), {"settings": "[1]"}), "settings"),
    "settings-text.safetensors": ("mmdrfuse", lambda: save(state(), {"settings": "hidden"}), "safetensors"),
    "settings-deep.safetensors": (
        "mmdrfuse", lambda: save(state(), {"settings": "[" * 10**5 + "]" * 10**5}), "safetensors",
    ),
    "metadata.safetensors": ("mmdrfuse", lambda: header(__metadata__=None), "are missing"),
    "gigabytes.safetensors": (
        "mmdrfuse",
        lambda: header(x={"dtype": "F32", "shape": [10**5, 10**5], "data_offsets": [0, 4 * 10**10]}),
        "safetensors",
    ),
    "header.safetensors": ("mmdrfuse", lambda: struct.pack("<Q", 2**62) + b"{}", "safetensors"),
    "integers.safetensors": (
        "mmdrfuse",
        lambda: save({key: (100 * value).to(torch.int8) for key, value in state().items()}),
        "numbers of type int8",
    ),
    "bools.pth": ("mmdrfuse", lambda: pickled({k: v > 0 for k, v in state().items()}), "type bool"),
    "complex.pth": (
        "mmdrfuse", lambda: pickled({k: v * (1 + 1j) for k, v in state().items()}), "type complex64",
    ),
    "sparse.pth": ("mmdrfuse", lambda: pickled(state(**{BIAS: torch.zeros(1).to_sparse()})), "plain"),
    "meta.pth": ("mmdrfuse", lambda: pickled(state(**{BIAS: torch.zeros(1, device="meta")})), "plain"),
    "expanded.pth": ("mmdrfuse", lambda: pickled(state(**{"conv1.1.weight": HUGE})), "have another shape"),
    "int_keys.pth": ("mmdrfuse", lambda: pickled(dict(enumerate(state().values()))), "names are text"),
    "none_key.pth": ("mmdrfuse", lambda: pickled(state() | {None: torch.zeros(1)}), "names are text"),
    "big_endian.pth": (
        "mmdrfuse", lambda: pickled({k: v.numpy().astype(">f4") for k, v in state().items()}), "state dict",
    ),
    "arrays.pth": ("mmdrfuse", lambda: pickled({k: v.numpy() for k, v in state().items()}), "state dict"),
    "scalar.pth": ("mmdrfuse", lambda: pickled(state() | {"loss": np.float64(1)}), "state dict"),
    "bomb.pth": ("mmdrfuse", lambda: compressed(pickled(state())), "unpacks to more"),
    "more.safetensors": (
        "mmdrfuse",
        lambda: save(state(**{"é\n\x1b[31m" * 60: torch.zeros(1)})),
        "none of its own",
    ),
    "teacher.safetensors": ("mmdrfuse", lambda: save(Teacher(16).state_dict()), "none of its own"),
    "empty.pth": ("mmdrfuse", lambda: pickled({}), "are missing"),
    "nothing.safetensors": ("mmdrfuse", lambda: b"", "safetensors"),
    "nothing.pth": ("mmdrfuse", lambda: b"", "state dict"),
    "legacy.pth": ("mmdrfuse", lambda: pickled([1], _use_new_zipfile_serialization=False), "state dict"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_bad_weight_file_is_one_line(tmp_path, name, tried):
    method, content, says = FILES[name]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(UserError) as refused:
        fusionlab.load(method, tmp_path / name)
    line = str(refused.value)
    assert name in line and says in line
    assert line.isprintable() and len(line) < 600
    tried("bad weight files", 1)


def test_nothing_large_is_asked_for(tmp_path):
    """In a process that may hold little more than it does, so that gigabytes would be a MemoryError."""
    resource = pytest.importorskip("resource")
    large = ("wide.safetensors", "hidden4096.safetensors", "expanded.pth", "gigabytes.safetensors")
    for name in large:
        (tmp_path / name).write_bytes(FILES[name][1]())
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        for name in large:
            with pytest.raises(UserError, match=name):
                fusionlab.load(FILES[name][0], tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_flipped_cut_and_overwritten_files_load_or_are_refused_in_a_line(tmp_path, tried):
    rng, outcomes = random.Random(0), {"loaded": 0, "refused": 0}
    images = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for kind, whole in (
        ("safetensors", save(state(), {"settings": '{"hidden": 4}'})),
        ("pth", pickled(state())),
    ):
        for number in range(150):
            damaged = bytearray(whole)
            if number % 3 == 0:
                damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            elif number % 3 == 1:
                del damaged[rng.randrange(len(whole)) :]
            else:
                start = rng.randrange(min(len(whole), 700))
                damaged[start : start + 8] = rng.randbytes(rng.randrange(1, 9))
            file = tmp_path / f"x.{kind}"
            file.write_bytes(damaged)
            line = refusal(lambda file=file: fusionlab.load("mmdrfuse", file).unclipped(*images))
            outcomes["refused" if line else "loaded"] += 1
            assert "\n" not in line
    tried("damaged weight files", sum(outcomes.values()))
    assert outcomes["refused"] > 150


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_fuser_never_gives_what_is_not_finite(value):
    def network(ir, vi):
        fused = (ir + vi) / 2
        fused[..., 3, 5] = value
        return fused

    fuser, image = Fuser("broken", "mine", "none", network), torch.rand(1, 1, 16, 16)
    for call in (fuser, fuser.unclipped, lambda ir, vi: fuse(fuser, ir, vi, "stretch")):
        with pytest.raises(UserError, match=r"broken \(weights mine\) gave NaN or infinite values"):
            call(image, image)


def test_finite_weights_whose_sums_are_not(tmp_path):
    """3e38 is a number in float32 and twice of it is none."""
    huge = {key: torch.full_like(value, 3e38) for key, value in state().items()}
    huge["conv2.1.weight"][:, ::2] *= -1
    (tmp_path / "huge.safetensors").write_bytes(save(huge))
    image = torch.ones(1, 1, 16, 16)
    line = refusal(lambda: fusionlab.load("mmdrfuse", tmp_path / "huge.safetensors")(image, image))
    assert "huge.safetensors) gave NaN or infinite values" in line


def test_the_shipped_weights_still_load():
    for file in asset("weights").glob("*.safetensors"):
        method = {"comofusion": "comofusion", "mmdrfuse_student": "mmdrfuse"}.get(
            file.stem, file.stem.replace("_", "-")
        )
        assert fusionlab.load(method, file).sha256 == fusionlab.load(method).sha256


@pytest.mark.parametrize("seed", [2**64, 2**32, -1, 1.5, True, None, "0"])
def test_a_seed_that_is_none_is_refused_by_every_door(seed, tried):
    from fusionlab import lab
    from fusionlab.bench.run import Run

    for door in (
        lambda: fusionlab.load("average", seed=seed),
        lambda: lab.start("smoke", "scenes", seed),
        lambda: Run.begin(None, "smoke", seed),
    ):
        with pytest.raises(UserError, match="give a whole number from 0 to 4294967295"):
            door()
        tried("odd seeds", 1)


@pytest.mark.parametrize("seed", [2**64, 2**32, -1, -(2**63), 10**400])
@pytest.mark.parametrize(
    "words",
    [
        ("reproduce", "metrics/truth-preview", "--profile", "smoke"),
        ("reproduce", "metrics/truth-preview", "--verify"),
        ("run", "00", "--profile", "smoke"),
    ],
)
def test_a_seed_on_the_command_line(seed, words, tmp_path, monkeypatch, tried):
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path))
    assert "the seed is " in error_line(*words, "--seed", seed)
    assert not list(tmp_path.iterdir())
    tried("odd seeds", 1)


def test_the_last_of_several_seeds_is_one_too(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_RUNS", str(tmp_path))
    words = ("reproduce", "metrics/truth-preview", "--seed", 2**32 - 2, "--seeds", 3)
    assert "the seed is 4294967296" in error_line(*words)


def test_numpy_seeds_are_seeds():
    assert fusionlab.load("average", seed=np.int64(3)).seed == 3
    with pytest.raises(UserError, match="the seed is"):
        fusionlab.load("average", seed=SimpleNamespace())

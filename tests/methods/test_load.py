"""`load` is the only way to a fuser, and every fuser keeps the contract."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import fusionlab
from fusionlab.errors import UserError
from fusionlab.methods import METHODS, NETWORKS, Fuser, describe, fuse
from fusionlab.methods.mmdrfuse import Student, Teacher


def every_fuser() -> list[Fuser]:
    """Each method; a network without weights of ours at random ones, as the contract is not about values."""
    torch.manual_seed(0)
    loaded = [fusionlab.load(name) for name in METHODS if name not in NETWORKS or NETWORKS[name].ours]
    return [*loaded, Fuser("mmdrfuse-teacher", "random", "none", Teacher().eval())]


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (64, 47)])
def test_any_size_in_the_same_size_out_within_the_unit_range(size):
    generator = torch.Generator().manual_seed(3)
    ir, vi = torch.rand(2, 1, *size, generator=generator), torch.rand(2, 1, *size, generator=generator)
    for fuser in every_fuser():
        fused = fuser(ir, vi)
        assert (fused.shape, fused.dtype) == (ir.shape, torch.float32), fuser.name
        assert 0 <= fused.min() <= fused.max() <= 1, fuser.name
        alone = fuser(ir[1:], vi[1:])
        torch.testing.assert_close(
            fused[1:], alone, rtol=0, atol=1e-6, msg=f"{fuser.name} depends on the batch"
        )


@pytest.mark.parametrize(
    ("ir", "vi", "message"),
    [
        (torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32), "shape"),
        (torch.rand(1, 1, 15, 32), torch.rand(1, 1, 15, 32), "16x16"),
        (torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 33), "differ"),
        (torch.rand(1, 1, 32, 32) * 255, torch.rand(1, 1, 32, 32), "divide 8-bit"),
        (torch.rand(1, 1, 32, 32).double(), torch.rand(1, 1, 32, 32), "float32"),
        (torch.full((1, 1, 32, 32), float("nan")), torch.rand(1, 1, 32, 32), r"\[0, 1\]"),
    ],
)
def test_a_wrong_input_is_refused_by_name(ir, vi, message):
    with pytest.raises(UserError, match=message):
        fusionlab.load("average")(ir, vi)


def test_official_is_found_only_by_name_and_only_unaltered(tmp_path, monkeypatch, shared):
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="FUSIONLAB_WEIGHTS"):
        fusionlab.load("mmdrfuse", weights="official")
    file = tmp_path / "mmdrfuse" / "student.safetensors"
    file.parent.mkdir()
    shutil.copyfile(shared / "official" / "mmdrfuse" / "student.safetensors", file)
    assert (
        fusionlab.load("mmdrfuse", weights="official").sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    )
    save_file(Student().state_dict(), file)
    with pytest.raises(UserError, match="SHA-256"):
        fusionlab.load("mmdrfuse", weights="official")


def test_official_from_the_cache_goes_by_the_same_hash(tmp_path, monkeypatch):
    """As `fusionlab data get mmdrfuse` leaves it: the released file, recorded by the hash of our reading."""
    torch.manual_seed(4)
    network = Student()
    released, reading = tmp_path / "mmdrfuse" / "student.model", tmp_path / "student.safetensors"
    released.parent.mkdir()
    torch.save(network.state_dict(), released)
    save_file(network.state_dict(), reading)
    rows = [
        replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for file, path in zip(NETWORKS["mmdrfuse"].released, (reading, released), strict=True)
    ]
    monkeypatch.setattr("fusionlab.data.registry.registry", lambda: rows)
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", "")
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path))
    fuser = fusionlab.load("mmdrfuse", weights="official")
    assert fuser.sha256 == rows[0].sha256
    ir, vi = torch.rand(2, 1, 1, 20, 20)
    assert torch.equal(fuser.raw(ir, vi), network.raw(ir, vi).detach())


def test_a_file_of_ones_own_loads_and_says_its_hash(tmp_path):
    torch.manual_seed(5)
    network = Student()
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    torch.save(network.state_dict(), tmp_path / "mine.model")
    safe = fusionlab.load("mmdrfuse", weights=tmp_path / "mine.safetensors")
    pickled = fusionlab.load("mmdrfuse", weights=str(tmp_path / "mine.model"))
    ir, vi = torch.rand(2, 1, 1, 20, 20, generator=torch.Generator().manual_seed(6))
    assert torch.equal(safe(ir, vi), pickled(ir, vi))
    assert torch.equal(safe.raw(ir, vi), network.raw(ir, vi).detach())
    digest = hashlib.sha256((tmp_path / "mine.safetensors").read_bytes()).hexdigest()
    assert digest[:12] in describe(safe)


class Bomb:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, target) -> None:
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_a_checkpoint_cannot_run_code(tmp_path):
    torch.save(Bomb(tmp_path / "ran"), tmp_path / "evil.model")
    with pytest.raises(UserError, match="evil.model"):
        fusionlab.load("mmdrfuse", weights=tmp_path / "evil.model")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("densefuse", "ours", "average, maximum, laplacian"),
        ("average", "official", "no weights"),
        ("mmdrfuse-teacher", "ours", "official"),
        ("mmdrfuse", "nowhere.safetensors", "nowhere"),
    ],
)
def test_unknown_names_and_absent_weights_name_the_remedy(name, weights, message):
    with pytest.raises(UserError, match=message):
        fusionlab.load(name, weights=weights)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"state_dict": Student().state_dict()}, tmp_path / "nested.pth")
    torch.save(list(Student().state_dict().values()), tmp_path / "list.pth")
    for name in ("nested.pth", "list.pth"):
        with pytest.raises(UserError, match="more than a state dict"):
            fusionlab.load("mmdrfuse", weights=tmp_path / name)
    save_file(Student().state_dict(), tmp_path / "student.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        fusionlab.load("mmdrfuse-teacher", weights=tmp_path / "student.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a tensor in sight")
    with pytest.raises(UserError, match="fetch it anew"):
        fusionlab.load("mmdrfuse", weights=tmp_path / "broken.safetensors")


def test_clip_and_stretch_differ_as_the_released_script_does():
    ir = torch.linspace(0.2, 0.6, 256).view(1, 1, 16, 16)
    fuser = fusionlab.load("maximum")
    clip, stretch = (fuse(fuser, ir, ir, save=rule) for rule in ("clip", "stretch"))
    assert (clip.min(), clip.max()) == (51, 153)
    assert (stretch.min(), stretch.max()) == (0, 255)

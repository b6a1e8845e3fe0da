"""`load` is the only way to a fuser, and every fuser keeps the contract."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fusionlab
from fusionlab.data.registry import choose, datasets
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, describe, fuse
from fusionlab.methods import METHODS, Found, Method, Released, Shipped, baselines
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.nets.features import BACKBONES, vgg


def every_fuser() -> list[Fuser]:
    """Each method; a network without weights of ours at random ones, as the contract is not about values."""
    torch.manual_seed(0)
    loaded = [
        fusionlab.load(name) for name, method in METHODS.items() if method.weights.keys() != {"official"}
    ]
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
    forms = [file for file in choose("mmdrfuse") if file.pair == "student"]
    rows = [
        replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for file, path in zip(forms, (reading, released), strict=True)
    ]
    monkeypatch.setattr("fusionlab.data.registry.registry", lambda: rows)
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", "")
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path))
    fuser = fusionlab.load("mmdrfuse", weights="official")
    assert fuser.sha256 == rows[0].sha256
    ir, vi = torch.rand(2, 1, 1, 20, 20)
    assert torch.equal(fuser.unclipped(ir, vi), network(ir, vi).detach())


def test_a_file_of_ones_own_loads_and_says_its_hash(tmp_path):
    torch.manual_seed(5)
    network = Student()
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    torch.save(network.state_dict(), tmp_path / "mine.model")
    safe = fusionlab.load("mmdrfuse", weights=tmp_path / "mine.safetensors")
    pickled = fusionlab.load("mmdrfuse", weights=str(tmp_path / "mine.model"))
    ir, vi = torch.rand(2, 1, 1, 20, 20, generator=torch.Generator().manual_seed(6))
    assert torch.equal(safe(ir, vi), pickled(ir, vi))
    assert torch.equal(safe.unclipped(ir, vi), network(ir, vi).detach())
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


def test_a_fuser_clips_what_its_network_does_not():
    ir = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    fuser = Fuser("stretching", "no weights", "none", lambda ir, vi: 3 * ir - 1)
    assert (fuser.unclipped(ir, ir).min(), fuser.unclipped(ir, ir).max()) == (-1, 2)
    assert torch.equal(fuser(ir, ir), (3 * ir - 1).clamp(0, 1))


class TwoParts(nn.Module):
    """A body and a head, each one number, saved apart."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)

    def forward(self, ir, vi):
        return self.body.weight * ir + self.head.weight * vi


class Noisy(nn.Module):
    """Draws noise."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(1, 1, bias=False)

    def forward(self, ir, vi, generator):
        return self.gain.weight * torch.randn(ir.shape, generator=generator)


class Seeing(nn.Module):
    """Looks through a frozen VGG."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.vgg = nn.Linear(1, 1, bias=False), vgg("random")

    def forward(self, ir, vi):
        return self.gain.weight * self.vgg(vi)["relu1_1"][:, :1]


IR, VI = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(8))


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """Methods of two shipped files or an official one, one that is stochastic, and one that needs a VGG."""
    for name, value in (("body", 0.25), ("head", 0.5), ("gain", 0.1)):
        save_file({"weight": torch.full((1, 1), value)}, tmp_path / f"{name}.safetensors")
    parts = (Shipped("body", "body"), Shipped("head", "head"))
    monkeypatch.setattr("fusionlab.paths.asset", lambda path: tmp_path / path.removeprefix("weights/"))
    monkeypatch.setattr(baselines, "TwoParts", TwoParts, raising=False)
    monkeypatch.setattr(baselines, "Noisy", Noisy, raising=False)
    monkeypatch.setattr(baselines, "Seeing", Seeing, raising=False)
    methods = {
        "two": Method("baselines.TwoParts", {"ours": parts, "official": (Released("zoo", "two"),)}),
        "noisy": Method("baselines.Noisy", {"ours": (Shipped("gain", "gain"),)}, stochastic=True),
        "seeing": Method(
            "baselines.Seeing", {"ours": (Shipped("gain", "gain"), Found("vgg19_normalised", "vgg"))}
        ),
    }
    monkeypatch.setattr("fusionlab.fuser.METHODS", methods)
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_two_weight_files_make_one_network_and_one_hash(made_up):
    fuser = fusionlab.load("two")
    assert torch.equal(fuser(IR, VI), 0.25 * IR + 0.5 * VI)
    hashes = [
        hashlib.sha256((made_up / f"{part}.safetensors").read_bytes()).hexdigest()
        for part in ("body", "head")
    ]
    assert fuser.sha256 == hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def test_a_file_of_ones_own_is_the_whole_network(made_up):
    save_file(TwoParts().state_dict(), made_up / "whole.safetensors")
    fuser = fusionlab.load("two", made_up / "whole.safetensors")
    assert fuser.sha256 == hashlib.sha256((made_up / "whole.safetensors").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"(?s)body.safetensors does not fit two.*head.weight"):
        fusionlab.load("two", made_up / "body.safetensors")


def test_the_remedy_names_the_data_set_of_the_method(made_up, monkeypatch):
    row = replace(choose("mmdrfuse")[0], dataset="zoo", pair="two", path="zoo/two.safetensors")
    monkeypatch.setattr("fusionlab.data.registry.registry", lambda: [row])
    monkeypatch.setattr("fusionlab.fuser.datasets", lambda: {"zoo": datasets()["mmdrfuse"]})
    with pytest.raises(
        UserError, match=r"licence: none stated.*fusionlab data get zoo`, or put zoo/two.safetensors"
    ):
        fusionlab.load("two", "official")
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(made_up))
    (made_up / "zoo").mkdir()
    save_file(TwoParts().state_dict(), made_up / "zoo" / "two.safetensors")
    with pytest.raises(UserError, match=r"not the released file of two.*fusionlab data get zoo"):
        fusionlab.load("two", "official")
    sha256 = hashlib.sha256((made_up / "zoo" / "two.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr("fusionlab.data.registry.registry", lambda: [replace(row, sha256=sha256)])
    assert fusionlab.load("two", "official").sha256 == sha256


def test_a_frozen_part_that_is_absent_is_named(made_up, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", "")
    with pytest.raises(UserError, match=r"seeing needs vgg19_normalised.*FUSIONLAB_WEIGHTS names"):
        fusionlab.load("seeing")


def test_a_frozen_part_is_found_also_beside_a_file_of_ones_own(made_up, shared):
    fuser = fusionlab.load("seeing")
    assert torch.equal(fuser.network.vgg.conv0.weight, vgg("vgg19_normalised").conv0.weight)
    gain = hashlib.sha256((made_up / "gain.safetensors").read_bytes()).hexdigest()
    both = f"{gain} {BACKBONES['vgg19_normalised'].sha256}"
    assert fuser.sha256 == hashlib.sha256(both.encode()).hexdigest()
    save_file({"gain.weight": torch.full((1, 1), 0.1)}, made_up / "mine.safetensors")
    assert torch.equal(fusionlab.load("seeing", made_up / "mine.safetensors")(IR, VI), fuser(IR, VI))


def test_noise_comes_from_the_seed(made_up):
    first, again, other = (fusionlab.load("noisy", seed=seed) for seed in (1, 1, 2))
    images = first(IR, VI)
    assert images.std() > 0
    assert torch.equal(images, first(IR, VI)) and torch.equal(images, again(IR, VI))
    assert not torch.equal(images, other(IR, VI))
    assert torch.equal(fuse(first, IR, VI), fuse(again, IR, VI))


def test_images_and_weights_on_two_devices_are_refused():
    fuser = fusionlab.load("mmdrfuse")
    away = Fuser("mmdrfuse", "ours", fuser.sha256, Student().to("meta"))
    with pytest.raises(UserError, match=r"images are on cpu and mmdrfuse on meta.*device='cpu'"):
        away(IR, VI)


def test_naming_the_methods_loads_no_torch():
    code = "import sys, fusionlab.methods; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

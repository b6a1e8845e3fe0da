"""Feature networks against golden values measured independently, and what happens without their files."""

import importlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fusionlab.errors import UserError
from fusionlab.nets import features
from fusionlab.nets.features import Lpips, SqueezeNet, read_backbone, read_heads, vgg


def waves() -> torch.Tensor:
    """A[c, y, x] = .5 + .5 sin(2 pi ((c + 1) x + (3 - c) y) / 32), 64x64."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    phases = torch.stack([(c + 1) * x + (3 - c) * y for c in range(3)])
    return (0.5 + 0.5 * (2 * math.pi * phases / 32).sin())[None]


def changed(a: torch.Tensor) -> dict[float, torch.Tensor]:
    """Golden LPIPS distance from a -> image."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    blur = F.avg_pool2d(F.pad(a, (1, 1, 1, 1), mode="reflect"), 3, 1)
    noisy = (a + 0.1 * (2 * math.pi * (7 * x + 11 * y) / 64).sin()).clamp(0, 1)
    return {0.0: a, 0.00173: blur, 0.02517: noisy, 0.24849: 1 - a, 0.37312: a.mean(1, keepdim=True)}


def test_lpips_golden_values_gradient_and_symmetry(shared):
    lpips, a = Lpips(), waves()
    for golden, other in changed(a).items():
        other = other.expand_as(a)
        assert lpips(a, other).item() == pytest.approx(golden, abs=1.5e-5), golden
        assert lpips(other, a).item() == pytest.approx(lpips(a, other).item(), abs=1e-6)
    both = lpips(torch.cat([a, a]), torch.cat([a, 1 - a]))
    assert both.shape == (2,) and both[0] == 0
    moved = (1 - a).requires_grad_()
    lpips(a, moved).sum().backward()
    assert moved.grad.abs().sum() > 0 and not any(p.requires_grad for p in lpips.parameters())


def test_the_lpips_package_gives_the_same_number(shared):
    """With the same backbone. The package imports torchvision, which fails beside some builds of torch."""
    try:
        package = importlib.import_module("lpips")
    except Exception as fault:  # whatever torchvision raises
        pytest.skip(f"lpips does not import here ({type(fault).__name__}: {fault})")
    model = package.LPIPS(net="squeeze", pnet_rand=True, verbose=False)  # so that nothing is fetched
    backbone = read_backbone("squeezenet")
    model.net.load_state_dict(
        {key: backbone["features." + key.split(".", 1)[1]] for key in model.net.state_dict()}
    )
    a = waves()
    assert model(a, 1 - a, normalize=True).item() == pytest.approx(Lpips()(a, 1 - a).item(), abs=1e-5)


def test_squeezenet_sees_what_is_in_known_photographs(shared):
    """The classifier on top is rebuilt here; the three most likely classes are those of the ImageNet list."""
    data = pytest.importorskip("skimage.data")
    weights = read_backbone("squeezenet")
    network = SqueezeNet()
    network.load_state_dict({k: v for k, v in weights.items() if k.startswith("features")})
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for photo, label, chance in [(data.chelsea(), 285, 0.686), (data.coffee(), 967, 0.840)]:
        image = Image.fromarray(photo)
        ratio = 256 / min(image.size)
        image = image.resize([round(side * ratio) for side in image.size], Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224))) / 255
        x = ((torch.from_numpy(pixels).float() - mean) / std).permute(2, 0, 1)[None]
        scores = F.relu(
            F.conv2d(network(x)[-1], weights["classifier.1.weight"], weights["classifier.1.bias"])
        ).mean((2, 3))
        found = scores.softmax(1)[0].max(0)
        assert (found.indices.item(), round(found.values.item(), 2)) == (label, round(chance, 2))


def test_heads_of_the_installed_package():
    pytest.importorskip("importlib.metadata").version("lpips")
    sums = [head.sum().item() for head in read_heads()]
    assert sums == pytest.approx([5.6901, 1.1853, 16.3266, 71.0126, 37.3707, 24.2629, 17.5906], abs=1e-4)


def test_vgg_maps_have_the_measured_means(shared):
    data = pytest.importorskip("skimage.data")
    photo = Image.fromarray(data.chelsea()).resize((256, 256), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.asarray(photo) / 255).float().permute(2, 0, 1)[None]
    true, small = vgg("vgg19_normalised"), vgg("vgg19_small16x")
    maps = true(image)
    assert list(maps) == ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"]
    means = [value.mean().item() for value in maps.values()]
    assert means == pytest.approx([0.6837, 0.6872, 0.6688, 0.6632, 0.6747], abs=2e-4)
    grey = [value.mean().item() for value in true(torch.full((1, 1, 64, 64), 0.5)).values()]
    assert grey == pytest.approx([0.2432, 0.1414, 0.1405, 0.0656, 0.1014], abs=1e-4)
    imitated = small(image)
    assert [m.shape[1] for m in imitated.values()] == [64, 128, 256, 512, 512]
    for name, wanted in {"relu1_1": 0.976, "relu2_1": 0.903, "relu3_1": 0.745}.items():
        pair = torch.stack([maps[name].flatten(), imitated[name].flatten()])
        assert torch.corrcoef(pair)[0, 1].item() == pytest.approx(wanted, abs=5e-3)


def test_a_random_vgg_is_repeatable_and_labelled():
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    first, again, other = vgg("random"), vgg("random"), vgg("random", seed=1)
    assert first.label == "random VGG, seed 0"
    assert torch.equal(first(image)["relu3_1"], again(image)["relu3_1"])
    assert not torch.equal(first(image)["relu3_1"], other(image)["relu3_1"])


def test_missing_and_altered_files_are_named_and_nothing_takes_their_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="squeezenet1_1_fp16.*FUSIONLAB_WEIGHTS.*by name"):
        Lpips()
    with pytest.raises(UserError, match="deep-transfer"):
        vgg("vgg19_normalised")
    (tmp_path / features.BACKBONES["vgg19_small16x"].file).write_bytes(b"something else")
    with pytest.raises(UserError, match="SHA-256"):
        vgg("vgg19_small16x")
    with pytest.raises(UserError, match="no VGG 'vgg16'"):
        vgg("vgg16")
    monkeypatch.setattr(features.metadata, "files", lambda name: [])
    with pytest.raises(UserError, match=r"0\.1\.4"):
        read_heads()

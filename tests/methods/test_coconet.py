"""CoCoNet: its size by parts, attention by hand, four ways of testing, and both stages on small scenes."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fusionlab
from fusionlab.data.masks import hot_mask, salient_patches
from fusionlab.errors import UserError
from fusionlab.losses.adaptive import gamma_weights, sigma_weights
from fusionlab.losses.contrastive import coupled_contrast
from fusionlab.methods import METHODS, Found, Method, Shipped
from fusionlab.methods.coconet import (
    MODEL,
    RECIPES,
    TESTINGS,
    ChannelAttention,
    CoCoNet,
    adaptive_terms,
    adaptive_weights,
    contrast_taps,
    fine_tune,
    save,
    train,
    without_vgg,
)
from fusionlab.nets.features import TO_RELU3_4, Vgg, vgg
from fusionlab.scenes import scene


def count(module: nn.Module, frozen: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad != frozen)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def small(seed: int = 0, **settings) -> CoCoNet:
    """Four channels wide, without anybody's weights."""
    torch.manual_seed(seed)
    network = CoCoNet(**{"width": 4, "features": "random"} | settings).eval()
    for name, value in network.named_buffers():  # as if it had been trained: statistics, and a moved gain
        if name.endswith("running_mean"):
            value.copy_(0.1 * torch.randn(value.shape))
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape))
    for name, weight in network.named_parameters():
        if name.endswith("gain"):
            nn.init.constant_(weight, 0.3)
    return network


def test_the_released_size_by_parts():
    with torch.device("meta"):  # no memory, and no file of weights
        network, printed = CoCoNet(features="vgg19"), CoCoNet(features="vgg19", variant="paper")
        bare = CoCoNet(features="none", attention=False)
    assert count(network) == 6_845_189 and count(network, frozen=True) == 2_324_416
    assert count(network.unused) == 27_745 + 27_680
    assert count(network) + count(network, frozen=True) - count(network.unused) == 9_114_180
    assert [count(mam.attention) for mam in network.mam] == [110_785, 442_753, 1_770_241]
    assert [count(mam.fuse) for mam in network.mam] == [110_656, 442_496, 1_769_728]
    assert count(network.encoder[3][1]) == 590_080  # no normalisation
    # As printed there is no gain, and nothing that is never used.
    assert count(printed) == 6_845_189 - 55_425 - 3
    assert not count(bare.mam) and count(bare.encoder) == count(network.encoder)  # Table 2, first row
    with torch.device("meta"):  # Table 3: a level without VGG keeps the attention of the U-Net's maps alone
        low = CoCoNet(features="vgg19", levels=["low"])
    assert [count(mam.fuse) for mam in low.mam] == [110_656, 128 * 128 * 9 + 128, 256 * 256 * 9 + 256]


def test_attention_as_printed_and_as_released_by_hand():
    x = drawn(2, 3, 4, 5)
    for variant in ("paper", "released"):
        torch.manual_seed(1)
        layer = ChannelAttention(3, variant)
        if layer.gain is not None:
            nn.init.constant_(layer.gain, 0.4)
        p, q, h = (part(x).flatten(2) for part in (layer.p, layer.q, layer.h))
        energy = torch.einsum("bin,bjn->bij", p, q)
        by_hand = h.clone()
        for b in range(2):
            for c in range(3):
                if variant == "paper":  # H^T M: channel c of the output by column c of M
                    shares, gain = energy[b, :, c].softmax(0), 1
                else:
                    shares, gain = (-energy[b, c]).softmax(0), 0.4
                by_hand[b, c] += gain * sum(share * h[b, j] for j, share in enumerate(shares))
        torch.testing.assert_close(layer(x).flatten(2), by_hand, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.mixture(x).sum(-1), torch.ones(2, 3))


def test_released_attention_starts_one_hot_and_teaches_its_two_maps_nothing():
    torch.manual_seed(0)
    layer, x = ChannelAttention(32, "released"), torch.randn(1, 32, 64, 64)
    assert layer.mixture(x).amax(-1).mean() > 0.95  # energies are sums over 4,096 pixels
    layer(x).square().sum().backward()
    assert not layer.p.weight.grad.any() and not layer.q.weight.grad.any()
    assert layer.gain.grad.abs() > 0 and layer.h.weight.grad.any()
    scaled = (layer.p(x).flatten(2) @ layer.q(x).flatten(2).mT / 64**2).softmax(-1)
    assert scaled.amax(-1).mean() < 0.2  # the control: means in place of sums
    printed = ChannelAttention(4, "paper")
    printed(torch.randn(1, 4, 8, 8)).square().sum().backward()
    assert printed.p.weight.grad.any()


@pytest.mark.parametrize("testing", TESTINGS)
def test_the_four_ways_of_testing(testing):
    """Against the network in training mode, one image at a time, or with its statistics written out."""
    network = small(testing=testing)
    ir, vi = drawn(2, 3, 1, 32, 48)
    raw, own = TESTINGS[testing]
    assert network.settings["testing"] == testing and (raw, own) == {
        "normalised": (0, 0), "own statistics": (0, 1), "released": (1, 1), "raw": (1, 0),
    }[testing]  # fmt: skip
    with torch.no_grad():
        fused = network(ir, vi)
        assert fused.min() >= 0 and fused.max() <= 1
        plain = copy.deepcopy(network).train(own)
        for i in range(3):
            a, b = (255 * x[i : i + 1] if raw else 2 * x[i : i + 1] - 1 for x in (ir, vi))
            known = (plain.out(plain.decode(plain.encode(a, b))).tanh() + 1) / 2
            torch.testing.assert_close(fused[i : i + 1], known, rtol=0, atol=2e-4)
    assert network.train().training and torch.equal(
        network(ir, vi), copy.deepcopy(network).test_as("normalised")(ir, vi)
    )  # training knows one way alone
    with pytest.raises(UserError, match="there is no testing 'eval'; use normalised, own statistics"):
        network.test_as("eval")


def test_any_size_is_filled_up_by_reflection_on_both_sides():
    network = small()
    ir, vi = drawn(2, 1, 1, 39, 50)
    with torch.no_grad():
        fused = network(ir, vi)
        filled = [F.pad(image, (7, 7, 4, 5), mode="reflect") for image in (ir, vi)]
        assert filled[0].shape[-2:] == (48, 64)
        torch.testing.assert_close(fused, network(*filled)[..., 4:43, 7:57])
        assert network(*drawn(2, 1, 1, 17, 16)).shape == (1, 1, 17, 16)
        # The visible image is channel 0, as the released code is called.
        assert torch.equal(network.encode(ir[..., :32, :48], vi[..., :32, :48])[0],
                           network.encoder[0](torch.cat([vi, ir], 1)[..., :32, :48]))  # fmt: skip


def test_the_branches_are_vggs_last_map_of_each_group_with_one_more_halving():
    network, image = small(), drawn(1, 1, 32, 48)
    x = vgg("random").conv0(image.expand(-1, 3, -1, -1))

    def after(name, x):
        return F.relu(network.vgg.convs[name](F.pad(x, (1, 1, 1, 1), mode="reflect")))

    low = after("conv1_2", F.max_pool2d(after("conv1_1", x), 2))
    middle = after("conv2_2", after("conv2_1", F.max_pool2d(low, 2)))
    high = after("conv3_1", F.max_pool2d(middle, 2))
    for ours, known in zip(network.branch(2 * image - 1), (low, middle, high), strict=True):
        torch.testing.assert_close(ours, known)
    assert [x.shape[1:] for x in (low, middle, high)] == [(64, 16, 24), (128, 8, 12), (256, 4, 6)]
    ordinary = vgg("random")(image)  # elsewhere VGG halves as it always did
    assert ordinary["relu1_2"].shape[-1] == 48 and ordinary["relu3_1"].shape[-1] == 12


def test_without_its_vgg_there_is_an_error_with_the_remedy_or_a_variant_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("FUSIONLAB_CACHE", str(tmp_path / "cache"))
    for name in ("vgg19", "vgg19_normalised"):
        with pytest.raises(UserError, match=f"{name}.* is not here .*put it into a folder that FUSIONLAB_W"):
            CoCoNet(features=name)
    bare = small(features="none")
    assert bare.vgg is None and bare(*drawn(2, 1, 1, 16, 16)).shape == (1, 1, 16, 16)
    recipe = without_vgg(MODEL["laptop"])
    assert (recipe.seen, recipe.settings) == ("pixels", {"width": 16, "features": "none"})
    for wrong in ({"features": "vgg16"}, {"width": 0}, {"levels": ["top"]}, {"variant": "printed"}):
        with pytest.raises(UserError, match="give"):
            CoCoNet(**{"width": 4, "features": "none"} | wrong)


def test_torchvisions_vgg_becomes_one_of_grey_images(monkeypatch, tmp_path):
    """A file of its layout and name, with other numbers: the hash is told to be this one's."""
    import hashlib

    from fusionlab.nets import features

    widths = {"conv1_1": 8, "conv1_2": 8, "conv2_1": 4}
    colour = [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)]
    state = {"classifier.0.weight": torch.zeros(2, 2)}
    for number, convolution in zip((0, 2, 5), colour, strict=True):
        state |= {f"features.{number}.{key}": x.detach() for key, x in convolution.named_parameters()}
    file = tmp_path / features.BACKBONES["vgg19"].file
    torch.save(state, file)
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="SHA-256 differs"):
        vgg("vgg19", widths=widths)
    told = replace(features.BACKBONES["vgg19"], sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:8])
    monkeypatch.setitem(features.BACKBONES, "vgg19", told)
    image = drawn(1, 1, 12, 10)
    maps = vgg("vgg19", widths=widths)(image)
    weighed = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None] * (2 * image - 1)
    x = F.relu(colour[1](F.relu(colour[0](weighed))))
    torch.testing.assert_close(maps["relu1_2"], x)
    torch.testing.assert_close(maps["relu2_1"], F.relu(colour[2](F.max_pool2d(x, 2))))


def plain_ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """11x11 Gaussian windows around every pixel, zeros outside, C1 = 1e-4, C2 = 9e-4: (B,)."""
    taps = torch.exp(-(torch.arange(-5.0, 6) ** 2) / (2 * 1.5**2))
    window = (taps[:, None] * taps / taps.sum() ** 2)[None, None]

    def blur(image):
        return F.conv2d(image, window, padding=5)

    mx, my = blur(x), blur(y)
    vx, vy, c = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    value = (2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))
    return value.mean(dim=(1, 2, 3))


def test_the_adaptive_terms_and_their_gradient_by_hand():
    ir, vi, fused = drawn(3, 2, 1, 20, 24)
    sigma, gamma = sigma_weights(ir, vi, "paper"), gamma_weights(ir, vi)
    slopes, values = [], []
    for hand in (False, True):
        x = fused.clone().requires_grad_()
        if hand:
            structure = sigma[0] * (1 - plain_ssim(x, ir)) + sigma[1] * (1 - plain_ssim(x, vi))
            errors = [4 * (x - source).square().mean(dim=(1, 2, 3)) for source in (ir, vi)]
            terms = {
                "structure": structure.mean(),
                "intensity": (gamma[0] * errors[0] + gamma[1] * errors[1]).mean(),
            }
        else:
            terms = adaptive_terms(x, ir, vi, sigma, gamma)
        (slope,) = torch.autograd.grad(sum(terms.values()), x)
        slopes.append(slope)
        values.append(torch.stack([terms["structure"], terms["intensity"]]).detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-6)
    # As released sigma is the batch's, gamma each image's, with the mistake in its histogram.
    sigma, gamma = adaptive_weights(ir, vi, RECIPES["released"])
    assert sigma[0][0] == sigma[0][1] and torch.equal(gamma[0], gamma_weights(ir, vi, accumulate=True)[0])
    sigma, gamma = adaptive_weights(ir, vi, RECIPES["paper"])
    assert torch.equal(sigma[0], sigma_weights(ir, vi, "paper")[0])


def test_what_the_contrast_sees(monkeypatch):
    taps, weights = contrast_taps("random")
    assert [x.shape[1] for x in taps(drawn(1, 1, 32, 32))] == [64, 128, 256] and weights == (1 / 8, 1 / 4, 1)
    taps, weights = contrast_taps("pixels")
    image = drawn(1, 1, 8, 8)
    assert taps(image)[0] is image and weights == (1.0,)
    with torch.device("meta"):
        deep = vgg("vgg19")
    assert isinstance(deep, Vgg) and list(deep.convs)[-1] == "conv5_1" and len(deep.convs) == 13
    assert (
        count(deep, frozen=True) == 2_324_416 + 512 * 9 * (256 + 4 * 512) + 5 * 512 and len(TO_RELU3_4) == 8
    )


def images() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    made = [scene(seed, height=96, width=128) for seed in range(3)]
    return [(pair.ir, pair.vi, hot_mask(pair.ir)) for pair in made]


SMALL = replace(
    without_vgg(MODEL["smoke"]), steps=2, fine_steps=2, settings={"width": 4, "features": "random"}
)


def test_both_stages_repeat_resume_and_leave_vgg_alone(tmp_path):
    scenes = images()

    def weights(folder=None, recipe=SMALL):
        network = train(recipe, scenes, seed=3, checkpoints=folder)
        assert not network.training
        return network.state_dict()

    plain, first, again = weights(), weights(tmp_path), weights(tmp_path)
    for key, value in plain.items():
        assert torch.equal(value, first[key]) and torch.equal(value, again[key]), key
    random = vgg("random").state_dict()
    assert all(torch.equal(plain[f"vgg.{key}"], value) for key, value in random.items())
    with pytest.raises(UserError, match="there, .* here"):
        weights(tmp_path, replace(SMALL, anchors=3))
    longer = weights(recipe=replace(SMALL, fine_steps=0))
    assert any(not torch.equal(longer[key], plain[key]) for key in plain)  # the second stage moves it


def test_adam_goes_on_from_one_stage_into_the_other(monkeypatch):
    made = []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **k: made.append(adam(*a, **k)) or made[-1])
    train(replace(SMALL, negatives=3), images())
    (optimiser,) = made
    assert {int(state["step"]) for state in optimiser.state.values()} == {4}
    assert sum(p.numel() for group in optimiser.param_groups for p in group["params"]) == count(small())


def test_each_half_of_the_contrast_lowers_its_own_term_below_what_the_other_half_leaves():
    """From one start on the same crops, each half alone; judged in training mode on 64 other crops."""
    scenes = images()
    recipe = replace(SMALL, steps=0, fine_steps=40, anchors=4, rate=3e-3)
    recipe = replace(recipe, settings={"width": 4, "features": "none"})
    patches = salient_patches(scenes, 32, 0.02, 0.98).draw(64, torch.Generator().manual_seed(9))

    def terms(name):
        network = train(replace(recipe, weights={name: 1.0}), scenes, seed=1).train()
        with torch.no_grad():
            ir, vi, mask = patches
            return {k: x.item() for k, x in coupled_contrast(network(ir, vi), ir, vi, mask).items()}

    target, detail = terms("target"), terms("detail")
    assert target["target"] < 0.8 * detail["target"], (target, detail)
    assert detail["detail"] < 0.8 * target["detail"], (target, detail)


def test_masks_without_the_share_asked_for_are_refused():
    network = small()
    optimiser = torch.optim.Adam(network.parameters())
    empty = [(ir, vi, torch.zeros_like(mask)) for ir, vi, mask in images()]
    with pytest.raises(UserError, match="no square of 32 pixels has a mask on 2% to 98%"):
        fine_tune(network, empty, SMALL, optimiser, seed=0)


def test_a_saved_model_loads_with_the_vgg_that_is_found(tmp_path, monkeypatch, shared):
    """As the list of methods will name it once weights of ours are shipped."""
    files = (Shipped("coconet"), Found("vgg19_normalised", "vgg"))
    monkeypatch.setitem(METHODS, "coconet", Method("coconet.CoCoNet", {"ours": files}))
    network = small(features="vgg19_normalised", variant="paper")
    file = save(network, tmp_path / "small.safetensors")
    assert file.stat().st_size < 2 * count(network) + 20_000  # VGG is not in it
    fuser = fusionlab.load("coconet", file)
    assert fuser.network.settings == network.settings
    ir, vi = drawn(2, 1, 1, 33, 40)
    torch.testing.assert_close(fuser(ir, vi), network(ir, vi).detach(), rtol=0, atol=5e-3)
    assert fuser.network.test_as("released")(ir, vi).isfinite().all()

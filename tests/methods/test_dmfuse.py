"""DMFuse: sizes by parts, features, what each choice changes, and trainings from their seed alone."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors import safe_open
from torch import nn

from fusionlab.attention import CrissCross
from fusionlab.crops import Stage, draw_crops
from fusionlab.diffusion import ddpm, edm
from fusionlab.errors import UserError
from fusionlab.losses.gradient import strongest_edge_loss
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.structure import structure_loss
from fusionlab.methods.dmfuse import (
    MODEL,
    OURS,
    RECIPES,
    DMFuse,
    Head,
    fusion_terms,
    noise_of,
    save,
    train,
    train_ddpm,
    train_fusion,
)
from fusionlab.nets.unet import Attention
from fusionlab.scenes import scene


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(width: int, **settings) -> DMFuse:
    with torch.device("meta"):
        return DMFuse(width, **settings)


@pytest.mark.parametrize(
    ("width", "unet", "head", "without_norms"),
    [
        (128, 391_048_067, 1_775_534, 392.728),
        (64, 97_805_763, 946_094, 98.704),
        (32, 24_473_315, 531_374, 24.981),
        (16, 6_129_267, 324_014, 6.441),
        (8, 1_537_787, 220_334, None),
    ],
)
def test_parameters_at_every_width(width, unet, head, without_norms):
    network = on_meta(width)
    assert (count(network.unet), count(network.head)) == (unet, head)
    norms = sum(count(layer) for layer in network.modules() if isinstance(layer, nn.GroupNorm))
    if without_norms:
        assert round((unet + head - norms) / 1e6, 3) == without_norms


def test_parameters_by_parts():
    network = on_meta(32)
    parts = {
        kind: sum(count(layer) for layer in network.unet.modules() if isinstance(layer, kind))
        for kind in (nn.Conv2d, nn.Linear, nn.GroupNorm, Attention)
    }
    assert parts == {nn.Conv2d: 24_302_755, nn.Linear: 146_688, nn.GroupNorm: 23_872, Attention: 1_577_472}
    assert sum(isinstance(layer, Attention) for layer in network.unet.modules()) == 6
    head = network.head
    assert [count(p) for p in (head.adapters, head.alone, head.joined, head.out, head.caim)] == [
        12_960 * 32 + 4_548, 36_928, 73_792, 65, 1_321,
    ]  # fmt: skip
    assert count(on_meta(32, channels=1).unet) == 24_472_161
    assert count(on_meta(16, channels=1).unet) == 6_128_689


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_features_by_level_of_both_halves(half):
    with torch.device("meta"):
        network = DMFuse(32, half=half)
        maps = network.maps(torch.rand(2, 1, 64, 96), torch.Generator())
    assert [tuple(m.shape) for m in maps] == [
        (2, 96, 64, 96), (2, 192, 32, 48), (2, 384, 16, 24), (2, 768, 8, 12), (2, 768, 4, 6),
    ]  # fmt: skip


def drawn(seed: int = 0, **settings) -> DMFuse:
    """A small network with weights that are all drawn, none 0."""
    torch.manual_seed(seed)
    network = DMFuse(**({"width": 4, "channels": 1} | settings)).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
    return network.requires_grad_(False)


def two(height: int = 40, width: int = 55, n: int = 2) -> torch.Tensor:
    return torch.rand(2, n, 1, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("noise", ["paper", "released", "edm"])
def test_features_are_the_maps_of_the_noised_image(noise):
    """Written out on DDPM's scale: x_t, what the network is told, and the maps by their numbers."""
    network, image = drawn(noise=noise, timesteps=(5, 100), blocks=(0, 4, 8, 9, 13)), two(32, 48)[0]
    found = network.maps(image, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    schedule = ddpm.cosine_schedule() if noise == "released" else ddpm.linear_schedule()
    for place, t in enumerate((5, 100)):
        z = torch.randn(1, 1, 32, 48, generator=generator)
        xt = ddpm.diffused(2 * image - 1, schedule[t], z)
        told = {"paper": torch.tensor(float(t)), "released": schedule[t].sqrt().float()}.get(noise)
        if noise == "edm":
            sigma = ddpm.sigma_of(schedule[t]).float()
            xt, told = xt / schedule[t].sqrt().float() / (sigma**2 + 0.25).sqrt(), sigma.log() / 4
        decoded = network.unet.decode(network.unet.encode(xt, told), told)
        for level, block in enumerate((0, 4, 8, 9, 13)):
            wanted = decoded[14 - block]
            here = found[level].chunk(2, dim=1)[place]
            torch.testing.assert_close(here, wanted, atol=2e-4, rtol=1e-3)
    half = drawn(noise=noise, timesteps=(5,), half="encoder").maps(image, torch.Generator().manual_seed(7))
    assert [m.shape[1] for m in half] == [4, 8, 16, 32, 32]


def test_the_released_network_is_told_almost_the_same_three_times():
    network, schedule = on_meta(32, noise="released"), ddpm.cosine_schedule()
    unet = network.unet
    unet.time_embed = nn.Identity()
    waves = [unet.label(schedule[t].sqrt().float(), 1)[0] for t in (5, 50, 100)]
    assert all(abs(w.norm().item() - 4) < 1e-5 for w in waves)
    assert max((a - b).norm().item() for a in waves for b in waves) < 0.005
    told_t = [unet.label(torch.tensor(float(t)), 1)[0] for t in (5, 50, 100)]
    assert min((a - b).norm().item() for a, b in zip(told_t, told_t[1:])) > 1


def test_the_denoiser_serves_solvers():
    network = drawn(noise="edm")
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    levels = network.alpha_bars[ddpm.timesteps(1000, 5)]
    made = ddpm.ddim(network.denoiser, x, levels)[-1]
    euler = edm.euler(network.denoiser, x / levels[0].sqrt(), ddpm.sigma_of(levels))[-1]
    torch.testing.assert_close(made, euler.float(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("fill", ["reflect", "white"])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (48, 33)])
def test_any_size_the_same_twice_and_apart_from_its_batch(fill, size):
    network = drawn(fill=fill)
    ir, vi = two(*size)
    fused = network(ir, vi)
    assert fused.shape == ir.shape and fused.min() >= 0 and fused.max() <= 1
    assert torch.equal(network(ir, vi), fused)
    torch.testing.assert_close(network(ir[1:], vi[1:]), fused[1:], atol=1e-5, rtol=0)
    other = network(ir, vi, generator=torch.Generator().manual_seed(1))
    assert (other - fused).abs().max() > 1e-4


def test_every_setting_changes_the_image():
    ir, vi = two()
    settings = {
        "noise": ("paper", "released", "edm"),
        "half": ("encoder", "decoder"),
        "timesteps": ((5, 50, 100), (5, 50, 200)),
        "blocks": ((2, 5, 8, 11, 14), (2, 5, 8, 11, 13)),
        "fusion": ("released", "paper", "concatenation"),
        "fill": ("reflect", "white"),
        "answer": ("paper", "released"),
    }
    for name, values in settings.items():
        made = []
        for value in values:
            network = drawn(**{name: value})
            if network.head.caim is not None:
                network.head.caim.gamma.fill_(1.0)
            made.append(network(ir, vi))
        for i, a in enumerate(made):
            assert all((a - b).abs().max() > 1e-4 for b in made[:i]), name


def maps(widths, size=32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [
        torch.randn(1, w, size >> level, size >> level, generator=generator) for level, w in enumerate(widths)
    ]


WIDTHS = (6, 12, 24, 48, 48)


def test_concatenation_is_the_attention_with_gamma_0_and_addition_is_half_as_wide():
    torch.manual_seed(5)
    heads = {fusion: Head(WIDTHS, fusion) for fusion in ("released", "concatenation", "addition")}
    with_caim, without = heads["released"], heads["concatenation"]
    without.load_state_dict({k: v for k, v in with_caim.state_dict().items() if "caim" not in k})
    ir, vi = maps(WIDTHS), [m.flip(0, 2) for m in maps(WIDTHS)]
    assert torch.equal(with_caim(ir, vi), without(ir, vi))
    with_caim.caim.gamma.data.fill_(0.5)
    assert (with_caim(ir, vi) - without(ir, vi)).abs().max() > 1e-4
    assert isinstance(with_caim.caim, CrissCross) and without.caim is None
    adds = heads["addition"]
    torch.testing.assert_close(adds(ir, vi), adds(vi, ir))
    assert count(without) - count(adds) == (36_928 - 9_248) + (73_792 - 18_464) + (65 - 33)


def test_the_decoder_is_eq_1_with_one_pair_of_convolutions():
    torch.manual_seed(6)
    head = Head(WIDTHS, "concatenation")
    ir, vi = maps(WIDTHS), [m.flip(3) for m in maps(WIDTHS)]
    phi = [torch.cat([head.adapters[min(level, 3)](x[level]) for x in (ir, vi)], dim=1) for level in range(5)]

    def up(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def leaky(x):
        return torch.where(x > 0, x, 0.2 * x)

    x = phi[4]
    for level in (3, 2, 1, 0):
        x = leaky(head.joined(torch.cat([leaky(head.alone(up(x))), phi[level]], dim=1)))
    torch.testing.assert_close(head(ir, vi), head.out(x).tanh(), atol=1e-6, rtol=0)


def test_a_saved_model_says_its_settings(tmp_path):
    network = drawn(noise="edm", timesteps=(5, 50), fusion="addition")
    with safe_open(save(network, tmp_path / "small.safetensors"), "pt") as file:
        settings = json.loads(file.metadata()["settings"])
        state = {key: file.get_tensor(key).float() for key in list(file.keys())}
    again = DMFuse(**settings).eval()
    again.load_state_dict(state)
    ir, vi = two()
    torch.testing.assert_close(again(ir, vi).detach(), network(ir, vi), rtol=0, atol=5e-3)


def test_settings_of_no_network_are_refused():
    for wrong, message in (
        ({"width": 5}, "even width"),
        ({"channels": 2}, "1 or 3"),
        ({"noise": "other"}, "give paper or released or edm"),
        ({"dropout": 1.0}, "dropout"),
        ({"timesteps": (1001,)}, "timesteps"),
        ({"timesteps": 5}, "timesteps"),
        ({"blocks": (2, 5, 8, 11, 15)}, "blocks"),
        ({"blocks": (2, 5, 8, 8, 14)}, "9-11"),
    ):
        with pytest.raises(UserError, match=message):
            on_meta(4, **wrong) if "width" not in wrong else on_meta(wrong["width"])


# Losses and trainings.


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    made = [scene(number, height=48, width=64) for number in range(3)]
    return [(pair.ir, pair.vi) for pair in made]


def test_the_terms_are_the_papers_or_the_codes():
    ir, vi = two(32, 32)
    fused = (ir + 3 * vi) / 4
    for form, target, border in (("paper", "mean", "replicate"), ("released", "maximum", "zero")):
        terms = fusion_terms(fused, ir, vi, form)
        assert torch.equal(terms["structure"], structure_loss(fused, ir, vi, form))
        assert torch.equal(terms["intensity"], intensity_loss(fused, ir, vi, target))
        assert torch.equal(terms["edges"], strongest_edge_loss(fused, ir, vi, border))
    assert list(RECIPES["paper"].weights.values()) == [1, 4, 20]
    assert list(RECIPES["released"].weights.values()) == [10, 14, 16]


def test_the_named_recipes_are_the_papers_and_the_codes():
    paper, released = RECIPES["paper"], RECIPES["released"]
    for recipe, epochs, form in ((paper, 16, "paper"), (released, 4, "released")):
        assert recipe.second.steps == -(-18_813 * epochs // 4) and recipe.form == recipe.draw == form
        network = DMFuse(**recipe.settings | {"width": 4})
        assert network.channels == 3 and network.timesteps == (5, 50, 100)
        assert (len(network.alpha_bars) - 1, network.side) == ((1000, "encoder"), (2000, "decoder"))[
            form == "released"
        ]
        assert network.head.caim.crossed == form and network.answer == form
    assert DMFuse().unet.width == 32 and recipe.pretext == "ddpm"
    assert released.first.steps == 1_000_000 and released.first.rate == released.second.rate == 1e-5
    assert all(
        recipe.settings.items() >= (OURS | {"width": recipe.settings["width"]}).items()
        for recipe in MODEL.values()
    )


@pytest.mark.parametrize("noise", ["paper", "edm"])
def test_stage_1_is_the_steps_written_out_and_hands_back_the_average(noise):
    images = [image for pair in pairs() for image in pair]
    torch.manual_seed(4)
    start, network, student = (DMFuse(4, 1, noise) for _ in range(3))
    for other in (network, student):
        other.load_state_dict(start.state_dict())
    for model in (network, student):
        for layer in model.unet.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
    average = [p.detach().clone() for p in student.unet.parameters()]
    losses = train_ddpm(network, images, Stage(3, 2, 32, 1e-3, seed=5), ema=0.9)
    generator, optimiser = (
        torch.Generator().manual_seed(5),
        torch.optim.Adam(student.unet.parameters(), lr=1e-3),
    )
    schedule, coefficients, _ = noise_of(noise)
    for k in range(3):
        x = 2 * draw_crops([(i, i) for i in images], 2, 32, generator)[0] - 1
        levels = schedule[torch.randint(1, 1001, (2,), generator=generator)]
        loss = ddpm.network_loss(student.unet, coefficients, x, levels, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average = [0.9 * a + 0.1 * p.detach() for a, p in zip(average, student.unet.parameters())]
        assert losses[k] == pytest.approx(loss.item(), rel=1e-5)
    for ours, wanted in zip(network.unet.parameters(), average):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-4)


def test_stage_2_trains_the_head_alone_and_gamma_at_its_own_rate():
    torch.manual_seed(8)
    network = DMFuse(4, 1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    stage = Stage(2, 2, 32, 1e-3)
    losses = train_fusion(network, pairs(), stage, gamma=0.05)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert not any(key.startswith("unet") for key in moved) and len(losses) == 2
    # Adam's first step is its rate, its second hardly more; gamma starts at 0.
    assert 0.04 < network.head.caim.gamma.abs().item() < 0.11
    still = DMFuse(4, 1)
    still.load_state_dict(before)
    train_fusion(still, pairs(), stage)
    assert still.head.caim.gamma.abs().item() < 0.0021
    assert not still.unet.training


def test_the_cnn_learns_with_the_head_and_random_weights_do_not():
    smoke = dataclasses.replace(
        MODEL["smoke"],
        second=Stage(3, 2, 32, 1e-3),
        settings=OURS | {"width": 4, "half": "encoder", "timesteps": (0,)},
    )
    made = {
        pretext: train(dataclasses.replace(smoke, pretext=pretext), pairs(), 3)
        for pretext in ("none", "random", "cnn", "ddpm")
    }
    drawn_once = {
        k: torch.cat([p.detach().flatten() for p in m.unet.encoder.parameters()]) for k, m in made.items()
    }
    torch.manual_seed(3)
    start = torch.cat([p.detach().flatten() for p in DMFuse(**smoke.settings).unet.encoder.parameters()])
    assert torch.equal(drawn_once["none"], start)
    assert (
        not torch.equal(drawn_once["random"], start)
        and (start == 0).sum() > (drawn_once["random"] == 0).sum()
    )
    assert not torch.equal(drawn_once["cnn"], start) and not torch.equal(drawn_once["ddpm"], start)


def test_a_recipe_is_trained_from_its_seed_alone_and_resumes(tmp_path):
    recipe = dataclasses.replace(MODEL["smoke"], settings=OURS | {"width": 4})

    def trained(folder=None, **differs):
        torch.manual_seed(len(differs))  # whatever the caller's state is
        network = train(
            dataclasses.replace(recipe, **differs), pairs(), 3, checkpoints=folder, singles=[pairs()[0][1]]
        )
        return network, torch.cat([p.detach().flatten() for p in network.parameters()])

    network, plain = trained()
    assert torch.equal(trained(tmp_path)[1], plain) and torch.equal(trained(tmp_path)[1], plain)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "ddpm-edm-4-3.safetensors",
        "dmfuse-3.safetensors",
    ]
    for differs in (
        {"weights": {"edges": 1.0}},
        {"gamma": None},
        {"settings": recipe.settings | {"noise": "paper"}},
        {"draw": "released"},
    ):
        other, weights = trained(**differs)
        assert weights.shape != plain.shape or not torch.equal(weights, plain), differs
        same = all(map(torch.equal, network.unet.parameters(), other.unet.parameters()))
        assert same == (differs.keys() <= {"weights", "form", "gamma"}), differs


def test_the_head_learns_on_scenes():
    torch.manual_seed(9)
    network, stage = DMFuse(4, 1, "edm", timesteps=(5,)), Stage(40, 2, 32, 1e-3)
    losses = train_fusion(network, pairs(), stage)
    first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    assert last < 0.6 * first, (first, last)

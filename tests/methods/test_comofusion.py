"""CoMoFusion: sizes by parts, features, and what its losses do to a head that starts from scratch."""

import dataclasses

import pytest
import torch
from torch import nn

import fusionlab
from fusionlab.diffusion.edm import EPSILON, consistency_preconditioning
from fusionlab.errors import UserError
from fusionlab.methods.comofusion import (
    PRINTED,
    RELEASED,
    CoMoFusion,
    FusionLoss,
    FusionModule,
    ScSE,
    Stage,
    joint,
    save,
    train_autoencoder,
    train_consistency,
    train_fusion,
)
from fusionlab.scenes import scene


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_released_size_by_parts():
    head = FusionModule()
    sizes = [count(part) for part in (head.conv1, head.sca1, head.conv2, head.sca2, head.conv3, head.out)]
    assert sizes == [1_180_160, 311_745, 295_168, 78_049, 73_856, 577]
    assert count(head) == 1_939_555
    network = CoMoFusion()
    assert count(network.unet) == 10_338_946 and count(network.head) == 1_939_555


def test_scse_adds_both_branches_by_hand():
    torch.manual_seed(0)
    layer, x = ScSE(4), torch.rand(2, 4, 3, 5)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        torch.testing.assert_close(layer(x), x)  # both gates one half
        layer.channel[3].bias.fill_(30.0)
        layer.pixel[0].bias.fill_(30.0)
        torch.testing.assert_close(layer(x), 2 * x)


@pytest.mark.parametrize("features", ["encoder", "decoder"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_any_size_and_finite_maps_at_both_levels(features, variant):
    torch.manual_seed(1)
    network = CoMoFusion(8, features=features, variant=variant)
    ir, vi = torch.rand(2, 3, 1, 66, 65)
    maps = network.maps(ir, vi)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 68, 68), (16, 34, 34), (32, 17, 17)]
    assert all(m.isfinite().all() for m in maps)
    fused = network(ir, vi)
    assert fused.shape == ir.shape and fused.min() > 0 and fused.max() < 1


def test_the_finest_encoder_map_is_linear_in_the_pair_and_the_paper_reads_it_at_epsilon():
    torch.manual_seed(2)
    network = CoMoFusion(8)
    ir, vi = torch.rand(2, 1, 1, 16, 16)
    scale = 1 / (EPSILON**2 + 0.25) ** 0.5
    with torch.no_grad():
        by_hand = network.unet.encoder[0](scale * joint(ir, vi))
        torch.testing.assert_close(network.maps(ir, vi)[0], by_hand)
        network.variant = "released"
        torch.testing.assert_close(network.maps(ir, vi)[0], network.unet.encoder[0](2 * joint(ir, vi)))
    assert torch.equal(joint(ir, vi)[:, :1], 2 * vi - 1)


def test_a_saved_model_loads_at_its_own_size(tmp_path):
    torch.manual_seed(3)
    network = CoMoFusion(8, features="decoder")
    file = save(network, tmp_path / "small.safetensors")
    fuser = fusionlab.load("comofusion", file)
    assert fuser.network.settings == network.settings
    ir, vi = torch.rand(2, 1, 1, 20, 20)
    torch.testing.assert_close(fuser(ir, vi), network(ir, vi).detach(), rtol=0, atol=2e-3)
    with pytest.raises(UserError, match="nobody else released comofusion"):
        fusionlab.load("comofusion", "official")
    with pytest.raises(UserError, match="does not fit"):
        fusionlab.load("mmdrfuse", file)


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    made = [scene(seed, height=96, width=128) for seed in range(4)]
    return [(pair.ir, pair.vi) for pair in made]


def test_both_stages_repeat_resume_and_leave_the_other_network_alone(tmp_path):
    images, stage = pairs(), Stage(3, 2, 32, 1e-3, seed=5)

    def run(folder=None):
        torch.manual_seed(4)
        network = CoMoFusion(8)
        files = [folder / name if folder else None for name in ("one", "two")]
        train_consistency(network.unet, images, stage, checkpoint=files[0])
        unet = [p.clone() for p in network.unet.parameters()]
        train_fusion(network, images, stage, checkpoint=files[1])
        assert all(torch.equal(a, b) for a, b in zip(unet, network.unet.parameters(), strict=True))
        return network.state_dict()

    plain, first, again = run(), run(tmp_path), run(tmp_path)
    for key, value in plain.items():
        assert torch.equal(value, first[key]) and torch.equal(value, again[key]), key
    with pytest.raises(UserError, match="steps 3 there, 4 here"):
        train_consistency(
            CoMoFusion(8).unet, images, dataclasses.replace(stage, steps=4), checkpoint=tmp_path / "one"
        )


def test_the_growing_schedule_runs():
    torch.manual_seed(6)
    assert len(train_consistency(CoMoFusion(8).unet, pairs(), Stage(3, 2, 16), variant="released")) == 3


def test_the_autoencoder_learns_to_give_pairs_back():
    """Judged on whole images, by what no constant image of each channel's own mean reaches."""
    torch.manual_seed(6)
    unet = CoMoFusion(8).unet
    train_autoencoder(unet, pairs(), Stage(100, 4, 32, 3e-3))
    c = consistency_preconditioning(torch.tensor(EPSILON))
    x = torch.cat([joint(ir, vi) for ir, vi in pairs()])
    with torch.no_grad():
        error = (unet(c.in_ * x, c.noise) - x).square().mean()
    assert error < 0.25 * (x - x.mean((2, 3), keepdim=True)).square().mean()


def corner(images: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The 64x64 corners of the pairs, as two batches."""
    return tuple(torch.cat([image[..., :64, :64] for image in side]) for side in zip(*images, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_released_loss_goes_white_on_small_crops_and_the_default_does_not(seed):
    images, stage = pairs(), Stage(120, 4, 64, 3e-3, seed)
    ir, vi = corner(images)
    fused = {}
    for name, objective in (("released", RELEASED), ("default", FusionLoss())):
        torch.manual_seed(seed)
        network = CoMoFusion(8)
        train_fusion(network, images, stage, objective)
        with torch.no_grad():
            fused[name] = network(ir, vi)
    assert fused["released"].mean() > 0.99 and fused["released"].std() < 0.01
    assert 0.2 < fused["default"].mean() < 0.8
    both = torch.stack([fused["default"].flatten(), (ir + vi).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_pixels_optimised_directly_reach_the_sum_or_stay_inverted():
    """Adam on the pixels: both losses lead to ir + vi; L_grad alone is content with a negative."""
    ir, vi = corner(pairs()[:1])

    def optimise(start, objective):
        image = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([image], lr=0.01)
        for _ in range(200):
            optimiser.zero_grad()
            objective(image, ir, vi).backward()
            optimiser.step()
        return torch.corrcoef(torch.stack([image.detach().flatten(), (ir + vi).flatten()]))[0, 1].item()

    average = (ir + vi) / 2
    assert optimise(average, FusionLoss()) > 0.9
    assert optimise(1 - average, FusionLoss(selection=0.0)) < -0.7


def test_the_named_presets_are_the_papers_and_the_codes():
    assert (PRINTED.guard, PRINTED.form, PRINTED.border) == ("ratio", "paper", "zero")
    assert (RELEASED.guard, RELEASED.form, RELEASED.border) == ("ratio", "released", "zero")

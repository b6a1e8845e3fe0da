"""CoMoFusion: sizes by parts, features, and what its losses do to a head that starts from scratch."""

import copy
import dataclasses
import signal

import pytest
import torch
from torch import nn

import fusionlab
from fusionlab.crops import draw_crops
from fusionlab.diffusion.consistency import consistency_loss, decay_at, pseudo_huber, tuning_loss
from fusionlab.diffusion.edm import (
    EPSILON,
    consistency_preconditioning,
    noise_levels,
    preconditioned,
)
from fusionlab.errors import UserError
from fusionlab.losses import weighted_sum
from fusionlab.losses.gradient import strongest_edge_loss
from fusionlab.losses.selection import selection_loss
from fusionlab.methods.comofusion import (
    ABLATION,
    AS_RELEASED,
    LAMBDAS,
    MODEL,
    PRINTED,
    RECIPES,
    SOUND,
    CoMoFusion,
    FusionModule,
    Recipe,
    Stage,
    distance_of,
    fusion_terms,
    joint,
    pretrain,
    save,
    train,
    train_autoencoder,
    train_consistency,
    train_fusion,
    train_tuned,
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


def test_stage_1_hands_back_the_running_average_of_the_steps_written_out():
    images, stage = pairs(), Stage(3, 2, 16, 1e-3, seed=5)
    torch.manual_seed(4)
    start = CoMoFusion(8).unet
    unet, student, average = (copy.deepcopy(start) for _ in range(3))
    losses = train_consistency(unet, images, stage)
    generator = torch.Generator().manual_seed(5)
    optimiser = torch.optim.RAdam(student.parameters(), lr=1e-3)
    for k in range(3):
        x = joint(*draw_crops(images, 2, 16, generator))
        functions = preconditioned(student), preconditioned(average)
        loss = consistency_loss(*functions, x, noise_levels(40), generator, pseudo_huber)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for slow, fast in zip(average.parameters(), student.parameters(), strict=True):
            slow.data.lerp_(fast.data, 1 - decay_at(40))
        assert losses[k] == pytest.approx(loss.item(), rel=1e-6)
    weights = [torch.cat([p.flatten() for p in u.parameters()]) for u in (start, unet, average, student)]
    first, ours, kept, online = weights
    torch.testing.assert_close(ours, kept)
    assert (online - first).abs().max() > 5 * (ours - first).abs().max() > 0


def test_tuning_takes_off_more_noise_than_no_training_and_resumes(tmp_path, monkeypatch):
    """Judged by its running average, on whole images, at two levels of noise."""
    images, stage = pairs(), Stage(60, 4, 32, 3e-3, seed=5)

    def run(checkpoint=None):
        torch.manual_seed(4)
        unet = CoMoFusion(8).unet
        train_tuned(unet, images, stage, checkpoint)
        return unet

    def pressed(*arguments):
        if arguments[2] == 1:  # at the first step of stage 1
            signal.raise_signal(signal.SIGINT)
        return tuning_loss(*arguments)

    plain = run()
    with monkeypatch.context() as patch:
        patch.setattr("fusionlab.methods.comofusion.tuning_loss", pressed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "one")
    resumed = run(tmp_path / "one")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), resumed.parameters(), strict=True))
    x = torch.cat([joint(ir, vi) for ir, vi in images])
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def error(unet, t):
        with torch.no_grad():
            return (preconditioned(unet)(x + t * z, t) - x).square().mean()

    for t in (0.5, 2.0):
        assert error(plain, t) < 0.75 * error(CoMoFusion(8).unet, t)


def test_random_features_have_no_layer_that_starts_at_zero():
    recipes = {name: Recipe(8, Stage(0), Stage(0), name) for name in ("none", "random")}
    zeros = {
        name: sum(not p.any() for p in pretrain(recipe, []).unet.parameters() if p.ndim == 4)
        for name, recipe in recipes.items()
    }
    assert zeros == {"none": 12, "random": 0}


def test_the_growing_schedule_runs():
    torch.manual_seed(6)
    assert len(train_consistency(CoMoFusion(8).unet, pairs(), Stage(3, 2, 16), levels=None)) == 3


def test_lpips_sees_three_channels_and_trains_stage_1(shared):
    x = joint(*torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    distance = distance_of("lpips")
    assert distance(x, x).tolist() == [0.0] * 4
    swapped = x[:, [1, 0]]
    assert (distance(x, x.flip(0)) > 0.01).all()
    assert not torch.allclose(distance(x, x.flip(0)), distance(swapped, swapped.flip(0)))
    ends = []
    for name in ("lpips", "pseudo_huber"):
        torch.manual_seed(6)
        unet = CoMoFusion(8).unet
        assert len(train_consistency(unet, pairs(), Stage(2, 2, 32), distance=name)) == 2
        ends.append(torch.cat([p.detach().flatten() for p in unet.parameters()]))
    assert not torch.equal(*ends)


def test_an_unknown_distance_is_refused():
    with pytest.raises(UserError, match="use pseudo_huber or lpips"):
        distance_of("lpip")


def test_lpips_without_its_weights_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("FUSIONLAB_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="squeezenet.*choose another distance|pip install"):
        train_consistency(CoMoFusion(8).unet, pairs(), Stage(2, 2, 32), distance="lpips")


def test_the_autoencoder_learns_to_give_pairs_back():
    """Judged on whole images, by what no constant image of each channel's own mean reaches."""
    torch.manual_seed(6)
    unet = CoMoFusion(8).unet
    train_autoencoder(unet, pairs(), Stage(100, 4, 32, 3e-3))
    c = consistency_preconditioning(torch.tensor(EPSILON))
    x = torch.cat([joint(ir, vi) for ir, vi in pairs()])
    with torch.no_grad():
        error = (unet(c.c_in * x, c.c_noise) - x).square().mean()
    assert error < 0.25 * (x - x.mean((2, 3), keepdim=True)).square().mean()


def corner(images: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The 64x64 corners of the pairs, as two batches."""
    return tuple(torch.cat([image[..., :64, :64] for image in side]) for side in zip(*images, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_released_loss_goes_white_on_small_crops_and_the_default_does_not(seed):
    """The short form; tests/benchmarks trains on until the default resembles the sum of both sources."""
    images, stage = pairs(), Stage(40, 4, 64, 3e-3, seed)
    fused = {}
    for name, loss in (("released", AS_RELEASED), ("default", SOUND)):
        torch.manual_seed(seed)
        network = CoMoFusion(4)
        train_fusion(network, images, stage, loss=loss)
        with torch.no_grad():
            fused[name] = network(*corner(images))
    assert fused["released"].mean() > 0.99 and fused["released"].std() < 0.01
    assert fused["default"].mean() < 0.6 and fused["default"].std() > 0.1


def test_anchored_an_image_fused_with_itself_keeps_its_brightness():
    """Beside it the paper's two terms alone, which leave it where the head happened to go."""
    images, stage, moved = pairs(), Stage(60, 4, 64, 3e-3), {}
    for name in ("lambda 1", "anchored"):
        torch.manual_seed(0)
        network = CoMoFusion(4)
        train_fusion(network, images, stage, LAMBDAS[name])
        x = torch.cat(corner(images))
        with torch.no_grad():
            moved[name] = 255 * (network(x, x) - x).mean(dim=(1, 2, 3)).abs().mean()
    assert moved["anchored"] < 0.6 * moved["lambda 1"], moved


def test_pixels_optimised_directly_reach_the_sum_or_stay_inverted():
    """Adam on the pixels: both losses lead to ir + vi; L_grad alone is content with a negative."""
    ir, vi = corner(pairs()[:1])

    def optimise(start, weights):
        image = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([image], lr=0.01)
        for _ in range(200):
            optimiser.zero_grad()
            weighted_sum(fusion_terms(image, ir, vi), weights).backward()
            optimiser.step()
        return torch.corrcoef(torch.stack([image.detach().flatten(), (ir + vi).flatten()]))[0, 1].item()

    average = (ir + vi) / 2
    assert optimise(average, LAMBDAS["lambda 1"]) > 0.9
    assert optimise(1 - average, {"selection": 0.0, "edges": 1.0}) < -0.7


def test_the_terms_are_unweighted_and_every_choice_reaches_them():
    ir, vi = corner(pairs()[:1])
    fused = (ir + vi) / 2
    for form in (SOUND, PRINTED, AS_RELEASED, SOUND._replace(guard="epsilon", border="valid")):
        terms = fusion_terms(fused, ir, vi, *form)
        assert torch.equal(terms["selection"], selection_loss(fused, ir, vi, *form))
        assert torch.equal(terms["edges"], strongest_edge_loss(fused, ir, vi, form.border))
        total = weighted_sum(terms, LAMBDAS["lambda 10"])
        assert total.item() == (terms["selection"] + 10 * terms["edges"]).item()
    assert fusion_terms.__defaults__ == SOUND


def test_the_named_recipes_are_the_papers_and_the_codes():
    assert PRINTED == ("ratio", "paper", "zero") and AS_RELEASED == ("ratio", "released", "zero")
    paper, released = RECIPES["paper"], RECIPES["released"]
    assert (paper.loss, paper.levels, paper.variant) == (PRINTED, 40, "paper")
    assert (released.loss, released.levels, released.variant) == (AS_RELEASED, None, "released")
    pairs_of_kaist = 95_328
    for recipe, passes in ((paper, 2), (released, 6)):
        assert recipe.distance == "lpips" and recipe.width == 64
        assert recipe.second.steps == -(-pairs_of_kaist * passes // recipe.second.batch)
        assert {recipe.first.size, recipe.second.size} == {160}
    assert (paper.first.batch, paper.second.batch, released.first.batch) == (15, 15, 25)
    assert {recipe.loss for recipe in [*MODEL.values(), *ABLATION.values()]} == {SOUND}


def test_a_recipe_is_trained_from_its_seed_alone_and_each_choice_counts(tmp_path):
    images, recipe = pairs(), dataclasses.replace(MODEL["smoke"], pretext="consistency")

    def trained(folder=None, **differs):
        torch.manual_seed(len(differs))  # whatever the caller's state is
        network = train(dataclasses.replace(recipe, **differs), images, 3, checkpoints=folder)
        return network, torch.cat([p.detach().flatten() for p in network.parameters()])

    network, plain = trained()
    assert torch.equal(trained(tmp_path)[1], plain) and torch.equal(trained(tmp_path)[1], plain)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["comofusion-3.safetensors", "consistency-pseudo_huber-40-3.safetensors"]
    for differs in (
        {"weights": {"edges": 1.0}},
        {"loss": PRINTED},
        {"features": "decoder"},
        {"variant": "released"},
        {"pretext": "autoencoder"},
        {"pretext": "tuned"},
        {"levels": None},
    ):
        other, weights = trained(**differs)
        assert not torch.equal(weights, plain), differs
        same_unet = all(map(torch.equal, network.unet.parameters(), other.unet.parameters()))
        assert same_unet == (differs.keys() <= {"weights", "loss", "features", "variant"}), differs
    assert trained(features="decoder")[0].settings["features"] == "decoder"

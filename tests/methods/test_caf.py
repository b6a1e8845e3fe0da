"""CAF: its network and losses against closed forms, each released slip, and the search at the smallest."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from fusionlab.bilevel import as_function, finite_difference, parameters_of, single_step
from fusionlab.crops import Labelled
from fusionlab.data.pair import to_uint8
from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.losses.space import (
    SPACE,
    fusion_loss,
    perception,
)
from fusionlab.methods.caf import (
    MIXED,
    PARAMETRISATIONS,
    RECIPES,
    FusionNetwork,
    LossWeights,
    Recipe,
    save,
    search,
    train,
    train_hierarchically,
)
from fusionlab.methods.comofusion import CoMoFusion
from fusionlab.methods.mmdrfuse import Student

SMALL = Recipe(search=6, fusion=3, task=3, batch=2, size=16, rate=1e-3, warmup=2, beta_every=2)


def draw(count, seed=0, side=16):
    return torch.rand(count, 2, 1, side, side, generator=torch.Generator().manual_seed(seed)).unbind(1)


def labelled(seed=0):
    """Pairs of noise; the task is to find what is bright in the infrared image."""
    ir, vi = draw(6, seed)
    return Labelled(ir, vi, (ir > 0.5).float())


def head():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


def net(width=4):
    torch.manual_seed(0)
    return FusionNetwork(width)


def test_the_network_has_the_papers_size_and_an_open_range():
    network = FusionNetwork()
    assert sum(weight.numel() for weight in network.parameters()) == 148_321
    assert sum(weight.numel() for weight in network.dense.parameters()) == 55_584
    ir, vi = draw(2)
    with torch.no_grad():
        fused = network(ir, vi)
    assert fused.shape == ir.shape and -1 < fused.min() < 0
    # The biases before a batch norm are inert while it takes its statistics from the batch.
    before = fused.clone()
    with torch.no_grad():
        for layer in (network.stem_ir, network.stem_vi, *network.dense, network.head[2]):
            layer[0].bias += 1
        assert torch.allclose(network(ir, vi), before, atol=1e-5)
        network.head[0].bias += 1  # which none follows at once
        assert not torch.allclose(network(ir, vi), before, atol=1e-3)


def test_released_saving_wraps_what_is_negative():
    image = torch.tensor([-0.1, -0.001, 0.0, 0.5, 0.999, 1.0]).view(1, 1, 1, 6)
    theirs = np.trunc(image.numpy() * 255).astype(np.int64).astype(np.uint8)
    assert np.array_equal(to_uint8(image, save="wrap").numpy(), theirs)
    assert theirs.flatten().tolist() == [231, 0, 0, 127, 254, 255]  # -25 is 231


@pytest.mark.parametrize("form", PARAMETRISATIONS)
def test_every_parametrisation_starts_at_equal_weights(form):
    weights = LossWeights(SPACE, form)
    assert weights.by_name() == pytest.approx(dict.fromkeys(SPACE, 1 / 15), rel=1e-5)
    with torch.no_grad():
        weights.beta[0] -= 1
        weights.beta[1] += 1
    low, high, *others = weights().tolist()
    assert low < others[0] < high
    assert (sum(weights().tolist()) == pytest.approx(1)) == (form in ("softmax", "shares", "raw"))
    assert (low < 0) == (form == "raw")
    with pytest.raises(UserError, match="there is no 'cube'"):
        LossWeights(SPACE, "cube")


def test_a_search_moves_beta_alone_at_its_turns_and_as_the_formula_says():
    """The first step of beta by hand: Adam's first step has the rate's length against the hypergradient."""
    fusion, task, recipe = net(), head(), replace(SMALL, search=1, warmup=0)
    ir, vi, labels = labelled()
    one = Labelled(ir[:1], vi[:1], labels[:1])  # whatever is drawn, it is this pair
    batch = Labelled(*(values.expand(2, -1, -1, -1) for values in one))
    call, judge = as_function(fusion), as_function(task)
    verdict = parameters_of(task)
    slope = single_step(
        lambda w, beta: fusion_loss(call(w, batch.ir, batch.vi), batch.ir, batch.vi, beta.softmax(0)),
        lambda w: F.mse_loss(judge(verdict, call(w, batch.ir, batch.vi)), batch.labels),
        parameters_of(fusion),
        torch.full((13,), 0.0125),
        recipe.rate,
    )
    found = search(fusion, task, F.mse_loss, one, one, recipe)
    assert torch.allclose(found.beta - 0.0125, -recipe.beta_rate * slope.sign(), atol=1e-5)
    assert found.names == SPACE[:-2] and torch.equal(found.path[0], found())
    counts = [m.num_batches_tracked.item() for m in [*fusion.modules(), *task.modules()] if hasattr(m, "eps")]
    assert set(counts) == {1}  # the beta step changed no buffer
    path = search(net(), head(), F.mse_loss, labelled(), labelled(1), SMALL).path
    moved = (path[1:] != path[:-1]).any(1).tolist()
    assert moved == [False, True, False, True, False]  # steps 2 and 4, after a warm-up of 2


def test_the_paths_of_both_products_stay_together_and_part_from_standing_still():
    """Finite differences by DARTS' rule against the exact product; a constant delta is its own rule."""
    paths = {}
    for product in MIXED:
        recipe = replace(SMALL, product=product)
        paths[product] = search(net(), head(), F.mse_loss, labelled(), labelled(1), recipe).path[-1]
    moved = (paths["exact"] - 1 / 13).abs().sum()
    assert moved > 0.02
    for product in ("darts", "constant"):
        assert (paths[product] - paths["exact"]).abs().sum() < 0.3 * moved, product


def test_finite_differences_are_within_a_tenth_of_jvp_on_the_network():
    """The paper's network and all fifteen terms in float32, batch norm in training mode."""
    network, (ir, vi) = net(32), draw(2, side=24)
    taps, call = perception("random", "released"), as_function(network)

    def lower(w, beta):
        return fusion_loss(call(w, ir, vi), ir, vi, beta, "paper", taps)

    def upper(w):
        return F.mse_loss(call(w, vi, ir), ir)

    w, beta = parameters_of(network), torch.full((15,), 1 / 15)
    exact = single_step(lower, upper, w, beta, 1e-4)
    apart = (single_step(lower, upper, w, beta, 1e-4, finite_difference()) - exact).norm() / exact.norm()
    assert 1e-4 < apart < 0.1


class Frozen(nn.Module):
    """CoMoFusion of which the fusion module alone is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.model = CoMoFusion(4)
        self.model.unet.requires_grad_(False)

    def forward(self, ir, vi):
        return self.model(ir, vi)


@pytest.mark.parametrize("network", [Student, Frozen])
def test_any_fuser_can_be_searched_for(network):
    """Table 3: what is frozen stays, what is not moves, and so does beta; CAF's own is searched above."""
    torch.manual_seed(0)
    fusion = network()
    before = {name: weight.clone() for name, weight in fusion.named_parameters()}
    found = search(fusion, head(), F.mse_loss, labelled(), labelled(1), SMALL)
    assert (found() - 1 / 13).abs().max() > 1e-3
    moved = {name for name, weight in fusion.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name, weight in fusion.named_parameters() if weight.requires_grad}


def test_a_stopped_search_goes_on_to_the_same_bits(tmp_path):
    """Ctrl-C in the fourth of six steps, between two steps of beta; networks, beta and its path are equal."""
    calls = []

    def stopping(said, labels):
        calls.append(1)  # in steps 0 to 3: 1, 1, 2 and 1 times, since line 7 looks too
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return F.mse_loss(said, labels)

    def searched(name, loss):
        fusion, task = net(), head()
        file = tmp_path / f"{name}.safetensors"
        found = search(fusion, task, loss, labelled(), labelled(1), SMALL, seed=3, checkpoint=file)
        return {
            f"{part}.{key}": value
            for part, module in (("fusion", fusion), ("task", task), ("weights", found))
            for key, value in module.state_dict().items()
        }

    unbroken = searched("unbroken", F.mse_loss)
    with pytest.raises(KeyboardInterrupt):
        searched("stopped", stopping)
    resumed = searched("stopped", F.mse_loss)
    assert unbroken.keys() == resumed.keys() and "weights.beta" in unbroken
    for key, value in unbroken.items():
        assert torch.equal(value, resumed[key]), key
    assert (unbroken["weights.path"] != 0).all()
    with pytest.raises(UserError, match="of another run: training"):
        search(
            net(), head(), F.mse_loss, labelled(2), labelled(1), SMALL, 3, tmp_path / "stopped.safetensors"
        )


def test_hierarchical_training_moves_fusion_first_and_then_the_task_alone(tmp_path):
    fusion, task, data = net(), head(), labelled()
    images = [(ir[None], vi[None]) for ir, vi in zip(data.ir, data.vi)]
    seen = []

    def loss(said, labels):
        seen.append(torch.cat([p.detach().flatten() for p in fusion.parameters()]))
        return F.mse_loss(said, labels)

    before = torch.cat([p.detach().flatten() for p in net().parameters()])
    train_hierarchically(fusion, task, loss, images, data, {"l1_ir": 1.0}, SMALL, checkpoints=tmp_path)
    assert len(seen) == SMALL.task
    assert all(torch.equal(one, seen[0]) for one in seen) and not torch.equal(seen[0], before)
    assert (task[0].weight != head()[0].weight).any()
    assert sorted(file.name for file in tmp_path.glob("*.safetensors")) == [
        "fusion-0.safetensors", "task-0.safetensors",
    ]  # fmt: skip


def test_a_saved_network_says_its_width_and_the_weights_that_made_it(tmp_path):
    """Half precision but for the counters of batch norm; the rate that falls starts as the constant one."""
    weights, data = {"l1_max": 0.25, "gradient_max": 0.75}, labelled()
    images = [(ir[None], vi[None]) for ir, vi in zip(data.ir, data.vi)]
    network, other = net(6), net(6)
    falling = train(network, images, weights, replace(SMALL, schedule="cosine"))
    constant = train(other, images, weights, SMALL)
    assert falling[:2] == constant[:2] and falling[2] != constant[2]
    fuser = load("caf", save(network, tmp_path / "mine.safetensors", weights))
    with safe_open(tmp_path / "mine.safetensors", "pt") as file:
        assert json.loads(file.metadata()["weights"]) == weights
    assert fuser.network.settings == {"width": 6}
    for key, value in network.eval().state_dict().items():
        kept = fuser.network.state_dict()[key]
        assert torch.equal(kept, value.half().float() if value.is_floating_point() else value), key
    assert fuser.network.stem_ir[1].num_batches_tracked == SMALL.fusion


def test_recipes_are_the_printed_ones():
    paper, released = RECIPES["paper"], RECIPES["released"]
    assert (paper.beta_rate, paper.beta_decay, paper.rate) == (5e-2, 0.998, 1e-4)
    assert paper.search == 4200 // 2 // 8 * 10 + 10  # the last, smaller batch of each epoch too
    assert paper.fusion == 100 * 1000 // paper.batch
    assert (released.variant, released.parametrisation, released.product) == ("released", "softmax", "darts")
    assert released.fusion * released.rate == pytest.approx(
        0.04
    )  # how far Adam came: .042 in the checkpoints
    assert {recipe.product for name, recipe in RECIPES.items() if name in ("smoke", "laptop", "gpu")} == {
        "exact"
    }

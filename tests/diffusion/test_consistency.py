"""Consistency training: its schedules by value, its loss by parts, its optimum in closed form and trained."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from fusionlab.diffusion import consistency, edm
from fusionlab.diffusion.mixtures import Mixture


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


THREE = Mixture(points(0.3, 0.5, 0.2), points(-0.6, 0.1, 0.7)[:, None], points(0.1, 0.2, 0.05))


def test_schedules_by_value():
    steps = [0, 1, 10, 100, 1000, 4752, 6000, 12_000, 30_000, 60_000, 90_000, 120_000]
    levels = [2, 3, 3, 7, 19, 41, 45, 64, 101, 143, 175, 201]
    assert [consistency.levels_at(k, 120_000) for k in steps] == levels
    forty = [k for k in range(4000, 5000) if consistency.levels_at(k, 120_000) == 40]
    assert (forty[0], forty[-1]) == (4507, 4740)
    doubled = [consistency.doubling_at(k, 8000, last=1280) for k in (0, 999, 1000, 4000, 7000, 7999)]
    assert doubled == [11, 11, 21, 161, 1281, 1281]
    decays = [consistency.decay_at(n) for n in (2, 3, 201)]
    assert decays == pytest.approx([0.9025, 0.95, 0.9995], abs=2e-5)


def test_same_noise_is_an_euler_step_to_the_clean_sample():
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(4, 2, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    for t, u in zip(edm.noise_levels(40)[:-1], edm.noise_levels(40)[1:], strict=True):
        step = edm.euler(lambda *_: x, edm.noised(x, u, z), torch.stack([u, t]))[-1]
        torch.testing.assert_close(step, edm.noised(x, t, z), atol=1e-12, rtol=0)


def test_loss_compares_neighbours_under_one_noise_and_moves_the_student_alone():
    seen = {}

    def network(role, scale):
        def answer(x, t):
            seen[role] = (x.detach(), t)
            return scale * x

        return answer

    fast, slow = (torch.tensor(v, requires_grad=True) for v in (2.0, 3.0))
    x, levels = torch.rand(64, 2, 4, 4), edm.noise_levels(5)
    loss = consistency.consistency_loss(
        network("student", fast), network("target", slow), x, levels, torch.Generator().manual_seed(0),
        consistency.squared, consistency.inverse_gap,
    )  # fmt: skip
    (above, u), (below, t) = seen["student"], seen["target"]
    assert (u > t).all() and set(t.tolist()) == set(levels[:-1].float().tolist())
    gaps = dict(zip(levels[:-1].float().tolist(), levels[1:].float().tolist(), strict=True))
    assert [gaps[a] for a in t.tolist()] == u.tolist()
    z_above, z_below = ((y - x) / edm.append_dims(level, x) for y, level in ((above, u), (below, t)))
    torch.testing.assert_close(z_above, z_below, atol=1e-3, rtol=1e-4)
    by_hand = ((2 * above - 3 * below).square().mean(dim=(1, 2, 3)) / (u - t)).mean()
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert fast.grad is not None and slow.grad is None


def test_targets_of_tuning_draw_nearer_by_stages():
    t = torch.tensor([0.05, 1.0, 80.0])
    shares = {a: (consistency.nearer_level(t, a) / t).tolist() for a in (0, 2, 3, 6)}
    n = [1 + 8 / (1 + math.exp(v)) for v in t.tolist()]
    assert shares[0] == pytest.approx([0.04, 0.002, 0.002 / 80])
    assert shares[2] == pytest.approx([0.04, 1 - n[1] / 4, 0.75], rel=1e-5)
    for a in (3, 6):
        assert shares[a] == pytest.approx([1 - v / 2**a for v in n], rel=1e-5)
    middles = (0, 599, 650, 750, 850, 950, 1050, 1199)  # of 1200 steps
    assert [consistency.tuning_stage(k, 1200) for k in middles] == [0, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("stage", [0, 3])
def test_tuning_compares_levels_under_one_noise_and_holds_the_target(stage):
    calls = []
    scale = torch.tensor(2.0, requires_grad=True)

    def denoise(x, t):
        calls.append((x.detach(), t))
        return scale * x

    x = torch.rand(64, 2, 4, 4)
    loss = consistency.tuning_loss(denoise, x, stage, torch.Generator().manual_seed(0))
    above, t = calls[-1]
    z = (above - x) / edm.append_dims(t, x)
    r = consistency.nearer_level(t, stage)
    target = edm.noised(x, r, z) * (2 if stage else 1)
    assert len(calls) == (2 if stage else 1)  # at epsilon the function is the identity
    c_out = 0.5 * (t - 0.002) / (t**2 + 0.25).sqrt()
    by_hand = (t / (t - r) / c_out * consistency.pseudo_huber(2 * above, target)).mean()
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-4)
    loss.backward()
    slope = scale.grad.item()
    free = torch.tensor(2.0, requires_grad=True)
    (t / (t - r) / c_out * consistency.pseudo_huber(free * above, target)).mean().backward()
    assert slope == pytest.approx(free.grad.item(), rel=1e-3)  # nothing came back through the target
    assert 0.004 <= t.min() < 0.05 and 20 < t.max() <= 80


def test_distances_and_weights():
    x, y = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)
    y[1, 0, 0, 0] = 3.0
    c = 0.00054 * math.sqrt(3072)
    assert c == pytest.approx(0.0299, abs=5e-5)
    assert consistency.pseudo_huber(x, y).tolist() == pytest.approx([0, math.hypot(3, c) - c], abs=1e-6)
    assert consistency.pseudo_huber(x, y, c=4).tolist() == pytest.approx([0, 1], abs=1e-6)
    assert consistency.squared(x, y).tolist() == pytest.approx([0, 9 / 3072])
    t, u = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 6.0])
    assert consistency.unweighted(t, u).tolist() == [1, 1]
    assert consistency.inverse_gap(t, u).tolist() == [1, 0.25]


def test_three_channels_for_a_colour_network():
    pair = torch.stack([torch.full((2, 2), -1.0), torch.full((2, 2), 0.5)])[None]
    assert consistency.stack_three(pair)[0, :, 0, 0].tolist() == [0, 0.75, 0.75]


def test_optimum_of_gaussian_data():
    """The listed one-step deviations, and the Euler solver's slope on the same levels."""
    listed = {2: 0.0051, 3: 0.0977, 11: 0.3764, 18: 0.4230, 40: 0.4649, 81: 0.4825, 201: 0.4929, 1281: 0.4989}
    one = Mixture(points(1), points(0.3)[:, None], points(0.5))
    for n, deviation in listed.items():
        slope = consistency.gaussian_optimum(edm.noise_levels(n), 0.5).item()
        assert 80 * slope == pytest.approx(deviation, abs=6e-5)
        ends = edm.euler(one.denoise, points(0.3, 1.3)[:, None], edm.noise_levels(n).flip(0))[-1]
        assert (ends[1] - ends[0]).item() == pytest.approx(slope, abs=1e-12)
        assert ends[0].item() == pytest.approx(0.3, abs=1e-12)


def test_sampling_with_the_true_consistency_function():
    one = Mixture(points(1), points(0.3)[:, None], points(0.5))
    levels_seen = []

    def exact(x, t):
        levels_seen.append(t)
        return one.flow(x, t, edm.EPSILON)

    generator = torch.Generator().manual_seed(0)
    x = 0.3 + 80 * torch.randn(50_000, 1, generator=generator, dtype=torch.float64)
    clean = consistency.sample(exact, x, [80.0, 5.0, 0.5], generator)
    assert levels_seen == [80.0, 5.0, 0.5]
    assert clean.mean().item() == pytest.approx(0.3, abs=4 * 0.5 / math.sqrt(5e4))
    assert clean.std().item() == pytest.approx(0.5, rel=4 / math.sqrt(1e5))
    assert torch.equal(consistency.sample(exact, x, [80.0], generator), exact(x, 80.0))


def trained(mixture, activation, levels_of, steps, batch, rate, distance, weight):
    """A small consistency function on a line, its own target without gradient."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(2, 64), activation(), nn.Linear(64, 64), activation(), nn.Linear(64, 64), activation(),
        nn.Linear(64, 1),
    )  # fmt: skip
    function = edm.preconditioned(lambda x, noise: layers(torch.cat([x, noise[:, None]], dim=1)))
    optimiser = torch.optim.Adam(layers.parameters(), lr=rate, fused=True)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        x = mixture.sample(batch, generator).float()
        levels = edm.noise_levels(levels_of(step / steps))
        loss = consistency.consistency_loss(function, function, x, levels, generator, distance, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return function


def one_step(function, n):
    z = torch.randn(n, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return consistency.sample(function, 80 * z, [80.0], torch.Generator()).double()


def test_training_on_a_gaussian_ends_at_the_closed_form():
    one = Mixture(points(1), points(0.3)[:, None], points(0.5))
    function = trained(
        one, nn.SiLU, lambda _: 11, 1500, 256, 2e-3, consistency.squared, consistency.unweighted
    )  # fmt: skip
    samples = one_step(function, 50_000)
    closed = 80 * consistency.gaussian_optimum(edm.noise_levels(11), 0.5).item()
    assert closed == pytest.approx(0.3764, abs=1e-4)
    assert samples.std().item() == pytest.approx(closed, rel=0.1)
    assert samples.mean().item() == pytest.approx(0.3, abs=0.04)


def test_training_on_a_mixture_finds_all_three_parts():
    """Doubling N, ReLU for sharp turns, and c small beside the data but not beside the gaps at the end."""
    function = trained(
        THREE, nn.ReLU, lambda done: 10 * 2 ** int(7 * done) + 1, 6000, 256, 3e-3,
        partial(consistency.pseudo_huber, c=0.01), consistency.inverse_gap,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    data = THREE.sample(200_000, generator).sort(dim=0).values
    gaussian = data.mean() + data.std() * torch.randn(data.shape, generator=generator, dtype=data.dtype)
    distance, of_gaussian = (
        (samples.sort(dim=0).values - data).abs().mean().item()
        for samples in (one_step(function, len(data)), gaussian)
    )
    assert distance < 0.1 * data.std().item()
    assert distance < of_gaussian / 5

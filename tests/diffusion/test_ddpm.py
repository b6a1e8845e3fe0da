"""DDPM: schedules and posterior against published values, samplers against exact recursions and mixtures."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from fusionlab.diffusion import ddpm, edm
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.errors import UserError

LINEAR, COSINE = ddpm.linear_schedule(), ddpm.cosine_schedule()


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


TWO = Mixture(points(0.3, 0.7), points(-0.6, 0.5)[:, None], points(0.1, 0.2))


def gaussian(mean: float, std: float) -> Mixture:
    return Mixture(points(1.0), points(mean)[:, None], points(std))


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Schedules.


def test_the_linear_schedule_has_abar_0_in_front():
    assert LINEAR.shape == (1001,) and LINEAR[0] == 1
    wanted = {
        1: 0.9999, 2: 0.9997800921, 10: 0.9981052048, 50: 0.9710157229, 100: 0.8970181457,
        250: 0.5240853738, 500: 0.07858724288, 750: 0.003350550439, 1000: 4.035829765e-05,
    }  # fmt: skip
    for t, value in wanted.items():
        assert LINEAR[t].item() == pytest.approx(value, rel=1e-9), t
    snr = LINEAR / (1 - LINEAR)
    assert snr[259] > 1 > snr[260]


def test_the_continuous_approximation_is_no_truth():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    off = [
        (guess / LINEAR[-1] - 1).item() for guess in ((-beta).sum().exp(), (-beta - beta**2 / 2).sum().exp())
    ]
    assert off == pytest.approx([0.07, 0.0007], rel=0.05)


def test_the_cosine_schedule_of_the_released_code():
    assert COSINE.shape == (2001,) and COSINE[0] == 1
    assert COSINE[[1, 50, 100, 1000]].tolist() == pytest.approx(
        [0.999980, 0.997513, 0.992007, 0.493844], abs=5e-7
    )
    assert (COSINE[2000] / COSINE[1999]).item() == pytest.approx(0.001, rel=1e-9)
    assert COSINE[2000].item() == pytest.approx(6.07e-10, rel=1e-3)


@pytest.mark.parametrize(
    ("schedule", "t", "root", "sigma", "grey"),
    [
        (COSINE, 5, 0.999944, 0.01060, 1.35),
        (COSINE, 50, 0.998756, 0.04993, 6.36),
        (COSINE, 100, 0.995996, 0.08976, 11.4),
        (LINEAR, 5, 0.999650, 0.02645, 3.37),
        (LINEAR, 50, 0.985401, 0.17277, 21.7),
        (LINEAR, 100, 0.947110, 0.33883, 40.9),
    ],
)
def test_noise_at_the_three_timesteps_of_the_paper(schedule, t, root, sigma, grey):
    assert schedule[t].sqrt().item() == pytest.approx(root, abs=5e-7)
    assert ddpm.sigma_of(schedule[t]).item() == pytest.approx(sigma, abs=5e-6)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    # x_t of [-1, 1] in grey levels of 0..255; three digits are given.
    assert 127.5 * ddpm.diffused(zero, schedule[t], one).item() == pytest.approx(grey, rel=3e-3)


def test_sigma_and_back():
    wanted = {
        1: 0.0100005, 5: 0.02644796, 50: 0.17276991, 100: 0.33882835, 250: 0.9529355, 500: 3.4241366,
        1000: 157.40728,
    }  # fmt: skip
    sigma = ddpm.sigma_of(LINEAR)
    for t, value in wanted.items():
        assert sigma[t].item() == pytest.approx(value, rel=3e-8 if t > 1 else 5e-6), t
    torch.testing.assert_close(ddpm.alpha_bar_of(sigma), LINEAR, atol=0, rtol=1e-12)
    torch.testing.assert_close(
        ddpm.timestep_of(LINEAR, sigma), torch.arange(1001.0).double(), atol=1e-9, rtol=0
    )
    between = ddpm.timestep_of(LINEAR, points(0.005, (sigma[7] * sigma[8]).sqrt(), 1e4))
    assert between.tolist() == pytest.approx([0.005 / sigma[1].item(), 7.5, 1000])


# Forward process and posterior.


def test_the_forward_process_keeps_a_variance_of_one_and_the_printed_form_keeps_the_image():
    x, z = normal(0, 2, 200_000)[..., None].unbind(0)
    noised = ddpm.diffused(x, LINEAR[500], z)
    assert noised.var().item() == pytest.approx(1, abs=0.01)
    assert torch.corrcoef(torch.cat([noised, x], 1).T)[0, 1].item() == pytest.approx(0.2803, abs=0.01)
    each = ddpm.diffused(x[:3], LINEAR[[0, 250, 1000]], z[:3])
    assert torch.equal(each[0], x[0])
    torch.testing.assert_close(each[1], ddpm.diffused(x[1], LINEAR[250], z[1]))
    printed = (LINEAR[1000] / LINEAR[999]).sqrt().item()  # sqrt(alpha_T) of Eq. 2 and 4
    assert printed == pytest.approx(0.98995, abs=5e-6)
    assert LINEAR[1000].sqrt().item() == pytest.approx(0.00635, abs=5e-6)


def test_the_posterior_is_the_one_of_bayes():
    """On a fine grid: prior of x_{t-1} given x_0 times the likelihood of x_t."""
    x0, xt = 0.3, -0.4
    grid = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    for t in (2, 10, 100, 700, 1000):
        a, b = LINEAR[t], LINEAR[t - 1]
        prior = torch.distributions.Normal(b.sqrt() * x0, (1 - b).sqrt()).log_prob(grid)
        likelihood = torch.distributions.Normal((a / b).sqrt() * grid, (1 - a / b).sqrt()).log_prob(
            points(xt)
        )
        p = (prior + likelihood).softmax(0)
        mean = (p * grid).sum()
        clean, noisy, variance = ddpm.posterior(a, b)
        assert (clean * x0 + noisy * xt).item() == pytest.approx(mean.item(), abs=1e-9)
        assert variance.item() == pytest.approx((p * (grid - mean) ** 2).sum().item(), rel=1e-6)


def test_the_posterior_s_values_and_identities():
    clean, noisy, variance = ddpm.posterior(LINEAR[1:], LINEAR[:-1])
    wanted = {2: 5.4531877e-05, 10: 2.3818203e-04, 100: 2.0345963e-03, 1000: 1.9999984e-02}
    for t, value in wanted.items():
        assert variance[t - 1].item() == pytest.approx(value, rel=3e-8), t
    assert (clean[0], noisy[0], variance[0]) == (1, 0, 0)
    close = {"atol": 1e-12, "rtol": 0}
    torch.testing.assert_close(clean + noisy * LINEAR[1:].sqrt(), LINEAR[:-1].sqrt(), **close)
    torch.testing.assert_close(noisy**2 * (1 - LINEAR[1:]) + variance, 1 - LINEAR[:-1], **close)


# Denoisers of a mixture, and the loss that none beats.


def test_the_mixture_s_denoiser_on_the_scale_of_ddpm():
    table = {
        5: (-0.974176259, 0.057751248, 0.795118897),
        50: (-0.704095179, 0.234768334, 0.678585241),
        100: (-0.635104131, 0.252317184, 0.588884793),
        500: (0.079769245, 0.174059765, 0.235902938),
        1000: (0.168186791, 0.170090439, 0.171447709),
    }
    x = points(-1, 0.05, 0.8)[:, None]
    for t, wanted in table.items():
        a = LINEAR[t]
        guess = TWO.denoise(x / a.sqrt(), ddpm.sigma_of(a))
        assert guess[:, 0].tolist() == pytest.approx(wanted, abs=1e-9)
        eps = ddpm.predicted_noise(TWO.denoise, x, a)
        torch.testing.assert_close(eps, (x - a.sqrt() * guess) / (1 - a).sqrt())
        score = TWO.score(x / a.sqrt(), ddpm.sigma_of(a)) / a.sqrt()  # by x_t
        torch.testing.assert_close(eps, -(1 - a).sqrt() * score, atol=1e-9, rtol=1e-9)


def floors(mixture: Mixture, alpha_bars: torch.Tensor) -> torch.Tensor:
    """E[(eps - E[eps | x_t])^2] at each level: 1 - E[eps*^2], integrated over x_t."""
    grid = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    found = []
    for a in alpha_bars:
        y, sigma = grid / a.sqrt(), ddpm.sigma_of(a)
        density = mixture.log_density(y, sigma).exp() / a.sqrt()
        eps = (y - mixture.denoise(y, sigma))[:, 0] / sigma
        found.append(1 - (density * eps**2).sum() * (grid[1] - grid[0]).item())
    return torch.stack(found)


def test_floors_of_the_loss():
    table = {5: 0.968578, 50: 0.556379, 100: 0.537348, 500: 0.023737, 1000: 1.2e-05}
    assert floors(TWO, LINEAR[list(table)]).tolist() == pytest.approx(list(table.values()), abs=6e-7)
    assert floors(TWO, LINEAR[1:]).mean().item() == pytest.approx(0.150738, abs=6e-7)
    for std, mean in ((1, 0.275513), (0.5, 0.173053), (0.25, 0.098639)):
        line = LINEAR[1:] * std**2 / (LINEAR[1:] * std**2 + 1 - LINEAR[1:])
        assert line.mean().item() == pytest.approx(mean, abs=6e-7)
        torch.testing.assert_close(
            floors(gaussian(0.3, std), LINEAR[[50, 500]]), line[[49, 499]], rtol=0, atol=1e-9
        )


class Exact(nn.Module):
    """The best network for TWO that is told sqrt(abar): answers E[eps | x_t]."""

    def forward(self, x: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
        return ddpm.predicted_noise(TWO.denoise, x, root**2)


@pytest.mark.parametrize("draw", ["paper", "released"])
def test_the_loss_of_the_best_network_is_the_floor(draw):
    generator = torch.Generator().manual_seed(0)
    x = TWO.sample(200_000, generator)
    if draw == "paper":
        levels = ddpm.draw_alpha_bars(LINEAR, len(x), generator)
        assert set(levels.tolist()) <= set(LINEAR[1:].tolist())
    else:  # one t a call
        levels = torch.cat([ddpm.draw_alpha_bars(LINEAR, 50, generator, draw) for _ in range(4000)])
    loss = ddpm.network_loss(Exact(), ddpm.noise_prediction(LINEAR, "level"), x, levels, generator)
    assert loss.item() == pytest.approx(0.1507, abs=0.006)


def test_the_released_draw_is_one_step_wide_and_uniform_in_the_root():
    roots = ddpm.draw_alpha_bars(LINEAR, 10_000, torch.Generator().manual_seed(3), "released").sqrt()
    t = int(ddpm.timestep_of(LINEAR, ddpm.sigma_of(roots[:1] ** 2)).ceil())
    low, high = LINEAR[t].sqrt(), LINEAR[t - 1].sqrt()
    assert low <= roots.min() and roots.max() <= high
    assert ((roots - low) / (high - low)).mean().item() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UserError, match="paper or released"):
        ddpm.draw_alpha_bars(LINEAR, 1, torch.Generator(), "other")


def test_the_loss_is_the_one_written_out_and_errors_of_noise_are_weighted_errors_of_images():
    """F = tanh(x) + label: squared error of eps (Eq. 4) = SNR times that of x_0; EDM's weight beside it."""

    def network(x, label):
        return x.tanh() + 0.001 * label[:, None]

    x, levels = normal(1, 64, 3), LINEAR[torch.arange(5, 1000, 1000 // 64)[:64]]
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).double()
    a = levels[:, None]
    xt = a.sqrt() * x + (1 - a).sqrt() * z
    t = torch.arange(5, 1000, 1000 // 64)[:64].double()
    for told, label in (("t", t), ("level", levels.sqrt())):
        c = ddpm.noise_prediction(LINEAR, told)
        loss = ddpm.network_loss(network, c, x, levels, torch.Generator().manual_seed(7))
        eps = network(xt, label)
        assert loss.item() == pytest.approx((eps - z).square().mean().item(), rel=1e-9)
        clean = edm.preconditioned(network, c)(xt / a.sqrt(), ddpm.sigma_of(levels))
        torch.testing.assert_close(clean, (xt - (1 - a).sqrt() * eps) / a.sqrt())
        assert loss.item() == pytest.approx((a / (1 - a) * (clean - x) ** 2).mean().item(), rel=1e-9)
    loss = ddpm.network_loss(network, edm.edm_preconditioning, x, levels, torch.Generator().manual_seed(7))
    sigma = ddpm.sigma_of(a)
    clean = edm.preconditioned(network, edm.edm_preconditioning)(xt / a.sqrt(), sigma[:, 0])
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2  # Karras et al. 2022, Table 1
    assert loss.item() == pytest.approx((weight * (clean - x) ** 2).mean().item(), rel=1e-9)


class Small(nn.Module):
    """x and 32 waves of t through 128 and 128 units."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(33, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t[:, None] * 10_000 ** (-torch.arange(16) / 16)
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def test_a_small_network_nears_the_floor_and_does_not_beat_it():
    torch.manual_seed(0)
    network, generator = Small(), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    c = ddpm.noise_prediction(LINEAR)

    def loss(n: int) -> torch.Tensor:
        x = TWO.sample(n, generator).float()
        return ddpm.network_loss(network, c, x, ddpm.draw_alpha_bars(LINEAR, n, generator), generator)

    for _ in range(500):
        optimiser.zero_grad()
        loss(512).backward()
        optimiser.step()
    with torch.no_grad():
        assert 0.1507 < loss(100_000).item() < 0.2  # 0.184 to 0.186 in other hands


# Samplers.


def test_ddim_is_euler_in_sigma():
    x = normal(2, 1000, 1)
    for steps in (10, 100, 1000):
        levels = LINEAR[ddpm.timesteps(1000, steps)]
        path = ddpm.ddim(TWO.denoise, x, levels)
        euler = edm.euler(TWO.denoise, x / levels[0].sqrt(), ddpm.sigma_of(levels))
        scaled = path / levels.sqrt()[:, None, None]
        torch.testing.assert_close(scaled, euler, atol=1e-12, rtol=1e-12)


def test_ddim_with_all_its_noise_is_ddpm():
    x, z = normal(3, 2, 500, 1)
    for t in (1, 2, 10, 500, 1000):
        a, b = LINEAR[t], LINEAR[t - 1]
        with_chance = ddpm.ddim_step(TWO.denoise, x, a, b, z)
        torch.testing.assert_close(with_chance, ddpm.ddpm_step(TWO.denoise, x, a, b, z), atol=1e-12, rtol=0)


def end(kind: str, levels: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation that a sampler makes of N(0, 1), exactly: all steps are affine."""
    denoise = gaussian(0.3, 0.5).denoise
    mean, variance = points(0.0), points(1.0)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for a, b in pairwise(levels):

        def step(x, z, a=a, b=b):
            if kind == "ddim":
                return ddpm.ddim_step(denoise, x, a, b)
            return ddpm.ddpm_step(denoise, x, a, b, z, kind)

        offset = step(zero, zero)
        slope, spread = step(one, zero) - offset, step(zero, one) - offset
        mean, variance = offset[0] + slope[0] * mean, slope[0] ** 2 * variance + spread[0] ** 2
    return mean.item(), variance.sqrt().item()


@pytest.mark.parametrize(
    ("steps", "deterministic", "chance", "beta"),
    [
        (10, 0.361612, 0.322835, 0.598766),
        (50, 0.471915, 0.443193, 0.517574),
        (100, 0.485848, 0.467954, 0.508578),
        (1000, 0.498495, 0.496110, 0.500752),
    ],
)
def test_what_samplers_make_of_a_gaussian(steps, deterministic, chance, beta):
    levels = LINEAR[ddpm.timesteps(1000, steps)]
    assert len(levels) == steps + 1 and levels[-1] == 1
    mean, std = end("ddim", levels)
    assert 0.29905 - 5e-6 <= mean <= 0.29931 + 5e-6 and std == pytest.approx(deterministic, abs=6e-7)
    mean, std = end("posterior", levels)
    assert mean == pytest.approx(0.299997, abs=6e-7) and std == pytest.approx(chance, abs=6e-7)
    assert end("beta", levels)[1] == pytest.approx(beta, abs=6e-7)


def gap(samples: torch.Tensor) -> float:
    """Kolmogorov-Smirnov distance of samples (N, 1) to TWO."""
    ordered = samples[:, 0].sort().values
    z = (ordered[:, None] - TWO.means[:, 0]) / TWO.stds
    cdf = torch.special.ndtr(z) @ TWO.weights
    ranks = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return max((cdf - ranks[:-1]).abs().max().item(), (cdf - ranks[1:]).abs().max().item())


@pytest.mark.parametrize(
    ("steps", "wanted"), [(10, 0.1256), (20, 0.0625), (50, 0.0243), (100, 0.0122), (1000, 0.0016)]
)
def test_ddim_on_a_mixture_without_chance(steps, wanted):
    start = torch.special.ndtri((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)[:, None]
    made = ddpm.ddim(TWO.denoise, start, LINEAR[ddpm.timesteps(1000, steps)])[-1]
    assert gap(made) == pytest.approx(wanted, abs=2e-4)
    if steps in (10, 1000):
        share = (made < -0.05).double().mean().item()
        assert share == pytest.approx({10: 0.287, 1000: 0.302}[steps], abs=1.5e-3)


def test_ddpm_on_a_mixture_ends_in_it():
    generator = torch.Generator().manual_seed(4)
    start = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    made = ddpm.ddpm(TWO.denoise, start, LINEAR.flip(0), generator)
    assert gap(made) < 0.015  # 0.005 and the sampling noise of so many points
    assert (made < -0.05).double().mean().item() == pytest.approx(0.3021, abs=0.012)


def test_samplers_repeat_and_depend_on_the_seed():
    start, levels = normal(5, 10, 1), LINEAR[ddpm.timesteps(1000, 20)]
    first, again, other = (
        ddpm.ddpm(TWO.denoise, start, levels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)

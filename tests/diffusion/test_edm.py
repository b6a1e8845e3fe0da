"""EDM: levels and coefficients against published values, solvers against exact paths."""

import math

import pytest
import torch

from fusionlab.diffusion import edm
from fusionlab.diffusion.mixtures import Mixture

SD = edm.SIGMA_DATA


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_levels_of_the_paper():
    levels = edm.noise_levels(40)
    assert levels[0] == 0.002 and levels[-1] == 80
    assert (levels.diff() > 0).all() and (levels < 0.5).double().mean() == 0.35
    some = [0.002, 0.003677, 0.006437, 0.131197, 2.24044, 2.818392, 16.779889, 69.450946, 80]
    where = torch.tensor([1, 2, 3, 10, 20, 21, 30, 39, 40]) - 1
    torch.testing.assert_close(levels[where], points(*some), atol=5e-7, rtol=0)


def test_levels_of_edm_s_sampler():
    printed = [80, 57.586, 40.7856, 28.3746, 19.3525, 12.9101, 8.4009, 5.3152, 3.2568, 1.9233, 1.0882,
               0.5853, 0.2964, 0.1395, 0.0599, 0.0229, 0.0075, 0.002]  # fmt: skip
    torch.testing.assert_close(edm.noise_levels(18).flip(0), points(*printed), atol=5e-5, rtol=0)


def test_levels_are_even_without_rho_and_the_formula_holds_inside():
    torch.testing.assert_close(edm.noise_levels(5, 1, 9, rho=1), points(1, 3, 5, 7, 9), atol=1e-12, rtol=0)
    for i in range(1, 41):
        root = 0.002 ** (1 / 7) + (i - 1) / 39 * (80 ** (1 / 7) - 0.002 ** (1 / 7))
        assert edm.noise_levels(40)[i - 1].item() == pytest.approx(root**7, rel=1e-12)


@pytest.mark.parametrize(
    ("t", "skip_cm", "out_cm", "skip_edm", "out_edm", "in_", "noise"),
    [
        (0.002, 1, 0, 0.999984, 0.001999984, 1.99998, -1.55365),
        (0.1, 0.963005, 0.0960969, 0.961538, 0.0980581, 1.96116, -0.575646),
        (0.5, 0.502004, 0.352139, 0.5, 0.353553, 1.41421, -0.173287),
        (1, 0.200641, 0.446319, 0.2, 0.447214, 0.894427, 0),
        (80, 3.90629e-5, 0.499978, 3.90610e-5, 0.499990, 0.0124998, 1.09551),
    ],
)
def test_coefficients(t, skip_cm, out_cm, skip_edm, out_edm, in_, noise):
    close = {"rel": 5e-6, "abs": 1e-12}
    cm = edm.consistency_preconditioning(points(t)[0])
    assert [c.item() for c in cm] == pytest.approx([skip_cm, out_cm, in_, noise], **close)
    original = edm.edm_preconditioning(points(t)[0])
    assert [c.item() for c in original] == pytest.approx([skip_edm, out_edm, in_, noise], **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boundary_is_exact_and_zero_noise_finite(dtype):
    at_epsilon = edm.consistency_preconditioning(torch.tensor(edm.EPSILON, dtype=dtype))
    assert at_epsilon.c_skip == 1 and at_epsilon.c_out == 0
    at_zero = edm.consistency_preconditioning(torch.zeros((), dtype=dtype))
    assert at_zero.c_in == 2
    assert [c.item() for c in at_zero] == pytest.approx([0.999984, -0.002, 2, -25.328], rel=1e-4)
    x = torch.randn(3, 2, 4, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    consistency = edm.preconditioned(lambda x, noise: 7 * x + noise.reshape(-1, 1, 1, 1))
    assert torch.equal(consistency(x, edm.EPSILON), x)
    torch.testing.assert_close(consistency(x, 3.0)[1:2], consistency(x[1:2], torch.tensor([3.0])))


def test_edm_keeps_the_variance_of_inputs_and_targets():
    t = edm.noise_levels(40)
    c = edm.edm_preconditioning(t)
    torch.testing.assert_close(c.c_in**2 * (SD**2 + t**2), torch.ones_like(t))
    # F's target is (x_0 - skip (x_0 + t z)) / out, with independent x_0 and z.
    variance = ((1 - c.c_skip) ** 2 * SD**2 + c.c_skip**2 * t**2) / c.c_out**2
    torch.testing.assert_close(variance, torch.ones_like(t), atol=1e-9, rtol=0)
    weight = (t**2 + SD**2) / (t * SD) ** 2
    torch.testing.assert_close(weight * c.c_out**2, torch.ones_like(t), atol=1e-12, rtol=0)


def test_moved_boundary_costs_the_flat_variance_near_epsilon():
    def variance(t):
        c = edm.consistency_preconditioning(points(t)[0])
        return (((1 - c.c_skip) ** 2 * SD**2 + c.c_skip**2 * t**2) / c.c_out**2).item()

    assert variance(1.5 * edm.EPSILON) == pytest.approx(9.0, abs=0.01)
    assert variance(0.042) > 1.1 > variance(0.0431)


def test_forward_moments():
    generator = torch.Generator().manual_seed(0)
    n = 200_000
    x = 0.5 * torch.randn(n, generator=generator, dtype=torch.float64) + 0.3
    z = torch.randn(n, generator=generator, dtype=torch.float64)
    t = points(3.0).expand(n)
    noised = edm.noised(x, t, z)
    variance = 0.25 + 9
    assert noised.mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(variance / n))
    assert noised.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    correlation = torch.corrcoef(torch.stack([x, noised]))[0, 1].item()
    assert correlation == pytest.approx(0.5 / math.sqrt(variance), abs=4 / math.sqrt(n))


def test_printed_equation_1_is_a_stochastic_equation():
    """dx = sqrt(2t) dw, stepped in time, gathers the variance t^2 - epsilon^2: the forward process."""
    generator = torch.Generator().manual_seed(0)
    n, x = 20_000, torch.zeros(20_000, dtype=torch.float64)
    t = edm.noise_levels(400)
    for here, step in zip(t, t.diff(), strict=False):
        x += (2 * (here + step / 2) * step).sqrt() * torch.randn(n, generator=generator, dtype=x.dtype)
    assert x.var().item() == pytest.approx(80**2 - 0.002**2, rel=4 * math.sqrt(2 / n))


GAUSSIAN = Mixture(points(1), points(0.3)[:, None], points(0.5)), points(-100, -30, 5, 60, 120)
THREE = (
    Mixture(points(0.3, 0.5, 0.2), points(-0.6, 0.1, 0.7)[:, None], points(0.1, 0.2, 0.05)),
    points(-90, -20, 3, 50, 130),
)
ERRORS = [
    (GAUSSIAN, edm.euler, [5.13e-2, 2.61e-2, 1.32e-2, 6.61e-3]),
    (GAUSSIAN, edm.heun, [6.95e-3, 1.69e-3, 4.17e-4, 1.04e-4]),
    (THREE, edm.euler, [2.16e-2, 1.12e-2, 5.69e-3, 2.87e-3]),
    (THREE, edm.heun, [3.49e-3, 8.59e-4, 2.13e-4, 5.28e-5]),
]


@pytest.mark.parametrize(("case", "solver", "wanted"), ERRORS)
def test_order_of_the_solvers(case, solver, wanted):
    mixture, starts = case
    exact = mixture.flow(starts[:, None], 80, 0.002)
    error = points(*(
        (solver(mixture.denoise, starts[:, None], edm.noise_levels(n).flip(0))[-1] - exact).abs().max()
        for n in (41, 81, 161, 321)
    ))  # fmt: skip
    torch.testing.assert_close(error, points(*wanted), rtol=5e-3, atol=0)
    orders = (error[:-1] / error[1:]).log2()
    order, slack = (1, 0.05) if solver is edm.euler else (2, 0.1)
    assert (orders - order).abs().max() < slack


def test_path_and_number_of_denoisings():
    calls = []

    def denoise(x, t):
        calls.append(float(t))
        return 0.5 * x

    x = torch.ones(2, 1, 3, 3)
    falling = torch.cat([edm.noise_levels(18).flip(0), torch.zeros(1)])
    path = edm.heun(denoise, x, falling)
    assert path.shape == (19, 2, 1, 3, 3) and path.dtype == x.dtype and torch.equal(path[0], x)
    assert len(calls) == 35 and min(calls) > 0
    calls.clear()
    edm.euler(denoise, x, falling)
    assert len(calls) == 18


def test_rising_levels_lead_back():
    mixture, starts = THREE
    levels = edm.noise_levels(321)
    clean = edm.heun(mixture.denoise, starts[:, None], levels.flip(0))[-1]
    torch.testing.assert_close(
        edm.heun(mixture.denoise, clean, levels)[-1], starts[:, None], rtol=2e-2, atol=0
    )

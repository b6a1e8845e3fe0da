"""Hypergradients on a problem whose minimum is known, and on networks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fusionlab.bilevel import (
    as_function,
    conjugate_gradient,
    constant,
    descend,
    finite_difference,
    fixed_length,
    flat,
    implicit,
    mixed_product,
    neumann,
    parameters_of,
    single_step,
    unrolled,
    zero_order,
)


class Quadratic:
    """L = sum_i beta_i |A_i w - b_i|^2 and F = |C w - d|^2 / 2 for w of 20 numbers, all float64.

    `slope` times column j of every A_i by 10^(-slope j / 19), which makes the lower problem ill-conditioned.
    """

    beta = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

    def __init__(self, seed: int = 0, slope: float = 0.0) -> None:
        draw = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
        self.A, self.b = torch.randn(4, 30, 20, **draw) / 30**0.5, torch.randn(4, 30, **draw)
        self.C, self.d = torch.randn(30, 20, **draw) / 30**0.5, torch.randn(30, **draw)
        self.A = self.A * 10 ** (-slope * torch.arange(20, dtype=torch.float64) / 19)
        curvatures = torch.linalg.eigvalsh(self.hessian(self.beta))
        self.lowest, self.highest = curvatures[0].item(), curvatures[-1].item()
        self.best = self.minimum(self.beta)
        self.exact = implicit(self.lower, self.upper, self.best, self.beta)

    def lower(self, w, beta):
        return beta @ (self.A @ w["w"] - self.b).square().sum(-1)

    def upper(self, w):
        return (self.C @ w["w"] - self.d).square().sum() / 2

    def hessian(self, beta):
        return 2 * torch.einsum("k,kij,kil->jl", beta, self.A, self.A)

    def minimum(self, beta):
        pull = 2 * torch.einsum("k,kij,ki->j", beta, self.A, self.b)
        return {"w": torch.linalg.solve(self.hessian(beta), pull)}


QUADRATIC = Quadratic()
START = {"w": torch.zeros(20, dtype=torch.float64)}
LARGEST_STEP = 2 / (QUADRATIC.lowest + QUADRATIC.highest)


def apart(found, wanted):
    """The relative distance of two vectors."""
    return ((found - wanted).norm() / wanted.norm()).item()


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


def test_the_implicit_gradient_is_the_slope_of_the_true_minimum():
    q, h = QUADRATIC, 1e-5
    assert q.highest / q.lowest == pytest.approx(5.24, abs=5e-3)
    slopes = [
        (q.upper(q.minimum(q.beta + h * unit)) - q.upper(q.minimum(q.beta - h * unit))) / (2 * h)
        for unit in torch.eye(4, dtype=torch.float64)
    ]
    assert apart(torch.stack(slopes), q.exact) < 2e-9
    assert q.exact.norm() == pytest.approx(18.5, abs=0.01)
    assert abs(q.beta @ q.exact) < 1e-12  # w* ignores the scale of beta


@pytest.mark.parametrize(
    ("steps", "from_best", "from_zero", "conjugate"),
    [(1, 3.0e-1, 1.7, 3.0e-1), (5, 2.0e-2, 4.2e-1, 1.9e-3), (10, 3.8e-3, 9.8e-2, 1.1e-5)]
    + [(20, 6.3e-5, 4.3e-3, None), (50, 5.4e-10, 1.0e-7, None)],
)
def test_iterations_approach_the_exact_gradient_as_measured(steps, from_best, from_zero, conjugate):
    q = QUADRATIC
    terms = implicit(q.lower, q.upper, q.best, q.beta, neumann(steps, LARGEST_STEP))
    path = unrolled(q.lower, q.upper, q.best, q.beta, LARGEST_STEP, steps)
    assert apart(path, terms) < 1e-12  # K steps from w* are K terms
    assert apart(path, q.exact) == pytest.approx(from_best, rel=0.03)
    far = unrolled(q.lower, q.upper, START, q.beta, LARGEST_STEP, steps)
    assert apart(far, q.exact) == pytest.approx(from_zero, rel=0.03)
    conjugates = implicit(q.lower, q.upper, q.best, q.beta, conjugate_gradient(steps))
    error = apart(conjugates, q.exact)
    assert error < 1e-12 if conjugate is None else error == pytest.approx(conjugate, rel=0.03)


def test_one_step_is_the_update_differentiated_and_points_near_the_truth():
    q = QUADRATIC
    for rate, length in ((1e-4, 1.9e-4), (0.1, 0.19), (1 / q.highest, 0.50), (LARGEST_STEP, 0.84)):
        step = single_step(q.lower, q.upper, q.best, q.beta, rate)
        assert apart(step, unrolled(q.lower, q.upper, q.best, q.beta, rate, steps=1)) < 1e-12
        assert cosine(step, q.exact) == pytest.approx(0.961, abs=1e-3)
        assert step.norm() / q.exact.norm() == pytest.approx(length, abs=5e-3)


def test_one_step_turns_towards_the_truth_and_away_from_beta_as_the_lower_problem_converges():
    q, w = QUADRATIC, START
    wanted = {0: 0.214, 1: 0.768, 3: 0.915, 10: 0.954, 30: 0.961}
    drift = {0: 0.95, 10: 0.003}  # cosine to beta: how far one step takes beta's scale for a learning rate
    for k in range(31):
        step = single_step(q.lower, q.upper, w, q.beta, 1 / q.highest)
        if k in wanted:
            assert cosine(step, q.exact) == pytest.approx(wanted[k], abs=1e-3), k
        if k in drift:
            assert cosine(step, q.beta) == pytest.approx(drift[k], abs=5e-3), k
        w = descend(q.lower, w, q.beta, 1 / q.highest)


@pytest.mark.parametrize(
    ("slope", "low", "high"), [(0.0, 0.90, 0.995), (0.5, 0.51, 0.92), (1.0, -0.27, 0.75), (1.5, -0.80, 0.96)]
)
def test_ill_conditioning_can_turn_one_step_uphill(slope, low, high):
    problems = [Quadratic(seed, slope) for seed in range(5)]
    found = [cosine(single_step(q.lower, q.upper, q.best, q.beta, 1 / q.highest), q.exact) for q in problems]
    assert low - 0.006 < min(found) < low + 0.006
    assert high - 0.006 < max(found) < high + 0.006


@pytest.mark.parametrize("length", [1e-6, 1e-4, 1e-2, 1.0])
def test_on_a_quadratic_only_rounding_parts_central_differences_from_the_exact_product(length):
    """Its third derivatives are 0: the error falls as 1/delta, while a forward difference errs by delta."""
    q = QUADRATIC

    def product(*how):
        return single_step(q.lower, q.upper, q.best, q.beta, 0.1, *how)

    central = apart(product(finite_difference(fixed_length(length))), product())
    forward = apart(product(finite_difference(fixed_length(length), "forward")), product())
    assert 1e-17 < central < 2e-14 / length
    assert forward == pytest.approx(0.41 * length, rel=0.05)


def test_the_rules_of_displacement():
    """On L = beta w^3 the central difference with displacement D errs by D^2 for every v."""
    w, beta = {"w": torch.zeros((), dtype=torch.float64)}, torch.ones((), dtype=torch.float64)
    v = {"w": torch.tensor(4.0, dtype=torch.float64)}

    def square(rule):
        return finite_difference(rule)(lambda w, beta: beta * w["w"] ** 3, w, beta, v).item() / 4

    assert square(None) == pytest.approx(1e-4) == square(fixed_length(0.01))
    assert square(fixed_length(0.5)) == pytest.approx(0.25)
    assert square(constant(0.01)) == pytest.approx((0.01 * 4) ** 2)


def test_zero_order_is_no_gradient_at_all_unless_the_upper_loss_holds_beta():
    q, beta = QUADRATIC, QUADRATIC.beta.clone().requires_grad_()
    assert zero_order(q.upper, q.best, beta) is None
    direct = zero_order(lambda w: q.upper(w) + (beta**2).sum(), q.best, beta)
    assert torch.equal(direct, 2 * q.beta)


class Net(nn.Module):
    """Convolutions with batch norm and kinks, 2 -> 8 -> 1 channels, one parameter frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
        )
        self.layers[3].bias.requires_grad_(False)

    def forward(self, ir, vi):
        return self.layers(torch.cat([ir, vi], dim=1)).tanh()


def on_a_network(dtype, train=True):
    """A fresh network in a small bilevel problem: itself, its lower terms, lower and upper loss, w, beta."""
    torch.manual_seed(0)
    network = Net().to(dtype).train(train)
    ir, vi = torch.rand(2, 4, 1, 24, 24, dtype=dtype)
    call, target = as_function(network), (ir + vi.square()) / 2

    def terms(w):
        fused = call(w, ir, vi)
        references = (ir, vi, torch.maximum(ir, vi))
        return torch.stack([(fused - x).abs().mean() for x in references] + [F.mse_loss(fused, ir)])

    def upper(w):
        return F.mse_loss(call(w, vi, ir).sigmoid(), target)

    beta = torch.full((4,), 0.25, dtype=dtype)
    return network, terms, lambda w, beta: beta @ terms(w), upper, parameters_of(network), beta


def test_the_product_is_one_dot_product_for_each_term_of_the_loss():
    """Against a backward pass for each term, at another point than zero and in training mode."""
    network, terms, lower, upper, w, beta = on_a_network(torch.float64)
    assert len(w) == len(list(network.parameters())) - 1  # the frozen one is no variable
    v = torch.func.grad(upper)(descend(lower, w, beta, 0.1))
    leaves = {name: weight.clone().requires_grad_() for name, weight in w.items()}
    slow = []
    for term in terms(leaves):
        slopes = torch.autograd.grad(term, list(leaves.values()), retain_graph=True)
        slow.append(sum((a * b).sum() for a, b in zip(slopes, v.values())))
    assert apart(mixed_product(lower, w, beta, v), torch.stack(slow)) < 1e-12
    step = single_step(lower, upper, w, beta, 0.1)
    assert apart(step, unrolled(lower, upper, w, beta, 0.1, steps=1)) < 1e-12
    network.eval()
    assert apart(single_step(lower, upper, w, beta, 0.1), step) > 0.1  # batch statistics enter the gradient


@pytest.mark.parametrize("train", [True, False])
def test_in_float32_darts_rule_is_near_the_exact_product_and_too_small_a_displacement_is_not(train):
    _, _, lower, upper, w, beta = on_a_network(torch.float32, train)
    exact = single_step(lower, upper, w, beta, 0.1)
    assert 0 < apart(single_step(lower, upper, w, beta, 0.1, finite_difference()), exact) < 0.1
    rounded = finite_difference(fixed_length(1e-8))
    assert apart(single_step(lower, upper, w, beta, 0.1, rounded), exact) > 0.3


def test_no_hypergradient_changes_a_network():
    network, _, lower, upper, w, beta = on_a_network(torch.float32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    single_step(lower, upper, w, beta, 0.1)
    single_step(lower, upper, w, beta, 0.1, finite_difference())
    unrolled(lower, upper, w, beta, 0.1, steps=2)
    implicit(lower, upper, w, beta, conjugate_gradient(2))
    assert any("running" in name for name in before)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(weight.grad is None for weight in network.parameters())
    assert flat(w).numel() == sum(weight.numel() for weight in w.values())

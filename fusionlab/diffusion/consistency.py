"""Consistency training (CoMoFusion, Eq. 5; Song et al. 2023): a denoiser that agrees with itself.

A consistency function f(x, t) sends every point of one path of the probability-flow ODE to the path's point
at epsilon. It is `edm.preconditioned(network)`, whose boundary f(x, epsilon) = x is built in.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fusionlab.diffusion.edm import EPSILON, Denoiser, T, consistency_preconditioning, noised

Distance = Callable[[Tensor, Tensor], Tensor]
Weight = Callable[[Tensor, Tensor], Tensor]


def squared(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of each sample, (B, ...) and (B, ...) to (B,)."""
    return (x - y).square().flatten(1).mean(dim=1)


def pseudo_huber(x: Tensor, y: Tensor, c: float | None = None) -> Tensor:
    """sqrt(|x - y|^2 + c^2) - c, by default c = 0.00054 sqrt(values a sample) (Song and Dhariwal 2024): (B,).

    A length where points are far apart, so that one far sample does not rule the step; a square where they
    are close. With c far below all gaps it pulls to the median of the targets, which is off the path.
    """
    difference = (x - y).flatten(1)
    c = 0.00054 * math.sqrt(difference.shape[1]) if c is None else c
    return (difference.square().sum(dim=1) + c**2).sqrt() - c


def stack_three(x: Tensor) -> Tensor:
    """(vis, ir, ir) in [0, 1] of images (B, 2, H, W) in [-1, 1], vis first: what colour nets take.

    So LPIPS sees the pair in the released code (the paper does not say); infrared counts twice.
    """
    return (x[:, [0, 1, 1]] + 1) / 2


def unweighted(t: Tensor, u: Tensor) -> Tensor:
    """lambda(t) = 1, as in the released code."""
    return torch.ones_like(t)


def inverse_gap(t: Tensor, u: Tensor) -> Tensor:
    """lambda(t) = 1 / (u - t): close neighbours count as much as far ones (Song and Dhariwal 2024)."""
    return 1 / (u - t)


def consistency_loss(
    student: Denoiser,
    target: Denoiser,
    x: Tensor,
    levels: Tensor,
    generator: torch.Generator,
    distance: Distance = squared,
    weight: Weight = unweighted,
) -> Tensor:
    """E[lambda(t_i) d(f(x_{i+1}, t_{i+1}), f-(x_i, t_i))] over clean x (B, ...) (Eq. 5): a scalar.

    i is uniform over the neighbours in `levels` (N,), rising. Student and target see the same noise, so that
    x_i is where an Euler step from x_{i+1} towards x would land: no solver is needed. The student stands at
    the larger noise; the target is not differentiated. Drawn on the CPU, for the same numbers everywhere.
    """
    i = torch.randint(len(levels) - 1, (len(x),), generator=generator)
    z = torch.randn(x.shape, generator=generator).to(x)
    t, u = levels[i].to(x), levels[i + 1].to(x)
    with torch.no_grad():
        nearer = target(noised(x, t, z), t)
    return (weight(t, u) * distance(student(noised(x, u, z), u), nearer)).mean()


def nearer_level(t: Tensor, stage: int) -> Tensor:
    """Where the target stands in a stage of easy consistency tuning (Geng et al. 2025): (B,) to (B,).

    r = t (1 - n(t) / 2^stage), n(t) = 1 + 8 sigmoid(-t), at least epsilon. In stage 0 that is epsilon, where
    the target is the data, so the network first becomes a denoiser; then the gap halves with each stage.
    """
    return (t * (1 - (1 + 8 * torch.sigmoid(-t)) / 2**stage)).clamp(min=EPSILON)


def tuning_stage(step: int, steps: int, last: int = 6) -> int:
    """The stage at a step: 0 for half of them, then 1 to `last` for equal times."""
    return math.floor((2 * step / steps - 1) * last) + 1 if 2 * step >= steps else 0


def tuning_loss(denoise: Denoiser, x: Tensor, stage: int, generator: torch.Generator) -> Tensor:
    """E[lambda d(f(x_t, t), f(x_r, r))] over clean x (B, ...), the target being f itself, held: a scalar.

    ln t ~ N(-0.4, 2.2^2): further up than in the source, since one step from noise starts at t = 80. d is
    pseudo-Huber; lambda = t / (t - r) / c_out(t) gives every level and stage errors of one size.
    """
    t = (2.2 * torch.randn(len(x), generator=generator) - 0.4).exp().clamp(2 * EPSILON, T).to(x)
    z = torch.randn(x.shape, generator=generator).to(x)
    r = nearer_level(t, stage)
    target = noised(x, r, z)
    if stage:  # else r is epsilon, where f is the identity
        with torch.no_grad():
            target = denoise(target, r)
    weight = t / (t - r) / consistency_preconditioning(t).c_out
    return (weight * pseudo_huber(denoise(noised(x, t, z), t), target)).mean()


def levels_at(step: int, steps: int, first: int = 2, last: int = 200) -> int:
    """N(k) of the released code, which grows from `first` at step 0 to `last` + 1 at `steps`.

    The paper trains with N = 40 throughout.
    """
    grown = math.sqrt(step / steps * ((last + 1) ** 2 - first**2) + first**2)
    return max(1, math.ceil(grown - 1)) + 1


def doubling_at(step: int, steps: int, first: int = 10, last: int = 640) -> int:
    """N(k) of improved training (Song and Dhariwal 2024): `first` + 1, doubled at equal times to `last` + 1.

    Coarse levels are learnt soon and roughly, fine ones make them exact.
    """
    doublings = math.log2(last / first)
    return int(min(first * 2 ** math.floor(step / steps * (doublings + 1)), last)) + 1


def decay_at(n: int, first: int = 2, start: float = 0.95) -> float:
    """mu for N = n, start^(first / (n - 1)), as the released code ties the two: the finer, the slower."""
    return float(start ** (first / (n - 1)))


@torch.no_grad()
def sample(
    consistency: Denoiser,
    x: Tensor,
    levels: Sequence[float],
    generator: torch.Generator,
    epsilon: float = EPSILON,
) -> Tensor:
    """Clean samples from noise x (B, ...) of level levels[0]; one level is one step.

    At each further level, falling, noise is added again up to that level and taken away in one step
    (Song et al. 2023, Algorithm 1).
    """
    clean = consistency(x, levels[0])
    for level in levels[1:]:
        z = torch.randn(x.shape, generator=generator).to(x)
        # A clean sample already has the noise of level epsilon.
        clean = consistency(noised(clean, math.sqrt(level**2 - epsilon**2), z), level)
    return clean


def gaussian_optimum(levels: Tensor, std: float) -> Tensor:
    """Slope of the best consistency function at the largest of `levels`, for Gaussian data and squared loss.

    For data N(m, s^2), f(x, t_N) = m + a_N (x - m) with a_N the product of (s^2 + t_n t_{n+1}) /
    (s^2 + t_{n+1}^2) over neighbours: what Euler's method reaches on the same levels, not the true flow.
    """
    return (std**2 + levels[:-1] * levels[1:]).div(std**2 + levels[1:] ** 2).prod()

"""DDPM: noise schedules, forward and backward process, loss, samplers (Ho et al. 2020; DMFuse, Eq. 2-4).

A schedule is its abar_t, t = 0 ... T, as a tensor (T + 1,), float64, with abar_0 = 1 in front, so that
alpha_bars[t] is that of the paper's t. What is noised is x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z, which
is EDM's x_0 + sigma z times sqrt(abar_t). A denoiser is EDM's, D(x, sigma), so each serves the solvers of
both; a network that predicts z becomes one by `noise_prediction`.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fusionlab.diffusion.edm import Coefficients, Denoiser, append_dims
from fusionlab.errors import UserError

Draw = Literal["paper", "released"]


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """abar_t for beta_t that rises evenly from `first` to `last`, with abar_0 = 1: (steps + 1,), float64.

    DDPM's own, to which DMFuse's text refers.
    """
    return _products(1 - torch.linspace(first, last, steps, dtype=torch.float64))


def cosine_schedule(steps: int = 2000, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """abar_t proportional to cos^2((t/T + s)/(1 + s) pi/2), each beta_t at most `largest`: (steps + 1,).

    Nichol and Dhariwal (2021), at T = 2000 in DMFuse's released code.
    """
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    wanted = ((t + offset) / (1 + offset) * torch.pi / 2).cos().square()
    return _products((wanted[1:] / wanted[:-1]).clamp(min=1 - largest))


def _products(alphas: Tensor) -> Tensor:
    return torch.cat([alphas.new_ones(1), alphas.cumprod(0)])


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """EDM's noise level of x_t / sqrt(abar_t): sqrt((1 - abar) / abar), the root of 1 / SNR."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """The way back, 1 / (1 + sigma^2)."""
    return 1 / (1 + sigma**2)


def timestep_of(alpha_bars: Tensor, sigma: Tensor) -> Tensor:
    """t of each noise level (any shape), between two steps on the straight line of their ln(sigma).

    Exact at the schedule's own levels; below the first one t falls to 0 with sigma, above the last it is T.
    """
    levels = sigma_of(alpha_bars.to(sigma))
    above = torch.searchsorted(levels, sigma.contiguous()).clamp(1, len(levels) - 1)
    low, high = levels.take(above - 1), levels.take(above)
    part = torch.where(above == 1, sigma / high, (sigma / low).log() / (high / low).log())
    return above - 1 + part.clamp(0, 1)


def diffused(x: Tensor, alpha_bar: Tensor | float, z: Tensor) -> Tensor:
    """The forward process in one jump, x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) z (Eq. 2): (B, ...).

    alpha_bar is a number or one a sample, (B,). The paper prints sqrt(alpha_t) x_0, here and in Eq. 4, which
    leaves 99 % of the image at t = T.
    """
    level = append_dims(alpha_bar, x)
    return level.sqrt() * x + (1 - level).sqrt() * z


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) is Gaussian, of mean `clean` x_0 + `noisy` x_t and this variance."""

    clean: Tensor
    noisy: Tensor
    variance: Tensor


def posterior(alpha_bar: Tensor, earlier: Tensor) -> Posterior:
    """The backward step from abar_t to that of an earlier s, abar_s > abar_t (Eq. 3).

    With alpha = abar_t / abar_s and beta = 1 - alpha: sqrt(abar_s) beta / (1 - abar_t) x_0 +
    sqrt(alpha) (1 - abar_s) / (1 - abar_t) x_t and beta (1 - abar_s) / (1 - abar_t). The paper's Eq. 3 has
    I_t in place of I_{t-1} before the semicolon, and calls the variance a standard deviation.
    """
    alpha, left = alpha_bar / earlier, 1 - alpha_bar
    return Posterior(
        clean=earlier.sqrt() * (1 - alpha) / left,
        noisy=alpha.sqrt() * (1 - earlier) / left,
        variance=(1 - alpha) * (1 - earlier) / left,
    )


def noise_prediction(
    alpha_bars: Tensor, told: Literal["t", "level"] = "t"
) -> Callable[[Tensor], Coefficients]:
    """What makes a denoiser of a network that predicts z from x_t, for `edm.preconditioned`.

    D(x, sigma) = x - sigma F(sqrt(abar) x, c_noise). The network is told t, as in DDPM, or sqrt(abar_t), as
    in DMFuse's released code, where t = 5 and t = 100 differ by .004.
    """

    def coefficients(sigma: Tensor) -> Coefficients:
        root = alpha_bar_of(sigma).sqrt()
        label = timestep_of(alpha_bars, sigma) if told == "t" else root
        return Coefficients(c_skip=torch.ones_like(sigma), c_out=-sigma, c_in=root, c_noise=label)

    return coefficients


def predicted_noise(denoise: Denoiser, x: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """eps(x_t, t) of a denoiser, (x_t - sqrt(abar_t) D) / sqrt(1 - abar_t), for t > 0: (B, ...)."""
    level = append_dims(alpha_bar, x)
    return (x - level.sqrt() * _clean(denoise, x, alpha_bar)) / (1 - level).sqrt()


def _clean(denoise: Denoiser, x: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """x_0 as a denoiser guesses it from x_t."""
    level = torch.as_tensor(alpha_bar, dtype=x.dtype, device=x.device)
    return denoise(x / append_dims(level, x).sqrt(), sigma_of(level))


def draw_alpha_bars(alpha_bars: Tensor, n: int, generator: torch.Generator, draw: Draw = "paper") -> Tensor:
    """Noise levels to train at, (n,): "paper" takes t uniform over 1 ... T for each sample.

    "released" takes one t for all, and for each sample sqrt(abar) uniform between those of t - 1 and t, so
    that the network meets every level.
    """
    if draw == "paper":
        return alpha_bars[torch.randint(1, len(alpha_bars), (n,), generator=generator)]
    if draw != "released":
        raise UserError(f"there is no draw {draw!r}; use paper or released")
    t = int(torch.randint(1, len(alpha_bars), (), generator=generator))
    before, after = alpha_bars[t - 1].sqrt(), alpha_bars[t].sqrt()
    part = torch.rand(n, generator=generator, dtype=alpha_bars.dtype)
    return (after + part * (before - after)).square()


def network_loss(
    network: Callable[[Tensor, Tensor], Tensor],
    preconditioning: Callable[[Tensor], Coefficients],
    x: Tensor,
    alpha_bar: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of a network F against what it should answer, of clean x (B, ...): a scalar (Eq. 4).

    alpha_bar (B,) are the levels. F should answer (x_0 - c_skip y) / c_out at y = x_0 + sigma z: with
    `noise_prediction` that is z, so this is Eq. 4 (mean of squares, where a norm is printed); with
    `edm.edm_preconditioning` it is EDM's loss. z is drawn on the CPU, for the same numbers everywhere.
    """
    z = torch.randn(x.shape, generator=generator).to(x)
    sigma = sigma_of(alpha_bar).to(x)
    c_skip, c_out, c_in, c_noise = preconditioning(sigma)
    y = x + append_dims(sigma, x) * z
    # (x - c_skip y) / c_out without the difference of two near numbers.
    wanted = ((1 - append_dims(c_skip, x)) * x - append_dims(c_skip * sigma, x) * z) / append_dims(c_out, x)
    return (network(append_dims(c_in, x) * y, c_noise) - wanted).square().mean()


def timesteps(last: int, n: int) -> Tensor:
    """At most n timesteps from `last` down to 1, as even as whole numbers are, and then 0."""
    even = torch.linspace(1, last, n, dtype=torch.float64).round().long().unique()
    return torch.cat([even.flip(0), torch.zeros(1, dtype=torch.long)])


def ddim_step(
    denoise: Denoiser, x: Tensor, alpha_bar: Tensor, earlier: Tensor, z: Tensor | None = None
) -> Tensor:
    """x_t to x_s at abar_s = `earlier` (Song et al. 2021): without z no chance, with z as much as DDPM has.

    sqrt(abar_s) D + sqrt(1 - abar_s - v) eps + sqrt(v) z, with v = 0 or the variance of the `posterior`.
    Without z it is Euler's step in sigma on x_t / sqrt(abar_t).
    """
    clean = _clean(denoise, x, alpha_bar)
    eps = (x - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
    if z is None:
        return earlier.sqrt() * clean + (1 - earlier).sqrt() * eps
    variance = posterior(alpha_bar, earlier).variance
    return earlier.sqrt() * clean + (1 - earlier - variance).sqrt() * eps + variance.sqrt() * z


def ddpm_step(
    denoise: Denoiser,
    x: Tensor,
    alpha_bar: Tensor,
    earlier: Tensor,
    z: Tensor,
    variance: Literal["posterior", "beta"] = "posterior",
) -> Tensor:
    """x_t to x_s at abar_s = `earlier`: the mean of the `posterior` at the denoiser's guess, and noise.

    Its variance is the posterior's or the larger beta = 1 - abar_t / abar_s; the last step, to abar_0 = 1,
    adds none.
    """
    clean, noisy, spread = posterior(alpha_bar, earlier)
    if variance == "beta":
        spread = torch.where(earlier < 1, 1 - alpha_bar / earlier, 0.0)
    return clean * _clean(denoise, x, alpha_bar) + noisy * x + spread.sqrt() * z


def ddim(denoise: Denoiser, x: Tensor, alpha_bars: Tensor) -> Tensor:
    """Solves from alpha_bars[0] to alpha_bars[-1], rising (n,), 1 at the end for clean images; x (B, ...).

    alpha_bars is often `schedule[timesteps(T, n)]`. Returns the whole path (n, B, ...), as `edm.euler` does.
    """
    path = [x]
    for a, b in pairwise(alpha_bars.to(x)):
        path.append(ddim_step(denoise, path[-1], a, b))
    return torch.stack(path)


def ddpm(
    denoise: Denoiser,
    x: Tensor,
    alpha_bars: Tensor,
    generator: torch.Generator,
    variance: Literal["posterior", "beta"] = "posterior",
) -> Tensor:
    """The same by chance, with new noise in each step (Ho et al. 2020, Algorithm 2): (B, ...), the end alone.

    Drawn on the CPU, for the same numbers everywhere.
    """
    for a, b in pairwise(alpha_bars.to(x)):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x)
        x = ddpm_step(denoise, x, a, b, z, variance)
    return x

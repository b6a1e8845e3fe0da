"""EDM: noise levels, forward process, preconditioning, solvers (Karras et al. 2022; CoMoFusion, Eq. 1-4).

Time and noise level are one: at time t the data carry Gaussian noise of standard deviation t. A denoiser is
any callable D(x, t) with x of shape (B, ...) and t a number, a 0-d tensor or one level a sample, (B,).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON, T, RHO = 0.002, 80.0, 7.0
SIGMA_DATA = 0.5  # of data spread over [-1, 1]; EDM's value, and the released code's

Denoiser = Callable[[Tensor, Tensor | float], Tensor]


def noise_levels(n: int = 40, epsilon: float = EPSILON, t_max: float = T, rho: float = RHO) -> Tensor:
    """The n noise levels of Eq. 2, rising from epsilon to t_max: (n,), float64.

    t_i = (epsilon^(1/rho) + (i - 1)/(n - 1) (t_max^(1/rho) - epsilon^(1/rho)))^rho; n >= 2. EDM's sampler
    runs down the same levels and one step further: `torch.cat([noise_levels(18).flip(0), torch.zeros(1)])`.
    """
    low, high = epsilon ** (1 / rho), t_max ** (1 / rho)
    levels = torch.linspace(low, high, n, dtype=torch.float64) ** rho
    # A power of a root is off by rounding, and the boundary condition needs epsilon itself.
    levels[0], levels[-1] = epsilon, t_max
    return levels


def noised(x: Tensor, t: Tensor | float, z: Tensor) -> Tensor:
    """The forward process in one jump, x_t = x + t z with z ~ N(0, I) (Eq. 2): (B, ...) to the same shape.

    The paper prints dx = sqrt(2t) dw (Eq. 1) and calls it the probability-flow ODE. It is the stochastic
    equation whose marginals these are; the ODE with the same marginals is what `euler` and `heun` solve.
    """
    return x + append_dims(t, x) * z


def append_dims(t: Tensor | float, x: Tensor) -> Tensor:
    """A level, or one per sample (B,), with as many axes as x (B, ...), its dtype and device."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 1))


class Coefficients(NamedTuple):
    """D(x, t) = c_skip x + c_out F(c_in x, c_noise) (Eq. 3): what wraps a network F into a denoiser D."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def edm_preconditioning(t: Tensor, sigma_data: float = SIGMA_DATA) -> Coefficients:
    """EDM's own coefficients (Karras et al. 2022, Table 1): inputs and targets of F have variance 1."""
    total = t**2 + sigma_data**2
    return Coefficients(
        c_skip=sigma_data**2 / total,
        c_out=sigma_data * t / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=_noise_label(t),
    )


def consistency_preconditioning(
    t: Tensor, sigma_data: float = SIGMA_DATA, epsilon: float = EPSILON
) -> Coefficients:
    """The same, moved so that c_skip = 1 and c_out = 0 at t = epsilon, hence D(x, epsilon) = x (Eq. 4).

    The paper gives neither c_in nor c_noise; they are EDM's, as in the released code.
    """
    total = t**2 + sigma_data**2
    return Coefficients(
        c_skip=sigma_data**2 / ((t - epsilon) ** 2 + sigma_data**2),
        c_out=sigma_data * (t - epsilon) / total.sqrt(),
        c_in=1 / total.sqrt(),
        c_noise=_noise_label(t),
    )


def _noise_label(t: Tensor) -> Tensor:
    """ln(t) / 4, at t = 0 that of 1e-44, as in the released code, which adds this to t.

    Clamping the logarithm and not t keeps away from numbers that a processor may round to 0.
    """
    return t.log().clamp(min=math.log(1e-44)) / 4


def preconditioned(
    network: Callable[[Tensor, Tensor], Tensor],
    preconditioning: Callable[[Tensor], Coefficients] = consistency_preconditioning,
) -> Denoiser:
    """The denoiser D of a network F (Eq. 3); the network is called with (B, C, ...) and labels (B,)."""

    def denoise(x: Tensor, t: Tensor | float) -> Tensor:
        level = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        c = preconditioning(level.expand(len(x)))
        c_skip, c_out, c_in = (append_dims(each, x) for each in (c.c_skip, c.c_out, c.c_in))
        return c_skip * x + c_out * network(c_in * x, c.c_noise)

    return denoise


def to_d(denoise: Denoiser, x: Tensor, t: Tensor) -> Tensor:
    """dx/dt of the probability-flow ODE, (x - D(x, t)) / t (Karras et al. 2022, Eq. 3), for t > 0."""
    return (x - denoise(x, t)) / t


def euler(denoise: Denoiser, x: Tensor, levels: Tensor) -> Tensor:
    """Solves the probability-flow ODE from levels[0] to levels[-1] in straight steps, one denoising each.

    x (B, ...) at levels[0]; levels (n,) falling, or rising to add noise without chance; the last may be 0.
    Returns the whole path (n, B, ...), so that [-1] is the end. Error of first order in the step.
    """
    path = [x]
    for t, u in pairwise(levels.to(x)):
        path.append(path[-1] + (u - t) * to_d(denoise, path[-1], t))
    return torch.stack(path)


def heun(denoise: Denoiser, x: Tensor, levels: Tensor) -> Tensor:
    """The same with the mean of the slopes at both ends of each step: two denoisings, second order.

    A step to 0, where there is no slope, is Euler's: 2n - 3 evaluations for n levels that end there
    (Karras et al. 2022, Algorithm 1).
    """
    path = [x]
    for t, u in pairwise(levels.to(x)):
        here = to_d(denoise, path[-1], t)
        ahead = path[-1] + (u - t) * here
        if u > 0:
            ahead = path[-1] + (u - t) * (here + to_d(denoise, ahead, u)) / 2
        path.append(ahead)
    return torch.stack(path)

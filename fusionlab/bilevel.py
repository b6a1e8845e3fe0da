"""Hypergradients: how the minimum of one loss, the lower, moves another, the upper, as a weight beta changes.

The lower problem is a loss L(w, beta) of the parameters w of a network and of beta; the upper one is a loss
F(w) of the parameters alone. Wanted is dF(w*(beta))/dbeta at w* = argmin_w L(w, beta). F never sees beta
itself, so all of it comes through w*:

    dF/dbeta = -J H^-1 v,  with J = d2L/dbeta dw, H = d2L/dw2, v = dF/dw, all at w*        (implicit)
            ~= -eta J v,   with J at w, v at w' = w - eta dL/dw                            (one step)

The second is what DARTS (Liu et al. 2019) and CAF (Eq. 3) take, with J v by finite differences. w is a dict
from name to tensor, as torch.func.functional_call takes it: `parameters_of` and `as_function` make any
nn.Module fit. Nothing here writes to a network. Every result has the shape and dtype of beta.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

Parameters = Mapping[str, Tensor]
Lower = Callable[[Parameters, Tensor], Tensor]  # L(w, beta), a scalar
Upper = Callable[[Parameters], Tensor]  # F(w), a scalar
Product = Callable[[Tensor], Tensor]  # H q of a flat q, (n,) to (n,)
Solve = Callable[[Product, Tensor], Tensor]  # (H, v) to H^-1 v or an approximation, (n,)
Mixed = Callable[[Lower, Parameters, Tensor, Parameters], Tensor]  # (L, w, beta, v) to J v, as beta
Displacement = Callable[[Tensor], Tensor | float]  # |v|, (), to R of w +- R v


def parameters_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network that ask for a gradient, detached: by name, sharing memory with them."""
    return {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}


def as_function(network: nn.Module) -> Callable[..., Tensor]:
    """A network as f(w, *inputs); what w does not name is the network's own.

    Each call works on clones of the buffers: batch norm in training mode normalises as it does, and its
    running statistics stay what they are.
    """

    def call(w: Parameters, *inputs: Tensor) -> Tensor:
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        output: Tensor = functional_call(network, {**buffers, **w}, inputs)
        return output

    return call


def zero_order(upper: Upper, w: Parameters, beta: Tensor) -> Tensor | None:
    """dF/dbeta with w held fixed, what "first order" means in DARTS (xi = 0): a trap, None here.

    F(w) does not contain beta, which shaped w in earlier steps that autograd has not seen: there is no path
    to it, so autograd returns None, which torch.func would have made a silent 0. Where the upper loss does
    contain `beta` (one that asks for a gradient), as in DARTS, this is its direct term.
    """
    value = upper({name: weight.detach().requires_grad_() for name, weight in w.items()})
    return torch.autograd.grad(value, beta, allow_unused=True)[0]


def mixed_product(lower: Lower, w: Parameters, beta: Tensor, v: Parameters) -> Tensor:
    """J v exactly, d/dR of dL(w + R v, beta)/dbeta at R = 0: one pass in forward mode (jvp).

    With L = beta . (L_1 ... L_K) it is the K dot products <dL_i/dw, v>, at the price of one.
    """
    tangent: Tensor = jvp(lambda w: grad(lower, argnums=1)(w, beta), (dict(w),), (dict(v),))[1]
    return tangent


def fixed_length(length: float = 0.01) -> Displacement:
    """R such that the displacement R v has this length: with 0.01 the rule of DARTS, R = 0.01 / |v|."""
    return lambda norm: length / norm


def constant(delta: float) -> Displacement:
    """R = delta whatever v is, Eq. 3 of CAF as printed: how far w moves then follows |v|."""
    return lambda norm: delta


def finite_difference(
    displacement: Displacement | None = None, sides: Literal["central", "forward"] = "central"
) -> Mixed:
    """J v by two gradients of beta at displaced parameters (CAF, Eq. 3), for `single_step`.

    "central" is [dL(w + R v)/dbeta - dL(w - R v)/dbeta] / 2R; "forward" takes w in place of w - R v, over R.
    R is given by `displacement` from |v|, by default by the rule of DARTS. Two passes without a graph in w.
    """
    rule = displacement or fixed_length()
    behind = {"central": -1.0, "forward": 0.0}[sides]

    def product(lower: Lower, w: Parameters, beta: Tensor, v: Parameters) -> Tensor:
        r = rule(flat(v).norm())
        ahead, back = (
            grad(lower, argnums=1)({name: w[name] + side * r * v[name] for name in w}, beta)
            for side in (1.0, behind)
        )
        return (ahead - back) / ((1 - behind) * r)

    return product


def single_step(
    lower: Lower, upper: Upper, w: Parameters, beta: Tensor, rate: float, mixed: Mixed = mixed_product
) -> Tensor:
    """-eta J v(w') with w' = w - eta dL/dw: w* is taken for one step of plain descent at `rate` from w.

    Exact in J v by default; `finite_difference(...)` is the form of Eq. 3, which omits the factor -eta.
    """
    after = descend(lower, w, beta, rate)
    return -rate * mixed(lower, w, beta, grad(upper)(after))


def unrolled(lower: Lower, upper: Upper, w: Parameters, beta: Tensor, rate: float, steps: int) -> Tensor:
    """The gradient of F after so many steps of plain descent from w, backwards through all of them.

    From w* it equals `neumann` with as many terms; memory grows with `steps`.
    """

    def outcome(beta: Tensor) -> Tensor:
        moved: Parameters = w
        for _ in range(steps):
            moved = descend(lower, moved, beta, rate)
        return upper(moved)

    return grad(outcome)(beta)


def implicit(lower: Lower, upper: Upper, w: Parameters, beta: Tensor, solve: Solve | None = None) -> Tensor:
    """-J H^-1 v by the implicit function theorem, true at w = w*(beta), where dL/dw = 0.

    `solve` finds H^-1 v: exactly by default (n passes and an n x n matrix: small problems only), or
    `conjugate_gradient(steps)`, or `neumann(steps, rate)`.
    """
    v = grad(upper)(w)

    def product(q: Tensor) -> Tensor:
        # Backward twice: forward mode through backward would do, but not through batch norm.
        return flat(grad(lambda w: flat(grad(lower)(w, beta)) @ q)(w))

    return -mixed_product(lower, w, beta, unflat((solve or solve_dense)(product, flat(v)), w))


def solve_dense(product: Product, v: Tensor) -> Tensor:
    """H^-1 v with H written out, column by column."""
    columns = [product(unit) for unit in torch.eye(len(v), dtype=v.dtype, device=v.device)]
    return torch.linalg.solve(torch.stack(columns, dim=1), v)


def conjugate_gradient(steps: int) -> Solve:
    """H^-1 v for a positive definite H by so many steps of conjugate gradients, exact after n of them."""

    def solve(product: Product, v: Tensor) -> Tensor:
        found, residual = torch.zeros_like(v), v
        direction, square = residual, residual @ residual
        for _ in range(steps):
            if square <= torch.finfo(v.dtype).eps ** 2 * (v @ v):  # solved: what is left is rounding
                break
            image = product(direction)
            along = square / (direction @ image)
            found, residual = found + along * direction, residual - along * image
            square, before = residual @ residual, square
            direction = residual + square / before * direction
        return found

    return solve


def neumann(steps: int, rate: float) -> Solve:
    """H^-1 v as eta sum_(k < steps) (I - eta H)^k v; it converges where eta is below 2 / (largest of H)."""

    def solve(product: Product, v: Tensor) -> Tensor:
        term, total = v, v
        for _ in range(steps - 1):
            term = term - rate * product(term)
            total = total + term
        return rate * total

    return solve


def descend(lower: Lower, w: Parameters, beta: Tensor, rate: float) -> dict[str, Tensor]:
    """w - eta dL(w, beta)/dw, one step of plain descent; a function of beta too."""
    slope = grad(lower)(w, beta)
    return {name: w[name] - rate * slope[name] for name in w}


def flat(w: Parameters) -> Tensor:
    """All values in one vector (n,), in the order of the dict."""
    return torch.cat([value.reshape(-1) for value in w.values()])


def unflat(vector: Tensor, like: Parameters) -> dict[str, Tensor]:
    """The values of a vector (n,) under the names and shapes of `like`."""
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}

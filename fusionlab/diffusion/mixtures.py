"""Mixtures of Gaussians, whose noise can be taken away exactly: the truth for solvers and networks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fusionlab.diffusion.edm import append_dims


@dataclass(frozen=True)
class Mixture:
    """K round Gaussians in D dimensions: weights (K,) that sum to 1, means (K, D), standard deviations (K,).

    With noise of level t it is again a mixture, of variances s_k^2 + t^2, so everything has a formula.
    Points are (B, D); float64 throughout is a good habit, since t spans five decades.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n points of the noise-free mixture, (n, D). Drawn on the CPU, for the same numbers everywhere."""
        chosen = torch.multinomial(self.weights.cpu(), n, replacement=True, generator=generator)
        means = self.means[chosen]
        z = torch.randn(means.shape, generator=generator, dtype=means.dtype).to(means)
        return means + self.stds[chosen, None] * z

    def log_density(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log p(x; t) of points x (B, D) under noise t: (B,)."""
        return self._log_parts(x, t).logsumexp(dim=1)

    def denoise(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The best denoiser D(x, t) = E[x_0 | x_t = x], (B, D) to the same shape.

        sum_k w_k (s_k^2 x + t^2 m_k) / (s_k^2 + t^2), where w_k is the chance that component k made x.
        """
        parts = self._log_parts(x, t)
        # softmax would wake all threads for a handful of numbers, and solvers call this often.
        chances = (parts - parts.logsumexp(dim=1, keepdim=True)).exp()
        level = append_dims(t, x)[..., None]
        variances = self.stds[None, :, None] ** 2
        guesses = (variances * x[:, None] + level**2 * self.means) / (variances + level**2)
        return torch.einsum("bk,bkd->bd", chances, guesses)

    def score(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The gradient of `log_density` by x, (D(x, t) - x) / t^2, for t > 0."""
        return (self.denoise(x, t) - x) / append_dims(t, x) ** 2

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Moves points (B, D) along the probability-flow ODE from noise level `start` to `end`, exactly.

        One Gaussian: m + (x - m) sqrt((s^2 + end^2) / (s^2 + start^2)). On a line the flow keeps the order of
        points, so it keeps the cumulative probability, and bisection finds the point that has it.
        Raises ValueError for more components in more dimensions, where only a fine solver is left.
        """
        scale = ((self.stds**2 + end**2) / (self.stds**2 + start**2)).sqrt()[:, None]
        alone = self.means + (x[:, None] - self.means) * scale  # where each component alone would send x
        low, high = alone.amin(dim=1), alone.amax(dim=1)
        if len(self.weights) == 1:
            return low
        if x.shape[1] != 1:
            raise ValueError("no exact flow for a mixture in several dimensions; use heun with many levels")
        wanted = self._both_tails(x, start)
        for _ in range(64):  # halves the bracket down to the last digit of float64
            middle = (low + high) / 2
            below, above = self._both_tails(middle, end)
            # The smaller tail has the more digits.
            short = torch.where(wanted[0] < wanted[1], below < wanted[0], above > wanted[1])
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (low + high) / 2

    def _log_parts(self, x: Tensor, t: Tensor | float) -> Tensor:
        """log of weight times density of each component, (B, K)."""
        variances = self.stds**2 + append_dims(t, x) ** 2
        distances = (x[:, None] - self.means).square().sum(dim=2)
        volume = x.shape[1] / 2 * (2 * torch.pi * variances).log()
        return self.weights.log() - distances / (2 * variances) - volume

    def _both_tails(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The probability below and above points (B, 1) on a line under noise t: two of (B, 1)."""
        z = (x - self.means[:, 0]) / (2 * (self.stds**2 + t**2)).sqrt()
        # torch.special.ndtr is (1 + erf) / 2, which leaves no digits in the tails.
        return (torch.erfc(-z) @ self.weights / 2)[:, None], (torch.erfc(z) @ self.weights / 2)[:, None]

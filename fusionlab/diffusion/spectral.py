"""The stationary Gaussian of a set of images: what second moments alone know, drawn and denoised exactly.

At each frequency its channels have a covariance, the cross-spectrum, and frequencies are independent, so the
denoiser (the Wiener filter) and the flow act on each frequency alone. The line that a network has to beat.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fusionlab.diffusion.edm import append_dims


@dataclass(frozen=True)
class SpectralGaussian:
    """Mean (C,), and at each frequency the cross-spectrum, by eigenvalues (H, W, C) and vectors (H, W, C, C).

    Images are periodic, (B, C, H, W); eigenvalues are variances a pixel.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> "SpectralGaussian":
        """That of images x (B, C, H, W)."""
        mean = x.double().mean(dim=(0, 2, 3))
        spectrum = torch.fft.fft2(x.double() - mean[:, None, None], norm="ortho")
        power = torch.einsum("bihw,bjhw->hwij", spectrum, spectrum.conj()) / len(x)
        values, vectors = torch.linalg.eigh(power)
        return cls(mean, values.clamp(min=0), vectors)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n images (n, C, H, W), float32. Drawn on the CPU, for the same numbers everywhere."""
        z = torch.randn((n, len(self.mean), *self.values.shape[:2]), generator=generator).to(self.mean)
        return self._scaled(z, self.values.sqrt(), shifted=False).float()

    def denoise(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The best denoiser E[x_0 | x_t = x] of images (B, C, H, W): each part keeps v / (v + t^2)."""
        noise = append_dims(t, x).double() ** 2
        return self._scaled(x, self.values / (self.values + noise)).to(x)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Moves images (B, C, H, W) along the probability-flow ODE from level `start` to `end`, exactly."""
        return self._scaled(x, ((self.values + end**2) / (self.values + start**2)).sqrt()).to(x)

    def _scaled(self, x: Tensor, gains: Tensor, shifted: bool = True) -> Tensor:
        """Images about the mean, each eigenvector of each frequency times its gain, (B or 1, H, W, C)."""
        mean = self.mean[:, None, None]
        spectrum = torch.fft.fft2(x.double() - (mean if shifted else 0), norm="ortho")
        gains = gains.expand(1, *gains.shape[-3:]) if gains.ndim == 3 else gains
        parts = torch.einsum("hwji,bjhw->bhwi", self.vectors.conj(), spectrum) * gains
        return torch.fft.ifft2(torch.einsum("hwij,bhwj->bihw", self.vectors, parts), norm="ortho").real + mean

"""The Wiener filter: the denoiser that a power spectrum alone allows, a line that a network has to beat."""

import torch
from torch import Tensor

from fusionlab.diffusion.edm import append_dims


class Wiener:
    """The best linear denoiser of stationary images on a torus: keeps S / (S + sigma^2) of each wave.

    Fitted to images (N, C, H, W), for images of that size: S is their mean power spectrum about their mean.
    """

    def __init__(self, images: Tensor) -> None:
        self.mean = images.mean(dim=(0, 2, 3), keepdim=True)
        waves = torch.fft.rfft2(images - self.mean, norm="ortho")
        self.power = waves.abs().square().mean(dim=0, keepdim=True)  # of white noise: its variance

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """The denoised images, (B, C, H, W) with noise of level sigma to the same shape."""
        gain = self.power / (self.power + append_dims(sigma, x) ** 2)
        waves = torch.fft.rfft2(x - self.mean, norm="ortho")
        return self.mean + torch.fft.irfft2(gain * waves, s=x.shape[-2:], norm="ortho")

"""The Wiener filter on noise whose spectrum is known, beside the exact error of the best linear denoiser."""

import pytest
import torch

from fusionlab.diffusion.wiener import Wiener


def smooth(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n Gaussian images of mean .3 on an 8x10 torus, and the spectrum they are drawn from."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(n, 1, 8, 10, generator=generator, dtype=torch.float64)
    y, x = torch.fft.fftfreq(8)[:, None], torch.fft.rfftfreq(10)
    power = (1 / (0.02 + x**2 + y**2)).double()
    return 0.3 + torch.fft.irfft2(
        torch.fft.rfft2(white, norm="ortho") * power.sqrt(), s=(8, 10), norm="ortho"
    ), power


def test_it_reaches_the_least_error_and_no_other_gain_does():
    images, power = smooth(20_000, 0)
    line = Wiener(images)
    torch.testing.assert_close(line.power[0, 0], power, rtol=0.08, atol=0)
    fresh, _ = smooth(5_000, 1)
    twice = torch.full((6,), 2.0, dtype=torch.float64)  # waves that stand for two, but the first and the last
    twice[[0, -1]] = 1.0
    for sigma in (0.5, 3.0):
        z = torch.randn(fresh.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        error = (line(fresh + sigma * z, sigma) - fresh).square().mean().item()
        least = ((power * sigma**2 / (power + sigma**2)) * twice).sum().item() / 80
        assert error == pytest.approx(least, rel=0.02)
        for wrong in (0.5 * sigma, 2 * sigma):
            assert (line(fresh + sigma * z, wrong) - fresh).square().mean().item() > error
    levels = torch.tensor([0.5, 3.0], dtype=torch.float64)
    both = line(fresh[:2], levels)
    torch.testing.assert_close(both[1:], line(fresh[1:2], 3.0))
    assert torch.allclose(line(fresh[:2], 0.0), fresh[:2])

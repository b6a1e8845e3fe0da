"""The Gaussian of a spectrum: correlations of what it draws; its denoiser and flow by closed forms."""

import pytest
import torch

from fusionlab.diffusion import edm, likeness
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.diffusion.spectral import SpectralGaussian


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_cameras() -> torch.Tensor:
    """Ramps seen by two channels with opposite signs, (256, 2, 16, 16)."""
    ramp = torch.cumsum(torch.randn(256, 1, 16, 16, generator=generator()), dim=3) / 8
    return torch.cat([ramp, 0.5 - ramp + 0.2 * torch.randn(ramp.shape, generator=generator(1))], dim=1)


def test_what_is_drawn_has_mean_deviation_and_correlations_of_the_data_and_no_edges():
    x = two_cameras()
    drawn = SpectralGaussian.fit(x).sample(4096, generator(2))
    spread = (x - x.mean(dim=(0, 2, 3), keepdim=True)).square().mean(dim=(0, 2, 3)).sqrt()
    torch.testing.assert_close(drawn.mean(dim=(0, 2, 3)), x.mean(dim=(0, 2, 3)), atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std(dim=(0, 2, 3)), spread, rtol=0.03, atol=0)

    def lag(images: torch.Tensor, by: int) -> float:
        """Correlation of one channel with the other, some columns on, around the edge as well."""
        a, b = (images - images.mean(dim=(0, 2, 3), keepdim=True)).unbind(dim=1)
        return ((a * b.roll(by, dims=2)).mean() / (a.square().mean() * b.square().mean()).sqrt()).item()

    for by in (0, 1, 3):
        assert lag(drawn, by) == pytest.approx(lag(x, by), abs=0.03)
    # Edges in one place with contrasts that do not depend on each other: second moments know nothing of it.
    edges = torch.zeros(256, 2, 16, 16)
    edges[:, :, 5:9, 3:7] = torch.randn(256, 2, 1, 1, generator=generator())
    gaussian = SpectralGaussian.fit(edges).sample(256, generator(1))
    assert likeness.edge_correlation(edges).mean() > 0.99
    assert likeness.edge_correlation(gaussian).mean().abs() < 0.05


def test_denoiser_and_flow_of_white_images_are_those_of_one_round_gaussian():
    x = 0.5 * torch.randn(4096, 1, 4, 4, generator=generator(), dtype=torch.float64) + 0.3
    white = SpectralGaussian.fit(x)
    white = SpectralGaussian(
        torch.full_like(white.mean, 0.3), torch.full_like(white.values, 0.25), white.vectors
    )
    one = Mixture(
        torch.ones(1).double(), torch.full((1, 16), 0.3, dtype=torch.float64), torch.tensor([0.5]).double()
    )
    noised = x[:8] + 2 * torch.randn(8, 1, 4, 4, generator=generator(1), dtype=torch.float64)
    levels = torch.linspace(0.1, 3, 8, dtype=torch.float64)
    for ours, theirs in (
        (white.denoise(noised, 2.0), one.denoise(noised.flatten(1), 2.0)),
        (white.denoise(noised, levels), one.denoise(noised.flatten(1), levels)),
        (white.flow(noised, 2.0, 0.002), one.flow(noised.flatten(1), 2.0, 0.002)),
    ):
        torch.testing.assert_close(ours.flatten(1), theirs, atol=1e-12, rtol=0)


def test_flow_solves_the_ode_of_its_own_denoiser_and_no_linear_filter_denoises_better():
    x = two_cameras().double()
    model = SpectralGaussian.fit(x)
    z = torch.randn(x.shape, generator=generator(3), dtype=torch.float64)
    solved = edm.heun(model.denoise, edm.noised(x, 5.0, z)[:2], edm.noise_levels(400, 0.01, 5.0).flip(0))[-1]
    torch.testing.assert_close(solved, model.flow(edm.noised(x, 5.0, z)[:2], 5.0, 0.01), atol=2e-4, rtol=0)

    def error(denoised: torch.Tensor) -> float:
        return (denoised - x).square().mean().item()

    noised = edm.noised(x, 0.5, z)
    blind = torch.stack([SpectralGaussian.fit(x[:, [c]]).denoise(noised[:, [c]], 0.5) for c in (0, 1)], 1)
    assert error(model.denoise(noised, 0.5)) < 0.97 * error(blind[:, :, 0])  # each channel helps the other
    assert error(model.denoise(noised, 0.5)) < error(model.denoise(noised, 0.6)) < error(noised)

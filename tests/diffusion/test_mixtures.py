"""Mixtures: denoiser against integration, score against differences, flow against published values."""

import pytest
import torch

from fusionlab.diffusion import edm
from fusionlab.diffusion.mixtures import Mixture


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


THREE = Mixture(points(0.3, 0.5, 0.2), points(-0.6, 0.1, 0.7)[:, None], points(0.1, 0.2, 0.05))


def test_density_and_denoiser_are_the_integrals_they_stand_for():
    clean = torch.linspace(-2, 2, 20_001, dtype=torch.float64)[:, None]
    step = clean[1, 0] - clean[0, 0]
    prior = THREE.log_density(clean, 0.0).exp()
    assert (prior.sum() * step).item() == pytest.approx(1, abs=1e-9)
    for t in (0.05, 0.4, 3.0):
        for x in (-0.7, 0.0, 0.4):
            noise = torch.distributions.Normal(points(x), t).log_prob(clean[:, 0]).exp()
            density = (prior * noise).sum() * step
            mean = (prior * noise * clean[:, 0]).sum() * step / density
            here = points(x)[:, None]
            assert THREE.log_density(here, t).exp().item() == pytest.approx(density.item(), rel=1e-8)
            assert THREE.denoise(here, t).item() == pytest.approx(mean.item(), abs=1e-8)


def test_score_is_the_gradient_of_the_log_density():
    mixture = Mixture(
        points(0.4, 0.6), torch.tensor([[0.0, 1.0], [0.5, -0.5]], dtype=torch.float64), points(0.2, 0.3)
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    t = torch.rand(20, generator=generator, dtype=torch.float64) + 0.1
    h = 1e-5
    for axis in range(2):
        e = h * torch.eye(2, dtype=torch.float64)[axis]
        difference = (mixture.log_density(x + e, t) - mixture.log_density(x - e, t)) / (2 * h)
        torch.testing.assert_close(mixture.score(x, t)[:, axis], difference, atol=2e-8, rtol=0)


def test_samples_have_the_mixture_s_moments():
    x = THREE.sample(100_000, torch.Generator().manual_seed(0))
    mean = (THREE.weights * THREE.means[:, 0]).sum()
    variance = (THREE.weights * (THREE.means[:, 0] ** 2 + THREE.stds**2)).sum() - mean**2
    assert x.shape == (100_000, 1)
    assert x.mean().item() == pytest.approx(mean.item(), abs=4 * (variance / 1e5).sqrt().item())
    assert x.var().item() == pytest.approx(variance.item(), rel=0.02)


def test_flow_of_one_gaussian_in_two_dimensions():
    one = Mixture(points(1), torch.tensor([[0.3, -1.0]], dtype=torch.float64), points(0.5))
    x = torch.tensor([[80.3, -1.0], [0.3, 159.0]], dtype=torch.float64)
    end = one.flow(x, 80, 0.002)
    slope = 0.006249927932
    wanted = torch.tensor([[0.3 + 80 * slope, -1.0], [0.3, -1.0 + 160 * slope]], dtype=torch.float64)
    torch.testing.assert_close(end, wanted, atol=1e-9, rtol=0)
    torch.testing.assert_close(one.flow(end, 0.002, 80), x, atol=1e-9, rtol=0)


def test_flow_of_three_gaussians_on_a_line():
    starts = points(-90, -20, 3, 50, 130)[:, None]
    wanted = points(-0.61663388, -0.06655735, 0.06462841, 0.32335182, 0.73242013)[:, None]
    end = THREE.flow(starts, 80, 0.002)
    torch.testing.assert_close(end, wanted, atol=1e-8, rtol=0)
    torch.testing.assert_close(THREE.flow(end, 0.002, 80), starts, rtol=1e-10, atol=0)
    halfway = THREE.flow(starts, 80, 1.0)
    torch.testing.assert_close(THREE.flow(halfway, 1.0, 0.002), wanted, atol=1e-8, rtol=0)


def test_flow_far_in_both_tails_keeps_its_digits():
    far = points(-640, 640)[:, None]  # eight standard deviations
    end = THREE.flow(far, 80, 0.002)
    torch.testing.assert_close(THREE.flow(end, 0.002, 80), far, rtol=1e-6, atol=0)


def test_flow_by_coordinates_is_the_flow_in_the_plane():
    """A grid of equal blobs is two mixtures on lines: exact in the plane, as a fine solver confirms."""
    across = Mixture(points(0.4, 0.6), points(-0.5, 0.5)[:, None], points(0.1, 0.1))
    down = Mixture(points(0.7, 0.3), points(0.2, -0.6)[:, None], points(0.1, 0.1))
    plane = Mixture(
        torch.outer(across.weights, down.weights).flatten(),
        torch.cartesian_prod(across.means[:, 0], down.means[:, 0]),
        points(0.1).expand(4),
    )
    x = 80 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.cat([across.flow(x[:, :1], 80, 0.002), down.flow(x[:, 1:], 80, 0.002)], dim=1)
    fine = edm.heun(plane.denoise, x, edm.noise_levels(1281).flip(0))[-1]
    torch.testing.assert_close(fine, exact, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="heun"):
        plane.flow(x, 80, 0.002)

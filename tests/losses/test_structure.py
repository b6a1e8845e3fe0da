"""SSIM with both sources: against scikit-image, and whose structure counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from fusionlab.losses.gradient import edge_strength
from fusionlab.losses.structure import structure_loss

OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def images() -> list[torch.Tensor]:
    x = torch.rand(3, 2, 1, 24, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0] = F.avg_pool2d(x[0], 3, 1, 1)  # with fewer edges
    return list(x)


def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
    """Over whole windows, which is what scikit-image averages."""
    return np.mean([structural_similarity(x[0].numpy(), y[0].numpy(), **OPTIONS) for x, y in zip(a, b)])


def test_as_printed_both_sources_count_half():
    ir, vi, fused = images()
    wanted = 1 - (likeness(fused, ir) + likeness(fused, vi)) / 2
    assert structure_loss(fused, ir, vi).item() == pytest.approx(wanted, rel=1e-9)


def test_as_released_edges_weigh_and_black_lies_outside():
    ir, vi, fused = images()
    edges = [edge_strength(x, "zero").mean().item() for x in (ir, vi)]
    a, b, both = (F.pad(x, (5, 5, 5, 5)) for x in (ir, vi, fused))
    wanted = sum(w * (1 - likeness(both, x)) for w, x in zip(edges, (a, b))) / sum(edges)
    assert edges[1] > 1.5 * edges[0]
    assert structure_loss(fused, ir, vi, "released").item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_gradients_are_finite_and_flat_images_agree(variant):
    ir, vi, fused = (x.float() for x in images())
    fused.requires_grad_()
    structure_loss(fused, ir, vi, variant).backward()
    assert fused.grad.isfinite().all() and fused.grad.abs().max() > 0
    flat = torch.full((1, 1, 16, 16), 0.4)
    assert structure_loss(flat, flat, flat, variant).item() == pytest.approx(0, abs=1e-5)

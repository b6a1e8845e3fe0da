"""Likeness of sets: distances of shifted sets in closed form, patches by loops, edges shared or not."""

import pytest
import torch

from fusionlab.diffusion import likeness
from fusionlab.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sliced_distance_of_a_shift_is_its_mean_share_along_a_direction():
    x = torch.randn(400, 3, generator=generator(), dtype=torch.float64)
    shift = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64)
    far = likeness.sliced_wasserstein(x, x[torch.randperm(400)] + shift, generator(1), directions=20_000)
    # Along a random direction of three axes a unit vector has 1/2 on the average.
    assert far.item() == pytest.approx(1.3 / 2, rel=0.02)
    assert likeness.sliced_wasserstein(x, x.flip(0), generator(1)).item() == 0
    with pytest.raises(UserError, match="same size"):
        likeness.sliced_wasserstein(x, x[1:], generator())


def test_patches_are_the_squares_of_a_grid_without_their_mean():
    x = torch.rand(2, 2, 8, 12, generator=generator())
    squares = [x[b, :, i : i + 4, j : j + 4] for b in range(2) for i in (0, 4) for j in (0, 4, 8)]
    slow = torch.stack([(square - square.mean(dim=(1, 2), keepdim=True)).flatten() for square in squares])
    torch.testing.assert_close(likeness.patches(x, 4), slow)


def test_edge_correlation_sees_shared_edges_whatever_their_sign():
    x = torch.rand(3, 1, 16, 16, generator=generator())
    other = torch.rand(3, 1, 16, 16, generator=generator(1))
    torch.testing.assert_close(likeness.edge_correlation(torch.cat([x, 0.3 - x / 2], 1)), torch.ones(3))
    assert likeness.edge_correlation(torch.cat([x, other], 1)).abs().max() < 0.25
    assert likeness.edge_correlation(torch.zeros(1, 2, 8, 8)).item() == 0

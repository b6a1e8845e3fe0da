"""The fusers without learned numbers."""

import pytest
import torch

from fusionlab.methods import baselines


def test_average_and_maximum_by_hand():
    ir, vi = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, 0.25]]]])
    assert baselines.average(ir, vi).tolist() == [[[[0.25, 0.625]]]]
    assert baselines.maximum(ir, vi).tolist() == [[[[0.5, 1.0]]]]


@pytest.mark.parametrize("size", [(16, 16), (37, 52), (121, 64)])
def test_laplacian_pyramid_collapses_to_the_image(size):
    image = torch.rand(2, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pyramid = baselines.laplacian_pyramid(image, 3)
    assert [tuple(level.shape[-2:]) for level in pyramid[:2]] == [
        size,
        ((size[0] + 1) // 2, (size[1] + 1) // 2),
    ]
    torch.testing.assert_close(baselines.collapse(pyramid), image, rtol=0, atol=1e-14)


def test_expand_keeps_a_ramp_in_place():
    """A half-pixel shift between levels would leave detail of half a step in every ramp."""
    ramp = torch.arange(64, dtype=torch.float64).expand(1, 1, 64, 64) / 64
    detail = baselines.laplacian_pyramid(ramp, 1)[0]
    assert detail[..., 8:-8, 8:-8].abs().max() < 1e-12


def test_laplacian_keeps_the_stronger_detail_of_each_source():
    generator = torch.Generator().manual_seed(1)
    texture = 0.1 * torch.randn(1, 1, 64, 64, generator=generator)
    ir, vi = torch.full((1, 1, 64, 64), 0.5), torch.full((1, 1, 64, 64), 0.5)
    ir[..., :32], vi[..., 32:] = ir[..., :32] + texture[..., :32], vi[..., 32:] + texture[..., 32:]
    fused = baselines.laplacian(ir.clamp(0, 1), vi.clamp(0, 1))
    inner = (fused - 0.5)[..., 8:-8, [*range(8, 24), *range(40, 56)]]
    wanted = texture[..., 8:-8, [*range(8, 24), *range(40, 56)]]
    assert torch.corrcoef(torch.stack([inner.flatten(), wanted.flatten()]))[0, 1] > 0.98
    assert inner.std() > 0.9 * wanted.std()


def test_laplacian_of_one_image_with_itself_is_that_image():
    image = torch.rand(1, 1, 45, 33, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(baselines.laplacian(image, image), image, rtol=0, atol=1e-6)

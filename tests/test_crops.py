"""Crops of pairs: the same place in both images, within bounds."""

import pytest
import torch

from fusionlab.crops import crops, draw_crops
from fusionlab.data.pair import Pair
from fusionlab.errors import UserError


def test_crops_take_the_same_place_of_both_images_within_bounds():
    place = torch.arange(40 * 50, dtype=torch.float32).view(1, 1, 40, 50) / 2000
    ir, vi = crops([Pair("a", place, 1 - place)] * 3, per_pair=4, size=32, seed=1)
    assert ir.shape == vi.shape == (12, 1, 32, 32)
    assert torch.equal(vi, 1 - ir)
    assert torch.allclose(ir[:, 0, 1, 0] - ir[:, 0, 0, 0], torch.tensor(50 / 2000))
    assert len({round(x * 2000) for x in ir[:, 0, 0, 0].tolist()}) > 6
    drawn, _ = draw_crops([(place, place), (-place, -place)], 9, 32, torch.Generator().manual_seed(0))
    assert drawn.shape == (9, 1, 32, 32) and len(set(drawn[:, 0, 0, 0].sign().tolist())) == 2
    with pytest.raises(UserError, match="40x50"):
        draw_crops([(place, place)], 1, 41, torch.Generator())

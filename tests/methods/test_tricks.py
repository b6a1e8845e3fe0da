"""Images that cost nothing do what they say."""

import pytest
import torch

from fusionlab.methods import tricks

IR, VI = torch.rand(2, 1, 1, 64, 72, generator=torch.Generator().manual_seed(0))


def test_tricks_do_what_they_say():
    image = tricks.BASELINES["average"](IR, VI)
    assert (tricks.sharpened(image).diff().abs().mean() > 2 * image.diff().abs().mean()).item()
    full = tricks.stretched(image)
    assert (full == 0).double().mean().item() == pytest.approx(0.02, abs=0.005)
    assert (full == 1).double().mean().item() == pytest.approx(0.02, abs=0.005)
    grain = 255 * (tricks.noisy(image / 2 + 0.25, 10) - image / 2 - 0.25)
    assert grain.std().item() == pytest.approx(10, rel=0.05)
    assert torch.equal(tricks.TRICKS["infrared"](IR, VI), IR)
    assert torch.equal(tricks.TRICKS["visible"](IR, VI), VI)
    for trick in tricks.TRICKS.values():
        made = trick(IR, VI)
        assert made.shape == IR.shape and 0 <= made.min() <= made.max() <= 1


def test_clipped_sum_by_hand():
    ir, vi = torch.tensor([[[[0, 100, 200, 255]]]]) / 255, torch.tensor([[[[0, 100, 10, 255]]]]) / 255
    levels = (tricks.clipped_sum(ir, vi) * 255).round().flatten().tolist()
    assert levels == [0, 73, 83, 255]

"""The adaptive weights of CoCoNet by hand, and how they spread on real patches."""

import math

import pytest
import torch

from fusionlab.crops import cut_out
from fusionlab.errors import UserError
from fusionlab.losses.adaptive import (
    gamma_weights,
    grey_entropy,
    mean_gradient,
    per_batch,
    sigma_weights,
)
from fusionlab.metrics.information import entropy


def ramp(slope: float, size: int = 8) -> torch.Tensor:
    return (slope * torch.arange(float(size))).expand(1, 1, size, size)


def test_gradients_and_sigma_by_hand():
    ir, vi = ramp(0.01), ramp(0.03)
    assert mean_gradient(ir).item() == pytest.approx(0.01 * 7 / 8)
    assert mean_gradient(vi.mT).item() == pytest.approx(0.03 * 7 / 8)
    of_ir, of_vi = sigma_weights(ir, vi, "paper")
    assert of_vi.item() == pytest.approx(1 / (1 + math.exp(-255 * 0.02 * 7 / 8)))
    assert of_ir.item() == pytest.approx(1 - of_vi.item(), abs=1e-6)
    assert sigma_weights(ir, vi, "paper", scale=2)[1].item() == pytest.approx(0.5, abs=0.01)
    # Flat images: what is left is the black border, alike on both, so the share is a half.
    flat = torch.full_like(ir, 0.2)
    assert [w.item() for w in sigma_weights(flat, flat)] == [0.5, 0.5]
    one = torch.zeros(1, 1, 32, 32) + 0.5  # 0 from -1 to 1: no border
    edge = one.clone()
    edge[..., 16:, :] = 0.9
    # All strength is in one source: the softmax of (1, 0) / .5.
    assert sigma_weights(one, edge)[1].item() == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-3)
    assert gamma_weights(one, edge)[1].item() == pytest.approx(1 / (1 + math.exp(-4 / 3)))
    assert gamma_weights(one, edge, "paper")[1].item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert [w.item() for w in gamma_weights(one, one)] == [0.5, 0.5]
    for weights in (sigma_weights, gamma_weights):
        with pytest.raises(UserError, match="use paper or released"):
            weights(ir, vi, "printed")


def test_entropy_is_the_metrics_and_accumulates_over_a_batch():
    images = (
        torch.randint(0, 256, (4, 1, 16, 16), generator=torch.Generator().manual_seed(0))
        // (torch.tensor([1, 4, 16, 64])[:, None, None, None])
    )
    own = grey_entropy(images / 255)
    torch.testing.assert_close(own.double(), entropy(images, images, images), rtol=0, atol=1e-5)
    together = grey_entropy(images / 255, accumulate=True)
    for i in range(4):
        joined = images[: i + 1].reshape(1, 1, -1, 16)
        assert together[i].item() == pytest.approx(entropy(joined, joined, joined).item(), abs=1e-5)
    assert own[3] < 2 < together[3]  # the mistake hides that the last image has four grey levels


def test_means_over_a_batch():
    of_ir, of_vi = per_batch((torch.tensor([0.1, 0.5]), torch.tensor([0.9, 0.5])))
    assert of_ir.tolist() == pytest.approx([0.3, 0.3]) and of_vi.tolist() == pytest.approx([0.7, 0.7])


def test_on_real_patches_they_saturate_as_printed_and_hardly_move_as_released(shared):
    """Medians and shares of the larger weight, measured elsewhere on 38 pairs of another copy of TNO."""
    from fusionlab.data import open_pairs

    generator = torch.Generator().manual_seed(0)
    patches = [cut_out(pair.ir, pair.vi, 64, generator) for pair in open_pairs("tno") for _ in range(36)]
    ir, vi = torch.cat([a for a, _ in patches]), torch.cat([b for _, b in patches])

    def larger(weights):
        return torch.maximum(*weights)

    printed = larger(sigma_weights(ir, vi, "paper"))
    assert printed.median().item() == pytest.approx(0.969, abs=0.03)
    assert (printed > 0.99).float().mean().item() == pytest.approx(0.40, abs=0.09)
    small = larger(sigma_weights(ir, vi, "paper", scale=2))
    assert small.median().item() == pytest.approx(0.507, abs=0.002) and (small < 0.55).float().mean() > 0.98
    released = larger(sigma_weights(ir, vi))
    assert released.median().item() == pytest.approx(0.596, abs=0.02) and released.max() < 0.8808
    assert larger(gamma_weights(ir, vi, "paper")).median().item() == pytest.approx(0.659, abs=0.02)
    mended = gamma_weights(ir, vi)
    assert larger(mended).median().item() == pytest.approx(0.520, abs=0.003)
    # The histogram that is not emptied: batches of 30 as in training, whose scenes are mixed.
    order = torch.randperm(1500, generator=generator).split(30)
    bug = torch.cat([gamma_weights(ir[chosen], vi[chosen], accumulate=True)[0] for chosen in order])
    true = torch.cat([mended[0][chosen] for chosen in order])
    assert bug.std() < true.std() / 3
    assert torch.corrcoef(torch.stack([bug, true]))[0, 1].item() == pytest.approx(0.22, abs=0.12)

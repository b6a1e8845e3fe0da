"""The training loop on a problem whose answer is known."""

import torch
from safetensors.torch import load_file
from torch import nn

from fusionlab.data.pair import Pair
from fusionlab.training import crops, fit, save_half


class Mix(nn.Module):
    """w ir + (1 - w) vi with one number to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.0))

    def forward(self, ir, vi):
        return self.w * ir + (1 - self.w) * vi


def squared(network, ir, vi):
    return (network(ir, vi) - (0.3 * ir + 0.7 * vi)).square().mean()


def test_fit_finds_the_known_weight_and_repeats(tmp_path):
    ir, vi = torch.rand(2, 40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    runs = []
    for _ in range(2):
        network = Mix()
        curve = fit(network, squared, ir, vi, epochs=30, batch=7, learning_rate=0.1, seed=4)
        runs.append((curve, network.w.item()))
    assert runs[0] == runs[1]
    assert abs(runs[0][1] - 0.3) < 1e-3
    assert curve[-1] < 1e-3 * curve[0]
    save_half(network, tmp_path / "deep" / "mix.safetensors")
    stored = load_file(tmp_path / "deep" / "mix.safetensors")["w"]
    assert stored.dtype == torch.float16
    assert abs(stored.item() - network.w.item()) < 1e-3


def test_crops_take_the_same_place_of_both_images_within_bounds():
    place = torch.arange(40 * 50, dtype=torch.float32).view(1, 1, 40, 50) / 2000
    ir, vi = crops([Pair("a", place, 1 - place)] * 3, per_pair=4, size=32, seed=1)
    assert ir.shape == vi.shape == (12, 1, 32, 32)
    assert torch.equal(vi, 1 - ir)
    assert torch.allclose(ir[:, 0, 1, 0] - ir[:, 0, 0, 0], torch.tensor(50 / 2000))
    assert len({round(x * 2000) for x in ir[:, 0, 0, 0].tolist()}) > 6

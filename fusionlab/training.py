"""The training loop: random crops, Adam under a one-cycle learning rate, a progress bar."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from fusionlab.data.pair import Pair

Network = TypeVar("Network", bound=nn.Module)


def crops(pairs: Sequence[Pair], per_pair: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random square crops, the same place in both images: two tensors (N, 1, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    ir, vi = [], []
    for pair in pairs:
        height, width = pair.ir.shape[-2:]
        for _ in range(per_pair):
            top = int(torch.randint(height - size + 1, (), generator=generator))
            left = int(torch.randint(width - size + 1, (), generator=generator))
            window = (..., slice(top, top + size), slice(left, left + size))
            ir.append(pair.ir[window])
            vi.append(pair.vi[window])
    return torch.cat(ir), torch.cat(vi)


def fit(
    network: Network,
    objective: Callable[[Network, Tensor, Tensor], Tensor],
    ir: Tensor,
    vi: Tensor,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
) -> list[float]:
    """Minimises `objective(network, ir, vi)` over crops (N, 1, H, W); returns the mean loss of each epoch.

    The learning rate rises to `learning_rate` over the first third and falls to zero (Smith and Topin 2018):
    a small network started at full rate loses its ReLUs for good.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    steps = epochs * math.ceil(len(ir) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    curve = []
    bar = tqdm(range(epochs), desc="training", unit="epoch", leave=False)
    for _ in bar:
        order = torch.randperm(len(ir), generator=generator)
        losses = []
        for chosen in order.split(batch):
            optimiser.zero_grad()
            loss = objective(network, ir[chosen], vi[chosen])
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        curve.append(sum(losses) / len(losses))
        bar.set_postfix(loss=f"{curve[-1]:.4f}")
    return curve


def save_half(network: nn.Module, file: Path) -> None:
    """Writes the weights in half precision, as all weights of this project are shipped."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.detach().half().cpu().contiguous() for key, value in network.state_dict().items()}, file
    )

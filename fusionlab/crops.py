"""Random squares of registered pairs, the same place in both images, for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fusionlab.data.pair import Pair
from fusionlab.errors import UserError
from fusionlab.training import fingerprint

# Pairs (ir, vi), each (1, 1, H, W) in [0, 1]; pairs may differ in size.
ImagePairs = Sequence[tuple[Tensor, Tensor]]


Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Stage:
    """How long and on what a stage trains: random crops, so many a step, at this learning rate.

    `precision` is that of convolutions where noise is taken off in the form that is ours (`train_tuned`,
    `train_ddpm`); all other training is in float32 whatever it says. bfloat16 (autocast) takes 60 % of the
    time where the processor knows it, and far longer where it does not.
    """

    steps: int
    batch: int = 15
    size: int = 160
    rate: float = 1e-4
    seed: int = 0
    precision: Precision = "float32"


class Labelled(NamedTuple):
    """Pairs with what the task should say of them: ir, vi (N, 1, H, W) in [0, 1], labels (N, ...)."""

    ir: Tensor
    vi: Tensor
    labels: Tensor

    def draw(self, batch: int, generator: torch.Generator) -> "Labelled":
        """So many of them at random, with repetition."""
        chosen = torch.randint(len(self.ir), (batch,), generator=generator).to(self.ir.device)
        return Labelled(*(values[chosen] for values in self))


def crops(pairs: Sequence[Pair], per_pair: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random square crops, the same place in both images: two tensors (N, 1, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    cut = [cut_out(pair.ir, pair.vi, size, generator) for pair in pairs for _ in range(per_pair)]
    return torch.cat([ir for ir, _ in cut]), torch.cat([vi for _, vi in cut])


def draw_crops(
    images: ImagePairs, batch: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of random crops of random pairs (ir, vi), each (1, 1, H, W): two tensors (B, 1, size, size)."""
    chosen = torch.randint(len(images), (batch,), generator=generator).tolist()
    cut = [cut_out(images[index][0], images[index][1], size, generator) for index in chosen]
    return torch.cat([ir for ir, _ in cut]), torch.cat([vi for _, vi in cut])


def cut_out(ir: Tensor, vi: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random square of two images (..., H, W); raises UserError where they are smaller than that."""
    height, width = ir.shape[-2:]
    if min(height, width) < size:
        raise UserError(f"no crop of {size} pixels fits into {height}x{width}; ask for smaller crops")
    top = int(torch.randint(height - size + 1, (), generator=generator))
    left = int(torch.randint(width - size + 1, (), generator=generator))
    window = (..., slice(top, top + size), slice(left, left + size))
    return ir[window], vi[window]


def told(images: ImagePairs, checkpoint: Path | None) -> dict[str, object]:
    """What tells these images from others, for the settings of a checkpoint."""
    values = (image for pair in images for image in pair)
    return {"pairs": len(images), "images": fingerprint(values) if checkpoint else ""}

"""Semantic segmentation as CAF's task (Sec. 4.3): a small U-Net, its loss, its data, what it is judged by.

The paper trains SegFormer-b1 on MFNet. Here a U-Net learns from scenes, whose labels are known, or from a
folder of MFNet or MSRS. Its loss is the upper problem of a loss search (`fusionlab.methods.caf.search`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats.contingency import crosstab
from torch import Tensor, nn

from fusionlab.crops import Labelled
from fusionlab.data import Pair
from fusionlab.data.folders import open_folder
from fusionlab.data.imagefile import open_image, read_bytes
from fusionlab.data.pair import luminance
from fusionlab.errors import UserError
from fusionlab.scenes import Truth

# Class numbers of MFNet, MSRS and the scenes; the paper shows eight of the nine, without the car stop.
MFNET = (*("unlabelled", "car", "person", "bike", "curve", "car stop", "guardrail", "colour cone", "bump"),)
LETTERS = len(MFNET)  # the letters on a sign, which scenes alone have
LABEL_FOLDERS = ("segmentation_labels", "labels", "label")  # of MSRS and of copies of it, in any case

# Widths of the four levels: 210,921 and 329,169 parameters with one channel and nine classes.
NARROW, WIDE = (16, 32, 64, 64), (20, 40, 80, 80)


class Segmenter(nn.Module):
    """A U-Net: images (B, 1, H, W), sides from 8, to scores of classes (B, K, H, W).

    Each of four levels is two 3x3 convolutions with batch norm and ReLU, at half the sides of the one above
    it; on the way back maps are enlarged without weights and joined by those of their level.
    """

    def __init__(self, classes: int = len(MFNET), widths: Sequence[int] = NARROW) -> None:
        super().__init__()
        inputs = (1, *widths[:-1])
        self.encoder = nn.ModuleList(level(before, wide) for before, wide in zip(inputs, widths, strict=True))
        decoder, below = [], widths[-1]
        for beside, wide in zip(reversed(widths[:-1]), (*reversed(widths[:-2]), widths[0]), strict=True):
            decoder.append(level(below + beside, wide))
            below = wide
        self.decoder = nn.ModuleList(decoder)
        self.out = nn.Conv2d(below, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) to (B, K, H, W)."""
        maps = [self.encoder[0](image)]
        for layer in self.encoder[1:]:
            maps.append(layer(F.max_pool2d(maps[-1], 2)))
        x = maps.pop()
        for layer in self.decoder:
            beside = maps.pop()
            x = layer(torch.cat([F.interpolate(x, beside.shape[-2:]), beside], dim=1))
        return self.out(x)


def level(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice a 3x3 convolution without bias, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for before in (channels_in, channels_out):
        layers += [
            nn.Conv2d(before, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def segmentation_loss(labels: Tensor, classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross entropy of scores (B, K, H, W) and labels (B, H, W), rare classes of `labels` weighing more.

    A class weighs as one over the root of its share of the pixels, 0 where it does not occur; the weights of
    all pixels have mean 1. Without, a network that calls everything unlabelled is hard to leave.
    """
    counts = labels.flatten().bincount(minlength=classes).float()
    weight = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), 0.0)
    weight = weight * counts.sum() / (weight * counts).sum()
    return partial(F.cross_entropy, weight=weight)


@torch.no_grad()
def said_of(task: nn.Module, images: Tensor) -> Tensor:
    """The most likely class of each pixel, (N, 1, H, W) to (N, H, W), in evaluation mode, one by one."""
    task.eval()
    return torch.cat([task(image[None]).argmax(1) for image in images])


def confusion(said: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts of pixels (K, K): by row what they are, by column what is said of them."""
    levels = (range(classes), range(classes))
    counts = crosstab(labels.flatten().cpu().numpy(), said.flatten().cpu().numpy(), levels=levels).count
    return torch.from_numpy(counts).double()


def iou(counts: Tensor) -> Tensor:
    """Intersection over union of each class, (K, K) to (K,); NaN for one that neither occurs nor is said."""
    return counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())


def recall(counts: Tensor) -> Tensor:
    """The share of each class that is found, "Acc" of Table 2: (K, K) to (K,); NaN for an absent class."""
    return counts.diagonal() / counts.sum(1)


# Data: images with labels, one at a time, then cut or stacked into `Labelled`.


def of_scenes(pairs: Iterable[Pair], signs: bool = False) -> Iterator[Labelled]:
    """Pairs and labels of scenes at half their sides, one at a time; UserError for pairs without truth.

    With `signs` the scenes are those of the case "sign", and its letters are class LETTERS.
    """
    for pair in pairs:
        if pair.truth is None:
            raise UserError(f"{pair.name} has no labels; take scenes, or read_mfnet or read_msrs of a folder")
        labels = pair.truth.labels
        if signs:
            labels = torch.where(letters(pair.truth), LETTERS, labels)
        yield halved(Labelled(pair.ir, pair.vi, labels[None]))


def letters(truth: Truth) -> Tensor:
    """Where the print of a scene of the case "sign" is bright in the clear view, (H, W) bool.

    It is paint of one temperature with its ground, so no infrared camera sees it.
    """
    board = (truth.owner == truth.owner.max()) & (truth.labels == 0)
    if not board.any():
        return board
    level = truth.vi[0, 0]
    return board & (level > (level[board].min() + level[board].max()) / 2)


def read_mfnet(folder: str | Path, split: str) -> Iterator[Labelled]:
    """Pairs and labels of MFNet as published, one at a time: `images`, `labels` and lists such as train.txt.

    An image has four channels, the fourth of them infrared. Raises UserError for missing or other files.
    """
    folder = Path(folder)
    names = read_bytes(folder / f"{split}.txt").decode().split()
    for name in names:
        path = folder / "images" / f"{name}.png"
        values = torch.from_numpy(np.array(open_image(read_bytes(path), path)))
        if values.ndim != 3 or values.shape[2] != 4:
            raise UserError(f"{path} has not the four channels of MFNet; give the folder as published")
        colour, ir = (values.permute(2, 0, 1)[None] / 255).split((3, 1), dim=1)
        yield Labelled(ir, luminance(colour), read_labels(folder / "labels" / f"{name}.png", ir))


def read_msrs(folder: str | Path, split: str) -> Iterator[Labelled]:
    """Pairs and labels of MSRS, one at a time: SPLIT/ir, SPLIT/vi and SPLIT/Segmentation_labels.

    Raises UserError where labels or images are missing.
    """
    pairs = open_folder(folder, split)
    inside = [path for path in (Path(folder) / split).iterdir() if path.name.lower() in LABEL_FOLDERS]
    if len(inside) != 1:
        raise UserError(f"{Path(folder) / split} needs one folder of labels, such as Segmentation_labels")
    for pair in pairs:
        yield Labelled(pair.ir, pair.vi, read_labels(inside[0] / f"{pair.name}.png", pair.ir))


def read_labels(file: Path, like: Tensor) -> Tensor:
    """A label map (1, H, W) of the size of an image, class numbers of MFNET; UserError for anything else."""
    labels = torch.from_numpy(np.array(open_image(read_bytes(file), file)))
    if labels.shape != like.shape[-2:] or not labels.max() < len(MFNET):
        raise UserError(f"{file} is no label map of its image, with one number below {len(MFNET)} a pixel")
    return labels.long()[None]


def halved(seen: Labelled) -> Labelled:
    """The same at half the sides: means of 2x2 pixels, and the label of the first of the four."""
    ir, vi = F.avg_pool2d(seen.ir, 2), F.avg_pool2d(seen.vi, 2)
    height, width = ir.shape[-2:]
    return Labelled(ir, vi, seen.labels[..., ::2, ::2][..., :height, :width])


def keep_classes(seen: Labelled, chosen: Sequence[int]) -> Labelled:
    """The chosen classes as 1, 2, ...; what is of none of them becomes 0."""
    labels = torch.zeros_like(seen.labels)
    for number, name in enumerate(chosen, start=1):
        labels[seen.labels == name] = number
    return seen._replace(labels=labels)


def stacked(seen: Iterable[Labelled]) -> Labelled:
    """All in one, where they are of one size."""
    return Labelled(*(torch.cat(values) for values in zip(*seen, strict=True)))


def squares(seen: Iterable[Labelled], size: int, each: int, seed: int) -> Labelled:
    """So many squares of each image, at random among those that hold a random labelled pixel of it.

    Of a random class first, so that small ones occur; anywhere in an image without labels. The images are
    (1, 1, H, W) with sides from `size`.
    """
    generator = torch.Generator().manual_seed(seed)

    def below(number: int) -> int:
        return int(torch.randint(number, (), generator=generator))

    cut = []
    for one in seen:
        height, width = one.labels.shape[-2:]
        if min(height, width) < size:
            raise UserError(f"no square of {size} pixels fits into {height}x{width}; ask for smaller ones")
        there = [label for label in one.labels.unique().tolist() if label]
        for _ in range(each):
            row, column = below(height), below(width)
            if there:
                places = (one.labels[0] == there[below(len(there))]).nonzero()
                row, column = places[below(len(places))].tolist()
            top, left = (
                min(max(at - below(size), 0), side - size) for at, side in ((row, height), (column, width))
            )
            window = (..., slice(top, top + size), slice(left, left + size))
            cut.append(Labelled(*(values[window] for values in one)))
    return stacked(cut)

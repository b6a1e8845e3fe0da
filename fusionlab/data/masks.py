"""Salient masks: where the infrared image has a target, by a rule or from a file, and patches chosen by them.

CoCoNet drew 18 masks by hand and released none. A mask is (B, 1, H, W), 1 on targets and 0 elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.data.pair import read_image
from fusionlab.errors import UserError


def hot_mask(ir: Tensor, k: float = 2.0, clean: bool = True) -> Tensor:
    """Where an image (B, 1, H, W) is brighter than its own mean + k standard deviations.

    `clean` drops what is narrower than three pixels and widens the rest by one. An image without such pixels
    has an empty mask.
    """
    deviation, mean = torch.std_mean(ir, dim=(1, 2, 3), keepdim=True, correction=0)
    mask = (ir > mean + k * deviation).to(ir.dtype)
    return _widened(_widened(_narrowed(mask))) if clean else mask


def otsu_mask(ir: Tensor) -> Tensor:
    """Where an image (B, 1, H, W) in [0, 1] is above the grey level that parts its histogram best.

    Best is the largest variance between the two classes of 256 levels (Otsu 1979); of a flat image nothing
    is. On infrared images the warm half of the scene comes out, rarely the targets.
    """
    levels = (255 * ir).round().long().flatten(1)
    shares = ir.new_zeros(len(ir), 256).scatter_add(1, levels, torch.ones_like(levels, dtype=ir.dtype))
    shares = shares.double() / levels.shape[1]
    below = shares.cumsum(1)
    moment = (shares * torch.arange(256, device=ir.device)).cumsum(1)
    between = (moment[:, -1:] * below - moment).square() / (below * (1 - below)).clamp_min(1e-12)
    threshold = between.argmax(1).view(-1, 1, 1, 1)
    flat = between.amax(1).view(-1, 1, 1, 1) < 1e-6
    return ((levels.view_as(ir) > threshold) & ~flat).to(ir.dtype)


def read_mask(file: str | Path, like: Tensor) -> Tensor:
    """A mask from an image file, such as one drawn by hand, (1, 1, H, W): 1 where it is brighter than .5.

    Raises UserError where its size is not that of `like`, the infrared image (1, 1, H, W).
    """
    image = read_image(file).mean(dim=1, keepdim=True)  # grey, should it have colours
    if image.shape[-2:] != like.shape[-2:]:
        sizes = [f"{x.shape[-1]}x{x.shape[-2]}" for x in (image, like)]
        raise UserError(f"the mask {file} has {sizes[0]} pixels, its image {sizes[1]}; draw it on that image")
    return (image > 0.5).to(like)


def mask_share(mask: Tensor) -> Tensor:
    """Which share of each image a mask covers, (B, 1, H, W) to (B,)."""
    return mask.mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class SalientPatches:
    """Squares of `size` pixels of images (ir, vi, mask), (1, 1, H, W) each, by their mask share.

    places: of each image the top left corners of all such squares, (n, 2); `salient_patches` finds them.
    """

    images: Sequence[tuple[Tensor, Tensor, Tensor]]
    size: int
    places: Sequence[Tensor]

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """ir, vi, mask of a random batch, (B, 1, size, size) each: an image that has places, then a place."""
        there = [number for number, places in enumerate(self.places) if len(places)]
        cut = []
        for _ in range(batch):
            number = there[int(torch.randint(len(there), (), generator=generator))]
            places = self.places[number]
            top, left = places[int(torch.randint(len(places), (), generator=generator))].tolist()
            cut.append([x[..., top : top + self.size, left : left + self.size] for x in self.images[number]])
        ir, vi, mask = (torch.cat(column) for column in zip(*cut, strict=True))
        return ir, vi, mask


def salient_patches(
    images: Sequence[tuple[Tensor, Tensor, Tensor]], size: int, least: float = 0.02, most: float = 0.98
) -> SalientPatches:
    """All squares whose mask share lies from `least` to `most`, so that neither half of a loss is empty.

    Raises UserError where no image has one.
    """
    places = []
    for _, _, mask in images:
        share = _window_shares(mask, size)
        places.append(((share >= least) & (share <= most)).nonzero().cpu())
    if not any(len(found) for found in places):
        raise UserError(
            f"no square of {size} pixels has a mask on {least:.0%} to {most:.0%} of it; take other bounds, "
            "larger squares, or a rule that marks more"
        )
    return SalientPatches(images, size, places)


def _window_shares(mask: Tensor, size: int) -> Tensor:
    """The share of a mask (1, 1, H, W) in every square, (H - s + 1, W - s + 1), by running sums."""
    if min(mask.shape[-2:]) < size:
        return mask.new_zeros(0, 0)
    sums = F.pad(mask[0, 0].double(), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    bands = sums[size:] - sums[:-size]
    return (bands[:, size:] - bands[:, :-size]) / size**2


def _widened(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask, 3, stride=1, padding=1)


def _narrowed(mask: Tensor) -> Tensor:
    return 1 - _widened(1 - mask)

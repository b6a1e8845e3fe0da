"""Frames of any size: large ones in tiles, odd ones filled up, two 3x3 convolutions faster than conv2d."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Fill = Literal["reflect", "white"]

WHOLE = 3 * 2**19  # pixels up to which a frame is fused as a whole
TILE = 1024
# Tiles begin at multiples of it, so that networks halve the same pixels, and each is framed by so many more.
GRID = 32

# A strip of so many rows and 640 columns, with the hidden maps of it, fits into a megabyte or two of cache.
ROWS = 128


def in_tiles(network: Callable[[Tensor, Tensor], Tensor], ir: Tensor, vi: Tensor, reach: int) -> Tensor:
    """network(ir, vi) of (B, 1, H, W), tile by tile and image by image; equal to the whole but for rounding.

    For networks that have an output depend on inputs up to `reach` pixels away, whose scales differ by up to
    `GRID`: each tile is computed with a frame of its true surroundings, which is cut off again.
    """
    height, width = ir.shape[-2:]
    margin = -(-reach // GRID) * GRID
    result = torch.empty_like(ir)
    for one, fused in zip(zip(ir.split(1), vi.split(1), strict=True), result.split(1), strict=True):
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                above, before = max(top - margin, 0), max(left - margin, 0)
                rows, columns = slice(above, top + TILE + margin), slice(before, left + TILE + margin)
                tile = network(*(image[..., rows, columns] for image in one))
                here = fused[..., top : top + TILE, left : left + TILE]
                y, x = top - above, left - before
                here.copy_(tile[..., y : y + here.shape[-2], x : x + here.shape[-1]])
    return result


def two_convolutions(image: Tensor, first: nn.Sequential, last: nn.Sequential) -> Tensor:
    """last(ReLU(first(image))) of two layers of reflect_conv, (B, C, H, W) to (B, K, H, W).

    Equal to the plain form but for rounding (3e-7 for images in [0, 1]); no gradients. With two to four
    channels conv2d fills a fraction of its vectors, and on large frames, from about 500x500 pixels, it waits
    for fresh memory pages more than it computes; on smaller ones it wins. Here each convolution is nine
    products of its 3x3 places' weights with shifted images, tile by tile of rows.
    """
    height = image.shape[-2]
    _, last_bias = last.parameters()
    result = image.new_empty(len(image), len(last_bias), *image.shape[-2:])
    for one, padded in zip(result, F.pad(image, (1, 1, 1, 1), mode="reflect")):
        for top in range(0, height, ROWS):
            bottom = min(top + ROWS, height)
            above, below = int(top > 0), int(bottom < height)  # hidden rows needed of the neighbouring tiles
            hidden = _convolve(padded[:, top - above : bottom + below + 2], first).relu_()
            hidden = F.pad(hidden[None], (1, 1, 1 - above, 1 - below), mode="reflect")[0]
            one[:, top:bottom] = _convolve(hidden, last)
    return result


def _convolve(padded: Tensor, layer: nn.Sequential) -> Tensor:
    """A 3x3 convolution without padding, (C, R + 2, W + 2) to (K, R, W)."""
    _, height, width = padded.shape
    pixels = padded.flatten(1)
    # In rows of the padded width, so that a shift is an offset; each row's last two values mean nothing.
    count = (height - 2) * width - 2
    weight, bias = layer.parameters()
    result = bias[:, None].repeat(1, count + 2)
    for y in range(3):
        for x in range(3):
            start = y * width + x
            result[:, :count].addmm_(weight[:, :, y, x], pixels[:, start : start + count])
    return result.view(-1, height - 2, width)[:, :, : width - 2]


def filled(image: Tensor, fill: Fill) -> Tensor:
    """(..., H, W) with sides that five levels can halve, filled right and below.

    "reflect" goes back and forth over the image, up to a multiple of 16, 32 at least. "white" is as released,
    up to a multiple of 32; what it adds enters every mean that the network takes.
    """
    height, width = image.shape[-2:]
    if fill == "white":
        return F.pad(image, (0, -width % 32, 0, -height % 32), value=1.0)
    for dim, side in ((-2, height), (-1, width)):
        there = torch.arange(max(32, side + -side % 16), device=image.device) % max(1, 2 * side - 2)
        image = image.index_select(dim, torch.where(there < side, there, 2 * side - 2 - there))
    return image

"""Reading what callers hand to `evaluate`: 8-bit images in any usual container."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionlab.errors import UserError

GreyImage = Tensor | NDArray[Any]
GreyImages = GreyImage | Sequence[GreyImage]


def read_images(images: GreyImages, role: str) -> list[Tensor]:
    """The images as uint8 tensors (1, 1, H, W), where `scoring_device` has them.

    Takes an array or tensor (H, W) or (B, 1, H, W), or a list of such whose sizes may differ. Floats are
    rounded half up, as writing a file rounds them.
    Raises UserError on other shapes, on NaN, on values outside 0..255 and on float images within [0, 1].
    """
    if isinstance(images, Sequence):
        return [image for i, item in enumerate(images) for image in _read(item, f"{role}[{i}]").split(1)]
    return list(_read(images, role).split(1))


def scoring_device(fused: Tensor) -> torch.device:
    """Where a fused image is scored: where it lies, or on the CPU where that device has no float64 (mps).

    What it is compared with, its sources or its truth, is moved there.
    """
    return torch.device("cpu") if fused.device.type == "mps" else fused.device


def _read(image: GreyImage, label: str) -> Tensor:
    x = image if isinstance(image, Tensor) else _tensor(image, label)
    if x.dtype == torch.bool or x.is_complex():
        raise UserError(f"{label} holds {x.dtype} values; pass uint8 grey levels 0..255")
    shape = tuple(x.shape)
    if x.ndim == 2:
        x = x[None, None]
    if x.ndim != 4 or x.shape[1] != 1 or x.numel() == 0:
        raise UserError(f"{label} has shape {shape}; pass grey images (H, W) or (B, 1, H, W), or a list")
    x = x.to(scoring_device(x))
    if x.dtype == torch.uint8:
        return x
    values = x.to(torch.float64)  # every other type fits into it, and torch can compare few of the others
    low, high = values.min().item(), values.max().item()
    if not 0 <= low <= high <= 255:  # NaN fails every comparison
        raise UserError(f"{label} holds values {low:g}..{high:g}; metrics take grey levels 0..255")
    if x.is_floating_point() and (values.amax((1, 2, 3)) <= 1).any():
        raise UserError(f"{label} is a float image within [0, 1]; multiply by 255 or pass uint8")
    return torch.floor(values + 0.5).to(torch.uint8)


def _tensor(array: NDArray[Any], label: str) -> Tensor:
    copy = np.array(array)  # torch takes neither read-only arrays nor negative strides
    try:
        return torch.from_numpy(copy)
    except TypeError as error:
        raise UserError(f"{label} holds {copy.dtype} values; pass uint8 grey levels 0..255") from error

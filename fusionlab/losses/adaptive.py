"""How much each source's likeness counts, measured on the sources themselves (CoCoNet, Eq. 6 to 9).

sigma weighs SSIM by gradients, gamma the squared error by entropy. Both are (of ir, of vi), (B,) each, and
sum to 1; images are (B, 1, H, W) in [0, 1]. No weight carries a gradient.
"""

from typing import Literal

import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.losses.gradient import edge_strength

Weights = tuple[Tensor, Tensor]
AdaptiveForm = Literal["paper", "released"]


@torch.no_grad()
def sigma_weights(
    ir: Tensor, vi: Tensor, form: AdaptiveForm = "released", scale: float = 255.0, temperature: float = 0.5
) -> Weights:
    """sigma^b and sigma^a of Eq. 7, from gradients.

    "paper" is the softmax of Eq. 6 of images of range `scale`, which the paper does not give: at 255 it
    all but chooses one source, at 2 (from -1 to 1) it is .5 whatever the images. "released" is the softmax of
    each source's share in Sobel strength over a `temperature`, between .12 and .88 at .5.
    """
    if form == "paper":
        return _softmax(*(scale * mean_gradient(image) for image in (ir, vi)))
    if form == "released":
        # Of images from -1 to 1, with black around them, as its code has it; the offset is its own.
        strengths = [edge_strength(2 * x - 1, "zero").mean(dim=(1, 2, 3)) + 1e-5 for x in (ir, vi)]
        return _softmax_of_shares(strengths[0], strengths[1], temperature)
    raise UserError(f"there is no form {form!r} of the adaptive weights; use paper or released")


@torch.no_grad()
def gamma_weights(
    ir: Tensor,
    vi: Tensor,
    form: AdaptiveForm = "released",
    temperature: float = 0.75,
    accumulate: bool = False,
) -> Weights:
    """gamma^b and gamma^a of Eq. 9, from the entropy of 8-bit values (Eq. 8).

    "paper" is the softmax of the entropies in bits, "released" that of their shares over a `temperature`,
    .75 by the released instructions and .5 by its code's default. `accumulate` repeats that code's mistake:
    its histogram is not emptied between the images of a batch, so that image i has the entropy of all up to
    it. Flat sources weigh alike.
    """
    entropies = [grey_entropy(image, accumulate) for image in (ir, vi)]
    if form == "paper":
        return _softmax(entropies[0], entropies[1])
    if form == "released":
        return _softmax_of_shares(entropies[0], entropies[1], temperature)
    raise UserError(f"there is no form {form!r} of the adaptive weights; use paper or released")


def per_batch(weights: Weights) -> Weights:
    """The batch's mean in place of each image's weight: what the released code multiplies its SSIM with."""
    of_ir, of_vi = (weight.mean().expand_as(weight) for weight in weights)
    return of_ir, of_vi


def mean_gradient(image: Tensor) -> Tensor:
    """G of Eq. 6, (|forward differences across| + |down|) / HW, (B, 1, H, W) to (B,)."""
    across, down = (image.diff(dim=axis).abs().sum(dim=(1, 2, 3)) for axis in (-1, -2))
    return (across + down) / (image.shape[-1] * image.shape[-2])


def grey_entropy(image: Tensor, accumulate: bool = False) -> Tensor:
    """E of Eq. 8 in bits, 0 to 8, of the 256 grey levels: (B, 1, H, W) in [0, 1] to (B,).

    With `accumulate` that of the image and all before it in the batch.
    """
    levels = (255 * image).round().clamp(0, 255).long().flatten(1)
    counts = image.new_zeros(len(image), 256).scatter_add(
        1, levels, torch.ones_like(levels, dtype=image.dtype)
    )
    if accumulate:
        counts = counts.cumsum(0)
    return torch.special.entr(counts / counts.sum(1, keepdim=True)).sum(1) / torch.log(counts.new_tensor(2.0))


def _softmax(of_ir: Tensor, of_vi: Tensor) -> Weights:
    difference = of_ir - of_vi
    return difference.sigmoid(), (-difference).sigmoid()


def _softmax_of_shares(of_ir: Tensor, of_vi: Tensor, temperature: float) -> Weights:
    total = (temperature * (of_ir + of_vi)).clamp_min(torch.finfo(of_ir.dtype).tiny)
    return _softmax(of_ir / total, of_vi / total)

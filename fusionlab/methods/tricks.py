"""Images that cost nothing: copies of a source, and a plain average or maximum made up for the metrics."""

from collections.abc import Callable

import torch
from torch import Tensor

from fusionlab.methods.baselines import average, blur, laplacian, maximum

Image = Callable[[Tensor, Tensor], Tensor]


def infrared(ir: Tensor, vi: Tensor) -> Tensor:
    """The infrared image itself."""
    return ir


def visible(ir: Tensor, vi: Tensor) -> Tensor:
    """The visible image itself."""
    return vi


def clipped_sum(ir: Tensor, vi: Tensor) -> Tensor:
    """ir + vi - 127 of 255, clipped: where CoMoFusion's L_pvs leads, without any network."""
    return (ir + vi - 127 / 255).clamp(0, 1)


def sharpened(image: Tensor, amount: float = 3.0) -> Tensor:
    """An image in [0, 1] plus `amount` times what a small blur takes from it (unsharp mask), clipped."""
    return (image + amount * (image - blur(image))).clamp(0, 1)


def stretched(image: Tensor, share: float = 0.02) -> Tensor:
    """An image in [0, 1] whose darkest and brightest `share` of pixels become 0 and 1, the rest linear."""
    levels = torch.tensor([share, 1 - share], device=image.device)
    low, high = torch.quantile(image.flatten(), levels)
    return ((image - low) / (high - low).clamp(min=1 / 255)).clamp(0, 1)


def noisy(image: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """An image in [0, 1] plus Gaussian noise of `sigma` grey levels, clipped."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + sigma / 255 * noise.to(image.device)).clamp(0, 1)


BASELINES: dict[str, Image] = {"average": average, "maximum": maximum, "laplacian": laplacian}
TRICKS: dict[str, Image] = {
    "infrared": infrared,
    "visible": visible,
    "clipped sum": clipped_sum,
    "average sharpened": lambda ir, vi: sharpened(average(ir, vi)),
    "average stretched": lambda ir, vi: stretched(average(ir, vi)),
    "maximum sharpened": lambda ir, vi: sharpened(maximum(ir, vi)),
    "average + noise 10": lambda ir, vi: noisy(average(ir, vi), 10),
}

"""The search space of CAF (Liu et al., IJCAI 2024; Figure 1): fifteen losses by name, and their weighted sum.

Five families, each asked of infrared and visible image and mostly of their maximum. "released" repeats what
the released code has otherwise than the paper, two slips included.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.losses import weighted_sum
from fusionlab.losses.gradient import Border, edge_strength
from fusionlab.losses.perceptual import Taps
from fusionlab.metrics.filters import gaussian_taps, moments
from fusionlab.metrics.structure import ssim
from fusionlab.nets.features import Vgg, three_channels, vgg

Preset = Literal["paper", "released"]

# The search space, the names of Figure 1's lambda_a ... lambda_o in its order.
SPACE = (
    *("l1_ir", "l1_vi", "l1_max", "l1_masked_ir", "l1_masked_vi"),
    *("mse_ir", "mse_vi", "mse_max"),
    *("ssim_ir", "ssim_vi"),
    *("gradient_ir", "gradient_vi", "gradient_max"),
    *("perceptual_ir", "perceptual_vi"),
)
ANCHOR = 0.5  # the fixed weight of both masked squared errors, which have no letter in Figure 1


def saliency(image: Tensor) -> Tensor:
    """How far a pixel's level is from all others of its image (Zhai and Shah 2006): (B, 1, H, W) in [0, 1].

    The mean distance to all pixels, by the histogram of 256 levels, from the image's least to its greatest; a
    flat image gives 0.
    """
    levels = (255 * image).round().long().clamp(0, 255)
    grid = torch.arange(256.0, device=image.device)
    distances = (grid[:, None] - grid).abs()
    counts = torch.stack([one.flatten().bincount(minlength=256) for one in levels])
    table = counts.to(distances) @ distances / levels[0].numel()
    raw = table.gather(1, levels.flatten(1)).view(image.shape)
    low, high = raw.amin((1, 2, 3), keepdim=True), raw.amax((1, 2, 3), keepdim=True)
    return ((raw - low) / (high - low).clamp_min(1e-6)).to(image)


def saliency_mask(ir: Tensor, vi: Tensor) -> Tensor:
    """M of Sec. 3.3, what belongs to the infrared image: 1/2 + (S_ir - S_vi)/2, (B, 1, H, W) in [0, 1].

    The paper points to TarDAL for it; this is the form in TarDAL's code that needs no trained network.
    """
    return (1 + saliency(ir) - saliency(vi)) / 2


def search_terms(
    fused: Tensor, ir: Tensor, vi: Tensor, mask: Tensor, variant: Preset = "paper", taps: Taps | None = None
) -> dict[str, Tensor]:
    """The losses of Figure 1, unweighted, by the names of SPACE: scalars of images (B, 1, H, W) in [0, 1].

    Norms are means over pixels, of squares for the "norm 2", in every row: Figure 1 divides only some of its
    sums by HW. "released" halves SSIM, repeats two slips in perception (`perceptual_term`), and sees zeros
    around an image, which makes edges of its borders. Without `taps` the last two are left out.
    """
    outside: Border = "zero" if variant == "released" else "replicate"
    sharp, edges_ir, edges_vi = (edge_strength(image, outside) for image in (fused, ir, vi))
    brighter = torch.maximum(ir, vi)
    found = {
        "l1_ir": (fused - ir).abs().mean(),
        "l1_vi": (fused - vi).abs().mean(),
        "l1_max": (fused - brighter).abs().mean(),
        "l1_masked_ir": (mask * (fused - ir)).abs().mean(),
        "l1_masked_vi": ((1 - mask) * (fused - vi)).abs().mean(),
        "mse_ir": F.mse_loss(fused, ir),
        "mse_vi": F.mse_loss(fused, vi),
        "mse_max": F.mse_loss(fused, brighter),
        "ssim_ir": ssim_term(fused, ir, variant),
        "ssim_vi": ssim_term(fused, vi, variant),
        "gradient_ir": (sharp - edges_ir).abs().mean(),
        "gradient_vi": (sharp - edges_vi).abs().mean(),
        "gradient_max": (sharp - torch.maximum(edges_ir, edges_vi)).abs().mean(),
    }
    if taps is not None:
        seen = taps(fused)
        found["perceptual_ir"] = perceptual_term(seen, taps(ir), variant)
        found["perceptual_vi"] = perceptual_term(seen, taps(vi), variant)
    return found


def ssim_term(fused: Tensor, image: Tensor, variant: Preset) -> Tensor:
    """1 - SSIM, over windows of 11 pixels; "released" halves it, windows of 5 with reflected borders."""
    if variant == "paper":
        return (1 - ssim(fused, image, data_range=1)).mean()
    x, y = (F.pad(one, (2, 2, 2, 2), mode="reflect") for one in (fused, image))
    mean_x, mean_y, variance_x, variance_y, covariance = moments(x, y, gaussian_taps(5, 1.5))
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    contrast = (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)
    return ((1 - luminance * contrast) / 2).clamp(0, 1).mean()


def perceptual_term(seen: Sequence[Tensor], wanted: Sequence[Tensor], variant: Preset) -> Tensor:
    """The sum over layers of the squared mean distance of features (C, H, W each), L_per of Figure 1.

    "released" is a tenth of the sum of mean distances, of detached features: a value that no network can be
    trained by. Finite differences still see it change, and so the search moves its weight.
    """
    if variant == "paper":
        return torch.stack([(a - b).abs().mean().square() for a, b in zip(seen, wanted, strict=True)]).sum()
    distances = [(a.detach() - b.detach()).abs().mean() for a, b in zip(seen, wanted, strict=True)]
    return 0.1 * torch.stack(distances).sum()


def perception(name: str, variant: Preset, device: str | torch.device = "cpu") -> Taps:
    """phi of Figure 1 by a VGG of `fusionlab.nets.features.vgg`: an image to the maps that are compared.

    The paper compares deep maps of VGG-16. "released" takes what stands at places 0, 3, 8, 15 and 22 of that
    network and chains it: the first convolution, then four times a ReLU, so five maps of one layer.
    """
    network = vgg(name).to(device)
    if variant == "paper":
        return lambda image: list(network(image).values())
    return lambda image: chained(network, image)


def chained(network: Vgg, image: Tensor) -> list[Tensor]:
    """The first convolution's map (B, C, H, W), and four times what a ReLU leaves of it."""
    first = network.convs["conv1_1"](
        F.pad(network.conv0(three_channels(image)), (1, 1, 1, 1), mode="reflect")
    )
    return [first, *[first.relu()] * 4]


def fusion_loss(
    fused: Tensor,
    ir: Tensor,
    vi: Tensor,
    weights: Mapping[str, float] | Tensor,
    variant: Preset = "paper",
    taps: Taps | None = None,
) -> Tensor:
    """L^f = sum_i beta_i L_i of Sec. 3.2, and at ANCHOR both squared errors of the row without a letter.

    These are the mean squares of M (F - I_ir) and (1 - M)(F - I_vi). Their weight is not searched, so that
    pull on both sources never vanishes. Images (B, 1, H, W) in [0, 1]; a scalar.
    """
    mask = saliency_mask(ir, vi)
    terms = search_terms(fused, ir, vi, mask, variant, taps)
    anchor = (mask * (fused - ir)).square().mean() + ((1 - mask) * (fused - vi)).square().mean()
    return weighted_sum(terms, weights) + ANCHOR * anchor

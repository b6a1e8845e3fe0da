"""Dynamic refresh: the best earlier outputs of a patch pull on the current one (MMDRFuse, Section 3.3).

Called with (fused, ir, vi, ...) as every loss; it remembers, so it must also be told which patches these are.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.losses.gradient import laplacian_edges
from fusionlab.losses.perceptual import Taps
from fusionlab.metrics.structure import ssim


def ssim_to_both(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """SSIM to the infrared plus SSIM to the visible image (Eq. 6), (B, 1, H, W) in [0, 1] to (B,)."""
    return ssim(fused, ir, data_range=1) + ssim(fused, vi, data_range=1)


def gmsd_to_both(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """GMSD to the infrared plus GMSD to the visible image (Eq. 7), (B, 1, H, W) in [0, 1] to (B,).

    0 for an image equal to both: lower is better.
    """
    return released_gmsd(fused, ir) + released_gmsd(fused, vi)


def released_gmsd(x: Tensor, y: Tensor) -> Tensor:
    """Deviation of the gradient magnitudes' similarity, (B, 1, H, W) in [0, 1] to (B,).

    Xue, Zhang, Mou, Bovik 2014, as MMDRFuse's released code has it: grey levels of 255, c = 170, a 2x2 mean
    of which every second pixel is kept, whole windows only, sample standard deviation. (The metric of this
    name, `fusionlab.metrics.gradient.gmsd`, has zeros around the image, as its authors' code has.)
    """
    a, b = _magnitude(x), _magnitude(y)
    similarity = (2 * a * b + 170) / (a.square() + b.square() + 170)
    return similarity.flatten(1).std(dim=1)


def _magnitude(image: Tensor) -> Tensor:
    smaller = F.avg_pool2d(255 * image, 2)
    prewitt = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=image.dtype, device=image.device) / 3
    across, down = F.conv2d(smaller, torch.stack([prewitt, prewitt.T])[:, None]).split(1, dim=1)
    return (across.square() + down.square()).sqrt()


class Refresh(nn.Module):
    """The history of best outputs and the loss they make; keyed by patch, so the order does not matter.

    A module without weights: its buffers, 2 bytes a pixel of all patches, travel in checkpoints.
    patches: how many there are, numbered from 0. size: their height and width.
    variant: "paper" is Eq. 8, 11 and 12 as printed: the higher score is kept, of GMSD too, where higher is
    worse, and the gap is current minus best, never above 0, so that the loss pushes away from the history.
    "released" keeps the lower GMSD, has positive gaps where the history is better, and multiplies by 10.
    decide: "image" keeps the better output of each patch; "batch" replaces all of a batch or none, by the
    means over the batch, as the released code does.
    past: "random" is the control: the gaps are as before, but the pull is towards any of a patch's outputs so
    far, drawn anew by chance, instead of the best. Our own.
    """

    def __init__(
        self,
        patches: int,
        size: tuple[int, int],
        variant: Literal["paper", "released"],
        decide: Literal["image", "batch"] = "image",
        past: Literal["best", "random"] = "best",
    ) -> None:
        super().__init__()
        self.weight = 10.0 if variant == "released" else -1.0
        self.by_ssim = _Best(patches, size, True, decide, past)
        self.by_gmsd = _Best(patches, size, variant == "paper", decide, past)

    def forward(
        self,
        fused: Tensor,
        ir: Tensor,
        vi: Tensor,
        patches: Tensor,
        taps: Taps | None = None,
        seen: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """L_refresh of Eq. 12 for these patches, whose outputs then take their place in the history.

        fused, ir, vi: (B, 1, H, W), in [0, 1] but for what tanh leaves, where the history is. patches: the
        number of each, int64 (B,), on any device. taps: image to five feature maps, or None to leave the VGG
        terms of Eq. 9 and 10 out; seen: taps(fused), where it is known already. generator: draws a random
        past. Scores and gaps are taken of 8-bit outputs, as the history keeps them, and carry no gradient.
        Returns a scalar, 0 where every output is the best of its patch.
        """
        patches = patches.to(fused.device)
        if taps is not None and seen is None:
            seen = taps(fused)
        output = (255 * fused.detach().clamp(0, 1)).round()
        scored = output / 255
        total = fused.new_zeros(())
        for best, score, pixel, chosen in (
            (self.by_ssim, ssim_to_both(scored, ir, vi), _brightness_distance, slice(3, 5)),  # Eq. 9
            (self.by_gmsd, gmsd_to_both(scored, ir, vi), _edge_distance, slice(0, 3)),  # Eq. 10
        ):
            gap = best.update(patches, output.to(torch.uint8), score, generator)
            behind = gap.nonzero()[:, 0]
            if len(behind):
                history = best.images[patches[behind]].to(fused) / 255
                distance = pixel(fused[behind], history)
                if taps is not None and seen is not None:
                    here, there = [tap[behind] for tap in seen[chosen]], taps(history)[chosen]
                    distance = distance + _feature_distance(here, there)
                total = total + self.weight * (gap[behind] * distance).sum() / len(fused)
        return total


def _brightness_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((1, 2, 3))


def _edge_distance(a: Tensor, b: Tensor) -> Tensor:
    return (laplacian_edges(a) - laplacian_edges(b)).square().mean((1, 2, 3))


def _feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean over the taps, for each image, (B,)."""
    return torch.stack([(x - y).square().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)]).mean(0)


class _Best(nn.Module):
    """The best 8-bit output of each patch by one score, and that score; NaN where there is none yet.

    With a "random" past the image is any of the patch's outputs so far, each with the same chance.
    """

    images: Tensor
    scores: Tensor
    visits: Tensor

    def __init__(
        self,
        patches: int,
        size: tuple[int, int],
        higher: bool,
        decide: Literal["image", "batch"],
        past: Literal["best", "random"],
    ) -> None:
        super().__init__()
        self.sign = 1 if higher else -1
        self.decide = decide
        self.past = past
        self.register_buffer("images", torch.zeros(patches, 1, *size, dtype=torch.uint8))
        self.register_buffer("scores", torch.full((patches,), torch.nan))
        self.register_buffer("visits", torch.zeros(patches, dtype=torch.int64))

    def update(
        self, patches: Tensor, output: Tensor, score: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Keeps what is better; returns how far each score is behind its patch's best, (B,), 0 or more."""
        ahead = self.sign * (score - self.scores[patches])
        if self.decide == "batch":
            ahead = ahead.mean().expand(len(patches))
        better = ~(ahead <= 0)
        self.visits[patches] += 1
        kept = better
        if self.past == "random":  # the n-th output takes the place with chance 1/n: all are equally likely
            kept = torch.rand(len(patches), generator=generator).to(score.device) < 1 / self.visits[patches]
        self.images[patches[kept]] = output[kept]
        self.scores[patches[better]] = score[better]
        return (-ahead).clamp_min(0).nan_to_num(0)

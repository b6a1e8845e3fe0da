"""Dynamic refresh: the best earlier outputs of a patch pull on the current one (MMDRFuse, Section 3.3)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.losses.gradient import laplacian
from fusionlab.metrics.filters import gaussian
from fusionlab.metrics.structure import ssim

Taps = Callable[[Tensor], Sequence[Tensor]]
Variant = Literal["paper", "released"]


def ssim_to_both(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """SSIM to the infrared plus SSIM to the visible image (Eq. 6), (B, 1, H, W) in [0, 1] to (B,)."""
    taps = gaussian(11, 1.5)
    return ssim(fused, ir, taps, 1) + ssim(fused, vi, taps, 1)


def gmsd_to_both(fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
    """GMSD to the infrared plus GMSD to the visible image (Eq. 7), (B, 1, H, W) in [0, 1] to (B,).

    0 for an image equal to both: lower is better.
    """
    return gmsd(fused, ir) + gmsd(fused, vi)


def gmsd(x: Tensor, y: Tensor) -> Tensor:
    """Deviation of the gradient magnitudes' similarity, (B, 1, H, W) in [0, 1] to (B,).

    Xue, Zhang, Mou, Bovik 2014, as MMDRFuse's released code has it: grey levels of 255, c = 170, a 2x2 mean
    of which every second pixel is kept, whole windows only, sample standard deviation.
    """
    a, b = _magnitude(x), _magnitude(y)
    similarity = (2 * a * b + 170) / (a.square() + b.square() + 170)
    return similarity.flatten(1).std(dim=1)


def _magnitude(image: Tensor) -> Tensor:
    smaller = F.avg_pool2d(255 * image, 2)
    prewitt = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=image.dtype, device=image.device) / 3
    across, down = F.conv2d(smaller, torch.stack([prewitt, prewitt.T])[:, None]).split(1, dim=1)
    return (across.square() + down.square()).sqrt()


class Refresh:
    """The history of best outputs and the loss they make; keyed by patch, so the order does not matter.

    variant: "paper" is Eq. 8, 11 and 12 as printed: the higher score is kept, of GMSD too, where higher is
    worse, and the gap is current minus best, never above 0, so that the loss pushes away from the history.
    "released" keeps the lower GMSD, has positive gaps where the history is better, and multiplies by 10.
    decide: "image" keeps the better output of each patch; "batch" replaces all of a batch or none, by the
    means over the batch, as the released code does.
    """

    def __init__(self, variant: Variant, decide: Literal["image", "batch"] = "image") -> None:
        self.weight = 10.0 if variant == "released" else -1.0
        self.by_ssim = _Best(higher=True, decide=decide)
        self.by_gmsd = _Best(higher=variant == "paper", decide=decide)

    def loss(
        self,
        patches: Sequence[int],
        fused: Tensor,
        ir: Tensor,
        vi: Tensor,
        taps: Taps | None = None,
        seen: Sequence[Tensor] = (),
    ) -> Tensor:
        """L_refresh of Eq. 12 for these patches, whose outputs then take their place in the history.

        patches: a number for each image, any but its own. fused, ir, vi: (B, 1, H, W), in [0, 1] but for what
        tanh leaves. taps: image to five feature maps (B, C, H, W), or None to leave the VGG terms of Eq. 9
        and 10 out; seen: taps(fused), which the perceptual loss has too. Scores and gaps are taken of 8-bit
        outputs, as the history keeps them, and carry no gradient. Returns a scalar, 0 where every output is
        the best of its patch.
        """
        output = (255 * fused.detach().clamp(0, 1)).round()
        scored = output / 255
        total = fused.new_zeros(())
        for best, score, pixel, chosen in (
            (self.by_ssim, ssim_to_both(scored, ir, vi), _brightness_distance, slice(3, 5)),  # Eq. 9
            (self.by_gmsd, gmsd_to_both(scored, ir, vi), _edge_distance, slice(0, 3)),  # Eq. 10
        ):
            gap = best.update(patches, output.to(torch.uint8), score)
            behind = gap.nonzero()[:, 0]
            if len(behind):
                history = best.images([patches[i] for i in behind.tolist()]).to(fused) / 255
                distance = pixel(fused[behind], history)
                if taps is not None:
                    distance = distance + _feature_distance(
                        [tap[behind] for tap in seen[chosen]], taps(history)[chosen]
                    )
                total = total + self.weight * (gap[behind] * distance).sum() / len(fused)
        return total

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint needs to go on from here."""
        return {"by_ssim": self.by_ssim.state_dict(), "by_gmsd": self.by_gmsd.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.by_ssim.load_state_dict(state["by_ssim"])
        self.by_gmsd.load_state_dict(state["by_gmsd"])


def _brightness_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean((1, 2, 3))


def _edge_distance(a: Tensor, b: Tensor) -> Tensor:
    return (laplacian(a) - laplacian(b)).square().mean((1, 2, 3))


def _feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Mean over the taps, for each image, (B,)."""
    return torch.stack([(x - y).square().mean((1, 2, 3)) for x, y in zip(a, b, strict=True)]).mean(0)


class _Best:
    """The best 8-bit output of each patch by one score, and that score."""

    def __init__(self, higher: bool, decide: Literal["image", "batch"]) -> None:
        self.sign = 1 if higher else -1
        self.decide = decide
        self.kept: dict[int, Tensor] = {}
        self.scores: dict[int, float] = {}

    def update(self, patches: Sequence[int], output: Tensor, score: Tensor) -> Tensor:
        """Keeps what is better; returns how far each score is behind the best of its patch, (B,), 0 or more."""
        current = score.double().cpu()
        before = torch.tensor([self.scores.get(p, float("nan")) for p in patches], dtype=torch.float64)
        ahead = self.sign * (current - before)
        if self.decide == "batch":
            ahead = ahead.mean().expand(len(patches))
        for i in (~(ahead <= 0)).nonzero()[:, 0].tolist():  # NaN is a patch seen for the first time
            self.kept[patches[i]], self.scores[patches[i]] = output[i].to("cpu", copy=True), current[i].item()
        return (-ahead).clamp_min(0).nan_to_num(0).to(score)

    def images(self, patches: Sequence[int]) -> Tensor:
        """The best outputs, uint8 (B, 1, H, W)."""
        return torch.stack([self.kept[p] for p in patches])

    def state_dict(self) -> dict[str, Any]:
        patches = list(self.kept)
        scores = torch.tensor([self.scores[p] for p in patches], dtype=torch.float64)
        return {
            "patches": torch.tensor(patches),
            "scores": scores,
            "images": self.images(patches) if patches else torch.empty(0),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        patches = state["patches"].tolist()
        self.kept = dict(zip(patches, state["images"], strict=True))
        self.scores = dict(zip(patches, state["scores"].tolist(), strict=True))

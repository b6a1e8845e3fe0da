"""What pulls and what pushes: the coupled ratio of CoCoNet, and beside it the contrastive losses of others.

Five losses are called alike, with the features of one layer: `anchor` and `positive` (B, ...), `negatives`
(K, B, ...), K for each anchor; each returns a scalar. Any of them can take the ratio's place in the coupled
loss, which is called with (fused, ir, vi, ...) as every loss.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.losses.perceptual import Taps

Contrast = Callable[[Tensor, Tensor, Tensor], Tensor]
RatioForm = Literal["ratio of sums", "sum of ratios"]
Over = Literal["image", "batch"]

# w_i of Eq. 1 and 2 for relu1_1 to relu5_1 of VGG-19, as released; the paper does not print them.
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def ratio_loss(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor,
    form: RatioForm = "ratio of sums",
    over: Over = "image",
    epsilon: float = 1e-7,
) -> Tensor:
    """d(a, p) / sum_k d(a, n_k), d the mean absolute difference: a term of Eq. 1 and 2 of CoCoNet.

    "sum of ratios" is sum_k d(a, p) / d(a, n_k) (AECR-Net has K = 1), in which near negatives weigh more; in
    the ratio of sums all weigh alike. `over`: "image" is the mean of each anchor's ratio, "batch" the ratio
    of the distances' means over the batch, as released. `epsilon` guards each denominator, so that two empty
    masks give 0 and no gradient; 0 is as printed, NaN there and infinite on a negative.
    """
    pull, push = _distance(anchor, positive), _distance(anchor, negatives)
    if over == "batch":
        pull, push = pull.mean(-1), push.mean(-1)
    elif over != "image":
        raise UserError(f"a ratio is not taken over {over!r}; use image or batch")
    if form == "ratio of sums":
        return (pull / (push.sum(0) + epsilon)).mean()
    if form == "sum of ratios":
        return (pull / (push + epsilon)).sum(0).mean()
    raise UserError(f"there is no form {form!r} of the ratio; use 'ratio of sums' or 'sum of ratios'")


def info_nce(anchor: Tensor, positive: Tensor, negatives: Tensor, temperature: float = 0.1) -> Tensor:
    """-log of the positive's share in exp(cos / temperature), over positive and negatives (Oord et al. 2018).

    The smaller the temperature, the more the nearest negatives push alone.
    """
    a = _unit_vectors(anchor, 1)
    to_positive = (a * _unit_vectors(positive, 1)).sum(-1)
    to_negatives = (a * _unit_vectors(negatives, 2)).sum(-1)
    similarities = torch.cat([to_positive[None], to_negatives]) / temperature
    return (similarities.logsumexp(0) - similarities[0]).mean()


def triplet_loss(anchor: Tensor, positive: Tensor, negatives: Tensor, margin: float = 0.5) -> Tensor:
    """max(0, d(a, p) - d(a, n_k) + margin), mean over all negatives (Schroff et al. 2015), d as in the ratio.

    A negative that is farther than the positive by the margin pushes no more.
    """
    return (_distance(anchor, positive) - _distance(anchor, negatives) + margin).clamp_min(0).mean()


def alignment(
    anchor: Tensor, positive: Tensor, negatives: Tensor | None = None, power: float = 2.0
) -> Tensor:
    """Mean |a - p|^power of unit vectors: all pull (Wang and Isola 2020); negatives change nothing.

    0 for equal ones, at power 2 up to 4 for opposite ones.
    """
    return (_unit_vectors(anchor, 1) - _unit_vectors(positive, 1)).square().sum(-1).pow(power / 2).mean()


def uniformity(anchor: Tensor, positive: Tensor | None, negatives: Tensor, sharpness: float = 2.0) -> Tensor:
    """Log of the mean of exp(-sharpness |a - n_k|^2) of unit vectors: all push (Wang and Isola 2020).

    The positive changes nothing. With the `others` of a batch as negatives it is the published form over
    distinct pairs: 0 where all are equal, least where they fill the sphere.
    """
    apart = (_unit_vectors(anchor, 1) - _unit_vectors(negatives, 2)).square().sum(-1)
    return (-sharpness * apart).exp().mean().log()


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """InfoNCE among N pairs of views (N, ...), mean over all 2N of them (SimCLR, Chen et al. 2020): a scalar.

    Each view's positive is its partner, its negatives the other 2N - 2; itself is left out.
    """
    return info_nce(*in_batch(first, second), temperature=temperature)


def in_batch(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors and positives (2N, ...) and negatives (2N - 2, 2N, ...) among N pairs of views (N, ...)."""
    views = torch.cat([first, second])
    return views, torch.cat([second, first]), _turned(views, leave_out=len(first))


def others(points: Tensor) -> Tensor:
    """All other points as negatives of each, (N, ...) to (N - 1, N, ...)."""
    return _turned(points)


class Samples(NamedTuple):
    """What one half of the coupled loss compares with, by layer: (B, ...) and (K, B, ...)."""

    positive: list[Tensor]
    negatives: list[Tensor]


def plain_pixels(image: Tensor) -> list[Tensor]:
    """The image itself as its only feature map."""
    return [image]


def masked(image: Tensor, mask: Tensor, hole: float = 0.5) -> Tensor:
    """The image where the mask is 1 and `hole` where it is 0; (..., 1, H, W) in [0, 1] both, soft masks too.

    Grey .5 is the 0 of the paper's I * M, since its images run from -1 to 1; 0 is black.
    """
    return hole + (image - hole) * mask


@torch.no_grad()
def coupled_samples(
    ir: Tensor,
    vi: Tensor,
    mask: Tensor,
    taps: Taps = plain_pixels,
    strangers: tuple[Tensor, Tensor] | None = None,
    hole: float = 0.5,
) -> dict[str, Samples]:
    """The positives and negatives of Eq. 1 ("target") and Eq. 2 ("detail").

    ir, vi, mask: (B, 1, H, W). strangers: further (ir, vi) of other scenes, (K - 1, B, 1, H, W) each, which
    are negatives too, under the anchor's own mask, as released. They hold for every step: keep them.
    """
    foes_ir, foes_vi = ir[None], vi[None]
    if strangers is not None:
        foes_ir, foes_vi = torch.cat([foes_ir, strangers[0]]), torch.cat([foes_vi, strangers[1]])

    def of(friend: Tensor, foes: Tensor, where: Tensor) -> Samples:
        negatives = taps(masked(foes, where, hole).flatten(0, 1))
        shape = foes.shape[:2]
        return Samples(
            list(taps(masked(friend, where, hole))), [tap.unflatten(0, shape) for tap in negatives]
        )

    return {"target": of(ir, foes_vi, mask), "detail": of(vi, foes_ir, 1 - mask)}


def coupled_contrast(
    fused: Tensor,
    ir: Tensor,
    vi: Tensor,
    mask: Tensor,
    taps: Taps = plain_pixels,
    *,
    weights: Sequence[float] = (1.0,),
    contrast: Contrast = ratio_loss,
    strangers: tuple[Tensor, Tensor] | None = None,
    samples: dict[str, Samples] | None = None,
    hole: float = 0.5,
) -> dict[str, Tensor]:
    """L_ir as "target" and L_vis as "detail" of CoCoNet (Eq. 1 and 2): two scalars.

    Within the mask the fused image is pulled to the infrared and pushed from the visible one, outside the
    other way round. With MRI for ir and PET or SPECT for vi they are L_mri and L_fun (Eq. 13 and 14). `taps`
    gives the layers, `weights` their w_i, `contrast` the loss of each; `samples`: `coupled_samples` of the
    same arguments, where they are known already. Images and mask (B, 1, H, W) in [0, 1].
    """
    if samples is None:
        samples = coupled_samples(ir, vi, mask, taps, strangers, hole)
    seen = taps(torch.cat([masked(fused, where, hole) for where in (mask, 1 - mask)]))
    anchors = {"target": [tap.chunk(2)[0] for tap in seen], "detail": [tap.chunk(2)[1] for tap in seen]}
    return {name: over_layers(contrast, anchors[name], *samples[name], weights) for name in anchors}


def over_layers(
    contrast: Contrast,
    anchor: Sequence[Tensor],
    positive: Sequence[Tensor],
    negatives: Sequence[Tensor],
    weights: Sequence[float],
) -> Tensor:
    """sum_i w_i contrast_i, the sum over the layers in Eq. 1; raises UserError unless each has its weight."""
    if len(weights) != len(anchor):
        raise UserError(f"{len(weights)} weights for {len(anchor)} layers of features; give one for each")
    parts = zip(weights, anchor, positive, negatives, strict=True)
    return torch.stack([weight * contrast(a, p, n) for weight, a, p, n in parts]).sum()


def _distance(anchor: Tensor, sample: Tensor) -> Tensor:
    """Mean absolute difference of each anchor, (B,), or (K, B) for negatives."""
    return (anchor - sample).abs().flatten(sample.ndim - anchor.ndim + 1).mean(-1)


def _unit_vectors(features: Tensor, axes: int) -> Tensor:
    """Features of each image as one vector of length 1, after so many leading axes."""
    return F.normalize(features.flatten(axes), dim=-1)


def _turned(points: Tensor, leave_out: int = 0) -> Tensor:
    """For each of M points those 1, 2, ... M - 1 places further on, without those `leave_out` places on."""
    count = len(points)
    places = torch.arange(count, device=points.device)
    steps = places[(places != 0) & (places != leave_out)]
    return points[(places + steps[:, None]) % count]

"""Metrics of image fusion, each under a named convention.

One metric name stands for many formulas: the SSIM of one fused image runs from .55 to 1.62 by convention
alone. So `evaluate` has no default convention, and its result carries the one that was used. `METRICS` says
what each metric rewards and what fools it; `CONVENTIONS` holds the exact variants, units and smallest sizes.

Libraries have a few of these metrics with the same values (tests compare them), one image at a time and
mostly without gradients. Here all are computed alike: in batches, on any device, with what the sources decide
shared, and differentiable where the formula has no counts, order or thresholds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics.catalogue import METRICS, Metric, explain
from fusionlab.metrics.conventions import CONVENTIONS, Convention, Variant, find_convention
from fusionlab.metrics.inputs import GreyImages, read_images, scoring_device
from fusionlab.metrics.memory import remembering
from fusionlab.metrics.scores import Row, Scores, joined
from fusionlab.metrics.undefined import why_undefined

__all__ = [
    "CONVENTIONS",
    "METRICS",
    "Convention",
    "Metric",
    "Scores",
    "Variant",
    "compare",
    "evaluate",
    "explain",
    "find_convention",
    "score_pair",
]

AT_ONCE = 480 * 640  # pixels of fused images in one batch; keeps temporaries under 300 MB


def evaluate(
    ir: GreyImages,
    vi: GreyImages,
    fused: GreyImages,
    convention: str,
    metrics: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Scores:
    """Scores 8-bit fused images against their two sources in one convention.

    ir, vi, fused: grey levels 0..255 as arrays or tensors (H, W) or (B, 1, H, W), or lists of them whose
    sizes may differ from image to image. The fused image is the one written to file, by the convention's own
    rule: `to_uint8(fused, save=CONVENTIONS[convention].save)`. metrics: all of the convention where None.
    names: one an image, else "0", "1" and so on. Values are computed in float64, image by image, on the
    device of the fused image, to which its sources are moved (on the CPU where that has no float64). A metric
    without a value for an image, as below its smallest side, is NaN there and `undefined` says why.

    Raises UserError for an unknown convention or metric, for values that are not grey levels 0..255 (floats
    within [0, 1] too), for sources and fused images that differ in number or size, and for images below the
    smallest side of every metric asked for.
    """
    return compare(ir, vi, {"fused": fused}, convention, metrics, names)["fused"]


@torch.no_grad()
def compare(
    ir: GreyImages,
    vi: GreyImages,
    fused: Mapping[str, GreyImages],
    convention: str,
    metrics: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Scores]:
    """Scores the fused images of several methods as `evaluate` does, a batch at a time.

    Statistics of the sources are taken once, however many methods there are; all images of a pair are scored
    on the device of the first method's.

    fused: method -> its image of every pair of sources. Returns method -> its scores, in that order.
    """
    variants = _select(find_convention(convention), metrics)
    groups = _matched(ir, vi, fused)
    labels = [str(i) for i in range(len(groups))] if names is None else list(names)
    if len(labels) != len(groups):
        raise UserError(f"{len(labels)} names for {len(groups)} images; pass one name an image")
    for label, group in zip(labels, groups, strict=True):
        _check_sizes(label, group, fused, variants)
    rows = [_scored(convention, label, group, variants) for label, group in zip(labels, groups, strict=True)]
    return {method: joined(column) for method, column in zip(fused, zip(*rows, strict=True), strict=True)}


def score_pair(variant: Variant, ir: Tensor, vi: Tensor, fused: Tensor) -> Tensor:
    """Values (B,) of fused images (B, 1, H, W) of one pair of sources (1, 1, H, W), grey levels 0..255.

    Few images at a time, so that temporaries stay small; what the sources alone decide is computed once. The
    sources are moved to the device of the fused images (to the CPU where that has no float64).
    """
    device = scoring_device(fused)
    ir, vi = (source.to(device, torch.float64) for source in (ir, vi))
    batches = fused.to(device).split(max(1, AT_ONCE // ir.numel()))
    with remembering(ir, vi):
        return torch.cat([variant.function(ir, vi, batch.to(torch.float64)) for batch in batches])


def _scored(
    convention: str, label: str, group: tuple[Tensor, ...], variants: dict[str, Variant]
) -> list[Scores]:
    """One row a method: its values for one pair of sources, all images uint8 (1, 1, H, W)."""
    ir, vi, *fused = group
    together = torch.cat([image.to(fused[0].device) for image in fused])
    side = min(ir.shape[-2:])
    rows: list[Row] = [{"name": label} for _ in fused]
    reasons: list[dict[tuple[str, str], str]] = [{} for _ in fused]
    for metric, variant in variants.items():
        enough = side >= variant.side
        values = score_pair(variant, ir, vi, together).tolist() if enough else [math.nan] * len(fused)
        for value, image, row, reason in zip(values, together.split(1), rows, reasons, strict=True):
            row[metric] = value
            if math.isnan(value):
                triple = (x.to(image.device, torch.float64) for x in (ir, vi, image))
                reason[label, metric] = (
                    why_undefined(metric, *triple)
                    if enough
                    else f"of {ir.shape[-1]}x{ir.shape[-2]} pixels, {variant.side} a side are needed"
                )
    return [Scores(convention, (row,), reason) for row, reason in zip(rows, reasons, strict=True)]


def _select(convention: Convention, metrics: Sequence[str] | None) -> dict[str, Variant]:
    """The variants of the metrics asked for, in that order."""
    known = convention.variants
    wanted = list(known if metrics is None else metrics)
    unknown = [metric for metric in wanted if metric not in known]
    if unknown or not wanted:
        raise UserError(
            f"convention {convention.name!r} has no metric {', '.join(unknown) or 'in an empty list'}; "
            f"it has {', '.join(known)}"
        )
    return {metric: known[metric] for metric in wanted}


def _matched(ir: GreyImages, vi: GreyImages, fused: Mapping[str, GreyImages]) -> list[tuple[Tensor, ...]]:
    """For each pair of sources: infrared, visible and the fused image of every method."""
    sources = read_images(ir, "ir"), read_images(vi, "vi")
    methods = {method: read_images(images, method) for method, images in fused.items()}
    if not methods:
        raise UserError("there is no method to score; pass the fused images of one at least")
    for method, images in methods.items():
        counts = len(sources[0]), len(sources[1]), len(images)
        if len(set(counts)) > 1 or counts[0] == 0:
            found = "{}, {} and {} images".format(*counts)
            raise UserError(f"ir, vi and {method} hold {found}; pass as many of each")
    return list(zip(*sources, *methods.values(), strict=True))


def _check_sizes(
    label: str, group: tuple[Tensor, ...], methods: Iterable[str], variants: dict[str, Variant]
) -> None:
    size, *others = [f"{x.shape[-2]}x{x.shape[-1]}" for x in group]
    if set(others) != {size}:
        found = ", ".join(f"{role} {other}" for role, other in zip(("vi", *methods), others, strict=True))
        raise UserError(f"image {label}: ir is {size}, {found}; they must be equal")
    smallest = {metric: variant.side for metric, variant in variants.items()}
    if min(group[0].shape[-2:]) < min(smallest.values()):
        metric = min(smallest, key=smallest.__getitem__)
        raise UserError(
            f"image {label} is {size}; {metric} needs at least {smallest[metric]} pixels a side, so pass "
            "larger images"
        )

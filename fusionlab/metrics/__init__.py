"""Metrics of image fusion, each under a named convention.

One metric name stands for many formulas: the SSIM of one fused image runs from .55 to 1.62 by convention
alone. So `evaluate` has no default convention, and its result carries the one that was used. `METRICS` says
what each metric rewards and what fools it; `CONVENTIONS` holds the exact variants, units and smallest sizes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics.catalogue import METRICS, Metric, explain
from fusionlab.metrics.conventions import CONVENTIONS, Convention, Variant, find_convention
from fusionlab.metrics.inputs import Images, read_images
from fusionlab.metrics.scores import Row, Scores

__all__ = ["CONVENTIONS", "METRICS", "Convention", "Metric", "Scores", "Variant", "evaluate", "explain"]


@torch.no_grad()
def evaluate(
    ir: Images,
    vi: Images,
    fused: Images,
    convention: str,
    metrics: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Scores:
    """Scores 8-bit fused images against their two sources in one convention.

    ir, vi, fused: grey levels 0..255 as arrays or tensors (H, W) or (B, 1, H, W), or lists of them whose
    sizes may differ from image to image. The fused image is the one written to file, by the convention's own
    rule: `to_uint8(fused, save=CONVENTIONS[convention].save)`. metrics: all of the convention where None.
    names: one an image, else "0", "1" and so on. Values are computed in float64, image by image.

    Raises UserError for an unknown convention or metric, for values that are not grey levels 0..255 (floats
    within [0, 1] too), for sources and fused images that differ in number or size, and for images below a
    metric's smallest side.
    """
    variants = _select(find_convention(convention), metrics)
    triples = list(zip(*_matched(ir, vi, fused), strict=True))
    labels = [str(i) for i in range(len(triples))] if names is None else list(names)
    if len(labels) != len(triples):
        raise UserError(f"{len(labels)} names for {len(triples)} images; pass one name an image")
    named = list(zip(labels, triples, strict=True))
    for label, triple in named:
        _check_sizes(label, triple, variants)
    return Scores(convention, tuple(_row(label, triple, variants) for label, triple in named))


def _row(label: str, triple: tuple[Tensor, ...], variants: dict[str, Variant]) -> Row:
    values = {metric: variant.function(*triple).item() for metric, variant in variants.items()}
    return {"name": label, **values}


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


def _matched(ir: Images, vi: Images, fused: Images) -> tuple[list[Tensor], ...]:
    """The three inputs as lists of equal length, at least one image long."""
    lists = read_images(ir, "ir"), read_images(vi, "vi"), read_images(fused, "fused")
    counts = [len(images) for images in lists]
    if len(set(counts)) > 1 or counts[0] == 0:
        raise UserError("ir, vi and fused hold {}, {} and {} images; pass as many of each".format(*counts))
    return lists


def _check_sizes(label: str, triple: tuple[Tensor, ...], variants: dict[str, Variant]) -> None:
    sizes = [f"{x.shape[-2]}x{x.shape[-1]}" for x in triple]
    if len(set(sizes)) > 1:
        raise UserError("image {}: ir is {}, vi {}, fused {}; they must be equal".format(label, *sizes))
    for metric, variant in variants.items():
        if min(triple[0].shape[-2:]) < variant.side:
            raise UserError(
                f"image {label} is {sizes[0]}; {metric} needs at least {variant.side} pixels a side, "
                f"so pass larger images or leave {metric} out of metrics"
            )

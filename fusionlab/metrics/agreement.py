"""Do two orders agree? Rank correlation, and how often a change of convention turns an order around."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor


def spearman(x: Tensor, y: Tensor) -> list[float]:
    """Spearman's rank correlation of each row of x with that of y, ties ranked by their mean.

    Entries without a value in either are left out of their row. NaN where a row is constant or has less than
    two left.
    """
    found = []
    for a, b in zip(x.numpy(), y.numpy(), strict=True):
        there = np.isfinite(a) & np.isfinite(b)
        ranks = rankdata(a[there]), rankdata(b[there])
        has_value = there.sum() > 1 and min(rank.std() for rank in ranks) > 0
        found.append(float(np.corrcoef(*ranks)[0, 1]) if has_value else math.nan)
    return found


def flips(
    means: Mapping[str, Tensor], fuser_names: Sequence[str], better: str
) -> Iterator[tuple[str, str, float, str]]:
    """Convention, figure, value and unit, from convention -> mean of each fuser for one metric.

    "forms" counts the distinct means among all conventions; "flips somewhere" is the share of the pairs of
    fusers that two of these order differently; "flips against reference" that between `reference` and one
    convention; "rank of F" is a fuser's rank under a convention, 1 the best by `better`, "higher" or "lower".
    """
    distinct = list({tuple(mean.tolist()): mean for mean in means.values()}.values())
    orders = torch.stack([_order(mean) for mean in distinct])
    yield "all", "forms", len(distinct), "1"
    yield "all", "flips somewhere", _percent((orders != orders[0]).any(0)), "%"
    for name, mean in means.items():
        if "reference" in means and name != "reference":
            yield name, "flips against reference", _percent(_order(mean) != _order(means["reference"])), "%"
        ranking = mean.argsort(descending=better == "higher").argsort() + 1
        for label, rank in zip(fuser_names, ranking.tolist(), strict=True):
            yield name, f"rank of {label}", rank, "1"


def _order(mean: Tensor) -> Tensor:
    """-1, 0 or 1 for each pair of fusers: which of the two has the higher mean."""
    i, j = torch.triu_indices(len(mean), len(mean), 1)
    return (mean[i] - mean[j]).sign()


def _percent(flipped: Tensor) -> float:
    return 100 * flipped.double().mean().item()


def mean_ranks(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Fuser -> metric -> value to fuser -> mean over the metrics of its place, 1 for the highest value.

    Equal values share the better place.
    """
    return {
        name: sum(1 + sum(other[metric] > mine[metric] for other in scores.values()) for metric in mine)
        / len(mine)
        for name, mine in scores.items()
    }

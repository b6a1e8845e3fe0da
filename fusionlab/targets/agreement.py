"""Do metrics agree: with each other on hundreds of images, and with the truth where a scene knows it?"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import open_pairs
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.metrics import METRICS
from fusionlab.metrics.truth import kept, psnr_to_truth, ssim_to_truth
from fusionlab.targets.comofusion import require
from fusionlab.targets.metrics import LEARNED, RANKED, Image, form, fusers, open_set, score
from fusionlab.targets.tricks import BASELINES, TRICKS

# Of `reference` all but the dear ones: phase congruency and three of the four feature forms.
CHEAP = (
    "EN", "SD", "SF", "AG", "MI", "NMI", "VIF", "VIFF", "Qabf", "SSIM", "MS_SSIM", "Q", "Qe", "FMI_edge",
    "SCD", "CC", "GMSD", "Nabf", "PSNR",
)  # fmt: skip


def correlations(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Spearman's rank correlation of each two metrics, on all 221 pairs of RoadScene by ten fusers.

    Training pairs of our networks are among them: this compares metrics, not methods.
    "over fusers": the fusers of one pair are ranked by both metrics, mean over the pairs; what a table of
    methods sees. "over pairs": the pairs of one fuser are ranked, mean over the fusers; what one method's
    images share. GMSD and Nabf enter with their sign turned, so that + is agreement on what is better.
    """
    names = [f"{a} ~ {b}" for a, b in itertools.combinations(CHEAP, 2)]
    require("metrics/correlations", row, names)
    if data in ("auto", "roadscene"):
        pairs = open_pairs("roadscene", 2 if profile == "smoke" else None)
    else:
        pairs = open_set(data, profile, seed)
    images, weights = fusers(RANKED)
    wanted = row.split(" ~ ") if row else CHEAP
    values = upright(pairs, images, wanted)
    for a, b in itertools.combinations(wanted, 2):
        across = {"over fusers": (values[a], values[b]), "over pairs": (values[a].T, values[b].T)}
        for label, (x, y) in across.items():
            value, error = mean_of(spearman(x, y))
            yield measured(
                "metrics/correlations", f"{a} ~ {b}", label, value, pairs,
                profile=profile, seed=seed, unit="1", convention="reference", weights=weights["all"],
                command=this_command(), note=f"standard error {error:.3f}; {len(images)} fusers",
            )  # fmt: skip


POPULATIONS = {
    "fusers": (*BASELINES, *LEARNED),
    "tricks": tuple(TRICKS),
}
BY_TRUTH = ("PSNR", "SSIM", "kept")


def truth(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Which metric ranks the images of a scene as its truth does? 32 scenes, seven fusers, seven tricks.

    The truth ranks by PSNR or SSIM against the scene's reference image, or by the mean of what was kept of
    each camera. Value: Spearman's rank correlation over the images of one scene, mean over the scenes, + for
    agreement whatever the metric's direction; "fusers" among the seven alone, "all" with the tricks. A row
    "truth X" says what the truth itself gives an image: how PSNR, SSIM and kept agree among each other.
    """
    truths = [f"truth {name}" for name in BY_TRUTH]
    require("metrics/truth", row, (*CHEAP, *truths))
    if data not in ("auto", "scenes"):
        raise UserError("metrics/truth runs on scenes, the only data whose truth is known")
    pairs = open_set("scenes", profile, seed)
    images, weights = fusers([name for names in POPULATIONS.values() for name in names])
    by_truth = against_truth(pairs, images)
    blind = upright(pairs, images, [row] if row in CHEAP else [] if row else CHEAP)
    blind |= {name: by_truth[name.split()[1]] for name in truths if row in (None, name)}
    few = len(POPULATIONS["fusers"])
    for name, wanted in itertools.product(blind, BY_TRUTH):
        if name == f"truth {wanted}":
            continue
        for label, count in (("fusers", few), ("all", len(images))):
            value, error = mean_of(spearman(blind[name][:, :count], by_truth[wanted][:, :count]))
            yield measured(
                "metrics/truth", name, f"with {wanted}, {label}", value, pairs,
                profile=profile, seed=seed, unit="1", convention="reference", weights=weights["all"],
                command=this_command(), note=f"standard error {error:.3f}; {count} images a scene",
            )  # fmt: skip


def against_truth(pairs: Pairs, images: dict[str, Image]) -> dict[str, Tensor]:
    """PSNR and SSIM to a scene's reference image, and the mean of both `kept` scores; (pairs, images)."""
    rows: dict[str, list[list[float]]] = {name: [] for name in BY_TRUTH}
    for pair in pairs:
        if pair.truth is None:
            raise UserError(f"{pair.name} has no truth to be compared with")
        fused = [image(pair.ir, pair.vi).clamp(0, 1) for image in images.values()]
        rows["PSNR"].append([psnr_to_truth(x, pair.truth.reference) for x in fused])
        rows["SSIM"].append([ssim_to_truth(x, pair.truth.reference) for x in fused])
        rows["kept"].append([_mean_there(kept(x, pair.truth).values()) for x in fused])
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in rows.items()}


def _mean_there(values: Iterable[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan


def upright(pairs: Pairs, images: dict[str, Image], metrics: Sequence[str]) -> dict[str, Tensor]:
    """Values (pairs, images) in `reference`, with the sign turned where lower is better."""
    forms = {metric: form("reference", metric) for metric in metrics}
    values = score(pairs, images, list(forms.values()))
    signs = {metric: 1 if METRICS[metric].better == "higher" else -1 for metric in metrics}
    return {metric: signs[metric] * values[key] for metric, key in forms.items()}


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


def mean_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, of the values that there are."""
    there = np.array([value for value in values if not math.isnan(value)])
    return float(there.mean()), float(there.std(ddof=1) / math.sqrt(len(there)))

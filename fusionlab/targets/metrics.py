"""Our own studies of metrics: what trivial images score, and what a convention does to an order."""

import hashlib
import itertools
import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import open_pairs, to_uint8
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.methods import load
from fusionlab.methods.baselines import average
from fusionlab.metrics import CONVENTIONS, METRICS, Variant, evaluate, score_pair
from fusionlab.metrics.truth import kept, psnr_to_truth
from fusionlab.targets.comofusion import require
from fusionlab.targets.tricks import BASELINES, TRICKS, noisy

Image = Callable[[Tensor, Tensor], Tensor]
Form = tuple[Variant, str]  # a formula, and the rule by which the image is saved before it is scored

HEADLINE = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM", "SF", "AG", "SCD", "CC")
LEARNED = ("mmdrfuse", "mmdrfuse-distilled", "mmdrfuse-teacher-half", "comofusion")

# data -> the conventions of the papers that print a table on it, and which of their metrics. PC of `dmfuse`
# is left out: it costs more than all others together.
PAPERS: dict[str, dict[str, tuple[str, ...]]] = {
    "tno": {
        "comofusion": ("EN", "SF", "AG", "SD", "Qabf", "SSIM"),
        "coconet": ("EN", "SD", "VIF", "SF", "AG", "SCD"),
        "dmfuse": ("EN", "SD", "FMI_pixel", "Qe", "Qabf", "MS_SSIM", "VIF"),
        "reference": HEADLINE,
    },
    "roadscene": {
        "mmdrfuse": ("EN", "SD", "MI", "VIF", "Qabf", "SSIM"),
        "coconet": ("EN", "SD", "VIF", "SF", "AG", "SCD"),
        "reference": HEADLINE,
    },
    "m3fd": {  # of CAF's Table 3; its SD and SCD exist as a figure only
        "caf": ("SD", "MI", "VIF", "SCD"),
        "reference": HEADLINE,
    },
}


def conventions(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Images that cost nothing, and two of our networks, in the convention of each paper that prints a table.

    On TNO (42 pairs: CoMoFusion Table 1, CoCoNet Table 1, DMFuse Table 5), on RoadScene's 50 test pairs
    (MMDRFuse Table 5, CoCoNet Table 1), on 3 of the 4200 pairs of M3FD (CAF Table 3), and in `reference`.
    Other data are scored in all of these.
    """
    rows = (*BASELINES, *TRICKS, "mmdrfuse", "comofusion")
    require("metrics/conventions", row, rows)
    for name in PAPERS if data == "auto" else [data]:
        pairs = open_set(name, profile, seed)
        wanted = PAPERS.get(name, ChainMap(*PAPERS.values()))
        images, weights = fusers([row] if row else rows)
        forms = {
            (convention, metric): form(convention, metric)
            for convention, metrics in wanted.items()
            for metric in metrics
        }
        values = score(pairs, images, list(forms.values()))
        for (i, label), ((convention, metric), (variant, save)) in itertools.product(
            enumerate(images), forms.items()
        ):
            mean = values[variant, save][:, i].mean().item()
            if math.isnan(mean):  # SCD of a copy has no value
                continue
            yield measured(
                "metrics/conventions", label, metric, mean, pairs,
                profile=profile, seed=seed, unit=variant.unit, convention=convention,
                weights=weights[label], command=this_command(),
            )  # fmt: skip


NOISE = (0, 2, 5, 10, 20)  # standard deviation in grey levels


def noise(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """The plain average under growing noise, in `reference`, on TNO unless told otherwise."""
    rows = [f"noise {sigma}" for sigma in NOISE]
    require("metrics/noise", row, rows)
    pairs = open_set("tno" if data == "auto" else data, profile, seed)

    def disturbed(sigma: int) -> Image:
        return lambda ir, vi: noisy(average(ir, vi), sigma, seed) if sigma else average(ir, vi)

    images = {f"noise {sigma}": disturbed(sigma) for sigma in NOISE if row in (None, f"noise {sigma}")}
    forms = {metric: form("reference", metric) for metric in HEADLINE}
    values = score(pairs, images, list(forms.values()))
    for (i, label), (metric, key) in itertools.product(enumerate(images), forms.items()):
        yield measured(
            "metrics/noise", label, metric, values[key][:, i].mean().item(), pairs,
            profile=profile, seed=seed, unit=key[0].unit, convention="reference", command=this_command(),
        )  # fmt: skip


RANKED = (*BASELINES, "infrared", "visible", "clipped sum", *LEARNED)
NAMES_SHOWN = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM", "SF", "AG", "MS_SSIM", "PSNR")


def rank_flips(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """How many pairs of ten fusers change their order when only the convention changes, per metric.

    Row: a metric. "forms" counts its distinct forms (formula and saving rule) among all conventions; "flips
    somewhere" is the share of the 45 pairs of fusers that two of these forms order differently by their
    means; "flips against X" that between `reference` and convention X; "rank of F" is a fuser's rank under a
    convention, 1 the best. On RoadScene's 50 test pairs unless told otherwise.
    """
    require("metrics/rank-flips", row, NAMES_SHOWN)
    pairs = open_set("roadscene" if data == "auto" else data, profile, seed)
    images, weights = fusers(RANKED)
    metrics = [row] if row else NAMES_SHOWN
    forms = {
        (metric, name): form(name, metric)
        for metric in metrics
        for name, convention in CONVENTIONS.items()
        if metric in convention.variants
    }
    values = score(pairs, images, list(forms.values()))
    means = {key: values[key].mean(0) for key in values}
    for metric in metrics:
        by_name = {name: means[key] for (m, name), key in forms.items() if m == metric}
        for convention, label, value, unit in flips(by_name, list(images), METRICS[metric].better):
            yield measured(
                "metrics/rank-flips", metric, label, value, pairs,
                profile=profile, seed=seed, unit=unit, convention=convention,
                weights=weights["all"], command=this_command(),
                note="weights: the hash of the fusers' hashes",
            )  # fmt: skip


def flips(
    means: Mapping[str, Tensor], fuser_names: Sequence[str], better: str
) -> Iterator[tuple[str, str, float, str]]:
    """Convention, figure, value and unit, from convention -> mean of each fuser for one metric."""
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


def open_set(data: str, profile: str, seed: int) -> Pairs:
    """The test pairs of a set (of TNO and M3FD all there are, of scenes 32), at `smoke` two of them."""
    split = None if data in ("tno", "m3fd") else "test"
    limit = 2 if profile == "smoke" else 32 if data == "scenes" else None
    return open_pairs(data, limit, seed=seed, split=split)


def form(convention: str, metric: str) -> Form:
    """The formula and the saving rule behind a convention's number."""
    return CONVENTIONS[convention].variants[metric], CONVENTIONS[convention].save


def fusers(names: Sequence[str]) -> tuple[dict[str, Image], dict[str, str]]:
    """Images before clipping by name, and the hash of their weights; "all" is the hash of those hashes."""
    images: dict[str, Image] = {}
    weights = {}
    for name in names:
        fuser = load(name) if name in LEARNED else None
        images[name] = fuser.raw if fuser else (BASELINES | TRICKS)[name]
        weights[name] = fuser.sha256 if fuser else "none"
    together = " ".join(f"{name} {digest}" for name, digest in weights.items())
    return images, weights | {"all": hashlib.sha256(together.encode()).hexdigest()}


@torch.no_grad()
def score(pairs: Pairs, images: Mapping[str, Image], forms: Sequence[Form]) -> dict[Form, Tensor]:
    """Form -> values (pairs, images), each form computed once however many conventions share it.

    Fusers see 8-bit luminance; their images are saved by each form's own rule.
    """
    rules = sorted({save for _, save in forms})
    found: dict[Form, list[Tensor]] = {key: [] for key in forms}
    for pair in tqdm(pairs, desc=pairs.caption, unit="pair", leave=False):
        ir, vi = to_uint8(pair.ir), to_uint8(pair.vi)
        raw = [image(ir / 255, vi / 255) for image in images.values()]
        saved = {rule: torch.cat([to_uint8(x, rule) for x in raw]) for rule in rules}
        for variant, rule in found:
            if min(ir.shape[-2:]) < variant.side:
                raise UserError(f"{pair.name} is smaller than the {variant.side} pixels of {variant.formula}")
            found[variant, rule].append(score_pair(variant, ir, vi, saved[rule]))
    return {key: torch.stack(values) for key, values in found.items()}


PREVIEW_ROWS = ("average", "maximum", "laplacian", "mmdrfuse")
PREVIEW_METRICS = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM")
COUNTS = {"smoke": 4, "laptop": 32, "gpu": 32}


def truth_preview(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Fusers on scenes, scored by the truth (kept ir, kept vi, PSNR to the reference) and by six metrics.

    The six are those of the convention `reference`, which never see the truth. Means over the scenes; a
    scene in which one camera alone carries nothing is left out of that camera's mean.
    """
    if row not in (None, *PREVIEW_ROWS) or data not in ("auto", "scenes") or profile not in COUNTS:
        raise UserError(f"metrics/truth-preview runs on scenes and has the rows {', '.join(PREVIEW_ROWS)}")
    pairs = open_pairs("scenes", COUNTS[profile], seed=seed)
    views = list(pairs)
    ir, vi = ([to_uint8(image) for image in images] for images in zip(*((v.ir, v.vi) for v in views)))
    units = {metric: variant.unit for metric, variant in CONVENTIONS["reference"].variants.items()}
    for name in [row] if row else PREVIEW_ROWS:
        fuser = load(name)
        fused = [fuser(view.ir, view.vi) for view in views]
        truths = [view.truth for view in views if view.truth is not None]
        by_truth = [
            {**kept(image, truth), "PSNR": psnr_to_truth(image, truth.reference)}
            for image, truth in zip(fused, truths, strict=True)
        ]
        saved = [to_uint8(image) for image in fused]
        blind = evaluate(ir, vi, saved, "reference", PREVIEW_METRICS).mean()
        scores = {metric: _mean([score[metric] for score in by_truth]) for metric in by_truth[0]} | blind
        for metric, value in scores.items():
            yield measured(
                "metrics/truth-preview",
                name,
                metric,
                value,
                pairs,
                profile=profile,
                seed=seed,
                unit={"PSNR": "dB"}.get(metric, units.get(metric, "1")),
                convention="truth" if metric in by_truth[0] else "reference",
                weights=fuser.sha256,
                command=this_command(),
            )


def _mean(values: list[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there)

"""Our own studies of metrics: what trivial images score, what a convention does to an order, who agrees."""

import hashlib
import itertools
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionlab.bench.records import Record
from fusionlab.bench.run import Run
from fusionlab.bench.table import ANY, Score, Table, collected, conventional, each, mean_and_error, scored
from fusionlab.data import Pair, Pairs, to_uint8
from fusionlab.errors import UserError
from fusionlab.fuser import fuse, load
from fusionlab.methods import METHODS
from fusionlab.methods.baselines import average
from fusionlab.methods.tricks import BASELINES, TRICKS, Image, noisy
from fusionlab.metrics import CONVENTIONS, METRICS, Variant, score_pair
from fusionlab.metrics.agreement import flips, mean_ranks, spearman
from fusionlab.metrics.truth import kept, psnr_to_signal, psnr_to_truth, ssim_to_truth
from fusionlab.scenes import Truth

HEADLINE = ("EN", "SD", "MI", "VIF", "Qabf", "SSIM", "SF", "AG", "SCD", "CC")
# Of `reference` all but the dear ones: phase congruency and three of the four feature forms.
CHEAP = (
    "EN", "SD", "SF", "AG", "MI", "NMI", "VIF", "VIFF", "Qabf", "SSIM", "MS_SSIM", "Q", "Qe", "FMI_edge",
    "SCD", "CC", "GMSD", "Nabf", "PSNR",
)  # fmt: skip

LEARNED = ("mmdrfuse", "mmdrfuse-distilled", "mmdrfuse-teacher-half", "comofusion")
RANKED = (*BASELINES, "infrared", "visible", "clipped sum", *LEARNED)


class Contest:
    """Images before clipping by name, and the hash of their weights; `sha256` is the hash of those hashes."""

    def __init__(self, names: Iterable[str], device: str) -> None:
        fusers = {name: load(name, device=device) for name in names if name in LEARNED}
        plain = BASELINES | TRICKS
        self.images: dict[str, Image] = {
            name: fusers[name].unclipped if name in fusers else plain[name] for name in names
        }
        self.weights = {name: fusers[name].sha256 if name in fusers else "none" for name in names}
        together = " ".join(f"{name} {digest}" for name, digest in self.weights.items())
        self.sha256 = hashlib.sha256(together.encode()).hexdigest()


def forms(wanted: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], Variant]:
    """(convention, metric) -> the exact formula, of the metrics wanted of each convention."""
    return {
        (convention, metric): CONVENTIONS[convention].variants[metric]
        for convention, metrics in wanted.items()
        for metric in metrics
    }


def scores_of(
    images: Mapping[str, Image], wanted: Mapping[str, Iterable[str]], weights: Mapping[str, str] | None = None
) -> Callable[[Pair], Iterator[Score]]:
    """What images score on a pair in each convention's wanted metrics; the row is the image's name.

    A formula and saving rule that several conventions share is computed once, for all images together. The
    fusers see 8-bit luminance; each image is saved by its convention's own rule.
    """
    chosen = forms(wanted)
    rules = sorted({CONVENTIONS[convention].save for convention, _ in chosen})

    @torch.no_grad()
    def of_pair(pair: Pair) -> Iterator[Score]:
        ir, vi = to_uint8(pair.ir), to_uint8(pair.vi)
        unclipped = [image(ir / 255, vi / 255) for image in images.values()]
        saved = {rule: torch.cat([to_uint8(image, rule) for image in unclipped]) for rule in rules}
        found: dict[tuple[Variant, str], list[float]] = {}
        for (convention, metric), variant in chosen.items():
            form = variant, CONVENTIONS[convention].save
            if min(ir.shape[-2:]) < variant.side:
                raise UserError(f"{pair.name} is smaller than the {variant.side} pixels of {variant.formula}")
            if form not in found:
                found[form] = score_pair(variant, ir, vi, saved[form[1]]).tolist()
            for name, value in zip(images, found[form], strict=True):
                yield Score(
                    metric, value, variant.unit, convention, (weights or {}).get(name, "none"), row=name
                )

    return of_pair


def by_pair(found: Mapping[Any, Sequence[Score]], images: Sequence[str], key: tuple[str, str]) -> Tensor:
    """The values (pairs, images) of one (convention, metric)."""
    columns = [[score.value for score in found[image, *key]] for image in images]
    return torch.tensor(columns, dtype=torch.float64).T


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


def in_conventions(rows: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Images that cost nothing, and two networks, in the convention of each paper that prints a table."""
    contest = Contest(rows, run.device)
    wanted = PAPERS.get(pairs.data, ChainMap(*PAPERS.values()))
    yield from scored(scores_of(contest.images, wanted, contest.weights), pairs, run.device, pairs.caption)


def under_noise(rows: Mapping[str, int], pairs: Pairs, run: Run) -> Iterator[Score]:
    """The plain average under growing noise, in `reference`."""

    def disturbed(sigma: int) -> Image:
        return lambda ir, vi: noisy(average(ir, vi), sigma, run.seed) if sigma else average(ir, vi)

    images = {name: disturbed(sigma) for name, sigma in rows.items()}
    yield from scored(scores_of(images, {"reference": HEADLINE}), pairs, run.device, pairs.caption)


def rank_flips(rows: Mapping[str, str], pairs: Pairs, run: Run) -> Iterator[Score]:
    """How many pairs of ten fusers change their order when only the convention changes, per metric."""
    contest = Contest(RANKED, run.device)
    note = "weights: the hash of the fusers' hashes"
    wanted = {
        name: [metric for metric in rows if metric in convention.variants]
        for name, convention in CONVENTIONS.items()
    }
    found = collected(scores_of(contest.images, wanted), pairs, run.device, pairs.caption)
    for metric in rows:
        means = {
            name: by_pair(found, RANKED, (name, metric)).mean(0) for name in wanted if metric in wanted[name]
        }
        for convention, label, value, unit in flips(means, RANKED, METRICS[metric].better):
            yield Score(label, value, unit, convention, contest.sha256, note, metric)


def correlations(rows: Mapping[str, tuple[str, str]], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Spearman's rank correlation of each two metrics, by ten fusers.

    Training pairs of our networks are among them: this compares metrics, not methods. "over fusers": the
    fusers of one pair are ranked by both metrics, mean over the pairs; what a table of methods sees. "over
    pairs": the pairs of one fuser are ranked, mean over the fusers; what one method's images share. GMSD and
    Nabf enter with their sign turned, so that + is agreement on what is better.
    """
    contest = Contest(RANKED, run.device)
    values = upright(contest, pairs, list(dict.fromkeys(itertools.chain(*rows.values()))), run)
    for name, (a, b) in rows.items():
        across = {"over fusers": (values[a], values[b]), "over pairs": (values[a].T, values[b].T)}
        for label, (x, y) in across.items():
            yield correlated(label, spearman(x, y), contest, f"{len(RANKED)} fusers")._replace(row=name)


BY_TRUTH = ("PSNR", "SSIM", "kept", "signal")
POPULATION = (*BASELINES, *LEARNED)


def agreement_with_truth(rows: Mapping[str, str], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Which metric ranks the images of a scene as its truth does? Seven fusers, then seven tricks as well.

    The truth ranks by PSNR or SSIM to the weighted mean of the clear views, which averages are near to by
    construction; by the mean of what was kept of each camera; or by "signal", PSNR to the clear view of the
    camera that alone carries the signal. Value: Spearman's rank correlation over the images of one scene,
    mean over the scenes, + for agreement whatever the metric's direction; "fusers" among the seven alone,
    "all" with the tricks. A row "truth X" says how the four agree among each other.
    """
    contest = Contest([*POPULATION, *TRICKS], run.device)
    told = collected(true_scores_of(contest.images), pairs, run.device, pairs.caption)
    truths = {metric: by_pair(told, list(contest.images), ("truth", metric)) for metric in BY_TRUTH}
    blind = upright(contest, pairs, [row for row in rows if row in CHEAP], run)
    values = {
        row: blind[metric] if metric in blind else truths[row.split()[1]] for row, metric in rows.items()
    }
    for row, wanted in itertools.product(rows, BY_TRUTH):
        if row == f"truth {wanted}":
            continue
        for label, few in (("fusers", len(POPULATION)), ("all", len(contest.images))):
            found = spearman(values[row][:, :few], truths[wanted][:, :few])
            score = correlated(f"with {wanted}, {label}", found, contest, f"{few} images a scene")
            yield score._replace(row=row)


def true_scores_of(images: Mapping[str, Image]) -> Callable[[Pair], Iterator[Score]]:
    """What each of BY_TRUTH gives images of a scene."""

    @torch.no_grad()
    def of_pair(pair: Pair) -> Iterator[Score]:
        if pair.truth is None:
            raise UserError(f"{pair.name} has no truth to be compared with")
        for name, image in images.items():
            fused = image(pair.ir, pair.vi).clamp(0, 1)
            for metric, value in truth_scores(fused, pair.truth).items():
                yield Score(metric, value, convention="truth", row=name)

    return of_pair


def truth_scores(fused: Tensor, truth: Truth) -> dict[str, float]:
    """What each of BY_TRUTH gives a fused image (1, 1, H, W) in [0, 1]; NaN where it has no value."""
    there = [value for value in kept(fused, truth).values() if not math.isnan(value)]
    return {
        "PSNR": psnr_to_truth(fused, truth.weighted),
        "SSIM": ssim_to_truth(fused, truth.weighted),
        "kept": sum(there) / len(there) if there else math.nan,
        "signal": psnr_to_signal(fused, truth),
    }


def upright(contest: Contest, pairs: Pairs, metrics: Sequence[str], run: Run) -> dict[str, Tensor]:
    """Values (pairs, images) in `reference`, with the sign turned where lower is better."""
    found = collected(scores_of(contest.images, {"reference": metrics}), pairs, run.device, pairs.caption)
    signs = {metric: 1 if METRICS[metric].better == "higher" else -1 for metric in metrics}
    names = list(contest.images)
    return {metric: signs[metric] * by_pair(found, names, ("reference", metric)) for metric in metrics}


def correlated(label: str, values: Sequence[float], contest: Contest, note: str) -> Score:
    """The mean of rank correlations, of those that there are."""
    mean, error = mean_and_error([value for value in values if not math.isnan(value)])
    return Score(label, mean, "1", "reference", contest.sha256, note, error=error)


def preview(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A fuser on scenes, by the truth (kept ir, kept vi, PSNR to the weighted mean) and by six blind metrics.

    A scene in which one camera alone carries nothing is left out of that camera's mean.
    """
    fuser = load(name, device=run.device)
    blind = forms({"reference": ("EN", "SD", "MI", "VIF", "Qabf", "SSIM")})

    def of_pair(pair: Pair) -> Iterator[Score]:
        fused = fuser(pair.ir, pair.vi)
        assert pair.truth is not None, "the table admits scenes alone"
        for metric, value in kept(fused, pair.truth).items():
            if not math.isnan(value):
                yield Score(metric, value, "1", "truth", fuser.sha256)
        yield Score("PSNR", psnr_to_truth(fused, pair.truth.weighted), "dB", "truth", fuser.sha256)
        images = to_uint8(pair.ir), to_uint8(pair.vi), to_uint8(fused)
        for (convention, metric), variant in blind.items():
            value = score_pair(variant, *images).item()
            yield Score(metric, value, variant.unit, convention, fuser.sha256)

    yield from scored(of_pair, pairs, run.device, name)


# What `fusionlab fuse` takes where no method is named: decided by these four, before they were measured.
DECISIVE = ("SSIM", "VIF", "Qabf", "kept")


def contender(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A shipped method or baseline on validation pairs: SSIM, VIF, Qabf; on scenes by the truth instead.

    Scenes are scored by the mean of what was kept of each camera, and, for comparison, by PSNR to the
    weighted mean and to the signal.
    """
    fuser = load(name, device=run.device)

    def of_scene(pair: Pair) -> Iterator[Score]:
        assert pair.truth is not None, "these are scenes"
        told = truth_scores(fuser(pair.ir, pair.vi), pair.truth)
        for metric, unit in (("kept", "1"), ("PSNR", "dB"), ("signal", "dB")):
            if not math.isnan(told[metric]):
                yield Score(metric, told[metric], unit, "truth", fuser.sha256)

    blind = conventional(partial(fuse, fuser), {"reference": DECISIVE[:3]}, fuser.sha256)
    yield from scored(of_scene if pairs.data == "scenes" else blind, pairs, run.device, name)


def best_first(found: Iterable[Record]) -> dict[str, float]:
    """Method -> mean rank over DECISIVE of the records of `metrics/default`, the best first; 1 is best.

    Of equal ranks the earlier row of the table is first.
    """
    scores: dict[str, dict[str, float]] = {name: {} for name in CONTENDERS}
    for record in found:
        if record.metric in DECISIVE:
            scores[record.row][record.metric] = record.value
    ranks = mean_ranks(scores)
    return {name: ranks[name] for name in sorted(ranks, key=ranks.__getitem__)}


CONTENDERS = [name for name, method in METHODS.items() if not method.weights or "ours" in method.weights]


def named(names: Iterable[str]) -> dict[str, str]:
    """Rows of which the name says all."""
    return {name: name for name in names}


TABLES = {
    # TNO: CoMoFusion Table 1, CoCoNet Table 1, DMFuse Table 5. RoadScene: MMDRFuse Table 5, CoCoNet Table 1.
    # M3FD: CAF Table 3. Other data are scored in all of these.
    "metrics/conventions": Table(
        named((*BASELINES, *TRICKS, "mmdrfuse", "comofusion")), in_conventions, (*PAPERS, ANY)
    ),
    "metrics/noise": Table(
        {f"noise {sigma}": sigma for sigma in (0, 2, 5, 10, 20)}, under_noise, ("tno", ANY)
    ),  # standard deviation in grey levels
    "metrics/rank-flips": Table(
        named(("EN", "SD", "MI", "VIF", "Qabf", "SSIM", "SF", "AG", "MS_SSIM", "PSNR")),
        rank_flips,
        ("roadscene", ANY),
    ),
    "metrics/correlations": Table(
        {f"{a} ~ {b}": (a, b) for a, b in itertools.combinations(CHEAP, 2)},
        correlations,
        ("roadscene", ANY),
        splits=(None,),
    ),
    "metrics/truth": Table(
        named((*CHEAP, *(f"truth {name}" for name in BY_TRUTH))),
        agreement_with_truth,
        ("scenes",),
        profiles={"smoke": 2, "laptop": 32},
    ),
    "metrics/default": Table(
        named(CONTENDERS),
        each(contender),
        ("roadscene", "scenes"),
        splits=("val",),
        profiles={"smoke": 2, "laptop": 32},
        device="cpu",
    ),
    "metrics/truth-preview": Table(
        named(("average", "maximum", "laplacian", "mmdrfuse")),
        each(preview),
        ("scenes",),
        profiles={"smoke": 4, "laptop": 32},
    ),
}

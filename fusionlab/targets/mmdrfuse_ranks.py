"""MMDRFuse: does our distilled student rank where the released one does, whatever the convention?"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import open_pairs, to_uint8
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.metrics import evaluate
from fusionlab.targets.mmdrfuse_training import OURS, train_distilled

METRICS = ("SSIM", "VIF", "Qabf", "SD")  # higher is better in all four
# The two differ in SSIM alone: range 2 for values of 0..255, and range 255.
RANKED_BY = ("mmdrfuse", "reference")
SAVES = ("stretch", "clip")
RIVALS = {
    "average": ("average", "ours"),
    "maximum": ("maximum", "ours"),
    "laplacian": ("laplacian", "ours"),
    "released": ("mmdrfuse", "official"),
}


def ranks(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Mean rank over SSIM, VIF, Qabf and SD among five fusers on RoadScene's test pairs; 1 is best.

    Trains the student of `seed` into the run as `mmdrfuse/distilled` does, and ranks it beside average,
    maximum, Laplacian pyramid and the released student, in the paper's convention and with SSIM of range
    255, saved by stretching and by clipping. Rows are `<fuser>/<save>`. Nothing is selected by these pairs.
    """
    if data not in ("auto", "roadscene") or row is not None or profile not in OURS:
        raise UserError(
            "mmdrfuse/ranks compares all its rows at once, on roadscene, at the profiles " + ", ".join(OURS)
        )
    ours = train_distilled(profile, seed, run)
    for save in SAVES:
        for convention in RANKED_BY:
            scores = {name: _rival(name, save, convention, profile) for name in RIVALS}
            scores["ours"] = _scores(ours, save, convention, profile)
            for name, place in mean_ranks(scores).items():
                fuser = ours if name == "ours" else load(*RIVALS[name])
                values = {"mean rank": place} | (scores[name] if name == "ours" else {})
                for metric, value in values.items():
                    yield measured(
                        "mmdrfuse/ranks",
                        f"{name}/{save}",
                        metric,
                        value,
                        _pairs(profile),
                        profile=profile,
                        seed=seed,
                        unit="of 5" if metric == "mean rank" else "1" if metric != "SD" else "grey levels",
                        convention=convention,
                        weights=fuser.sha256,
                        command=this_command(),
                        note="ours is trained by this run",
                    )


def mean_ranks(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Fuser -> metric -> value to fuser -> mean over the metrics of its place, 1 for the highest value.

    Equal values share the better place.
    """
    return {
        name: sum(1 + sum(other[metric] > mine[metric] for other in scores.values()) for metric in mine)
        / len(mine)
        for name, mine in scores.items()
    }


@cache
def _pairs(profile: str) -> Pairs:
    return open_pairs("roadscene", 4 if profile == "smoke" else None, split="test")


@cache
def _rival(name: str, save: str, convention: str, profile: str) -> dict[str, float]:
    """What no seed changes is scored once a process."""
    return _scores(load(*RIVALS[name]), save, convention, profile)


def _scores(fuser: Fuser, save: str, convention: str, profile: str) -> dict[str, float]:
    """Means over the test pairs, whose 8-bit luminance the fuser sees."""
    pairs = _pairs(profile)
    ir, vi = ([to_uint8(getattr(pair, role)) for pair in pairs] for role in ("ir", "vi"))
    fused = [fuse(fuser, a / 255, b / 255, save=save) for a, b in zip(ir, vi, strict=True)]
    return evaluate(ir, vi, fused, convention, list(METRICS)).mean()

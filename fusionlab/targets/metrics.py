"""Our own studies of metrics: do they rank fusers as the truth does?"""

import math
from collections.abc import Iterator
from pathlib import Path

from fusionlab.data import open_pairs, to_uint8
from fusionlab.errors import UserError
from fusionlab.lab.records import Record, measured, this_command
from fusionlab.methods import load
from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.metrics.truth import kept, psnr

PREVIEW_ROWS = ("average", "maximum", "laplacian", "mmdrfuse")
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
            {**kept(image, truth), "PSNR": psnr(image, truth.reference)}
            for image, truth in zip(fused, truths, strict=True)
        ]
        blind = evaluate(ir, vi, [to_uint8(image) for image in fused], "reference").mean()
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
                convention="reference" if metric in units else "truth",
                weights=fuser.sha256,
                command=this_command(),
            )


def _mean(values: list[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there)

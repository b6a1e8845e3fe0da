"""Golden values: public evaluators and libraries, run on real crops and on two synthetic triples.

A row of the golden files is compared where it belongs to a variant of our conventions or to one of its parts;
every other row is counted with the reason why not.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fusionlab.metrics import CONVENTIONS
from fusionlab.metrics.fidelity import vifp
from fusionlab.metrics.filters import gaussian, uniform
from fusionlab.metrics.information import mutual_information
from fusionlab.metrics.structure import ssim

SYNTHETIC = Path(__file__).parents[1] / "golden" / "metrics_synthetic.csv"
OURS = {"EN", "SD", "MI", "VIFp", "Qabf", "SSIM"}
EXACT, TINY_CONSTANTS, FLOAT32 = 1e-9, 1e-7, 1e-6

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
REFERENCE = {metric: variant.function for metric, variant in CONVENTIONS["reference"].variants.items()}
MMDRFUSE = {metric: variant.function for metric, variant in CONVENTIONS["mmdrfuse"].variants.items()}


def one_mi(source: int) -> Score:
    """MI of one source in nats: that source in both places counts twice."""
    return lambda *x: mutual_information(x[source], x[source], x[2], base=math.e) / 2


def one_vif(source: int) -> Score:
    return lambda *x: vifp(x[source], x[2])


def one_ssim(source: int, taps: list[float], correction: float = 1.0) -> Score:
    return lambda *x: ssim(x[source], x[2], taps, 255, correction)


def both(score: Callable[[int], Score]) -> Score:
    return lambda *x: score(0)(*x) + score(1)(*x)


def wang(source: int) -> Score:
    return one_ssim(source, gaussian(11, 1.5))


def window7(source: int) -> Score:
    return one_ssim(source, uniform(7), 49 / 48)


# (metric, variant) -> what must return it, and the relative tolerance.
MATCHED: dict[tuple[str, str], tuple[Score, float]] = {
    ("EN", "bits256"): (REFERENCE["EN"], EXACT),
    ("EN", "cdd_f64"): (MMDRFUSE["EN"], EXACT),
    ("EN", "cdd_f32"): (MMDRFUSE["EN"], FLOAT32),
    ("EN", "vifb"): (REFERENCE["EN"], EXACT),
    ("SD", "pop255"): (REFERENCE["SD"], EXACT),
    ("SD", "cdd_f64"): (MMDRFUSE["SD"], EXACT),
    ("SD", "cdd_f32"): (MMDRFUSE["SD"], FLOAT32),
    ("SD", "vifb"): (REFERENCE["SD"], EXACT),
    ("SD", "zoo"): (REFERENCE["SD"], FLOAT32),
    ("MI", "double_bits_sum"): (REFERENCE["MI"], EXACT),
    ("MI", "MIabf_double_bits_sum"): (REFERENCE["MI"], EXACT),
    ("MI", "zoo_bits_sum"): (REFERENCE["MI"], FLOAT32),
    ("MI", "cdd_nats_sum_f64"): (MMDRFUSE["MI"], EXACT),
    ("MI", "cdd_nats_sum_f32"): (MMDRFUSE["MI"], FLOAT32),
    ("MI", "vifb_minmax_nats_sum"): (MMDRFUSE["MI"], EXACT),
    ("MI", "lib_sklearn_nats_ir"): (one_mi(0), EXACT),
    ("MI", "lib_sklearn_nats_vi"): (one_mi(1), EXACT),
    ("VIFp", "sum"): (REFERENCE["VIF"], EXACT),
    ("VIFp", "cdd_sum_f64"): (MMDRFUSE["VIF"], EXACT),
    ("VIFp", "cdd_sum_f32"): (MMDRFUSE["VIF"], FLOAT32),
    ("VIFp", "ir"): (one_vif(0), EXACT),
    ("VIFp", "vi"): (one_vif(1), EXACT),
    ("VIFp", "lib_sewar_ir"): (one_vif(0), EXACT),
    ("VIFp", "lib_sewar_vi"): (one_vif(1), EXACT),
    ("VIFp", "lib_torchmetrics_ir"): (one_vif(0), EXACT),
    ("VIFp", "lib_torchmetrics_vi"): (one_vif(1), EXACT),
    ("VIFp", "lib_piq_ir"): (one_vif(0), FLOAT32),
    ("VIFp", "lib_piq_vi"): (one_vif(1), FLOAT32),
    ("Qabf", "lft_255"): (REFERENCE["Qabf"], EXACT),
    ("Qabf", "cdd_f64"): (MMDRFUSE["Qabf"], EXACT),
    ("Qabf", "cdd_f32"): (MMDRFUSE["Qabf"], FLOAT32),
    ("Qabf", "zoo"): (REFERENCE["Qabf"], FLOAT32),
    ("SSIM", "wang_valid_L255_mean"): (REFERENCE["SSIM"], EXACT),
    ("SSIM", "wang_valid_L255_sum"): (both(wang), EXACT),
    ("SSIM", "vifb_sum"): (both(wang), EXACT),
    ("SSIM", "wang_valid_L255_ir"): (wang(0), EXACT),
    ("SSIM", "wang_valid_L255_vi"): (wang(1), EXACT),
    ("SSIM", "lib_skimage_gauss_ir"): (wang(0), EXACT),
    ("SSIM", "lib_skimage_gauss_vi"): (wang(1), EXACT),
    ("SSIM", "lib_kornia_valid_ir"): (wang(0), EXACT),
    ("SSIM", "lib_kornia_valid_vi"): (wang(1), EXACT),
    ("SSIM", "lib_piq_ir"): (wang(0), EXACT),
    ("SSIM", "lib_piq_vi"): (wang(1), EXACT),
    ("SSIM", "cdd_skimage_win7_L2_sum_f64"): (MMDRFUSE["SSIM"], TINY_CONSTANTS),
    ("SSIM", "cdd_skimage_win7_L2_sum_f32"): (MMDRFUSE["SSIM"], 5e-6),
    ("SSIM", "cdd_skimage_win7_L255_sum_f64"): (both(window7), EXACT),
    ("SSIM", "cdd_skimage_win7_L255_sum_f32"): (both(window7), FLOAT32),
    ("SSIM", "lib_skimage_default_ir"): (window7(0), EXACT),
    ("SSIM", "lib_skimage_default_vi"): (window7(1), EXACT),
}

# (metric, variant) -> why it is another quantity than any of our variants.
SKIPPED: dict[tuple[str, str], str] = {
    ("EN", "zoo"): "adds 1e-7 inside the logarithm",
    ("SD", "u8sat"): "integer classes saturate",
    ("MI", "MIabf_u8sat"): "integer classes saturate",
    ("MI", "lft_u8sat_bits_sum"): "integer classes saturate",
    ("MI", "rowwise_matlab_mi_sum"): "takes whole rows as symbols",
    ("MI", "hossny_nmi"): "normalised mutual information",
    ("VIFp", "u8sat_sum"): "integer classes saturate",
    ("VIFp", "unit_sum"): "scored on [0, 1]",
    ("VIFp", "zoo_sum"): "off-centre window with zero padding",
    ("Qabf", "lft_unit"): "scored on [0, 1]",
    ("Qabf", "vifb"): "another rule for ties",
    ("Qabf", "liu_xydeas"): "other constants, mean of local ratios",
    ("SSIM", "matlab_ssim_L1_on255_mean"): "padded, range 1",
    ("SSIM", "matlab_ssim_unit_mean"): "padded, scored on [0, 1]",
    ("SSIM", "zoo_sum"): "range 1 in float32",
    ("SSIM", "lib_torchmetrics_ir"): "padded",
    ("SSIM", "lib_torchmetrics_vi"): "padded",
}


def syn_waves() -> list[np.ndarray]:
    i, j = np.mgrid[:96, :80]
    ir = (3 * i + 2 * j + 40 * ((i // 8 + j // 8) % 2)) % 256
    vi = ((i**2 + 3 * j**2) // 16 + 30) % 256
    return [ir, vi, (ir + vi) // 2]


def syn_flat() -> list[np.ndarray]:
    i, j = np.mgrid[:64, :72]
    box = (i >= 20) & (i < 44) & (j >= 24) & (j < 48)
    ir = 40 + 120 * box + ((7 * i + 13 * j) % 5) * (i >= 32)
    vi = np.where(j < 36, 200 - 2 * i, 255)
    return [ir, vi, np.maximum(ir, vi)]


MADE = {"syn_waves": syn_waves(), "syn_flat": syn_flat()}


def compare(path: Path, images: Path | None) -> tuple[Counter[str], list[str]]:
    """Counts of rows matched and skipped by reason, and a line for each row that disagrees."""
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] in OURS]
    for row in rows:
        key = row["metric"], row["variant"]
        if key in SKIPPED:
            tally[SKIPPED[key]] += 1
            continue
        score, tolerance = MATCHED[key]
        value, golden = score(*triple(row["triple"], images)).item(), float(row["value"])
        tally["matched"] += 1
        if abs(value - golden) > tolerance * abs(golden):
            wrong.append(f"{row['triple']} {' '.join(key)}: {value!r} instead of {golden!r}")
    return tally, wrong


def triple(name: str, images: Path | None) -> list[Tensor]:
    if name in MADE:
        arrays = MADE[name]
    else:
        assert images is not None, f"{name} has no formula"
        arrays = [np.array(Image.open(images / f"{name}_{role}.png")) for role in ("ir", "vi", "fused")]
    return [torch.from_numpy(x.astype(np.float64))[None, None] for x in arrays]


def test_synthetic_triples_are_the_documented_ones() -> None:
    assert [int(x.sum()) for x in MADE["syn_waves"]] == [968704, 960032, 962328]
    assert [int(x.sum()) for x in MADE["syn_flat"]] == [258051, 903168, 910081]


def test_synthetic_values() -> None:
    tally, wrong = compare(SYNTHETIC, images=None)
    assert not wrong, "\n".join(wrong)
    assert tally["matched"] == tally.total() == 100


@pytest.mark.parametrize(
    ("file", "matched", "skipped"),
    [("golden_matlab.csv", 170, 120), ("golden_public.csv", 330, 50), ("golden_released.csv", 3, 12)],
)
def test_real_values(shared: Path, file: str, matched: int, skipped: int) -> None:
    tally, wrong = compare(shared / "golden" / file, shared / "golden" / "images")
    print(f"\n{file}, rows of our six metrics:", *sorted(tally.items()), sep="\n  ")
    assert not wrong, "\n".join(wrong)
    assert (tally.pop("matched"), tally.total()) == (matched, skipped)

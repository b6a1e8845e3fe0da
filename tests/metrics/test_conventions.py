"""The conventions as a whole: batches, and the recorded scores of RoadScene pairs under `mmdrfuse`."""

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.metrics.conventions import Variant
from fusionlab.metrics.memory import remembering

VARIANTS = [
    pytest.param(variant, id=f"{convention}-{metric}")
    for convention, metric, variant in {
        variant.formula: (convention.name, metric, variant)
        for convention in reversed(CONVENTIONS.values())
        for metric, variant in convention.variants.items()
    }.values()
]
COLUMNS = {"EN": "EN", "SD": "SD", "MI": "MI_nat", "VIF": "VIF", "Qabf": "Qabf", "SSIM": "SSIM2"}
PAIRS = ("FLIR_00211.jpg", "FLIR_05064.jpg", "FLIR_06570.jpg", "FLIR_08248.jpg")


def batch(height: int = 48, width: int = 57) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randint(0, 256, (3, 4, 1, height, width), generator=generator).double())


@pytest.mark.parametrize("variant", VARIANTS)
def test_batch_equals_single_images_in_any_order(variant: Variant) -> None:
    x = batch(max(48, variant.side), max(57, variant.side))
    whole = variant.function(*x)
    singles = torch.cat([variant.function(*(image[i : i + 1] for image in x)) for i in range(4)])
    order = torch.tensor([2, 0, 3, 1])
    assert whole.shape == (4,)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole, singles, rtol=1e-12, atol=0, equal_nan=True)
    shuffled = variant.function(*(image[order] for image in x))
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pair_of_sources_serves_a_batch_of_fused_images(variant: Variant) -> None:
    ir, vi, fused = batch(max(48, variant.side), max(57, variant.side))
    together = variant.function(ir[:1], vi[:1], fused)
    apart = variant.function(ir[:1].expand_as(fused), vi[:1].expand_as(fused), fused)
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=0)


class SourceWork(TorchDispatchMode):
    """Counts the pixels that operations on the sources alone, and on what came of them, work on."""

    def __init__(self, *sources: Tensor) -> None:
        super().__init__()
        self.known = {x.untyped_storage()._cdata: x for x in sources}
        self.pixels: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), options=None):
        result = function(*args, **(options or {}))
        read = [x for x in tree_leaves((args, options)) if isinstance(x, Tensor) and x.numel() > 1]
        if read and all(x.untyped_storage()._cdata in self.known for x in read):
            made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            self.known |= {x.untyped_storage()._cdata: x for x in made}
            if not function.is_view:
                self.pixels[function.overloadpacket.__name__] += max(x.numel() for x in (*read, *made))
        return result


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_second_fused_image_costs_no_work_on_the_sources(variant: Variant) -> None:
    """But single sums and products of maps at hand: no filter (`add_`), no transform, no root, no count."""
    ir, vi, *fused = (image.clone() for image in torch.stack(batch(170, 166))[:, :2].flatten(0, 1)[:, None])
    apart = [variant.function(ir, vi, image) for image in fused]
    with torch.no_grad(), remembering(ir, vi):
        with SourceWork(ir, vi) as work:
            first = variant.function(ir, vi, fused[0])
        at_first = work.pixels.copy()
        work.pixels.clear()
        with work:
            others = [variant.function(ir, vi, image) for image in fused[1:]]
    assert torch.equal(torch.cat(apart), torch.cat([first, *others]))
    maps = {name: pixels / ir.numel() / len(others) for name, pixels in work.pixels.items() if pixels > 100}
    assert set(maps) <= {"add", "mul", "pow", "rsub"}
    assert sum(maps.values()) < 10 and sum(maps.values()) <= at_first.total() / ir.numel() / 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_smallest_side_has_a_value(variant: Variant) -> None:
    assert variant.function(*batch(variant.side, variant.side + 3)).isfinite().all()


# No formula steps or counts in these, so that a descent on them can show what they reward.
SMOOTH = [
    "SD",
    "SF",
    "AG",
    "SCD",
    "CC",
    "VIF",
    "VIFF",
    "Qabf",
    "Nabf",
    "SSIM",
    "MS_SSIM",
    "Q",
    "Qw",
    "Qe",
    "GMSD",
    "MSE",
    "PSNR",
]


@pytest.mark.parametrize("metric", SMOOTH)
def test_gradients_reach_the_fused_image_even_on_flat_ground(metric: str) -> None:
    ir, vi, fused = batch()
    for image in (ir, vi, fused):
        image[..., :20, :20] = 100
    fused.requires_grad_()
    CONVENTIONS["reference"].variants[metric].function(ir, vi, fused).sum().backward()
    assert fused.grad is not None
    assert fused.grad.isfinite().all()
    assert fused.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("metric", SMOOTH)
def test_gradients_are_those_of_finite_differences(metric: str) -> None:
    """Along a random direction, on images without ties."""
    generator = torch.Generator().manual_seed(1)
    ir, vi, fused = 255 * torch.rand(3, 1, 1, 48, 57, generator=generator, dtype=torch.float64)
    direction = torch.randn(fused.shape, generator=generator, dtype=torch.float64)
    score = CONVENTIONS["reference"].variants[metric].function
    fused.requires_grad_()
    (gradient,) = torch.autograd.grad(score(ir, vi, fused).sum(), fused)
    with torch.no_grad():
        ahead, behind = (score(ir, vi, fused + step * direction).item() for step in (1e-4, -1e-4))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind) / 2e-4, rel=1e-5, abs=1e-9)


def grey(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("L"))


def roadscene(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    folder = shared / "data" / "roadscene"
    return grey(folder / "ir" / name), grey(folder / "vis" / name)


def stretched(image: np.ndarray) -> np.ndarray:
    low, high = image.min(), image.max()
    return np.floor((image - low) * 255 / (high - low) + 0.5).astype(np.uint8)


def close(scores: Mapping[str, str | float], row: dict[str, str], rel: float) -> bool:
    return all(
        scores[metric] == pytest.approx(float(row[column]), rel=rel) for metric, column in COLUMNS.items()
    )


@pytest.mark.parametrize("name", PAIRS)
def test_recorded_roadscene_pairs(shared: Path, name: str) -> None:
    """Baselines on whole pairs, as an independent program scored and printed them to five decimals."""
    with (shared / "official" / "mmdrfuse" / "roadscene50_per_image.csv").open(newline="") as file:
        recorded = {(row["what"], row["save"]): row for row in csv.DictReader(file) if row["file"] == name}
    ir, vi = roadscene(shared, name)
    mean = (ir / 255 + vi / 255) / 2
    fused = {"max": np.maximum(ir, vi), "mean": np.floor(mean * 255 + 0.5).astype(np.uint8)}
    for what, image in fused.items():
        row = recorded[what, "clip"]
        scores = evaluate(ir, vi, image, "mmdrfuse").rows[0]
        assert close(scores, row, rel=2e-5), (what, scores)
        mi_bits = evaluate(ir, vi, image, "reference", metrics=["MI"]).rows[0]["MI"]
        assert mi_bits == pytest.approx(float(row["MI_bit"]), rel=2e-5)
    # Ties of the stretch fall either way with the float type, so single pixels differ by one level.
    scores = evaluate(ir, vi, stretched(mean), "mmdrfuse").rows[0]
    assert close(scores, recorded["mean", "stretch"], rel=1e-3), scores


def test_recorded_means_of_copied_infrared(shared: Path) -> None:
    """Copying the infrared image, mean of 50 RoadScene pairs: the scores reward the copy."""
    folder = shared / "official" / "mmdrfuse"
    with (folder / "measured_rows.csv").open(newline="") as file:
        row = next(r for r in csv.DictReader(file) if (r["set"], r["what"]) == ("RoadScene", "ir"))
    pairs = [roadscene(shared, f"{name}.jpg") for name in (folder / "roadscene50.txt").read_text().split()]
    ir, vi = zip(*pairs, strict=True)
    assert close(evaluate(ir, vi, ir, "mmdrfuse").mean(), row, rel=1e-4)

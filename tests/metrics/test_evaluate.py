"""What evaluate accepts, what it refuses, and how scores are put into tables."""

import csv
import io
import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch

from fusionlab import metrics
from fusionlab.errors import UserError
from fusionlab.metrics import CONVENTIONS, METRICS, Convention, Scores, Variant, compare, evaluate


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


IR, VI, FUSED = (noise(seed, 3, 1, 48, 44) for seed in range(3))


def rows(ir: Any, vi: Any, fused: Any) -> tuple[dict[str, str | float], ...]:
    return evaluate(ir, vi, fused, "reference").rows


def test_containers_of_the_same_values_score_alike() -> None:
    expected = rows(IR, VI, FUSED)
    assert [row["name"] for row in expected] == ["0", "1", "2"]
    assert rows(*(torch.from_numpy(x) for x in (IR, VI, FUSED))) == expected
    assert rows(*(x.astype(np.uint16) for x in (IR, VI, FUSED))) == expected
    assert rows(*(torch.from_numpy(x).float() / 255 * 255 for x in (IR, VI, FUSED))) == expected
    assert rows(*(np.clip(x - 0.5, 0, 255) for x in (IR, VI, FUSED))) == expected  # rounded half up
    assert rows(*(list(x[:, 0]) for x in (IR, VI, FUSED))) == expected
    assert rows(*(list(torch.from_numpy(x).split(1)) for x in (IR, VI, FUSED))) == expected


def test_views_and_read_only_arrays_are_read_as_they_look() -> None:
    mirrored = [x[0, 0, :, ::-1] for x in (IR, VI, FUSED)]
    for image in mirrored:
        image.setflags(write=False)
    copies = [np.ascontiguousarray(image) for image in mirrored]
    assert rows(*mirrored) == rows(*copies)


def test_images_of_differing_sizes_in_one_list() -> None:
    small, large = (tuple(noise(seed, *size) for seed in range(3)) for size in ((41, 50), (60, 43)))
    together = evaluate(*map(list, zip(small, large, strict=True)), "mmdrfuse", names=["small", "large"])
    assert [row["name"] for row in together.rows] == ["small", "large"]
    for row, triple in zip(together.rows, (small, large), strict=True):
        assert evaluate(*triple, "mmdrfuse", names=[row["name"]]).rows == (row,)


def test_metrics_may_be_chosen_and_then_need_only_their_own_size() -> None:
    tiny = IR[:, :, :7, :9], VI[:, :, :7, :9], FUSED[:, :, :7, :9]
    assert evaluate(*tiny, "mmdrfuse", metrics=["SSIM", "EN"]).metrics == ("SSIM", "EN")


@pytest.mark.parametrize(("metric", "convention", "side"), [
    ("VIF", "reference", 41), ("SSIM", "reference", 11), ("SSIM", "mmdrfuse", 7), ("Qabf", "mmdrfuse", 3),
])  # fmt: skip
def test_too_small_an_image_is_refused_with_metric_and_size(metric: str, convention: str, side: int) -> None:
    enough = [x[:, :, :side, :] for x in (IR, VI, FUSED)]
    assert evaluate(*enough, convention, metrics=[metric]).rows
    small = [x[:, :, : side - 1, :] for x in (IR, VI, FUSED)]
    with pytest.raises(UserError, match=f"image 0 is {side - 1}x44; {metric} needs at least {side} pixels"):
        evaluate(*small, convention, metrics=[metric])


BLANK = np.zeros((3, 1, 48, 44))
REFUSED = {
    "unit floats": (FUSED / 255, r"fused is a float image within \[0, 1\]; multiply by 255 or pass uint8"),
    "one unit float image": (np.concatenate([FUSED[:2] / 1.0, FUSED[2:] / 255]), r"within \[0, 1\]"),
    "NaN": (BLANK + np.nan, "fused holds values nan..nan"),
    "infinity": (BLANK + np.inf, "fused holds values inf"),
    "below": (FUSED.astype(np.int64) - 256, "fused holds values -256..-1"),
    "above": (FUSED.astype(np.int32) + 1, "fused holds values 1..256"),
    "bool": (FUSED > 9, "fused holds torch.bool values"),
    "complex": (FUSED + 1j, "fused holds torch.complex128 values"),
    "paths": (["a.png", "b.png", "c.png"], r"fused\[0\] holds <U5 values"),
    "colour": (FUSED.repeat(3, axis=1), r"fused has shape \(3, 3, 48, 44\)"),
    "three axes": (FUSED[:, 0], r"fused has shape \(3, 48, 44\)"),
    "no pixels": (FUSED[:, :, :0], r"fused has shape \(3, 1, 0, 44\)"),
    "fewer images": (FUSED[:2], "ir, vi and fused hold 3, 3 and 2 images"),
    "other size": (FUSED[:, :, 1:], "image 0: ir is 48x44, vi 48x44, fused 47x44"),
}


@pytest.mark.parametrize(("fused", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(fused: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(IR, VI, fused, "reference")


def test_dark_uint8_images_are_not_taken_for_unit_floats() -> None:
    dark = FUSED % 2
    assert evaluate(dark, dark, dark, "reference", metrics=["EN"]).mean()["EN"] > 0.9


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown convention 'cdd'; known: reference, mmdrfuse"):
        evaluate(IR, VI, FUSED, "cdd")
    with pytest.raises(UserError, match="has no metric LPIPS; it has EN, SD, MI, VIF, Qabf, SSIM"):
        evaluate(IR, VI, FUSED, "reference", metrics=["EN", "LPIPS"])
    with pytest.raises(UserError, match="has no metric in an empty list"):
        evaluate(IR, VI, FUSED, "reference", metrics=[])
    with pytest.raises(UserError, match="2 names for 3 images"):
        evaluate(IR, VI, FUSED, "reference", names=["a", "b"])
    with pytest.raises(UserError, match="0, 0 and 0 images"):
        evaluate([], [], [], "reference")


def test_every_convention_names_its_saving_rule_and_describes_its_variants() -> None:
    stretched = {name for name, convention in CONVENTIONS.items() if convention.save == "stretch"}
    assert stretched == {"mmdrfuse", "cddfuse"}
    order = list(METRICS)
    assert order[:6] == ["EN", "SD", "MI", "VIF", "Qabf", "SSIM"] == list(CONVENTIONS["mmdrfuse"].variants)
    for name, convention in CONVENTIONS.items():
        assert convention.name == name
        assert convention.evidence
        positions = [order.index(metric) for metric in convention.variants]
        assert positions == sorted(positions), f"{name} lists its metrics in another order than METRICS"
    assert set(METRICS) - set(CONVENTIONS["reference"].variants) == {"FMI_wavelet"}
    units = {name: c.variants["MI"].unit for name, c in CONVENTIONS.items() if "MI" in c.variants}
    assert {name for name, unit in units.items() if unit == "nats"} == {"mmdrfuse", "cddfuse"}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_methods_scored_together_score_as_each_alone(convention: str) -> None:
    side = 10 + max(variant.side for variant in CONVENTIONS[convention].variants.values())
    ir, vi = ([noise(seed, side, side + 9), noise(seed, side + 5, side)] for seed in range(2))
    mean = [((a.astype(int) + b) // 2).astype(np.uint8) for a, b in zip(ir, vi, strict=True)]
    methods = {"mean": mean, "ir": ir, "inverse": [255 - x for x in mean]}
    together = compare(ir, vi, methods, convention, names=["a", "b"])
    assert list(together) == list(methods)
    for method, fused in methods.items():
        alone = evaluate(ir, vi, fused, convention, names=["a", "b"])
        assert [row.pop("name") for row in together[method].rows] == [row.pop("name") for row in alone.rows]
        for ours, row in zip(together[method].rows, alone.rows, strict=True):
            assert ours == pytest.approx(row, rel=1e-12, abs=1e-12, nan_ok=True)


def test_a_source_meets_all_methods_at_once_in_batches_of_bounded_size(monkeypatch) -> None:
    seen = []

    def mean(ir: torch.Tensor, vi: torch.Tensor, fused: torch.Tensor) -> torch.Tensor:
        seen.append((len(ir), len(vi), len(fused)))
        return fused.mean((1, 2, 3))

    convention = Convention("stub", "clip", "", "defined", {"EN": Variant("", "1", "", mean)})
    monkeypatch.setitem(CONVENTIONS, "stub", convention)
    monkeypatch.setattr(metrics, "AT_ONCE", 2 * 48 * 44 + 1)
    methods = {str(level): np.full((3, 48, 44), level, np.uint8)[:, None] for level in range(5)}
    scores = compare(IR, VI, methods, "stub")
    assert {method: score.mean()["EN"] for method, score in scores.items()} == {str(i): i for i in range(5)}
    assert seen == [(1, 1, 2), (1, 1, 2), (1, 1, 1)] * 3


def test_compare_refuses_by_method() -> None:
    with pytest.raises(UserError, match="there is no method to score"):
        compare(IR, VI, {}, "reference")
    with pytest.raises(UserError, match="ir, vi and max hold 3, 3 and 2 images"):
        compare(IR, VI, {"mean": FUSED, "max": FUSED[:2]}, "reference")
    with pytest.raises(UserError, match="image 0: ir is 48x44, vi 48x44, mean 48x44, max 47x44"):
        compare(IR, VI, {"mean": FUSED, "max": FUSED[:, :, 1:]}, "reference")
    with pytest.raises(UserError, match=r"max is a float image within"):
        compare(IR, VI, {"mean": FUSED, "max": FUSED / 255}, "reference")


SCORES = Scores("reference", ({"name": "a", "EN": 1.0, "SD": 2.0}, {"name": "b", "EN": 4.0, "SD": 2.0}))


def test_mean_and_sample_spread() -> None:
    assert SCORES.mean() == {"EN": 2.5, "SD": 2.0}
    assert SCORES.spread() == {"EN": statistics.stdev([1.0, 4.0]), "SD": 0.0}
    single = Scores("reference", SCORES.rows[:1])
    assert all(math.isnan(value) for value in single.spread().values())
    undefined = Scores("reference", (*SCORES.rows, {"name": "c", "EN": math.nan, "SD": 5.0}))
    assert undefined.mean() == {"EN": 2.5, "SD": 3.0}
    assert undefined.counts() == {"EN": 2, "SD": 3}
    assert undefined.spread()["EN"] == SCORES.spread()["EN"]
    assert math.isnan(Scores("reference", undefined.rows[2:]).mean()["EN"])


def test_markdown_names_convention_and_direction() -> None:
    assert SCORES.markdown().splitlines() == [
        "| reference | EN ↑ | SD ↑ |",
        "| --- | ---: | ---: |",
        "| a | 1.0000 | 2.0000 |",
        "| b | 4.0000 | 2.0000 |",
        "| mean of 2 | 2.5000 | 2.0000 |",
        "| spread | 2.1213 | 0.0000 |",
    ]
    assert len(Scores("reference", SCORES.rows[:1]).markdown().splitlines()) == 3


def test_csv_carries_the_convention_and_every_digit() -> None:
    scores = evaluate(IR, VI, FUSED, "mmdrfuse", names=["a", "b, c", "d"])
    read = list(csv.DictReader(io.StringIO(scores.csv())))
    assert [row.pop("convention") for row in read] == ["mmdrfuse"] * 3
    assert [{k: v if k == "name" else float(v) for k, v in row.items()} for row in read] == list(scores.rows)

"""The traps of the field, one test each: what a wrong range, divisor, default or flat window does."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.metrics import CONVENTIONS, Variant, evaluate
from fusionlab.metrics import variants as v


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float64))[None, None]


def value(variant: Variant, *images: np.ndarray) -> float:
    return variant.function(*map(tensor, images)).item()


RAMP = np.arange(256).reshape(16, 16)
HALVES = np.where(np.arange(8) < 4, 0, 200) * np.ones((8, 1), dtype=int)
GENERATOR = np.random.default_rng(0)
IR, VI = GENERATOR.integers(0, 256, (2, 64, 72))


def test_saturated_deviation_hardly_measures_contrast() -> None:
    """In 8-bit integers half of the differences is lost and squares stop at 255."""
    assert value(v.SD, RAMP, RAMP, RAMP) == pytest.approx(73.9003, abs=1e-4)
    assert value(v.SD_SATURATED, RAMP, RAMP, RAMP) == pytest.approx(10.8352, abs=1e-4)
    assert value(v.SD, HALVES, HALVES, HALVES) == 100
    assert value(v.SD_SATURATED, HALVES, HALVES, HALVES) == pytest.approx(math.sqrt(127.5))
    for _ in range(5):
        image = GENERATOR.integers(0, 256, (9, 9)) * GENERATOR.random() // 1
        assert value(v.SD_SATURATED, image, image, image) <= math.sqrt(255)


def test_divisors_of_sharpness() -> None:
    inner, pixels = (value(form, RAMP, RAMP, RAMP) for form in (v.AG_INNER, v.AG_PIXELS))
    assert inner == pytest.approx(12.8976, abs=1e-4) and pixels == pytest.approx(11.3358, abs=1e-4)
    assert inner / pixels == pytest.approx(256 / 225)
    assert value(v.AG, RAMP, RAMP, RAMP) == pytest.approx(math.sqrt((1 + 16**2) / 2))  # steps 1 and 16
    whole, unit = (value(form, RAMP, RAMP, RAMP) for form in (v.SF, v.SF_UNIT))
    assert whole == pytest.approx(math.sqrt(1 + 16**2)) and unit == pytest.approx(whole / 255)


def test_psnr_of_the_usual_evaluator_is_48_decibels_too_high() -> None:
    excess = value(v.PSNR_MIXED, IR, VI, (IR + VI) // 2) - value(v.PSNR, IR, VI, (IR + VI) // 2)
    assert excess == pytest.approx(20 * math.log10(255)) and excess == pytest.approx(48.13, abs=5e-3)


def test_qabf_on_unit_range_takes_ties_for_losses() -> None:
    """A maximum copies every pixel; scaled to [0, 1] a tie no longer counts as an edge kept."""
    assert value(v.QABF_UNIT, *flat_triple()) < value(v.QABF, *flat_triple()) - 0.05
    assert value(v.QABF, IR, IR, IR) == pytest.approx(0.9753, abs=1e-4)
    assert value(v.QABF_UNIT, IR, IR, IR) < 0.96


def test_what_the_usual_evaluator_calls_fmi_of_pixels_is_the_edge_form() -> None:
    """Its default feature is 'edge', though its header says raw pixels; about twice as high on pictures."""
    smooth = np.add.outer(np.arange(64), 2 * np.arange(72)) // 2 + 40 * ((np.arange(72) // 9) % 2)
    noisy = smooth + GENERATOR.integers(0, 9, smooth.shape)
    for name in ("tang2022", "tang2023", "dmfuse"):
        printed = CONVENTIONS[name].variants["FMI_pixel"]
        assert printed is v.FMI_EDGE
        assert value(printed, noisy, smooth, smooth) > value(v.FMI_PIXEL, noisy, smooth, smooth) + 0.1


def flat_triple() -> list[np.ndarray]:
    """The golden triple syn_flat: flat windows and plateaus of 255."""
    i, j = np.mgrid[:64, :72]
    box = (i >= 20) & (i < 44) & (j >= 24) & (j < 48)
    ir = 40 + 120 * box + ((7 * i + 13 * j) % 5) * (i >= 32)
    vi = np.where(j < 36, 200 - 2 * i, 255)
    return [ir, vi, np.maximum(ir, vi)]


def test_flat_windows_belong_to_both_sources_in_piella() -> None:
    clean = {v.Q: 0.6343318, v.QW: 0.4733313, v.QE: 0.2008577}
    for variant, expected in clean.items():
        assert value(variant, *flat_triple()) == pytest.approx(expected, abs=1e-7)
        upside_down = [image[::-1].copy() for image in flat_triple()]
        assert value(variant, *upside_down) == pytest.approx(expected, abs=1e-7)


def test_released_piella_is_offered_by_name_and_equals_the_clean_one_where_nothing_is_flat() -> None:
    for clean, released in ((v.Q, v.Q_RELEASED), (v.QW, v.QW_RELEASED), (v.QE, v.QE_RELEASED)):
        assert "exactly 0" in released.formula
        both = [value(form, IR, VI, (IR + VI) // 2) for form in (clean, released)]
        assert both[0] == pytest.approx(both[1], rel=1e-12)


def test_constant_fused_image() -> None:
    constant = np.full_like(IR, 90)
    assert value(v.EN, IR, VI, constant) == 0 == value(v.SD, IR, VI, constant)
    assert value(v.MI_BITS, IR, VI, constant) == pytest.approx(0, abs=1e-12)
    assert value(v.VIF_SUM, IR, VI, constant) == pytest.approx(0, abs=1e-9)
    assert math.isnan(value(v.CC, IR, VI, constant))
    assert math.isfinite(value(v.SCD, IR, VI, constant))


def test_constant_source_and_copies_have_no_correlation_of_differences() -> None:
    constant = np.full_like(IR, 90)
    for triple in ((constant, VI, VI), (IR, VI, IR), (IR, IR, IR)):
        assert math.isnan(value(v.SCD, *triple))
    assert math.isnan(value(v.CC, constant, VI, (constant + VI) // 2))


SIDED = [(name, metric) for name, convention in CONVENTIONS.items()
         for metric, variant in convention.variants.items() if variant.side > 1]  # fmt: skip


@pytest.mark.parametrize(("convention", "metric"), SIDED)
def test_a_pixel_below_the_smallest_side_is_refused_by_name(convention: str, metric: str) -> None:
    side = CONVENTIONS[convention].variants[metric].side
    small = np.zeros((side - 1, 200), dtype=np.uint8)
    with pytest.raises(UserError, match=f"{metric} needs at least {side} pixels a side"):
        evaluate(small, small, small, convention, [metric])

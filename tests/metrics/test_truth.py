"""Scores against the truth of a scene."""

import math
from dataclasses import replace

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.metrics import evaluate
from fusionlab.metrics.truth import kept, psnr_to_truth, ssim_to_truth
from fusionlab.scenes import scene


@pytest.fixture(scope="module")
def truth():
    return scene(3, 120, 160, "night").truth


def test_each_clear_view_keeps_its_own_camera_whole_and_its_negative_loses_it(truth):
    assert kept(truth.ir, truth)["kept ir"] == pytest.approx(1)
    assert kept(truth.vi, truth)["kept vi"] == pytest.approx(1)
    assert kept(1 - truth.ir, truth)["kept ir"] == pytest.approx(-1)
    assert kept(truth.vi, truth)["kept ir"] < 0.9
    assert kept(0.5 * truth.ir + 0.2, truth)["kept ir"] == pytest.approx(1)  # blind to brightness and gain


def test_a_camera_that_carries_nothing_alone_has_no_score(truth):
    nobody = replace(truth)
    nobody.__dict__["both"] = torch.zeros_like(truth.both)
    assert all(math.isnan(value) for value in kept(truth.ir, nobody).values())


def test_psnr_by_hand():
    image = torch.full((1, 1, 4, 4), 0.5)
    assert psnr_to_truth(image + 0.1, image) == pytest.approx(20, abs=1e-4)


def test_ssim_is_that_of_the_reference_convention_with_the_truth_as_both_sources(truth):
    image, reference = (255 * truth.vi).round(), (255 * truth.reference).round()
    (row,) = evaluate(reference, reference, image, "reference", ["SSIM"]).rows
    assert ssim_to_truth(image / 255, reference / 255) == pytest.approx(row["SSIM"], rel=1e-9)
    assert ssim_to_truth(truth.reference, truth.reference) == pytest.approx(1)


@pytest.mark.parametrize("score", [psnr_to_truth, ssim_to_truth])
def test_grey_levels_up_to_255_are_refused(truth, score):
    with pytest.raises(UserError, match=r"fused holds .*; scores by the truth take images in \[0, 1\]"):
        score(255 * truth.vi, truth.reference)


def test_ssim_needs_a_whole_window():
    small = torch.rand(1, 1, 10, 40)
    with pytest.raises(UserError, match="fused is smaller than 11 pixels a side"):
        ssim_to_truth(small, small)
    assert math.isinf(psnr_to_truth(small, small))

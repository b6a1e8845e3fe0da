"""Scores against the truth of a scene."""

import math
from dataclasses import replace

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.metrics import evaluate
from fusionlab.metrics.truth import kept, psnr_to_signal, psnr_to_truth, ssim_to_truth
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
    assert math.isnan(psnr_to_signal(truth.ir, nobody))


def test_psnr_by_hand():
    image = torch.full((1, 1, 4, 4), 0.5)
    assert psnr_to_truth(image + 0.1, image) == pytest.approx(20, abs=1e-4)


def test_psnr_to_the_signal_pixel_by_pixel_and_blind_to_the_rest(truth):
    image, squares = (truth.ir + truth.vi) / 2, []
    for y in range(120):
        for x in range(160):
            carrier = {1: truth.ir, 2: truth.vi}.get(truth.both[y, x].item())
            if carrier is not None:
                squares.append((image[0, 0, y, x] - carrier[0, 0, y, x]).item() ** 2)
    wanted = -10 * math.log10(sum(squares) / len(squares))
    assert psnr_to_signal(image, truth) == pytest.approx(wanted, rel=1e-5)
    elsewhere = (truth.both == 0) | (truth.both == 3)
    assert psnr_to_signal(image.masked_fill(elsewhere, 0.0), truth) == pytest.approx(wanted, rel=1e-5)


def test_averages_are_near_the_weighted_mean_by_construction_and_not_near_the_signal(truth):
    """Of average and the right camera at each pixel, the one truth prefers the first where nobody carries."""
    chosen = torch.where(truth.both == 1, truth.ir, truth.vi)
    average = (truth.ir + truth.vi) / 2
    nobody = truth.both == 0
    error = {name: (x - truth.weighted).square()[0, 0][nobody].mean() for name, x in
             (("average", average), ("vi", truth.vi), ("ir", truth.ir))}  # fmt: skip
    assert error["average"] < 0.5 * min(error["vi"], error["ir"])
    assert math.isinf(psnr_to_signal(chosen, truth))
    assert psnr_to_signal(average, truth) < 25


def test_the_weighted_mean_by_its_weight(truth):
    assert ((truth.weight > 0) & (truth.weight < 1)).all()
    assert torch.equal(truth.weighted, truth.weight * truth.ir + (1 - truth.weight) * truth.vi)


def test_ssim_is_that_of_the_reference_convention_with_the_truth_as_both_sources(truth):
    image, known = (255 * truth.vi).round(), (255 * truth.weighted).round()
    (row,) = evaluate(known, known, image, "reference", ["SSIM"]).rows
    assert ssim_to_truth(image / 255, known / 255) == pytest.approx(row["SSIM"], rel=1e-9)
    assert ssim_to_truth(truth.weighted, truth.weighted) == pytest.approx(1)


@pytest.mark.parametrize("score", [psnr_to_truth, ssim_to_truth])
def test_grey_levels_up_to_255_are_refused(truth, score):
    with pytest.raises(UserError, match=r"fused holds .*; scores by the truth take images in \[0, 1\]"):
        score(255 * truth.vi, truth.weighted)


def test_ssim_needs_a_whole_window():
    small = torch.rand(1, 1, 10, 40)
    with pytest.raises(UserError, match="fused is smaller than 11 pixels a side"):
        ssim_to_truth(small, small)
    assert math.isinf(psnr_to_truth(small, small))

"""Every value of the released loss functions that was recorded from them on five crops."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import fusionlab
from fusionlab.losses.distillation import distillation_loss
from fusionlab.losses.gradient import gradient_loss
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.refresh import gmsd_to_both, released_gmsd, ssim_to_both
from fusionlab.metrics.structure import ssim

BATCH = ["roadscene_FLIR_08954_256x256", "roadscene_FLIR_06430_256x256", "tno_01_256x256", "tno_35_256x256"]


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "official" / "mmdrfuse" / "loss_reference.json").read_text())


def read(shared, crop):
    """ir, vi and the raw outputs of both networks that are stored for a crop, (1, 1, H, W)."""
    folder = shared / "official" / "mmdrfuse" / "pairs" / crop
    images = [
        torch.from_numpy(np.asarray(Image.open(folder / f"{role}.png")) / 255.0).float()
        for role in ("ir", "vis")
    ]
    raw = {
        name: torch.from_numpy(np.load(file))[None, None]
        for name in ("student", "teacher")
        if (file := folder / f"{name}_raw.npy").is_file()
    }
    return *(image[None, None] for image in images), raw


def measured(fused, ir, vi):
    found = {
        "min": fused.min(),
        "max": fused.max(),
        "mean": fused.mean(),
        "std": fused.std(correction=0),
        "intensity_l1_to_max": intensity_loss(fused, ir, vi),
        "grad_mse_coded_unweighted": gradient_loss(fused, ir, vi, "released"),
        "grad_mse_eq3_signed_max": gradient_loss(fused, ir, vi, "paper"),
        "ssim_ir": ssim(fused, ir, data_range=1),
        "ssim_vis": ssim(fused, vi, data_range=1),
        "gmsd_ir": released_gmsd(fused, ir),
        "gmsd_vis": released_gmsd(fused, vi),
    }
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("crop", [*BATCH, "roadscene_FLIR_08954_255x243"])
def test_losses_of_one_image(shared, reference, crop):
    ir, vi, raw = read(shared, crop)
    for who, fused in raw.items():
        wanted = reference[crop][who]
        found = measured(fused, ir, vi)
        assert found.keys() == wanted.keys()
        # Four digits: the released SSIM of bright flat areas is .81820 where float64 arithmetic has .81818.
        assert found == pytest.approx(wanted, rel=1e-4), who


def maps(shared, crops):
    """(S_1, S_2), (T_1, T_2) of the released networks, and the sources, as one batch."""
    ir, vi = (torch.cat(images) for images in zip(*(read(shared, crop)[:2] for crop in crops)))
    networks = [fusionlab.load(name, weights="official").network for name in ("mmdrfuse", "mmdrfuse-teacher")]
    with torch.no_grad():
        return *((network.features(ir, vi), network(ir, vi)) for network in networks), ir, vi


@pytest.mark.parametrize("crop", BATCH)
def test_distillation_of_one_image(shared, reference, crop):
    student, teacher, _, _ = maps(shared, [crop])
    wanted = reference[crop]
    for key in ("distill_coded_half_sum_sq", "distill_half_sum_sq_check"):
        assert distillation_loss(student, teacher, "released").item() == pytest.approx(wanted[key], rel=1e-4)
    printed = distillation_loss(student, teacher, "paper").item()
    assert printed == pytest.approx(wanted["distill_eq1_half_sum_norm"], rel=1e-4)
    for end, norm in enumerate(wanted["distill_terms_l2_feature_response"]):
        alone = distillation_loss(student[end : end + 1], teacher[end : end + 1], "paper").item()
        assert alone == pytest.approx(norm / 2, rel=1e-4)


def test_the_batch_of_four_is_one_vector_in_the_released_form(shared, reference):
    student, teacher, ir, vi = maps(shared, BATCH)
    wanted = reference["batch_of_the_four_256"]
    together = distillation_loss(student, teacher, "released").item()
    assert together == pytest.approx(wanted["distill_coded_half_sum_sq"], rel=1e-4)
    single = [reference[crop]["distill_coded_half_sum_sq"] for crop in BATCH]
    assert sum(single) / 4 == pytest.approx(wanted["mean_of_single"])
    fused = student[1]
    assert ssim_to_both(fused, ir, vi).mean().item() == pytest.approx(wanted["ssim_sum"], rel=2e-5)
    assert gmsd_to_both(fused, ir, vi).mean().item() == pytest.approx(wanted["gmsd_sum"], rel=2e-5)

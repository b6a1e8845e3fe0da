"""The two networks of MMDRFuse against their printed sizes and their released outputs."""

import numpy as np
import pytest
import torch
from PIL import Image

import fusionlab
from fusionlab.methods import fuse
from fusionlab.methods.mmdrfuse import Student, Teacher

CROPS = ["roadscene_FLIR_08954_256x256", "roadscene_FLIR_06430_256x256", "tno_01_256x256", "tno_35_256x256"]
ODD = "roadscene_FLIR_08954_255x243"


def read(file) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(file)) / 255.0).float()[None, None]


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_papers():
    assert count(Student()) == 113
    assert count(Teacher()) == 556_489


@pytest.mark.parametrize("crop", [*CROPS, ODD])
@pytest.mark.parametrize(("name", "tolerance"), [("mmdrfuse", 2e-6), ("mmdrfuse-teacher", 2e-5)])
def test_official_weights_give_the_released_outputs(shared, crop, name, tolerance):
    folder = shared / "official" / "mmdrfuse" / "pairs" / crop
    who = "student" if name == "mmdrfuse" else "teacher"
    ir, vi = read(folder / "ir.png"), read(folder / "vis.png")
    fuser = fusionlab.load(name, weights="official")
    if crop == ODD and who == "teacher":  # the released teacher raises here; ours pads and crops
        assert fuser(ir, vi).shape == ir.shape
        return
    raw = np.load(folder / f"{who}_raw.npy")
    assert np.abs(fuser.raw(ir, vi)[0, 0].numpy() - raw).max() <= tolerance
    saved = np.asarray(Image.open(folder / f"{who}_official.png")).astype(int)
    levels = np.abs(fuse(fuser, ir, vi, save="stretch")[0, 0].numpy().astype(int) - saved)
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-3


def test_official_hidden_maps_are_taken_after_relu(shared):
    folder = next(f.parent for f in (shared / "official").rglob("features_top_left_64.npz"))
    stored = np.load(folder / "features_top_left_64.npz")
    ir, vi = read(folder / "ir.png"), read(folder / "vis.png")
    for name, who in (("mmdrfuse", "student"), ("mmdrfuse-teacher", "teacher")):
        network = fusionlab.load(name, weights="official").network
        with torch.no_grad():
            maps = network.features(ir, vi)[0, :, :64, :64].numpy()
            raw = network.raw(ir, vi)[0, 0, :64, :64].numpy()
        assert np.abs(maps - stored[f"{who}_post_relu"]).max() < 2e-5
        assert np.abs(raw - np.tanh(stored[f"{who}_pre_tanh"])).max() < 2e-5


def test_our_student_was_trained_and_is_near_the_maximum():
    """Ours is fitted to the pixelwise maximum; on a scene it has not seen it must be closer than the mean."""
    pair = fusionlab.open_pairs("scenes", n=1, seed=11, split="test", condition="night")[0]
    brighter = torch.maximum(pair.ir, pair.vi)
    ours = (fusionlab.load("mmdrfuse")(pair.ir, pair.vi) - brighter).abs().mean()
    mean = ((pair.ir + pair.vi) / 2 - brighter).abs().mean()
    assert ours < mean / 2

"""CoMoFusion, Fig. 2 (b): forward moments as predicted, solver errors as known, noise that turns back."""

import pytest
import torch

from fusionlab.data import read_image
from fusionlab.errors import UserError
from fusionlab.targets import reproduce
from fusionlab.targets.schedules import SHOWN, WINDOW, picture


def test_numbers_and_picture_of_scenes(tmp_path):
    records = reproduce("comofusion/figure2", profile="smoke", run=tmp_path)
    value = {(record.row, record.metric): record.value for record in records}
    for i in (1, 10, 20, 30, 40):
        assert value["forward", f"variance ratio at t_{i}"] == pytest.approx(1, abs=0.03)
        difference = (
            value["forward", f"correlation at t_{i}"] - value["forward", f"predicted correlation at t_{i}"]
        )
        assert abs(difference) < 0.02
    assert value["euler", "error at N 40"] == pytest.approx(0.0221, abs=1e-3)
    assert value["heun", "error at N 40"] == pytest.approx(0.0037, abs=1e-3)
    assert value["euler", "order"] == pytest.approx(1, abs=0.05)
    assert value["heun", "order"] == pytest.approx(2, abs=0.1)
    assert value["one step", "spread kept at N 40"] == pytest.approx(0.9297, abs=1e-4)
    height, width = (side + 2 for side in WINDOW)
    assert read_image(tmp_path / "figure2.png").shape[-2:] == (4 * height, len(SHOWN) * width)
    with pytest.raises(UserError, match="forward"):
        reproduce("comofusion/figure2", row="backward", run=tmp_path)


def test_the_way_back_ends_in_one_of_the_pairs():
    images = 2 * torch.rand(3, 2, *WINDOW, generator=torch.Generator().manual_seed(0)) - 1
    height, width = (side + 2 for side in WINDOW)
    drawn = picture(images, seed=1)[0, 0]
    end = torch.stack([drawn[r * height :, :width][1 : height - 1, 1 : width - 1] for r in (2, 3)])
    shown = (images / (1 + 2 * 0.002) + 1) / 2
    assert min((end - pair).abs().max().item() for pair in shown) < 0.01

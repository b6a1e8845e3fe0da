"""The tables of CoMoFusion: baseline rows against an independent measurement, and trainings that resume."""

import pytest
import torch

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.data.pair import read_image
from fusionlab.errors import UserError
from fusionlab.targets import comofusion

# TNO, all 42 pairs, 8-bit: EN, SF, AG, SD, Qabf, SSIM in the paper's convention, measured independently.
ON_TNO = {
    "visible": (6.828, 9.706, 3.575, 45.04, 0.544, 0.498),
    "infrared": (6.670, 7.653, 2.892, 41.73, 0.534, 0.498),
    "maximum": (6.781, 9.503, 3.558, 38.58, 0.602, 0.498),
    "clipped sum": (6.618, 11.774, 4.402, 44.94, 0.438, 0.436),
}


def on_tno(row, metrics=None):
    fuser = comofusion.Fuser(row, "no weights", "none", comofusion.PLAIN[row])
    pairs = comofusion.test_pairs("tno", "laptop", 0)
    made = comofusion.scored("comofusion/table1", row, fuser, pairs, "laptop", 0, {"comofusion": metrics})
    return {record.metric: record.value for record in made}


def test_the_average_rounds_halves_up(shared):
    """Half of its values end in .5, and rounding them to even levels takes its EN to 6.157."""
    found = on_tno("average", ["EN", "SD"])
    assert found == pytest.approx({"EN": 6.346, "SD": 24.813}, abs=1e-3)


@pytest.mark.parametrize("row", ["maximum", "clipped sum"])
def test_rows_without_a_network_on_tno(shared, row):
    found = on_tno(row)
    for metric, wanted in zip(("EN", "SF", "AG", "SD", "Qabf", "SSIM"), ON_TNO[row], strict=True):
        assert found[metric] == pytest.approx(wanted, rel=2e-3, abs=1e-3), metric


def test_a_model_is_trained_saved_scored_and_taken_up_again(shared, tmp_path):
    made = targets.reproduce("comofusion/model", profile="smoke", run=tmp_path)
    assert {record.row for record in made} == {"lambda 1", "lambda 10", "average"}
    assert records.lint(made) == []
    again = targets.reproduce("comofusion/model", profile="smoke", run=tmp_path)
    assert [r.value for r in again] == [r.value for r in made]
    assert records.read(tmp_path / "records.csv") == made  # nothing twice
    other = targets.reproduce("comofusion/model", row="lambda 1", profile="smoke", seed=1, run=tmp_path)
    assert other[0].weights != made[0].weights


def test_table4_trains_each_row_its_own_way(shared, tmp_path):
    made = targets.reproduce("comofusion/table4", profile="smoke", run=tmp_path)
    hashes = {record.row: record.weights for record in made}
    assert list(hashes) == list(comofusion.TABLE4_ROWS)
    assert len(set(hashes.values())) == 5
    shared_stages = sorted(file.name for file in (tmp_path / "checkpoints").iterdir())
    assert [name for name in shared_stages if name[:4] in ("auto", "cons")] == [
        "autoencoder-0.safetensors",
        "consistency-pseudo_huber-0.safetensors",
    ]
    assert {record.n for record in made} == {"2 of 361"}
    assert read_image(tmp_path / "table4-seed0.png").shape == (1, 1, 2 * 144, 5 * 192)


def test_table3_times_both(tmp_path):
    made = targets.reproduce("comofusion/table3", row="average", profile="smoke", run=tmp_path)
    assert [record.metric for record in made] == ["time 160x120"]
    assert made[0].unit == "s" and 0 < made[0].value < 1
    assert read_image(tmp_path / "table3.png").shape == (1, 1, 2 * 120, 160)


def test_clipped_sum_by_hand():
    ir, vi = torch.tensor([[[[0, 100, 200, 255]]]]) / 255, torch.tensor([[[[0, 100, 10, 255]]]]) / 255
    levels = (comofusion.clipped_sum(ir, vi) * 255).round().flatten().tolist()
    assert levels == [0, 73, 83, 255]


def test_unknown_rows_name_the_known(tmp_path):
    for target in ("model", "table1", "table3", "table4"):
        with pytest.raises(UserError, match="average|ours"):
            targets.reproduce(f"comofusion/{target}", row="nobody", run=tmp_path)

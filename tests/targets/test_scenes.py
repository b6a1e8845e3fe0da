"""Statistics of scenes: the definitions against independent ones, scenes within the spread of real sets."""

import numpy as np
import pytest
import torch

from fusionlab.data import Pair, open_pairs, read_image
from fusionlab.errors import UserError
from fusionlab.targets.scenes import SHEET, STATISTICS_ROWS, averages, contact_sheet, figures_of, statistics


def test_figures_of_pictures_whose_answer_is_known():
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1.0
    figures = figures_of(Pair("half", half, half * 0.4))
    assert figures["EN ir"] == pytest.approx(1.0) and figures["EN vi"] == pytest.approx(1.0)
    assert figures["SD ir"] == pytest.approx(127.5) and figures["mean vi"] == pytest.approx(51.0)
    assert figures["edge correlation"] > 0.98
    assert abs(figures_of(Pair("crossed", half, half.mT))["edge correlation"]) < 0.35


def test_scenes_lie_within_the_spread_of_the_real_sets(shared):
    pairs = open_pairs("scenes", 12, seed=3, size=(120, 160))
    drawn = averages(pairs)
    real = [figures_of(pair) for name in ("tno", "roadscene", "msrs") for pair in open_pairs(name)[:20]]
    for metric in real[0]:
        low, high = np.percentile([figures[metric] for figures in real], (10, 90))
        assert low < drawn[metric][0] < high, metric
    assert np.isclose(drawn["dark share"][0] * 12 % 1, 0)


def test_records_of_one_row(tmp_path):
    records = list(statistics("scenes/night", "smoke", "auto", 0, tmp_path))
    assert {record.metric for record in records} >= {"EN ir", "SD vi", "edge correlation", "dark share"}
    assert all(record.data == "scenes" and record.row == "scenes/night" for record in records)
    dark = next(record.value for record in records if record.metric == "dark share")
    assert dark >= 0.75
    with pytest.raises(UserError, match="noon"):
        list(statistics("noon", "smoke", "auto", 0, tmp_path))
    with pytest.raises(UserError, match="llvip"):
        list(statistics(None, "smoke", "llvip", 0, tmp_path))
    assert set(STATISTICS_ROWS) >= {"scenes", "tno", "roadscene", "msrs"}


def test_the_contact_sheet_shows_every_row_under_its_label(tmp_path):
    contact_sheet(tmp_path / "sheet.png", 36, 48)
    sheet = read_image(tmp_path / "sheet.png")
    assert sheet.shape == (1, 3, len(SHEET) * (36 + 18), 6 * 48)
    strips = sheet.reshape(3, len(SHEET), 54, 6 * 48)[:, :, :18]
    written = [strip.flatten() for strip in strips.unbind(1)]
    assert all(0.4 < strip.mean() < 1 for strip in written)
    assert len({tuple(strip.tolist()) for strip in written}) == len(SHEET)

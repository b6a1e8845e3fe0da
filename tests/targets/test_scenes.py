"""Statistics of scenes: within the spread of real sets, recorded row by row."""

import numpy as np
import pytest

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.bench.table import scored
from fusionlab.data import open_pairs
from fusionlab.errors import UserError
from fusionlab.metrics.sources import picture_statistics
from fusionlab.targets.scenes import TABLES, of_pair


def test_scenes_lie_within_the_spread_of_the_real_sets(shared):
    pairs = open_pairs("scenes", 12, seed=3, size=(120, 160))
    drawn = {score.metric: score.value for score in scored(of_pair, pairs)}
    real = [
        picture_statistics(pair) for name in ("tno", "roadscene", "msrs") for pair in open_pairs(name)[:20]
    ]
    for metric in real[0]:
        low, high = np.percentile([figures[metric] for figures in real], (10, 90))
        assert low < drawn[metric] < high, metric
    assert np.isclose(drawn["dark share"] * 12 % 1, 0)


def test_records_of_one_row(tmp_path):
    made = targets.reproduce("scenes/statistics", tmp_path, "scenes/night", "smoke", "scenes")
    assert {record.metric for record in made} >= {"EN ir", "SD vi", "edge correlation", "dark share"}
    assert all(record.data == "scenes" and record.row == "scenes/night" for record in made)
    assert {(record.n, record.split) for record in made} == {("4", "test")}
    assert records.lint(made) == []
    dark = next(record.value for record in made if record.metric == "dark share")
    assert dark >= 0.75
    night = [picture_statistics(pair) for pair in open_pairs("scenes", 4, condition="night")]
    mean = next(record.value for record in made if record.metric == "mean ir")
    assert mean == pytest.approx(np.mean([figures["mean ir"] for figures in night]))
    with pytest.raises(UserError, match="noon"):
        targets.reproduce("scenes/statistics", tmp_path, "noon", "smoke")
    with pytest.raises(UserError, match="llvip"):
        targets.reproduce("scenes/statistics", tmp_path, data="llvip")
    assert set(TABLES["scenes/statistics"].rows) >= {"scenes", "tno", "roadscene", "msrs"}


def test_a_row_of_a_real_set_is_measured_on_that_set_alone(shared, tmp_path):
    made = targets.reproduce("scenes/statistics", tmp_path, "msrs", "smoke")
    assert {(record.row, record.data, record.n) for record in made} == {("msrs", "msrs", "4 of 1444")}

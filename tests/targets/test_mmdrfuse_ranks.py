"""The mean rank of our distilled student beside the released one's."""

import pytest

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.metrics import CONVENTIONS
from fusionlab.targets.mmdrfuse_ranks import METRICS, RANKED_BY, mean_ranks


def test_places_by_hand():
    scores = {"a": {"x": 3.0, "y": 1.0}, "b": {"x": 2.0, "y": 1.0}, "c": {"x": 1.0, "y": 5.0}}
    assert mean_ranks(scores) == {"a": 1.5, "b": 2.0, "c": 2.0}


def test_the_two_conventions_differ_in_ssim_alone():
    one, two = (CONVENTIONS[name].variants for name in RANKED_BY)
    assert [metric for metric in METRICS if one[metric].function is not two[metric].function] == ["SSIM"]


def test_each_rule_of_saving_and_each_convention_ranks_five(shared, tmp_path):
    made = targets.reproduce("mmdrfuse/ranks", profile="smoke", run=tmp_path)
    assert records.lint(made) == []
    places = [record for record in made if record.metric == "mean rank"]
    assert len({record.key for record in made}) == len(made)
    for save in ("stretch", "clip"):
        for convention in RANKED_BY:
            group = [r.value for r in places if r.row.endswith(save) and r.convention == convention]
            # No two of the five are equal, so that the places 1 to 5 are all taken.
            assert len(group) == 5 and sum(group) == pytest.approx(15)
    assert {record.data for record in made} == {"roadscene"}


def test_a_single_row_cannot_be_ranked(tmp_path):
    with pytest.raises(UserError, match="all its rows at once"):
        targets.reproduce("mmdrfuse/ranks", "ours/clip", run=tmp_path)

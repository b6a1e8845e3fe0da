"""Printed rows and promoted records, as notebooks read them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from fusionlab import lab, paths
from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.targets import TARGETS

ROOT = Path(__file__).parents[2]
PROMOTED = sorted(path.parent for path in (ROOT / "figures").glob("*/records.csv"))


def test_a_printed_row_is_the_papers_and_an_unknown_one_names_the_known():
    row = lab.printed("mmdrfuse", "table5", "RoadScene", "MMDRFuse")
    assert row == {"EN": 7.24, "SD": 54.45, "MI": 3.09, "VIF": 0.72, "Qabf": 0.45, "SSIM": 0.89}
    with pytest.raises(UserError, match="TextFusion"):
        lab.printed("mmdrfuse", "table5", "RoadScene", "DenseFuse")


def test_methods_of_a_table_come_in_its_order():
    methods = lab.printed_methods("comofusion", "table1", "TNO")
    assert methods[0] == "GANMcC" and methods[-1] == "CoMoFusion" and len(methods) == 8
    with pytest.raises(UserError, match="prints nothing of 'MSRS'"):
        lab.printed_methods("comofusion", "table1", "MSRS")


def test_decoded_rows_name_what_fits_and_an_unknown_one_names_the_known():
    rows = lab.decoded("comofusion", "table1", "TNO", "RFN-Nest")
    fitting = {row["metric"]: row["value"] for row in rows if row["fits"] == "yes"}
    assert list(fitting) == list(lab.printed("comofusion", "table1", "TNO", "RFN-Nest"))
    assert fitting["SSIM"] == 0.3981 and len(rows) > len(fitting)
    with pytest.raises(UserError, match="comofusion table2 MSRS DATFuse"):
        lab.decoded("comofusion", "table1", "TNO", "CoMoFusion")


def test_wide_rows_hold_every_metric_once():
    rows = lab.wide(lab.results("mmdrfuse/table5", "roadscene", "mmdrfuse"))
    assert {"student-released/stretch", "maximum/clip"} <= {row["row"] for row in rows}
    assert all(list(row) == ["row", "EN", "MI", "Qabf", "SD", "SSIM", "VIF"] for row in rows)


def test_seeds_are_never_mixed_into_one_row():
    found = lab.results("mmdrfuse/student", "scenes")
    assert len({record.seed for record in found}) > 1
    with pytest.raises(UserError, match="more than one"):
        lab.wide(found)
    with pytest.raises(UserError, match="no record of mmdrfuse/table5 on tno"):
        lab.results("mmdrfuse/table5", "tno")


def test_two_records_of_one_number_and_two_profiles_are_refused(tmp_path, monkeypatch, sound, stamped):
    monkeypatch.setattr(paths, "asset", lambda name: tmp_path / name)
    folder = tmp_path / "figures" / "mmdrfuse"
    records.write(folder, [sound])
    assert lab.results("mmdrfuse/table5", "roadscene") == [sound]
    records.write(folder, [sound, replace(sound, weights="f" * 12, value=1.0)])
    with pytest.raises(UserError, match="stands twice"):
        lab.results("mmdrfuse/table5", "roadscene")
    records.write(folder, [sound, replace(stamped(run="b", profile="gpu"), row="teacher")])
    with pytest.raises(UserError, match="promoted at gpu and laptop"):
        lab.results("mmdrfuse/table5", "roadscene")


@pytest.mark.parametrize("folder", PROMOTED, ids=[folder.name for folder in PROMOTED])
def test_promoted_records_are_sound_unique_and_come_from_a_commit(folder):
    promoted = records.read(folder)
    assert promoted
    assert records.lint(promoted) == []
    assert not {record.run.commit for record in promoted if len(record.run.commit) != 40}
    assert len({record.key for record in promoted}) == len(promoted)
    for target in {record.target for record in promoted}:
        assert {r.row for r in promoted if r.target == target} <= set(TARGETS[target].rows)
        assert len({r.run.profile for r in promoted if r.target == target}) == 1


def test_every_committed_weight_was_measured():
    measured = {record.weights for folder in PROMOTED for record in records.read(folder)} - {"none"}
    weights = sorted((ROOT / "data" / "weights").iterdir())
    assert weights
    for path in weights:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert any(digest.startswith(known) for known in measured), path.name

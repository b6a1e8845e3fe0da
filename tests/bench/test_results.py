"""Printed rows and promoted records, as notebooks read them."""

import hashlib
from pathlib import Path

import pytest

from fusionlab import lab
from fusionlab.bench import records
from fusionlab.errors import UserError

ROOT = Path(__file__).parents[2]
PROMOTED = sorted((ROOT / "figures").glob("*/records.csv"))


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


def test_recorded_rows_hold_every_metric_once():
    rows = lab.recorded("mmdrfuse/table5", data="roadscene", convention="mmdrfuse")
    assert {"student-released/stretch", "maximum/clip"} <= {row["row"] for row in rows}
    assert all(list(row) == ["row", "EN", "MI", "Qabf", "SD", "SSIM", "VIF"] for row in rows)


def test_seeds_are_never_mixed_into_one_row():
    assert len({record.seed for record in lab.promoted("mmdrfuse/student", data="scenes")}) > 1
    with pytest.raises(UserError, match="more than one"):
        lab.recorded("mmdrfuse/student", data="scenes")
    with pytest.raises(UserError, match="no record of mmdrfuse/table5 on tno"):
        lab.recorded("mmdrfuse/table5", data="tno")


@pytest.mark.parametrize("path", PROMOTED, ids=[path.parent.name for path in PROMOTED])
def test_promoted_records_are_sound_and_come_from_a_commit(path):
    promoted = records.read(path)
    assert promoted
    assert records.lint(promoted) == []
    assert not {record.commit for record in promoted if record.commit.endswith("+dirty")}


def test_every_committed_weight_was_measured():
    measured = {record.weights for path in PROMOTED for record in records.read(path)} - {"none"}
    weights = sorted((ROOT / "data" / "weights").iterdir())
    assert weights
    for path in weights:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert any(digest.startswith(known) for known in measured), path.name

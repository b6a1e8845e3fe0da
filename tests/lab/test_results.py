"""Printed rows and promoted records, as notebooks read them."""

import pytest

from fusionlab import lab
from fusionlab.errors import UserError


def test_a_printed_row_is_the_papers_and_an_unknown_one_names_the_known():
    row = lab.printed("mmdrfuse", "table5", "RoadScene", "MMDRFuse")
    assert row == {"EN": 7.24, "SD": 54.45, "MI": 3.09, "VIF": 0.72, "Qabf": 0.45, "SSIM": 0.89}
    with pytest.raises(UserError, match="TextFusion"):
        lab.printed("mmdrfuse", "table5", "RoadScene", "DenseFuse")


def test_recorded_rows_hold_every_metric_once():
    rows = lab.recorded("mmdrfuse/table5", data="roadscene")
    assert {"student-released/stretch", "maximum/clip"} <= {row["row"] for row in rows}
    assert all(list(row) == ["row", "EN", "MI", "Qabf", "SD", "SSIM", "VIF"] for row in rows)


def test_seeds_are_never_mixed_into_one_row():
    assert len({record.seed for record in lab.promoted("mmdrfuse/student", data="scenes")}) > 1
    with pytest.raises(UserError, match="more than one"):
        lab.recorded("mmdrfuse/student", data="scenes")
    with pytest.raises(UserError, match="no record of mmdrfuse/table5 on tno"):
        lab.recorded("mmdrfuse/table5", data="tno")

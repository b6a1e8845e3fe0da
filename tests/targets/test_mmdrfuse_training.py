"""The trainings and ablations of MMDRFuse at their smallest, and what they must never touch."""

import pytest

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.targets import mmdrfuse_ablation, mmdrfuse_efficiency


def test_the_printed_operations_and_sizes_are_these_counts():
    counts = {name: network() for name, network in mmdrfuse_efficiency.ROWS.items()}
    million = {n: mmdrfuse_efficiency.multiply_adds(net, 1024, 1280) / 1e6 for n, net in counts.items()}
    assert million["student"] == pytest.approx(141.6, abs=0.1)
    assert million["teacher"] / million["student"] == pytest.approx(1563, abs=1)
    made = {
        (r.row, r.metric): r.value for r in targets.TARGETS["mmdrfuse/table4"](None, "smoke", "auto", 0, None)
    }
    assert round(made["student", "size at 4 bytes"], 2) == 0.44
    assert round(made["teacher", "size at 8 bytes"], 2) == 4347.57
    assert round(made["student-897", "size at 8 bytes"], 2) == 7.01


@pytest.mark.parametrize(
    ("target", "row"),
    [
        ("mmdrfuse/table1", "III with refresh"),
        ("mmdrfuse/table2", "II direct"),
        ("mmdrfuse/table3", "student of 897"),
        ("mmdrfuse/table6", "student-distilled/blackened"),
        ("mmdrfuse/distilled", None),
        ("mmdrfuse/teacher", None),
    ],
)
def test_each_target_runs_at_smoke(shared, tmp_path, target, row):
    made = targets.reproduce(target, row, "smoke", run=tmp_path)
    assert made and records.lint(made) == []
    assert {record.data for record in made} <= {"roadscene", "harvard"}


def test_figure5_is_drawn_from_scenes(tmp_path):
    made = targets.reproduce("mmdrfuse/figure5", profile="smoke", run=tmp_path)
    assert {record.row for record in made} == {"I", "II", "III"}
    assert (tmp_path / "figure5.png").is_file()


@pytest.mark.parametrize("target", ["mmdrfuse/table1", "mmdrfuse/distilled", "mmdrfuse/teacher"])
@pytest.mark.parametrize("data", ["msrs", "llvip", "tno"])
def test_nothing_is_trained_on_other_sets(tmp_path, target, data):
    with pytest.raises(UserError, match="trains on roadscene"):
        targets.reproduce(target, data=data, run=tmp_path)


def test_our_student_keeps_to_the_pattern_of_its_teacher(shared):
    """On val pairs our student must be nearer to its teacher's output than the mean of the sources is."""
    import fusionlab

    student, teacher = load("mmdrfuse-distilled"), load("mmdrfuse-teacher-half")
    for pair in fusionlab.open_pairs("roadscene", 3, split="val"):
        wanted = teacher(pair.ir, pair.vi)
        ours = (student(pair.ir, pair.vi) - wanted).abs().mean()
        assert ours < ((pair.ir + pair.vi) / 2 - wanted).abs().mean()
    assert mmdrfuse_ablation.TABLE2["II direct"]["direct"]

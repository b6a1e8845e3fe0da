"""Probes: the trainings they read, their controls, and answers that are known."""

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.fuser import load
from fusionlab.targets import probes


def test_the_probe_reads_the_trainings_of_table4_and_what_needs_none(shared, tmp_path):
    targets.reproduce("comofusion/table4", tmp_path, "ours", profile="smoke")
    (kept,) = tmp_path.glob("checkpoints/*/tuned-0.safetensors")
    before = kept.stat().st_mtime_ns
    made = targets.reproduce("comofusion/probe", tmp_path, profile="smoke")
    assert kept.stat().st_mtime_ns == before  # stage 1 is that of Table 4
    assert records.lint(made) == []
    found = {(record.row, record.metric): record.value for record in made}
    assert len(found) == len(probes.TABLES["comofusion/probe"].rows) * 4
    assert all(0.2 < value < 0.9 for value in found.values())
    assert {r.weights for r in made if r.row == "shipped"} == {load("comofusion").sha256}
    again = targets.reproduce("comofusion/probe", tmp_path / "again", "patches", profile="smoke")
    assert [record.value for record in again] == [r.value for r in made if r.row == "patches"]

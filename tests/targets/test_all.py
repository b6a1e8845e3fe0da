"""What holds for every table: it knows its profiles, rows and data before anything is opened."""

from dataclasses import replace

import pytest
import torch

from fusionlab.bench.run import PROFILES, find_profile
from fusionlab.bench.table import ANY, Score, Table, run_table
from fusionlab.errors import UserError
from fusionlab.targets import TARGETS, reproduce

every_target = pytest.mark.parametrize("target", TARGETS)
OPENING = (
    "data.sources.open_source", "data.sources.open_folder", "scenes.open_scenes", "bench.table.open_pairs",
    "bench.run.commit",
)  # fmt: skip


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Whoever opens pairs or begins a run is found out; the surroundings have no profile."""

    def opened(*_, **__):
        raise AssertionError("something was opened")

    monkeypatch.delenv("FUSIONLAB_PROFILE", raising=False)
    for place in OPENING:
        monkeypatch.setattr(f"fusionlab.{place}", opened)


@every_target
def test_auto_beside_a_gpu_is_a_profile_of_the_table_and_recorded(target, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "c" * 40)
    monkeypatch.setattr(Table, "open", lambda *_: [None])
    table = TARGETS[target]
    chosen = table.profile(find_profile("auto"))
    assert find_profile("auto") == "gpu"
    assert chosen == [name for name in PROFILES[:3] if name in table.profiles][-1]
    unmeasured = replace(table, measure=lambda rows, pairs, run: [Score("m", 1.0)], picture=None)
    (made,) = run_table(unmeasured, target, tmp_path)
    assert made.run.profile == chosen
    assert made.run.device == ("cpu" if table.device == "cpu" else "Tesla T4")


@every_target
def test_an_unknown_profile_is_refused(target, tmp_path, monkeypatch):
    with pytest.raises(UserError) as refused:
        reproduce(target, tmp_path, profile="huge")
    assert all(profile in str(refused.value) for profile in TARGETS[target].profiles)
    monkeypatch.setenv("FUSIONLAB_PROFILE", "huge")
    with pytest.raises(UserError, match="no profile huge"):
        reproduce(target, tmp_path)


@every_target
def test_an_unknown_row_is_refused(target, tmp_path):
    with pytest.raises(UserError, match=f"{target} has no row 'nobody'") as refused:
        reproduce(target, tmp_path, row="nobody")
    assert all(row in str(refused.value) for row in TARGETS[target].rows)


@every_target
@pytest.mark.parametrize("data", ["nonsense", "./nowhere", "mmdrfuse", ANY])  # mmdrfuse holds networks
def test_unknown_data_are_refused(target, data, tmp_path):
    with pytest.raises(UserError, match=f"{target} is not measured on '{data}'") as refused:
        reproduce(target, tmp_path, data=data)
    assert all(name in str(refused.value) for name in TARGETS[target].data if name != ANY)

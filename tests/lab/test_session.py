import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from fusionlab import lab
from fusionlab.bench import records
from fusionlab.errors import UserError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ("FUSIONLAB_PROFILE", "FUSIONLAB_DATA", "FUSIONLAB_RUN", "FUSIONLAB_COMMAND"):
        monkeypatch.delenv(name, raising=False)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_start_seeds_python_numpy_and_torch():
    lab.start("smoke", "scenes", seed=3)
    first = draw()
    lab.start("smoke", "scenes", seed=4)
    assert all(a != b for a, b in zip(first, draw(), strict=True))
    lab.start("smoke", "scenes", seed=3)
    assert draw() == first


def test_the_summary_says_what_the_session_runs_with(capsys):
    lab.start("smoke", "scenes", seed=7)
    text = capsys.readouterr().out
    assert text.count("\n") == 2
    assert torch.__version__ in text
    assert "profile smoke, data scenes" in text
    assert "seed 7" in text


def test_the_environment_overrides_the_profile_and_fills_in_the_data(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lab.start().profile == "laptop"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (lab.start().profile, lab.start().device) == ("gpu", "cuda")
    monkeypatch.setenv("FUSIONLAB_PROFILE", "smoke")
    capsys.readouterr()
    assert lab.start("laptop").profile == "smoke"
    assert "FUSIONLAB_PROFILE overrides laptop" in capsys.readouterr().out
    assert lab.start(data="auto").data == "scenes"


def test_a_profile_notebooks_do_not_know_is_refused(monkeypatch):
    with pytest.raises(UserError, match="reproduce"):
        lab.start("paper")
    with pytest.raises(UserError, match="smoke, laptop, gpu"):
        lab.start("huge")
    monkeypatch.setenv("FUSIONLAB_PROFILE", "paper")
    with pytest.raises(UserError, match="reproduce"):
        lab.start()


def test_pick_gives_the_profile_s_value():
    values = {"smoke": 1, "laptop": 20, "gpu": 300}
    assert [lab.start(profile, "scenes").pick(**values) for profile in values] == [1, 20, 300]


def test_pairs_of_scenes_follow_condition_size_and_seed():
    session = lab.start("smoke", "scenes", seed=1)
    first, again = (session.pairs(2, condition="night", size=(48, 64)) for _ in range(2))
    other = lab.start("smoke", "scenes", seed=2).pairs(2, condition="night", size=(48, 64))
    assert len(first) == 2
    assert first[0].ir.shape == (1, 1, 48, 64)
    assert torch.equal(first[1].vi, again[1].vi)
    assert not torch.equal(first[1].vi, other[1].vi)


def test_real_data_is_opened_by_name_and_captioned(shared, monkeypatch, capsys):
    monkeypatch.setenv("FUSIONLAB_DATA", "tno")
    session = lab.start("smoke")
    pairs = session.pairs(2, condition="night", size=(48, 64))
    assert session.data == "tno"
    assert len(pairs) == 2
    assert pairs[0].ir.shape != (1, 1, 48, 64)
    assert "data tno, " in capsys.readouterr().out


def test_a_folder_of_the_reader_is_named_without_its_path(tmp_path, capsys):
    from PIL import Image

    folder = tmp_path / "mine"
    for kind in ("ir", "vi"):
        (folder / kind).mkdir(parents=True)
        Image.new("L", (32, 24), 90).save(folder / kind / "a.png")
    session = lab.start("smoke", str(folder))
    assert session.pairs(1)[0].ir.shape == (1, 1, 24, 32)
    out = capsys.readouterr().out
    assert "mine" in out
    assert str(tmp_path) not in out
    made = lab.record(session, "metrics/x", "r", "m", 1.0, session.pairs(1))
    assert made.data == "mine"
    with pytest.raises(UserError):
        lab.start("smoke", str(tmp_path / "absent"))


def test_a_record_from_a_notebook_fills_in_its_surroundings(tmp_path, monkeypatch):
    session = lab.start("smoke", "scenes", seed=5)
    alone = lab.record(session, "metrics/averaging", "average", "EN", torch.tensor(6.5), session.pairs(3))
    assert (alone.value, alone.data, alone.n, alone.seed, alone.profile) == (6.5, "scenes", "3", 5, "smoke")
    assert alone.command == ""
    monkeypatch.setenv("FUSIONLAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("FUSIONLAB_COMMAND", "fusionlab run 00")
    made = lab.record(session, "metrics/size", "net", "parameters", 10)
    assert records.read(tmp_path / "run" / "records.csv") == [made]
    assert (made.command, made.data, made.n) == ("fusionlab run 00", "none", "0")


def test_importing_the_lab_loads_no_heavy_library():
    heavy = {"torch", "matplotlib", "ipywidgets", "papermill", "nbconvert", "nbformat", "IPython"}
    code = "import sys, fusionlab.lab, fusionlab.bench.records; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())

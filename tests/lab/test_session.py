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
    assert (lab.start().profile, lab.start().device) == ("laptop", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert (lab.start().profile, lab.start().device) == ("gpu", "cuda")
    assert lab.start().run.stamp.device == "Tesla T4"
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
    assert (alone.value, alone.data, alone.split, alone.n, alone.seed) == (6.5, "scenes", "test", "3", 5)
    assert alone.run == session.run.stamp
    assert (alone.run.profile, alone.run.command) == ("smoke", "")
    assert session.run.folder is None

    monkeypatch.setenv("FUSIONLAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("FUSIONLAB_COMMAND", "fusionlab run 00")
    started = lab.start("smoke", "scenes", seed=5)
    monkeypatch.setenv("FUSIONLAB_RUN", str(tmp_path / "later"))  # a session is of the run it began in
    monkeypatch.setenv("FUSIONLAB_COMMAND", "fusionlab run 01")
    made = lab.record(started, "metrics/size", "net", "parameters", 10, weights="0" * 12, note="small")
    assert records.read(tmp_path / "run") == [made]
    assert (made.run.command, made.run.run, made.data, made.n) == ("fusionlab run 00", "run", "none", "0")
    assert (made.weights, made.note, made.unit) == ("0" * 12, "small", "1")
    assert not (tmp_path / "later").exists()


def test_a_session_asks_git_and_the_clock_once(monkeypatch):
    asked = []
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: asked.append(1) or "c" * 40)
    session = lab.start("smoke", "scenes")
    made = [lab.record(session, "metrics/x", "r", f"m{k}", 1.0) for k in range(3)]
    assert {record.run.commit for record in made} == {"c" * 40}
    assert len(asked) == 1


def test_importing_the_lab_loads_no_heavy_library():
    heavy = {"torch", "matplotlib", "ipywidgets", "papermill", "nbconvert", "nbformat", "IPython"}
    code = "import sys, fusionlab.lab, fusionlab.bench.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())

"""The training loop on problems whose answers are known, and through kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fusionlab.data.pair import Pair
from fusionlab.errors import UserError
from fusionlab.training import Average, crops, draw_crops, epochs, fit, one_cycle, save_half


def test_fit_finds_the_known_weight_and_repeats(tmp_path):
    """w x + (1 - w) y with one number to learn, .3."""

    def run():
        w = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(w.weight)

        def loss(step, generator):
            x, y = torch.rand(2, 16, generator=generator)
            return (w.weight * x + (1 - w.weight) * y - (0.3 * x + 0.7 * y)).square().mean()

        optimiser = torch.optim.Adam(w.parameters())
        curve = fit(loss, {"w": w}, optimiser, steps=200, seed=4, schedule=one_cycle(0.1, 200))
        return curve, w

    (first, _), (second, w) = run(), run()
    assert first == second
    assert abs(w.weight.item() - 0.3) < 1e-3
    assert first[-1] < 1e-3 * first[0]
    save_half(w, tmp_path / "deep" / "w.safetensors")
    stored = load_file(tmp_path / "deep" / "w.safetensors")["weight"]
    assert stored.dtype == torch.float16
    assert abs(stored.item() - w.weight.item()) < 1e-3


def test_one_cycle_is_torchs():
    weight = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([weight])
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=57)
    ours = one_cycle(0.01, 57)
    for step in range(57):
        group = optimiser.param_groups[0]
        assert ours(step) == {"lr": group["lr"], "betas": group["betas"]}, step
        optimiser.step()
        if step < 56:
            theirs.step()


def test_running_average_and_clipping_by_hand():
    """Plain descent on -w: the gradient -1 is clipped to -.5, so w goes .5, 1, 1.5; average at rate .75."""
    network, average = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for module in (network, average):
        nn.init.zeros_(module.weight)
    fit(
        lambda step, _: -network.weight.sum(),
        {"network": network, "average": average},
        torch.optim.SGD(network.parameters(), lr=1.0),
        steps=3,
        seed=0,
        clip=0.5,
        ema=Average(average, network, lambda step: 0.75),
    )
    assert network.weight.item() == pytest.approx(1.5, abs=1e-5)
    expected = 0.75 * (0.75 * 0.125 + 0.25 * 1.0) + 0.25 * 1.5
    assert average.weight.item() == pytest.approx(expected, abs=1e-5)


# A run with all that has a state: Adam, a schedule, a running average, a generator. Argument: seconds a step.
RUN = """
import sys, time, torch
from pathlib import Path
from torch import nn
from fusionlab.training import Average, fit, one_cycle, save_half, write_safetensors

torch.manual_seed(3)
network, average = nn.Linear(6, 2), nn.Linear(6, 2)
average.load_state_dict(network.state_dict())

def loss(step, generator):
    time.sleep(float(sys.argv[2]))
    return (network(torch.randn(8, 6, generator=generator)) - 1).square().mean()

folder = Path(sys.argv[1])
fit(loss, {"network": network, "average": average}, torch.optim.RAdam(network.parameters()), steps=60, seed=1,
    schedule=lambda step: {"lr": 0.01 / (1 + step)},
    ema=Average(average, network, lambda step: 1 - 1 / (step + 2)),
    clip=1.0, checkpoint=folder / "run.safetensors", settings={"size": 6}, every=0.0)
write_safetensors({**network.state_dict(), **{"a " + k: v for k, v in average.state_dict().items()}},
    folder / "end.safetensors")
"""


def start(folder: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(seconds)], stderr=subprocess.PIPE)


def test_killed_and_interrupted_runs_resume_to_the_same_bits(tmp_path):
    assert start(tmp_path / "unbroken", 0).wait(120) == 0
    broken = tmp_path / "broken"
    for how in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = start(broken, 0.05)
        reached = progress(broken)
        while process.poll() is None and progress(broken) < reached + 8:
            time.sleep(0.02)
        os.kill(process.pid, how)
        errors = process.communicate(timeout=60)[1].decode()
        assert process.returncode != 0 and not (broken / "end.safetensors").exists()
        assert ("KeyboardInterrupt" in errors) == (how == signal.SIGINT)
    assert 20 < progress(broken) < 60
    assert start(broken, 0).wait(120) == 0
    ends = [load_file(tmp_path / run / "end.safetensors") for run in ("unbroken", "broken")]
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key
    states = [load_file(tmp_path / run / "run.safetensors") for run in ("unbroken", "broken")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    leftover = [file.name for file in broken.iterdir() if not file.name.startswith(".run")]
    assert sorted(leftover) == ["end.safetensors", "run.safetensors"]


def progress(folder: Path) -> int:
    file = folder / "run.safetensors"
    return len(load_file(file)["curve"]) if file.exists() else 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"

    def run(size=2, seed=0, note="a"):
        network = nn.Linear(size, 1)
        optimiser = torch.optim.Adam(network.parameters())
        loss = lambda step, generator: network.weight.square().sum()  # noqa: E731
        return fit(
            loss, {"net": network}, optimiser, steps=3, seed=seed, checkpoint=file, settings={"n": note}
        )

    curve = run()
    assert run() == curve  # finished: nothing is done again
    with pytest.raises(UserError, match="seed 0 there, 1 here"):
        run(seed=1)
    with pytest.raises(UserError, match="n a there, b here"):
        run(note="b")
    file.write_bytes(b"half a file")
    with pytest.raises(UserError, match="remove it"):
        run()


def test_a_loss_that_is_not_finite_stops_the_run():
    network = nn.Linear(1, 1)
    with pytest.raises(UserError, match="nan at step 0"):
        fit(
            lambda step, _: network.weight.sum() * float("nan"),
            {"net": network},
            torch.optim.Adam(network.parameters()),
            steps=2,
            seed=0,
        )


def test_epochs_meet_every_sample_once_a_pass():
    batches = epochs(10, batch=4, times=3, seed=2)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    passes = torch.cat(batches).view(3, 10)
    assert torch.equal(passes.sort().values, torch.arange(10).expand(3, 10))
    assert not torch.equal(passes[0], passes[1])


def test_crops_take_the_same_place_of_both_images_within_bounds():
    place = torch.arange(40 * 50, dtype=torch.float32).view(1, 1, 40, 50) / 2000
    ir, vi = crops([Pair("a", place, 1 - place)] * 3, per_pair=4, size=32, seed=1)
    assert ir.shape == vi.shape == (12, 1, 32, 32)
    assert torch.equal(vi, 1 - ir)
    assert torch.allclose(ir[:, 0, 1, 0] - ir[:, 0, 0, 0], torch.tensor(50 / 2000))
    assert len({round(x * 2000) for x in ir[:, 0, 0, 0].tolist()}) > 6
    drawn, _ = draw_crops([(place, place), (-place, -place)], 9, 32, torch.Generator().manual_seed(0))
    assert drawn.shape == (9, 1, 32, 32) and len(set(drawn[:, 0, 0, 0].sign().tolist())) == 2
    with pytest.raises(UserError, match="40x50"):
        draw_crops([(place, place)], 1, 41, torch.Generator())

"""The training loop on problems whose answers are known, and through kills."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fusionlab.errors import UserError
from fusionlab.training import (
    EMA,
    ema_update,
    fit,
    one_cycle,
    save_half,
    shuffled_batches,
    write_safetensors,
)


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
    """Plain descent on -w: the gradient -1 is clipped to -.5, so w goes .5, 1, 1.5; average at decay .75."""
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
        ema=EMA(average, network, lambda step: 0.75),
    )
    assert network.weight.item() == pytest.approx(1.5, abs=1e-5)
    expected = 0.75 * (0.75 * 0.125 + 0.25 * 1.0) + 0.25 * 1.5
    assert average.weight.item() == pytest.approx(expected, abs=1e-5)


def test_an_average_moves_weights_and_copies_buffers():
    torch.manual_seed(0)
    network, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    network(torch.randn(8, 3))
    with torch.no_grad():
        network.weight.fill_(2.0)
    ema_update(average, network, 0.75)
    assert average.weight.tolist() == [1.25] * 3
    assert torch.equal(average.running_mean, network.running_mean) and average.num_batches_tracked == 1
    fit(
        lambda k, generator: network(torch.randn(8, 3, generator=generator)).square().mean(),
        {"network": network, "average": average},
        torch.optim.SGD(network.parameters(), lr=0.1),
        steps=2,
        seed=0,
        ema=EMA(average, network, lambda k: 0.5),
    )
    assert torch.equal(average.running_var, network.running_var) and average.num_batches_tracked == 3


def train(folder: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """A run with all that has a state; Ctrl-C arrives in one step. Returns its end.

    Adam, a schedule, a running average, dropout, batch norm, and an upper level that its own optimiser moves
    at a rate that the step lowers, and that leaves gradients behind in the network.
    """
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    average, beta = copy.deepcopy(network), nn.ParameterList([nn.Parameter(torch.zeros(2))])
    upper = torch.optim.SGD(beta.parameters(), lr=0.5, momentum=0.9)
    torch.manual_seed(time.time_ns() % 2**32)  # whatever the caller's state is

    def step(k: int, generator: torch.Generator) -> torch.Tensor:
        if k == stop_at:
            signal.raise_signal(signal.SIGINT)
        x = torch.randn(8, 6, generator=generator)
        upper.zero_grad()
        (beta[0].softmax(0) @ (network(x) - 1).square().mean(0)).backward()
        upper.step()
        upper.param_groups[0]["lr"] *= 0.9
        return beta[0].softmax(0).detach() @ (network(x) - 1).square().mean(0)

    fit(
        step,
        {"network": network, "average": average, "beta": beta},
        [torch.optim.RAdam(network.parameters()), upper],
        steps=60,
        seed=1,
        schedule=lambda k: {"lr": 0.01 / (1 + k)},
        ema=EMA(average, network, lambda k: 1 - 1 / (k + 2)),
        clip=1.0,
        checkpoint=folder / "run.safetensors",
        settings={"size": 6},
        every=0.0,
    )
    return load_file(folder / "run.safetensors")


# A process that dies while it writes its 23rd checkpoint.
KILLED = """
import os, signal, sys
from pathlib import Path
from fusionlab import files
from test_training import train

writes, replace = [], os.replace

def dying(draft, file):
    writes.append(file)
    if len(writes) == 23:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(draft, file)

files.os.replace = dying
train(Path(sys.argv[1]))
"""


def test_killed_and_interrupted_runs_resume_to_the_same_bits(tmp_path):
    """The state of dropout, of both optimisers and of the generator is in the file, not only the weights."""
    unbroken, broken = train(tmp_path / "unbroken"), tmp_path / "broken"
    here = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(broken)], env=here, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert progress(broken) == 22
    for stop_at in (30, 41):
        with pytest.raises(KeyboardInterrupt):
            train(broken, stop_at)
        assert progress(broken) == stop_at + 1
    end = train(broken)
    assert progress(broken) == 60 and end.keys() == unbroken.keys()
    for key, value in unbroken.items():
        assert torch.equal(value, end[key]), key
    left = [file.name for file in broken.iterdir() if not file.name.startswith(".run")]
    assert left == ["run.safetensors"]


def progress(folder: Path) -> int:
    return len(load_file(folder / "run.safetensors")["curve"])


def test_dropout_repeats_from_the_seed_alone_and_leaves_the_callers_numbers_be():
    def losses(seed, fail=False):
        weights = nn.ParameterList([torch.ones(16)])

        def step(k, _):
            if fail:
                raise ZeroDivisionError
            return F.dropout(weights[0], 0.5).square().mean()

        return fit(step, {"w": weights}, torch.optim.SGD(weights, lr=0.01), steps=3, seed=seed)

    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    first = losses(0)
    with pytest.raises(ZeroDivisionError):
        losses(0, fail=True)
    assert torch.equal(torch.rand(4), expected)
    assert losses(0) == first != losses(1)


def test_only_the_gradient_of_what_a_step_returns_moves_the_network():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(weight.weight)

    def step(k, _):
        (5 * weight.weight.sum()).backward()  # as the upper level of a bilevel search may leave behind
        return -weight.weight.sum()

    fit(step, {"weight": weight}, [torch.optim.SGD(weight.parameters(), lr=1.0)], steps=2, seed=0)
    assert weight.weight.item() == 2.0


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"

    def run(size=2, seed=0, note="a", more=0):
        network = nn.Linear(size, 1)
        optimisers = [torch.optim.Adam(network.parameters()) for _ in range(1 + more)]
        loss = lambda step, generator: network.weight.square().sum()  # noqa: E731
        return fit(
            loss, {"net": network}, optimisers, steps=3, seed=seed, checkpoint=file, settings={"n": note}
        )

    curve = run()
    assert run() == curve  # finished: nothing is done again
    with pytest.raises(UserError, match="seed 0 there, 1 here"):
        run(seed=1)
    with pytest.raises(UserError, match="n a there, b here"):
        run(note="b")
    stored, whole = load_file(file), file.read_bytes()
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    older = {key: value for key, value in metadata.items() if key != "sha256"}
    write_safetensors(stored, file, older)
    with pytest.raises(UserError, match="no checkpoint of this version.*sha256.*remove it"):
        run()
    file.write_bytes(whole)
    with pytest.raises(UserError, match=r"does not fit[\s\S]*size mismatch"):
        run(size=3)
    with pytest.raises(UserError, match="1 optimisers there, 2 here"):
        run(more=1)
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


def test_shuffled_batches_meet_every_sample_once_a_pass():
    batches = shuffled_batches(10, batch=4, passes=3, seed=2)
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    passes = torch.cat(batches).view(3, 10)
    assert torch.equal(passes.sort().values, torch.arange(10).expand(3, 10))
    assert not torch.equal(passes[0], passes[1])

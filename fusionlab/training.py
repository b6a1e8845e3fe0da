"""The one training loop: seeds, running averages, clipping, checkpoints that outlive a kill, a bar."""

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from fusionlab.data.imagefile import read_bytes
from fusionlab.errors import UserError
from fusionlab.files import write_bytes

# What a schedule gives for each step: settings of the optimiser, such as {"lr": 1e-3}.
Schedule = Callable[[int], Mapping[str, object]]


@torch.no_grad()
def ema_update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves an average towards a network, decay average + (1 - decay) network, in place; copies buffers."""
    for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)


@dataclass(frozen=True)
class EMA:
    """An exponential moving average of a network, for `fit`: updated after step k with decay(k).

    Decay 0 makes the average the network itself.
    """

    average: nn.Module
    network: nn.Module
    decay: Callable[[int], float]


def fit(
    step: Callable[[int, torch.Generator], Tensor],
    modules: Mapping[str, nn.Module],
    optimisers: Optimizer | Sequence[Optimizer],
    *,
    steps: int,
    seed: int,
    schedule: Schedule | None = None,
    ema: EMA | None = None,
    clip: float | None = None,
    checkpoint: Path | None = None,
    settings: Mapping[str, object] | None = None,
    every: float = 60.0,
    title: str = "training",
) -> list[float]:
    """Minimises what `step(k, generator)` returns, a scalar, for k = 0 ... steps - 1; returns all of them.

    `step` draws its batch, and whatever else is random, from the generator (on the CPU, seeded with `seed`).
    What draws from torch's global generators, as dropout does, repeats too: they are seeded within, and put
    back at the end. `modules` are all that changes: what is trained, and its running average `ema`.

    The first optimiser (or the only one) minimises: gradients of the scalar alone, their norm bounded by
    `clip`, its settings from `schedule`. Further ones, such as that of the upper level of a bilevel search,
    are moved by `step` itself and only kept.

    With a `checkpoint` file, the state is written every so many seconds, at the end and at Ctrl-C; a later
    call with the same arguments goes on from there to the same weights, bit for bit, as one that never
    stopped, where torch has as many threads. `settings` says what makes this run (data, sizes, rates): a
    checkpoint of other settings, seed or steps is refused with UserError, as is one that is damaged, or does
    not fit the modules and optimisers. A loss that is not finite raises UserError too.
    """
    optimisers = [optimisers] if isinstance(optimisers, Optimizer) else list(optimisers)
    first = optimisers[0]
    trained = [weight for group in first.param_groups for weight in group["params"]]
    state = _State(modules, optimisers, torch.Generator().manual_seed(seed))
    run = json.dumps({**(settings or {}), "seed": seed, "steps": steps}, sort_keys=True, default=str)
    with (
        seeded(seed ^ 0x9E3779B9, state.devices),  # other numbers than the generator's
        _held_interrupt() as pressed,
        tqdm(total=steps, desc=title, unit="step", leave=False) as bar,
    ):
        curve = _restore(checkpoint, run, state) if checkpoint is not None and checkpoint.exists() else []
        bar.update(len(curve))
        saved = time.monotonic()
        for k in range(len(curve), steps):
            for group in first.param_groups if schedule else ():
                group.update(schedule(k))  # type: ignore[misc]  # mypy forgets the condition
            loss = step(k, state.generator)
            if not math.isfinite(loss.item()):
                raise UserError(
                    f"{title}: the loss is {loss.item()} at step {k}; lower the learning rate, clip the "
                    "gradients, or choose a loss that is bounded"
                )
            first.zero_grad()  # here, since a step that moves an upper level may leave gradients behind
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(trained, clip)
            first.step()
            if ema:
                ema_update(ema.average, ema.network, ema.decay(k))
            curve.append(loss.item())
            bar.update()
            bar.set_postfix(loss=f"{curve[-1]:.4g}", refresh=False)
            last = bool(pressed) or len(curve) == steps
            if checkpoint is not None and (last or time.monotonic() - saved >= every):
                _store(checkpoint, run, state, curve)
                saved = time.monotonic()
            if pressed:
                raise KeyboardInterrupt
    return curve


@contextmanager
def seeded(seed: int, devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Within, torch's global generators, of the CPU and these CUDA devices, start from `seed`.

    At the end, also at one by an exception, they are what they were before.
    """
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@dataclass(frozen=True)
class _State:
    """All that changes in a run, but for its losses."""

    modules: Mapping[str, nn.Module]
    optimisers: Sequence[Optimizer]
    generator: torch.Generator

    @property
    def devices(self) -> list[torch.device]:
        """The CUDA devices of all weights that are trained."""
        if not torch.cuda.is_initialized():  # then no weight can be there
            return []
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        found = {weight.device for group in groups for weight in group["params"] if weight.is_cuda}
        return sorted(found, key=str)

    def weights(self) -> dict[str, Tensor]:
        return {
            f"weights/{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }

    def moments(self) -> dict[str, Tensor]:
        """What each optimiser remembers of each weight, such as Adam's moments."""
        return {
            f"optimiser/{number}/{index}/{name}": torch.as_tensor(value)
            for number, optimiser in enumerate(self.optimisers)
            for index, remembered in optimiser.state_dict()["state"].items()
            for name, value in remembered.items()
            if value is not None
        }

    def groups(self) -> list[list[dict[str, object]]]:
        """The settings of each group of weights of each optimiser, such as its rate."""
        return [
            [{key: value for key, value in group.items() if key != "params"} for group in one.param_groups]
            for one in self.optimisers
        ]

    def randomness(self) -> dict[str, Tensor]:
        return {
            "random/generator": self.generator.get_state(),
            "random/cpu": torch.get_rng_state(),
            **{f"random/{device}": torch.cuda.get_rng_state(device) for device in self.devices},
        }


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """A hash of sizes and values, to tell in `settings` one set of images, or one teacher, from another."""
    digest = hashlib.sha256()
    for tensor in tensors:
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _store(file: Path, run: str, state: _State, curve: Sequence[float]) -> None:
    """Everything of a run in one safetensors file, with a hash of all its bytes but those of the hash."""
    tensors = {
        "curve": torch.tensor(curve, dtype=torch.float64),
        **state.weights(),
        **state.moments(),
        **state.randomness(),
    }
    metadata = {"run": run, "groups": json.dumps(state.groups()), "sha256": _UNHASHED}
    content = _serialised(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()
    write_bytes(file, content.replace(_UNHASHED.encode(), digest.encode(), 1))


_UNHASHED = "?" * 64  # in the hash's own place


def _content(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a checkpoint says of itself, and its tensors; raises UserError for one that is not as written."""
    content = read_bytes(file, -1)
    try:
        tensors = load_safetensors(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        told = metadata["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError) as fault:
        raise UserError(
            f"{file} is no checkpoint of this version ({fault}); remove it to begin anew"
        ) from fault
    if hashlib.sha256(content.replace(told.encode(), _UNHASHED.encode(), 1)).hexdigest() != told:
        raise UserError(f"{file} is damaged (SHA-256 differs); remove it to begin anew")
    return metadata, tensors


def _restore(file: Path, run: str, state: _State) -> list[float]:
    """Puts everything back; returns the curve so far."""
    metadata, tensors = _content(file)
    if (theirs := metadata["run"]) != run:
        raise UserError(
            f"{file} is of another run: {_difference(theirs, run)}; remove it, or name another checkpoint"
        )
    if missing := {*state.weights(), *state.randomness()} - tensors.keys():
        raise UserError(
            f"{file} lacks {min(missing)}, so it is of another network or machine; remove it to begin anew"
        )
    try:
        for name, module in state.modules.items():
            module.load_state_dict(_under(f"weights/{name}/", tensors))
        groups = json.loads(metadata["groups"])
        if len(groups) != len(state.optimisers):
            raise ValueError(f"{len(groups)} optimisers there, {len(state.optimisers)} here")
        for number, optimiser in enumerate(state.optimisers):
            _restore_optimiser(optimiser, groups[number], _under(f"optimiser/{number}/", tensors))
    except (RuntimeError, ValueError) as fault:
        raise UserError(f"{file} does not fit ({fault}); remove it to begin anew") from fault
    state.generator.set_state(tensors["random/generator"])
    torch.set_rng_state(tensors["random/cpu"])
    for device in state.devices:
        torch.cuda.set_rng_state(tensors[f"random/{device}"], device)
    return [float(value) for value in tensors["curve"]]


def _restore_optimiser(
    optimiser: Optimizer, groups: Sequence[Mapping[str, object]], moments: Mapping[str, Tensor]
) -> None:
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split("/")
        remembered.setdefault(int(index), {})[name] = value
    numbered = optimiser.state_dict()["param_groups"]
    settings = [
        # JSON has no tuples, such as Adam's betas.
        {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
        for group in groups
    ]
    together = [{**own, **theirs} for own, theirs in zip(numbered, settings, strict=True)]
    optimiser.load_state_dict({"state": remembered, "param_groups": together})


def _under(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def _difference(theirs: str, ours: str) -> str:
    """The first setting that differs: "seed 0 there, 1 here"."""
    there, here = json.loads(theirs), json.loads(ours)
    name = next(name for name in sorted({*there, *here}) if there.get(name) != here.get(name))
    return f"{name} {there.get(name)} there, {here.get(name)} here"


@contextmanager
def _held_interrupt() -> Iterator[list[int]]:
    """Notes Ctrl-C in a list, so that no step is left half done; a second one is obeyed at once."""
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield pressed
        return

    def note(number: int, _: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def write_safetensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Writes tensors whole or not at all; raises UserError where the file cannot be written."""
    write_bytes(file, _serialised(tensors, metadata))


def _serialised(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    return to_safetensors(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata
    )


def save_half(network: nn.Module, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes the weights in half precision, as all of this project are shipped; counters stay whole."""
    halves = {
        key: value.half() if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }
    write_safetensors(halves, file, metadata)


def one_cycle(peak: float, steps: int) -> Schedule:
    """A learning rate that rises from peak/25 to its peak over the first 30 % and falls to almost zero.

    The first moment of Adam moves the other way, from .95 to .85 and back (Smith and Topin 2018; cosines, as
    torch's OneCycleLR). A small network started at full rate loses its ReLUs for good.
    """
    turn = 0.3 * steps - 1

    def at(step: int) -> dict[str, object]:
        if step <= turn:
            part = step / turn
            return {"lr": _cosine(peak / 25, peak, part), "betas": (_cosine(0.95, 0.85, part), 0.999)}
        part = (step - turn) / (steps - 1 - turn)
        return {"lr": _cosine(peak, peak / 25e4, part), "betas": (_cosine(0.85, 0.95, part), 0.999)}

    return at


def cosine(peak: float, steps: int) -> Schedule:
    """A learning rate that falls from its peak to 0 along half a cosine."""
    return lambda step: {"lr": _cosine(peak, 0.0, step / steps)}


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))


def shuffled_batches(count: int, batch: int, passes: int, seed: int) -> list[Tensor]:
    """For each step the samples of its batch: some passes over `count` samples, each in a new order.

    The last batch of a pass holds what is left. Drawn beforehand, so that a resumed run meets the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(count, generator=generator) for _ in range(passes))
    return [chosen for order in orders for chosen in order.split(batch)]

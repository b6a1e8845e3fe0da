"""The one training loop: seeds, running averages, clipping, checkpoints that outlive a kill, a bar."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from fusionlab.data.pair import Pair
from fusionlab.diffusion.consistency import follow
from fusionlab.errors import UserError

# What a schedule gives for each step: settings of the optimiser, such as {"lr": 1e-3}.
Schedule = Callable[[int], Mapping[str, object]]


@dataclass(frozen=True)
class Average:
    """A running average of a network (EMA): after step k it is r average + (1 - r) network with r = rate(k).

    Buffers are copied. Rate 0 makes the average the network itself.
    """

    average: nn.Module
    network: nn.Module
    rate: Callable[[int], float]

    @torch.no_grad()
    def update(self, step: int) -> None:
        follow(self.average, self.network, self.rate(step))
        for kept, buffer in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(buffer)


def fit(
    loss: Callable[[int, torch.Generator], Tensor],
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    *,
    steps: int,
    seed: int,
    schedule: Schedule | None = None,
    ema: Average | None = None,
    clip: float | None = None,
    checkpoint: Path | None = None,
    settings: Mapping[str, object] | None = None,
    every: float = 60.0,
    title: str = "training",
) -> list[float]:
    """Minimises `loss(step, generator)` in `steps` steps of the optimiser; returns the loss of each step.

    `loss` draws its batch, and whatever else is random, from the generator (on the CPU, seeded with `seed`)
    and gives a scalar. `modules` are all that changes: what is trained, and its running average `ema`.
    `clip` bounds the norm of all gradients together.

    With a `checkpoint` file, the state is written every so many seconds, at the end and at Ctrl-C; a later
    call with the same arguments goes on from there to the same weights, bit for bit, as one that never
    stopped. `settings` says what makes this run (data, sizes, rates): a checkpoint of other settings, seed or
    steps is refused with UserError, as is one that does not fit the modules. A loss that is not finite raises
    UserError too.
    """
    generator = torch.Generator().manual_seed(seed)
    trained = [weight for group in optimiser.param_groups for weight in group["params"]]
    run = json.dumps({**(settings or {}), "seed": seed, "steps": steps}, sort_keys=True, default=str)
    curve: list[float] = []
    if checkpoint is not None and checkpoint.exists():
        curve = _restore(checkpoint, run, modules, optimiser, generator)
    saved = time.monotonic()
    with (
        _held_interrupt() as pressed,
        tqdm(total=steps, initial=len(curve), desc=title, unit="step", leave=False) as bar,
    ):
        for step in range(len(curve), steps):
            for group in optimiser.param_groups if schedule else ():
                group.update(schedule(step))  # type: ignore[misc]  # mypy forgets the condition
            optimiser.zero_grad()
            value = loss(step, generator)
            if not math.isfinite(value.item()):
                raise UserError(
                    f"{title}: the loss is {value.item()} at step {step}; lower the learning rate, clip the "
                    "gradients, or choose a loss that is bounded"
                )
            value.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(trained, clip)
            optimiser.step()
            if ema:
                ema.update(step)
            curve.append(value.item())
            bar.update()
            bar.set_postfix(loss=f"{curve[-1]:.4g}", refresh=False)
            last = bool(pressed) or len(curve) == steps
            if checkpoint is not None and (last or time.monotonic() - saved >= every):
                _store(checkpoint, run, modules, optimiser, generator, curve)
                saved = time.monotonic()
            if pressed:
                raise KeyboardInterrupt
    return curve


def _store(
    file: Path,
    run: str,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    curve: Sequence[float],
) -> None:
    """Everything of a run in one safetensors file, which is whole whenever it has its name."""
    tensors = {
        "generator": generator.get_state(),
        "curve": torch.tensor(curve, dtype=torch.float64),
        **_weights(modules),
        **{
            f"optimiser/{index}/{name}": torch.as_tensor(value)
            for index, state in optimiser.state_dict()["state"].items()
            for name, value in state.items()
            if value is not None
        },
    }
    write_safetensors(tensors, file, {"run": run})


def _restore(
    file: Path,
    run: str,
    modules: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> list[float]:
    """Puts everything back; returns the curve so far."""
    try:
        with safe_open(file, framework="pt") as content:
            theirs = (content.metadata() or {}).get("run", "{}")
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as fault:
        raise UserError(f"{file} cannot be read ({fault}); remove it to begin anew") from fault
    if theirs != run:
        raise UserError(
            f"{file} is of another run: {_difference(theirs, run)}; remove it, or name another checkpoint"
        )
    missing = _weights(modules).keys() - tensors.keys()
    if missing:
        raise UserError(f"{file} lacks {min(missing)}; remove it to begin anew")
    for name, module in modules.items():
        start = f"weights/{name}/"
        module.load_state_dict({k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    generator.set_state(tensors["generator"])
    return [float(value) for value in tensors["curve"]]


def _weights(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"weights/{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


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
    """Writes tensors under a temporary name first, so that an unfinished write does no harm."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, draft, metadata)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def save_half(network: nn.Module, file: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes the weights in half precision, as all weights of this project are shipped."""
    write_safetensors({key: value.half() for key, value in network.state_dict().items()}, file, metadata)


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


def epochs(count: int, batch: int, times: int, seed: int) -> list[Tensor]:
    """For each step the samples of its batch: `times` passes over `count` samples, each in a new order.

    The last batch of a pass holds what is left. Drawn beforehand, so that a resumed run meets the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(count, generator=generator) for _ in range(times))
    return [chosen for order in orders for chosen in order.split(batch)]


def crops(pairs: Sequence[Pair], per_pair: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random square crops, the same place in both images: two tensors (N, 1, size, size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    cut = [cut_out(pair.ir, pair.vi, size, generator) for pair in pairs for _ in range(per_pair)]
    return torch.cat([ir for ir, _ in cut]), torch.cat([vi for _, vi in cut])


def draw_crops(
    images: Sequence[tuple[Tensor, Tensor]], batch: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of random crops of random pairs (ir, vi), each (1, 1, H, W): two tensors (B, 1, size, size)."""
    chosen = torch.randint(len(images), (batch,), generator=generator).tolist()
    cut = [cut_out(images[index][0], images[index][1], size, generator) for index in chosen]
    return torch.cat([ir for ir, _ in cut]), torch.cat([vi for _, vi in cut])


def cut_out(ir: Tensor, vi: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random square of two images (..., H, W); raises UserError where they are smaller than that."""
    height, width = ir.shape[-2:]
    if min(height, width) < size:
        raise UserError(f"no crop of {size} pixels fits into {height}x{width}; ask for smaller crops")
    top = int(torch.randint(height - size + 1, (), generator=generator))
    left = int(torch.randint(width - size + 1, (), generator=generator))
    window = (..., slice(top, top + size), slice(left, left + size))
    return ir[window], vi[window]

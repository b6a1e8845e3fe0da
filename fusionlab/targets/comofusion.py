"""CoMoFusion: Tables 1 to 4, and the run that made our small model. Figure 2 is in `schedules`."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import open_pairs, to_uint8, write_image
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, load
from fusionlab.methods.baselines import average, maximum
from fusionlab.methods.comofusion import ABLATION, LAMBDAS, MODEL, Recipe, save, train
from fusionlab.metrics import CONVENTIONS, evaluate

CONVENTION = "comofusion"


def clipped_sum(ir: Tensor, vi: Tensor) -> Tensor:
    """ir + vi - 127 of 255, clipped: where L_pvs leads, and no network is needed to get there."""
    return (ir + vi - 127 / 255).clamp(0, 1)


PLAIN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "average": average,
    "maximum": maximum,
    "clipped sum": clipped_sum,
    "visible": lambda ir, vi: vi,
    "infrared": lambda ir, vi: ir,
}
ROWS = ("ours", *PLAIN)


def table1(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 1: our model, trained on RoadScene, and images that need no network, on all 42 pairs of TNO.

    In the paper's convention, and Qabf, VIF and SSIM in `reference`, whose SSIM has the range 255. With other
    `data` the same rows on it (RoadScene and MSRS: their test pairs). Draws `<run>/table1.png`: scenes by day
    and in fog, columns as in ROWS.
    """
    yield from compare("comofusion/table1", "tno", row, profile, data, seed)
    picture({name: fuser_of(name) for name in ROWS}, ("day", "fog"), seed, run / "table1.png")


def table2(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 2: the same on the test pairs of MSRS that are registered, 15 of 361.

    Draws `<run>/table2.png`: scenes at dusk and at night, columns as in ROWS.
    """
    yield from compare("comofusion/table2", "msrs", row, profile, data, seed)
    picture({name: fuser_of(name) for name in ROWS}, ("dusk", "night"), seed, run / "table2.png")


def compare(target: str, usual: str, row: str | None, profile: str, data: str, seed: int) -> Iterator[Record]:
    """The rows of Tables 1 and 2 on the usual data, or on other."""
    require(target, row, ROWS)
    pairs = test_pairs(usual if data == "auto" else data, profile, seed)
    for name in [row] if row else ROWS:
        both = {CONVENTION: None, "reference": ["Qabf", "VIF", "SSIM"]}
        yield from scored(target, name, fuser_of(name), pairs, profile, seed, both)


def fuser_of(row: str) -> Fuser:
    """The fuser of a row of Tables 1 and 2."""
    return load("comofusion") if row == "ours" else Fuser(row, "no weights", "none", PLAIN[row])


def picture(fusers: dict[str, Fuser], conditions: Sequence[str], seed: int, file: Path) -> None:
    """One scene a condition below each other, the fused image of each method beside each other."""
    rows = []
    for condition in conditions:
        pair = open_pairs("scenes", 1, seed=seed, condition=condition, size=(144, 192))[0]
        rows.append(torch.cat([fuse(pair.ir, pair.vi) for fuse in fusers.values()], dim=3))
    write_image(torch.cat(rows, dim=2), file)


def test_pairs(data: str, profile: str, seed: int) -> Pairs:
    """The test pairs of a set (of TNO all), at `smoke` two of them."""
    split = "test" if data in ("roadscene", "msrs", "llvip", "scenes") else None
    return open_pairs(data, 2 if profile == "smoke" else None, seed=seed, split=split)


def scored(
    target: str,
    row: str,
    fuser: Fuser,
    pairs: Pairs,
    profile: str,
    seed: int,
    wanted: Mapping[str, Sequence[str] | None],
) -> Iterator[Record]:
    """The means of a fuser in each convention's wanted metrics, None for all.

    It sees 8-bit luminance and is saved by clipping.
    """
    ir, vi = [to_uint8(pair.ir) for pair in pairs], [to_uint8(pair.vi) for pair in pairs]
    both = tqdm(list(zip(ir, vi, strict=True)), desc=row, unit="pair", leave=False)
    fused = [to_uint8(fuser(a / 255, b / 255)) for a, b in both]
    for convention, metrics in wanted.items():
        for metric, value in evaluate(ir, vi, fused, convention, metrics).mean().items():
            yield measured(
                target,
                row,
                metric,
                value,
                pairs,
                profile=profile,
                seed=seed,
                unit=CONVENTIONS[convention].variants[metric].unit,
                convention=convention,
                weights=fuser.sha256,
                command=this_command(),
            )


SIZES = ((120, 160), (240, 320), (480, 640))


def table3(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 3: seconds to fuse one image against its size, beside plain averaging; the faster of three.

    With CUDA both ways of timing: with synchronisation, and without, where the clock stops before the work
    is done. On the CPU the two are the same, so there is one. Draws `<run>/table3.png`: what is fused in that
    time, a scene of each size, ours above the average.
    """
    require("comofusion/table3", row, ("ours", "average"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = SIZES[:1] if profile == "smoke" else SIZES
    for name in [row] if row else ("ours", "average"):
        fuser = load("comofusion", device=device) if name == "ours" else load("average")
        for height, width in sizes:
            ir, vi = torch.rand(2, 1, 1, height, width, generator=torch.Generator().manual_seed(seed))
            for synchronised in (True, False) if device == "cuda" else (True,):
                yield measured(
                    "comofusion/table3",
                    name,
                    f"time {width}x{height}" + ("" if synchronised else ", not synchronised"),
                    seconds(fuser, ir.to(device), vi.to(device), synchronised),
                    profile=profile,
                    seed=seed,
                    device=device,
                    unit="s",
                    weights=fuser.sha256,
                    command=this_command(),
                    note=f"{torch.get_num_threads()} threads" if device == "cpu" else "",
                )
    tallest, strips = max(height for height, _ in sizes), []
    for name in ("ours", "average"):
        pairs = [open_pairs("scenes", 1, seed=seed, size=size)[0] for size in sizes]
        images = [fuser_of(name)(pair.ir, pair.vi) for pair in pairs]
        strips.append([F.pad(image, (0, 0, tallest - image.shape[2], 0), value=1.0) for image in images])
    write_image(torch.cat([torch.cat(strip, dim=3) for strip in strips], dim=2), run / "table3.png")


@torch.no_grad()
def seconds(fuser: Fuser, ir: Tensor, vi: Tensor, synchronised: bool = True) -> float:
    """The least wall time of three calls after one to warm up."""
    least = float("inf")
    for _ in range(4):
        if ir.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        fuser.network(ir, vi)
        if synchronised and ir.is_cuda:
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least


def model(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Trains a small CoMoFusion on RoadScene's training pairs, once for each lambda of Eq. 10.

    Measures Qabf, VIF and SSIM on the 21 validation pairs beside averaging. The one that is shipped, chosen
    by them, is lambda 1 of seed 0; with lambda 10 L_grad leads, which cannot see inversion, and the same seed
    ends as a negative. Weights go to `<run>`; a stopped run goes on with --resume.
    """
    rows = (*LAMBDAS, "average")
    require("comofusion/model", row, rows)
    name = "roadscene" if data == "auto" else data
    pairs = open_pairs(name, 2 if profile == "smoke" else None, seed=seed, split="val")
    for chosen in [row] if row else rows:
        if chosen == "average":
            fuser = load("average")
        else:
            recipe = replace(MODEL[profile], weights=LAMBDAS[chosen])
            fuser = load("comofusion", trained(recipe, chosen, name, seed, run))
        wanted = {"reference": ["Qabf", "VIF", "SSIM"]}
        yield from scored("comofusion/model", chosen, fuser, pairs, profile, seed, wanted)


# Row of Table 4 -> what is different in it.
TABLE4_ROWS: dict[str, dict[str, Any]] = {
    "w/o L_pvs": {"weights": {"selection": 0.0, "edges": 1.0}},
    "w/o L_grad": {"weights": {"selection": 1.0, "edges": 0.0}},
    "decoder features": {"features": "decoder"},
    "no consistency model": {"pretext": "autoencoder"},
    "ours": {},
}


def table4(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 4 at small scale: each row trained on RoadScene's training pairs, scored on MSRS (15 of 361).

    One seed says little here: take `--seeds 3`. Rows of one seed share stage 1, and a stopped run goes on
    with --resume. The losses are the sound forms (LossForm); as printed, short trainings end white. Draws
    `<run>/table4-seed<seed>.png`: a scene by day and one at night, columns as in TABLE4_ROWS.
    """
    require("comofusion/table4", row, TABLE4_ROWS)
    pairs = test_pairs("msrs" if data == "auto" else data, profile, seed)
    fusers = {}
    for name in [row] if row else TABLE4_ROWS:
        recipe = replace(ABLATION[profile], **TABLE4_ROWS[name])
        wanted = {CONVENTION: ["EN", "SD", "Qabf", "SSIM"]}
        fusers[name] = load("comofusion", trained(recipe, name, "roadscene", seed, run))
        yield from scored("comofusion/table4", name, fusers[name], pairs, profile, seed, wanted)
    picture(fusers, ("day", "night"), seed, run / f"table4-seed{seed}.png")


def trained(recipe: Recipe, name: str, data: str, seed: int, run: Path) -> Path:
    """Trains on the training pairs of a set; returns the file of half-precision weights, `<run>/<name>-...`.

    Checkpoints lie in `<run>/checkpoints`, so rows that differ in stage 2 alone share stage 1.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = [(pair.ir, pair.vi) for pair in open_pairs(data, split="train")]
    slug = name.replace("/", "").replace(" ", "-")
    network = train(recipe, images, seed, device, Path(run) / "checkpoints", slug)
    return save(network, Path(run) / f"{slug}-seed{seed}.safetensors")


def require(target: str, row: str | None, rows: Iterable[str]) -> None:
    """Raises UserError for a row that the target does not have."""
    if row is not None and row not in rows:
        raise UserError(f"{target} has no row {row!r}; it has {', '.join(rows)}")

"""CoMoFusion: Figure 2 (b), Tables 1 to 4, and the paper's own recipe."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.bench.cost import counted, seconds
from fusionlab.bench.run import Run
from fusionlab.bench.table import ANY, Score, Table, conventional, each, scored
from fusionlab.crops import Stage
from fusionlab.data import Pair, Pairs, open_pairs
from fusionlab.diffusion import edm
from fusionlab.diffusion.consistency import gaussian_optimum
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.methods.baselines import average, maximum
from fusionlab.methods.comofusion import (
    ABLATION,
    DISTANCES,
    LAMBDAS,
    MODEL,
    RECIPES,
    CoMoFusion,
    Recipe,
    save,
    train,
)
from fusionlab.methods.tricks import clipped_sum, infrared, visible

# Figure 2 (b): noise in, noise out, with everything measured against an exact answer.

N = 40
WINDOW = (96, 128)
SHOWN = (1, 6, 9, 12, 15, 18, 22, 40)  # which of the 40 levels the picture shows

# Three Gaussians on a line, and five starts at t = 80 that end in all of them.
LINE = Mixture(
    torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64),
    torch.tensor([[-0.6], [0.1], [0.7]], dtype=torch.float64),
    torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64),
)
STARTS = torch.tensor([[-90.0], [-20.0], [3.0], [50.0], [130.0]], dtype=torch.float64)


def forward(pairs: Pairs, run: Run) -> Iterator[Score]:
    """Of noised pairs at levels t_i: their variance relative to s^2 + t^2, s being the pair's own deviation,
    and the correlation with the clean pair beside s / sqrt(s^2 + t^2); vis and ir together.
    """
    generator = torch.Generator().manual_seed(run.seed)
    x = windows(pairs).double().flatten(1)
    noise = dict(zip(pairs.names, zip(x, torch.randn(x.shape, generator=generator, dtype=x.dtype))))

    def of_pair(pair: Pair) -> Iterator[Score]:
        x, z = noise[pair.name]
        for i in (1, 10, 20, 30, 40):
            t = edm.noise_levels(N)[i - 1]
            noised = edm.noised(x, t, z)
            own = x.var(correction=0)
            ratio = noised.var(correction=0) / (own + t**2)
            correlation = torch.corrcoef(torch.stack([x, noised]))[0, 1]
            yield Score(f"variance ratio at t_{i}", ratio.item())
            yield Score(f"correlation at t_{i}", correlation.item())
            yield Score(f"predicted correlation at t_{i}", (own / (own + t**2)).sqrt().item())

    yield from scored(of_pair, pairs)


def solver(method: Callable[..., Tensor], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Largest error at N = 40 over five paths of a mixture on a line, and the order from N = 161 to 321."""
    error = {
        n: end_error(method(LINE.denoise, STARTS, edm.noise_levels(n).flip(0))[-1]) for n in (N, 161, 321)
    }
    yield Score("error at N 40", error[N], of=None)
    yield Score("order", math.log2(error[161] / error[321]), of=None)


def one_step(pairs: Pairs, run: Run) -> Iterator[Score]:
    """What one evaluation reaches: by denoising once, and by consistency training at its optimum.

    "spread kept" is what training with N = 40 keeps of Gaussian data of deviation 0.5.
    """
    kept = edm.T * gaussian_optimum(edm.noise_levels(N), 0.5).item() / 0.5
    yield Score("error of one denoising", end_error(LINE.denoise(STARTS, edm.T)), of=None)
    yield Score("spread kept at N 40", kept, of=None)


def end_error(ends: Tensor) -> float:
    """Largest distance of ends (5, 1) from the exact ones."""
    return (ends - LINE.flow(STARTS, edm.T, edm.EPSILON)).abs().max().item()


def windows(pairs: Pairs) -> Tensor:
    """The middle 96x128 pixels of each pair, vis before ir, in [-1, 1]: (B, 2, 96, 128)."""
    height, width = WINDOW
    cut = []
    for pair in pairs:
        if pair.ir.shape[-2] < height or pair.ir.shape[-1] < width:
            raise UserError(
                f"comofusion/figure2 needs pairs of {height}x{width} or more; {pair.name} is smaller"
            )
        top, left = (pair.ir.shape[-2] - height) // 2, (pair.ir.shape[-1] - width) // 2
        cut.append(torch.cat([pair.vi, pair.ir], dim=1)[..., top : top + height, left : left + width])
    return 2 * torch.cat(cut) - 1


def noise_and_back(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """Two rows of a pair as noise comes in, two of noise as it goes out: in [0, 1], with white edges.

    The way back is exact as well: these pairs and no others are taken for the data, a mixture of points whose
    denoiser has a formula, so the probability-flow ODE from pure noise ends in one of them.
    """
    images = windows(pairs)
    levels = edm.noise_levels(N)
    z = torch.randn(2, *images[0].shape, generator=torch.Generator().manual_seed(run.seed))
    points = images.flatten(1)
    data = Mixture(torch.full((len(points),), 1 / len(points)), points, torch.zeros(len(points)))
    back = edm.heun(data.denoise, edm.T * z[1].reshape(1, -1), levels.flip(0)).flip(0)
    lines = []
    for way in ("forward", "back"):
        for channel in (0, 1):
            tiles = []
            for i in SHOWN:
                t = levels[i - 1].item()
                x = (
                    edm.noised(images[0], t, z[0])
                    if way == "forward"
                    else back[i - 1].reshape(images[0].shape)
                )
                grey = (x[channel] / (1 + 2 * t) + 1) / 2  # so that the noise stays within grey
                tiles.append(F.pad(grey, (1, 1, 1, 1), value=1.0))
            lines.append(torch.cat(tiles, dim=1))
    name = "figure2.png" if pairs.data == "scenes" else f"figure2-{pairs.data}.png"
    return {name: torch.cat(lines)[None, None].clamp(0, 1)}


# Tables 1 and 2: our model, trained on RoadScene, and images that need no network.

PLAIN = {
    "average": average,
    "maximum": maximum,
    "clipped sum": clipped_sum,
    "visible": visible,
    "infrared": infrared,
}
# The paper's convention, and `reference`, whose SSIM has the range 255.
IN_BOTH = {"comofusion": None, "reference": ("Qabf", "VIF", "SSIM")}


def fuser_of(row: str, device: str = "cpu") -> Fuser:
    """The fuser of a row of Tables 1 to 3."""
    return (
        load("comofusion", device=device) if row == "ours" else Fuser(row, "no weights", "none", PLAIN[row])
    )


def by_fuser(row: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A row of Tables 1 and 2."""
    fuser = fuser_of(row, run.device)
    yield from scored(conventional(partial(fuse, fuser), IN_BOTH, fuser.sha256), pairs, run.device, row)


def strip(fusers: Sequence[Fuser], conditions: Sequence[str], run: Run) -> Tensor:
    """One scene a condition below each other, the fused image of each fuser beside each other."""
    lines = []
    for condition in conditions:
        pair = open_pairs("scenes", 1, seed=run.seed, condition=condition, size=(144, 192))[0]
        images = pair.ir.to(run.device), pair.vi.to(run.device)
        lines.append(torch.cat([fuser(*images) for fuser in fusers], dim=3))
    return torch.cat(lines, dim=2).cpu()


def drawn(file: str, *conditions: str) -> Callable[[Sequence[str], Pairs, Run], dict[str, Tensor]]:
    """Draws the chosen rows beside each other, a scene a condition."""
    return lambda rows, pairs, run: {file: strip([fuser_of(r, run.device) for r in rows], conditions, run)}


# Table 3: seconds an image.

SIZES = ((120, 160), (240, 320), (480, 640))


def timed(row: str, pairs: None, run: Run) -> Iterator[Score]:
    """Seconds to fuse one image against its size; the fastest of three.

    With CUDA both ways of timing: with synchronisation, and without, where the clock stops before the work
    is done. On the CPU the two are the same, so there is one.
    """
    fuser = fuser_of(row, run.device)
    for height, width in SIZES[:1] if run.profile == "smoke" else SIZES:
        ir, vi = torch.rand(2, 1, 1, height, width, generator=torch.Generator().manual_seed(run.seed))
        for synchronised in (True, False) if run.device == "cuda" else (True,):
            yield Score(
                f"time {width}x{height}" + ("" if synchronised else ", not synchronised"),
                seconds(fuser.network, ir.to(run.device), vi.to(run.device), synchronised),
                unit="s",
                weights=fuser.sha256,
                note=f"{torch.get_num_threads()} threads" if run.device == "cpu" else "",
            )


def what_is_fused(rows: Sequence[str], pairs: None, run: Run) -> dict[str, Tensor]:
    """A scene of each size, the rows below each other."""
    sizes = SIZES[:1] if run.profile == "smoke" else SIZES
    tallest, lines = sizes[-1][0], []
    for row in rows:
        views = [open_pairs("scenes", 1, seed=run.seed, size=size)[0] for size in sizes]
        fuser = fuser_of(row, run.device)
        images = [fuser(pair.ir.to(run.device), pair.vi.to(run.device)).cpu() for pair in views]
        tiles = [F.pad(image, (0, 0, tallest - image.shape[2], 0), value=1.0) for image in images]
        lines.append(torch.cat(tiles, dim=3))
    return {"table3.png": torch.cat(lines, dim=2)}


# Table 4, the shipped model and the paper's recipe: trained by the run.


def road_images(split: str = "train") -> list[tuple[Tensor, Tensor]]:
    """The pairs of a split as images (ir, vi)."""
    return [(pair.ir, pair.vi) for pair in open_pairs("roadscene", split=split)]


def trained(recipe: Recipe, name: str, run: Run, checkpoints: Path) -> Fuser:
    """Trains on RoadScene's training pairs and reads the network back from its half-precision file.

    Checkpoints lie in the run too, so that a stopped one goes on; rows that differ in stage 2 alone share
    stage 1.
    """
    network = train(recipe, road_images(), run.seed, run.device, checkpoints, slug(name))
    return load("comofusion", save(network, run.weights(slug(name))), run.device)


def slug(row: str) -> str:
    """A row as part of a file's name."""
    return row.replace("/", "").replace(" ", "-")


def ablation_checkpoints(run: Run) -> Path:
    """One folder for Table 4 and the probe: run into the same one, they share stage 1."""
    return run.checkpoints.with_name(f"comofusion-ablation-{run.profile}")


def by_training(
    recipes: Mapping[str, Recipe],
    wanted: Mapping[str, Sequence[str]],
    checkpoints: Callable[[Run], Path] = lambda run: run.checkpoints,
) -> Callable[[Mapping[str, Any], Pairs, Run], Iterator[Score]]:
    """Each row a change of the profile's recipe, trained and scored; None stands for averaging."""

    def measure(rows: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
        for name, change in rows.items():
            fuser = (
                load("average")
                if change is None
                else trained(
                    replace(recipes[run.profile], **change),
                    name,
                    run,
                    checkpoints(run),
                )
            )
            rule = conventional(partial(fuse, fuser), wanted, fuser.sha256)
            for score in scored(rule, pairs, run.device, name):
                yield score._replace(row=name)

    return measure


def table4_picture(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """A scene by day and one at night by the networks that the run has just trained."""
    fusers = [load("comofusion", run.weights(slug(row)), run.device) for row in rows]
    return {f"table4-seed{run.seed}.png": strip(fusers, ("day", "night"), run)}


# Float operations a second in float32: that of a T4 from its 2.4 hours for 10,000 steps of 15 crops of 160
# pixels; that of an H200 is assumed.
SPEEDS = {"T4": 5e12, "H200": 30e12}


def training_hours(recipe: Recipe) -> dict[str, float]:
    """Hours of both stages by GPU, from multiply-adds alone: what d of Eq. 5 costs comes on top."""
    with torch.device("meta"):
        network = CoMoFusion(recipe.width)
        x = torch.zeros(1, 2, 32, 32)
        whole = counted(lambda: network.unet(x, torch.zeros(1)))["convolution"] / 32**2
        used = counted(lambda: network(x[:, :1], x[:, 1:]))["convolution"] / 32**2
    first, second = (stage.steps * stage.batch * stage.size**2 for stage in (recipe.first, recipe.second))
    # A step is forward, backward twice as dear, and in stage 1 the target's forward; an addition is another.
    operations = 2 * (4 * whole * first + 3 * used * second)
    return {name: operations / speed / 3600 for name, speed in SPEEDS.items()}


def by_recipe(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A recipe as printed or as released, whole; at smoke a few steps of its own losses, narrow."""
    recipe = RECIPES[name]
    if run.profile != "smoke":
        told = ", ".join(f"{hours:.0f} hours on a {gpu}" for gpu, hours in training_hours(recipe).items())
        print(f"recipe {name}: about {told}, and its distance on top; --resume goes on", file=sys.stderr)
    if run.profile == "smoke":
        recipe = replace(recipe, width=8, first=Stage(2, 2, 32), second=Stage(2, 2, 32))
    fuser = trained(recipe, name, run, run.checkpoints)
    rule = conventional(partial(fuse, fuser), {"comofusion": ("EN", "SD", "Qabf", "SSIM")}, fuser.sha256)
    yield from scored(rule, pairs, run.device, name)


TABLES = {
    "comofusion/figure2": Table(
        {
            "forward": forward,
            "euler": partial(solver, edm.euler),
            "heun": partial(solver, edm.heun),
            "one step": one_step,
        },
        each(lambda row, pairs, run: row(pairs, run)),
        ("scenes", ANY),
        splits=(None,),
        profiles={"smoke": 2, "laptop": 8},
        picture=noise_and_back,
        device="cpu",
    ),
    "comofusion/table1": Table(
        {"ours": "ours"} | {name: name for name in PLAIN},
        each(by_fuser),
        ("tno", ANY),
        picture=drawn("table1.png", "day", "fog"),
        differs=(
            "the authors' weights could not be had, so no row is theirs; ours has a seventh of the "
            "parameters and an hour of training on RoadScene, theirs is trained on KAIST. The convention's "
            "SSIM takes range 1 for values of 0..255; in it plain averaging beats every SSIM of the table. "
            "Ours is above it in Qabf and VIF, and below in SSIM: L_grad asks for the full contrast of the "
            "stronger source, and the mean SSIM with both sources is near its largest for their mean."
        ),
    ),
    "comofusion/table2": Table(
        {"ours": "ours"} | {name: name for name in PLAIN},
        each(by_fuser),
        ("msrs", ANY),
        picture=drawn("table2.png", "dusk", "night"),
        differs="as for Table 1, and 15 of the 361 test pairs are registered.",
    ),
    "comofusion/table3": Table(
        {"ours": "ours", "average": "average"},
        each(timed),
        picture=what_is_fused,
        differs=(
            "the paper's times are on an RTX 4090, with neither image size nor synchronisation named. No GPU "
            "was at hand, so there are times of a CPU alone, where synchronisation makes no difference."
        ),
    ),
    # The losses are the sound forms; as printed, short trainings end white. The paper's rows, and three that
    # it lacks: a U-Net that learnt nothing, one of random layers, and the paper's own way to train.
    "comofusion/table4": Table(
        {
            "w/o L_pvs": {"weights": {"selection": 0.0, "edges": 1.0}},
            "w/o L_grad": {"weights": {"selection": 1.0, "edges": 0.0}},
            "decoder features": {"features": "decoder"},
            "no consistency model": {"pretext": "autoencoder"},
            "N 40 and tied EMA": {"pretext": "consistency"},
            "untrained U-Net": {"pretext": "none"},
            "random features": {"pretext": "random"},
            "ours": {},
        },
        by_training(ABLATION, {"comofusion": ("EN", "SD", "Qabf", "SSIM")}, ablation_checkpoints),
        ("msrs", ANY),
        profiles={"smoke": 2, "laptop": None, "gpu": None, "paper": None},
        picture=table4_picture,
        differs=(
            "short trainings of a narrow network on RoadScene, with the losses in the form that trains; the "
            "paper's are on KAIST, one run each. Stage 1 of ours is in bfloat16 at a falling rate; those of "
            "the autoencoder and of N 40 are in float32 at a constant one. The paper's SSIM of -0.18 without "
            "L_pvs needs an inverted image, which L_grad alone cannot tell from the right one."
        ),
        trains=True,
    ),
    # d of Eq. 5: LPIPS as the paper prints it, the pseudo-Huber distance that ours takes, and no stage 1 at
    # all as the control. Stage 1 is short here: this says that both run, not what they are worth.
    "comofusion/distance": Table(
        {
            "LPIPS": {"distance": "lpips"},
            "pseudo-Huber": {"distance": "pseudo_huber"},
            "untrained U-Net": {"pretext": "none"},
        },
        by_training(DISTANCES, {"reference": ("Qabf", "VIF", "SSIM")}),
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": None, "gpu": None, "paper": None},
        trains=True,
    ),
    # What is shipped is "anchored, lambda 10"; with lambda 10 alone L_grad leads, which cannot see inversion.
    # The control is the same head on a U-Net of random layers: is the hour of stage 1 worth it?
    "comofusion/model": Table(
        {name: {"weights": weights} for name, weights in LAMBDAS.items()}
        | {
            "on random features": {"weights": LAMBDAS["anchored, lambda 10"], "pretext": "random"},
            "average": None,
        },
        by_training(MODEL, {"reference": ("Qabf", "VIF", "SSIM")}),
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": None, "gpu": None, "paper": None},
        trains=True,
    ),
    # As printed and as released, on RoadScene where theirs is KAIST: days of a GPU, so with resume.
    "comofusion/recipe": Table(
        {name: name for name in RECIPES},
        each(by_recipe),
        ("roadscene",),
        profiles={"smoke": 2, "paper": None},
        trains=True,
    ),
}

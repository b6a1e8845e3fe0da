"""What fixed maps know, read off by one line: which camera carries the signal, and what is in the street."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table
from fusionlab.crops import Stage, draw_crops, told
from fusionlab.data import Pair, Pairs, open_pairs
from fusionlab.diffusion import edm
from fusionlab.diffusion.ddpm import linear_schedule, sigma_of
from fusionlab.errors import UserError
from fusionlab.fuser import load
from fusionlab.methods.comofusion import ABLATION, CoMoFusion, joint, pretrain
from fusionlab.methods.dmfuse import MODEL, OURS, DMFuse, Half, train
from fusionlab.nets.unet import draw_zeros
from fusionlab.probe import at_pixels, fit_probe, mean_iou, mean_recall
from fusionlab.scenes import LABELS
from fusionlab.targets.comofusion import ablation_checkpoints, road_images
from fusionlab.targets.dmfuse import singles
from fusionlab.targets.learnt import CROP, shipped
from fusionlab.training import fit, seeded

# CoMoFusion: what its maps know: which camera carries the signal, read off by one line.

PROBED = {"smoke": (2, 50), "laptop": (16, 400), "gpu": (48, 800), "paper": (48, 800)}  # scenes, pixels each
NOISES = (edm.EPSILON, 0.1, 0.5, 2.0)
CAMERAS = 4  # neither camera, infrared, visible, both


def which_camera(rows: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Mean recall of a linear probe for `truth.both` on other scenes than it was fitted on, by noise."""
    scenes, _ = PROBED[run.profile]
    known, asked = list(open_pairs("scenes", scenes, seed=run.seed, split="train")), list(pairs)
    for name, row in rows.items():
        network, weights = probed(row, run), "none"
        if row == "shipped":
            weights = load("comofusion").sha256
        for t in NOISES:
            line = fit_probe(*read_off(network, row, known, t, run), CAMERAS)
            features, classes = read_off(network, row, asked, t, run)
            with torch.no_grad():
                recall = mean_recall(line(features), classes)
            yield Score(f"recall at t {t:g}", recall, weights=weights, row=name)


def probed(row: Mapping[str, Any] | str, run: Run) -> CoMoFusion | None:
    """The network whose maps a row reads: a change of Table 4's recipe, the shipped one, or none."""
    if isinstance(row, str):
        return shipped(run.device) if row == "shipped" else None
    images = [(ir.to(run.device), vi.to(run.device)) for ir, vi in road_images()]
    recipe = replace(ABLATION[run.profile], **row)
    return pretrain(recipe, images, run.seed, run.device, ablation_checkpoints(run))


def read_off(
    network: CoMoFusion | None, row: Any, pairs: Sequence[Pair], t: float, run: Run
) -> tuple[Tensor, Tensor]:
    """Features (N, C) and classes (N,) at random pixels of pairs under noise t."""
    generator = torch.Generator().manual_seed(run.seed)
    pixels, features, classes = PROBED[run.profile][1], [], []
    for pair in pairs:
        if pair.truth is None:
            raise UserError("comofusion/probe needs scenes, whose truth is known")
        clean = joint(pair.ir, pair.vi).to(run.device)
        z = torch.randn(clean.shape, generator=generator).to(clean)
        x = edm.noised(clean, t, z) if t > edm.EPSILON else clean  # as fusion sees it
        size = (x.shape[2], x.shape[3])
        rows, columns = (torch.randint(side, (pixels,), generator=generator) for side in size)
        with torch.no_grad():
            if network is not None:
                maps = network.maps_at(x, t)
            elif row == "pixels":
                maps = [x]
            else:  # 9x9 pixels about each
                maps = [F.unfold(F.pad(x, (4, 4, 4, 4), mode="reflect"), 9).unflatten(2, size)]
        features.append(at_pixels(maps, rows, columns, size))
        classes.append(pair.truth.both[rows, columns].long().to(run.device))
    return torch.cat(features), torch.cat(classes)


# DMFuse: what a U-Net of single images knows of a street, by timestep and block, read off by one line.

PROBED_AT = (5, 50, 100, 250)
LAST = (2, 5, 8, 11, 14)  # of each level the last block on the way in, the first on the way out
AUTOENCODER = {"smoke": Stage(2, 2, CROP, 4e-4), "laptop": Stage(300, 8, CROP, 1e-3)}
FIVE_SCALES = (1, 2, 4, 8, 16)

Reader = Callable[[Sequence[Tensor], torch.Generator], Mapping[str, list[Tensor]]]


def street(rows: Mapping[str, Callable[[Run], Reader]], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Intersection over union of linear probes, on other scenes than they were fitted on: LABELS, saliency.

    What a row reads it reads of both images, and puts beside each other. The U-Nets have one training; seeds
    draw the scenes that are fitted on, pixels and noise.
    """
    scenes, _ = PROBED[run.profile]
    known, asked = list(open_pairs("scenes", scenes, seed=run.seed, split="train")), list(pairs)
    for name, row in rows.items():
        read = row(run)
        features, answers = read_street(read, known, run, 2 * run.seed)
        unseen, truths = read_street(read, asked, run, 2 * run.seed + 1)
        for place, x in features.items():
            for question, labels in answers.items():
                line = fit_probe(x, labels, int(labels.max()) + 1, balanced=False)
                with torch.no_grad():
                    value = mean_iou(line(unseen[place]), truths[question])
                yield Score(f"{question}{place}", value, weights=street_weights(name), row=name)


def read_street(
    read: Reader, pairs: Sequence[Pair], run: Run, seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features (N, C) by place and answers (N,) by question, at random pixels of pairs."""
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, list[Tensor]] = {}
    answers: dict[str, list[Tensor]] = {"mIoU": [], "salient IoU": []}
    for pair in pairs:
        if pair.truth is None:
            raise UserError("dmfuse/probe needs scenes, whose truth is known")
        images = pair.ir.to(run.device), pair.vi.to(run.device)
        size = (pair.ir.shape[2], pair.ir.shape[3])
        rows, columns = (torch.randint(side, (PROBED[run.profile][1],), generator=generator) for side in size)
        with torch.no_grad():
            for place, maps in read(images, generator).items():
                features.setdefault(place, []).append(at_pixels(maps, rows, columns, size))
        known = torch.tensor(sorted(LABELS))
        labels = torch.searchsorted(known, pair.truth.labels[rows, columns].contiguous())
        answers["mIoU"].append(labels.to(run.device))
        answers["salient IoU"].append((pair.truth.saliency[rows, columns] > 0).long().to(run.device))
    return {k: torch.cat(v) for k, v in features.items()}, {k: torch.cat(v) for k, v in answers.items()}


def street_weights(row: str) -> str:
    """The hash of the shipped weights that a row reads."""
    shipped = {"DMFuse": "dmfuse", "diffusion": "dmfuse", "CoMoFusion": "comofusion"}
    return load(shipped[row]).sha256 if row in shipped else "none"


def of_pixels(scales: Sequence[int], run: Run) -> Reader:
    """Pixels themselves, or with their eight neighbours at each scale: as far as the U-Net's maps reach."""

    def read(images: Sequence[Tensor], _: torch.Generator) -> dict[str, list[Tensor]]:
        if not scales:
            return {"": list(images)}
        found = []
        for image in images:
            for scale in scales:
                small = F.avg_pool2d(image, scale, ceil_mode=True)
                size = (small.shape[2], small.shape[3])
                around = F.pad(small, (1, 1, 1, 1), mode="replicate")
                found.append(F.unfold(around, 3).unflatten(2, size))
        return {"": found}

    return read


def of_unet(make: Callable[[Run], DMFuse], times: Sequence[int], run: Run) -> Reader:
    """The maps of a U-Net, each place by itself."""
    network = make(run)

    def read(images: Sequence[Tensor], generator: torch.Generator) -> dict[str, list[Tensor]]:
        found = {}
        halves: tuple[Half, ...] = ("encoder", "decoder")
        for t, half in itertools.product(times, halves):
            maps = [network.maps_at(image, t, half, generator) for image in images]
            for block in LAST:
                found[f", t {t}, {half} {block}"] = [level[block] for level in maps]
        return found

    return read


def of_pairs(run: Run) -> Reader:
    """The maps of the shipped CoMoFusion together, as it sees a clean pair and one with noise."""
    network = shipped(run.device)

    def read(images: Sequence[Tensor], generator: torch.Generator) -> dict[str, list[Tensor]]:
        clean = joint(*images)
        z = torch.randn(clean.shape, generator=generator).to(clean)
        levels = {t: sigma_of(linear_schedule()[t]).item() for t in PROBED_AT}
        return {f", t {t}": network.maps_at(clean + level * z, level) for t, level in levels.items()}

    return read


def shipped_ddpm(run: Run) -> DMFuse:
    """The shipped DMFuse's network."""
    network = load("dmfuse", device=run.device).network
    assert isinstance(network, DMFuse)
    return network


def random_ddpm(run: Run) -> DMFuse:
    """Its like, of random layers, none of them 0."""
    with seeded(run.seed):
        network = DMFuse(**OURS)  # type: ignore[arg-type]  # checked there
        network.unet.apply(draw_zeros)
    return network.to(run.device).eval()


def autoencoder(run: Run) -> DMFuse:
    """Its like, trained to give a clean image back: what the shape and the images teach without noise."""
    images = [(image, image) for image in singles(run)]
    with seeded(run.seed):
        network = DMFuse(**OURS).to(run.device)  # type: ignore[arg-type]  # checked there
    stage = replace(AUTOENCODER["smoke" if run.profile == "smoke" else "laptop"], seed=run.seed)
    c = network.coefficients(sigma_of(network.alpha_bars[PROBED_AT[0]]).float().to(run.device))

    def step(_: int, generator: torch.Generator) -> Tensor:
        x = 2 * draw_crops(images, stage.batch, stage.size, generator)[0] - 1
        return (network.unet(c.c_in * x, c.c_noise) - x).square().mean()

    checkpoint = run.checkpoints / f"autoencoder-{run.seed}.safetensors"
    optimiser = torch.optim.Adam(network.unet.parameters(), lr=stage.rate)
    settings = {**asdict(stage), **told(images, checkpoint)}
    fit(step, {"unet": network.unet}, optimiser, steps=stage.steps, seed=stage.seed,
        checkpoint=checkpoint, settings=settings, title="autoencoder")  # fmt: skip
    return network.eval()


# DMFuse, Figure 11: the maps that the head is given, by three encoders.

CNN_STEPS = 300


def as_given(make: Callable[[Run], DMFuse], run: Run) -> Reader:
    """The maps of all timesteps, each level by itself."""
    network = make(run)

    def read(images: Sequence[Tensor], generator: torch.Generator) -> dict[str, list[Tensor]]:
        levels = zip(*(network.maps(image, generator) for image in images))
        return {f", level {k}": list(both) for k, both in enumerate(levels, 1)}

    return read


def cnn(run: Run) -> DMFuse:
    """Table 6, w/o Dif: the same U-Net, no diffusion model but trained with the head on clean pairs."""
    change = {"noise": "paper", "timesteps": (0,)}
    recipe = replace(MODEL[run.profile], pretext="cnn", settings=OURS | change)
    steps = min(CNN_STEPS, recipe.second.steps)
    recipe = replace(recipe, second=replace(recipe.second, steps=steps))
    return train(recipe, road_images(), run.seed, run.device, run.checkpoints, "cnn")


def first_components(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """A scene, infrared above visible, and of each level the component with most variance, by encoder."""
    images = [pairs[0].ir.to(run.device), pairs[0].vi.to(run.device)]
    height, width = images[0].shape[-2:]
    lines = []
    for row in rows:
        network = FIGURE11[row](run)
        for image in images:
            with torch.no_grad():
                maps = network.maps(image, torch.Generator().manual_seed(run.seed))
            tiles = [image, *(F.interpolate(first_component(level), (height, width)) for level in maps)]
            lines.append(torch.cat([F.pad(tile, (1, 1, 1, 1), value=1.0) for tile in tiles], dim=3))
    sheet = torch.cat(lines, dim=2).cpu()
    return {"figure11.png": F.interpolate(sheet, scale_factor=0.5, mode="area")}


def first_component(maps: Tensor) -> Tensor:
    """Maps (1, C, H, W) to the one image (1, 1, H, W) in [0, 1] that holds most of their variance."""
    flat = maps[0].flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    direction = torch.linalg.eigh(flat @ flat.T).eigenvectors[:, -1]
    grey = (direction @ flat) * direction.sum().sign()
    low, high = grey.quantile(0.01), grey.quantile(0.99)
    return ((grey - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).reshape(1, 1, *maps.shape[2:])


FIGURE11 = {"diffusion": shipped_ddpm, "CNN": cnn, "random": random_ddpm}

TABLES = {
    # The trainings of Table 4, seen from inside.
    "comofusion/probe": Table(
        {
            "pixels": "pixels",
            "patches": "patches",
            "untrained U-Net": {"pretext": "none"},
            "random features": {"pretext": "random"},
            "autoencoder": {"pretext": "autoencoder"},
            "N 40 and tied EMA": {"pretext": "consistency"},
            "ours": {},
            "shipped": "shipped",
        },
        which_camera,
        ("scenes",),
        profiles={"smoke": 2, "laptop": 16, "gpu": 48, "paper": 48},
        trains=True,
    ),
    "dmfuse/figure11": Table(
        {row: partial(as_given, make) for row, make in FIGURE11.items()},
        street,
        ("scenes",),
        profiles={"smoke": 2, "laptop": 16, "gpu": 48},
        picture=first_components,
        differs=(
            "the paper shows one pair and says what can be seen; here a line reads labels and targets off "
            "each level, beside layers that learnt nothing. Our CNN has a few minutes of training."
        ),
        trains=True,
    ),
    # Labels and salient mask of scenes; LABELS are four of the nine classes of MSRS and MFNet.
    "dmfuse/probe": Table(
        {
            "pixels": partial(of_pixels, ()),
            "pixels, five scales": partial(of_pixels, FIVE_SCALES),
            "random U-Net": partial(of_unet, random_ddpm, PROBED_AT[:1]),
            "autoencoder": partial(of_unet, autoencoder, PROBED_AT[:1]),
            "CoMoFusion": of_pairs,
            "DMFuse": partial(of_unet, shipped_ddpm, PROBED_AT),
        },
        street,
        ("scenes",),
        profiles={"smoke": 2, "laptop": 16, "gpu": 48},
        differs=(
            "no table of the paper: what its claim, that a diffusion model knows what is in an image, is "
            "worth here. DMFuse and CoMoFusion have one training each; seeds draw scenes, pixels and noise, "
            "random layers, and train the autoencoder."
        ),
        trains=True,
    ),
}

"""DMFuse: two columns of Table 5 without training, our model, and the paper's own recipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionlab.bench.cost import counted
from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, conventional, each, scored
from fusionlab.crops import Stage
from fusionlab.data import Pairs
from fusionlab.data.pair import luminance
from fusionlab.data.sources import read_photos
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.methods.dmfuse import MODEL, MULTIPLIERS, RECIPES, DMFuse, Recipe, save, train
from fusionlab.targets.comofusion import road_images, slug

# Table 5: parameters and multiply-adds of four widths, without weights.


def sizes(width: int, pairs: None, run: Run) -> Iterator[Score]:
    """The columns Params and FLOPs as the paper counts them, and what it leaves out.

    Printed are parameters without those of GroupNorm, and multiply-adds of convolutions and linear layers of
    one U-Net pass a modality and of the head, for 256x256 pixels. As released there are three passes each.
    """
    with torch.device("meta"):
        network = DMFuse(width, noise="released")
        x, level = torch.zeros(1, 3, 256, 256), torch.zeros(1)
        maps = [
            torch.zeros(1, 3 * width * multiplier, 256 >> depth, 256 >> depth)
            for depth, multiplier in enumerate(MULTIPLIERS)
        ]
        once, head = counted(lambda: network.unet(x, level)), counted(lambda: network.head(maps, maps))
    every = sum(p.numel() for p in network.parameters())
    norms = sum(
        p.numel()
        for layer in network.modules()
        if isinstance(layer, nn.GroupNorm)
        for p in layer.parameters()
    )
    plain = {
        part: sum(count.values()) - count["attention"] for part, count in (("once", once), ("head", head))
    }
    yield Score("Params", (every - norms) / 1e6, "M")
    yield Score("Flops", (2 * plain["once"] + plain["head"]) / 1e9, "G", note="multiply-adds")
    yield Score("all parameters", every / 1e6, "M")
    yield Score("one U-Net pass", plain["once"] / 1e9, "G", note="without attention")
    yield Score("attention of a U-Net pass", once["attention"] / 1e9, "G")
    yield Score("criss-cross attention", head["attention"] / 1e9, "G")
    released = 6 * plain["once"] + plain["head"] + head["attention"]
    yield Score("as released", released / 1e9, "G", note="six U-Net passes")


# Trainings: our model, Table 4 in kind, and the recipes as printed and as released.

# Tables 4 and 6: minutes where the shipped model has an hour.
SHORT = MODEL | {
    "laptop": replace(MODEL["laptop"], first=Stage(400, 8, 64, 1e-3), second=Stage(200, 2, 64, 1e-3)),
}
WANTED = {"reference": ("Qabf", "VIF", "SSIM")}


def photographs(run: Run) -> list[Tensor]:
    """The grey photographs of BSDS's training set, on the run's device."""
    return [luminance(photo).to(run.device) for photo in read_photos("train")]


def streets(run: Run) -> list[Tensor]:
    """Both images of RoadScene's training pairs, on the run's device."""
    return [image.to(run.device) for pair in road_images() for image in pair]


def singles(run: Run) -> list[Tensor]:
    """What our U-Nets see: both images of RoadScene's training pairs, and photographs."""
    return streets(run) + photographs(run)


def trained(
    recipe: Recipe, name: str, run: Run, images: Sequence[Tensor], checkpoints: Path | None = None
) -> Fuser:
    """Stage 1 on these images, stage 2 on RoadScene's training pairs; read back in half precision."""
    folder = checkpoints or run.checkpoints
    network = train(recipe, road_images(), run.seed, run.device, folder, slug(name), images)
    return load("dmfuse", save(network, run.weights(slug(name))), run.device)


def by_training(rows: Mapping[str, Mapping[str, Any] | None], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Each row a change of our recipe, trained and scored; None stands for averaging."""
    for name, change in rows.items():
        fuser = (
            load("average")
            if change is None
            else trained(replace(MODEL[run.profile], **change), name, run, singles(run))
        )
        rule = conventional(partial(fuse, fuser), WANTED, fuser.sha256)
        for score in scored(rule, pairs, run.device, name):
            yield score._replace(row=name)


def by_training_set(
    rows: Mapping[str, Callable[[Run], list[Tensor]] | None], pairs: Pairs, run: Run
) -> Iterator[Score]:
    """Table 4 in kind: the U-Net learns on other images, all else is equal; None is for random layers."""
    for name, images in rows.items():
        recipe = SHORT[run.profile] if images else replace(SHORT[run.profile], pretext="random")
        seen = images(run) if images else ()
        fuser = trained(recipe, name, run, seen, run.checkpoints / slug(name))
        rule = conventional(partial(fuse, fuser), WANTED, fuser.sha256)
        for score in scored(rule, pairs, run.device, name):
            yield score._replace(row=name)


def by_recipe(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A recipe as printed or as released, on RoadScene and BSDS; at smoke a few steps of its own, narrow."""
    recipe = RECIPES[name]
    if run.profile == "smoke":
        settings = {**recipe.settings, "width": 4}
        recipe = replace(recipe, first=Stage(3, 2, 32), second=Stage(3, 2, 32), settings=settings)
    fuser = trained(recipe, name, run, singles(run))
    rule = conventional(partial(fuse, fuser), {"reference": ("EN", "SD", "Qabf", "VIF")}, fuser.sha256)
    yield from scored(rule, pairs, run.device, name)


TABLES = {
    "dmfuse/table5": Table(
        {"Original": 128, "1/2": 64, "1/4(Ours)": 32, "1/8": 16},
        each(sizes),
        profiles={"laptop": None},
        device="cpu",
        differs=(
            "parameters agree within .13 %, multiply-adds within .5 %, but for the printed 1516.1 G of the "
            "original, 3 % above. The paper calls multiply-adds FLOPs, leaves GroupNorm and attention out, "
            "and counts one U-Net pass a modality where its code makes three. Its quality and its seconds "
            "need four diffusion models trained on COCO, which are not to be had."
        ),
    ),
    # Table 4 trains on TNO, M3FD and COCO; these are other sets, and, the control, no training at all.
    "dmfuse/table4": Table(
        {"RoadScene": streets, "photographs": photographs, "both": singles, "random layers": None},
        by_training_set,
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": 6, "gpu": None},
        differs=(
            "short trainings of a narrow U-Net on other sets: the paper's are TNO, M3FD and COCO's 80,000 "
            "photographs, with one training each."
        ),
        trains=True,
    ),
    # Stage 2 on the one U-Net of dmfuse/denoisers: Eq. 13 weighed as printed and as released, and as ours,
    # which is shipped; the same head on random layers is the control.
    "dmfuse/model": Table(
        {
            "paper's losses": {"form": "paper", "weights": RECIPES["paper"].weights},
            "released losses": {"form": "released", "weights": RECIPES["released"].weights},
            "on random features": {"pretext": "random"},
            "shipped": {},
            "average": None,
        },
        by_training,
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": None, "gpu": None, "paper": None},
        trains=True,
    ),
    # As printed and as released, on RoadScene and BSDS where theirs are COCO and TNO: resumable.
    "dmfuse/recipe": Table(
        {name: name for name in RECIPES},
        each(by_recipe),
        ("roadscene",),
        profiles={"smoke": 2, "paper": None},
        trains=True,
    ),
}

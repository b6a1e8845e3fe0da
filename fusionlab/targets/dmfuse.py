"""DMFuse: two columns of Table 5 without training, denoisers in a fair fight, the paper's own recipe."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from fusionlab.bench.cost import counted
from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, conventional, each, scored
from fusionlab.crops import Stage
from fusionlab.data import Pairs, open_pairs
from fusionlab.data.pair import luminance
from fusionlab.data.sources import read_photos
from fusionlab.fuser import Fuser, fuse
from fusionlab.methods.dmfuse import (
    MULTIPLIERS,
    RECIPES,
    DMFuse,
    save,
    train,
)
from fusionlab.targets.comofusion import slug

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


# The recipes as printed and as released, whole.


def singles(run: Run) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """RoadScene's training pairs and the grey photographs of BSDS's, on the run's device."""
    pairs = open_pairs("roadscene", split="train")
    images = [(pair.ir.to(run.device), pair.vi.to(run.device)) for pair in pairs]
    return images, [luminance(photo).to(run.device) for photo in read_photos("train")]


def read_back(network: DMFuse, name: str, run: Run) -> Fuser:
    """A trained network as it is in its half-precision file, which is kept in the run."""
    content = save(network, run.weights(slug(name))).read_bytes()
    network.load_state_dict({key: value.float() for key, value in load_safetensors(content).items()})
    return Fuser("dmfuse", name, hashlib.sha256(content).hexdigest(), network.eval(), stochastic=True)


def by_recipe(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A recipe as printed or as released, on RoadScene and BSDS; at smoke a few steps of its own, narrow."""
    recipe = RECIPES[name]
    if run.profile == "smoke":
        settings = {**recipe.settings, "width": 4}
        recipe = replace(recipe, first=Stage(3, 2, 32), second=Stage(3, 2, 32), settings=settings)
    images, photos = singles(run)
    network = train(recipe, images, run.seed, run.device, run.checkpoints, slug(name), photos)
    fuser = read_back(network, name, run)
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
    # As printed and as released, on RoadScene and BSDS where theirs are COCO and TNO: resumable.
    "dmfuse/recipe": Table(
        {name: name for name in RECIPES},
        each(by_recipe),
        ("roadscene",),
        profiles={"smoke": 2, "paper": None},
        trains=True,
    ),
}

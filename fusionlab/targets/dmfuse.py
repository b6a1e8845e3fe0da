"""DMFuse: Tables 1 and 4 to 7, of which 5 and 7 are counted, our model, and the paper's own recipe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionlab.bench.cost import counted, seconds
from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, conventional, each, scored
from fusionlab.crops import Stage
from fusionlab.data import Pairs
from fusionlab.data.pair import luminance
from fusionlab.data.sources import read_photos
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.machine import processor
from fusionlab.methods.dmfuse import MODEL, MULTIPLIERS, OURS, RECIPES, DMFuse, Recipe, save, train
from fusionlab.targets.comofusion import road_images, slug, strip
from fusionlab.targets.mmdrfuse import middle
from fusionlab.training import seeded

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


# Tables 1, 6 and 7, and how many crops TNO holds.

COMPARED = {"ours": "dmfuse", "average": "average", "maximum": "maximum", "laplacian": "laplacian"}


def by_name(wanted: Mapping[str, Sequence[str] | None], name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A row of Table 1 or Figure 6: a fuser by its name."""
    fuser = load(name, device=run.device)
    yield from scored(conventional(partial(fuse, fuser), wanted, fuser.sha256), pairs, run.device, name)


# Of Table 6 each row is trained, so all are short: a minute of one core each, beside stage 1, which the rows
# of a seed share.
# Noise, timesteps and the half of the U-Net are those of the paper's text or code.
AS_PRINTED = OURS | {"noise": "paper"}
SHORT = {
    profile: replace(recipe, settings=AS_PRINTED)
    for profile, recipe in {
        **MODEL,
        "laptop": replace(
            MODEL["laptop"],
            first=Stage(300, 8, 64, 1e-3),
            second=Stage(120, 2, 64, 1e-3),
            ema=0.98,
            gamma=5e-2,
        ),
        "gpu": MODEL["laptop"],
    }.items()
}


def by_ablation(rows: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Each row a change of the profile's recipe, on the middle 128x128 pixels of each pair; None averages.

    Whole images would take longer than the trainings. "gamma" is what became of the attention's gain.
    """
    images = singles(run)
    for name, change in rows.items():
        fuser = load("average")
        if change is not None:
            fuser = trained_fuser(replace(SHORT[run.profile], **change), name, run, images)
            assert isinstance(fuser.network, DMFuse)
            if fuser.network.head.caim is not None:
                gamma = fuser.network.head.caim.gamma.item()
                yield Score("gamma", gamma, weights=fuser.sha256, row=name, of=None)
        yield from of_middles(fuser, name, pairs, run)


def of_middles(fuser: Fuser, row: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """The scores of a row on the middle 128x128 pixels of each pair."""
    rule = conventional(partial(fuse, fuser), {"dmfuse": None}, fuser.sha256, "the middle 128x128 pixels")
    middles = (replace(pair, ir=middle(pair.ir), vi=middle(pair.vi), chroma=None) for pair in pairs)
    for score in scored(rule, middles, run.device, row):
        yield score._replace(row=row)


def ablation_drawn(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """A scene by day and one at night by the networks that the run has just trained."""
    fusers = [
        load("average") if row == "average" else load("dmfuse", run.weights(slug(row)), run.device)
        for row in rows
    ]
    return {f"table6-seed{run.seed}.png": strip(fusers, ("day", "night"), run)}


def cost_of_width(settings: Mapping[str, Any], pairs: None, run: Run) -> Iterator[Score]:
    """The columns of Table 7 for 256x256 pixels, by untrained weights; the time is wall seconds, at smoke of
    32x32 pixels.

    The paper counts one U-Net pass a modality and the head, convolutions and linear layers alone. A fused
    image takes a pass for each timestep (but no output layer), and attention.
    """
    with torch.device("meta"):
        network = DMFuse(**settings)
        image, level = torch.zeros(1, 1, 256, 256), torch.zeros(1)
        maps = network.maps(image, torch.Generator())
        once = counted(lambda: network.unet(image.expand(-1, network.channels, -1, -1), level))
        head, whole = counted(lambda: network.head(maps, maps)), counted(lambda: network(image, image))
    plain = {part: c["convolution"] + c["linear"] for part, c in (("once", once), ("head", head))}
    yield Score("Params", sum(p.numel() for p in network.parameters()) / 1e6, "M")
    yield Score("Flops", (2 * plain["once"] + plain["head"]) / 1e9, "G", note="multiply-adds, two passes")
    passes = f"{2 * len(network.timesteps)} U-Net passes, with attention"
    yield Score("Flops of a fused image", sum(whole.values()) / 1e9, "G", note=passes)
    with seeded(run.seed):
        real = DMFuse(**settings).eval()
    side = 32 if run.profile == "smoke" else 256
    ir, vi = torch.rand(2, 1, 1, side, side, generator=torch.Generator().manual_seed(run.seed))
    where = f"{processor()}, {torch.get_num_threads()} threads"
    yield Score(f"Time {side}x{side}", seconds(real, ir, vi), "s", note=where)


def grid_crops(image: Tensor, side: int, stride: int) -> int:
    """How many squares of a side fit into an image when they move by a stride."""
    rows, columns = ((n - side) // stride + 1 if n >= side else 0 for n in image.shape[-2:])
    return rows * columns


def crops_of_largest(grid: tuple[int, int], pairs: Pairs, run: Run) -> Iterator[Score]:
    """How many crops the k largest images give together, for every k: no k images give more."""
    counts = sorted((grid_crops(pair.ir, *grid) for pair in pairs), reverse=True)
    for k, crops in enumerate(accumulate(counts), start=1):
        yield Score(f"crops of the {k} largest", crops, "crops")


# Trainings: our model, Table 4 in kind, and the recipes as printed and as released.

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


def trained_fuser(
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
            else trained_fuser(replace(MODEL[run.profile], **change), name, run, singles(run))
        )
        rule = conventional(partial(fuse, fuser), WANTED, fuser.sha256)
        for score in scored(rule, pairs, run.device, name):
            yield score._replace(row=name)


def by_training_set(
    rows: Mapping[str, Callable[[Run], list[Tensor]] | None], pairs: Pairs, run: Run
) -> Iterator[Score]:
    """Table 4 in kind: the U-Net learns on other images, all else is equal; None is for random layers."""
    for name, images in rows.items():
        short = SHORT[run.profile]
        recipe = short if images else replace(short, pretext="random")
        fuser = trained_fuser(recipe, name, run, images(run) if images else (), run.checkpoints / slug(name))
        yield from of_middles(fuser, name, pairs, run)


def by_recipe(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A recipe as printed or as released, on RoadScene and BSDS; at smoke a few steps of its own, narrow."""
    recipe = RECIPES[name]
    if run.profile == "smoke":
        settings = {**recipe.settings, "width": 4}
        recipe = replace(recipe, first=Stage(3, 2, 32), second=Stage(3, 2, 32), settings=settings)
    fuser = trained_fuser(recipe, name, run, singles(run))
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
    # On the ten pairs of each kind that are registered; the metabolic image goes in as infrared.
    "dmfuse/table1": Table(
        COMPARED,
        each(partial(by_name, {"dmfuse": None})),
        ("harvard",),
        splits=("mri_ct", "mri_pet", "mri_spect"),
        picture=lambda rows, pairs, run: {
            "table1.png": strip([load(COMPARED[row], device=run.device) for row in rows], ("day", "fog"), run)
        },
        differs=(
            "the paper's 50 pairs are not listed, and its weights are not to be had: ours is a sixteenth of "
            "its parameters, trained on roads, on ten pairs of each kind."
        ),
    ),
    "dmfuse/figure6": Table(
        COMPARED,
        each(partial(by_name, {"reference": ("Qabf", "VIF", "SSIM")})),
        ("tno", "roadscene"),
        differs=(
            "the figure draws curves over pairs of TNO and M3FD that are not listed, of a model trained on "
            "TNO; these are means over TNO and RoadScene's test pairs, and ours has seen no pair of either."
        ),
    ),
    # The paper's rows, and what it lacks: concatenation alone (gamma = 0), a U-Net of random layers, one that
    # learnt nothing, gamma at the rate of the released training, and averaging.
    "dmfuse/table6": Table(
        {
            "w/o Dif": {"pretext": "cnn", "settings": AS_PRINTED | {"timesteps": (0,)}},
            "w/o CAIM": {"settings": AS_PRINTED | {"fusion": "addition"}},
            "concatenation": {"settings": AS_PRINTED | {"fusion": "concatenation"}},
            "gamma at 1e-5": {"gamma": 1e-5},
            "random features": {"pretext": "random"},
            "untrained U-Net": {"pretext": "none"},
            "ours": {},
            "average": None,
        },
        by_ablation,
        ("tno",),
        splits=("test25",),
        profiles={"smoke": 2, "laptop": None, "gpu": None},
        picture=ablation_drawn,
        differs=(
            "short trainings of a narrow network on RoadScene and BSDS, scored on the middle of TNO's pairs; "
            "the paper's are on COCO and TNO, one run each. Its CNN encoder is not described: ours is the "
            "same U-Net, trained with the head, at no noise."
        ),
        trains=True,
    ),
    "dmfuse/table7": Table(
        {"ours": OURS, "1/4": {"width": 32, "noise": "released"}, "1/8": {"width": 16, "noise": "released"}},
        each(cost_of_width),
        profiles={"smoke": None, "laptop": None},
        device="cpu",
        differs=(
            "parameters agree, and the printed FLOPs are multiply-adds of two U-Net passes, where a fused "
            "image takes six. The paper's seconds are a GPU's, for the sizes of TNO and M3FD."
        ),
    ),
    # The head is trained on 18,813 crops of TNO and tested on 25 of its pairs: could they be others?
    "dmfuse/crops": Table(
        {"256x256, stride 12": (256, 12)},
        each(crops_of_largest),
        ("tno",),
        splits=(None,),
        profiles={"laptop": None},
        device="cpu",
        differs="no table of the paper: it gives the number of crops, but no list of images.",
    ),
    # Table 4 trains on TNO, M3FD and COCO; these are other sets, and, the control, no training at all.
    "dmfuse/table4": Table(
        {"RoadScene": streets, "photographs": photographs, "both": singles, "random layers": None},
        by_training_set,
        ("tno",),
        splits=("test25",),
        profiles={"smoke": 2, "laptop": None, "gpu": None},
        differs=(
            "short trainings of a narrow U-Net on other sets: the paper's are TNO, M3FD and COCO's 80,000 "
            "photographs, with one training each."
        ),
        trains=True,
    ),
    # Stage 2 on the one U-Net of dmfuse/denoisers, as it is shipped and with one thing changed. Random
    # layers, the control, are a row of Table 6.
    "dmfuse/model": Table(
        {
            "shipped": {},
            "weights as printed": {"weights": RECIPES["paper"].weights},
            "noise prediction": {"settings": {**MODEL["laptop"].settings, "noise": "paper"}},
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

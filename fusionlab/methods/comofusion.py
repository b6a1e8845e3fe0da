"""CoMoFusion (Meng et al. 2024): a consistency model of pairs, and a head that fuses its features.

Stage 1 trains a U-Net to take noise off pairs in one step (Eq. 1-5). Stage 2 freezes it and trains the
fusion module on maps from inside it (Fig. 3), without any true fused image (Eq. 6-10).
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.crops import ImagePairs, Stage, draw_crops, told
from fusionlab.diffusion.consistency import (
    Distance,
    consistency_loss,
    decay_at,
    levels_at,
    pseudo_huber,
    stack_three,
    tuning_loss,
    tuning_stage,
)
from fusionlab.diffusion.edm import EPSILON, consistency_preconditioning, noise_levels, preconditioned
from fusionlab.errors import UserError, require_whole
from fusionlab.losses import weighted_sum
from fusionlab.losses.gradient import Border, strongest_edge_loss
from fusionlab.losses.selection import ActivityForm, Guard, selection_loss
from fusionlab.nets.blocks import ScSE
from fusionlab.nets.features import Lpips
from fusionlab.nets.unet import UNet, conv, draw_zeros
from fusionlab.training import EMA, cosine, fingerprint, fit, save_half, seeded

Features = Literal["encoder", "decoder"]
Pretext = Literal["consistency", "tuned", "autoencoder", "none", "random"]
DistanceName = Literal["pseudo_huber", "lpips"]


class LossForm(NamedTuple):
    """The choices that paper and code leave or differ in, of L_pvs and L_grad (see `fusion_terms`).

    The defaults are the sound form: as printed and as released, a fusion module that starts from scratch on
    small crops goes white, because a black border makes brightness pay and the ratio is infinite where
    training starts. They mend just that.
    """

    guard: Guard = "bounded"
    form: ActivityForm = "paper"
    border: Border = "replicate"


SOUND = LossForm()
PRINTED = LossForm(guard="ratio", form="paper", border="zero")
AS_RELEASED = LossForm(guard="ratio", form="released", border="zero")


@dataclass(frozen=True)
class Recipe:
    """All that makes a CoMoFusion but the data, the seed and the device.

    `pretext` is what the U-Net learns: a consistency function as in the paper ("consistency": Eq. 5 with N
    `levels`, None lets it grow, and d `distance`), or in the form that learns in an hour ("tuned"); in Table
    4, row IV, to give clean pairs back. With "none" it stays as drawn, each block its own shortcut; with
    "random" no layer starts at 0. `features` and `variant` are those of `CoMoFusion`; `weights` weighs the
    terms of the loss.
    """

    width: int
    first: Stage
    second: Stage
    pretext: Pretext = "consistency"
    levels: int | None = 40
    distance: DistanceName = "pseudo_huber"
    features: Features = "encoder"
    variant: Literal["paper", "released"] = "paper"
    weights: Mapping[str, float] = field(default_factory=lambda: {"selection": 1.0, "edges": 1.0})
    loss: LossForm = SOUND


# On KAIST's 95,328 pairs, of which epochs are made steps here. The paper leaves open how long stage 1 takes;
# the released stage 2 sees whole images and takes a tenth of the rate every two of six epochs.
RECIPES = {
    "paper": Recipe(
        64, Stage(120_000, 15), Stage(12_711, 15), levels=40, distance="lpips", variant="paper", loss=PRINTED
    ),
    "released": Recipe(
        64,
        Stage(120_000, 25),
        Stage(57_197, 10),
        levels=None,
        distance="lpips",
        variant="released",
        loss=AS_RELEASED,
    ),
}

# Ours by profile, on RoadScene. Pseudo-Huber costs a third of LPIPS. On a processor without bfloat16 the
# hour of "laptop" becomes a day: it makes what is shipped, no notebook runs it.
MODEL = {
    "smoke": Recipe(8, Stage(3, 2, 32, 1e-3), Stage(3, 2, 32, 1e-3), "tuned"),
    "laptop": Recipe(
        24, Stage(14_000, 16, 32, 1.5e-3, precision="bfloat16"), Stage(1000, 4, 64, 1e-3), "tuned"
    ),
    "gpu": Recipe(64, Stage(10_000, 16, 64, 1e-3), Stage(3000, 15, 160, 1e-4), "tuned"),
    "paper": Recipe(64, Stage(120_000, 25, 160, 1e-4), Stage(12_000, 15, 160, 1e-4)),
}
# Of Table 4 each row is trained, so all are short.
ABLATION = MODEL | {
    "laptop": Recipe(16, Stage(600, 16, 32, 1.5e-3, precision="bfloat16"), Stage(250, 4, 64, 1e-3), "tuned"),
    "gpu": Recipe(32, Stage(4000, 16, 64, 1e-3), Stage(1000, 8, 96, 1e-3), "tuned"),
}
# And shorter where d of Eq. 5 is the question, for LPIPS is dear.
DISTANCES = {
    profile: replace(recipe, pretext="consistency")
    for profile, recipe in {
        **ABLATION,
        "laptop": Recipe(16, Stage(150, 8, 32, 1e-3), Stage(250, 4, 64, 1e-3)),
    }.items()
}

# Weights of the terms. The paper's lambda of Eq. 10 is 1 because both terms be of one order; L_grad is 5 to
# 20 times the smaller. Both leave brightness and sign open; "anchored" ties them, by what has one answer.
LAMBDAS = {
    "lambda 1": {"selection": 1.0, "edges": 1.0},
    "lambda 10": {"selection": 1.0, "edges": 10.0},
    "anchored": {"selection": 1.0, "edges": 1.0, "identity": 1.0},
    "anchored, lambda 10": {"selection": 1.0, "edges": 10.0, "identity": 3.0},
}


class FusionModule(nn.Module):
    """Maps of three scales to one image (Fig. 3, right): 1,939,555 parameters at the released widths.

    `widths` are those of the maps, fine to coarse. Each step up adds to the finer map, it does not join it.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.conv1, self.conv2, self.conv3 = conv_block(coarse), conv_block(middle), conv_block(fine)
        self.sca1, self.sca2 = sca_block(coarse, middle), sca_block(middle, fine)
        self.out = conv(fine, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, w, H, W), (B, 2w, H/2, W/2), (B, 4w, H/4, W/4) to (B, 1, H, W) in (-1, 1)."""
        fine, middle, coarse = maps
        x = double(self.sca1(self.conv1(coarse))) + self.conv2(middle)
        x = double(self.sca2(x)) + self.conv3(fine)
        return self.out(x).tanh()


def conv_block(width: int) -> nn.Sequential:
    """ConvBlock of Fig. 3: two convolutions of unchanged width."""
    return nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width), nn.ReLU())


def sca_block(width_in: int, width_out: int) -> nn.Sequential:
    """SCABlock of Fig. 3 without its upsampling."""
    return nn.Sequential(conv(width_in, width_out), nn.ReLU(), ScSE(width_out))


def double(x: Tensor) -> Tensor:
    """Twice the sides, bilinear with the corners kept, as in the released code."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class CoMoFusion(nn.Module):
    """U-Net and fusion module together, as they are trained, saved and used.

    `width` and `multipliers` size both (64 and 1, 2, 4 as released); `features` says which half of the U-Net
    the fusion module reads, the decoder in Table 4, row III; `variant` at which noise level (see `maps`).
    """

    def __init__(
        self,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        features: Features = "encoder",
        variant: Literal["paper", "released"] = "paper",
    ) -> None:
        super().__init__()
        _require_settings(width, multipliers, features, variant)
        self.settings = {
            "width": width, "multipliers": list(multipliers), "features": features, "variant": variant,
        }  # fmt: skip
        self.features, self.variant = features, variant
        self.unet = UNet(2, width, multipliers)
        self.head = FusionModule([width * multiplier for multiplier in multipliers])

    @property
    def bytes_per_pixel(self) -> int:
        """The memory that fusing takes on a CPU, as measured at widths 16 to 64, rounded up.

        Frames cannot be cut into tiles: GroupNorm and scSE take means over the whole image.
        """
        width = self.unet.width
        return 240 + 24 * width if self.features == "encoder" else 450 + 64 * width

    def maps(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        """The joint features of Sec. 3.2 from (B, 1, H, W) in [0, 1]: w, 2w, 4w maps, each half the last.

        The U-Net sees the clean pair at the smallest noise level, epsilon ("paper", which lets x_epsilon be
        x_0), or at level 0 ("released", with a noise label it has never met in training). The finest encoder
        map is a plain convolution of the pair. Sides are filled up to a multiple of 4.
        """
        return self.maps_at(joint(ir, vi), EPSILON if self.variant == "paper" else 0.0)

    def maps_at(self, x: Tensor, t: float) -> list[Tensor]:
        """The same of pairs x (B, 2, H, W) in [-1, 1] that carry noise of level t."""
        c = consistency_preconditioning(torch.tensor(t, device=x.device))
        encoded = self.unet.encode(c.c_in * x, c.c_noise)
        if self.features == "encoder":
            return [encoded[0], encoded[3], encoded[5]]
        decoded = self.unet.decode(encoded, c.c_noise)
        return [decoded[5], decoded[2], decoded[0]]

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1] into one."""
        height, width = ir.shape[-2:]
        return (self.head(self.maps(ir, vi))[..., :height, :width] + 1) / 2


def _require_settings(width: int, multipliers: Sequence[int], features: str, variant: str) -> None:
    """Raises UserError for settings of no network: weight files carry them too, and anyone can write one."""
    require_whole("width", width, 2, 1024)
    if width % 2 or not isinstance(multipliers, (list, tuple)) or len(multipliers) != 3:
        raise UserError(f"width {width}, multipliers {str(multipliers)[:80]}; give an even width and three")
    for multiplier in multipliers:
        require_whole("a multiplier", multiplier, 1, 64)
    for value, known in ((features, get_args(Features)), (variant, ("paper", "released"))):
        if value not in known:
            raise UserError(f"there is no {str(value)[:80]!r}; give {' or '.join(known)}")


def joint(ir: Tensor, vi: Tensor) -> Tensor:
    """x_0 of Sec. 3.1: visible then infrared as two channels, [0, 1] to [-1, 1]."""
    return 2 * torch.cat([vi, ir], dim=1) - 1


def fusion_terms(
    fused: Tensor,
    ir: Tensor,
    vi: Tensor,
    guard: Guard = "bounded",
    form: ActivityForm = "paper",
    border: Border = "replicate",
) -> dict[str, Tensor]:
    """The terms of L_f (Eq. 10), unweighted: L_pvs as "selection" (Eq. 6-8), L_grad as "edges" (Eq. 9).

    All images (B, 1, H, W) in [0, 1], but `fused`, which may leave it; each term is a scalar. The choices are
    those of `selection_loss` and `sobel`, by default SOUND.
    """
    return {
        "selection": selection_loss(fused, ir, vi, guard, form, border),
        "edges": strongest_edge_loss(fused, ir, vi, border),
    }


def identity_loss(model: CoMoFusion, ir: Tensor, vi: Tensor, generator: torch.Generator) -> Tensor:
    """How far an image fused with itself is from itself, mean |f(x, x) - x|: a scalar. Ours, not the paper's.

    Eq. 8 and 9 leave the brightness open; here there is one answer. x are every fourth of each source's crops
    (B, 1, H, W), and the same dimmed at random, for training pairs are rarely as dark as a night.
    """
    plain = torch.cat([vi[::4], ir[1::4]])
    dimmed = plain * torch.rand((len(plain), 1, 1, 1), generator=generator).to(plain)
    same = torch.cat([plain, dimmed])
    with torch.no_grad():
        maps = model.maps(same, same)
    return ((model.head(maps) + 1) / 2 - same).abs().mean()


def distance_of(name: DistanceName, device: str | torch.device = "cpu") -> Distance:
    """d of Eq. 5: "lpips", the paper's, of (vis, ir, ir) as released, or "pseudo_huber".

    Theirs is LPIPS on VGG16, this is LPIPS on SqueezeNet; samples from 17x17 up. Raises UserError where its
    weights are absent and for another name.
    """
    if name == "pseudo_huber":
        return pseudo_huber
    if name != "lpips":
        raise UserError(f"there is no distance {name!r}; use pseudo_huber or lpips")
    network = Lpips().to(device)
    return lambda x, y: network(stack_three(x), stack_three(y))


def train_consistency(
    unet: UNet,
    images: ImagePairs,
    stage: Stage,
    levels: int | None = 40,
    distance: DistanceName = "pseudo_huber",
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 1, consistency training on pairs (Eq. 5); returns the losses.

    `levels` is N, 40 in the paper; None lets it grow from 2 to 201 as released. Either way the target follows
    at the decay that belongs to N, with RAdam as released. At the end `unet` holds the running average (the
    paper does not say which of the two it keeps).
    """
    target = copy.deepcopy(unet)
    student, teacher = preconditioned(unet), preconditioned(target)
    d = distance_of(distance, next(unet.parameters()).device)

    def n(k: int) -> int:
        return levels_at(k, stage.steps) if levels is None else levels

    def step(k: int, generator: torch.Generator) -> Tensor:
        x = joint(*draw_crops(images, stage.batch, stage.size, generator))
        return consistency_loss(student, teacher, x, noise_levels(n(k)), generator, d)

    curve = fit(
        step,
        {"unet": unet, "target": target},
        torch.optim.RAdam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        ema=EMA(target, unet, lambda k: decay_at(n(k))),
        checkpoint=checkpoint,
        settings={
            **asdict(stage),
            **told(images, checkpoint),
            "levels": levels,
            "distance": distance,
            "width": unet.width,
        },
        title="consistency",
    )
    unet.load_state_dict(target.state_dict())
    return curve


def train_tuned(unet: UNet, images: ImagePairs, stage: Stage, checkpoint: Path | None = None) -> list[float]:
    """Stage 1 in the form that learns in an hour: easy consistency tuning (Geng et al. 2025); the losses.

    Half the steps make a denoiser, the others draw its targets nearer in six stages, until neighbours on one
    path agree. The target is the network itself; a running average is kept for use alone, and `unet` holds it
    at the end. The rate falls by a cosine to 0.
    """
    average, denoise = copy.deepcopy(unet), preconditioned(unet)
    device = next(unet.parameters()).device.type

    def step(k: int, generator: torch.Generator) -> Tensor:
        x = joint(*draw_crops(images, stage.batch, stage.size, generator))
        with torch.autocast(device, torch.bfloat16, enabled=stage.precision == "bfloat16"):
            return tuning_loss(denoise, x, tuning_stage(k, stage.steps), generator)

    curve = fit(
        step,
        {"unet": unet, "average": average},
        torch.optim.RAdam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        schedule=cosine(stage.rate, stage.steps),
        ema=EMA(average, unet, lambda k: min(0.999, (1 + k) / (10 + k))),
        checkpoint=checkpoint,
        settings={**asdict(stage), **told(images, checkpoint), "pretext": "tuned", "width": unet.width},
        title="consistency",
    )
    unet.load_state_dict(average.state_dict())
    return curve


def train_autoencoder(
    unet: UNet, images: ImagePairs, stage: Stage, checkpoint: Path | None = None
) -> list[float]:
    """Row IV of Table 4 in place of stage 1: the same U-Net learns to give the clean pair back.

    The released one is less than half as large as its U-Net: there the row changes size and training at once.
    """
    device = next(unet.parameters()).device
    c = consistency_preconditioning(torch.tensor(EPSILON, device=device))

    def step(_: int, generator: torch.Generator) -> Tensor:
        x = joint(*draw_crops(images, stage.batch, stage.size, generator))
        return pseudo_huber(unet(c.c_in * x, c.c_noise), x).mean()

    return fit(
        step,
        {"unet": unet},
        torch.optim.RAdam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        checkpoint=checkpoint,
        settings={**asdict(stage), **told(images, checkpoint), "width": unet.width},
        title="autoencoder",
    )


def train_fusion(
    model: CoMoFusion,
    images: ImagePairs,
    stage: Stage,
    weights: Mapping[str, float] = LAMBDAS["lambda 1"],
    loss: LossForm = SOUND,
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 2, the fusion module alone on pairs, with AdamW as released; returns the losses.

    `weights` weighs the terms of Eq. 10 by name and `identity_loss` as "identity"; 0 leaves one out. The rate
    falls by a cosine to 0.
    """

    def step(_: int, generator: torch.Generator) -> Tensor:
        ir, vi = draw_crops(images, stage.batch, stage.size, generator)
        with torch.no_grad():
            maps = model.maps(ir, vi)
        terms = fusion_terms((model.head(maps) + 1) / 2, ir, vi, *loss)
        if weights.get("identity"):
            terms["identity"] = identity_loss(model, ir, vi, generator)
        return weighted_sum(terms, weights)

    return fit(
        step,
        {"head": model.head},
        torch.optim.AdamW(model.head.parameters(), lr=stage.rate, weight_decay=1e-5),
        steps=stage.steps,
        seed=stage.seed,
        schedule=cosine(stage.rate, stage.steps),
        checkpoint=checkpoint,
        settings={
            **asdict(stage),
            **told(images, checkpoint),
            **{"unet": fingerprint(model.unet.state_dict().values()) if checkpoint else ""},
            **{"weights": dict(weights), **loss._asdict(), **model.settings},
        },
        title="fusion module",
    )


def train(
    recipe: Recipe,
    images: ImagePairs,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoints: Path | None = None,
    name: str = "comofusion",
) -> CoMoFusion:
    """Both stages of a recipe on pairs, wherever they lie; returns the network on the device.

    With a folder of checkpoints a stopped training goes on. Stage 2 goes by `name` there, stage 1 by what it
    learns, so that trainings of one seed which differ in stage 2 alone share it.
    """
    images = [(ir.to(device), vi.to(device)) for ir, vi in images]
    network = pretrain(recipe, images, seed, device, checkpoints)
    checkpoint = checkpoints and checkpoints / f"{name}-{seed}.safetensors"
    second = replace(recipe.second, seed=seed)
    train_fusion(network, images, second, recipe.weights, recipe.loss, checkpoint)
    return network


def pretrain(
    recipe: Recipe,
    images: ImagePairs,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoints: Path | None = None,
) -> CoMoFusion:
    """Stage 1 of a recipe on pairs that lie on the device; the fusion module is left as it was drawn."""
    with seeded(seed):
        network = CoMoFusion(recipe.width, features=recipe.features, variant=recipe.variant).to(device)
        if recipe.pretext == "random":
            network.unet.apply(draw_zeros)
    stage = replace(recipe.first, seed=seed)

    def checkpoint(stem: str) -> Path | None:
        return checkpoints and checkpoints / f"{stem}-{seed}.safetensors"

    if recipe.pretext == "tuned":
        train_tuned(network.unet, images, stage, checkpoint("tuned"))
    elif recipe.pretext == "autoencoder":
        train_autoencoder(network.unet, images, stage, checkpoint("autoencoder"))
    elif recipe.pretext == "consistency":
        stem = f"consistency-{recipe.distance}-{recipe.levels or 'growing'}"
        train_consistency(network.unet, images, stage, recipe.levels, recipe.distance, checkpoint(stem))
    return network


def save(model: CoMoFusion, file: Path) -> Path:
    """Writes both networks in half precision with their sizes, which `load` reads back; returns the file."""
    save_half(model, file, {"settings": json.dumps(model.settings)})
    return file

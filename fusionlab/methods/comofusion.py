"""CoMoFusion: a consistency model of infrared-visible pairs, and a head that fuses its features.

Stage 1 trains a U-Net to take noise off pairs in one step (Eq. 1-5). Stage 2 freezes it and trains the
fusion module on maps from inside it (Fig. 3), without any true fused image (Eq. 6-10).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.diffusion.consistency import (
    Distance,
    consistency_loss,
    decay_at,
    levels_at,
    pseudo_huber,
)
from fusionlab.diffusion.edm import EPSILON, consistency_preconditioning, preconditioned, times
from fusionlab.losses.gradient import Border, strongest_edge_loss
from fusionlab.losses.selection import Form, Guard, selection_loss
from fusionlab.nets.unet import UNet, conv
from fusionlab.training import Average, cosine, draw_crops, fit

Features = Literal["encoder", "decoder"]
Variant = Literal["paper", "released"]
Images = Sequence[tuple[Tensor, Tensor]]


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


class ScSE(nn.Module):
    """Weighs channels by their means and pixels by a 1x1 convolution, and adds both (Roy et al. 2018).

    (B, C, H, W) to the same; as both gates are at most 1, the gain is at most 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 1),
            nn.Sigmoid(),
        )
        self.pixel = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel(x) + x * self.pixel(x)


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
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        self.settings = {
            "width": width, "multipliers": list(multipliers), "features": features, "variant": variant,
        }  # fmt: skip
        self.features, self.variant = features, variant
        self.unet = UNet(2, width, multipliers)
        self.head = FusionModule([width * multiplier for multiplier in multipliers])

    def maps(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        """The joint features of Sec. 3.2 from (B, 1, H, W) in [0, 1]: w, 2w, 4w maps, each half the last.

        The U-Net sees the clean pair at the smallest noise level, epsilon ("paper", which lets x_epsilon be
        x_0), or at level 0 ("released", with a noise label it has never met in training). The finest encoder
        map is a plain convolution of the pair. Sides are filled up to a multiple of 4.
        """
        level = EPSILON if self.variant == "paper" else 0.0
        c = consistency_preconditioning(torch.tensor(level, device=ir.device))
        encoded = self.unet.encode(c.in_ * joint(ir, vi), c.noise)
        if self.features == "encoder":
            return [encoded[0], encoded[3], encoded[5]]
        decoded = self.unet.decode(encoded, c.noise)
        return [decoded[5], decoded[2], decoded[0]]

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1] into one."""
        height, width = ir.shape[-2:]
        return (self.head(self.maps(ir, vi))[..., :height, :width] + 1) / 2


def joint(ir: Tensor, vi: Tensor) -> Tensor:
    """x_0 of Sec. 3.1: visible then infrared as two channels, [0, 1] to [-1, 1]."""
    return 2 * torch.cat([vi, ir], dim=1) - 1


@dataclass(frozen=True)
class FusionLoss:
    """L_f = L_pvs + lambda L_grad (Eq. 10) with every choice named; weight 0 leaves a term out.

    As printed and as released, a fusion module that starts from scratch on small crops goes white: a black
    border makes brightness pay, and the ratio is infinite where training starts. The defaults mend just that.
    """

    selection: float = 1.0
    edges: float = 1.0
    guard: Guard = "bounded"
    form: Form = "paper"
    border: Border = "replicate"

    def __call__(self, fused: Tensor, ir: Tensor, vi: Tensor) -> Tensor:
        """A scalar of three (B, 1, H, W) in [0, 1]."""
        loss = torch.zeros((), device=fused.device)
        if self.selection:
            loss = loss + self.selection * selection_loss(fused, ir, vi, self.guard, self.form, self.border)
        if self.edges:
            loss = loss + self.edges * strongest_edge_loss(fused, ir, vi, self.border)
        return loss


PRINTED = FusionLoss(guard="ratio", form="paper", border="zero")
RELEASED = FusionLoss(guard="ratio", form="released", border="zero")


@dataclass(frozen=True)
class Stage:
    """How long and on what a stage trains: random crops, so many a step, at this learning rate.

    The paper: 160x160, batch 15, and for the fusion module rate 1e-4.
    """

    steps: int
    batch: int = 15
    size: int = 160
    rate: float = 1e-4
    seed: int = 0


def train_consistency(
    unet: UNet,
    images: Images,
    stage: Stage,
    distance: Distance = pseudo_huber,
    variant: Variant = "paper",
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 1, consistency training on pairs (ir, vi) (Eq. 5); returns the losses.

    "paper" keeps N = 40; "released" lets N grow from 2 to 201. Either way the target follows at the rate that
    belongs to N, with RAdam as released. At the end `unet` holds the running average (the paper does not say
    which of the two it keeps). The distance is LPIPS in the paper; pseudo-Huber costs a third of it.
    """
    target = copy.deepcopy(unet)
    student, teacher = preconditioned(unet), preconditioned(target)

    def levels(step: int) -> int:
        return 40 if variant == "paper" else levels_at(step, stage.steps)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        x = joint(*draw_crops(images, stage.batch, stage.size, generator))
        return consistency_loss(student, teacher, x, times(levels(step)), generator, distance)

    curve = fit(
        loss,
        {"unet": unet, "target": target},
        torch.optim.RAdam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        ema=Average(target, unet, lambda step: decay_at(levels(step))),
        checkpoint=checkpoint,
        settings={**asdict(stage), "distance": distance.__name__, "variant": variant, "width": unet.width},
        title="consistency",
    )
    unet.load_state_dict(target.state_dict())
    return curve


def train_autoencoder(
    unet: UNet, images: Images, stage: Stage, checkpoint: Path | None = None
) -> list[float]:
    """Row IV of Table 4 in place of stage 1: the same U-Net learns to give the clean pair back.

    The released one is less than half as large as its U-Net: there the row changes size and training at once.
    """
    c = consistency_preconditioning(torch.tensor(EPSILON))

    def loss(_: int, generator: torch.Generator) -> Tensor:
        x = joint(*draw_crops(images, stage.batch, stage.size, generator))
        return pseudo_huber(unet(c.in_ * x, c.noise), x).mean()

    return fit(
        loss,
        {"unet": unet},
        torch.optim.RAdam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        checkpoint=checkpoint,
        settings={**asdict(stage), "width": unet.width},
        title="autoencoder",
    )


def train_fusion(
    model: CoMoFusion,
    images: Images,
    stage: Stage,
    objective: Callable[[Tensor, Tensor, Tensor], Tensor] = FusionLoss(),  # noqa: B008  # frozen
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 2, the fusion module alone on pairs (ir, vi), with AdamW as released; returns the losses.

    The rate falls by a cosine to 0 (the released code takes a tenth every two of six epochs).
    """

    def loss(_: int, generator: torch.Generator) -> Tensor:
        ir, vi = draw_crops(images, stage.batch, stage.size, generator)
        with torch.no_grad():
            maps = model.maps(ir, vi)
        return objective((model.head(maps) + 1) / 2, ir, vi)

    return fit(
        loss,
        {"head": model.head},
        torch.optim.AdamW(model.head.parameters(), lr=stage.rate, weight_decay=1e-5),
        steps=stage.steps,
        seed=stage.seed,
        schedule=cosine(stage.rate, stage.steps),
        checkpoint=checkpoint,
        settings={**asdict(stage), "objective": repr(objective), **model.settings},
        title="fusion module",
    )

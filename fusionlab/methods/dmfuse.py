"""DMFuse (Qi et al. 2024): a diffusion model of single images, and a head that fuses what it sees in two.

Stage 1 trains a U-Net to take noise off photographs (Eq. 2-4). Stage 2 freezes it, reads its maps of the
noised infrared and visible image at three timesteps (Eq. 5), and trains a head on them, without any true
fused image (Eq. 10-13): adapters, criss-cross attention across modalities (Eq. 6-9), a decoder (Eq. 1).
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.attention import CrissCross
from fusionlab.crops import ImagePairs, Stage, draw_crops, told
from fusionlab.diffusion.ddpm import (
    Draw,
    cosine_schedule,
    draw_alpha_bars,
    linear_schedule,
    network_loss,
    noise_prediction,
    sigma_of,
)
from fusionlab.diffusion.edm import Coefficients, Denoiser, edm_preconditioning, preconditioned
from fusionlab.errors import UserError, require_whole
from fusionlab.losses import weighted_sum
from fusionlab.losses.gradient import strongest_edge_loss
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.structure import structure_loss
from fusionlab.nets.blocks import ScSE, reflect_conv
from fusionlab.nets.frames import Fill, filled
from fusionlab.nets.unet import UNet, draw_zeros
from fusionlab.training import EMA, fingerprint, fit, save_half, seeded

Noise = Literal["paper", "released", "edm"]
Half = Literal["encoder", "decoder"]
Fusion = Literal["released", "paper", "concatenation", "addition"]
Form = Literal["paper", "released"]

MULTIPLIERS = (1, 2, 4, 8, 8)
MAPS = 32  # channels of each map that is fused


@dataclass(frozen=True)
class Recipe:
    """All that makes a DMFuse but the data, the seed and the device.

    `settings` are those of `DMFuse`. `pretext` is what the U-Net learns first: to take noise off ("ddpm"), or
    nothing, as controls ("none", each block its own shortcut; "random", with no layer at 0); with "cnn" it is
    no diffusion model but learns with the head (Table 6, w/o Dif), best at timestep 0. `draw` says at which
    levels it trains; `ema` and `head_ema` are the decays of the running averages that are kept of U-Net and
    head, 0 for none. `form` is that of the losses, `weights` weighs the terms of Eq. 13; `gamma` is the rate
    of the attention's gain where that has its own.
    """

    first: Stage
    second: Stage
    settings: Mapping[str, object] = field(default_factory=dict)
    pretext: Literal["ddpm", "none", "random", "cnn"] = "ddpm"
    draw: Draw = "paper"
    ema: float = 0.0
    head_ema: float = 0.0
    form: Form = "paper"
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"structure": 1.0, "intensity": 4.0, "edges": 20.0}
    )
    gamma: float | None = None


# On COCO's 80,000 images and TNO's 18,813 crops, of which epochs are made steps here (16 as printed, 4 as
# released). The paper refers to DDPM for stage 1 and gives no rate for stage 2; the released code has no
# loader of COCO, and its batch there is not known.
RECIPES = {
    "paper": Recipe(
        Stage(800_000, 64, 256, 2e-5),
        Stage(75_252, 4, 256, 1e-5),
        {"noise": "paper", "half": "encoder", "fusion": "paper"},
        ema=0.9999,
    ),
    "released": Recipe(
        Stage(1_000_000, 4, 256, 1e-5),
        Stage(18_813, 4, 256, 1e-5),
        {"noise": "released", "half": "decoder", "fusion": "released", "fill": "white", "answer": "released"},
        draw="released",
        form="released",
        weights={"structure": 10.0, "intensity": 14.0, "edges": 16.0},
    ),
}

# Ours by profile: grey, with an attention that is allowed to grow, and inside EDM's preconditioning. To
# predict the noise makes the better denoiser where maps are read (`dmfuse/denoisers`), but on validation
# pairs the head fused better with these maps (`dmfuse/model`).
OURS = {"width": 8, "channels": 1, "noise": "edm", "dropout": 0.0}
# At the paper's first timestep, 5, the noise is 3.4 grey levels, and a fused image cannot lose what its maps
# have of it; at 1 it is 1.3. The first term of Eq. 13 weighs as in the released code, the others as printed.
_STARTED = Recipe(
    Stage(12_000, 8, 64, 4e-4),
    Stage(1000, 4, 64, 1e-3),
    OURS | {"timesteps": (1, 50, 100)},
    ema=0.999,
    head_ema=0.99,
    weights={"structure": 10.0, "intensity": 4.0, "edges": 20.0},
    gamma=1e-2,
)
MODEL = {
    "smoke": replace(_STARTED, first=Stage(2, 2, 32, 4e-4), second=Stage(2, 2, 32, 1e-3)),
    "laptop": _STARTED,
    "gpu": replace(_STARTED, first=Stage(12_000, 64, 64, 4e-4), second=Stage(4000, 8, 128, 1e-3)),
    "paper": replace(
        _STARTED,
        first=Stage(100_000, 64, 128, 2e-4),
        second=Stage(10_000, 8, 128, 5e-4),
        settings={**_STARTED.settings, "width": 32},
    ),
}


class DMFuse(nn.Module):
    """U-Net and head together, as they are trained, saved and used.

    `width` is that of the U-Net's first level, 128 for the "original", 32 for the paper's 1/4; `channels` 3
    (grey, copied) as released, or 1. `noise` says what the U-Net is, see `noise_of`. Its maps are those of
    `blocks` in one `half`, counted from the finest, one a level; by default the last of each level on the way
    in, the first on the way out, at these `timesteps` each. The paper speaks of the encoder; its code reads
    the decoder. `fusion` is that of `Head`, `fill` and `answer` those of `filled` and `forward`;
    `dropout` is the U-Net's, .2 as released.
    """

    def __init__(
        self,
        width: int = 32,
        channels: int = 3,
        noise: Noise = "paper",
        half: Half = "decoder",
        timesteps: Sequence[int] = (5, 50, 100),
        blocks: Sequence[int] = (2, 5, 8, 11, 14),
        fusion: Fusion = "released",
        fill: Fill = "reflect",
        answer: Form = "paper",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        _require_settings(width, channels, dropout, timesteps, blocks, noise, half, fusion, fill, answer)
        self.settings = {
            "width": width, "channels": channels, "noise": noise, "half": half, "timesteps": list(timesteps),
            "blocks": list(blocks), "fusion": fusion, "fill": fill, "answer": answer, "dropout": dropout,
        }  # fmt: skip
        self.channels, self.fill, self.answer = channels, fill, answer
        self.timesteps, self.blocks = tuple(timesteps), tuple(blocks)
        self.side: Half = half  # torch has a method of that name
        self.alpha_bars, self.coefficients, scale = noise_of(noise)
        self.unet = UNet(
            channels, width, MULTIPLIERS, blocks=2, film=False, attention=True, dropout=dropout, scale=scale
        )
        self.head = Head([len(timesteps) * width * multiplier for multiplier in MULTIPLIERS], fusion)

    @property
    def bytes_per_pixel(self) -> int:
        """The memory that fusing takes on a CPU, as measured at widths 8 and 16, rounded up.

        Frames cannot be cut into tiles: attention, GroupNorm and scSE see the whole image.
        """
        return 3200 + 70 * self.unet.width

    @property
    def denoiser(self) -> Denoiser:
        """The U-Net as D(x, sigma) of `edm`, for any solver; images (B, C, H, W) in [-1, 1]."""
        return preconditioned(self.unet, self.coefficients)

    def maps(self, image: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Diffusion features of (B, 1, H, W) in [0, 1], sides multiples of 16 (Eq. 5): five maps, fine first.

        Each holds all timesteps. Each timestep has its own noise, the same for all images of a batch, so that
        no image depends on its neighbours; drawn on the CPU, for the same numbers everywhere.
        """
        found = [self.maps_at(image, t, self.side, generator) for t in self.timesteps]
        return [torch.cat([maps[block] for maps in found], dim=1) for block in self.blocks]

    def maps_at(self, image: Tensor, t: int, half: Half, generator: torch.Generator) -> list[Tensor]:
        """All fifteen maps of one half of the U-Net at timestep t, fine first, each a block's."""
        x = (2 * image - 1).expand(-1, self.channels, -1, -1)
        z = torch.randn(1, *x.shape[1:], generator=generator).to(x)
        sigma = sigma_of(self.alpha_bars[t]).to(x)
        c = self.coefficients(sigma)
        encoded = self.unet.encode(c.c_in * (x + sigma * z), c.c_noise)
        return encoded if half == "encoder" else self.unet.decode(encoded, c.c_noise)[::-1]

    def forward(self, ir: Tensor, vi: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1]; without a generator with the noise of seed 0.

        `answer`: where tanh gives -1 ... 1, "paper" takes that for the range of grey values, to which the
        paper normalises; "released" for 0 ... 1, so that what is negative is lost.
        """
        height, width = ir.shape[-2:]
        generator = generator or torch.Generator().manual_seed(0)
        maps = [self.maps(filled(image, self.fill), generator) for image in (ir, vi)]
        return self.image(self.head(*maps))[..., :height, :width]

    def image(self, answer: Tensor) -> Tensor:
        """What the head answers, in (-1, 1), as an image."""
        return answer if self.answer == "released" else (answer + 1) / 2


def noise_of(noise: Noise) -> tuple[Tensor, Callable[[Tensor], Coefficients], float]:
    """Schedule, coefficients, and the scale of the noise label of the U-Net.

    "paper": linear, T = 1000; it predicts the noise and is told t. "released": cosine, T = 2000, ten to
    sixteen times less noise at the same small t; told sqrt(abar). "edm": the same levels as "paper", inside
    EDM's preconditioning, so that it need not copy its input where that is noise.
    """
    schedule = cosine_schedule() if noise == "released" else linear_schedule()
    if noise == "edm":
        return schedule, edm_preconditioning, 1000.0
    return schedule, noise_prediction(schedule, "level" if noise == "released" else "t"), 1.0


class Head(nn.Module):
    """Maps of two images to one image (Fig. 2): 531,374 parameters at the released width.

    `widths` are those of the five maps, fine to coarse; the last adapter serves two levels. `fusion` of each
    level: by the CAIM with the query "released" or "paper" (see `CrissCross`), one for all levels and both
    directions; "concatenation" without it, which is gamma = 0; "addition" (Table 6, w/o CAIM), of half the
    channels.
    """

    def __init__(self, widths: Sequence[int], fusion: Fusion) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(
            nn.Sequential(reflect_conv(width, MAPS), nn.ReLU(), ScSE(MAPS)) for width in widths[:-1]
        )
        self.caim = CrissCross(MAPS, fusion) if fusion in ("paper", "released") else None
        self.adds = fusion == "addition"
        wide = MAPS if self.adds else 2 * MAPS
        self.alone, self.joined = reflect_conv(wide, wide), reflect_conv(2 * wide, wide)
        self.out = nn.Conv2d(wide, 1, 1)

    def forward(self, ir: Sequence[Tensor], vi: Sequence[Tensor]) -> Tensor:
        """Two times five maps, each half the last, to (B, 1, H, W) in (-1, 1)."""
        *finer, coarsest = [self.fused(level, a, b) for level, (a, b) in enumerate(zip(ir, vi, strict=True))]
        x = coarsest
        for beside in reversed(finer):  # Eq. 1
            x = F.leaky_relu(self.alone(F.interpolate(x, scale_factor=2)), 0.2)
            x = F.leaky_relu(self.joined(torch.cat([x, beside], dim=1)), 0.2)
        return self.out(x).tanh()

    def fused(self, level: int, ir: Tensor, vi: Tensor) -> Tensor:
        """Phi_f of a level."""
        adapter = self.adapters[min(level, len(self.adapters) - 1)]
        ir, vi = adapter(ir), adapter(vi)
        if self.caim is not None:
            ir, vi = self.caim.exchange(ir, vi)
        return ir + vi if self.adds else torch.cat([ir, vi], dim=1)


def _require_settings(
    width: int,
    channels: int,
    dropout: float,
    timesteps: Sequence[int],
    blocks: Sequence[int],
    *choices: str,
) -> None:
    """Raises UserError for settings of no network: weight files carry them too, and anyone can write one."""
    require_whole("width", width, 2, 1024)
    if width % 2 or channels not in (1, 3):
        raise UserError(f"width {width}, {str(channels)[:80]} channels; give an even width and 1 or 3")
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise UserError(f"dropout {str(dropout)[:80]}; give a number from 0 up to 1")
    for value, known in zip(choices, (Noise, Half, Fusion, Fill, Form), strict=True):
        if value not in get_args(known):
            raise UserError(f"there is no {str(value)[:80]!r}; give {' or '.join(get_args(known))}")
    for name, some, last in (
        ("timesteps", timesteps, 2000 if choices[0] == "released" else 1000),
        ("blocks", blocks, 14),
    ):
        if not isinstance(some, (list, tuple)) or not 1 <= len(some) <= 16:
            raise UserError(f"{name} {str(some)[:80]}; give one to sixteen whole numbers")
        for number in some:
            require_whole(f"one of the {name}", number, 0, last)
    if [block // 3 for block in blocks] != [0, 1, 2, 3, 4]:
        raise UserError(f"blocks {list(blocks)}; give one of 0-2, 3-5, 6-8, 9-11 and 12-14")


def fusion_terms(fused: Tensor, ir: Tensor, vi: Tensor, form: Form = "paper") -> dict[str, Tensor]:
    """The terms of L_fusion (Eq. 13), unweighted: L_ssim (Eq. 10), L_int (Eq. 11), L_grad (Eq. 12).

    All images (B, 1, H, W) in [0, 1], but `fused`, which may leave it; each term is a scalar. "paper" is near
    the mean of both sources, "released" near their maximum and the structure of the one with more edges.
    """
    return {
        "structure": structure_loss(fused, ir, vi, form),
        "intensity": intensity_loss(fused, ir, vi, "mean" if form == "paper" else "maximum"),
        "edges": strongest_edge_loss(fused, ir, vi, "replicate" if form == "paper" else "zero"),
    }


def train_ddpm(
    model: DMFuse,
    images: Sequence[Tensor],
    stage: Stage,
    draw: Draw = "paper",
    ema: float = 0.0,
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 1, the U-Net alone on images (1, 1, H, W) in [0, 1] (Eq. 4), with Adam; returns the losses.

    It learns what `model.coefficients` say: the noise, or EDM's target. With `ema` it ends as the running
    average of its weights.
    """
    unet = model.unet.train()
    average = copy.deepcopy(unet)
    both = [(image, image) for image in images]

    def step(_: int, generator: torch.Generator) -> Tensor:
        crops, _same = draw_crops(both, stage.batch, stage.size, generator)
        x = (2 * crops - 1).expand(-1, model.channels, -1, -1)
        levels = draw_alpha_bars(model.alpha_bars, stage.batch, generator, draw)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=stage.precision == "bfloat16"):
            return network_loss(unet, model.coefficients, x, levels, generator)

    curve = fit(
        step,
        {"unet": unet, "average": average},
        torch.optim.Adam(unet.parameters(), lr=stage.rate),
        steps=stage.steps,
        seed=stage.seed,
        ema=EMA(average, unet, lambda _: ema),
        checkpoint=checkpoint,
        settings={
            **asdict(stage),
            **told(both, checkpoint),
            **{"draw": draw, "ema": ema, "noise": model.settings["noise"]},
            **{"channels": model.channels, "width": unet.width},
        },
        title="diffusion model",
    )
    unet.load_state_dict(average.state_dict())
    return curve


def train_fusion(
    model: DMFuse,
    images: ImagePairs,
    stage: Stage,
    weights: Mapping[str, float] = RECIPES["paper"].weights,
    form: Form = "paper",
    gamma: float | None = None,
    whole: bool = False,
    ema: float = 0.0,
    checkpoint: Path | None = None,
) -> list[float]:
    """Stage 2, the head on pairs, with Adam; returns the losses. The U-Net learns too with `whole`.

    With `ema` it ends as the running average of its weights, which forgets the first steps faster. `weights`
    weighs the terms of Eq. 13 by name. At the common rate of 1e-5 gamma moves less than .2 in all of the
    released training and stays near the 0 at which it starts; `gamma` gives it a rate of its own.
    """
    model.unet.train(whole)
    trained = model if whole else model.head
    average = copy.deepcopy(trained)
    groups = [
        {"params": [p for key, p in trained.named_parameters() if ("gamma" in key) == own], "lr": rate}
        for own, rate in ((False, stage.rate), (True, stage.rate if gamma is None else gamma))
    ]

    def step(_: int, generator: torch.Generator) -> Tensor:
        ir, vi = draw_crops(images, stage.batch, stage.size, generator)
        with torch.set_grad_enabled(whole):
            maps = [model.maps(image, generator) for image in (ir, vi)]
        return weighted_sum(fusion_terms(model.image(model.head(*maps)), ir, vi, form), weights)

    curve = fit(
        step,
        {"trained": trained, "average": average},
        torch.optim.Adam(groups),
        steps=stage.steps,
        seed=stage.seed,
        ema=EMA(average, trained, lambda k: min(ema, (1 + k) / (10 + k))),
        checkpoint=checkpoint,
        settings={
            **asdict(stage),
            **told(images, checkpoint),
            **{"unet": fingerprint(model.unet.state_dict().values()) if checkpoint else ""},
            **{"weights": dict(weights), "form": form, "gamma": gamma, "whole": whole, "ema": ema},
            **model.settings,
        },
        title="fusion head",
    )
    trained.load_state_dict(average.state_dict())
    return curve


def train(
    recipe: Recipe,
    images: ImagePairs,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoints: Path | None = None,
    name: str = "dmfuse",
    singles: Sequence[Tensor] = (),
) -> DMFuse:
    """Both stages of a recipe, on images wherever they lie; returns the network on the device.

    Stage 1 sees `singles` (1, 1, H, W), or, where there are none, both images of each pair. With a folder of
    checkpoints a stopped training goes on. Stage 2 goes by `name` there, stage 1 by its noise, so that
    trainings of one seed which differ in stage 2 alone share it.
    """
    images = [(ir.to(device), vi.to(device)) for ir, vi in images]
    with seeded(seed):
        network = DMFuse(**recipe.settings).to(device)  # type: ignore[arg-type]  # checked there
        if recipe.pretext == "random":
            network.unet.apply(draw_zeros)
    first, second = replace(recipe.first, seed=seed), replace(recipe.second, seed=seed)

    def checkpoint(stem: str) -> Path | None:
        return checkpoints and checkpoints / f"{stem}-{seed}.safetensors"

    if recipe.pretext == "ddpm":
        singles = [image.to(device) for image in singles] or [image for pair in images for image in pair]
        stem = f"ddpm-{network.settings['noise']}-{network.unet.width}"
        train_ddpm(network, singles, first, recipe.draw, recipe.ema, checkpoint(stem))
    train_fusion(
        network,
        images,
        second,
        recipe.weights,
        recipe.form,
        recipe.gamma,
        recipe.pretext == "cnn",
        recipe.head_ema,
        checkpoint(name),
    )
    return network.eval()


def save(model: DMFuse, file: Path) -> Path:
    """Writes both networks in half precision with their settings, which `load` reads; returns the file."""
    save_half(model, file, {"settings": json.dumps(model.settings)})
    return file

"""CoCoNet (Liu et al., IJCV 2024): a U-Net and a frozen VGG look at both images, and contrast teaches them.

The recipes stand first; then, as in the paper, the terms of the loss (Eq. 1 to 10), the network (Eq. 11 and
12, Fig. 3 and 4) and the training in two stages (Algorithm 1).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.crops import draw_crops
from fusionlab.data.masks import salient_patches
from fusionlab.errors import UserError, require_whole
from fusionlab.losses import weighted_sum
from fusionlab.losses.adaptive import AdaptiveForm, Weights, gamma_weights, per_batch, sigma_weights
from fusionlab.losses.contrastive import VGG_WEIGHTS, Over, coupled_contrast, plain_pixels, ratio_loss
from fusionlab.losses.perceptual import Taps
from fusionlab.metrics.structure import ssim
from fusionlab.nets.features import GROUPS, TO_RELU3_4, vgg
from fusionlab.nets.unet import conv
from fusionlab.training import fingerprint, fit, seeded, write_safetensors

Wiring = Literal["paper", "released"]
Branch = Literal["vgg19", "vgg19_normalised", "random", "none"]
Seen = Literal["vgg19", "vgg19_small16x", "vgg19_normalised", "random", "pixels"]
Testing = Literal["normalised", "own statistics", "released", "raw"]
# (ir, vi, mask), (1, 1, H, W) each; sizes may differ.
MaskedPairs = Sequence[tuple[Tensor, Tensor, Tensor]]

CONTRAST_TERMS = ("target", "detail")
ALPHA_20 = {"structure": 20.0, "intensity": 1.0, "target": 1.0, "detail": 1.0}  # Eq. 3 and 10
# Where alpha is 20 the contrast hardly shows in the image; so all but it by 20.
CONTRAST_20 = {"structure": 1.0, "intensity": 0.05, "target": 1.0, "detail": 1.0}


@dataclass(frozen=True)
class Recipe:
    """All that makes a CoCoNet but the data, the seed and the device.

    `steps` with `batch` random crops of `size` pixels by the adaptive loss alone, then `fine_steps` with the
    contrast too, of so many `anchors`, each with so many `negatives`, the first its own scene's other source;
    the mask's share in their crops lies within `shares`. `seen` is what the contrast compares: VGG-19 by
    name, or pixels. `form`, `accumulate` and `over` are those of the adaptive weights and of the ratio,
    `weights` weighs the terms, `settings` are the network's.
    """

    steps: int
    fine_steps: int
    batch: int = 30
    anchors: int = 10
    negatives: int = 3
    size: int = 64
    rate: float = 1e-4
    shares: tuple[float, float] = (0.0, 1.0)
    form: AdaptiveForm = "released"
    accumulate: bool = False
    over: Over = "image"
    seen: Seen = "vgg19"
    weights: Mapping[str, float] = field(default_factory=lambda: ALPHA_20)
    settings: Mapping[str, object] = field(default_factory=dict)


# 1,410 crops are 47 steps. The paper leaves open how long the first stage takes, here 30 passes as in the
# released script; of the second it prints 5 passes, the script makes 2. Of 30 crops 10 are anchors.
RECIPES = {
    "paper": Recipe(1410, 235, form="paper", settings={"features": "vgg19", "variant": "paper"}),
    "released": Recipe(
        1410, 94, accumulate=True, over="batch", settings={"features": "vgg19", "variant": "released"}
    ),
}

# Ours by profile: one negative, crops that have both halves, weights without the mistake of the histogram.
_OURS = Recipe(
    1500, 500, batch=8, anchors=8, negatives=1, rate=1e-3, shares=(0.02, 0.98), seen="vgg19_normalised",
    weights=CONTRAST_20, settings={"width": 16, "features": "vgg19_normalised"},
)  # fmt: skip
MODEL = {
    "smoke": replace(
        _OURS, steps=3, fine_steps=3, batch=2, anchors=2, size=32,
        settings={"width": 4, "features": "vgg19_normalised"},
    ),
    "laptop": _OURS,
    "gpu": replace(_OURS, steps=4000, fine_steps=1000, batch=30, anchors=10),
    "paper": replace(
        _OURS, steps=4000, fine_steps=1000, batch=30, anchors=10, settings={"features": "vgg19_normalised"}
    ),
}  # fmt: skip


def without_vgg(recipe: Recipe) -> Recipe:
    """The recipe for where nobody's VGG is: no branches in the network, and contrast between pixels."""
    return replace(recipe, seen="pixels", settings={**recipe.settings, "features": "none"})


def adaptive_terms(
    fused: Tensor, ir: Tensor, vi: Tensor, sigma: Weights, gamma: Weights
) -> dict[str, Tensor]:
    """L_S of Eq. 4 as "structure" and L_N of Eq. 5 as "intensity": two scalars.

    All images (B, 1, H, W) in [0, 1]; sigma and gamma are (of ir, of vi), (B,) each. SSIM has black around
    the images, as released; squared errors are those of images from -1 to 1.
    """
    padded = [F.pad(image, (5, 5, 5, 5)) for image in (fused, ir, vi)]
    lost = [1 - ssim(padded[0], source, data_range=1) for source in padded[1:]]
    errors = [(2 * (fused - source)).square().mean(dim=(1, 2, 3)) for source in (ir, vi)]
    return {
        "structure": (sigma[0] * lost[0] + sigma[1] * lost[1]).mean(),
        "intensity": (gamma[0] * errors[0] + gamma[1] * errors[1]).mean(),
    }


def adaptive_weights(ir: Tensor, vi: Tensor, recipe: Recipe) -> tuple[Weights, Weights]:
    """sigma and gamma (Eq. 6 to 9) of (B, 1, H, W), in the form that a recipe asks for."""
    sigma = sigma_weights(ir, vi, recipe.form)
    gamma = gamma_weights(ir, vi, recipe.form, accumulate=recipe.accumulate)
    return per_batch(sigma) if recipe.over == "batch" else sigma, gamma


def contrast_taps(seen: Seen, device: str | torch.device = "cpu") -> tuple[Taps, tuple[float, ...]]:
    """G of Eq. 1 and its w_i: relu1_1, 2_1 ... of a VGG-19 by name, as far as it goes, or the pixels.

    Where it ends at relu3_1 the last three weights are taken. Raises UserError where its weights are absent.
    """
    if seen == "pixels":
        return plain_pixels, (1.0,)
    network = vgg(seen).to(device)
    names = [f"relu{name.removeprefix('conv')}" for name in network.convs if name.endswith("_1")]

    def taps(image: Tensor) -> list[Tensor]:
        maps = network(image)
        return [maps[name] for name in names]

    weights = VGG_WEIGHTS if len(names) == 5 else (1 / 8, 1 / 4, 1.0)
    return taps, weights


class Norm(nn.Module):
    """Batch normalisation that, where `own` is set, takes each test image's own statistics.

    That is what a network does that was never put into eval mode and is shown one image at a time.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.own = False

    def forward(self, x: Tensor) -> Tensor:
        if self.own and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=self.training
        )


def layer(channels_in: int, channels_out: int, variant: Wiring, norm: bool = True) -> nn.Sequential:
    """A 3x3 convolution, then normalisation and LeakyReLU as printed; released is LeakyReLU first."""
    parts: list[nn.Module] = [nn.LeakyReLU(0.2)]
    if norm:
        parts.insert(0 if variant == "paper" else 1, Norm(channels_out))
    return nn.Sequential(conv(channels_in, channels_out), *parts)


class ChannelAttention(nn.Module):
    """Mixes channels by their likeness (Fig. 4), (B, C, H, W) to the same.

    M = softmax(P Q^T), and H(x) + M^T H(x) as printed. "released" prefers unlike channels, softmax(max(E) -
    E), and weighs the sum by a learned gain that starts at 0; until it moves, P and Q learn nothing. The
    energies are sums over all pixels and not scaled: softmax makes one channel of them from the start.
    """

    def __init__(self, channels: int, variant: Wiring) -> None:
        super().__init__()
        self.p, self.q, self.h = (conv(channels, channels) for _ in range(3))
        self.variant = variant
        self.register_parameter("gain", nn.Parameter(torch.zeros(1)) if variant == "released" else None)

    def mixture(self, x: Tensor) -> Tensor:
        """How much of each channel (column) enters each (row), (B, C, C); rows sum to 1."""
        energy = self.p(x).flatten(2) @ self.q(x).flatten(2).mT
        if self.variant == "paper":
            return energy.softmax(1).mT  # the paper does not say along which axis: each output is a mean
        return (energy.amax(-1, keepdim=True) - energy).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.h(x)
        mixed = (self.mixture(x) @ h.flatten(2)).view_as(h)
        return h + (mixed if self.gain is None else self.gain * mixed)


class MultiLevelAttention(nn.Module):
    """MAM at one level (Eq. 11 and 12): attention, shared by all maps, then one convolution of them together.

    `maps` counts them: the U-Net's alone, or those of VGG on both images too. `channels` are the U-Net's,
    `channels_vgg` VGG's, brought to as many by a 1x1 convolution where they differ.
    """

    def __init__(
        self, channels: int, channels_vgg: int | None, attention: bool, variant: Wiring, maps: int
    ) -> None:
        super().__init__()
        self.attention = ChannelAttention(channels, variant) if attention else nn.Identity()
        self.fuse = conv(maps * channels, channels) if maps > 1 or attention else nn.Identity()
        differ = channels_vgg is not None and channels_vgg != channels
        self.adapt = nn.Conv2d(channels_vgg, channels, 1) if differ and channels_vgg else nn.Identity()

    def forward(self, unet: Tensor, others: Sequence[Tensor]) -> Tensor:
        maps = [unet, *(self.adapt(x) for x in others)]
        return self.fuse(torch.cat([self.attention(x) for x in maps], dim=1))


class Decode(nn.Module):
    """Twice the sides, bilinear, joined with what the encoder had at that size; half the channels."""

    def __init__(self, channels: int, variant: Wiring) -> None:
        super().__init__()
        half = channels // 2
        self.up = layer(channels, half, variant)
        self.join = nn.Sequential(layer(2 * half, half, variant), layer(half, half, variant))

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.join(
            torch.cat([self.up(F.interpolate(x, scale_factor=2, mode="bilinear")), beside], dim=1)
        )


VGG_LEVELS = ("low", "middle", "high")  # of VGG: 64 channels at 1/2, 128 at 1/4, 256 at 1/8 of the sides
HALVED = ("conv1_2", *GROUPS)  # a halving more than VGG-19 has, before conv1_2
TESTINGS: dict[Testing, tuple[bool, bool]] = {  # values of 0 to 255 in place of -1 to 1; own statistics
    "normalised": (False, False),
    "own statistics": (False, True),
    "released": (True, True),
    "raw": (True, False),
}


class CoCoNet(nn.Module):
    """The network of Fig. 3: 6,845,189 trainable parameters as released, and a frozen VGG of 2,324,416.

    `width` is that of the first level; each of the other three halves the sides and doubles it. `features`
    is the VGG of the branches: the paper's "vgg19", "vgg19_normalised" (the same network with scaled
    activations, to relu3_1), "random", or "none", without branches; raises UserError where its file is
    absent. Of its `levels` some can be left out (Table 3), and the channel `attention` too (Table 2).
    `variant` orders each layer and forms the attention as printed or as released. `testing`: see `test_as`.
    """

    def __init__(
        self,
        width: int = 32,
        features: Branch = "vgg19_normalised",
        attention: bool = True,
        levels: Sequence[str] = VGG_LEVELS,
        variant: Wiring = "released",
        testing: Testing = "normalised",
    ) -> None:
        super().__init__()
        _require_settings(width, features, levels, variant)
        self.settings = {
            "width": width, "features": features, "attention": bool(attention), "levels": list(levels),
            "variant": variant, "testing": testing,
        }  # fmt: skip
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.encoder = nn.ModuleList(
            nn.Sequential(layer(a, b, variant), layer(b, b, variant, norm=b != widths[-1]))
            for a, b in zip([2, *widths], widths)
        )
        self.vgg = None if features == "none" else vgg(features, widths=TO_RELU3_4)
        self.chosen = [level in levels and self.vgg is not None for level in VGG_LEVELS]
        self.mam = nn.ModuleList(
            MultiLevelAttention(own, 64 * 2**i, bool(attention), variant, maps=3 if self.chosen[i] else 1)
            for i, own in enumerate(widths[1:])
        )
        self.decoder = nn.ModuleList(Decode(channels, variant) for channels in reversed(widths[1:]))
        self.out = nn.Conv2d(width, 1, 1)
        # The released network also makes these for the first level, and never uses them.
        whole = variant == "released" and attention and all(self.chosen)
        self.unused = MultiLevelAttention(width, None, True, variant, maps=3) if whole else None
        self.test_as(testing)

    def test_as(self, testing: Testing) -> "CoCoNet":
        """Chooses what happens outside of training, by name; returns the network.

        "normalised" has inputs from -1 to 1, as in training, and running statistics. "released" is what the
        released script does: values of 0 to 255, which the network has never met, and each image's own
        statistics, which undo the most of it. The other two change one of both.
        """
        if testing not in TESTINGS:
            raise UserError(f"there is no testing {str(testing)[:80]!r}; use {', '.join(TESTINGS)}")
        self.raw, own = TESTINGS[testing]
        self.settings["testing"] = testing
        for module in self.modules():
            if isinstance(module, Norm):
                module.own = own
        return self

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1], sides from 16, into one in (0, 1).

        Sides are filled up by reflection to multiples of 16, half on either side, as released.
        """
        height, width = ir.shape[-2:]
        top, left = -height % 16 // 2, -width % 16 // 2
        around = (left, -width % 16 - left, top, -height % 16 - top)
        ir, vi = (F.pad(image, around, mode="reflect") for image in (ir, vi))
        if self.raw and not self.training:
            ir, vi = 255 * ir, 255 * vi
        else:
            ir, vi = 2 * ir - 1, 2 * vi - 1
        fused = torch.tanh(self.out(self.decode(self.encode(ir, vi))))
        return (fused[..., top : top + height, left : left + width] + 1) / 2

    def encode(self, ir: Tensor, vi: Tensor) -> list[Tensor]:
        """f_U0 and the attention of the other three levels, w to 8w maps, from (B, 1, H, W) in [-1, 1]."""
        x, maps = torch.cat([vi, ir], dim=1), []
        for number, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if number else x)
            maps.append(x)
        of_vi, of_ir = self.branch(vi), self.branch(ir)
        attended = [
            mam(own, [of_vi[i], of_ir[i]] if self.chosen[i] else [])
            for i, (mam, own) in enumerate(zip(self.mam, maps[1:], strict=True))
        ]
        return [maps[0], *attended]

    def branch(self, image: Tensor) -> list[Tensor]:
        """f_R or f_V: the last map of each of VGG's first three groups, of (B, 1, H, W) in [-1, 1]."""
        if self.vgg is None:
            return []
        maps = self.vgg((image + 1) / 2, HALVED)
        last = {name[:5]: x for name, x in maps.items()}  # relu1_2 takes the place of relu1_1
        return [last[f"relu{group}"] for group in (1, 2, 3)]

    def decode(self, attended: Sequence[Tensor]) -> Tensor:
        """From coarse to fine, (B, w, H, W)."""
        x = attended[-1]
        for stage, beside in zip(self.decoder, reversed(attended[:-1]), strict=True):
            x = stage(x, beside)
        return x


def _require_settings(width: int, features: str, levels: Sequence[str], variant: str) -> None:
    """Raises UserError for settings of no network: weight files carry them too, and anyone can write one."""
    require_whole("width", width, 1, 256)
    if not isinstance(levels, (list, tuple)) or any(level not in VGG_LEVELS for level in levels):
        raise UserError(f"levels {str(levels)[:80]}; give some of {', '.join(VGG_LEVELS)}")
    for value, known in ((features, get_args(Branch)), (variant, get_args(Wiring))):
        if value not in known:
            raise UserError(f"there is no {str(value)[:80]!r}; give {' or '.join(known)}")


def train_adaptive(
    network: CoCoNet,
    images: MaskedPairs,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    seed: int,
    checkpoint: Path | None = None,
) -> list[float]:
    """The first stage of Algorithm 1: the adaptive loss alone, on random crops; returns the losses."""
    pairs = [(ir, vi) for ir, vi, _ in images]
    weights = {name: weight for name, weight in recipe.weights.items() if name not in CONTRAST_TERMS}

    def step(_: int, generator: torch.Generator) -> Tensor:
        ir, vi = draw_crops(pairs, recipe.batch, recipe.size, generator)
        return weighted_sum(
            adaptive_terms(network(ir, vi), ir, vi, *adaptive_weights(ir, vi, recipe)), weights
        )

    return fit(
        step,
        {"network": network.train()},
        optimiser,
        steps=recipe.steps,
        seed=seed,
        checkpoint=checkpoint,
        settings=_told(network, images, recipe, checkpoint),
        title="adaptive loss",
    )


def fine_tune(
    network: CoCoNet,
    images: MaskedPairs,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    seed: int,
    checkpoint: Path | None = None,
) -> list[float]:
    """The second stage of Algorithm 1: contrast too, on crops with a mask; returns the losses.

    The first `anchors` crops of a step are fused; each has its own scene's other source as a negative, and
    those of `negatives` - 1 other crops, as released. Without weight on "target" and "detail" it is as long
    and on the same crops, and the fair comparison. Raises UserError where no crop has the mask's share.
    """
    device = next(network.parameters()).device
    taps, layer_weights = contrast_taps(recipe.seen, device)
    patches = salient_patches(images, recipe.size, *recipe.shares)
    ratio = partial(ratio_loss, over=recipe.over)
    weights = {name: weight for name, weight in recipe.weights.items() if weight}

    def step(_: int, generator: torch.Generator) -> Tensor:
        drawn = patches.draw(recipe.anchors * recipe.negatives, generator)
        groups = [part.unflatten(0, (recipe.negatives, recipe.anchors)) for part in drawn]
        ir, vi, mask = (group[0] for group in groups)
        fused = network(ir, vi)
        terms = adaptive_terms(fused, ir, vi, *adaptive_weights(ir, vi, recipe))
        if any(name in weights for name in CONTRAST_TERMS):
            terms |= coupled_contrast(
                fused, ir, vi, mask, taps, weights=layer_weights, contrast=ratio,
                strangers=(groups[0][1:], groups[1][1:]) if recipe.negatives > 1 else None,
            )  # fmt: skip
        return weighted_sum(terms, weights)

    return fit(
        step,
        {"network": network.train()},
        optimiser,
        steps=recipe.fine_steps,
        seed=seed,
        checkpoint=checkpoint,
        settings=_told(network, images, recipe, checkpoint)
        | {"start": fingerprint(network.state_dict().values()) if checkpoint else ""},
        title="contrast",
    )


def _told(
    network: CoCoNet, images: MaskedPairs, recipe: Recipe, checkpoint: Path | None
) -> dict[str, object]:
    """What tells this run from others, for the settings of a checkpoint."""
    values = (image for parts in images for image in parts)
    return {**asdict(recipe), **network.settings, "images": fingerprint(values) if checkpoint else ""}


def train(
    recipe: Recipe,
    images: MaskedPairs,
    seed: int = 0,
    device: str | torch.device = "cpu",
    checkpoints: Path | None = None,
    name: str = "coconet",
) -> CoCoNet:
    """Algorithm 1 on pairs with masks, wherever they lie; returns the network on the device, in eval mode.

    Adam goes on with its moments from one stage into the other, as released. With a folder of checkpoints a
    stopped training goes on; they go by `name` there. Raises UserError where the VGG that a recipe names is
    absent; `without_vgg` makes one that needs none.
    """
    images = [(ir.to(device), vi.to(device), mask.to(device)) for ir, vi, mask in images]
    with seeded(seed):
        network = CoCoNet(**recipe.settings).to(device)  # type: ignore[arg-type]  # checked within
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=recipe.rate)

    def checkpoint(stage: str) -> Path | None:
        return checkpoints and checkpoints / f"{name}-{stage}-{seed}.safetensors"

    train_adaptive(network, images, recipe, optimiser, seed, checkpoint("adaptive"))
    fine_tune(network, images, recipe, optimiser, seed, checkpoint("contrast"))
    return network.eval()


def save(model: CoCoNet, file: Path) -> Path:
    """Writes what was trained, in half precision with its settings; VGG is others' and stays out."""
    weights = {key: x.half() for key, x in model.state_dict().items() if not key.startswith("vgg.")}
    write_safetensors(weights, file, {"settings": json.dumps(model.settings)})
    return file

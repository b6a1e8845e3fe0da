"""CAF (Liu et al., IJCAI 2024): a perception task finds the weights of the losses that train a fusion net.

Fifteen losses (Figure 1) are weighed by beta. Algorithm 1 moves task network, fusion network and beta in
turn, beta along the hypergradient of the task's loss on held-out pairs (Eq. 2, 3). With beta found, fusion
and task are trained one after the other (Sec. 3.4). Any network of (ir, vi) will do, and any task.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.bilevel import (
    Parameters,
    as_function,
    constant,
    finite_difference,
    mixed_product,
    parameters_of,
    single_step,
)
from fusionlab.crops import ImagePairs, Labelled, draw_crops
from fusionlab.errors import UserError, require_whole
from fusionlab.losses.space import SPACE, Preset, fusion_loss, perception
from fusionlab.nets.unet import conv
from fusionlab.training import cosine, fingerprint, fit, save_half

Parametrisation = Literal["softmax", "raw", "clamp", "softplus", "sigmoid", "shares"]
TaskLoss = Callable[[Tensor, Tensor], Tensor]  # (what the task network says of a fused image, labels)


@dataclass(frozen=True)
class Recipe:
    """All that makes a CAF but networks, task, data, seed and device.

    `search` steps of Algorithm 1, of which the first `warmup` leave beta as it starts and the others move it
    every `beta_every`; then `fusion` steps under fixed weights, on crops of `size`, and `task` steps of the
    task network. Adam throughout; `rate` is that of the fusion network and eta of Eq. 3, beta's falls by
    `beta_decay` with each of its steps. `variant` is that of `search_terms`, `perception` the network of its
    last two (None leaves them out), `product` one of MIXED. `schedule` is that of the `fusion` steps,
    "cosine" falls to 0.
    """

    search: int
    fusion: int
    task: int
    batch: int = 8
    size: int = 64
    rate: float = 1e-4
    task_rate: float = 1e-3
    beta_rate: float = 5e-2
    beta_decay: float = 0.998
    warmup: int = 0
    beta_every: int = 1
    product: Literal["exact", "darts", "constant"] = "exact"
    parametrisation: Parametrisation = "softmax"
    variant: Preset = "paper"
    perception: str | None = None
    schedule: Literal["constant", "cosine"] = "constant"


# The paper searches ten epochs of half of M3FD's 4,200 pairs (the halves are our guess) and trains 100 epochs
# on 1,000 blocks; the released configuration takes 8 at a time, of 320x320, its checkpoints have seen 400
# steps. A decay of 0.998 an epoch would be 2 % in all, so it is taken by steps. A small VGG-19 stands for
# VGG-16.
RECIPES = {
    "paper": Recipe(2630, 12_500, 4000, size=320, product="constant", perception="vgg19_small16x"),
    "released": Recipe(
        2630, 400, 4000, size=320, product="darts", variant="released", perception="vgg19_normalised"
    ),
    # Ours by profile. VGG weights are not everybody's. Without a warm-up the search locks on one source.
    "smoke": Recipe(4, 3, 3, 2, 16, 1e-3, warmup=1),
    "laptop": Recipe(300, 300, 150, 4, 64, 1e-3, beta_rate=2e-2, warmup=100, beta_every=2),
    "gpu": Recipe(3000, 3000, 2000, 8, 128, 1e-3, beta_rate=1e-2, warmup=500, beta_every=4),
}

# What is shipped: fusion on crops of RoadScene, by weights that were searched on scenes.
MODEL = {
    "smoke": RECIPES["smoke"],
    "laptop": replace(RECIPES["laptop"], fusion=500, rate=2e-3, schedule="cosine"),
}
# Fusion under given weights, and a segmentation network that judges what is fused (Tables 2 and 3).
JUDGED = {"smoke": RECIPES["smoke"], "laptop": replace(RECIPES["laptop"], task=400, task_rate=3e-3)}

# J v of Eq. 3. The paper calls delta a constant and does not give it; the released code takes DARTS' rule.
MIXED = {
    "exact": mixed_product,
    "darts": finite_difference(),
    "constant": finite_difference(constant(0.01)),
}


class FusionNetwork(nn.Module):
    """The fusion network, "three dense blocks": 148,321 parameters at the released width of 32.

    Layers as in the released code, which the paper does not give: a stem for each source, three layers that
    see all maps before them, three that make one image of the 4 `width` maps. The seven convolutions before a
    batch norm have biases without effect.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        require_whole("width", width, 2, 1024)
        self.settings = {"width": width}
        self.stem_ir, self.stem_vi = normalised(1, width // 2), normalised(1, width - width // 2)
        self.dense = nn.ModuleList(normalised(seen * width, width) for seen in (1, 2, 3))
        self.head = nn.Sequential(
            *(conv(4 * width, 2 * width), nn.ReLU()), normalised(2 * width, width), nn.Conv2d(width, 1, 1)
        )

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) in [0, 1]; (B, 1, H, W) in (-1, 1), not clipped."""
        maps = torch.cat([self.stem_ir(ir), self.stem_vi(vi)], dim=1)
        for layer in self.dense:
            maps = torch.cat([maps, layer(maps)], dim=1)
        return torch.tanh(self.head(maps))


def normalised(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(conv(channels_in, channels_out), nn.BatchNorm2d(channels_out), nn.ReLU())


# beta -> weights (K,), and for K terms the beta at which each weight is 1/K, so that searches start alike.
# The released code has "softmax"; what becomes of the others is the lesson.
PARAMETRISATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[float], float]]] = {
    "softmax": (lambda beta: beta.softmax(0), lambda k: 0.0125),
    "raw": (lambda beta: beta, lambda k: 1 / k),
    "clamp": (lambda beta: beta.clamp(min=0), lambda k: 1 / k),
    "softplus": (F.softplus, lambda k: torch.tensor(1 / k).expm1().log().item()),
    "sigmoid": (torch.sigmoid, lambda k: torch.tensor(1 / k).logit().item()),
    "shares": (lambda beta: beta.clamp(min=0) / beta.clamp(min=0).sum(), lambda k: 1 / k),
}


class LossWeights(nn.Module):
    """beta, one number a term, what it makes of it, and where it has been.

    `path` (steps, K) holds the weights that each step of a search trained under. It is a buffer, so that it
    travels in checkpoints.
    """

    def __init__(self, names: tuple[str, ...], parametrisation: Parametrisation, steps: int = 0) -> None:
        super().__init__()
        if parametrisation not in PARAMETRISATIONS:
            raise UserError(f"there is no {parametrisation!r}; use {', '.join(PARAMETRISATIONS)}")
        self.names = names
        self.form, start = PARAMETRISATIONS[parametrisation]
        self.beta = nn.Parameter(torch.full((len(names),), start(len(names))))
        self.path: Tensor
        self.register_buffer("path", torch.zeros(steps, len(names)))

    def forward(self) -> Tensor:
        """The weights (K,), in the order of `names`."""
        return self.form(self.beta)

    def by_name(self) -> dict[str, float]:
        """The weights as `train` takes them."""
        return dict(zip(self.names, self().tolist(), strict=True))


def adam(module: nn.Module, rate: float, eps: float = 1e-8) -> torch.optim.Adam:
    """Adam for what asks for a gradient in a module."""
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=rate, eps=eps)


def search(
    fusion: nn.Module,
    task: nn.Module,
    task_loss: TaskLoss,
    training: Labelled,
    validation: Labelled,
    recipe: Recipe,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> LossWeights:
    """Algorithm 1, automatic loss function search, with the minus signs that it lost in print; returns beta.

        line 3   omega_t <- omega_t - task_rate grad L^t_train(I_f; omega_t)
        line 5   omega_f <- omega_f - rate grad L^f_train(I_vis, I_ir; omega_f, beta)
        line 7   beta <- beta - beta_rate grad L^t_val(beta; omega_f - eta grad L^f_train(beta; omega_f))

    each by Adam. The loop is entered at line 7 here, so that what `fit` minimises is line 5. `fusion` takes
    (ir, vi) and gives an image (B, 1, H, W), of which `task` makes what `task_loss` compares with labels.
    Both are trained where they lie, in training mode, but for parameters that ask for no gradient. With a
    checkpoint a stopped search goes on to the same bits, beta included.
    """
    fusion.train()
    task.train()
    device = training.ir.device
    taps = perception(recipe.perception, recipe.variant, device) if recipe.perception else None
    names = SPACE if taps else SPACE[:-2]
    weights = LossWeights(names, recipe.parametrisation, recipe.search).to(device)
    by_fusion, by_task = adam(fusion, recipe.rate), adam(task, recipe.task_rate)
    # A hypergradient carries eta = 1e-4 as a factor, which brings it near Adam's usual eps of 1e-8.
    by_beta = adam(weights, recipe.beta_rate, eps=1e-16)
    fuse_by, judge_by = as_function(fusion), as_function(task)

    def loss(fused: Tensor, seen: Labelled, weighed: Tensor) -> Tensor:
        return fusion_loss(fused, seen.ir, seen.vi, weighed, recipe.variant, taps)

    def hypergradient(seen: Labelled, held_out: Labelled) -> Tensor:
        verdict = parameters_of(task)

        def lower(w: Parameters, beta: Tensor) -> Tensor:
            return loss(fuse_by(w, seen.ir, seen.vi), seen, weights.form(beta))

        def upper(w: Parameters) -> Tensor:
            return task_loss(judge_by(verdict, fuse_by(w, held_out.ir, held_out.vi)), held_out.labels)

        eta = by_fusion.param_groups[0]["lr"]
        mixed = MIXED[recipe.product]
        return single_step(lower, upper, parameters_of(fusion), weights.beta.detach(), eta, mixed)

    def step(k: int, generator: torch.Generator) -> Tensor:
        seen = training.draw(recipe.batch, generator)
        turn, rest = divmod(k - recipe.warmup, recipe.beta_every)
        if turn >= 0 and rest == 0:  # line 7
            by_beta.param_groups[0]["lr"] = recipe.beta_rate * recipe.beta_decay**turn
            weights.beta.grad = hypergradient(seen, validation.draw(recipe.batch, generator))
            by_beta.step()
        weighed = weights().detach()
        weights.path[k] = weighed
        fused = fusion(seen.ir, seen.vi)
        by_task.zero_grad()  # line 3
        task_loss(task(fused.detach()), seen.labels).backward()
        by_task.step()
        return loss(fused, seen, weighed)  # line 5

    fit(
        step,
        {"fusion": fusion, "task": task, "weights": weights},
        [by_fusion, by_task, by_beta],
        steps=recipe.search,
        seed=seed,
        checkpoint=checkpoint,
        settings=_told(recipe, {"training": training, "validation": validation}, checkpoint),
        title="loss search",
    )
    return weights


def train(
    fusion: nn.Module,
    images: ImagePairs,
    weights: Mapping[str, float],
    recipe: Recipe,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> list[float]:
    """The constraint of Eq. 1, omega_f* = argmin L^f, under weights by name: no labels; returns the losses.

    The first half of the hierarchical training (Sec. 3.4), on random crops of pairs.
    """
    fusion.train()
    device = images[0][0].device
    wanted = recipe.perception if any(weights.get(name) for name in SPACE[-2:]) else None
    taps = perception(wanted, recipe.variant, device) if wanted else None

    def step(_: int, generator: torch.Generator) -> Tensor:
        ir, vi = draw_crops(images, recipe.batch, recipe.size, generator)
        return fusion_loss(fusion(ir, vi), ir, vi, weights, recipe.variant, taps)

    values = [image for pair in images for image in pair]
    return fit(
        step,
        {"fusion": fusion},
        adam(fusion, recipe.rate),
        steps=recipe.fusion,
        seed=seed,
        schedule=cosine(recipe.rate, recipe.fusion) if recipe.schedule == "cosine" else None,
        checkpoint=checkpoint,
        settings=_told(recipe, {"images": values}, checkpoint) | {"weights": dict(weights)},
        title="fusion",
    )


def train_task(
    task: nn.Module,
    task_loss: TaskLoss,
    fusion: nn.Module,
    labelled: Labelled,
    recipe: Recipe,
    seed: int = 0,
    checkpoint: Path | None = None,
) -> list[float]:
    """The objective of Eq. 1, min L^t over omega_t, on images of a fusion network that stays as it is.

    The second half of the hierarchical training (Sec. 3.4); returns the losses. Fusion is in evaluation mode.
    """
    fusion.eval()
    task.train()

    def step(_: int, generator: torch.Generator) -> Tensor:
        batch = labelled.draw(recipe.batch, generator)
        with torch.no_grad():
            fused = fusion(batch.ir, batch.vi)
        return task_loss(task(fused), batch.labels)

    told = {"labelled": labelled, "fusion": fusion.state_dict().values()}
    return fit(
        step,
        {"task": task},
        adam(task, recipe.task_rate),
        steps=recipe.task,
        seed=seed,
        checkpoint=checkpoint,
        settings=_told(recipe, told, checkpoint),
        title="task",
    )


def train_hierarchically(
    fusion: nn.Module,
    task: nn.Module,
    task_loss: TaskLoss,
    images: ImagePairs,
    labelled: Labelled,
    weights: Mapping[str, float],
    recipe: Recipe,
    seed: int = 0,
    checkpoints: Path | None = None,
) -> None:
    """Sec. 3.4 with the weights of a search: first fusion (`train`), then the task on what it fuses.

    The task's loss never reaches the fusion network, whose pairs need no labels. With a folder of checkpoints
    a stopped training goes on.
    """
    train(fusion, images, weights, recipe, seed, checkpoints and checkpoints / f"fusion-{seed}.safetensors")
    stage = checkpoints and checkpoints / f"task-{seed}.safetensors"
    train_task(task, task_loss, fusion, labelled, recipe, seed, stage)


def save(network: FusionNetwork, file: Path, weights: Mapping[str, float]) -> Path:
    """Writes a fusion network in half precision, with its settings and the weights that it was trained under.

    `load("caf", file)` reads it; returns the file.
    """
    told = {"settings": json.dumps(network.settings), "weights": json.dumps(weights)}
    save_half(network, file, told)
    return file


def _told(
    recipe: Recipe, tensors: Mapping[str, Iterable[Tensor]], checkpoint: Path | None
) -> dict[str, object]:
    """What tells this training from others, for the settings of a checkpoint."""
    marks = {name: fingerprint(values) for name, values in tensors.items()} if checkpoint else {}
    return {**asdict(recipe), **marks}

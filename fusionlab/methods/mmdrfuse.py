"""MMDRFuse: a student of 113 parameters learns from a teacher of 556,489 (Deng et al., ACM MM 2024).

The recipes (Section 4.1.2) stand first; then, as in the paper, the networks (Fig. 2), the terms of the loss
(Eq. 1 to 13) and the training of teacher and student.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.crops import crops
from fusionlab.data.folders import Pairs
from fusionlab.data.pair import Pair
from fusionlab.errors import UserError, require_whole
from fusionlab.losses import weighted_sum
from fusionlab.losses.distillation import attention, distillation_loss
from fusionlab.losses.gradient import gradient_loss
from fusionlab.losses.perceptual import Taps, perceptual_loss, source_maxima
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.refresh import Refresh
from fusionlab.nets.blocks import reflect_conv
from fusionlab.nets.features import vgg
from fusionlab.nets.frames import two_convolutions
from fusionlab.training import fingerprint, fit, one_cycle, shuffled_batches


@dataclass(frozen=True)
class Recipe:
    """What a training minimises, on what, and for how long.

    `weights` are those of Eq. 5 and 13 by term: intensity, gradient, perception, distillation, refresh. A
    term without one, or with 0, is left out. So many `pairs` give so many random `crops` each, of `size` x
    `size` pixels; Adam makes so many `passes` over them.

    `edges` is the form of Eq. 3, `digest` that of Eq. 1, of which `direct` takes the response end alone;
    `refresh` is the rule of Eq. 8 to 12, and `decide` says whether each image of a batch is judged by itself.
    A student may `start` with its teacher's last layer. `settings` are the network's.

    Two controls, ours: a "shuffled" `lesson` is the teacher's answer to a patch of another pair; a "random"
    `past` is any earlier output of a patch, where the refresh asks for the best.
    """

    weights: Mapping[str, float]
    pairs: int
    crops: int
    passes: int
    size: int = 64
    batch: int = 25
    rate: float = 1e-2
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    edges: Literal["paper", "magnitude", "released"] = "released"
    digest: Literal["paper", "released"] = "released"
    direct: bool = False
    refresh: Literal["paper", "released"] = "released"
    decide: Literal["image", "batch"] = "image"
    start: Literal["random", "teacher"] = "random"
    lesson: Literal["own", "shuffled"] = "own"
    past: Literal["best", "random"] = "best"
    settings: Mapping[str, int] = field(default_factory=dict)


# As printed (Section 4.1.2), with the printed form of every equation: MSRS, 15 crops a pair.
PRINTED = Recipe(
    {}, pairs=1083, crops=15, passes=8, size=128, batch=45, rate=1e-4, schedule="constant",
    edges="paper", digest="paper", refresh="paper",
)  # fmt: skip
# As released: LLVIP, 80 crops a pair, the two printed sets of weights exchanged and altered, and another form
# of every equation but Eq. 2. The student starts with its teacher's last layer, which the paper does not say.
RELEASED = Recipe(
    {}, pairs=200, crops=80, passes=10, size=128, rate=1e-4, schedule="constant", decide="batch",
)  # fmt: skip

# Ours, "laptop", asks for the brighter source and the stronger edge; VGG weights are not everybody's, so it
# does without. Half the paper's width, 140,025 parameters, learns in a quarter of an hour of one core.
TEACHER = {
    "paper": replace(PRINTED, weights={"intensity": 1.0, "gradient": 0.1, "perception": 1.0, "refresh": 1.0}),
    "released": replace(
        RELEASED, weights={"intensity": 2.0, "gradient": 0.1, "perception": 1.0, "refresh": 1.0}
    ),
    "laptop": Recipe(
        {"intensity": 1.0, "gradient": 10.0}, pairs=150, crops=6, passes=25, batch=16, rate=2e-3,
        edges="magnitude", settings={"width": 16},
    ),
}  # fmt: skip
TEACHER["smoke"] = replace(TEACHER["laptop"], pairs=4, crops=2, passes=2)

# The student under a teacher.
DISTILLED = {
    "paper": replace(
        PRINTED, passes=30, batch=30,
        weights={"intensity": 2.0, "gradient": 1.0, "perception": 1.0, "distillation": 0.1, "refresh": 1.0},
    ),
    "released": replace(
        RELEASED, start="teacher",
        weights={"intensity": 1.0, "gradient": 0.1, "perception": 2.0, "distillation": 5.0, "refresh": 1.0},
    ),
    "laptop": Recipe(
        {"intensity": 1.0, "gradient": 100.0, "distillation": 1.0}, pairs=150, crops=4, passes=30,
        start="teacher",
    ),
}  # fmt: skip
DISTILLED["smoke"] = replace(DISTILLED["laptop"], pairs=4, crops=2, passes=2)

# Tables 1 to 3 change one thing of this at a time.
ABLATION = {"laptop": replace(DISTILLED["laptop"], crops=2, passes=16), "smoke": DISTILLED["smoke"]}

# The shipped student of notebook 00, on scenes and without a teacher: seconds, where a teacher takes minutes.
# 113 numbers need no more on a larger machine.
SCENES = {"laptop": Recipe({"intensity": 1.0, "gradient": 0.1}, pairs=48, crops=10, passes=60)}
SCENES |= {"gpu": SCENES["laptop"], "smoke": replace(SCENES["laptop"], pairs=4, crops=5, passes=2)}


class Student(nn.Module):
    """The two convolutions of MMDRFuse (Fig. 2, right), 2 -> 4 -> 1 channels: 113 parameters.

    Layers as in the released code, which the paper does not give; the infrared image is channel 0, the
    visible one channel 1. `hidden` is 4 in the paper; with 32 it has 897 parameters, which at the 8 bytes
    each that Table 3 counts for the teacher are the 7.01 KB of its second student.
    """

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        require_whole("hidden", hidden, 1, 4096)
        self.conv1 = reflect_conv(2, hidden)
        self.conv2 = reflect_conv(hidden, 1)

    def features(self, ir: Tensor, vi: Tensor) -> Tensor:
        """S_1 of Eq. 1: the hidden maps after ReLU, (B, 4, H, W)."""
        return F.relu(self.conv1(torch.cat([ir, vi], dim=1)))

    def maps(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """(S_1, S_2) in one pass."""
        hidden = self.features(ir, vi)
        return hidden, torch.tanh(self.conv2(hidden))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """S_2 of Eq. 1, the fused image after tanh, (B, 1, H, W) in (-1, 1): not clipped."""
        return torch.tanh(self.conv2(self.features(ir, vi)))


@torch.no_grad()
def fuse_rows(student: Student, ir: Tensor, vi: Tensor) -> Tensor:
    """The student's image within 1e-6, without gradients: on large frames a CPU is faster this way."""
    return two_convolutions(torch.cat([ir, vi], dim=1), student.conv1, student.conv2).tanh_()


class Teacher(nn.Module):
    """The dense network that MMDRFuse distils from (Fig. 2, left): 556,489 parameters, most at half size.

    `width` is 32 in the paper: so many channels at full size, twice as many at half size.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        require_whole("width", width, 1, 512)
        w = width
        self.conv1 = reflect_conv(2, w)
        self.conv2 = reflect_conv(w, w)
        self.conv3 = reflect_conv(2 * w, 2 * w, stride=2)
        self.conv4 = reflect_conv(2 * w, 2 * w)
        self.conv5 = reflect_conv(4 * w, 2 * w)
        self.conv6 = reflect_conv(6 * w, 2 * w)
        self.conv66 = reflect_conv(2 * w, 2 * w)
        self.conv55 = reflect_conv(4 * w, 2 * w)
        self.conv44 = reflect_conv(4 * w, 2 * w)
        self.conv33 = reflect_conv(4 * w, 2 * w)
        self.conv22 = reflect_conv(3 * w, w)
        self.conv11 = reflect_conv(2 * w, 4)
        self.conv00 = reflect_conv(4, 1)

    def features(self, ir: Tensor, vi: Tensor) -> Tensor:
        """T_1 of Eq. 1: the last hidden maps after ReLU, (B, 4, H, W) for even H and W."""

        def layer(conv: nn.Module, *maps: Tensor) -> Tensor:
            return F.relu(conv(torch.cat(maps, dim=1)))

        a = layer(self.conv1, ir, vi)
        b = layer(self.conv2, a)
        d = layer(self.conv3, a, b)  # half size from here
        e = layer(self.conv4, d)
        f = layer(self.conv5, d, e)
        g = layer(self.conv6, d, e, f)
        y = layer(self.conv66, g)
        y = layer(self.conv55, f, y)
        y = layer(self.conv44, e, y)
        y = layer(self.conv33, d, y)
        y = F.interpolate(y, scale_factor=2, mode="bicubic", align_corners=False)
        y = layer(self.conv22, b, y)
        return layer(self.conv11, a, y)

    def maps(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """(T_1, T_2) in one pass, for even H and W."""
        hidden = self.features(ir, vi)
        return hidden, torch.tanh(self.conv00(hidden))

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """T_2 of Eq. 1, the fused image after tanh, (B, 1, H, W) in (-1, 1): not clipped.

        The released network raises on an odd side, because half of it, doubled, is one pixel too many. Here
        one reflected row or column is added below or to the right and cut off again.
        """
        height, width = ir.shape[-2:]
        ir, vi = (F.pad(image, (0, width % 2, 0, height % 2), mode="reflect") for image in (ir, vi))
        return self.maps(ir, vi)[1][..., :height, :width]


@dataclass(frozen=True)
class Patches:
    """Training patches and everything about them that no step changes.

    ir, vi: (N, 1, H, W) in [0, 1]. maxima: the features that Eq. 4 asks for, one (N, C, h, w) a tap, kept in
    half precision; empty where they are not kept. teacher: its attention map and its output, (N, 1, H, W)
    each; empty without distillation.
    """

    ir: Tensor
    vi: Tensor
    maxima: tuple[Tensor, ...] = ()
    teacher: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.ir)


@torch.no_grad()
def cached(ir: Tensor, vi: Tensor, teacher: Teacher | None = None, taps: Taps | None = None) -> Patches:
    """Runs the teacher and the features once over all patches (N, 1, H, W), eight at a time.

    All on one device. The features of a full VGG-19 are 4 MB a patch of 128x128.
    """
    parts = list(zip(ir.split(8), vi.split(8), strict=True))
    outputs, maxima = [], []
    for a, b in parts:
        if teacher is not None:
            hidden, output = teacher.maps(a, b)
            outputs.append((attention(hidden), output))
        if taps is not None:
            maxima.append([tap.half() for tap in source_maxima(a, b, taps)])
    return Patches(ir, vi, _joined(maxima), _joined(outputs))


def _joined(parts: Iterable[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def vgg_taps(device: str | torch.device = "cpu") -> Taps:
    """Five feature maps in one pass, of the small stand-in for VGG-19: relu1_1 to relu5_1.

    The paper takes relu1_2, 2_2, 3_4, 4_4 and 5_4 of the full network, whose file is too large to have here.
    Raises UserError where the weights are absent.
    """
    network = vgg("vgg19_small16x").to(device)
    return lambda image: list(network(image).values())


def loss_terms(
    network: Student | Teacher,
    patches: Patches,
    chosen: Tensor,
    recipe: Recipe,
    taps: Taps | None = None,
    history: Refresh | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The terms of Eq. 13 that a recipe weighs, by name and not yet weighed, of the patches `chosen` (B,).

    Of Eq. 1 the student's hidden maps enter by their channel sum, so any number of channels will do. Without
    `taps` there is no perception, and the refresh goes by brightness and edges alone. The generator draws the
    random past of a control.
    """
    ir, vi = patches.ir[chosen], patches.vi[chosen]
    hidden, fused = network.maps(ir, vi)
    wanted = {name for name, weight in recipe.weights.items() if weight}
    seen = taps(fused) if taps is not None and wanted & {"perception", "refresh"} else None
    terms = {"intensity": intensity_loss(fused, ir, vi)}
    if "gradient" in wanted:
        terms["gradient"] = gradient_loss(fused, ir, vi, recipe.edges)
    if "perception" in wanted and taps is not None:
        maxima = [tap[chosen].to(fused.dtype) for tap in patches.maxima] or None
        terms["perception"] = perceptual_loss(fused, ir, vi, taps, maxima=maxima, seen=seen)
    if "distillation" in wanted and patches.teacher:
        ends = slice(1, 2) if recipe.direct else slice(0, 2)
        teacher = [end[chosen] for end in patches.teacher]
        terms["distillation"] = distillation_loss([hidden, fused][ends], teacher[ends], recipe.digest)
    if "refresh" in wanted and history is not None:
        terms["refresh"] = history(fused, ir, vi, chosen, taps, seen, generator)
    return terms


def train(
    network: Student | Teacher,
    patches: Patches,
    recipe: Recipe,
    *,
    seed: int,
    taps: Taps | None = None,
    checkpoint: Path | None = None,
    source: Mapping[str, object] | None = None,
) -> list[float]:
    """Adam over the patches, on their device, to which the network moves; returns the loss of each step.

    "one_cycle" lets the rate rise and fall up to `rate`, where the paper keeps it throughout: there are more
    steps. Resumable by its checkpoint, the history of the refresh included; one of other patches is refused,
    or of another `source`, by name -> whatever tells it. Raises UserError for a weight whose term cannot be
    had: perception without taps, distillation without a teacher's maps.
    """
    device = patches.ir.device
    modules: dict[str, nn.Module] = {"network": network.to(device)}
    history = None
    if recipe.weights.get("refresh"):
        size = (patches.ir.shape[-2], patches.ir.shape[-1])
        history = Refresh(len(patches), size, recipe.refresh, recipe.decide, recipe.past).to(device)
        modules["refresh"] = history
    orders = shuffled_batches(len(patches), recipe.batch, recipe.passes, seed)
    batches = [chosen.to(device) for chosen in orders]

    def step(k: int, generator: torch.Generator) -> Tensor:
        terms = loss_terms(network, patches, batches[k], recipe, taps, history, generator)
        return weighted_sum(terms, recipe.weights)

    return fit(
        step,
        modules,
        torch.optim.Adam(network.parameters(), lr=recipe.rate),
        steps=len(batches),
        seed=seed,
        schedule=one_cycle(recipe.rate, len(batches)) if recipe.schedule == "one_cycle" else None,
        checkpoint=checkpoint,
        settings={
            **asdict(recipe),
            **(source or {}),
            "patches": len(patches),
            "images": fingerprint([patches.ir, patches.vi]) if checkpoint else "",
        },
    )


def train_teacher(
    pairs: Sequence[Pair],
    recipe: Recipe,
    *,
    seed: int,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
) -> Teacher:
    """A teacher trained from its random start on crops of the pairs. Perception needs VGG weights."""
    torch.manual_seed(seed)
    network = Teacher(**recipe.settings)
    _train_on(pairs, network, None, recipe, seed, device, checkpoint)
    return network


def train_student(
    pairs: Sequence[Pair],
    recipe: Recipe,
    *,
    seed: int,
    teacher: Teacher | None = None,
    device: str | torch.device = "cpu",
    checkpoint: Path | None = None,
) -> Student:
    """A student trained on crops of the pairs, under a teacher where the recipe asks for one.

    Whatever the objective, one seed means the same random start and the same batches, so that differences
    between objectives are paired. The teacher moves to the device. Perception needs VGG weights.
    """
    torch.manual_seed(seed)
    network = Student(**recipe.settings)
    if recipe.start == "teacher":
        if teacher is None:
            raise UserError("a student that starts with its teacher's last layer needs a teacher")
        start_from_teacher(network, teacher)
    _train_on(pairs, network, teacher, recipe, seed, device, checkpoint)
    return network


def start_from_teacher(student: Student, teacher: Teacher) -> None:
    """Copies the teacher's last layer into the student's, as the released code does and the paper omits."""
    student.conv2.load_state_dict(teacher.conv00.state_dict())


def _train_on(
    pairs: Sequence[Pair],
    network: Student | Teacher,
    teacher: Teacher | None,
    recipe: Recipe,
    seed: int,
    device: str | torch.device,
    checkpoint: Path | None,
) -> None:
    ir, vi = (images.to(device) for images in crops(pairs, recipe.crops, recipe.size, seed))
    guide = teacher.to(device) if teacher is not None and recipe.weights.get("distillation") else None
    taps = vgg_taps(device) if recipe.weights.get("perception") else None
    patches = cached(ir, vi, guide, taps)
    if recipe.lesson == "shuffled":  # half of all patches further on is another pair's
        moved = tuple(maps.roll(len(patches) // 2, dims=0) for maps in patches.teacher)
        patches = replace(patches, teacher=moved)
    source = {
        "data": f"{pairs.caption} ({pairs.split})" if isinstance(pairs, Pairs) else f"{len(pairs)} pairs",
        "teacher": fingerprint(teacher.state_dict().values()) if teacher is not None else "none",
    }
    train(network, patches, recipe, seed=seed, taps=taps, checkpoint=checkpoint, source=source)

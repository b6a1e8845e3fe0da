"""How MMDRFuse trains teacher and student: Eq. 13, its two sets of weights, and what is worth caching."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fusionlab.losses.distillation import attention, distillation_loss
from fusionlab.losses.gradient import gradient_loss
from fusionlab.losses.perceptual import perceptual_loss, source_maxima
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.refresh import Refresh, Taps
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.nets.features import vgg
from fusionlab.training import epochs, fit, one_cycle


@dataclass(frozen=True)
class Objective:
    """The weights of Eq. 5 and 13, and the form of each term; a weight of 0 leaves the term out.

    `edges` is the form of Eq. 3, `digest` that of Eq. 1, `direct` takes the response end of Eq. 1 alone.
    `refresh` is the rule of Eq. 8 to 12, None for no refresh.
    """

    intensity: float = 1.0
    gradient: float = 0.0
    perception: float = 0.0
    distillation: float = 0.0
    edges: Literal["paper", "magnitude", "released"] = "released"
    digest: Literal["paper", "released"] = "released"
    direct: bool = False
    refresh: Literal["paper", "released"] | None = None
    decide: Literal["image", "batch"] = "image"


# As printed (Section 4.1.2), with the printed forms of every equation.
PAPER_TEACHER = Objective(1.0, 0.1, 1.0, 0.0, edges="paper", refresh="paper")
PAPER_STUDENT = Objective(2.0, 1.0, 1.0, 0.1, edges="paper", digest="paper", refresh="paper")
# As released: the two printed sets are exchanged and altered, and every form but Eq. 2 is another.
RELEASED_TEACHER = Objective(2.0, 0.1, 1.0, 0.0, refresh="released", decide="batch")
RELEASED_STUDENT = Objective(1.0, 0.1, 2.0, 5.0, refresh="released", decide="batch")


@dataclass(frozen=True)
class Patches:
    """Training patches and everything about them that no step changes.

    ir, vi: (N, 1, H, W) in [0, 1]. maxima: the features that Eq. 4 asks for, one (N, C, h, w) a tap, kept in
    half precision; empty without a perceptual term. teacher: its attention map and its output, (N, 1, H, W)
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
    """Runs the teacher and the features once over all patches (N, 1, H, W), eight at a time."""
    parts = list(zip(ir.split(8), vi.split(8), strict=True))
    outputs: list[Sequence[Tensor]] = []
    maxima: list[Sequence[Tensor]] = []
    for a, b in parts:
        if teacher is not None:
            hidden, output = teacher.maps(a, b)
            outputs.append((attention(hidden), output))
        if taps is not None:
            maxima.append([tap.half() for tap in source_maxima(taps(a), taps(b))])
    return Patches(ir, vi, _joined(maxima), _joined(outputs))


def _joined(parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def loss_terms(
    network: Student | Teacher,
    patches: Patches,
    chosen: Tensor,
    objective: Objective,
    taps: Taps | None = None,
    history: Refresh | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of Eq. 13 for the patches `chosen` (int64, (B,)), by name; their sum is the loss.

    Of Eq. 1 the student's hidden maps enter by their channel sum, so any number of channels will do.
    """
    ir, vi = patches.ir[chosen], patches.vi[chosen]
    hidden, fused = network.maps(ir, vi)
    seen = taps(fused) if taps is not None and (objective.perception or history is not None) else ()
    terms = {"intensity": objective.intensity * intensity_loss(fused, ir, vi)}
    if objective.gradient:
        terms["gradient"] = objective.gradient * gradient_loss(fused, ir, vi, objective.edges)
    if objective.perception and seen:
        target = [tap[chosen].to(fused.dtype) for tap in patches.maxima]
        terms["perception"] = objective.perception * perceptual_loss(seen, target)
    if objective.distillation:
        ends = slice(1, 2) if objective.direct else slice(0, 2)
        teacher = [end[chosen] for end in patches.teacher]
        student = [hidden, fused]
        distance = distillation_loss(student[ends], teacher[ends], objective.digest)
        terms["distillation"] = objective.distillation * distance
    if history is not None:
        terms["refresh"] = history(chosen, fused, ir, vi, taps, seen)
    return terms


def train(
    network: Student | Teacher,
    patches: Patches,
    objective: Objective,
    *,
    times: int,
    batch: int,
    rate: float,
    seed: int,
    taps: Taps | None = None,
    checkpoint: Path | None = None,
) -> list[float]:
    """Adam for `times` passes over the patches; returns the loss of each step.

    The rate follows one cycle up to `rate`, where the paper keeps 1e-4 throughout: here are fewer steps.
    Resumable by its checkpoint, the history of the refresh included.
    """
    size = (patches.ir.shape[-2], patches.ir.shape[-1])
    history = None
    if objective.refresh is not None:
        history = Refresh(len(patches), size, objective.refresh, objective.decide).to(patches.ir.device)
    batches = epochs(len(patches), batch, times, seed)
    modules: dict[str, torch.nn.Module] = {"network": network}
    if history is not None:
        modules["refresh"] = history

    def loss(step: int, _: torch.Generator) -> Tensor:
        return torch.stack(
            list(loss_terms(network, patches, batches[step], objective, taps, history).values())
        ).sum()

    return fit(
        loss,
        modules,
        torch.optim.Adam(network.parameters()),
        steps=len(batches),
        seed=seed,
        schedule=one_cycle(rate, len(batches)),
        checkpoint=checkpoint,
        settings={"objective": str(objective), "patches": len(patches), "batch": batch, "rate": rate},
    )


def start_from_teacher(student: Student, teacher: Teacher) -> None:
    """Copies the teacher's last layer into the student's, as the released code does and the paper omits."""
    student.conv2.load_state_dict(teacher.conv00.state_dict())


def vgg_taps(device: str | torch.device = "cpu") -> Taps:
    """Five feature maps in one pass, of the small stand-in for VGG-19: relu1_1 to relu5_1.

    `device` is where the images will be.

    The paper takes relu1_2, 2_2, 3_4, 4_4 and 5_4 of the full network, whose file is too large to have here.
    Raises UserError where the weights are absent.
    """
    network = vgg("vgg19_small16x").to(device)
    return lambda image: list(network(image).values())

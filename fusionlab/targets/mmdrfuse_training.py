"""MMDRFuse trained by this project on RoadScene: a teacher of half width, then students of 113 numbers."""

from collections.abc import Iterator
from pathlib import Path

import torch

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.crops import crops
from fusionlab.data import open_pairs, to_uint8
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.losses.refresh import Taps
from fusionlab.methods import Fuser, fuse, load
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.methods.mmdrfuse_training import Objective, Patches, cached, start_from_teacher, train
from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.training import save_half

WIDTH = 16  # half of the paper's: 140,025 parameters learn in a quarter of an hour of one core

# The brighter source and the stronger edge; VGG weights are not everybody's, so the recipes do without.
TEACHER = Objective(1.0, 10.0, edges="magnitude")
TEACHER_RECIPE = {
    "smoke": {"pairs": 4, "per_pair": 2, "passes": 2},
    "laptop": {"pairs": 150, "per_pair": 6, "passes": 25},
}
STUDENT = Objective(1.0, 100.0, distillation=1.0)
STUDENT_RECIPE = {
    "smoke": {"pairs": 4, "per_pair": 2, "passes": 2},
    "laptop": {"pairs": 150, "per_pair": 4, "passes": 30},
}


def teacher(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Trains the teacher of half width into `<run>/mmdrfuse_teacher_half.safetensors`.

    A quarter of an hour of a core: 64x64 crops of RoadScene's training pairs, Adam under one cycle. Measured
    on its val pairs.
    """
    require(row, ("ours",), profile, TEACHER_RECIPE, data)
    recipe = TEACHER_RECIPE[profile]
    torch.manual_seed(seed)
    network = Teacher(WIDTH)
    patches = roadscene_patches(recipe["pairs"], recipe["per_pair"], seed)
    train(
        network,
        patches,
        TEACHER,
        passes=recipe["passes"],
        batch=16,
        rate=2e-3,
        seed=seed,
        checkpoint=run / "teacher.checkpoint.safetensors",
    )
    file = run / "mmdrfuse_teacher_half.safetensors"
    save_half(network, file)
    yield from scored("mmdrfuse/teacher", "ours", load("mmdrfuse-teacher-half", file), profile, seed)


def distilled(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Trains 113 parameters under our teacher into `<run>/mmdrfuse_distilled.safetensors`, half a minute.

    Starts from the teacher's last layer. Measured on RoadScene's val pairs; of seeds 0 to 4 the one of the
    best mean rank there is shipped.
    """
    require(row, ("ours",), profile, STUDENT_RECIPE, data)
    yield from scored("mmdrfuse/distilled", "ours", train_distilled(profile, seed, run), profile, seed)


def train_distilled(profile: str, seed: int, run: Path) -> Fuser:
    """Trains the student of one seed and reads it back from its half-precision file in the run."""
    recipe = STUDENT_RECIPE[profile]
    half = half_teacher()
    patches = roadscene_patches(recipe["pairs"], recipe["per_pair"], seed, half)
    network = new_student(seed, teacher=half)
    train(network, patches, STUDENT, passes=recipe["passes"], batch=25, rate=1e-2, seed=seed)
    file = run / "mmdrfuse_distilled.safetensors"
    save_half(network, file)
    return load("mmdrfuse-distilled", file)


def half_teacher() -> Teacher:
    """Our shipped teacher as a module."""
    network = load("mmdrfuse-teacher-half").network
    assert isinstance(network, Teacher)
    return network


def new_student(seed: int, hidden: int = 4, teacher: Teacher | None = None) -> Student:
    """A student at its random start, or with the last layer of a teacher."""
    torch.manual_seed(seed)
    network = Student(hidden)
    if teacher is not None:
        start_from_teacher(network, teacher)
    return network


def roadscene_patches(
    pairs: int, per_pair: int, seed: int, teacher: Teacher | None = None, taps: Taps | None = None
) -> Patches:
    """Random 64x64 crops of RoadScene's training pairs, with what teacher and features make of them."""
    ir, vi = crops(open_pairs("roadscene", pairs, split="train"), per_pair, size=64, seed=seed)
    return cached(ir, vi, teacher, taps)


def scored(target: str, row: str, fuser: Fuser, profile: str, seed: int, note: str = "") -> Iterator[Record]:
    """SSIM, VIF, Qabf and SD on RoadScene's val pairs, the only ones that anything is selected by."""
    pairs = open_pairs("roadscene", 4 if profile == "smoke" else None, split="val")
    for metric, value in val_scores(fuser, pairs, "clip").items():
        yield measured(
            target,
            row,
            metric,
            value,
            pairs,
            profile=profile,
            seed=seed,
            unit=CONVENTIONS["mmdrfuse"].variants[metric].unit,
            convention="mmdrfuse",
            weights=fuser.sha256,
            command=this_command(),
            note=note or "saved by clipping, where the convention stretches",
        )


def val_scores(fuser: Fuser, pairs: Pairs, save: str) -> dict[str, float]:
    """The four metrics of Tables 1 to 3, in the paper's convention but for the rule of saving."""
    ir, vi = ([to_uint8(image) for image in images] for images in zip(*((p.ir, p.vi) for p in pairs)))
    fused = [fuse(fuser, a / 255, b / 255, save=save) for a, b in zip(ir, vi, strict=True)]
    return evaluate(ir, vi, fused, "mmdrfuse", ["SD", "VIF", "Qabf", "SSIM"]).mean()


def require(
    row: str | None, rows: tuple[str, ...], profile: str, recipes: dict[str, dict[str, int]], data: str
) -> None:
    """Raises UserError for another row, profile or data set than a training on RoadScene knows."""
    if data not in ("auto", "roadscene") or row not in (None, *rows):
        raise UserError(f"this trains on roadscene and has the rows {', '.join(rows)}")
    if profile not in recipes:
        raise UserError(f"there is no recipe for profile {profile}; use {', '.join(recipes)}")

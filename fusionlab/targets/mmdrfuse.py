"""MMDRFuse: Tables 1 to 6 and Figure 5, the runs that made our networks, and the paper's own recipe.

The ablations (Tables 1 to 3) are small: the paper's rows are single runs, of LLVIP and with VGG terms. Here
113 numbers learn from 300 crops of RoadScene's training pairs, without VGG but in one row. Every variation
starts and shuffles alike for one seed, so that differences between rows of one seed are paired.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fusionlab.bench.cost import cpu_milliseconds, multiply_adds
from fusionlab.bench.run import Run
from fusionlab.bench.table import ANY, Score, Table, conventional, each, scored
from fusionlab.data import Pair, Pairs, open_pairs, to_uint8
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.losses.distillation import attention, distillation_loss
from fusionlab.losses.gradient import gradient_loss
from fusionlab.losses.pixel import intensity_loss
from fusionlab.losses.refresh import gmsd_to_both, ssim_to_both
from fusionlab.methods.mmdrfuse import (
    ABLATION,
    DISTILLED,
    SCENES,
    TEACHER,
    Recipe,
    Student,
    Teacher,
    fuse_rows,
    train_student,
    train_teacher,
)
from fusionlab.metrics import CONVENTIONS
from fusionlab.metrics.agreement import mean_ranks
from fusionlab.training import save_half

FOUR = ("SD", "VIF", "Qabf", "SSIM")  # the metrics of Tables 1 to 3; higher is better in all four


def roadscene(recipe: Recipe) -> Pairs:
    """The training pairs that a recipe asks for, as far as there are so many."""
    return open_pairs("roadscene", recipe.pairs, split="train")


def half_teacher(device: str) -> Teacher:
    """Our shipped teacher as a module."""
    network = load("mmdrfuse-teacher-half", device=device).network
    assert isinstance(network, Teacher)
    return network


# Tables 1 to 3 and Figure 5: students trained by the run, one ingredient changed at a time.


def by_training(
    change: Mapping[str, Any], pairs: Pairs, run: Run, beside_teacher: bool = False
) -> Iterator[Score]:
    """A student of the changed recipe, on the middle 128x128 pixels of each pair, its outputs clipped.

    By the metrics of the paper's tables, by what the losses themselves look at, and, where asked, by how
    near it comes to its teacher. Whole images would take longer than the trainings.
    """
    recipe = replace(ABLATION[run.profile], **change)
    teacher = half_teacher(run.device)
    student = train_student(roadscene(recipe), recipe, seed=run.seed, teacher=teacher, device=run.device)
    note = "trained by this run; scored on the middle 128x128 pixels of each pair"
    fuser = Fuser("student", "trained by this run", "none", student)
    stretched = conventional(partial(fuse, fuser, save="stretch"), {"mmdrfuse": FOUR}, note=note)

    def of_pair(pair: Pair) -> Iterator[Score]:
        ir, vi = to_uint8(middle(pair.ir)), to_uint8(middle(pair.vi))
        yield from stretched(replace(pair, ir=ir / 255, vi=vi / 255, chroma=None, truth=None))
        images = fuser(ir / 255, vi / 255), ir / 255, vi / 255
        yield Score("L1 to max", intensity_loss(*images).item(), "1", "training", note=note)
        yield Score("SSIM sum", ssim_to_both(*images).item(), "1", "training", note=note)
        yield Score("GMSD sum", gmsd_to_both(*images).item(), "1", "training", note=note)
        if beside_teacher:
            for metric, value in nearness(student, teacher, ir / 255, vi / 255).items():
                yield Score(metric, value, "1", "training", note=note)

    yield from scored(of_pair, pairs, run.device)


@torch.no_grad()
def nearness(student: Student, teacher: Teacher, ir: Tensor, vi: Tensor) -> dict[str, float]:
    """Eq. 1 as printed, and the centred correlation of both ends' attention maps, of one pair (1, 1, H, W).

    A cosine of maps that are nowhere negative is near 1 whatever they show; less their means it is not. An
    odd side loses its last pixel, for the teacher's maps are at even sides.
    """
    height, width = (side - side % 2 for side in ir.shape[-2:])
    ir, vi = ir[..., :height, :width], vi[..., :height, :width]
    mine, theirs = student.maps(ir, vi), teacher.maps(ir, vi)
    found = {"Eq. 1 to teacher": distillation_loss(mine, theirs, "paper").item()}
    for name, *ends in zip(("feature", "response"), mine, theirs, strict=True):
        both = torch.stack([attention(end).flatten() for end in ends])
        found[f"{name} correlation"] = torch.corrcoef(both)[0, 1].item()
    return found


def middle(image: Tensor, side: int = 128) -> Tensor:
    """The middle square of an image, or all of a smaller one."""
    top, left = (max(0, (n - side) // 2) for n in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


SOURCES = {"intensity": 1.0, "gradient": 100.0}
DIGESTIBLE = {**SOURCES, "distillation": 1.0}
STAGES: dict[str, dict[str, Any]] = {
    "I intensity": {"weights": {"intensity": 1.0}},
    "II with edges": {"weights": SOURCES},
    "III with refresh": {"weights": {**SOURCES, "refresh": 1.0}, "refresh": "released"},
}


def stage_student(name: str, run: Run) -> Student:
    """Figure 5's student of a stage, trained on scenes; once a run, whose checkpoint gives it back."""
    stage = next(change for stage, change in STAGES.items() if stage.split()[0] == name)
    recipe = replace(ABLATION[run.profile], pairs=4, crops=6, passes=2, **stage)
    if run.profile != "smoke":
        recipe = replace(recipe, pairs=48, passes=40)
    return train_student(
        open_pairs("scenes", recipe.pairs, seed=run.seed, split="train"),
        recipe,
        seed=run.seed,
        teacher=half_teacher(run.device),
        device=run.device,
        checkpoint=run.checkpoints / f"{name}-{run.seed}.safetensors",
    )


def by_stage(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """The unweighted terms of Eq. 2 and 3, the scores of Eq. 6 and 7; clipped outputs on unseen scenes."""
    fuser = Fuser("student", "trained by this run", "none", stage_student(name, run))

    def of_pair(pair: Pair) -> Iterator[Score]:
        images = fuser(pair.ir, pair.vi), pair.ir, pair.vi
        values = {
            "intensity": intensity_loss(*images),
            "gradient": gradient_loss(*images, "released"),
            "SSIM sum": ssim_to_both(*images)[0],
            "GMSD sum": gmsd_to_both(*images)[0],
        }
        for metric, value in values.items():
            yield Score(metric, value.item(), note="trained by this run")

    yield from scored(of_pair, pairs, run.device)


def stages_drawn(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """Visible, infrared, then the stages, at night above and in fog below."""
    views = [
        open_pairs("scenes", 1, seed=run.seed, condition=condition, size=(120, 160))[0]
        for condition in ("night", "fog")
    ]
    columns = [[view.vi for view in views], [view.ir for view in views]]
    for name in rows:
        fuser = Fuser("student", "trained by this run", "none", stage_student(name, run))
        columns.append([fuser(view.ir.to(run.device), view.vi.to(run.device)).cpu() for view in views])
    return {"figure5.png": torch.cat([torch.cat(column, dim=2) for column in columns], dim=3)}


# Table 4: what the printed sizes and operations count, and how long a frame takes here.

FRAME_SIZES = {"640x480": (480, 640), "1280x1024": (1024, 1280)}


def efficiency(make: Callable[[], Student | Teacher], pairs: None, run: Run) -> Iterator[Score]:
    """Parameters, kilobytes at 4 and 8 bytes, multiply-adds, and CPU milliseconds of one thread.

    A fresh network has the arithmetic of a trained one. Times are this machine's: another gives others. The
    student's is that of its form by rows; "plain" is the network as it is trained.
    """
    torch.manual_seed(run.seed)
    network = make()
    count = sum(weight.numel() for weight in network.parameters())
    yield Score("parameters", count)
    yield Score("size at 4 bytes", count * 4 / 1024, "KB")
    yield Score("size at 8 bytes", count * 8 / 1024, "KB")
    for size, (height, width) in FRAME_SIZES.items():
        yield Score(f"multiply-adds {size}", multiply_adds(network, height, width) / 1e9, "G")
    if run.profile == "smoke":
        return
    note = "CPU time of one thread, the best of a few"
    for size, (height, width) in FRAME_SIZES.items():
        images = torch.rand(2, 1, 1, height, width)
        if isinstance(network, Student):
            fast = cpu_milliseconds(partial(fuse_rows, network), images, 7)
            yield Score(f"time {size}", fast, "ms", note=note)
            yield Score(f"time {size}, plain", cpu_milliseconds(network, images, 7), "ms", note=note)
        else:
            yield Score(f"time {size}", cpu_milliseconds(network, images, 1), "ms", note=note)


# Tables 5 and 6: released and own weights, saved by the paper's own rule ("stretch") and others.

FUSERS = {
    "student-released": ("mmdrfuse", "official"),
    "teacher-released": ("mmdrfuse-teacher", "official"),
    "student-ours": ("mmdrfuse", "ours"),
    "student-distilled": ("mmdrfuse-distilled", "ours"),
    "teacher-half": ("mmdrfuse-teacher-half", "ours"),
    "maximum": ("maximum", "ours"),
    "average": ("average", "ours"),
    "laplacian": ("laplacian", "ours"),
}
SAVED = {f"{label}/{save}": (*which, save) for label, which in FUSERS.items() for save in ("stretch", "clip")}
# A third rule for medical images: black is made black again.
BLACKENED = {f"{label}/blackened": (*FUSERS[label], "blackened") for label in list(FUSERS)[:4]}


def by_fuser(row: tuple[str, str, str], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Saved by the row's rule, in the paper's convention, and SSIM in the textbook's range of 255 as well."""
    method, weights, save = row
    fuser = load(method, weights, run.device)
    image = partial(fuse, fuser, save=save) if save != "blackened" else partial(blackened, fuser)
    for convention, metrics in (("mmdrfuse", None), ("reference", ("SSIM",))):
        note = "" if save == CONVENTIONS[convention].save else f"saved by {save}"
        rule = conventional(image, {convention: metrics}, fuser.sha256, note)
        yield from scored(rule, pairs, run.device, f"{method}, {save}")


def blackened(fuser: Fuser, ir: Tensor, vi: Tensor) -> Tensor:
    """The fused image less what the fuser makes of black, so that black stays black; uint8."""
    black = torch.zeros(1, 1, 16, 16, device=ir.device)
    return to_uint8(fuser.unclipped(ir, vi) - fuser.unclipped(black, black).max() - 1 / 255)


# Our own networks: a student on scenes, a teacher of half width, students under it.


def saved(network: Student | Teacher, method: str, run: Run, row: str = "") -> Fuser:
    """The network read back from its half-precision file in the run, as it is shipped."""
    save_half(network, run.weights(row))
    return load(method, run.weights(row), run.device)


def student_of_scenes(run: Run) -> Fuser:
    """L_int + 0.1 L_grad on scenes: no teacher, no VGG, no refresh. Seed 1 is shipped as "ours"."""
    recipe = SCENES[run.profile]
    pairs = open_pairs("scenes", recipe.pairs, seed=run.seed, split="train")
    student = train_student(pairs, recipe, seed=run.seed, device=run.device)
    return saved(student, "mmdrfuse", run)


def teacher_of_half_width(run: Run) -> Fuser:
    """A quarter of an hour of a core: 64x64 crops of RoadScene's training pairs, Adam under one cycle."""
    recipe = TEACHER[run.profile]
    kept = run.checkpoints / f"teacher-{run.seed}.safetensors"
    network = train_teacher(roadscene(recipe), recipe, seed=run.seed, device=run.device, checkpoint=kept)
    return saved(network, "mmdrfuse-teacher-half", run)


def distilled_student(run: Run) -> Fuser:
    """113 parameters under our teacher, from its last layer; of seeds 0 to 4 the best on val is shipped."""
    recipe = DISTILLED[run.profile]
    teacher = half_teacher(run.device)
    student = train_student(roadscene(recipe), recipe, seed=run.seed, teacher=teacher, device=run.device)
    return saved(student, "mmdrfuse-distilled", run)


def on_scenes(make: Callable[[Run], Fuser], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Mean distance to the pixelwise maximum (Eq. 2) on unseen scenes."""
    fuser = make(run)

    def of_pair(pair: Pair) -> Iterator[Score]:
        distance = intensity_loss(fuser(pair.ir, pair.vi), pair.ir, pair.vi).item()
        yield Score("L1 to max", distance, "of the range 1", weights=fuser.sha256)

    yield from scored(of_pair, pairs, run.device)


def on_val(make: Callable[[Run], Fuser], pairs: Pairs, run: Run) -> Iterator[Score]:
    """The four metrics on RoadScene's val pairs, the only ones that anything is selected by."""
    fuser = make(run)
    note = "saved by clipping, where the convention stretches"
    rule = conventional(partial(fuse, fuser), {"mmdrfuse": FOUR}, fuser.sha256, note)
    yield from scored(rule, pairs, run.device)


RIVALS = {
    "average": ("average", "ours"),
    "maximum": ("maximum", "ours"),
    "laplacian": ("laplacian", "ours"),
    "released": ("mmdrfuse", "official"),
}


def ranked(rows: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Mean rank over SSIM, VIF, Qabf and SD among five fusers on RoadScene's test pairs; 1 is best.

    Trains the student of the seed as `mmdrfuse/distilled` does, and ranks it beside average, maximum,
    Laplacian pyramid and the released student, in the paper's convention and with SSIM of range 255, saved by
    stretching and by clipping. Nothing is selected by these pairs.
    """
    fusers = {name: load(*which, run.device) for name, which in RIVALS.items()}
    fusers["ours"] = distilled_student(run)
    note = "ours is trained by this run"
    for save in ("stretch", "clip"):
        for convention in ("mmdrfuse", "reference"):  # the two differ in SSIM alone: range 2 and range 255
            scores = {
                name: list(
                    scored(
                        conventional(partial(fuse, fuser, save=save), {convention: FOUR}, fuser.sha256, note),
                        pairs,
                        run.device,
                        name,
                    )
                )
                for name, fuser in fusers.items()
            }
            ranks = mean_ranks({name: {s.metric: s.value for s in found} for name, found in scores.items()})
            for name, found in scores.items():
                if (row := f"{name}/{save}") in rows:
                    weights = fusers[name].sha256
                    yield Score("mean rank", ranks[name], "of 5", convention, weights, note, row)
                    yield from (s._replace(row=row) for s in found if name == "ours")


# The paper's own recipe.


def by_recipe(name: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """Teacher and student as printed or as released, whole; at smoke a few steps of the same losses."""
    recipes = [TEACHER[name], DISTILLED[name]]
    if run.profile == "smoke":
        recipes = [replace(r, pairs=2, crops=2, passes=2, size=64, batch=2) for r in recipes]
        recipes[0] = replace(recipes[0], settings={"width": 8})
    kept = [run.checkpoints / f"{name}-{who}-{run.seed}.safetensors" for who in ("teacher", "student")]
    teacher = train_teacher(
        roadscene(recipes[0]), recipes[0], seed=run.seed, device=run.device, checkpoint=kept[0]
    )
    student = train_student(
        roadscene(recipes[1]),
        recipes[1],
        seed=run.seed,
        teacher=teacher,
        device=run.device,
        checkpoint=kept[1],
    )
    fuser = saved(student, "mmdrfuse", run, name)
    rule = conventional(partial(fuse, fuser, save="stretch"), {"mmdrfuse": FOUR}, fuser.sha256)
    yield from scored(rule, pairs, run.device, name)


FEW = {"smoke": 4, "laptop": None}


def ablation(rows: Mapping[str, Any], differs: str, beside_teacher: bool = False) -> Table:
    """One of Tables 1 to 3."""
    measure = partial(by_training, beside_teacher=beside_teacher)
    return Table(rows, each(measure), ("roadscene",), profiles=FEW, differs=differs, trains=True)


TABLES = {
    "mmdrfuse/table1": ablation(
        {
            **STAGES,
            "III refresh as printed": {"weights": {**SOURCES, "refresh": 1.0}, "refresh": "paper"},
            "II with edges and perception": {"weights": {**SOURCES, "perception": 0.1}},  # needs VGG weights
            # The control: pulled as often and as hard, towards any earlier output instead of the best.
            "III refresh to a random past": {"weights": {**SOURCES, "refresh": 1.0}, "past": "random"},
        },
        "the paper trains its teacher with VGG terms, once; here it is the student without.",
    ),
    "mmdrfuse/table2": ablation(
        {
            "I without": {"weights": SOURCES, "start": "random"},
            "II direct": {"weights": DIGESTIBLE, "direct": True, "start": "random"},
            "III digestible": {"weights": DIGESTIBLE, "start": "random"},
            "I without, teacher's last layer": {"weights": SOURCES},
            "III digestible, teacher's last layer": {"weights": DIGESTIBLE},
            # The control: the teacher's answers to patches of other pairs.
            "III shuffled, teacher's last layer": {"weights": DIGESTIBLE, "lesson": "shuffled"},
        },
        "the paper's is one run with VGG terms on LLVIP; here are five seeds on RoadScene.",
        beside_teacher=True,
    ),
    # 897 numbers are 7.01 KB at the 8 bytes that the paper counts; for its 1021 KB the nearest network here
    # is our teacher itself, 140,025 numbers or 1094 KB (row teacher-half of table5).
    "mmdrfuse/table3": ablation(
        {
            "student of 113": {"weights": DIGESTIBLE, "start": "random"},
            "student of 897": {"weights": DIGESTIBLE, "start": "random", "settings": {"hidden": 32}},
        },
        "the paper does not describe its larger students; the sizes here are our choice.",
    ),
    "mmdrfuse/table4": Table(
        {
            "student": Student,
            "student-897": partial(Student, 32),
            "teacher": Teacher,
            "teacher-half": partial(Teacher, 16),
        },
        each(efficiency),
        device="cpu",
        differs=(
            "the printed size counts 4 bytes a parameter for the student and 8 for its teacher; the printed "
            "Flops are multiply-adds at 1280x1024; the printed time names neither size nor what it includes."
        ),
    ),
    "mmdrfuse/table5": Table(
        SAVED,
        each(by_fuser),
        ("roadscene", ANY),
        profiles=FEW,
        differs=(
            "the released weights are probably not those of the table, since the text trains on MSRS and the "
            "released code on LLVIP, and the paper does not list its 50 RoadScene pairs. The convention is "
            "the same: the stretched rows agree in EN."
        ),
    ),
    # The metabolic image goes in as infrared.
    "mmdrfuse/table6": Table(
        SAVED | BLACKENED,
        each(by_fuser),
        ("harvard",),
        splits=("mri_spect", "mri_pet"),
        differs=(
            "the released weights are probably not those of the table, and of the 73 and 42 pairs ten each "
            "are registered. The printed SSIM is low because the network answers black with 5 of 255."
        ),
    ),
    "mmdrfuse/figure5": Table(
        {name: name for name in ("I", "II", "III")},
        each(by_stage),
        ("scenes",),
        splits=("val",),
        profiles={"smoke": 4, "laptop": 16},
        picture=stages_drawn,
        trains=True,
    ),
    "mmdrfuse/student": Table(
        {"ours": student_of_scenes, "average": lambda run: load("average")},
        each(on_scenes),
        ("scenes",),
        splits=("val",),
        profiles={"smoke": 16, "laptop": 16},
        trains=True,
    ),
    "mmdrfuse/teacher": Table(
        {"ours": teacher_of_half_width}, each(on_val), ("roadscene",), ("val",), FEW, trains=True
    ),
    "mmdrfuse/distilled": Table(
        {"ours": distilled_student}, each(on_val), ("roadscene",), ("val",), FEW, trains=True
    ),
    "mmdrfuse/ranks": Table(
        {f"{name}/{save}": name for name in (*RIVALS, "ours") for save in ("stretch", "clip")},
        ranked,
        ("roadscene",),
        profiles=FEW,
        trains=True,
    ),
    # On RoadScene where theirs are MSRS and LLVIP: hours of a GPU, so with resume.
    "mmdrfuse/recipe": Table(
        {name: name for name in ("paper", "released")},
        each(by_recipe),
        ("roadscene",),
        profiles={"smoke": 2, "paper": None},
        trains=True,
    ),
}

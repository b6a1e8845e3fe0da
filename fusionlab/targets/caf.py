"""CAF: losses searched for two tasks (Figure 5), what a search is worth (Table 3), segmentation (Table 2).

The paper's tables need M3FD and MFNet with their labels, YOLOv5s and SegFormer-b1. Here all is on streets
with a sign: people are warm, which infrared sees best, and letters are paint, which only the visible shows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fusionlab.bench.run import Run
from fusionlab.bench.table import ANY, Score, Table, conventional, each, mean_and_error, scored
from fusionlab.crops import Labelled
from fusionlab.data import Pair, Pairs, open_pairs
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.losses.space import SPACE
from fusionlab.methods.caf import (
    JUDGED,
    MODEL,
    RECIPES,
    FusionNetwork,
    TaskLoss,
    save,
    search,
    train,
    train_hierarchically,
    train_task,
)
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.methods.tricks import TRICKS
from fusionlab.scenes import Settings, open_scenes
from fusionlab.targets.comofusion import slug
from fusionlab.tasks.segmentation import (
    LETTERS,
    MFNET,
    NARROW,
    Segmenter,
    confusion,
    iou,
    keep_classes,
    of_scenes,
    recall,
    said_of,
    segmentation_loss,
    squares,
)
from fusionlab.training import seeded

CAR_NUMBER, PERSON_NUMBER = MFNET.index("car"), MFNET.index("person")
NAMES = {CAR_NUMBER: "Car", PERSON_NUMBER: "Person", LETTERS: "Letters"}
TASKS = {"people": (PERSON_NUMBER,), "letters": (LETTERS,), "both": (PERSON_NUMBER, LETTERS)}

SIGN = Settings(case="sign")
STREETS = {"smoke": 2, "laptop": 48}  # for training, and as many for validation
SQUARES = 4  # of each of them
JUDGE_WIDTHS = (8, 16, 16, 16)  # widths of the task network here: 25,000 parameters


# Streets with a sign, with labels, at half their sides.


def signs(n: int, seed: int, split: str) -> Pairs:
    """Scenes with a sign, by day."""
    return open_scenes(n, seed, split, settings=SIGN)


@lru_cache(maxsize=3)
def labelled(n: int, seed: int, split: str) -> tuple[Labelled, ...]:
    """Scenes with a sign and all their labels, kept for the next row."""
    return tuple(of_scenes(signs(n, seed, split), signs=True))


class Task(NamedTuple):
    """What a search or training of a task needs, on the run's device: squares with labels, and the loss."""

    classes: tuple[int, ...]
    training: Labelled
    validation: Labelled
    loss: TaskLoss

    def network(self, seed: int, widths: Sequence[int] = JUDGE_WIDTHS) -> nn.Module:
        """A fresh task network."""
        with seeded(seed):
            return Segmenter(1 + len(self.classes), widths).to(self.training.ir.device)


def task_of(name: str, run: Run, shuffled: bool = False) -> Task:
    """The squares of a task for the run's seed; `shuffled` gives each the labels of another, the control."""
    classes = TASKS[name]
    parts = []
    for split in ("train", "val"):
        scenes = labelled(STREETS[run.profile], run.seed, split)
        cut = squares((keep_classes(seen, classes) for seen in scenes), size(run), SQUARES, run.seed)
        if shuffled:
            cut = cut._replace(labels=cut.labels.roll(SQUARES, dims=0))  # those of the next scene
        parts.append(Labelled(*(values.to(run.device) for values in cut)))
    training, validation = parts
    return Task(classes, training, validation, segmentation_loss(training.labels, 1 + len(classes)))


def size(run: Run) -> int:
    """The side of a square."""
    return RECIPES[run.profile].size


# What becomes of a task under a loss.


class Trial(NamedTuple):
    """A row: whose fused images which task sees. `weights` is a key of WEIGHTS, "searched", or a source."""

    task: str
    weights: str
    network: str = "CAF"


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CAF": partial(FusionNetwork, 8),  # 9,433 parameters
    "model": partial(FusionNetwork, 16),  # 37,297, what is shipped
    "student": Student,
    "teacher": partial(Teacher, 16),
}

TERMS = SPACE[:-2]  # without a VGG
# Hand-set: the field's habit, and what is known of these tasks (people are warm, letters are edges).
WEIGHTS = {
    "uniform": dict.fromkeys(TERMS, 1 / len(TERMS)),
    "hand": {"l1_max": 0.5, "gradient_max": 0.5},
    "hand, infrared": {"l1_ir": 0.5, "gradient_max": 0.5},
}


class Source(nn.Module):
    """One of the two images in place of a fused one."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """(B, 1, H, W) of both to that of one."""
        return ir if self.role == "infrared" else vi


def fresh(network: str, run: Run) -> nn.Module:
    """A fusion network as it is before training, the same for each row of a seed."""
    with seeded(run.seed):
        return NETWORKS[network]().to(run.device)


def searched(task: str, network: str, run: Run, shuffled: bool = False) -> tuple[dict[str, float], nn.Module]:
    """Algorithm 1 on a task: weights by name, and the fusion network that was trained along.

    Its checkpoint lies in the run, where Figure 5 and Table 3 share it.
    """
    given = task_of(task, run, shuffled)
    fusion = fresh(network, run)
    name = f"{network}-{task}{'-shuffled' if shuffled else ''}-{run.seed}.safetensors"
    kept = run.checkpoints.with_name(f"caf-search-{run.profile}") / name
    judge = given.network(run.seed)
    recipe = RECIPES[run.profile]
    found = search(fusion, judge, given.loss, given.training, given.validation, recipe, run.seed, kept)
    return found.by_name(), fusion


def loss_weights(trial: Trial, run: Run) -> dict[str, float]:
    """What a trial's fusion network is trained under; "random" weights are uniform on the simplex."""
    if trial.weights == "searched":
        return searched(trial.task, trial.network, run)[0]
    if trial.weights == "random":
        drawn = -torch.rand(len(TERMS), generator=torch.Generator().manual_seed(run.seed)).log()
        return dict(zip(TERMS, (drawn / drawn.sum()).tolist(), strict=True))
    return WEIGHTS[trial.weights]


def by_trial(trial: Trial, pairs: Pairs, run: Run) -> Iterator[Score]:
    """Fusion under the trial's weights, then the task on what it fuses (Sec. 3.4); both on unseen scenes.

    IoU of each class and their mean, without what is unlabelled; how far the image is from both sources and
    their maximum; MI and VIF in the paper's convention.
    """
    given, recipe = task_of(trial.task, run), JUDGED[run.profile]
    judge, kept = given.network(run.seed), run.checkpoints / slug("-".join(trial)).replace(",", "")
    if trial.weights in ("infrared", "visible"):
        fusion: nn.Module = Source(trial.weights)
        stage = kept / f"task-{run.seed}.safetensors"
        train_task(judge, given.loss, fusion, given.training, recipe, run.seed, stage)
    else:
        fusion, weights = fresh(trial.network, run), loss_weights(trial, run)
        images = [
            (seen.ir.to(run.device), seen.vi.to(run.device))
            for seen in labelled(STREETS[run.profile], run.seed, "train")
        ]
        train_hierarchically(
            *(fusion, judge, given.loss, images, given.training, weights, recipe, run.seed, kept)
        )
    fuser = Fuser(trial.weights, "trained by this run", "none", fusion.eval())
    yield from judged(fuser, judge, given.classes, len(pairs))
    yield from distances(fuser, len(pairs), run)


def judged(fuser: Fuser, judge: nn.Module, classes: Sequence[int], n: int) -> Iterator[Score]:
    """IoU of each class over all pixels of n unseen scenes with a sign."""
    counts = torch.zeros(1 + len(classes), 1 + len(classes), dtype=torch.float64)
    device = next(judge.parameters()).device
    for seen in labelled(n, 0, "test"):
        said = said_of(judge, fuser(seen.ir.to(device), seen.vi.to(device)))
        counts += confusion(said, keep_classes(seen, classes).labels, len(counts))
    found = iou(counts)[1:]
    for number, value in zip(classes, found.tolist(), strict=True):
        yield Score(f"IoU {NAMES[number]}", value, of=signs(n, 0, "test"))
    yield Score("mean IoU", found.mean().item(), note="of the task's classes", of=signs(n, 0, "test"))


def distances(fuser: Fuser, n: int, run: Run) -> Iterator[Score]:
    """Mean distance to both sources and their maximum in grey levels, and MI and VIF, on the same scenes."""
    conventionally = conventional(partial(fuse, fuser), {"caf": ("MI", "VIF")})

    def of_pair(pair: Pair) -> Iterator[Score]:
        fused = fuser(pair.ir, pair.vi)
        nearby = {"infrared": pair.ir, "visible": pair.vi, "maximum": torch.maximum(pair.ir, pair.vi)}
        for name, image in nearby.items():
            yield Score(f"L1 to {name}", 255 * (fused - image).abs().mean().item(), "of 255")
        yield from conventionally(pair)

    views = [Pair(f"{k}", seen.ir, seen.vi) for k, seen in enumerate(labelled(n, 0, "test"))]
    for score in scored(of_pair, views, run.device):
        yield score._replace(of=signs(n, 0, "test"))


def by_search(row: Mapping[str, Any], pairs: Pairs, run: Run) -> Iterator[Score]:
    """The weights that a search ends with, each as a share, and how near its images are to the sources."""
    weights, fusion = searched(row["task"], "CAF", run, row.get("shuffled", False))
    for name, value in weights.items():
        yield Score(f"weight {name}", value, "of 1", note="found by this run", of=None)
    fuser = Fuser("searched", "trained by this run", "none", fusion.eval())
    yield from distances(fuser, len(pairs), run)


def tasks_drawn(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """Two unseen scenes: visible, infrared, then as each search's network fuses them."""
    views = labelled(len(pairs), 0, "test")[:2]
    columns = [[seen.vi for seen in views], [seen.ir for seen in views]]
    for row in rows:
        _, fusion = searched(SEARCHES[row]["task"], "CAF", run, SEARCHES[row].get("shuffled", False))
        fuser = Fuser("searched", "trained by this run", "none", fusion.eval())
        columns.append([fuser(seen.ir.to(run.device), seen.vi.to(run.device)).cpu() for seen in views])
    return {"figure5.png": torch.cat([torch.cat(column, dim=2) for column in columns], dim=3)}


SEARCHES: dict[str, dict[str, Any]] = {
    **{name: {"task": name} for name in TASKS},
    # The control: labels of other streets, from which nothing can be learnt.
    "people, labels shuffled": {"task": "people", "shuffled": True},
}

TRIALS = {
    **{
        f"{task}: {weights}": Trial(task, weights)
        for task in ("people", "both")
        for weights in (*WEIGHTS, "random", "searched", "infrared", "visible")
    },
    **{
        f"both: {weights}, {network}": Trial("both", weights, network)
        for network in ("student", "teacher")
        for weights in ("uniform", "searched")
    },
}


# Table 2 in kind: one segmentation network for each fuser, on scenes in four conditions.

BESIDE = ("average", "maximum", "laplacian", "comofusion", "mmdrfuse", "mmdrfuse-distilled", "caf")
TABLE2_CLASSES = ("Unlabelled", "Car", "Person")
SEEN = {"smoke": 2, "laptop": 64}


def fuser_of_row(method: str, device: str) -> Fuser:
    """A method by name, or a copy of one source."""
    if method in TRICKS:
        return Fuser(method, "no weights", "none", TRICKS[method])
    return load(method, device=device)


def by_segmentation(method: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """A U-Net of 211,000 parameters trained on what the method fuses: Acc and IoU on unseen scenes."""
    fuser, classes = fuser_of_row(method, run.device), (CAR_NUMBER, PERSON_NUMBER)

    def fused(pairs: Pairs) -> Iterator[Labelled]:
        for pair, seen in zip(pairs, of_scenes(pairs)):
            image = fuser(pair.ir.to(run.device), pair.vi.to(run.device))
            half = torch.nn.functional.avg_pool2d(image, 2)
            yield keep_classes(Labelled(half, half, seen.labels.to(run.device)), classes)

    training = open_pairs("scenes", SEEN[run.profile], seed=run.seed, split="train")
    recipe = JUDGED[run.profile]
    cut = squares(fused(training), recipe.size, SQUARES, run.seed)
    with seeded(run.seed):
        judge = Segmenter(1 + len(classes), NARROW).to(run.device)
    stage = run.checkpoints / f"{method}-{run.seed}.safetensors"
    loss = segmentation_loss(cut.labels, 1 + len(classes))
    train_task(judge, loss, Source("infrared"), cut, recipe, run.seed, stage)
    counts = torch.zeros(3, 3, dtype=torch.float64)
    for seen in fused(pairs):
        counts += confusion(said_of(judge, seen.ir), seen.labels, 3)
    for kind, values in (("Acc", recall(counts)), ("IoU", iou(counts))):
        for name, value in zip(TABLE2_CLASSES, (100 * values).tolist(), strict=True):
            yield Score(f"{name} {kind}", value, "%", weights=fuser.sha256)
        yield Score(f"m{kind}", 100 * values.mean().item(), "%", weights=fuser.sha256)


# The shipped model: weights searched on streets with a sign, fusion trained on RoadScene.


def by_model(row: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """The shipped size under weights of `row`: in `reference` on RoadScene, and for three task networks.

    The last are mean IoU over both classes of streets with a sign, with the standard error over their seeds.
    """
    if row == "average":
        fuser = load("average")
    else:
        weights = WEIGHTS[row] if row in WEIGHTS else searched(row, "model", run)[0]
        images = [
            (pair.ir.to(run.device), pair.vi.to(run.device))
            for pair in open_pairs("roadscene", split="train")
        ]
        network, recipe = fresh("model", run), MODEL[run.profile]
        kept = run.checkpoints / f"{slug(row)}-{run.seed}.safetensors"
        train(network, images, weights, recipe, run.seed, kept)
        assert isinstance(network, FusionNetwork)
        fuser = load("caf", save(network, run.weights(slug(row)), weights), run.device)
    rule = conventional(
        partial(fuse, fuser), {"reference": ("Qabf", "VIF", "SSIM", "EN", "SD")}, fuser.sha256
    )
    yield from scored(rule, pairs, run.device, row)
    yield from for_tasks(fuser, run)


def for_tasks(fuser: Fuser, run: Run) -> Iterator[Score]:
    """Mean IoU of task networks of three seeds that see what a fuser makes of streets with a sign."""
    given = task_of("both", run)
    found: dict[str, list[Score]] = {}
    n = UNSEEN[run.profile]
    fused = fuser(given.training.ir, given.training.vi)
    training = Labelled(fused, fused, given.training.labels)
    for seed in range(3):
        judge = given.network(seed)
        train_task(judge, given.loss, Source("infrared"), training, JUDGED[run.profile], seed)
        for score in judged(fuser, judge, given.classes, n):
            found.setdefault(score.metric, []).append(score)
    for scores in found.values():
        values = tuple(score.value for score in scores)
        mean, error = mean_and_error(values)
        yield scores[0]._replace(value=mean, error=error, weights=fuser.sha256, note="three task networks")


def by_fuser(method: str, pairs: Pairs, run: Run) -> Iterator[Score]:
    """Figure 7's four metrics in the paper's convention, and Qabf, VIF, SSIM in `reference`."""
    fuser = load(method, device=run.device)
    wanted = {"caf": None, "reference": ("Qabf", "VIF", "SSIM")}
    yield from scored(conventional(partial(fuse, fuser), wanted, fuser.sha256), pairs, run.device, method)


UNSEEN = {"smoke": 2, "laptop": 32}

TABLES = {
    "caf/figure5": Table(
        SEARCHES,
        each(by_search),
        ("scenes",),
        profiles={"smoke": 2, "laptop": 32},
        picture=tasks_drawn,
        differs=(
            "the paper's weights are a picture without numbers, of detection on M3FD and segmentation on "
            "MFNet. Here all tasks are segmentation, of people and of letters, on synthetic streets."
        ),
        trains=True,
    ),
    "caf/table2": Table(
        {name: name for name in ("infrared", "visible", *BESIDE)},
        each(by_segmentation),
        ("scenes",),
        profiles={"smoke": 2, "laptop": 32},
        differs=(
            "in kind: synthetic streets with two of MFNet's classes, a U-Net of 0.21 M parameters from "
            "scratch in place of SegFormer-b1, no rival of the paper. MFNet's labels are not at hand."
        ),
        trains=True,
    ),
    "caf/table3": Table(
        TRIALS,
        each(by_trial),
        ("scenes",),
        profiles={"smoke": 2, "laptop": 32},
        differs=(
            "the paper has one run a row, M3FD and MFNet, and large task networks; here are five seeds of "
            "small ones on synthetic streets. Its rivals are other networks than the two tried here."
        ),
        trains=True,
    ),
    "caf/figure7": Table(
        {name: name for name in BESIDE},
        each(by_fuser),
        ("roadscene", "tno", ANY),
        differs=(
            "the paper's are box plots without numbers of seven rivals, whose networks are not at hand: here "
            "are means of ours and of baselines, and no set of the figure is registered whole."
        ),
    ),
    "caf/model": Table(
        {name: name for name in ("both", "uniform", "hand", "average")},
        each(by_model),
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": None},
        trains=True,
    ),
}

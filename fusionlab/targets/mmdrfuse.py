"""MMDRFuse: Tables 5 and 6 with released and own weights, and the training on scenes of notebook 00."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.crops import crops
from fusionlab.data import open_pairs, to_uint8
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.methods import Fuser, fuse, load
from fusionlab.methods.mmdrfuse import Student, pixel_objective
from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.training import fit, one_cycle, save_half, shuffled_batches

CONVENTION = "mmdrfuse"

# row -> (method, weights, how the fused image is saved). The paper's own rule is "stretch".
FUSERS = [
    ("student-released", "mmdrfuse", "official"),
    ("teacher-released", "mmdrfuse-teacher", "official"),
    ("student-ours", "mmdrfuse", "ours"),
    ("student-distilled", "mmdrfuse-distilled", "ours"),
    ("teacher-half", "mmdrfuse-teacher-half", "ours"),
    ("maximum", "maximum", "ours"),
    ("average", "average", "ours"),
    ("laplacian", "laplacian", "ours"),
]
TABLE5_ROWS = {
    f"{label}/{save}": (method, weights, save)
    for label, method, weights in FUSERS
    for save in ("stretch", "clip")
}
# A third rule for medical images: black is made black again.
TABLE6_ROWS = TABLE5_ROWS | {
    f"{label}/blackened": (method, weights, "blackened") for label, method, weights in FUSERS[:4]
}


def table5(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 5: EN, SD, MI, VIF, Qabf and SSIM on RoadScene's 50 test pairs, or on other data.

    The networks see 8-bit luminance, as the released script reads it; every row is scored in the paper's
    convention, once saved as the script does (stretch) and once plainly (clip), and SSIM in the textbook's
    range of 255 as well. Of MSRS and LLVIP the registry knows a few test pairs; none was ever trained on.
    """
    yield from _table("mmdrfuse/table5", TABLE5_ROWS, row, test_pairs(data, profile, seed), profile, seed)


def table6(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 6: the same on the MRI-SPECT and MRI-PET pairs at hand; the metabolic image goes in as infrared.

    `blackened` rows show what the background does to the paper's SSIM: the network's answer to black is
    subtracted before clipping, so that black stays black.
    """
    if data not in ("auto", "harvard"):
        raise UserError("mmdrfuse/table6 is measured on harvard")
    for split in ("mri_spect", "mri_pet"):
        pairs = open_pairs("harvard", 2 if profile == "smoke" else None, split=split)
        yield from _table("mmdrfuse/table6", TABLE6_ROWS, row, pairs, profile, seed)


def _table(
    target: str,
    rows: dict[str, tuple[str, str, str]],
    row: str | None,
    pairs: Pairs,
    profile: str,
    seed: int,
) -> Iterator[Record]:
    if row is not None and row not in rows:
        raise UserError(f"{target} has no row {row!r}; it has {', '.join(rows)}")
    ir = [to_uint8(pair.ir) for pair in pairs]
    vi = [to_uint8(pair.vi) for pair in pairs]
    for name in [row] if row else rows:
        method, weights, save = rows[name]
        fuser = load(method, weights)
        both = tqdm(list(zip(ir, vi, strict=True)), desc=name, unit="pair", leave=False)
        fused = [saved(fuser, a / 255, b / 255, save) for a, b in both]
        for convention, metrics in ((CONVENTION, None), ("reference", ["SSIM"])):
            for metric, value in evaluate(ir, vi, fused, convention, metrics).mean().items():
                yield measured(
                    target,
                    name,
                    metric,
                    value,
                    pairs,
                    profile=profile,
                    seed=seed,
                    unit=CONVENTIONS[convention].variants[metric].unit,
                    convention=convention,
                    weights=fuser.sha256,
                    command=this_command(),
                    note="" if save == CONVENTIONS[convention].save else f"saved by {save}",
                )


def saved(fuser: Fuser, ir: Tensor, vi: Tensor, save: str) -> Tensor:
    """The fused image as it is written, uint8; "blackened" takes off what the fuser makes of black."""
    if save != "blackened":
        return fuse(fuser, ir, vi, save=save)
    black = torch.zeros(1, 1, 16, 16)
    return to_uint8(fuser.raw(ir, vi) - fuser.raw(black, black).max() - 1 / 255)


def test_pairs(data: str, profile: str, seed: int) -> Pairs:
    """RoadScene's 50 test pairs unless told otherwise; of scenes eight, at `smoke` four of anything."""
    name = "roadscene" if data == "auto" else data
    split = "test" if name in ("roadscene", "scenes", "msrs", "llvip") else None
    limit = 4 if profile == "smoke" else 8 if name == "scenes" else None
    return open_pairs(name, limit, seed=seed, split=split)


FULL = {"scenes": 48, "per_scene": 10, "epochs": 60}
# 113 numbers need no more on a larger machine. The paper's own training comes with the distillation notebook.
RECIPE = {"smoke": {"scenes": 4, "per_scene": 5, "epochs": 2}, "laptop": FULL, "gpu": FULL}


def student(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Trains the 113 parameters on scenes in under a minute, into `<run>/mmdrfuse_student.safetensors`.

    L_int + 0.1 L_grad on 64x64 crops, Adam: no teacher, no VGG, no refresh. Seed 1 is shipped as "ours".
    Measures the mean distance to the pixelwise maximum on 16 unseen scenes, beside the average's.
    """
    if data not in ("auto", "scenes") or row not in (None, "ours", "average"):
        raise UserError("mmdrfuse/student trains on scenes and has the rows ours and average")
    if profile not in RECIPE:
        raise UserError(f"mmdrfuse/student has no recipe for profile {profile}; use {', '.join(RECIPE)}")
    unseen = open_pairs("scenes", 16, seed=0, split="val")  # the same for every training seed
    for name in [row] if row else ("ours", "average"):
        fuser = load("mmdrfuse", train_student(profile, seed, run)) if name == "ours" else load(name)
        yield measured(
            "mmdrfuse/student",
            name,
            "L1 to max",
            distance_to_maximum(fuser, unseen),
            unseen,
            profile=profile,
            seed=seed,
            unit="of the range 1",
            weights=fuser.sha256,
            command=this_command(),
        )


def train_student(profile: str, seed: int, run: Path) -> Path:
    """Trains a student from its random start and returns the file of its half-precision weights."""
    recipe = RECIPE[profile]
    torch.manual_seed(seed)
    network = Student()
    pairs = open_pairs("scenes", recipe["scenes"], seed=seed, split="train")
    ir, vi = crops(pairs, recipe["per_scene"], size=64, seed=seed)
    batches = shuffled_batches(len(ir), batch=25, passes=recipe["epochs"], seed=seed)
    fit(
        lambda step, _: pixel_objective(network, ir[batches[step]], vi[batches[step]]),
        {"student": network},
        torch.optim.Adam(network.parameters()),
        steps=len(batches),
        seed=seed,
        schedule=one_cycle(1e-2, len(batches)),
    )
    file = Path(run) / "mmdrfuse_student.safetensors"
    save_half(network, file)
    return file


def distance_to_maximum(fuser: Fuser, pairs: Pairs) -> float:
    """Mean over the pairs of Eq. 2, ||O - max(I_ir, I_vis)||_1 / HW."""
    distances = [(fuser(p.ir, p.vi) - torch.maximum(p.ir, p.vi)).abs().mean().item() for p in pairs]
    return sum(distances) / len(distances)

"""MMDRFuse: Table 5 with released and own weights, and the run that made the shipped 113 parameters."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from fusionlab.data import open_pairs
from fusionlab.data.folders import Pairs
from fusionlab.data.pair import to_uint8
from fusionlab.errors import UserError
from fusionlab.lab.records import Record, command, environment
from fusionlab.methods import fuse, load
from fusionlab.methods.mmdrfuse import Student, pixel_objective
from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.training import crops, fit, save_half

CONVENTION = "mmdrfuse"

# row -> (method, weights, how the fused image is saved). The paper's own rule is "stretch".
TABLE5_ROWS = {
    f"{method}/{weights}/{save}": (method, weights, save)
    for method, weights in [
        ("mmdrfuse", "official"),
        ("mmdrfuse-teacher", "official"),
        ("mmdrfuse", "ours"),
        ("maximum", "ours"),
        ("average", "ours"),
        ("laplacian", "ours"),
    ]
    for save in ("stretch", "clip")
}


def table5(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 5 (c): EN, SD, MI, VIF, Qabf and SSIM on RoadScene's 50 test pairs, or on other data.

    The networks see 8-bit luminance, as the released script reads it; every row is scored in the paper's
    convention, once saved as the script does (stretch) and once plainly (clip).
    """
    if row is not None and row not in TABLE5_ROWS:
        raise UserError(f"mmdrfuse/table5 has no row {row!r}; it has {', '.join(TABLE5_ROWS)}")
    pairs = test_pairs(data, profile, seed)
    sources = [tuple(to_uint8(image) for image in (pair.ir, pair.vi)) for pair in pairs]
    for name in [row] if row else TABLE5_ROWS:
        method, weights, save = TABLE5_ROWS[name]
        fuser = load(method, weights)
        bar = tqdm(sources, desc=name, unit="pair", leave=False)
        fused = [fuse(fuser, ir / 255, vi / 255, save=save) for ir, vi in bar]
        scores = evaluate([ir for ir, _ in sources], [vi for _, vi in sources], fused, convention=CONVENTION)
        note = "" if save == "stretch" else "saved by clipping, where the convention stretches"
        for metric, value in scores.mean().items():
            unit = CONVENTIONS[CONVENTION].variants[metric].unit
            yield _record(
                "table5", name, metric, value, pairs, profile, seed, fuser.sha256, unit, note
            )


def test_pairs(data: str, profile: str, seed: int) -> Pairs:
    """RoadScene's 50 test pairs by default; four pairs at `smoke`, eight of other data at `laptop`."""
    name = "roadscene" if data == "auto" else data
    split = "test" if name in ("roadscene", "scenes") else None
    limit = 4 if profile == "smoke" else 8 if name == "scenes" else None
    return open_pairs(name, limit, seed=seed, split=split)


RECIPE = {
    "smoke": {"scenes": 4, "per_scene": 5, "epochs": 2},
    "laptop": {"scenes": 48, "per_scene": 10, "epochs": 60},
}


def student(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Trains the 113 parameters on scenes for seconds, into `<run>/mmdrfuse_student.safetensors`.

    L_int + 0.1 L_grad on 64x64 crops, Adam: no teacher, no VGG, no refresh. Shipped as weights="ours".
    """
    if row not in (None, "ours") or data not in ("auto", "scenes"):
        raise UserError(
            "mmdrfuse/student has the one row 'ours' and trains on scenes; leave --row and --data out"
        )
    recipe = RECIPE["smoke" if profile == "smoke" else "laptop"]
    torch.manual_seed(seed)
    network = Student()
    pairs = open_pairs("scenes", recipe["scenes"], seed=seed, split="train")
    ir, vi = crops(pairs, recipe["per_scene"], size=64, seed=seed)
    fit(network, pixel_objective, ir, vi, epochs=recipe["epochs"], batch=25, learning_rate=1e-2, seed=seed)
    file = Path(run) / "mmdrfuse_student.safetensors"
    save_half(network, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    fuser = load("mmdrfuse", weights=file)
    unseen = open_pairs("scenes", 16, seed=seed, split="val")
    for name, network in (("ours", fuser), ("average", load("average"))):
        distance = [float((network(p.ir, p.vi) - torch.maximum(p.ir, p.vi)).abs().mean()) for p in unseen]
        weights = sha256 if name == "ours" else "none"
        mean = sum(distance) / len(distance)
        yield _record(
            "student", name, "L1 to max", mean, unseen, profile, seed, weights, "of the range 1", ""
        )


def _record(
    target: str,
    row: str,
    metric: str,
    value: float,
    pairs: Pairs,
    profile: str,
    seed: int,
    weights: str,
    unit: str,
    note: str,
) -> Record:
    partial = pairs.total is not None and pairs.total != len(pairs)
    return Record(
        target=f"mmdrfuse/{target}",
        row=row,
        metric=metric,
        value=value,
        unit=unit,
        convention=CONVENTION if target == "table5" else "none",
        data=Path(pairs.data).name,
        split=pairs.split,
        n=f"{len(pairs)} of {pairs.total}" if partial else str(len(pairs)),
        profile=profile,
        seed=seed,
        weights=weights,
        command=command(),
        note=note,
        **environment("cpu"),
    )

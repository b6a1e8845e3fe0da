"""MMDRFuse's tables: against rows that others measured, by hand, and never on what was trained on."""

import csv
import hashlib
import itertools
import json
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from fusionlab import paths, targets
from fusionlab.bench import records, results
from fusionlab.bench.cost import multiply_adds
from fusionlab.bench.run import Run
from fusionlab.data import open_pairs, read_image, to_uint8
from fusionlab.errors import UserError
from fusionlab.fuser import Fuser, fuse, load
from fusionlab.methods.mmdrfuse import ABLATION, SCENES, Student, train_student
from fusionlab.metrics import CONVENTIONS, evaluate
from fusionlab.targets import mmdrfuse
from fusionlab.targets.mmdrfuse import FOUR, TABLES, half_teacher

COLUMNS = {"EN": "EN", "SD": "SD", "MI": "MI_nat", "VIF": "VIF", "Qabf": "Qabf", "SSIM": "SSIM2"}
# Our row -> how the independent measurement calls it.
ROWS = {
    "student-released/stretch": ("student", "stretch"),
    "student-released/clip": ("student", "clip"),
    "teacher-released/stretch": ("teacher", "stretch"),
    "teacher-released/clip": ("teacher", "clip"),
    "maximum/clip": ("max", "clip"),
    "average/stretch": ("mean", "stretch"),
    "average/clip": ("mean", "clip"),
}
# The independent program averages a/255 and b/255 in float64, which rounds some of the halves down; ours
# rounds (a + b)/2 half up exactly. On FLIR_00211 5.8 % of the pixels differ by a level, which MI notices.
ROUNDED_OTHERWISE = {("average/clip", "MI"): 0.01}


def close(ours: float, theirs: float) -> bool:
    """Within 0.5 % or .005, whichever is wider."""
    return abs(ours - theirs) <= max(0.005, 0.005 * abs(theirs))


def promoted() -> dict[tuple[str, str], records.Record]:
    """(row, metric) -> the promoted record of Table 5, RoadScene, in the paper's own convention."""
    found = results.results("mmdrfuse/table5", "roadscene", "mmdrfuse")
    return {(record.row, record.metric): record for record in found}


# Tables 5 and 6.


def test_every_promoted_row_agrees_with_the_independent_measurement(shared):
    file = shared / "official" / "mmdrfuse" / "measured_rows.csv"
    with file.open(newline="") as lines:
        theirs = {(r["what"], r["save"]): r for r in csv.DictReader(lines) if r["set"] == "RoadScene"}
    found = promoted()
    assert {row for row, _ in found} == set(TABLES["mmdrfuse/table5"].rows)
    for row, key in ROWS.items():
        for metric, column in COLUMNS.items():
            record = found[row, metric]
            assert record.n == "50 of 221"
            wanted, wider = float(theirs[key][column]), ROUNDED_OTHERWISE.get((row, metric))
            agrees = abs(record.value / wanted - 1) < wider if wider else close(record.value, wanted)
            assert agrees, (row, metric, record.value)


@pytest.mark.parametrize("row", ["student-released/stretch", "maximum/clip"])
def test_a_row_measured_now_equals_its_record(shared, tmp_path, row):
    made = targets.reproduce("mmdrfuse/table5", tmp_path, row, "laptop")
    *ours, textbook = made
    assert [record.metric for record in ours] == list(COLUMNS)
    assert (textbook.metric, textbook.convention) == ("SSIM", "reference")
    old = {record.key: record for record in results.results("mmdrfuse/table5", "roadscene")}
    for record in made:
        before = old[record.key]
        assert record.value == pytest.approx(before.value, rel=1e-3), record
        if before.error is not None:  # what was promoted before there were errors has none
            assert record.error == pytest.approx(before.error, rel=1e-3), record
        for name in ("n", "weights", "unit", "note"):
            assert getattr(record, name) == getattr(before, name)
    assert records.read(tmp_path) == made


def test_the_released_teacher_image_by_image(shared):
    """All 50 would take a minute; three pairs, against the same three of the independent measurement."""
    with (shared / "official" / "mmdrfuse" / "roadscene50_per_image.csv").open(newline="") as lines:
        theirs = {(r["file"], r["what"], r["save"]): r for r in csv.DictReader(lines)}
    teacher = load("mmdrfuse-teacher", weights="official")
    for pair in open_pairs("roadscene", 3, split="test"):
        ir, vi = to_uint8(pair.ir), to_uint8(pair.vi)
        for save in ("stretch", "clip"):
            fused = fuse(teacher, ir / 255, vi / 255, save=save)
            ours = evaluate(ir, vi, fused, convention="mmdrfuse").mean()
            for metric, column in COLUMNS.items():
                wanted = float(theirs[f"{pair.name}.jpg", "teacher", save][column])
                assert close(ours[metric], wanted), (pair.name, metric, ours[metric])


@pytest.mark.parametrize(
    ("target", "data", "file", "row"),
    [
        ("mmdrfuse/student", "scenes", "mmdrfuse_student", "student-ours"),
        ("mmdrfuse/distilled", "roadscene", "mmdrfuse_distilled", "student-distilled"),
        ("mmdrfuse/teacher", "roadscene", "mmdrfuse_teacher_half", "teacher-half"),
    ],
)
def test_the_shipped_weights_are_those_of_the_record(target, data, file, row):
    sha256 = hashlib.sha256(paths.asset(f"weights/{file}.safetensors").read_bytes()).hexdigest()
    assert sha256 in {record.weights for record in results.results(target, data)}
    assert {r.weights for (name, _), r in promoted().items() if name == f"{row}/stretch"} == {sha256}


def test_black_is_made_black_again_in_medical_rows(shared, tmp_path):
    made = targets.reproduce("mmdrfuse/table6", tmp_path, "student-distilled/blackened", "smoke")
    assert {(record.data, record.split) for record in made} == {
        ("harvard", "mri_spect"),
        ("harvard", "mri_pet"),
    }
    assert records.lint(made) == []
    black = torch.zeros(1, 1, 32, 32)
    image = targets.mmdrfuse.blackened(load("mmdrfuse-distilled"), black, black)
    assert image.max() == 0


# Table 4.


def test_the_printed_operations_and_sizes_are_these_counts(tmp_path):
    networks = {name: make() for name, make in TABLES["mmdrfuse/table4"].rows.items()}
    million = {name: multiply_adds(network, 1024, 1280) / 1e6 for name, network in networks.items()}
    assert million["student"] == pytest.approx(141.6, abs=0.1)
    assert million["teacher"] / million["student"] == pytest.approx(1563, abs=1)
    made = targets.reproduce("mmdrfuse/table4", tmp_path, profile="smoke")
    value = {(record.row, record.metric): record.value for record in made}
    assert round(value["student", "size at 4 bytes"], 2) == 0.44
    assert round(value["teacher", "size at 8 bytes"], 2) == 4347.57
    assert round(value["student-897", "size at 8 bytes"], 2) == 7.01
    assert value["student", "multiply-adds 1280x1024"] == pytest.approx(million["student"] / 1e3)


# Tables 1 to 3, trained by the run.


def middle_by_hand(image):
    """The middle 128x128 pixels."""
    top, left = (image.shape[-2] - 128) // 2, (image.shape[-1] - 128) // 2
    return image[:, :, top : top + 128, left : left + 128]


@pytest.mark.parametrize("target", ["mmdrfuse/table1", "mmdrfuse/table2", "mmdrfuse/table3"])
def test_every_row_of_an_ablation_has_its_own_objective_and_is_scored_on_test_pairs(
    shared, tmp_path, monkeypatch, target, assert_apart
):
    # The two steps of `smoke` see no refresh, and leave a random start black.
    monkeypatch.setitem(ABLATION, "smoke", replace(ABLATION["smoke"], batch=4, passes=6))
    rows = TABLES[target].rows
    made = targets.reproduce(target, tmp_path, profile="smoke")
    assert records.lint(made) == []
    assert {(record.data, record.split, record.n) for record in made} == {("roadscene", "test", "4 of 221")}
    unseen, allowed = open_pairs("roadscene", 4, split="test"), open_pairs("roadscene", split="train")
    assert_apart(unseen, allowed, len(rows))

    # No two rows were trained alike.
    values = {name: [record.value for record in made if record.row == name] for name in rows}
    for one, other in itertools.combinations(values, 2):
        assert values[one] != values[other], (one, other)

    # Each row again by hand: its own recipe, four other pairs, a formula or the metrics themselves.
    for name, change in rows.items():
        recipe = replace(ABLATION["smoke"], **change)
        student = train_student(allowed[: recipe.pairs], recipe, seed=0, teacher=half_teacher("cpu"))
        fuser, distances, images = Fuser("by hand", "", "none", student), [], []
        for pair in unseen:
            ir, vi = (middle_by_hand(to_uint8(image)) for image in (pair.ir, pair.vi))
            fused = fuser(ir / 255, vi / 255)
            distances.append((fused - torch.maximum(ir, vi) / 255).abs().mean().item())
            images.append((ir, vi, fuse(fuser, ir / 255, vi / 255, save="stretch")))
        found = {record.metric: record.value for record in made if record.row == name}
        assert found["L1 to max"] == pytest.approx(sum(distances) / 4, rel=1e-5)
        scores = evaluate(*(list(column) for column in zip(*images, strict=True)), "mmdrfuse", ["SD", "Qabf"])
        assert {metric: found[metric] for metric in ("SD", "Qabf")} == pytest.approx(scores.mean(), rel=1e-6)
        if target == "mmdrfuse/table2":
            assert found["Eq. 1 to teacher"] > 0
            assert all(-1 <= found[f"{end} correlation"] <= 1 for end in ("feature", "response"))


def test_nearness_is_nothing_to_itself_and_tells_a_mirrored_picture():
    teacher = half_teacher("cpu")
    pair = open_pairs("scenes", 1, size=(72, 96))[0]
    assert mmdrfuse.nearness(teacher, teacher, pair.ir, pair.vi) == pytest.approx(
        {"Eq. 1 to teacher": 0, "feature correlation": 1, "response correlation": 1}, abs=1e-5
    )
    mirrored = SimpleNamespace(maps=lambda ir, vi: [end.flip(-1) for end in teacher.maps(ir, vi)])
    found = mmdrfuse.nearness(mirrored, teacher, pair.ir, pair.vi)
    ends = [end.sum(1).flatten() for end in teacher.maps(pair.ir, pair.vi)]
    turned = [end.sum(1).flip(-1).flatten() for end in teacher.maps(pair.ir, pair.vi)]
    by_hand = [(a / a.norm() - b / b.norm()).norm().item() / 2 for a, b in zip(ends, turned, strict=True)]
    assert found["Eq. 1 to teacher"] == pytest.approx(sum(by_hand), rel=1e-4)
    for end, a, b in zip(("feature", "response"), ends, turned, strict=True):
        a, b = a - a.mean(), b - b.mean()
        wanted = ((a @ b) / (a.norm() * b.norm())).item()
        assert found[f"{end} correlation"] == pytest.approx(wanted, abs=1e-4)
    assert found["feature correlation"] < 0.6


def test_what_the_rows_of_the_ablations_change():
    changes = {name: row for n in (1, 2, 3) for name, row in TABLES[f"mmdrfuse/table{n}"].rows.items()}
    assert changes["II direct"]["direct"]
    assert changes["III with refresh"]["refresh"] == "released"
    assert changes["III refresh as printed"]["refresh"] == "paper"
    assert changes["I intensity"]["weights"] == {"intensity": 1.0}
    assert changes["student of 897"]["settings"] == {"hidden": 32}
    with_teacher = {"II direct", "III digestible", "III digestible, teacher's last layer"}
    with_teacher |= {"student of 113", "student of 897", "III shuffled, teacher's last layer"}
    assert {name for name, row in changes.items() if row["weights"].get("distillation")} == with_teacher
    # A control differs from what it controls in that one thing.
    for control, what, difference in (
        (
            "III shuffled, teacher's last layer",
            "III digestible, teacher's last layer",
            ("lesson", "shuffled"),
        ),
        ("III refresh to a random past", "III with refresh", ("past", "random")),
    ):
        plain, other = (asdict(replace(ABLATION["laptop"], **changes[name])) for name in (what, control))
        assert [(key, other[key]) for key in plain if plain[key] != other[key]] == [difference]


# Figure 5 and the networks that are shipped.


def test_figure5_is_drawn_from_scenes(tmp_path, monkeypatch, assert_apart):
    monkeypatch.setitem(ABLATION, "smoke", replace(ABLATION["smoke"], batch=4))
    made = targets.reproduce("mmdrfuse/figure5", tmp_path, profile="smoke")
    assert {record.row for record in made} == {"I", "II", "III"}
    assert {(record.data, record.split) for record in made} == {("scenes", "val")}
    for metric in ("intensity", "gradient", "SSIM sum", "GMSD sum"):
        assert len({record.value for record in made if record.metric == metric}) == 3
    assert read_image(tmp_path / "figures" / "mmdrfuse" / "figure5.png").shape == (1, 1, 2 * 120, 5 * 160)
    # Each stage is trained to be scored and, from its checkpoint, taken up again to be drawn.
    unseen, allowed = (open_pairs("scenes", 4, seed=0, split=split) for split in ("val", "train"))
    assert_apart(unseen, allowed, 6)


def test_the_scenes_student_repeats_learns_and_is_scored_on_unseen_scenes(
    tmp_path, monkeypatch, assert_apart
):
    """Judged beside the untrained network, which answers black; the two steps of `smoke` leave it at that."""
    monkeypatch.setitem(SCENES, "smoke", replace(SCENES["smoke"], passes=20))
    made = [targets.reproduce("mmdrfuse/student", tmp_path / run, "ours", profile="smoke")[0] for run in "ab"]
    assert made[0].value == made[1].value and made[0].weights == made[1].weights
    assert records.lint(made) == []
    unseen, allowed = open_pairs("scenes", 16, split="val"), open_pairs("scenes", 4, split="train")
    assert_apart(unseen, allowed, 2)
    torch.manual_seed(0)
    untrained = Fuser("untrained", "none", "none", Student())
    kept = load("mmdrfuse", tmp_path / "a" / "mmdrfuse-student-smoke-seed0.safetensors")
    assert kept.sha256 == made[0].weights
    distances = []
    for fuser in (kept, untrained):
        distance = [
            (fuser(pair.ir, pair.vi) - torch.maximum(pair.ir, pair.vi)).abs().mean() for pair in unseen
        ]
        distances.append(torch.stack(distance).mean().item())
    assert made[0].value == pytest.approx(distances[0], rel=1e-5)
    assert made[0].value < 0.5 * distances[1]
    (other,) = targets.reproduce("mmdrfuse/student", tmp_path / "c", "ours", "smoke", seeds=(3,))
    assert (other.row, other.seed) == ("ours", 3)
    assert other.weights != made[0].weights


@pytest.mark.parametrize("target", ["mmdrfuse/teacher", "mmdrfuse/distilled"])
def test_our_networks_are_trained_on_training_pairs_and_chosen_on_val(shared, tmp_path, target, assert_apart):
    made = targets.reproduce(target, tmp_path, profile="smoke", seeds=(0, 1))
    assert records.lint(made) == []
    assert {(record.data, record.split, record.n) for record in made} == {("roadscene", "val", "4 of 221")}
    assert [record.metric for record in made] == [*FOUR, *FOUR]
    assert len({record.weights for record in made}) == 2
    assert_apart(open_pairs("roadscene", 4, split="val"), open_pairs("roadscene", split="train"), 2)


@pytest.mark.parametrize("target", ["mmdrfuse/table1", "mmdrfuse/distilled", "mmdrfuse/teacher"])
@pytest.mark.parametrize("data", ["msrs", "llvip", "tno"])
def test_nothing_is_trained_on_other_sets(tmp_path, target, data):
    with pytest.raises(UserError, match=f"not measured on '{data}'; it is on roadscene"):
        targets.reproduce(target, tmp_path, data=data)
    assert not any(tmp_path.iterdir())


def test_our_student_keeps_to_the_pattern_of_its_teacher(shared):
    """On val pairs our student must be nearer to its teacher's output than the mean of the sources is."""
    student, teacher = load("mmdrfuse-distilled"), load("mmdrfuse-teacher-half")
    for pair in open_pairs("roadscene", 3, split="val"):
        wanted = teacher(pair.ir, pair.vi)
        ours = (student(pair.ir, pair.vi) - wanted).abs().mean()
        assert ours < ((pair.ir + pair.vi) / 2 - wanted).abs().mean()


# Ranks.


def test_the_two_conventions_of_the_ranks_differ_in_ssim_alone():
    one, two = (CONVENTIONS[name].variants for name in ("mmdrfuse", "reference"))
    assert [metric for metric in FOUR if one[metric].function is not two[metric].function] == ["SSIM"]


def test_each_rule_of_saving_and_each_convention_ranks_five_on_the_same_test_pairs(
    shared, tmp_path, assert_apart
):
    made = targets.reproduce("mmdrfuse/ranks", tmp_path, profile="smoke")
    assert records.lint(made) == []
    unseen = open_pairs("roadscene", 4, split="test")
    assert_apart(unseen, open_pairs("roadscene", split="train"), 1)
    places = {(r.row, r.convention): r.value for r in made if r.metric == "mean rank"}
    assert len({record.key for record in made}) == len(made)
    for save, convention in itertools.product(("stretch", "clip"), ("mmdrfuse", "reference")):
        group = [place for (row, kind), place in places.items() if row.endswith(save) and kind == convention]
        # No two of the five are equal, so that the places 1 to 5 are all taken.
        assert len(group) == 5 and sum(group) == pytest.approx(15)
    assert {(record.data, record.split) for record in made} == {("roadscene", "test")}

    # One rule and convention by hand.
    fusers = {name: load(name) for name in ("average", "maximum", "laplacian")}
    fusers |= {"released": load("mmdrfuse", "official")}
    fusers |= {"ours": load("mmdrfuse-distilled", tmp_path / "mmdrfuse-ranks-smoke-seed0.safetensors")}
    ir, vi = ([to_uint8(getattr(pair, role)) for pair in unseen] for role in ("ir", "vi"))
    means = {}
    for name, fuser in fusers.items():
        fused = [fuse(fuser, a / 255, b / 255, save="clip") for a, b in zip(ir, vi, strict=True)]
        means[name] = torch.tensor(list(evaluate(ir, vi, fused, "mmdrfuse", FOUR).mean().values()))
    table = torch.stack(list(means.values()))  # fusers, metrics
    ranks = dict(zip(means, (table.argsort(0, descending=True).argsort(0) + 1.0).mean(1).tolist()))
    assert {name: places[f"{name}/clip", "mmdrfuse"] for name in ranks} == ranks
    ours = {r.metric: r.value for r in made if (r.row, r.convention) == ("ours/clip", "mmdrfuse")}
    assert [ours[metric] for metric in FOUR] == pytest.approx(means["ours"].tolist(), rel=1e-6)
    weights = {name: {r.weights for r in made if r.row == f"{name}/clip"} for name in fusers}
    assert weights == {name: {fuser.sha256} for name, fuser in fusers.items()}

    # A single row takes its place among the five as well.
    run = Run.begin(tmp_path / "one", "smoke")
    alone = list(TABLES["mmdrfuse/ranks"].measure({"released/clip": "released"}, unseen[:1], run))
    assert [(score.row, score.metric, score.convention) for score in alone] == [
        ("released/clip", "mean rank", convention) for convention in ("mmdrfuse", "reference")
    ]
    assert all(1 <= score.value <= 5 and score.unit == "of 5" for score in alone)


# The paper's own recipe.


def test_the_papers_and_the_released_recipe_train_and_are_scored(shared, tmp_path, assert_apart):
    made = targets.reproduce("mmdrfuse/recipe", tmp_path, profile="smoke")
    assert records.lint(made) == []
    assert [(record.row, record.metric) for record in made] == [
        (row, metric) for row in ("paper", "released") for metric in FOUR
    ]
    assert len({record.weights for record in made}) == 2
    assert_apart(open_pairs("roadscene", 2, split="test"), open_pairs("roadscene", split="train"), 4)
    # What each minimised stands in its checkpoint: Section 4.1.2, and what was released.
    weights = {}
    for name, who in itertools.product(("paper", "released"), ("teacher", "student")):
        kept = tmp_path / "checkpoints" / "mmdrfuse-recipe-smoke" / f"{name}-{who}-0.safetensors"
        with safe_open(kept, "pt") as file:
            weights[name, who] = json.loads(file.metadata()["run"])["weights"]
    assert weights["paper", "student"] == {
        "intensity": 2.0, "gradient": 1.0, "perception": 1.0, "distillation": 0.1, "refresh": 1.0,
    }  # fmt: skip
    assert weights["released", "student"] == {
        "intensity": 1.0, "gradient": 0.1, "perception": 2.0, "distillation": 5.0, "refresh": 1.0,
    }  # fmt: skip
    assert all("distillation" not in weights[name, "teacher"] for name in ("paper", "released"))


def test_unknown_targets_and_rows_name_the_known(tmp_path):
    reproduce = partial(targets.reproduce, folder=tmp_path)
    with pytest.raises(UserError, match="mmdrfuse/table5"):
        reproduce("mmdrfuse/table9")
    with pytest.raises(UserError, match="maximum/clip"):
        reproduce("mmdrfuse/table5", row="nobody", data="scenes")
    with pytest.raises(UserError, match="not measured on 'tno'; it is on scenes"):
        reproduce("mmdrfuse/student", data="tno")
    with pytest.raises(UserError, match="no row 'nobody'; it has ours, average"):
        reproduce("mmdrfuse/student", row="nobody")
    assert TABLES["mmdrfuse/student"].profile("paper") == "laptop"
    assert not any(tmp_path.iterdir())

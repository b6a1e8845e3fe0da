"""The trainings and ablations of MMDRFuse at their smallest, and what they must never touch."""

import signal

import pytest
import torch
from fusionlab.methods.mmdrfuse_training import (
    PAPER_STUDENT,
    RELEASED_STUDENT,
    Objective,
    cached,
    loss_terms,
    start_from_teacher,
    train,
    vgg_taps,
)

from fusionlab import targets
from fusionlab.bench import records
from fusionlab.errors import UserError
from fusionlab.methods import load
from fusionlab.methods.mmdrfuse import Student, Teacher
from fusionlab.targets import mmdrfuse_ablation, mmdrfuse_efficiency


def patches(count=6, teacher=None):
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(count, 1, 16, 16, generator=generator) for _ in range(2))
    return cached(ir, vi, teacher, taps)


def taps(image):
    """Five stand-ins for VGG's taps, on which the arithmetic can be followed."""
    return [image * k for k in range(1, 6)]


def test_the_terms_of_the_released_student_add_up_with_their_weights():
    torch.manual_seed(0)
    teacher, student = Teacher(4), Student()
    kept, chosen = patches(teacher=teacher), torch.tensor([4, 1])
    terms = loss_terms(student, kept, chosen, RELEASED_STUDENT, taps)
    alone = loss_terms(student, kept, chosen, Objective(1.0, 1.0, 1.0, 1.0), taps)
    assert list(terms) == ["intensity", "gradient", "perception", "distillation"]
    weights = {"intensity": 1, "gradient": 0.1, "perception": 2, "distillation": 5}
    assert all(terms[name].item() == pytest.approx(weights[name] * alone[name].item()) for name in terms)
    # taps k times the image: the mean over k of k^2 is 11
    square = (
        student.maps(kept.ir[chosen], kept.vi[chosen])[1] - torch.maximum(kept.ir, kept.vi)[chosen]
    ) ** 2
    assert alone["perception"].item() == pytest.approx(11 * square.mean().item(), rel=1e-2)
    assert PAPER_STUDENT.distillation == 0.1 and PAPER_STUDENT.intensity == 2


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path):
    """With refresh, whose history is part of the state; Ctrl-C arrives in the fourth of eight steps."""
    kept, objective, calls = patches(), Objective(1.0, 1.0, refresh="released"), []

    def interrupting(image):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return taps(image)

    def trained(name, seen_by):
        torch.manual_seed(3)
        student, file = Student(), tmp_path / f"{name}.safetensors"
        train(student, kept, objective, passes=4, batch=3, rate=1e-2, seed=3, taps=seen_by, checkpoint=file)
        return torch.cat([weight.detach().flatten() for weight in student.parameters()])

    unbroken = trained("unbroken", taps)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", interrupting)
    assert torch.equal(unbroken, trained("stopped", taps))


def test_the_last_layer_comes_from_the_teacher():
    teacher, student = Teacher(4), Student()
    start_from_teacher(student, teacher)
    for mine, theirs in zip(student.conv2.parameters(), teacher.conv00.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs


def test_the_printed_operations_and_sizes_are_these_counts():
    counts = {name: network() for name, network in mmdrfuse_efficiency.ROWS.items()}
    million = {n: mmdrfuse_efficiency.multiply_adds(net, 1024, 1280) / 1e6 for n, net in counts.items()}
    assert million["student"] == pytest.approx(141.6, abs=0.1)
    assert million["teacher"] / million["student"] == pytest.approx(1563, abs=1)
    made = {
        (r.row, r.metric): r.value for r in targets.TARGETS["mmdrfuse/table4"](None, "smoke", "auto", 0, None)
    }
    assert round(made["student", "size at 4 bytes"], 2) == 0.44
    assert round(made["teacher", "size at 8 bytes"], 2) == 4347.57
    assert round(made["student-897", "size at 8 bytes"], 2) == 7.01


@pytest.mark.parametrize(
    ("target", "row"),
    [
        ("mmdrfuse/table1", "III with refresh"),
        ("mmdrfuse/table2", "II direct"),
        ("mmdrfuse/table3", "student of 897"),
        ("mmdrfuse/table6", "student-distilled/blackened"),
        ("mmdrfuse/distilled", None),
        ("mmdrfuse/teacher", None),
    ],
)
def test_each_target_runs_at_smoke(shared, tmp_path, target, row):
    made = targets.reproduce(target, row, "smoke", run=tmp_path)
    assert made and records.lint(made) == []
    assert {record.data for record in made} <= {"roadscene", "harvard"}


def test_figure5_is_drawn_from_scenes(tmp_path):
    made = targets.reproduce("mmdrfuse/figure5", profile="smoke", run=tmp_path)
    assert {record.row for record in made} == {"I", "II", "III"}
    assert (tmp_path / "figure5.png").is_file()


@pytest.mark.parametrize("target", ["mmdrfuse/table1", "mmdrfuse/distilled", "mmdrfuse/teacher"])
@pytest.mark.parametrize("data", ["msrs", "llvip", "tno"])
def test_nothing_is_trained_on_other_sets(tmp_path, target, data):
    with pytest.raises(UserError, match="trains on roadscene"):
        targets.reproduce(target, data=data, run=tmp_path)


def test_our_student_keeps_to_the_pattern_of_its_teacher(shared):
    """On val pairs our student must be nearer to its teacher's output than the mean of the sources is."""
    import fusionlab

    student, teacher = load("mmdrfuse-distilled"), load("mmdrfuse-teacher-half")
    for pair in fusionlab.open_pairs("roadscene", 3, split="val"):
        wanted = teacher(pair.ir, pair.vi)
        ours = (student(pair.ir, pair.vi) - wanted).abs().mean()
        assert ours < ((pair.ir + pair.vi) / 2 - wanted).abs().mean()
    assert mmdrfuse_ablation.TABLE2["II direct"].objective.direct


def test_the_five_taps_come_in_one_pass_and_carry_a_gradient(shared):
    seen_by = vgg_taps()
    image = torch.rand(2, 1, 32, 32, requires_grad=True)
    maps = seen_by(image)
    assert [tap.shape[1] for tap in maps] == [64, 128, 256, 512, 512]
    assert [tap.shape[2] for tap in maps] == [32, 16, 8, 4, 2]
    sum(tap.mean() for tap in maps).backward()
    assert image.grad.abs().max() > 0

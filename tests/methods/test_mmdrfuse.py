"""MMDRFuse: its networks against printed sizes and released outputs, and its training at the smallest."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve

import fusionlab
from fusionlab.crops import crops
from fusionlab.errors import UserError
from fusionlab.fuser import fuse
from fusionlab.losses import weighted_sum
from fusionlab.methods import mmdrfuse
from fusionlab.methods.mmdrfuse import (
    DISTILLED,
    SCENES,
    TEACHER,
    Recipe,
    Student,
    Teacher,
    cached,
    loss_terms,
    start_from_teacher,
    train,
    train_student,
    train_teacher,
    vgg_taps,
)

CROPS = ["roadscene_FLIR_08954_256x256", "roadscene_FLIR_06430_256x256", "tno_01_256x256", "tno_35_256x256"]
ODD = "roadscene_FLIR_08954_255x243"


def read(file) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(file)) / 255.0).float()[None, None]


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_papers():
    assert count(Student()) == 113
    assert count(Teacher()) == 556_489


@pytest.mark.parametrize("crop", [*CROPS, ODD])
@pytest.mark.parametrize(("name", "tolerance"), [("mmdrfuse", 2e-6), ("mmdrfuse-teacher", 2e-5)])
def test_official_weights_give_the_released_outputs(shared, crop, name, tolerance):
    folder = shared / "official" / "mmdrfuse" / "pairs" / crop
    who = "student" if name == "mmdrfuse" else "teacher"
    ir, vi = read(folder / "ir.png"), read(folder / "vis.png")
    fuser = fusionlab.load(name, weights="official")
    if crop == ODD and who == "teacher":  # the released teacher raises here; ours pads and crops
        assert fuser(ir, vi).shape == ir.shape
        return
    raw = np.load(folder / f"{who}_raw.npy")
    assert np.abs(fuser.unclipped(ir, vi)[0, 0].numpy() - raw).max() <= tolerance
    saved = np.asarray(Image.open(folder / f"{who}_official.png")).astype(int)
    levels = np.abs(fuse(fuser, ir, vi, save="stretch")[0, 0].numpy().astype(int) - saved)
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-3


def test_official_hidden_maps_are_taken_after_relu(shared):
    folder = next(f.parent for f in (shared / "official").rglob("features_top_left_64.npz"))
    stored = np.load(folder / "features_top_left_64.npz")
    ir, vi = read(folder / "ir.png"), read(folder / "vis.png")
    for name, who in (("mmdrfuse", "student"), ("mmdrfuse-teacher", "teacher")):
        network = fusionlab.load(name, weights="official").network
        with torch.no_grad():
            maps = network.features(ir, vi)[0, :, :64, :64].numpy()
            raw = network(ir, vi)[0, 0, :64, :64].numpy()
        assert np.abs(maps - stored[f"{who}_post_relu"]).max() < 2e-5
        assert np.abs(raw - np.tanh(stored[f"{who}_pre_tanh"])).max() < 2e-5


def test_our_student_was_trained_and_is_near_the_maximum():
    """Ours is fitted to the pixelwise maximum; on a scene it has not seen it must be closer than the mean."""
    pair = fusionlab.open_pairs("scenes", n=1, seed=11, split="test", condition="night")[0]
    brighter = torch.maximum(pair.ir, pair.vi)
    ours = (fusionlab.load("mmdrfuse")(pair.ir, pair.vi) - brighter).abs().mean()
    mean = ((pair.ir + pair.vi) / 2 - brighter).abs().mean()
    assert ours < mean / 2


def patches(count=6, teacher=None):
    generator = torch.Generator().manual_seed(0)
    ir, vi = (torch.rand(count, 1, 16, 16, generator=generator) for _ in range(2))
    return cached(ir, vi, teacher, taps)


def taps(image):
    """Five stand-ins for VGG's taps, on which the arithmetic can be followed."""
    return [image * k for k in range(1, 6)]


def weights(network):
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


def test_the_terms_of_the_released_student_and_their_sum():
    torch.manual_seed(0)
    teacher, student = Teacher(4), Student()
    kept, chosen, recipe = patches(teacher=teacher), torch.tensor([4, 1]), DISTILLED["released"]
    terms = loss_terms(student, kept, chosen, recipe, taps)
    assert list(terms) == ["intensity", "gradient", "perception", "distillation"]  # no history, no refresh
    # taps k times the image: the mean over k of k^2 is 11
    ir, vi = kept.ir[chosen], kept.vi[chosen]
    square = (student(ir, vi) - torch.maximum(ir, vi)) ** 2
    assert terms["perception"].item() == pytest.approx(11 * square.mean().item(), rel=1e-2)
    apart = loss_terms(student, replace(kept, maxima=()), chosen, recipe, taps)["perception"]
    assert apart.item() == pytest.approx(11 * square.mean().item(), rel=1e-5)
    printed = {"intensity": 1, "gradient": 0.1, "perception": 2, "distillation": 5}
    wanted = sum(weight * terms[name].item() for name, weight in printed.items())
    loss = weighted_sum(terms, {name: recipe.weights[name] for name in terms})
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_a_weight_whose_term_cannot_be_had_is_refused():
    recipe = Recipe({"intensity": 1.0, "perception": 1.0}, pairs=3, crops=2, passes=1)
    with pytest.raises(UserError, match="no term of the loss is called perception"):
        train(Student(), patches(), recipe, seed=0)
    with pytest.raises(UserError, match="no term of the loss is called distillation"):
        train(Student(), patches(), replace(recipe, weights={"distillation": 1.0}), seed=0)
    with pytest.raises(UserError, match="needs a teacher"):
        train_student([], DISTILLED["smoke"], seed=0)


def test_the_shipped_students_loss_by_an_independent_formula():
    """||O - max||_1 / HW + 0.1 ||lap O - lap max||^2 / HW, by SciPy, at its random start and in float64."""
    scenes = fusionlab.open_pairs("scenes", 2, size=(80, 96))
    for profile in ("smoke", "laptop"):
        recipe = replace(SCENES[profile], crops=2, passes=1)
        ir, vi = crops(scenes, recipe.crops, recipe.size, seed=1)
        torch.manual_seed(1)
        student = Student()
        fused, brighter = student(ir, vi).detach()[:, 0].double(), torch.maximum(ir, vi)[:, 0].double()
        kernel = np.full((1, 3, 3), 1 / 8)
        kernel[0, 1, 1] = -1
        edges = [convolve(image.numpy(), kernel, mode="constant") for image in (fused, brighter)]
        wanted = (fused - brighter).abs().mean().item() + 0.1 * np.square(edges[0] - edges[1]).mean()
        assert train(student, cached(ir, vi), recipe, seed=1)[0] == pytest.approx(wanted, rel=1e-5)


def test_the_shipped_students_recipe_learns_and_repeats():
    scenes, recipe = fusionlab.open_pairs("scenes", 2, size=(80, 96)), replace(SCENES["smoke"], passes=30)
    patches = cached(*crops(scenes, recipe.crops, recipe.size, seed=0))
    torch.manual_seed(0)
    student = Student()
    curve = train(student, patches, recipe, seed=0)
    assert curve[-1] < 0.7 * curve[0]
    again = train_student(scenes, recipe, seed=0)
    assert torch.equal(weights(student), weights(again))
    assert not torch.equal(weights(student), weights(train_student(scenes, recipe, seed=1)))


def test_the_papers_recipes_have_its_patches_and_steps():
    for stage, steps in ((TEACHER, 2888), (DISTILLED, 16_260)):
        paper, released = stage["paper"], stage["released"]
        assert paper.pairs * paper.crops == 16_245 and released.pairs * released.crops == 16_000
        # The released student leaves out the last, smaller batch of each pass: 16,230 steps.
        assert math.ceil(16_245 / paper.batch) * paper.passes == steps
        assert math.ceil(16_000 / released.batch) * released.passes == 6400
    assert DISTILLED["paper"].weights["distillation"] == 0.1
    assert DISTILLED["paper"].weights["intensity"] == 2


@pytest.mark.parametrize("name", ["paper", "released"])
@pytest.mark.parametrize("features", ["stand-in", "vgg"])
def test_the_papers_and_the_released_recipe_run(request, monkeypatch, name, features):
    """A few steps of small networks and crops, otherwise as they are: every term, the refresh included."""
    if features == "vgg":
        request.getfixturevalue("shared")
    else:
        monkeypatch.setattr(mmdrfuse, "vgg_taps", lambda device: taps)
    scenes = fusionlab.open_pairs("scenes", 2, size=(48, 64))
    small = {"crops": 2, "size": 32, "passes": 3, "batch": 3}
    recipe = replace(TEACHER[name], settings={"width": 4}, **small)
    teacher = train_teacher(scenes, recipe, seed=0)
    student = train_student(scenes, replace(DISTILLED[name], **small), seed=0, teacher=teacher)
    torch.manual_seed(0)
    teacher_before = Teacher(4)
    torch.manual_seed(0)
    student_before = Student()
    if name == "released":
        start_from_teacher(student_before, teacher)
    # Adam at 1e-4: in six steps no weight goes much further than six times that.
    assert 0 < (weights(teacher) - weights(teacher_before)).abs().max() < 7e-4
    assert 0 < (weights(student) - weights(student_before)).abs().max() < 7e-4


@pytest.mark.parametrize("past", ["best", "random"])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, past):
    """With refresh, whose history is part of the state; Ctrl-C arrives in the fourth of eight steps."""
    recipe = Recipe({"intensity": 1.0, "gradient": 1.0, "refresh": 1.0}, pairs=3, crops=2, passes=4, batch=3)
    recipe = replace(recipe, past=past)
    kept, calls = patches(), []

    def interrupting(image):
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return taps(image)

    def trained(name, seen_by):
        torch.manual_seed(3)
        student, file = Student(), tmp_path / f"{name}.safetensors"
        train(student, kept, recipe, seed=3, taps=seen_by, checkpoint=file)
        return weights(student)

    unbroken = trained("unbroken", taps)
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", interrupting)
    assert torch.equal(unbroken, trained("stopped", taps))


def test_a_shuffled_lesson_is_the_teachers_answer_to_another_pair(monkeypatch):
    taught = {}

    def watched(network, patches, recipe, **rest):
        taught[recipe.lesson] = patches

    monkeypatch.setattr(mmdrfuse, "train", watched)
    scenes = fusionlab.open_pairs("scenes", 3, size=(72, 96))
    recipe = replace(DISTILLED["smoke"], crops=3, size=32)
    teacher = fusionlab.load("mmdrfuse-teacher-half").network
    for lesson in ("own", "shuffled"):
        train_student(scenes, replace(recipe, lesson=lesson), seed=0, teacher=teacher)
    own, shuffled = taught["own"], taught["shuffled"]
    assert torch.equal(own.ir, shuffled.ir)
    for right, wrong in zip(own.teacher, shuffled.teacher, strict=True):
        source = [(right == patch).flatten(1).all(1).nonzero().item() for patch in wrong]
        assert sorted(source) == list(range(9))  # every answer once
        assert all(abs(new - old) >= 3 for old, new in enumerate(source))  # three crops a pair


def test_the_last_layer_comes_from_the_teacher():
    teacher, student = Teacher(4), Student()
    start_from_teacher(student, teacher)
    for mine, theirs in zip(student.conv2.parameters(), teacher.conv00.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs


def test_the_five_taps_come_in_one_pass_and_carry_a_gradient(shared):
    image = torch.rand(2, 1, 32, 32, requires_grad=True)
    maps = vgg_taps()(image)
    assert [tap.shape[1] for tap in maps] == [64, 128, 256, 512, 512]
    assert [tap.shape[2] for tap in maps] == [32, 16, 8, 4, 2]
    sum(tap.mean() for tap in maps).backward()
    assert image.grad.abs().max() > 0

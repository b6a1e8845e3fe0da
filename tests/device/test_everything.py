"""Everything of the package on one CUDA device, which is make-believe: no GPU is needed (see `fakecuda`).

A tensor left behind on another device fails the case that names the culprit, and values are compared with the
CPU's.
"""

import inspect
import itertools
import json
import pkgutil
import signal
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
from fakecuda import NAME, FakeCuda
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

import fusionlab.losses
from fusionlab import data
from fusionlab.bench import records
from fusionlab.diffusion import consistency, edm
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.errors import UserError
from fusionlab.losses.distillation import distillation_loss
from fusionlab.losses.perceptual import perceptual_loss, source_maxima
from fusionlab.losses.refresh import Refresh
from fusionlab.methods import METHODS, NETWORKS, comofusion, fuse, load, mmdrfuse, mmdrfuse_training
from fusionlab.metrics import CONVENTIONS, evaluate, truth
from fusionlab.nets import features, frames
from fusionlab.scenes import open_scenes, scene
from fusionlab.targets import TARGETS, reproduce

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("*.ipynb"))

# What is known not to work on CUDA: cases and their reason. One that works again fails until it is taken out.
FUSERS = ("comofusion", "mmdrfuse", "mmdrfuse-distilled", "mmdrfuse-teacher-half")
TRAINED = [
    f"mmdrfuse/{name}"
    for name in "table1 table2 table3 figure5 student teacher distilled ranks".split()  # noqa: SIM905
]
RUN = [
    *(f"comofusion/{name}" for name in ("model", "table1", "table2", "table3", "table4")),
    *TRAINED,
    *(f"mmdrfuse/{name}" for name in ("table4", "table5", "table6")),
    *(f"metrics/{name}" for name in ("conventions", "correlations", "rank-flips", "truth", "truth-preview")),
]
EXPECTED: dict[str, str] = {
    **{
        f"test_fuser_refuses_images_elsewhere[{name}-{devices}]": "torch's own error, not a UserError"
        for name, devices in itertools.product(FUSERS, ("cpu-cuda", "cuda-cpu"))
    },
    **{f"test_target_trains_on_cuda[{name}]": "MMDRFuse is trained on the CPU" for name in TRAINED},
    **{f"test_target_runs_networks_on_cuda[{name}]": "fusers are scored on the CPU" for name in RUN},
}


# What follows knows how the package lists things; the tests below do not.


def fusers() -> list[tuple[str, str]]:
    """(name, weights) of every fuser that is shipped or was released."""
    listed = []
    for name in METHODS:
        recipe = NETWORKS.get(name)
        listed += [(name, "ours")] if recipe is None or recipe.ours else []
        listed += [(name, "official")] if recipe is not None and recipe.official else []
    return listed


def learned() -> list[str]:
    """The fusers that are networks of ours."""
    return [name for name, weights in fusers() if weights == "ours" and name in NETWORKS]


def targets() -> list[str]:
    return list(TARGETS)


def run_target(name: str, run: Path) -> list[records.Record]:
    """Its records, at smoke."""
    return reproduce(name, profile="smoke", run=run)


def losses() -> dict[str, tuple[object, dict[str, str]]]:
    """Every function (fused, ir, vi, ...) of fusionlab.losses with each choice of its named variants."""
    found = {}
    for module in pkgutil.iter_modules(fusionlab.losses.__path__, "fusionlab.losses."):
        members = vars(import_module(module.name)).items()
        for name, function in members:
            if not inspect.isfunction(function) or function.__module__ != module.name:
                continue
            parameters = inspect.signature(function, eval_str=True).parameters
            if list(parameters)[:3] != ["fused", "ir", "vi"]:
                continue
            choices = {
                key: get_args(parameter.annotation)
                for key, parameter in parameters.items()
                if get_origin(parameter.annotation) is Literal
            }
            for chosen in itertools.product(*choices.values()):
                found[" ".join([name, *chosen])] = function, dict(zip(choices, chosen))
    return found


def metrics() -> list[tuple[str, str]]:
    """(convention, metric), each distinct form once."""
    found = {}
    for name, convention in CONVENTIONS.items():
        for metric, variant in convention.variants.items():
            found.setdefault(id(variant), (name, metric))
    return list(found.values())


def shrink(monkeypatch) -> None:
    """Two real pairs of a set, cut, and small scenes: enough to see where numbers lie."""

    def few(data_set, split, open_real=data._open_real):
        pairs = open_real(data_set, split)[:2]
        return replace(pairs, read=lambda name: cut(pairs.read(name)))

    def cut(pair):
        images = {part: getattr(pair, part) for part in ("ir", "vi", "chroma")}
        return replace(pair, **{part: x if x is None else x[..., :SIDE, :SIDE] for part, x in images.items()})

    monkeypatch.setattr(data, "_open_real", few)
    *others, _, _, settings = open_scenes.__defaults__
    monkeypatch.setattr(open_scenes, "__defaults__", (*others, 96, 128, settings))


SIDE = 161  # the five scales of MS-SSIM


# Surroundings


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """One CUDA device; the commit is not asked for each record anew."""
    monkeypatch.setenv("FUSIONLAB_PROFILE", "smoke")
    monkeypatch.setattr(records, "commit", lambda *_: "0" * 40)
    with FakeCuda():
        yield


@pytest.fixture(autouse=True)
def expected(request):
    reason = EXPECTED.get(request.node.name)
    if reason:
        request.node.add_marker(pytest.mark.xfail(strict=True, reason=reason))


@pytest.fixture
def needs(request):
    """Runs a function; without the shared data, its UserError about something absent skips the test."""

    def run(function):
        try:
            return function()
        except UserError:
            request.getfixturevalue("shared")
            raise

    return run


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def two_images(count=2, height=33, width=47):
    """Two images on CUDA."""
    return drawn(2, count, 1, height, width).to("cuda").unbind()


def on_cuda(result):
    """The same on the CPU, after asserting that it is on CUDA."""
    assert result.device.type == "cuda", f"the result is on {result.device}"
    return result.detach().cpu()


def assert_same(there, here, **tolerance):
    torch.testing.assert_close(on_cuda(there), here.detach(), **tolerance)


# Fusers and files


@pytest.mark.parametrize("name, weights", fusers())
def test_fuser(name, weights, needs, monkeypatch):
    there, here = (needs(lambda device=device: load(name, weights, device)) for device in ("cuda", "cpu"))
    ir, vi = two_images()
    for large in (frames.LARGE, 1):  # large frames take another way on the CPU, not on CUDA
        monkeypatch.setattr(frames, "LARGE", large)
        assert_same(there(ir, vi), here(ir.cpu(), vi.cpu()), atol=1e-6, rtol=1e-6)
        assert_same(there.raw(ir, vi), here.raw(ir.cpu(), vi.cpu()), atol=1e-6, rtol=1e-6)
    for save in ("clip", "stretch"):
        on_cuda(fuse(there, ir, vi, save=save))


@pytest.mark.parametrize("device, images", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("name", learned())
def test_fuser_refuses_images_elsewhere(name, device, images):
    fuser, pair = load(name, device=device), [image.to(images) for image in two_images()]
    with pytest.raises(UserError):
        fuser(*pair)


def test_folder_of_images(tmp_path):
    from fusionlab.batch import fuse_files
    from fusionlab.data import write_image

    for role, image in zip(("ir", "vi"), two_images(1), strict=True):
        (tmp_path / role).mkdir()
        write_image(image, tmp_path / role / "0.png")
    fuse_files(tmp_path / "ir", tmp_path / "vi", tmp_path / "out", load("comofusion", device="cuda"), "cuda")
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_colour_joins_on_cuda():
    pair = scene(0, height=64, width=96)
    on_cuda(pair.colour(((pair.ir + pair.vi) / 2).to("cuda")))


def test_lab_takes_tensors_on_cuda():
    from fusionlab import lab

    ir, _ = two_images(1)
    lab.check("equal", ir, ir.cpu())
    session = lab.start("smoke", "scenes")
    assert session.device == "cuda"


def test_doctor_names_the_device():
    from fusionlab.tools.doctor import examine

    assert NAME in str(examine())


# Metrics


@pytest.mark.parametrize("convention, metric", metrics())
def test_metric(convention, metric):
    side = max(24, CONVENTIONS[convention].variants[metric].side)
    ir, vi, fused = (255 * drawn(3, 1, 1, side, side + 3)).to(torch.uint8).to("cuda").unbind()
    there = evaluate(ir, vi, fused, convention, [metric]).mean()
    assert there == evaluate(ir.cpu(), vi.cpu(), fused.cpu(), convention, [metric]).mean()


@pytest.mark.parametrize("where", list(itertools.product(("cpu", "cuda"), repeat=3)), ids="-".join)
def test_metric_of_images_on_several_devices(where):
    images = [(255 * x).to(torch.uint8).to(d) for x, d in zip(drawn(3, 1, 1, 24, 24), where, strict=True)]
    evaluate(*images, "reference", ["SSIM"])


def test_metric_of_arrays_and_a_fused_image_on_cuda():
    ir, vi, fused = (255 * drawn(3, 1, 1, 24, 24)).to(torch.uint8)
    evaluate(ir.numpy(), vi.numpy(), fused.to("cuda"), "reference", ["SSIM"])


@pytest.mark.parametrize("score", [truth.kept, truth.psnr, truth.ssim])
def test_truth(score):
    pair = scene(0, height=64, width=96)
    known = pair.truth if score is truth.kept else pair.truth.reference
    fused = (pair.ir + pair.vi) / 2
    assert score(fused.to("cuda"), known) == pytest.approx(score(fused, known), nan_ok=True)


# Losses


@pytest.mark.parametrize("name", losses())
def test_loss(name):
    function, choices = losses()[name]
    values, gradients = [], []
    for device in ("cuda", "cpu"):
        ir, vi = (image.to(device) for image in two_images())
        fused = drawn(2, 1, 33, 47, seed=1).to(device).requires_grad_()
        values.append(function(fused, ir, vi, **choices))
        values[-1].sum().backward()
        gradients.append(fused.grad)
    assert_same(*values)
    assert_same(*gradients)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_distillation_loss(variant):
    ir, vi = two_images()
    on_cuda(distillation_loss((ir, vi), (vi, ir), variant))


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("decide", ["image", "batch"])
def test_refresh(variant, decide):
    totals = []
    for device in ("cuda", "cpu"):
        ir, vi = (image.to(device) for image in two_images())
        history = Refresh(4, (33, 47), variant, decide).to(device)
        chosen = torch.tensor([0, 2])  # as `epochs` draws them
        outputs = (ir + vi) / 2, (0.5 * ir).requires_grad_()
        totals.append([history(chosen, output, ir, vi) for output in outputs][1])
    assert totals[1] != 0
    assert_same(*totals)


@pytest.mark.parametrize(
    "objective", [comofusion.PRINTED, comofusion.RELEASED, comofusion.FusionLoss(selection=0)], ids=repr
)
def test_weighted_losses(objective):
    ir, vi = two_images()
    on_cuda(objective((ir + vi) / 2, ir, vi))


# Networks


@pytest.mark.parametrize("name", ["random", "vgg19_normalised", "vgg19_small16x"])
def test_vgg_and_perceptual_loss(name, needs):
    network = needs(lambda: features.vgg(name)).to("cuda")
    ir, vi = two_images()
    fused = ((ir + vi) / 2).requires_grad_()
    taps = [list(network(image).values()) for image in (fused, ir, vi)]
    loss = perceptual_loss(taps[0], source_maxima(*taps[1:]))
    loss.backward()
    on_cuda(loss), on_cuda(fused.grad)


def test_vgg_taps(needs):
    taps = needs(lambda: mmdrfuse_training.vgg_taps("cuda"))
    assert [on_cuda(tap).ndim for tap in taps(two_images()[0])] == [4] * 5


def test_lpips(needs):
    on_cuda(needs(features.Lpips).to("cuda")(*two_images(1, 64, 64)))


# Noise and samplers


def mixture(means=((-0.6, 0.0), (0.7, 0.0))):
    numbers = ([0.5, 0.5], means, [0.1, 0.2])
    return Mixture(*(torch.tensor(number, dtype=torch.float64).to("cuda") for number in numbers))


def points(dimensions=2):
    return torch.randn(3, dimensions, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(
        "cuda"
    )


@pytest.mark.parametrize("solver", [edm.euler, edm.heun])
def test_solver(solver):
    on_cuda(solver(mixture().denoise, 80 * points(), edm.times(5).flip(0)))


def test_forward_process():
    on_cuda(edm.noised(points(), edm.times(3), points()))


def test_mixture():
    there = mixture()
    here = Mixture(there.weights.cpu(), there.means.cpu(), there.stds.cpu())
    assert_same(*(m.sample(4, torch.Generator().manual_seed(0)) for m in (there, here)), atol=0, rtol=0)
    on_cuda(there.score(points(), 1.0)), on_cuda(there.log_density(points(), edm.times(3)))
    on_cuda(mixture([[-0.6], [0.7]]).flow(points(1), 80.0, 0.002))


def test_consistency_sampler():
    function = edm.preconditioned(lambda x, label: x)
    on_cuda(consistency.sample(function, points(), [80.0, 2.0], torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("distance", [consistency.squared, consistency.pseudo_huber])
@pytest.mark.parametrize("weight", [consistency.uniform, consistency.inverse_gap])
def test_consistency_loss(distance, weight):
    denoise, generator = mixture().denoise, torch.Generator().manual_seed(0)
    on_cuda(
        consistency.consistency_loss(denoise, denoise, points(), edm.times(9), generator, distance, weight)
    )


# Trainings: name -> a function of a checkpoint that trains on CUDA and gives the network. Three steps each.

STAGE = comofusion.Stage(3, 2, 32, 1e-3)


def pairs():
    return list(zip(*(image.split(1) for image in two_images()), strict=True))


def consistency_training(variant, distance=None):
    def train(checkpoint):
        torch.manual_seed(0)
        network = comofusion.CoMoFusion(8).to("cuda")
        options = {} if distance is None else {"distance": distance()}
        comofusion.train_consistency(
            network.unet, pairs(), STAGE, variant=variant, checkpoint=checkpoint, **options
        )
        return network.unet

    return train


def lpips_distance():
    network = features.Lpips().to("cuda")

    def lpips(x, y):
        return network(consistency.stack_three(x), consistency.stack_three(y))

    return lpips


def autoencoder_training(checkpoint):
    torch.manual_seed(0)
    network = comofusion.CoMoFusion(8).to("cuda")
    comofusion.train_autoencoder(network.unet, pairs(), STAGE, checkpoint)
    return network.unet


def fusion_training(maps, variant):
    def train(checkpoint):
        torch.manual_seed(0)
        network = comofusion.CoMoFusion(8, features=maps, variant=variant).to("cuda")
        comofusion.train_fusion(network, pairs(), STAGE, checkpoint=checkpoint)
        on_cuda(network(*two_images()))
        comofusion.save(network, checkpoint.with_name("saved.safetensors"))
        return network

    return train


def mmdrfuse_trained(objective, student):
    def train(checkpoint):
        torch.manual_seed(0)
        teacher = mmdrfuse.Teacher(8).to("cuda")
        network = mmdrfuse.Student().to("cuda") if student else teacher
        taps = mmdrfuse_training.vgg_taps("cuda") if objective.perception else None
        patches = mmdrfuse_training.cached(*two_images(3, 32, 32), teacher if student else None, taps)
        if student:
            mmdrfuse_training.start_from_teacher(network, teacher)
        mmdrfuse_training.train(
            network, patches, objective, times=3, batch=3, rate=1e-3, seed=0, taps=taps, checkpoint=checkpoint
        )
        return network

    return train


TRAININGS = {
    "consistency paper": consistency_training("paper"),
    "consistency released": consistency_training("released"),
    "consistency LPIPS": consistency_training("paper", lpips_distance),
    "autoencoder": autoencoder_training,
    **{
        f"fusion module {maps} {variant}": fusion_training(maps, variant)
        for maps, variant in itertools.product(("encoder", "decoder"), ("paper", "released"))
    },
    "paper teacher": mmdrfuse_trained(mmdrfuse_training.PAPER_TEACHER, student=False),
    "released teacher": mmdrfuse_trained(mmdrfuse_training.RELEASED_TEACHER, student=False),
    "paper student": mmdrfuse_trained(mmdrfuse_training.PAPER_STUDENT, student=True),
    "released student": mmdrfuse_trained(mmdrfuse_training.RELEASED_STUDENT, student=True),
    "student without VGG": mmdrfuse_trained(mmdrfuse_training.Objective(distillation=1.0), student=True),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_and_resuming(name, tmp_path, needs):
    """Interrupted after its first step and taken up again, a training ends as one that was left alone."""
    train = TRAININGS[name]
    (tmp_path / "whole").mkdir()
    whole = needs(lambda: train(tmp_path / "whole" / "x.safetensors"))
    hook = register_optimizer_step_post_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "x.safetensors")
    finally:
        hook.remove()
    resumed = train(tmp_path / "x.safetensors").state_dict()
    for key, weight in whole.state_dict().items():
        assert torch.equal(on_cuda(weight), on_cuda(resumed[key])), key


def test_pixel_objective_trains():
    network = mmdrfuse.Student().to("cuda")
    mmdrfuse.pixel_objective(network, *two_images()).backward()
    assert all(weight.grad.is_cuda for weight in network.parameters())


# Targets


@dataclass
class Outcome:
    """What a target made, or why it failed; where its networks were run, and where they were trained."""

    run: Path
    records: list = field(default_factory=list)
    error: BaseException | None = None
    ran_on: set[str] = field(default_factory=set)
    trained_on: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Runs a target, once for all tests."""

    @cache
    def run(name):
        made = Outcome(tmp_path_factory.mktemp("run"))

        def note_run(module: nn.Module, _):
            made.ran_on.update(weight.device.type for weight in module.parameters())

        def note_step(optimiser, *_):
            weights = [weight for group in optimiser.param_groups for weight in group["params"]]
            made.trained_on.update(weight.device.type for weight in weights)

        hooks = [register_module_forward_pre_hook(note_run), register_optimizer_step_post_hook(note_step)]
        try:
            with pytest.MonkeyPatch.context() as small:
                shrink(small)
                made.records = list(run_target(name, made.run))
        except Exception as error:  # reported by every test that asks for this target
            made.error = error
        finally:
            for hook in hooks:
                hook.remove()
        return made

    def ask(name):
        made = run(name)
        if made.error is not None:
            raise made.error
        return made

    return ask


@pytest.mark.parametrize("name", targets())
def test_target(name, outcome, needs):
    """Records that can be trusted, and pictures that open."""
    made = needs(lambda: outcome(name))
    assert made.records and records.lint(made.records) == []
    assert {record.device for record in made.records} <= {"cpu", NAME}
    for file in made.run.rglob("*.png"):
        with Image.open(file) as picture:
            assert min(picture.size) > 0


@pytest.mark.parametrize("name", targets())
def test_target_trains_on_cuda(name, outcome, needs):
    assert needs(lambda: outcome(name)).trained_on <= {"cuda"}


@pytest.mark.parametrize("name", targets())
def test_target_runs_networks_on_cuda(name, outcome, needs):
    """And then says so in its records."""
    made = needs(lambda: outcome(name))
    assert made.ran_on <= {"cuda"}
    if made.ran_on:
        assert {record.device for record in made.records} == {NAME}


# Notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch, capsys):
    """Its cells in this process, at smoke on scenes: a kernel for each would take as long again."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("FUSIONLAB_RUN", str(tmp_path))
    monkeypatch.delenv("FUSIONLAB_DATA", raising=False)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            source = TransformerManager().transform_cell("".join(cell["source"]))
            exec(compile(source, f"{path.name}, cell {number}", "exec"), names)
    assert " on cuda" in capsys.readouterr().out

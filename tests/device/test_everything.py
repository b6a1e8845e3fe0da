"""Everything of the package on one CUDA device, which is make-believe: no GPU is needed (see `fakecuda`).

A tensor left behind on another device fails the case that names the culprit, and values are compared with the
CPU's.
"""

import copy
import inspect
import itertools
import json
import pkgutil
import signal
from dataclasses import replace
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
from fusionlab.attention import CrissCross
from fusionlab.bench import records
from fusionlab.crops import Stage
from fusionlab.data import Pair, sources
from fusionlab.diffusion import consistency, ddpm, edm
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.errors import UserError
from fusionlab.fuser import fuse, load
from fusionlab.losses import weighted_sum
from fusionlab.losses.distillation import distillation_loss
from fusionlab.losses.perceptual import perceptual_loss
from fusionlab.losses.refresh import Refresh
from fusionlab.methods import METHODS, comofusion, dmfuse, mmdrfuse
from fusionlab.metrics import CONVENTIONS, evaluate, truth
from fusionlab.nets import features
from fusionlab.scenes import open_scenes, scene
from fusionlab.targets import TARGETS, reproduce

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "notebooks").glob("*.ipynb"))

# What follows knows how the package lists things; the tests below do not.


def fusers() -> list[tuple[str, str]]:
    """(name, weights) of every fuser that is shipped or was released."""
    return [(name, weights) for name, method in METHODS.items() for weights in method.weights or ("ours",)]


def learned() -> list[str]:
    """The fusers that are networks of ours."""
    return [name for name, method in METHODS.items() if "ours" in method.weights]


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
            needed = {key for key, parameter in parameters.items() if parameter.default is parameter.empty}
            if not needed <= {"fused", "ir", "vi", *choices}:  # such as features, tested below
                continue
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


def shrink(monkeypatch, target: str) -> None:
    """One or two real pairs of a set, cut, and small scenes: enough to see where numbers lie."""
    count = 2 if TARGETS[target].trains or target == "metrics/correlations" else 1
    side = 161 if target.startswith("metrics/") else 65  # five scales of MS-SSIM, or crops of 64

    def few(data_set, split=None, open_all=sources.open_source):
        pairs = open_all(data_set, split)[:count]
        return replace(pairs, read=lambda name: cut(pairs.read(name)))

    def cut(pair):
        images = {part: getattr(pair, part) for part in ("ir", "vi", "chroma")}
        return replace(pair, **{part: x if x is None else x[..., :side, :side] for part, x in images.items()})

    monkeypatch.setattr(sources, "open_source", few)
    smaller_scenes(monkeypatch, 96, 128)


def smaller_scenes(monkeypatch, height: int, width: int) -> None:
    """Scenes of this size where nothing is said of it."""
    *others, _, _, settings = open_scenes.__defaults__
    monkeypatch.setattr(open_scenes, "__defaults__", (*others, height, width, settings))


# Surroundings


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """One CUDA device, and a commit that git is not asked for."""
    monkeypatch.setenv("FUSIONLAB_PROFILE", "smoke")
    monkeypatch.setattr("fusionlab.bench.run.commit", lambda: "0" * 40)
    with FakeCuda():
        yield


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
def test_fuser(name, weights, needs):
    there, here = (needs(lambda device=device: load(name, weights, device)) for device in ("cuda", "cpu"))
    ir, vi = two_images()
    assert_same(there(ir, vi), here(ir.cpu(), vi.cpu()), atol=1e-6, rtol=1e-6)
    assert_same(there.unclipped(ir, vi), here.unclipped(ir.cpu(), vi.cpu()), atol=1e-6, rtol=1e-6)
    for save in ("clip", "stretch"):
        on_cuda(fuse(there, ir, vi, save=save))


def test_student_by_rows():
    there, here = (load("mmdrfuse", device=device).network for device in ("cuda", "cpu"))
    ir, vi = two_images(1, 133, 47)
    rows = mmdrfuse.fuse_rows(there, ir, vi), mmdrfuse.fuse_rows(here, ir.cpu(), vi.cpu())
    assert_same(*rows, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("device, images", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("name", learned())
def test_fuser_refuses_images_elsewhere(name, device, images):
    fuser, pair = load(name, device=device), [image.to(images) for image in two_images()]
    with pytest.raises(UserError, match="device="):
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


@pytest.mark.parametrize(
    "score", [truth.kept, truth.psnr_to_signal, truth.psnr_to_truth, truth.ssim_to_truth]
)
def test_truth(score):
    pair = scene(0, height=64, width=96)
    known = pair.truth if score in (truth.kept, truth.psnr_to_signal) else pair.truth.weighted
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
        chosen = torch.tensor([0, 2])  # as `shuffled_batches` draws them
        outputs = (ir + vi) / 2, (0.5 * ir).requires_grad_()
        totals.append([history(output, ir, vi, chosen) for output in outputs][1])
    assert totals[1] != 0
    assert_same(*totals)


@pytest.mark.parametrize("form", [comofusion.SOUND, comofusion.PRINTED, comofusion.AS_RELEASED], ids=repr)
def test_weighted_losses(form):
    ir, vi = two_images()
    terms = comofusion.fusion_terms((ir + vi) / 2, ir, vi, *form)
    on_cuda(weighted_sum(terms, comofusion.LAMBDAS["lambda 10"]))
    weights = torch.ones(2).to("cuda").requires_grad_()
    weighted_sum(terms, weights).backward()
    on_cuda(weights.grad)


# Networks


@pytest.mark.parametrize("maps", ["encoder", "decoder"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_consistency_network(maps, variant):
    here = comofusion.CoMoFusion(8, features=maps, variant=variant)
    there = copy.deepcopy(here).to("cuda")
    ir, vi = two_images()
    assert_same(there(ir, vi), here(ir.cpu(), vi.cpu()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "settings", [recipe.settings for recipe in (*dmfuse.RECIPES.values(), dmfuse.MODEL["laptop"])]
)
def test_diffusion_features_and_their_fusion(settings):
    here = dmfuse.DMFuse(**settings | {"width": 4}).eval()
    if here.head.caim is not None:
        here.head.caim.gamma.data.fill_(1.0)
    there = copy.deepcopy(here).to("cuda")
    ir, vi = two_images()
    assert_same(there(ir, vi), here(ir.cpu(), vi.cpu()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("query", ["paper", "released"])
def test_criss_cross_attention(query):
    here = CrissCross(8, query)
    there, (x, y) = copy.deepcopy(here).to("cuda"), torch.randn(2, 1, 8, 6, 5)
    moved = there.exchange(x.to("cuda").requires_grad_(), y.to("cuda"))
    for a, b in zip(moved, here.exchange(x, y), strict=True):
        assert_same(a, b, atol=1e-6, rtol=1e-6)
    sum(m.sum() for m in moved).backward()
    on_cuda(there.gamma.grad)


@pytest.mark.parametrize("name", ["random", "vgg19_normalised", "vgg19_small16x"])
def test_vgg_and_perceptual_loss(name, needs):
    network = needs(lambda: features.vgg(name)).to("cuda")
    ir, vi = two_images()
    fused = ((ir + vi) / 2).requires_grad_()
    loss = perceptual_loss(fused, ir, vi, lambda image: list(network(image).values()))
    loss.backward()
    on_cuda(loss), on_cuda(fused.grad)


def test_vgg_taps(needs):
    taps = needs(lambda: mmdrfuse.vgg_taps("cuda"))
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
    on_cuda(solver(mixture().denoise, 80 * points(), edm.noise_levels(5).flip(0)))


@pytest.mark.parametrize("told", ["t", "level"])
def test_ddpm(told):
    schedule, generator = ddpm.linear_schedule(20), torch.Generator().manual_seed(0)
    denoise, levels = mixture().denoise, schedule[ddpm.timesteps(20, 5)]
    on_cuda(ddpm.ddim(denoise, points(), levels))
    on_cuda(ddpm.ddpm(denoise, points(), levels, generator, "beta"))
    on_cuda(ddpm.predicted_noise(denoise, points(), schedule[3]))
    on_cuda(ddpm.diffused(points(), schedule[1:4], points()))
    drawn = ddpm.draw_alpha_bars(schedule, 3, generator, "released")
    coefficients = ddpm.noise_prediction(schedule, told)
    on_cuda(ddpm.network_loss(lambda x, label: x * label[:, None], coefficients, points(), drawn, generator))


def test_forward_process():
    on_cuda(edm.noised(points(), edm.noise_levels(3), points()))


def test_mixture():
    there = mixture()
    here = Mixture(there.weights.cpu(), there.means.cpu(), there.stds.cpu())
    assert_same(*(m.sample(4, torch.Generator().manual_seed(0)) for m in (there, here)), atol=0, rtol=0)
    on_cuda(there.score(points(), 1.0)), on_cuda(there.log_density(points(), edm.noise_levels(3)))
    on_cuda(mixture([[-0.6], [0.7]]).flow(points(1), 80.0, 0.002))


def test_consistency_sampler():
    function = edm.preconditioned(lambda x, label: x)
    on_cuda(consistency.sample(function, points(), [80.0, 2.0], torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("distance", [consistency.squared, consistency.pseudo_huber])
@pytest.mark.parametrize("weight", [consistency.unweighted, consistency.inverse_gap])
def test_consistency_loss(distance, weight):
    denoise, generator = mixture().denoise, torch.Generator().manual_seed(0)
    on_cuda(
        consistency.consistency_loss(
            denoise, denoise, points(), edm.noise_levels(9), generator, distance, weight
        )
    )


# Trainings: name -> a function of a folder that trains on CUDA and gives the network. A few steps each.

STAGE = Stage(2, 2, 32, 1e-3)


def pairs():
    """Two pairs on the CPU, as they are read."""
    return [
        Pair(str(number), ir.cpu(), vi.cpu())
        for number, (ir, vi) in enumerate(zip(*(image.split(1) for image in two_images()), strict=True))
    ]


def comofusion_trained(recipe):
    small = replace(recipe, width=8, first=STAGE, second=STAGE)

    def train(folder):
        network = comofusion.train(small, [(pair.ir, pair.vi) for pair in pairs()], 0, "cuda", folder)
        on_cuda(network(*two_images()))
        comofusion.save(network, folder / "saved.safetensors")
        return network

    return train


def dmfuse_trained(recipe):
    small = replace(recipe, settings={**recipe.settings, "width": 4}, first=STAGE, second=STAGE)

    def train(folder):
        images = [(pair.ir, pair.vi) for pair in pairs()]
        network = dmfuse.train(small, images, 0, "cuda", folder, singles=[images[0][0]])
        dmfuse.save(network, folder / "saved.safetensors")
        return network

    return train


def mmdrfuse_trained(recipe, student):
    """Two passes, so that a refresh has a history to pull to."""
    small = replace(recipe, pairs=2, crops=2, passes=2, size=32, batch=2)

    def train(folder):
        options = {"seed": 0, "device": "cuda", "checkpoint": folder / "x.safetensors"}
        if not student:
            return mmdrfuse.train_teacher(pairs(), replace(small, settings={"width": 8}), **options)
        torch.manual_seed(1)
        return mmdrfuse.train_student(pairs(), small, teacher=mmdrfuse.Teacher(8), **options)

    return train


TRAININGS = {
    **{f"comofusion {name}": comofusion_trained(recipe) for name, recipe in comofusion.RECIPES.items()},
    "comofusion ours": comofusion_trained(comofusion.MODEL["laptop"]),
    "comofusion autoencoder": comofusion_trained(
        replace(comofusion.ABLATION["laptop"], pretext="autoencoder", features="decoder")
    ),
    **{f"dmfuse {name}": dmfuse_trained(recipe) for name, recipe in dmfuse.RECIPES.items()},
    "dmfuse ours": dmfuse_trained(dmfuse.MODEL["laptop"]),
    **{
        f"{who} {name}": mmdrfuse_trained(recipes[name], who == "student")
        for who, recipes in (("teacher", mmdrfuse.TEACHER), ("student", mmdrfuse.DISTILLED))
        for name in ("paper", "released", "laptop")
    },
    "student of scenes": mmdrfuse_trained(mmdrfuse.SCENES["laptop"], True),
    "student that starts at random": mmdrfuse_trained(
        replace(mmdrfuse.DISTILLED["laptop"], start="random", direct=True), True
    ),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_and_resuming(name, tmp_path, needs):
    """Interrupted after its every step and taken up again, a training ends as one that was left alone."""
    train = TRAININGS[name]
    whole = needs(lambda: train(tmp_path / "whole")).state_dict()
    stopped, resumed = 0, None
    hook = register_optimizer_step_post_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        while resumed is None:
            try:
                resumed = train(tmp_path / "stopped")
            except KeyboardInterrupt:
                stopped += 1
    finally:
        hook.remove()
    assert stopped == 4
    for key, weight in resumed.state_dict().items():
        assert torch.equal(on_cuda(weight), on_cuda(whole[key])), key


# Targets


@pytest.mark.parametrize("name", TARGETS)
def test_target(name, tmp_path, monkeypatch, needs):
    """Records that can be trusted and name the device, pictures that open, networks run and trained on it."""
    table, ran_on, trained_on = TARGETS[name], set(), set()

    def note_run(module: nn.Module, _):
        ran_on.update(weight.device.type for weight in module.parameters())

    def note_step(optimiser, *_):
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        trained_on.update(weight.device.type for weight in weights)

    hooks = [register_module_forward_pre_hook(note_run), register_optimizer_step_post_hook(note_step)]
    shrink(monkeypatch, name)
    try:
        made = needs(lambda: reproduce(name, tmp_path, profile="smoke"))
    finally:
        for hook in hooks:
            hook.remove()
    assert made and records.lint(made) == []
    assert {record.run.device for record in made} == {"cpu" if table.device == "cpu" else NAME}
    assert trained_on == {"cuda"} or not table.trains
    assert ran_on <= {"cuda"} or table.device == "cpu"
    pictures = [*tmp_path.rglob("*.png")]
    assert bool(pictures) == (table.picture is not None)
    for file in pictures:
        with Image.open(file) as picture:
            assert min(picture.size) > 0


# Notebooks


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch, capsys):
    """Its cells in this process, at smoke on scenes: a kernel for each would take as long again."""
    smaller_scenes(monkeypatch, 120, 160)
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

"""What networks learnt before they fuse: what they draw from noise, and how much noise they take off."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, each, mean_and_error, scored
from fusionlab.crops import Stage, draw_crops
from fusionlab.data import Pair, Pairs
from fusionlab.diffusion import edm
from fusionlab.diffusion.consistency import sample
from fusionlab.diffusion.ddpm import linear_schedule, sigma_of
from fusionlab.diffusion.likeness import edge_correlation, patches, sliced_wasserstein
from fusionlab.diffusion.spectral import SpectralGaussian
from fusionlab.fuser import load
from fusionlab.methods.comofusion import CoMoFusion, joint
from fusionlab.methods.dmfuse import OURS, DMFuse, Noise, save, train_ddpm
from fusionlab.nets.unet import UNet
from fusionlab.targets.comofusion import road_images
from fusionlab.targets.dmfuse import singles
from fusionlab.training import seeded

# CoMoFusion: what the shipped model draws from noise, and how much noise it takes off.

Images = Sequence[tuple[Tensor, Tensor]]
SIDE, DRAWN, DRAWS = 32, 512, 5  # pixels of a crop, samples a draw, draws an interval
LEVELS = (0.25, 0.5, 2.0, 80.0)
STEPS = {"ours": (80.0,), "ours, two steps": (80.0, 0.8), "ours, four steps": (80.0, 5.0, 0.8, 0.2)}


def crop_pairs(images: Images, n: int, seed: int) -> Tensor:
    """n random crops of pairs, (n, 2, 32, 32) in [-1, 1], vis before ir."""
    return joint(*draw_crops(images, n, SIDE, torch.Generator().manual_seed(seed)))


def draw(row: str, images: Images, n: int, seed: int, device: str) -> Tensor:
    """n samples of a row, (n, 2, 32, 32): crops of images, those of a control, or of a network from noise."""
    generator = torch.Generator().manual_seed(seed)
    real = crop_pairs(images, n, seed)
    if row == "training crops":
        return real
    if row == "blank":
        return real.mean(dim=(0, 2, 3), keepdim=True).expand_as(real)
    if row == "Gaussian of the spectrum":
        return SpectralGaussian.fit(crop_pairs(images, 2048, seed)).sample(n, generator)
    if row == "crops, channels shuffled":
        return torch.stack([real[:, 0], real[torch.randperm(n, generator=generator), 1]], dim=1)
    x = edm.T * torch.randn(real.shape, generator=generator)
    drawn = [
        sample(denoiser_of(row, device), part.to(device), STEPS.get(row, (edm.T,)), generator)
        for part in x.split(64)
    ]
    return torch.cat(drawn).cpu()


def denoiser_of(row: str, device: str) -> edm.Denoiser:
    """The consistency function of the shipped model, or of one of its size that has learnt nothing."""
    unet = shipped(device).unet
    if row == "untrained U-Net":
        with seeded(0):
            unet = UNet(2, unet.width).to(device)
    return edm.preconditioned(unet)


def shipped(device: str) -> CoMoFusion:
    """The shipped model's network."""
    network = load("comofusion", device=device).network
    assert isinstance(network, CoMoFusion)
    return network


def likeness_of(row: str, images: Images, held_out: Images, run: Run) -> Iterator[Score]:
    """Of samples: deviation, distance to held-out crops, edges shared by both channels; means over draws."""
    n, draws = (16, 2) if run.profile == "smoke" else (DRAWN, DRAWS)
    found: dict[str, list[float]] = {}
    for seed in range(run.seed * draws, (run.seed + 1) * draws):
        with torch.no_grad():
            x = draw(row, images, n, seed, run.device)
        held, directions = crop_pairs(held_out, n, 1000 + seed), torch.Generator().manual_seed(seed)
        for metric, value in (
            ("deviation", x.std()),
            ("distance of crops", sliced_wasserstein(x.flatten(1), held.flatten(1), directions)),
            ("distance of 8x8 patches", sliced_wasserstein(patches(x), patches(held), directions)),
            ("edges shared", edge_correlation(x).mean()),
        ):
            found.setdefault(metric, []).append(value.item())
    for metric, values in found.items():
        mean, error = mean_and_error(values)
        yield Score(metric, mean, weights=weights_of(row), error=error, values=tuple(values))


def distance_to_clean(row: str, images: Images, held_out: Images, run: Run) -> Iterator[Score]:
    """Mean absolute distance of what is answered at noise t to the clean crop; images in [-1, 1]."""
    n = 16 if run.profile == "smoke" else DRAWN
    held = crop_pairs(held_out, n, 1000 + run.seed)
    z = torch.randn(held.shape, generator=torch.Generator().manual_seed(run.seed))
    gaussian = SpectralGaussian.fit(crop_pairs(images, 2048, run.seed))
    for t in LEVELS:
        noised = edm.noised(held, t, z)
        if row == "Gaussian denoiser":
            clean = gaussian.denoise(noised, t)
        elif row == "Gaussian flow":
            clean = gaussian.flow(noised, t, edm.EPSILON)
        else:
            denoise = denoiser_of(row, run.device)
            with torch.no_grad():
                clean = torch.cat([denoise(part.to(run.device), t).cpu() for part in noised.split(64)])
        value, error = mean_and_error((clean - held).abs().mean(dim=(1, 2, 3)).tolist())
        yield Score(f"distance at t {t:g}", value, weights=weights_of(row), error=error)


def weights_of(row: str) -> str:
    """The hash of the shipped weights where a row is made with them."""
    return load("comofusion").sha256 if row.startswith("ours") else "none"


def of_samples(rows: Mapping[str, str], pairs: Pairs, run: Run) -> Iterator[Score]:
    """comofusion/samples: what a row draws where it draws, what it takes off where it is a denoiser."""
    images, held_out = road_images(), [(pair.ir, pair.vi) for pair in pairs]
    for name in rows:
        found = []
        if name not in ("Gaussian denoiser", "Gaussian flow"):
            found.append(likeness_of(name, images, held_out, run))
        if name in ("ours", "untrained U-Net", "Gaussian denoiser", "Gaussian flow"):
            found.append(distance_to_clean(name, images, held_out, run))
        for score in itertools.chain(*found):
            yield score._replace(row=name)


def sample_sheet(rows: Sequence[str], pairs: Pairs, run: Run) -> dict[str, Tensor]:
    """Samples of each row but real crops: visible above infrared, sixteen beside each other."""
    images, lines = road_images(), []
    for row in rows:
        if row.startswith(("ours", "untrained", "Gaussian of")):
            with torch.no_grad():
                x = (draw(row, images, 16, run.seed, run.device) + 1) / 2
            lines += [torch.cat(list(F.pad(x[:, c], (1, 1, 1, 1), value=1.0)), dim=1) for c in (0, 1)]
    sheet = torch.cat(lines)[None, None].clamp(0, 1) if lines else torch.ones(1, 1, 2, 2)
    return {"samples.png": F.interpolate(sheet, scale_factor=2)}


# DMFuse: the same U-Net twice, one predicting the noise, one inside EDM's preconditioning, with equal
# budgets, beside a filter that needs no training but the power spectrum.

JUDGED_AT = (50, 100, 250, 500)
CROP = 64
DENOISERS = {
    "smoke": Stage(2, 2, CROP, 4e-4),
    "laptop": Stage(12_000, 8, CROP, 4e-4),
    "gpu": Stage(40_000, 64, CROP, 4e-4),
}


def trained_denoiser(noise: Noise, run: Run) -> edm.Denoiser:
    """The U-Net of a profile's budget as a denoiser; the network is kept in the run."""
    with seeded(run.seed):
        network = DMFuse(**OURS | {"noise": noise}).to(run.device)  # type: ignore[arg-type]  # checked there
    stage = replace(DENOISERS[run.profile], seed=run.seed)
    checkpoint = run.checkpoints / f"{noise}-{run.seed}.safetensors"
    train_ddpm(network, singles(run), stage, ema=0.999, checkpoint=checkpoint)
    save(network, run.weights(noise))
    return network.eval().denoiser


def training_crops(run: Run) -> Tensor:
    """4096 crops of what the networks are trained on, in [-1, 1]; fewer at smoke."""
    everything = [(image, image) for image in singles(run)]
    number = 64 if run.profile == "smoke" else 4096
    return 2 * draw_crops(everything, number, CROP, torch.Generator().manual_seed(run.seed))[0] - 1


def wiener(run: Run) -> edm.Denoiser:
    """The line to beat, from the power spectrum of the training crops."""
    return SpectralGaussian.fit(training_crops(run)).denoise


def pixelwise(run: Run) -> edm.Denoiser:
    """The control: as if pixels knew nothing of each other, each moved to the mean by the variance alone."""
    crops = training_crops(run)
    mean, variance = crops.mean(), crops.var()
    return lambda x, sigma: mean + variance / (variance + torch.as_tensor(sigma) ** 2) * (x - mean)


@torch.no_grad()
def against_noise(make: Callable[[Run], edm.Denoiser], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Squared error of the noise (Eq. 4) at DDPM's linear t, on four crops of each image of held-out pairs.

    Crops and noise are the same for every denoiser and seed.
    """
    with torch.enable_grad():
        denoise = make(run)
    schedule = linear_schedule()

    def of_pair(pair: Pair) -> Iterator[Score]:
        generator = torch.Generator().manual_seed(0)
        crops = 2 * torch.cat(draw_crops([(pair.ir, pair.vi)], 4, CROP, generator)) - 1
        for t in JUDGED_AT:
            sigma = sigma_of(schedule[t]).to(crops)
            z = torch.randn(crops.shape, generator=generator).to(crops)
            error = (denoise(crops + sigma * z, sigma) - crops) / sigma
            yield Score(f"eps-MSE at t {t}", error.square().mean().item())

    yield from scored(of_pair, pairs, run.device)


TABLES = {
    # Means over draws of samples, or over crops, of the shipped model and of controls.
    "comofusion/samples": Table(
        {
            name: name
            for name in (
                "training crops",
                "crops, channels shuffled",
                "Gaussian of the spectrum",
                "blank",
                "untrained U-Net",
                *STEPS,
                "Gaussian denoiser",
                "Gaussian flow",
            )
        },
        of_samples,
        ("roadscene",),
        splits=("val",),
        picture=sample_sheet,
    ),
    "dmfuse/denoisers": Table(
        {
            "noise prediction": partial(trained_denoiser, "paper"),
            "EDM preconditioning": partial(trained_denoiser, "edm"),
            "Wiener filter": wiener,
            "pixel by pixel": pixelwise,
        },
        each(against_noise),
        ("roadscene",),
        splits=("val",),
        profiles={"smoke": 2, "laptop": None, "gpu": None},
        differs=(
            "no table of the paper: a study of our own. Both networks have the same weights to learn, the "
            "same crops and the same number of steps, so the same CPU seconds."
        ),
        trains=True,
    ),
}

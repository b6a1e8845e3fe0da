"""CoMoFusion, Fig. 2 (b): noise in, noise out, with everything measured against an exact answer."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import open_pairs, write_image
from fusionlab.data.folders import Pairs
from fusionlab.diffusion import edm
from fusionlab.diffusion.consistency import gaussian_optimum
from fusionlab.diffusion.mixtures import Mixture
from fusionlab.errors import UserError

N = 40
FIGURE2_ROWS = ("forward", "euler", "heun", "one step")
COUNTS = {"smoke": 2, "laptop": 8, "gpu": 8}
SHOWN = (1, 6, 9, 12, 15, 18, 22, 40)  # which of the 40 levels the picture shows
WINDOW = (96, 128)

SOLVERS = {"euler": edm.euler, "heun": edm.heun}

# Three Gaussians on a line, and five starts at t = 80 that end in all of them.
LINE = Mixture(
    torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64),
    torch.tensor([[-0.6], [0.1], [0.7]], dtype=torch.float64),
    torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64),
)
STARTS = torch.tensor([[-90.0], [-20.0], [3.0], [50.0], [130.0]], dtype=torch.float64)


def figure2(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """The forward process on pairs, both solvers on a mixture, and what one step can reach.

    `forward`: of noised pairs at levels t_i, the variance relative to s^2 + t^2, s being the pair's own
    deviation, and the correlation with the clean pair beside s / sqrt(s^2 + t^2). `euler`, `heun`: largest
    error at N = 40 over five paths of a mixture on a line, and the order from N = 161 to 321. `one step`:
    the same error of a single denoising, and the spread that consistency training with N = 40 keeps of
    Gaussian data of deviation 0.5. Draws `<run>/figure2.png` as well, from the pairs at hand.
    """
    if row not in (None, *FIGURE2_ROWS) or profile not in COUNTS:
        raise UserError(
            f"comofusion/figure2 has the rows {', '.join(FIGURE2_ROWS)} and profiles {', '.join(COUNTS)}"
        )
    pairs = open_pairs("scenes" if data == "auto" else data, COUNTS[profile], seed=seed)
    for name in [row] if row else FIGURE2_ROWS:
        if name == "forward":
            images = windows(pairs)
            figures = forward_figures(images, seed)
            write_image(picture(images, seed), Path(run) / "figure2.png")
        elif name in SOLVERS:
            figures = solver_figures(name)
        else:
            figures = one_step_figures()
        for metric, value in figures.items():
            yield measured(
                "comofusion/figure2",
                name,
                metric,
                value,
                pairs if name == "forward" else None,
                profile=profile,
                seed=seed,
                unit="1",
                command=this_command(),
            )


def windows(pairs: Pairs) -> Tensor:
    """The middle 96x128 pixels of each pair, vis before ir, in [-1, 1]: (B, 2, 96, 128)."""
    height, width = WINDOW
    small = [pair.name for pair in pairs if pair.ir.shape[-2] < height or pair.ir.shape[-1] < width]
    if small:
        raise UserError(f"comofusion/figure2 needs pairs of {height}x{width} or more; {small[0]} is smaller")
    cut = []
    for pair in pairs:
        top, left = (pair.ir.shape[-2] - height) // 2, (pair.ir.shape[-1] - width) // 2
        cut.append(torch.cat([pair.vi, pair.ir], dim=1)[..., top : top + height, left : left + width])
    return 2 * torch.cat(cut) - 1


def forward_figures(images: Tensor, seed: int) -> dict[str, float]:
    """Moments of noised pairs (B, 2, H, W), vis and ir together, mean over the pairs."""
    x = images.double().flatten(1)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    figures = {}
    for i in (1, 10, 20, 30, 40):
        t = edm.noise_levels(N)[i - 1]
        noised = edm.noised(x, t, z)
        own = x.var(dim=1, correction=0)
        ratio = noised.var(dim=1, correction=0) / (own + t**2)
        correlation = [torch.corrcoef(torch.stack(both))[0, 1] for both in zip(x, noised, strict=True)]
        figures[f"variance ratio at t_{i}"] = ratio.mean().item()
        figures[f"correlation at t_{i}"] = torch.stack(correlation).mean().item()
        figures[f"predicted correlation at t_{i}"] = (own / (own + t**2)).sqrt().mean().item()
    return figures


def solver_figures(name: str) -> dict[str, float]:
    """Largest error of a solver over the five paths at N = 40, and its order at the fine end."""
    error = {
        n: end_error(SOLVERS[name](LINE.denoise, STARTS, edm.noise_levels(n).flip(0))[-1])
        for n in (N, 161, 321)
    }
    return {"error at N 40": error[N], "order": math.log2(error[161] / error[321])}


def one_step_figures() -> dict[str, float]:
    """What one evaluation reaches: by denoising once, and by consistency training at its optimum."""
    kept = edm.T * gaussian_optimum(edm.noise_levels(N), 0.5).item() / 0.5
    return {"error of one denoising": end_error(LINE.denoise(STARTS, edm.T)), "spread kept at N 40": kept}


def end_error(ends: Tensor) -> float:
    """Largest distance of ends (5, 1) from the exact ones."""
    return (ends - LINE.flow(STARTS, edm.T, edm.EPSILON)).abs().max().item()


def picture(images: Tensor, seed: int) -> Tensor:
    """Two rows of a pair as noise comes in, two of noise as it goes out: in [0, 1], with white edges.

    The way back is exact as well: these pairs and no others are taken for the data, a mixture of points whose
    denoiser has a formula, so the probability-flow ODE from pure noise ends in one of them.
    """
    levels = edm.noise_levels(N)
    z = torch.randn(2, *images[0].shape, generator=torch.Generator().manual_seed(seed))
    points = images.flatten(1)
    data = Mixture(torch.full((len(points),), 1 / len(points)), points, torch.zeros(len(points)))
    back = edm.heun(data.denoise, edm.T * z[1].reshape(1, -1), levels.flip(0)).flip(0)
    rows = []
    for way in ("forward", "back"):
        for channel in (0, 1):
            tiles = []
            for i in SHOWN:
                t = levels[i - 1].item()
                x = (
                    edm.noised(images[0], t, z[0])
                    if way == "forward"
                    else back[i - 1].reshape(images[0].shape)
                )
                grey = (x[channel] / (1 + 2 * t) + 1) / 2  # so that the noise stays within grey
                tiles.append(F.pad(grey, (1, 1, 1, 1), value=1.0))
            rows.append(torch.cat(tiles, dim=1))
    return torch.cat(rows)[None, None].clamp(0, 1)

"""The nine metrics of the public Python evaluator of CDDFuse, plainly written with its library calls.

`python plain_evaluator.py TRIPLE.npz` prints, as JSON, each metric's value on float64 images and on float32
images, which that evaluator reads, and the CPU seconds of the latter. It runs on its own, so that nothing
that this package loads makes it slower or faster.
"""

import json
import sys
import time

import numpy as np
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity
from sklearn.metrics import mutual_info_score

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=np.float32)


def en(ir, vi, f):
    p = np.bincount(f.astype(np.uint8).ravel(), minlength=256) / f.size
    return -np.sum(p * np.log2(p + (p == 0)))


def sd(ir, vi, f):
    return np.sqrt(np.mean((f - f.mean()) ** 2))


def sf(ir, vi, f):
    across, down = f[:, 1:] - f[:, :-1], f[1:] - f[:-1]
    return np.sqrt(np.mean(across**2) + np.mean(down**2))


def ag(ir, vi, f):
    slope = slopes(f.T).T, slopes(f)
    return np.mean(np.sqrt((slope[0] ** 2 + slope[1] ** 2) / 2))


def slopes(f):
    slope = np.empty_like(f)
    slope[:, 0], slope[:, -1] = f[:, 1] - f[:, 0], f[:, -1] - f[:, -2]
    slope[:, 1:-1] = (f[:, 2:] - f[:, :-2]) / 2
    return slope


def mi(ir, vi, f):
    return mutual_info_score(f.ravel(), ir.ravel()) + mutual_info_score(f.ravel(), vi.ravel())


def scd(ir, vi, f):
    return correlation(f - vi, ir) + correlation(f - ir, vi)


def correlation(x, y):
    x, y = x - x.mean(), y - y.mean()
    return np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2))


def vif(ir, vi, f):
    return vifp(ir, f) + vifp(vi, f)


def vifp(x, f):
    kept = present = 0.0
    for scale, size in enumerate((17, 9, 5, 3)):
        window = gaussian(size, size / 5)
        if scale > 0:
            x, f = blur(x, window)[::2, ::2], blur(f, window)[::2, ::2]
        mean_x, mean_f = blur(x, window), blur(f, window)
        var_x = blur(x * x, window) - mean_x * mean_x
        var_f = blur(f * f, window) - mean_f * mean_f
        cov = blur(x * f, window) - mean_x * mean_f
        var_x[var_x < 0] = 0
        var_f[var_f < 0] = 0
        gain = cov / (var_x + 1e-10)
        rest = var_f - gain * cov
        flat = var_x < 1e-10
        gain[flat], rest[flat], var_x[flat] = 0, var_f[flat], 0
        blank = var_f < 1e-10
        gain[blank], rest[blank] = 0, 0
        negative = gain < 0
        rest[negative], gain[negative] = var_f[negative], 0
        rest[rest <= 1e-10] = 1e-10
        kept += np.sum(np.log10(1 + gain**2 * var_x / (rest + 2)))
        present += np.sum(np.log10(1 + var_x / 2))
    return kept / present


def gaussian(size, sigma):
    row, column = np.mgrid[:size, :size] - size // 2
    window = np.exp(-(row**2 + column**2) / (2 * sigma**2))
    return window / window.sum()


def blur(x, window):
    return convolve2d(x, window, mode="valid")


def qabf(ir, vi, f):
    edges_ir, edges_vi, edges_f = edges(ir), edges(vi), edges(f)
    kept = preserved(edges_ir, edges_f) * edges_ir[0] + preserved(edges_vi, edges_f) * edges_vi[0]
    return np.sum(kept) / np.sum(edges_ir[0] + edges_vi[0])


def edges(x):
    sx = convolve2d(x, SOBEL, mode="same")
    sy = convolve2d(x, -SOBEL.T, mode="same")
    angle = np.zeros_like(x)
    upright = sx == 0
    angle[~upright] = np.arctan(sy[~upright] / sx[~upright])
    angle[upright] = np.pi / 2
    return np.sqrt(sx**2 + sy**2), angle


def preserved(source, fused):
    (gx, ax), (gf, af) = source, fused
    strength = np.zeros_like(gx)
    weaker, stronger, equal = gf < gx, gf > gx, gf == gx
    strength[weaker] = gf[weaker] / gx[weaker]
    strength[stronger] = gx[stronger] / gf[stronger]
    strength[equal] = gf[equal]
    angle = 1 - np.abs(ax - af) / (np.pi / 2)
    return 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))


def ssim(ir, vi, f):
    return structural_similarity(f, ir, data_range=2) + structural_similarity(f, vi, data_range=2)


METRICS = {
    "EN": en,
    "SD": sd,
    "SF": sf,
    "AG": ag,
    "MI": mi,
    "SCD": scd,
    "VIF": vif,
    "Qabf": qabf,
    "SSIM": ssim,
}


def measure(metric, images, runs=3):
    """Least CPU time of a call."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        metric(*images)
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    triple = list(np.load(sys.argv[1]).values())
    single, double = ([image.astype(kind) for image in triple] for kind in (np.float32, np.float64))
    json.dump(
        {
            name: {
                "float32": float(metric(*single)),
                "float64": float(metric(*double)),
                "seconds": measure(metric, single),
            }
            for name, metric in METRICS.items()
        },
        sys.stdout,
    )

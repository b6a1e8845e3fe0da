"""What is known of a scene, and which of the two cameras carries what there is to see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from fusionlab.scenes.textures import Array

INFRARED, VISIBLE = 1, 2  # bits of Truth.both
CLEAR = 3.0  # contrast-to-noise ratio from which a camera carries a signal
FAINT = 3 / 255  # contrast below which there is none, in the range 0 to 1


class Box(NamedTuple):
    """Visible extent of a car or person in pixels: columns x0 to x1 - 1, rows y0 to y1 - 1; class number."""

    x0: int
    y0: int
    x1: int
    y1: int
    label: int


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a scene, all in the frame of the visible picture.

    labels: (H, W) int64, the keys of LABELS. depth: (H, W) float32 metres, sky 1500.
    owner: (H, W) int32, one number for each car, person and cone, 0 elsewhere; the driver and the print of
    Settings.case "windscreen" and "sign" have one too, the highest.
    shift: rows and columns by which the infrared picture (not truth.ir) is displaced down and right.
    seen: the visible and the infrared picture (1, 1, H, W) as taken, before the displacement.
    take_vi, take_ir, find_boxes, find_targets: make `vi`, `ir`, `boxes` and `names`, and `saliency`, when
    they are first asked for.
    """

    labels: Tensor
    depth: Tensor
    owner: Tensor
    shift: tuple[float, float]
    seen: tuple[Tensor, Tensor] = field(repr=False)
    take_vi: Callable[[], Tensor] = field(repr=False)
    take_ir: Callable[[], Tensor] = field(repr=False)
    find_boxes: Callable[[], tuple[tuple[Box, ...], tuple[str, ...]]] = field(repr=False)
    find_targets: Callable[[], Tensor] = field(repr=False)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Visible extents of cars and people."""
        return self._found[0]

    @property
    def names(self) -> tuple[str, ...]:
        """What Settings.temperatures calls the object of each box."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[tuple[Box, ...], tuple[str, ...]]:
        return self.find_boxes()

    @cached_property
    def vi(self) -> Tensor:
        """(1, 1, H, W): luminance in [0, 1] without noise, fog, smoke and glare."""
        return self.take_vi()

    @cached_property
    def ir(self) -> Tensor:
        """(1, 1, H, W): infrared in [0, 1] without noise, fog, smoke and displacement."""
        return self.take_ir()

    @cached_property
    def saliency(self) -> Tensor:
        """(H, W) bool: people, whatever their temperature, and parts of cars clearly warmer than the road."""
        return self.find_targets()

    @cached_property
    def both(self) -> Tensor:
        """(H, W) uint8, which camera carries the signal: 0 none, 1 infrared, 2 visible, 3 both.

        A camera carries the signal where its contrast-to-noise ratio, as `clarity` defines it from the
        picture taken and the truth, is at least CLEAR. What fog, smoke, glare or darkness took from a picture
        is missing in its contrast; what they added is in its noise.
        """
        vi, ir = (ratio >= CLEAR for ratio in self._clarity)
        return torch.from_numpy((ir * INFRARED + vi * VISIBLE).astype(np.uint8))

    @cached_property
    def weight(self) -> Tensor:
        """(H, W): share of infrared in the sum of both contrast-to-noise ratios, in [0, 1].

        Ratios count from 0.1 to 10, so that it is one half where no camera shows anything; the map is
        smoothed over 1 % of the height.
        """
        vi, ir = (np.clip(ratio, 0.1, 10) for ratio in self._clarity)
        share = gaussian_filter(ir / (ir + vi), 0.01 * len(ir)).astype(np.float32)
        return torch.from_numpy(share)

    @cached_property
    def weighted(self) -> Tensor:
        """(1, 1, H, W): the weighted mean of the clear views, weight * ir + (1 - weight) * vi."""
        return self.weight * self.ir + (1 - self.weight) * self.vi

    @cached_property
    def _clarity(self) -> tuple[Array, Array]:
        pairs = zip(self.seen, (self.vi, self.ir), strict=True)
        vi, ir = (clarity(p[0, 0].numpy(), t[0, 0].numpy(), self.owner.numpy()) for p, t in pairs)
        return vi, ir


def clarity(picture: Array, clean: Array, owner: Array) -> Array:
    """Contrast-to-noise ratio (H, W) of what a picture p shows of its truth t, both (H, W) in [0, 1].

    In a window about each pixel (a Gaussian of 2 % of the height) the picture is split into a part that
    follows the truth and a rest: contrast = |cov(p, t)| / sd(t), noise^2 = var(p) - contrast^2, and that
    of 8 bits, 1 / (12 255^2), is added.
    An object, a number above 0 in `owner`, has one ratio: contrast = cov(p, t) / var(t) times the root mean
    square over the object of (windowed mean of t - that of the ring about it), noise = sd of the rest there.
    Where a contrast is below FAINT, or an object's below the same root mean square over the ring (it looks
    like its surroundings), the ratio falls by the square of that share.
    """
    sigma = 0.02 * len(picture)
    p, t = picture.astype(np.float64), clean.astype(np.float64)
    mean_p, mean_t = gaussian_filter(p, sigma), gaussian_filter(t, sigma)
    var_p = gaussian_filter(p * p, sigma) - mean_p**2
    var_t = np.maximum(gaussian_filter(t * t, sigma) - mean_t**2, 0)
    contrast = np.abs(gaussian_filter(p * t, sigma) - mean_p * mean_t) / np.sqrt(var_t + 1e-8)
    ratio = _ratio(contrast, np.sqrt(np.maximum(var_p - contrast**2, 0)), FAINT)
    reach = max(2, round(0.03 * len(picture)))
    for number in np.unique(owner[owner > 0]):
        rows, columns = np.nonzero(owner == number)
        window = (
            slice(max(rows.min() - reach, 0), rows.max() + reach + 1),
            slice(max(columns.min() - reach, 0), columns.max() + reach + 1),
        )
        ratio[rows, columns] = _object_ratio(p[window], t[window], mean_t[window], owner[window] == number)
    return ratio


def _object_ratio(p: Array, t: Array, smooth: Array, inside: Array) -> float:
    if inside.all():
        return 0.0
    step = smooth - smooth[~inside].mean()
    p, t = p - p.mean(), t - t.mean()
    kept = abs(float((t * p).mean() / max((t * t).mean(), 1e-8)))
    contrast, clutter = (kept * float(np.sqrt((step[part] ** 2).mean())) for part in (inside, ~inside))
    return float(_ratio(contrast, float((p - kept * t).std()), max(FAINT, clutter)))


def _ratio(contrast: Array | float, noise: Array | float, faint: float) -> Array:
    step = 1 / (12**0.5 * 255)
    return np.asarray(contrast / np.hypot(noise, step) * np.minimum(1, contrast / faint) ** 2)

"""Scenes beside real pictures: the statistics of both modalities, measured in the same way."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, sobel

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.data import Pair, open_pairs, to_uint8, write_image
from fusionlab.data.folders import Pairs
from fusionlab.errors import UserError
from fusionlab.scenes import Settings, scene

# row -> (data, condition, how many pairs at profile laptop; None is all there are)
STATISTICS_ROWS: dict[str, tuple[str, str | None, int | None]] = {
    "scenes": ("scenes", None, 48),
    "scenes/day": ("scenes", "day", 24),
    "scenes/dusk": ("scenes", "dusk", 24),
    "scenes/night": ("scenes", "night", 24),
    "scenes/fog": ("scenes", "fog", 24),
    "tno": ("tno", None, None),
    "roadscene": ("roadscene", None, None),
    "msrs": ("msrs", None, None),
}
DARK = 60  # a visible picture is dark where its mean is below this, of 255


def statistics(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Mean over the pairs of what `figures_of` measures, and the share of pairs whose visible is dark.

    Scenes lie between the means of TNO, RoadScene and MSRS in EN, infrared SD, mean and dark share (night is
    a quarter of the scenes). Two figures lie outside those means, though within the pictures' own spread: SD
    of the visible is lower, because dusk and above all fog are flat, and the sets have hardly any fog; and
    edges correlate more. That scenes are registered exactly explains little of it: infrared displaced by one
    row and column (Settings.shift) costs about 0.03. The likelier reason, not measured, is that a real
    street has more paint, print and leaves that one camera alone sees. Infrared varies more from set to set
    than from scene to scene: MSRS keeps its camera's range and is very dark, RoadScene stretches each
    picture, as gain="linear" does.
    """
    if row is not None and row not in STATISTICS_ROWS:
        raise UserError(f"scenes/statistics has no row {row!r}; it has {', '.join(STATISTICS_ROWS)}")
    if data not in ("auto", *(name for name, _, _ in STATISTICS_ROWS.values())):
        raise UserError(
            f"scenes/statistics does not measure {data!r}; leave the data out, or name a row's set"
        )
    for name in [row] if row else STATISTICS_ROWS:
        source, condition, count = STATISTICS_ROWS[name]
        if data not in ("auto", source):
            continue
        pairs = open_pairs(source, 4 if profile == "smoke" else count, seed=seed, condition=condition)
        for metric, (value, unit) in averages(pairs).items():
            yield measured(
                "scenes/statistics", name, metric, value, pairs,
                profile=profile, seed=seed, unit=unit, command=this_command(),
            )  # fmt: skip


def averages(pairs: Pairs) -> dict[str, tuple[float, str]]:
    """Mean and unit of each figure of `figures_of`, and the share of dark visible pictures."""
    rows = [figures_of(pair) for pair in pairs]
    units = {"EN": "bit", "SD": "of 255", "mean": "of 255"}
    means = {
        name: (float(np.mean([row[name] for row in rows])), units.get(name.split()[0], ""))
        for name in rows[0]
    }
    return means | {"dark share": (float(np.mean([row["mean vi"] < DARK for row in rows])), "of the pairs")}


def figures_of(pair: Pair) -> dict[str, float]:
    """EN (bits), SD and mean (of 255) of 8-bit infrared and visible luminance, and edge correlation.

    Edge correlation is the correlation over pixels of log(1 + gradient magnitude) of the two, by Sobel
    after a Gaussian of 1.5 pixels.
    """
    figures: dict[str, float] = {}
    edges = []
    for role, image in (("ir", pair.ir), ("vi", pair.vi)):
        grey = to_uint8(image)[0, 0].numpy()
        share = np.bincount(grey.ravel(), minlength=256) / grey.size
        share = share[share > 0]
        figures |= {
            f"EN {role}": float(-(share * np.log2(share)).sum()),
            f"SD {role}": float(grey.std()),
            f"mean {role}": float(grey.mean()),
        }
        smooth = gaussian_filter(grey.astype(np.float64), 1.5)
        edges.append(np.log1p(np.hypot(sobel(smooth, 0), sobel(smooth, 1))).ravel())
    return figures | {"edge correlation": float(np.corrcoef(*edges)[0, 1])}


# Rows of the contact sheet, top to bottom.
SHEET: tuple[tuple[str, str | None, Settings], ...] = (
    ("day", "day", Settings()),
    ("dusk", "dusk", Settings()),
    ("night", "night", Settings()),
    ("fog", "fog", Settings()),
    ("day, with smoke", "day", Settings(smoke=1.0)),
    ("day, someone in camouflage before a hedge", "day", Settings(case="camouflage")),
    ("night, someone beside the glare of a car", "night", Settings(case="glare")),
    ("half past six in the evening, infrared black-hot", None, Settings(hour=18.5, polarity="black-hot")),
)


def contact_sheet(file: Path, height: int = 102, width: int = 136) -> None:
    """Draws eight conditions, each of three streets, visible beside infrared, into one picture.

    Row k shows streets 3k to 3k + 2 under its label, so all 24 scenes are of different streets. What lies in
    figures/scenes/sheet.png; not a target, since it measures nothing.
    """
    rows = []
    for row, (label, condition, settings) in enumerate(SHEET):
        tiles = []
        for street in range(3 * row, 3 * row + 3):
            pair = scene(street, height, width, condition, settings)
            tiles += [pair.colour(pair.vi), pair.ir.expand(1, 3, height, width)]
        rows += [_written(label, 6 * width), torch.cat(tiles, dim=3)]
    write_image(torch.cat(rows, dim=2), file)


def _written(text: str, width: int) -> torch.Tensor:
    """A strip (1, 3, 18, width) with a line of text, black on white."""
    strip = Image.new("L", (width, 18), 255)
    ImageDraw.Draw(strip).text((4, 2), text, fill=0, font=ImageFont.load_default(12))
    return torch.from_numpy(np.asarray(strip, np.float32) / 255).expand(1, 3, -1, -1)

"""The picture of eight conditions in figures/scenes/sheet.png; not a table, since it measures nothing."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from fusionlab.data import write_image
from fusionlab.scenes import Settings, scene

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

    Row k shows streets 3k to 3k + 2 under its label, so all 24 scenes are of different streets.
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

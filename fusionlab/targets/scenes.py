"""Scenes beside real pictures: the statistics of both modalities, measured in the same way."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fusionlab.bench.run import Run
from fusionlab.bench.table import Score, Table, scored
from fusionlab.data import Pair, Pairs, open_pairs
from fusionlab.metrics.sources import picture_statistics

DARK = 60  # a visible picture is dark where its mean is below this, of 255
UNITS = {"EN": "bit", "SD": "of 255", "mean": "of 255", "edge": ""}


class Pictures(NamedTuple):
    """A set, and of scenes the condition and how many (of real sets all there are)."""

    data: str
    condition: str | None = None
    scenes: int | None = None


def statistics(rows: Mapping[str, Pictures], pairs: Pairs, run: Run) -> Iterator[Score]:
    """Mean over the pairs of each picture statistic, and the share of pairs whose visible is dark.

    Scenes lie between the means of TNO, RoadScene and MSRS in EN, infrared SD, mean and dark share (night is
    a quarter of the scenes). Two figures lie outside those means, though within the pictures' own spread: SD
    of the visible is lower, because dusk and above all fog are flat, and the sets have hardly any fog; and
    edges correlate more. That scenes are registered exactly explains little of it: infrared displaced by one
    row and column (Settings.shift) costs about 0.03. The likelier reason, not measured, is that a real
    street has more paint, print and leaves that one camera alone sees. Infrared varies more from set to set
    than from scene to scene: MSRS keeps its camera's range and is very dark, RoadScene stretches each
    picture, as gain="linear" does.
    """
    for name, (data, condition, scenes) in rows.items():
        if data != pairs.data:
            continue
        shown = pairs
        if data == "scenes":
            few = 4 if run.profile == "smoke" else scenes
            shown = open_pairs("scenes", few, seed=run.seed, condition=condition)
        for score in scored(of_pair, shown, title=name):
            yield score._replace(row=name, of=shown)


def of_pair(pair: Pair) -> Iterator[Score]:
    """The statistics of one pair as scores."""
    found = picture_statistics(pair)
    for name, value in found.items():
        yield Score(name, value, UNITS[name.split()[0]])
    yield Score("dark share", float(found["mean vi"] < DARK), "of the pairs")


TABLES = {
    "scenes/statistics": Table(
        {
            "scenes": Pictures("scenes", None, 48),
            "scenes/day": Pictures("scenes", "day", 24),
            "scenes/dusk": Pictures("scenes", "dusk", 24),
            "scenes/night": Pictures("scenes", "night", 24),
            "scenes/fog": Pictures("scenes", "fog", 24),
            "tno": Pictures("tno"),
            "roadscene": Pictures("roadscene"),
            "msrs": Pictures("msrs"),
        },
        statistics,
        ("scenes", "tno", "roadscene", "msrs"),
        splits=(None,),
        profiles={"smoke": 4, "laptop": None},
        device="cpu",
    ),
}

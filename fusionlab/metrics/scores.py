"""Scores of several fused images in one convention."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fusionlab.metrics.catalogue import METRICS

Row = dict[str, str | float]


@dataclass(frozen=True)
class Scores:
    """One row an image: its "name" and one value a metric, all in the named convention.

    A metric that has no value for an image is NaN; `undefined` says why, by name and metric.
    """

    convention: str
    rows: tuple[Row, ...]
    undefined: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the columns."""
        return tuple(key for key in self.rows[0] if key != "name")

    def counts(self) -> dict[str, int]:
        """How many images each metric has a value for."""
        return {metric: len(self._column(metric)) for metric in self.metrics}

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the images that have a value (see `counts`); NaN where none has.

        Infinite where a value is: the PSNR of an image that equals both of its sources.
        """
        return {metric: _mean(self._column(metric)) for metric in self.metrics}

    def spread(self) -> dict[str, float]:
        """Sample standard deviation over the same images; NaN for a single one, and for infinite values."""
        return {metric: _sample_deviation(self._column(metric)) for metric in self.metrics}

    def markdown(self) -> str:
        """A table of the images, mean and spread; its header names convention and better direction."""
        header = [self.convention, *(f"{metric} {METRICS[metric].arrow}" for metric in self.metrics)]
        lines = [header, ["---", *("---:" for _ in self.metrics)]]
        lines += [[str(row["name"]), *(f"{row[metric]:.4f}" for metric in self.metrics)] for row in self.rows]
        if len(self.rows) > 1:
            mean, spread = self.mean(), self.spread()
            means = [f"{mean[metric]:.4f}{self._fewer(metric)}" for metric in self.metrics]
            lines.append([f"mean of {len(self.rows)}", *means])
            lines.append(["spread", *(f"{spread[metric]:.4f}" for metric in self.metrics)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self) -> str:
        """All rows with every digit, the convention in each, so that no value travels without it."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["convention", "name", *self.metrics], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"convention": self.convention, **row} for row in self.rows)
        return text.getvalue()

    def _column(self, metric: str) -> list[float]:
        """The values that there are."""
        values = (float(row[metric]) for row in self.rows)
        return [value for value in values if not math.isnan(value)]

    def _fewer(self, metric: str) -> str:
        count = len(self._column(metric))
        return "" if count == len(self.rows) else f" ({count} of {len(self.rows)})"


def joined(parts: Iterable[Scores]) -> Scores:
    """The rows of several scores of one convention, in that order."""
    parts = list(parts)
    undefined = {key: reason for part in parts for key, reason in part.undefined.items()}
    return Scores(parts[0].convention, tuple(row for part in parts for row in part.rows), undefined)


def _mean(values: list[float]) -> float:
    if not values:
        return math.nan
    total = math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    return total / len(values)


def _sample_deviation(values: list[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.nan
    return statistics.stdev(values)

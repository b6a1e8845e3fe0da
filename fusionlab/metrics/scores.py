"""Scores of several fused images in one convention."""

import csv
import io
import math
import statistics
from dataclasses import dataclass

from fusionlab.metrics.catalogue import METRICS

Row = dict[str, str | float]


@dataclass(frozen=True)
class Scores:
    """One row an image: its "name" and one value a metric, all in the named convention."""

    convention: str
    rows: tuple[Row, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the columns."""
        return tuple(key for key in self.rows[0] if key != "name")

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the images; NaN where an image has no value."""
        return {metric: math.fsum(self._column(metric)) / len(self.rows) for metric in self.metrics}

    def spread(self) -> dict[str, float]:
        """Sample standard deviation of each metric over the images; NaN for a single image."""
        if len(self.rows) == 1:
            return dict.fromkeys(self.metrics, math.nan)
        return {metric: _sample_deviation(self._column(metric)) for metric in self.metrics}

    def markdown(self) -> str:
        """A table of the images, mean and spread; its header names convention and better direction."""
        header = [self.convention, *(f"{metric} {METRICS[metric].arrow}" for metric in self.metrics)]
        lines = [header, ["---", *("---:" for _ in self.metrics)]]
        rows: list[Row] = list(self.rows)
        if len(rows) > 1:
            rows.append({"name": f"mean of {len(self.rows)}", **self.mean()})
            rows.append({"name": "spread", **self.spread()})
        lines += [[str(row["name"]), *(f"{row[metric]:.4f}" for metric in self.metrics)] for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self) -> str:
        """All rows with every digit, the convention in each, so that no value travels without it."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["convention", "name", *self.metrics], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"convention": self.convention, **row} for row in self.rows)
        return text.getvalue()

    def _column(self, metric: str) -> list[float]:
        return [float(row[metric]) for row in self.rows]


def _sample_deviation(values: list[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else statistics.stdev(values)

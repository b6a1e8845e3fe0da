"""`explain` says everything that is known of a metric, from the data that the metrics run on."""

import pytest

from fusionlab.errors import UserError
from fusionlab.metrics import CONVENTIONS, METRICS, explain


@pytest.mark.parametrize("metric", METRICS)
def test_every_form_is_explained_with_who_takes_it(metric):
    first, *lines = explain(metric).splitlines()
    about = METRICS[metric]
    assert first == f"{metric}: {about.title}; {about.better} is better {about.arrow}"
    assert lines[-2:] == [f"It rewards {about.rewards}.", f"It is fooled by {about.fooled_by}."]
    for convention in CONVENTIONS.values():
        if variant := convention.variants.get(metric):
            at = lines.index(f"- {variant.formula}")
            assert lines[at + 1] == f"  unit {variant.unit}, sides from {variant.side}; {variant.source}"
            assert convention.name in lines[at + 2].removeprefix("  in ").split(", ")


def test_released_forms_of_piella_are_named():
    assert "in no convention, but variants.Q_RELEASED" in explain("Q")


def test_an_unknown_metric_is_refused_with_the_known():
    with pytest.raises(UserError, match=r"unknown metric 'QABF'; known: EN, SD, MI, "):
        explain("QABF")

"""Statistics of pictures whose answer is known."""

import pytest
import torch

from fusionlab.data import Pair
from fusionlab.metrics.sources import picture_statistics


def test_figures_of_pictures_whose_answer_is_known():
    half = torch.zeros(1, 1, 32, 32)
    half[..., 16:] = 1.0
    figures = picture_statistics(Pair("half", half, half * 0.4))
    assert figures["EN ir"] == pytest.approx(1.0) and figures["EN vi"] == pytest.approx(1.0)
    assert figures["SD ir"] == pytest.approx(127.5) and figures["mean vi"] == pytest.approx(51.0)
    assert figures["edge correlation"] > 0.98
    assert abs(picture_statistics(Pair("crossed", half, half.mT))["edge correlation"]) < 0.35

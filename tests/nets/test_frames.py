"""The form for large frames against plain convolutions, at sizes that end tiles in every way."""

import pytest
import torch

from fusionlab.methods.mmdrfuse import Student
from fusionlab.nets import frames


@pytest.mark.parametrize("height", [16, 127, 128, 129, 130, 257])
@pytest.mark.parametrize("width", [16, 33])
def test_equal_to_the_plain_form(height, width):
    torch.manual_seed(height)
    student = Student()
    images = torch.rand(2, 2, height, width)
    with torch.no_grad():
        plain = student.maps(images[:, :1], images[:, 1:])[1]
        fast = frames.two_convolutions(images, student.conv1, student.conv2).tanh()
    assert (plain - fast).abs().max() < 1e-6


def test_only_large_frames_without_gradients_take_it(monkeypatch):
    calls = []
    monkeypatch.setattr(
        frames, "two_convolutions", lambda image, *_: calls.append(image.shape) or image[:, :1]
    )
    student, small, large = Student(), torch.rand(1, 1, 64, 64), torch.rand(1, 1, 480, 640)
    student.raw(large, large)
    with torch.no_grad():
        student.raw(small, small)
        assert not calls
        student.raw(large, large)
    assert calls == [(1, 2, 480, 640)]

"""The form for large frames against the student itself, at sizes that end tiles in every way."""

import pytest
import torch

from fusionlab.methods.mmdrfuse import Student, fuse_rows


@pytest.mark.parametrize("height", [16, 127, 128, 129, 130, 257])
@pytest.mark.parametrize("width", [16, 33])
def test_equal_to_the_plain_form(height, width):
    torch.manual_seed(height)
    student = Student()
    ir, vi = torch.rand(2, 2, 1, height, width)
    assert (student(ir, vi) - fuse_rows(student, ir, vi)).abs().max() < 1e-6


def test_it_carries_no_gradient():
    assert not fuse_rows(Student(), *torch.rand(2, 1, 1, 16, 16)).requires_grad

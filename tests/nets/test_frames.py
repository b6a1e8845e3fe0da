"""The form for large frames against the student itself, at sizes that end tiles in every way; filling up."""

import pytest
import torch

from fusionlab.methods.mmdrfuse import Student, fuse_rows
from fusionlab.nets.frames import filled


@pytest.mark.parametrize("height", [16, 127, 128, 129, 130, 257])
@pytest.mark.parametrize("width", [16, 33])
def test_equal_to_the_plain_form(height, width):
    torch.manual_seed(height)
    student = Student()
    ir, vi = torch.rand(2, 2, 1, height, width)
    assert (student(ir, vi) - fuse_rows(student, ir, vi)).abs().max() < 1e-6


def test_it_carries_no_gradient():
    assert not fuse_rows(Student(), *torch.rand(2, 1, 1, 16, 16)).requires_grad


@pytest.mark.parametrize(
    ("side", "wanted"), [(1, 32), (16, 32), (17, 32), (31, 32), (33, 48), (48, 48), (50, 64)]
)
def test_filled_sides_are_halved_four_times_and_go_back_and_forth(side, wanted):
    line = torch.arange(side).float()
    there, turn = list(range(side)), list(range(side))[-2:0:-1]
    forth = (40 * (there + turn))[:wanted] if side > 1 else [0] * wanted
    made = filled(line.expand(2, 1, 5, side), "reflect")
    assert made.shape == (2, 1, 32, wanted)
    assert made[1, 0, 0].tolist() == forth
    assert torch.equal(made[..., :5, :side], line.expand(2, 1, 5, side))
    down = filled(line[:, None].expand(1, 1, side, 40), "reflect")
    assert down[0, 0, :, 3].tolist() == forth
    white = filled(line.expand(1, 1, 5, side), "white")
    assert white.shape == (1, 1, 32, 32 * -(-side // 32)) and (white[..., 5:, :] == 1).all()
    assert (white[..., side:] == 1).all() and torch.equal(white[..., :5, :side], line.expand(1, 1, 5, side))

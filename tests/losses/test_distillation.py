"""Eq. 1 in both forms against vectors written out."""

import math

import pytest
import torch

from fusionlab.losses.distillation import distillation_loss


def maps(*values):
    """A (B, 2, 1, 2) map whose channel sums are the given pairs."""
    sums = torch.tensor(values, dtype=torch.float64)[:, None, None, :]
    return torch.cat([sums - 1, torch.ones_like(sums)], dim=1)


def test_two_images_by_hand():
    """Image 1: 45 degrees apart, |difference| = sqrt(2 - sqrt 2); image 2: the same direction, 0 apart."""
    student, teacher = maps((1, 0), (3, 4)), maps((1, 1), (6, 8))
    printed = distillation_loss([student, student], [teacher, teacher], "paper").item()
    assert printed == pytest.approx(math.sqrt(2 - math.sqrt(2)) / 2)  # a mean over two images, two ends
    cosine = (1 * 1 + 0 * 1 + 3 * 6 + 4 * 8) / math.sqrt(26 * 102)
    released = distillation_loss([student, student], [teacher, teacher], "released").item()
    assert released == pytest.approx(2 - 2 * cosine)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_neither_scale_matters_and_only_the_student_gets_a_gradient(variant):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(3, 4, 6, 5, generator=generator, requires_grad=True) for _ in range(2))
    plain = distillation_loss([student], [teacher], variant)
    scaled = distillation_loss([7 * student], [0.01 * teacher], variant)
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-5)
    plain.backward()
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


def test_near_a_match_the_squared_gradient_fades_and_the_printed_one_does_not():
    teacher, off = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    lengths = {}
    for variant in ("paper", "released"):
        for step in (1e-1, 1e-3):
            student = (teacher + step * off).requires_grad_()
            distillation_loss([student], [teacher], variant).backward()
            lengths[variant, step] = student.grad.norm().item()
    assert lengths["paper", 1e-3] == pytest.approx(lengths["paper", 1e-1], rel=0.02)
    assert lengths["released", 1e-3] == pytest.approx(lengths["released", 1e-1] / 100, rel=0.02)


def test_a_black_map_gives_no_nan():
    black = torch.zeros(1, 4, 4, 4, requires_grad=True)
    for variant in ("paper", "released"):
        loss = distillation_loss([black], [torch.ones(1, 4, 4, 4)], variant)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(black.grad).all()

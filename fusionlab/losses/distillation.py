"""How alike student and teacher look, whatever their scale (MMDRFuse, Section 3.1).

The one loss that is not called with (fused, ir, vi): what it compares with is no source but the teacher, and
it compares hidden maps as well as pictures.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor


def attention(maps: Tensor) -> Tensor:
    """F(x) of Eq. 1, the sum over the channels: (B, C, H, W) to (B, 1, H, W)."""
    return maps.sum(dim=1, keepdim=True)


def distillation_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], variant: Literal["paper", "released"]
) -> Tensor:
    """Half the summed distance of student and teacher, feature end and response end (MMDRFuse, Eq. 1).

    student, teacher: (S_1, S_2) and (T_1, T_2), each (B, C, H, W). Each becomes its attention map, made a
    unit vector, so that only the pattern counts and no scale. `paper` takes each image by itself and the norm
    of the difference, as Eq. 1 is printed; the gradient has the same length however near the two are.
    `released` makes one vector of the whole batch and squares the norm: 2 - 2 cos for each term, with a
    gradient that fades near a match. The teacher gets no gradient. Returns a scalar.
    """
    terms = [_distance(s, t.detach(), variant) for s, t in zip(student, teacher, strict=True)]
    return sum(terms[1:], terms[0]) / 2


def _distance(student: Tensor, teacher: Tensor, variant: Literal["paper", "released"]) -> Tensor:
    if variant == "paper":
        difference = _unit(attention(student).flatten(1)) - _unit(attention(teacher).flatten(1))
        return difference.norm(dim=1).mean()
    difference = _unit(attention(student).flatten()[None]) - _unit(attention(teacher).flatten()[None])
    return difference.square().sum()


def _unit(vectors: Tensor) -> Tensor:
    """Rows (B, N) of length 1; a row of zeros stays as it is."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)

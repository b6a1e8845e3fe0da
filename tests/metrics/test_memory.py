"""Statistics of the sources run once within `remembering`, and change nothing."""

import torch
from torch import Tensor

from fusionlab.metrics.memory import both, remembering, statistic

CALLS: list[str] = []


@statistic
def halves(x: Tensor, factor: float = 0.5) -> tuple[Tensor, list[Tensor]]:
    CALLS.append("halves")
    return factor * x, [x, x + 1]


@statistic
def total(x: Tensor) -> Tensor:
    CALLS.append("total")
    return x.sum()


def test_a_statistic_runs_once_for_each_known_tensor_and_parameter() -> None:
    CALLS.clear()
    ir, vi = torch.rand(2, 1, 1, 3, 4)
    with remembering(ir, vi):
        assert halves(ir)[0] is halves(ir)[0]
        assert torch.equal(halves(vi)[0], vi / 2) and torch.equal(halves(ir, 0.25)[0], ir / 4)
        assert torch.equal(halves(ir, factor=0.125)[0], ir / 8)
        assert both(ir, vi) is both(ir, vi) and both(vi, ir) is not both(ir, vi)
        assert CALLS == ["halves"] * 4


def test_what_statistics_made_is_known_too_and_nothing_else_is() -> None:
    CALLS.clear()
    ir, fused = torch.rand(2, 1, 1, 3, 4)
    with remembering(ir):
        assert total(halves(ir)[1][1]) is total(halves(ir)[1][1])
        assert CALLS == ["halves", "total"]
        assert total(fused) is not total(fused)
        assert total(ir.clone()) == total(ir + 0) and both(ir, fused) is not both(ir, fused)
        assert CALLS == ["halves"] + ["total"] * 5


def test_nothing_is_kept_outside() -> None:
    CALLS.clear()
    ir = torch.rand(1, 1, 3, 4)
    assert total(ir) is not total(ir)
    with remembering(ir):
        inside = total(ir)
        with remembering():
            assert total(ir) is not inside
        assert total(ir) is inside
    with remembering(ir):
        assert total(ir) is not inside
    assert CALLS == ["total"] * 5


def test_what_is_written_into_or_differentiated_is_computed_anew() -> None:
    ir = torch.rand(1, 1, 3, 4)
    with remembering(ir):
        before = total(ir)
        ir += 1
        assert total(ir) == ir.sum() != before
        ir.requires_grad_()
        total(ir).backward()
        assert torch.equal(ir.grad, torch.ones_like(ir))


def test_images_by_keyword_are_looked_at_too() -> None:
    ir, fused = torch.rand(2, 1, 1, 3, 4)
    with remembering(ir) as memory:
        assert torch.equal(halves(x=fused)[0], fused / 2)
        assert not memory.results
        assert halves(x=ir)[0] is halves(x=ir)[0]

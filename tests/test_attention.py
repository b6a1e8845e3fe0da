"""Criss-cross attention: against a dense masked reference, by hand, and by what must leave it unchanged."""

import pytest
import torch
from torch import Tensor

from fusionlab.attention import CrissCross, criss_cross
from fusionlab.errors import UserError

SIZES = [(1, 1), (1, 5), (5, 1), (2, 3), (5, 6), (7, 4), (16, 16), (17, 23)]


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All H W positions by all, with a mask that leaves the row and the column."""
    height, width = q.shape[-2:]
    at = torch.arange(height * width)
    cross = (at[:, None] // width == at // width) | (at[:, None] % width == at % width)
    scores = torch.einsum("bdn,bdm->bnm", q.flatten(2), k.flatten(2)).masked_fill(~cross, -torch.inf)
    return torch.einsum("bnm,bcm->bcn", scores.softmax(2), v.flatten(2)).view(v.shape)


def some(height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v of two samples with 3, 3 and 4 channels."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, c, height, width, generator=generator, dtype=dtype) for c in (3, 3, 4)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_equals_the_dense_masked_form(size, rows):
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 3e-6)):
        q, k, v = some(*size, dtype=dtype)
        torch.testing.assert_close(criss_cross(q, k, v, rows), dense(q, k, v), atol=close, rtol=0)


@pytest.mark.parametrize("rows", [None, 2])
def test_gradients_equal_those_of_the_dense_form(rows):
    found = []
    for form in (lambda *qkv: criss_cross(*qkv, rows=rows), dense):
        inputs = [x.requires_grad_() for x in some(7, 9)]
        form(*inputs).square().sum().backward()
        found.append([x.grad for x in inputs])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-12, rtol=1e-12)
    small = [x[:1].clone().requires_grad_() for x in some(3, 4)]
    assert torch.autograd.gradcheck(lambda *qkv: criss_cross(*qkv, rows=rows), small)


def weights(q: Tensor, k: Tensor, rows: int | None = None) -> Tensor:
    """(H W, H W): how much of each position's value is in each output, with one-hot values."""
    height, width = q.shape[-2:]
    one_hot = torch.eye(height * width, dtype=q.dtype).view(1, -1, height, width)
    return criss_cross(q[:1], k[:1], one_hot, rows)[0].flatten(1).T


@pytest.mark.parametrize("size", SIZES)
def test_each_position_sees_h_plus_w_minus_1_with_weights_that_sum_to_1(size):
    height, width = size
    q, k, _ = some(height, width)
    w = weights(q, k, rows=2)
    assert (w >= 0).all() and torch.equal((w > 0).sum(1), torch.full((height * width,), height + width - 1))
    torch.testing.assert_close(w.sum(1), torch.ones(height * width, dtype=w.dtype), atol=1e-12, rtol=0)


@pytest.mark.parametrize("constant", [0.0, 1.7])
def test_equal_keys_average_the_cross_and_count_the_centre_once(constant):
    q, k, v = some(5, 6)
    sums = v.sum(3, keepdim=True) + v.sum(2, keepdim=True)
    made = criss_cross(q, torch.full_like(k, constant), v)
    torch.testing.assert_close(made, (sums - v) / (5 + 6 - 1), atol=1e-12, rtol=0)
    assert (made - sums / (5 + 6)).abs().max() > 0.1  # the centre twice


def test_by_hand():
    q, k, v = (
        torch.tensor(x, dtype=torch.float64)[None, None]
        for x in ([[1, 0], [2, -1]], [[0, 1], [2, 3]], [[1, 2], [3, 4]])
    )
    wanted = [[2.5752103826, 2.3333333333], [3.8745212000, 2.4247896174]]
    torch.testing.assert_close(
        criss_cross(q, k, v)[0, 0], torch.tensor(wanted, dtype=torch.float64), atol=5e-11, rtol=0
    )


def test_a_vector_added_to_all_keys_changes_nothing_and_large_scores_stay_finite():
    q, k, v = some(5, 6)
    plain = criss_cross(q, k, v)
    shift = torch.randn(1, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(criss_cross(q, k + shift, v), plain, atol=1e-12, rtol=0)
    assert criss_cross(1000 * q.float(), 1000 * k.float(), v.float()).isfinite().all()


def test_rows_and_columns_may_be_permuted_and_exchanged_but_not_positions():
    qkv = some(5, 6)
    made = criss_cross(*qkv)
    rows, columns = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([5, 2, 0, 1, 4, 3])
    permuted = criss_cross(*(x[:, :, rows][..., columns] for x in qkv))
    torch.testing.assert_close(permuted, made[:, :, rows][..., columns], atol=1e-12, rtol=0)
    turned = criss_cross(*(x.transpose(2, 3) for x in qkv))
    torch.testing.assert_close(turned, made.transpose(2, 3), atol=1e-12, rtol=0)
    mixed = torch.randperm(30, generator=torch.Generator().manual_seed(2))

    def scattered(x):
        return x.flatten(2)[..., mixed].view(x.shape)

    assert (criss_cross(*map(scattered, qkv)) - scattered(made)).abs().max() > 0.1


def test_one_pass_reaches_the_cross_and_two_reach_everything():
    q, k, v = some(5, 6)

    def reached(passes):
        def run(v):
            for _ in range(passes):
                v = criss_cross(q[:1], k[:1], v)
            return v[0, 0, 2, 3]

        moved = torch.autograd.functional.jacobian(run, v[:1, :1])
        return int((moved != 0).sum())

    assert (reached(1), reached(2)) == (10, 30)


# The module with its convolutions.


def caim(query="released", gamma=1.0) -> CrissCross:
    torch.manual_seed(0)
    module = CrissCross(32, query).double()
    module.gamma.data.fill_(gamma)
    return module


def maps() -> tuple[Tensor, Tensor]:
    ir, vi = torch.randn(2, 1, 32, 6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return ir, vi


def test_caim_has_1321_parameters_and_starts_as_the_identity():
    module = CrissCross(32)
    assert sum(p.numel() for p in module.parameters()) == 1321
    ir, vi = (x.float() for x in maps())
    assert all(map(torch.equal, module.exchange(ir, vi), (ir, vi)))


@pytest.mark.parametrize("query", ["paper", "released"])
def test_exchanged_modalities_exchange_their_outputs(query):
    module, (ir, vi) = caim(query), maps()
    assert all(map(torch.equal, module.exchange(vi, ir), module.exchange(ir, vi)[::-1]))


def test_who_asks():
    """Against the dense form: released, other's query at the centre; paper, own key there (Eq. 6)."""
    ir, vi = maps()
    found = {}
    for query in ("released", "paper"):
        module = caim(query, gamma=0.5)
        other, own = module.query(vi), module.key(ir)
        centre, around = (other, own) if query == "released" else (own, other)
        found[query] = module(ir, vi)
        wanted = 0.5 * dense(centre, around, module.value(ir)) + ir
        torch.testing.assert_close(found[query], wanted, atol=1e-12, rtol=0)
    assert (found["paper"] - found["released"]).norm() > 0.01 * (found["released"] - ir).norm()
    alone = caim(gamma=0.5)
    wanted = 0.5 * dense(alone.query(ir), alone.key(ir), alone.value(ir)) + ir
    torch.testing.assert_close(alone(ir), wanted, atol=1e-12, rtol=0)
    assert torch.equal(caim("paper", 0.5)(ir), alone(ir))


def test_faults_are_named():
    with pytest.raises(UserError, match="8 or more"):
        CrissCross(7)
    with pytest.raises(UserError, match="paper or released"):
        CrissCross(8, "other")

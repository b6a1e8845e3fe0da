"""Contrastive losses against closed forms: what each pulls, what it pushes, and where each breaks."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusionlab.errors import UserError
from fusionlab.losses.contrastive import (
    VGG_WEIGHTS,
    alignment,
    coupled_contrast,
    coupled_samples,
    in_batch,
    info_nce,
    masked,
    nt_xent,
    others,
    over_layers,
    ratio_loss,
    triplet_loss,
    uniformity,
)


def number(*values: float) -> Tensor:
    """Scalars as features of one image each, (B, 1), in float64."""
    return torch.tensor(values, dtype=torch.float64)[:, None]


def negatives(*values: float) -> Tensor:
    """K negatives of one image, (K, 1, 1)."""
    return number(*values)[:, None]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slopes(loss, *tensors: Tensor) -> list[Tensor]:
    """Gradients of loss(*tensors) in each."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    return list(torch.autograd.grad(loss(*leaves), leaves))


def exact(anchor, positive, foes):
    return ratio_loss(anchor, positive, foes, epsilon=0)


def test_the_gradient_of_the_ratio_is_pull_minus_L_times_push():
    """dL/do = [sgn(o - p) - L sum_k sgn(o - n_k)] / (N D), no longer than (1 + K L) / (N D)."""
    o, p, n = drawn(1, 3, 4, 5), drawn(1, 3, 4, 5, seed=1), drawn(3, 1, 3, 4, 5, seed=2)
    total = (o - n).abs().mean(dim=(1, 2, 3, 4)).sum()
    loss = exact(o, p, n)
    torch.testing.assert_close(loss, (o - p).abs().mean() / total)
    (gradient,) = slopes(lambda o: exact(o, p, n), o)
    by_hand = ((o - p).sign() - loss * (o - n).sign().sum(0)) / (o.numel() * total)
    torch.testing.assert_close(gradient, by_hand, rtol=0, atol=1e-17)
    assert gradient.abs().max() <= (1 + 3 * loss) / (o.numel() * total)


@pytest.mark.parametrize(
    ("o", "value", "slope"),
    [(0.1, 1 / 9, 1.235), (0.25, 1 / 3, 1.778), (0.5, 1, 4), (0.75, 3, 16), (0.9, 9, 100), (0.99, 99, 1e4)]
    + [(2, 2, -1), (-0.5, 1 / 3, -4 / 9)],
)
def test_one_dimension_with_the_goal_at_0_and_the_wrong_image_at_1(o, value, slope):
    """The pull is strongest on the wrong image; beyond it the ratio drives the output away from the goal."""
    (gradient,) = slopes(lambda x: exact(x, number(0), negatives(1)), number(o))
    assert exact(number(o), number(0), negatives(1)).item() == pytest.approx(value)
    assert gradient.item() == pytest.approx(slope, rel=1e-3)
    if 0 < o < 1:
        assert gradient.item() == pytest.approx(1 / (1 - o) ** 2)
    if o > 1:  # stuck, where the ratio flees
        (stuck,) = slopes(lambda x: triplet_loss(x, number(0), negatives(1), margin=0.5), number(o))
        assert stuck.item() == 0


def test_hard_negatives_count_in_the_relatives_and_not_in_the_ratio():
    anchor, positive, foes = number(0), number(0.2), negatives(0.3, 0.7, 1.2)

    def in_distances(loss):
        pull, push = slopes(lambda p, n: loss(anchor, p, n), positive, foes)
        return pull.item(), push.flatten().tolist()

    pull, push = in_distances(exact)
    assert pull == pytest.approx(0.4545, abs=1e-4) and push == pytest.approx([-0.0413] * 3, abs=1e-4)
    pull, push = in_distances(
        lambda *x: ratio_loss(*x, form="sum of ratios", epsilon=0) / 3  # the mean of ratios
    )
    assert pull == pytest.approx(1.865, abs=1e-3)
    assert push == pytest.approx([-0.741, -0.136, -0.046], abs=1e-3)
    pull, push = in_distances(lambda *x: triplet_loss(*x, margin=0.5 + 1e-9))  # off the kink at .7
    assert pull == pytest.approx(2 / 3) and push == pytest.approx([-1 / 3, -1 / 3, 0])


@pytest.mark.parametrize(
    ("t", "known"), [(1.0, [-0.653, 0.314, 0.211, 0.128]), (0.1, [-2.726, 2.676, 0.049, 0.0003])]
)
def test_info_nce_pushes_by_the_share_of_each_negative(t, known):
    def loss(similarities):
        vectors = torch.stack([similarities, (1 - similarities.square()).sqrt()], dim=1)
        return info_nce(number(1.0).new_tensor([[1.0, 0.0]]), vectors[:1], vectors[1:, None], temperature=t)

    similarities = torch.tensor([0.8, 0.7, 0.3, -0.2], dtype=torch.float64)
    (gradient,) = slopes(loss, similarities)
    assert gradient.tolist() == pytest.approx(known, abs=6e-4)
    shares = (similarities / t).softmax(0)
    torch.testing.assert_close(gradient[1:], shares[1:] / t)
    assert gradient.sum().item() == pytest.approx(0, abs=1e-12)


def test_where_the_ratio_breaks_and_what_the_guard_does():
    o, p = drawn(1, 6), drawn(1, 6, seed=1)
    foe = o[None]
    assert exact(o, p, foe).item() == math.inf
    assert slopes(lambda x: exact(x, p, foe), o)[0].isnan().any()
    guarded = ratio_loss(o, p, foe)
    assert guarded.item() == pytest.approx(1e7 * (o - p).abs().mean().item())
    assert slopes(lambda x: ratio_loss(x, p, foe), o)[0].isfinite().all()
    # Positive and negative are one: nothing to learn from, whatever the output.
    for k in (1, 3):
        foes = p.expand(k, 1, 6)
        assert exact(o, p, foes).item() == pytest.approx(1 / k)
        assert slopes(lambda x, foes=foes: exact(x, p, foes), o)[0].abs().max() < 1e-15
    assert info_nce(o, p, p[None]).item() == pytest.approx(math.log(2))
    assert triplet_loss(o, p, p[None], margin=0.3).item() == pytest.approx(0.3)
    # An empty mask: everything is zero.
    empty = torch.zeros(1, 6, dtype=torch.float64)
    assert exact(empty, empty, empty[None]).isnan()
    assert ratio_loss(empty, empty, empty[None]).item() == 0
    assert not slopes(lambda x: ratio_loss(x, empty, empty[None]), empty)[0].any()
    # At the goal the value is 0, but the gradient does not shrink on the way: it is no parabola.
    near = [slopes(lambda x: exact(x, p, foe), p + d)[0].abs().max().item() for d in (1e-3, 1e-6)]
    assert exact(p, p, foe).item() == 0 and near[1] == pytest.approx(near[0], rel=0.02) and near[1] > 0.05


def test_scale_and_shift_of_all_features():
    x = drawn(1, 8), drawn(1, 8, seed=1), drawn(2, 1, 8, seed=2)
    for c in (0.01, 100):
        scaled = [c * part for part in x]
        assert exact(*scaled).item() == pytest.approx(exact(*x).item())
        (one,), (other,) = (slopes(lambda o, y=y: exact(o, *y[1:]), y[0]) for y in (x, scaled))
        torch.testing.assert_close(one, c * other)
        assert info_nce(*scaled).item() == pytest.approx(info_nce(*x).item())
        assert triplet_loss(*scaled).item() != pytest.approx(triplet_loss(*x).item(), rel=0.01)
    shifted = [part + 10 for part in x]
    assert exact(*shifted).item() == pytest.approx(exact(*x).item())
    assert triplet_loss(*shifted).item() == pytest.approx(triplet_loss(*x).item())
    assert info_nce(*shifted).item() != pytest.approx(info_nce(*x).item(), rel=0.01)


def test_means_of_ratios_and_ratios_of_means():
    o, p, n = number(0, 0), number(1, 3), torch.stack([number(2, 4), number(1, 8)])
    ratios = [1 / 3, 3 / 12]
    assert exact(o, p, n).item() == pytest.approx(sum(ratios) / 2)
    assert ratio_loss(o, p, n, over="batch", epsilon=0).item() == pytest.approx(4 / 15)
    each = [[1 / 2, 1], [3 / 4, 3 / 8]]
    value = ratio_loss(o, p, n, form="sum of ratios", epsilon=0).item()
    assert value == pytest.approx((sum(each[0]) + sum(each[1])) / 2)
    value = ratio_loss(o, p, n, form="sum of ratios", over="batch", epsilon=0).item()
    assert value == pytest.approx(4 / 6 + 4 / 9)
    for wrong in ({"form": "ratio"}, {"over": "pixel"}):
        with pytest.raises(UserError, match="use"):
            ratio_loss(o, p, n, **wrong)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 128])
def test_nt_xent_of_equal_vectors(n):
    same = torch.ones(n, 3, dtype=torch.float64)
    for t in (0.1, 1.0):
        assert nt_xent(same, same, t).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)


def test_nt_xent_of_orthogonal_pairs_and_of_none():
    axes = torch.eye(4, dtype=torch.float64)
    for t, known in ((1.0, 1.165422), (0.5, 0.594438), (0.1, 2.7236e-4)):
        assert nt_xent(axes, axes, t).item() == pytest.approx(known, rel=1e-4)
        assert nt_xent(axes, axes, t).item() == pytest.approx(math.log1p(6 * math.exp(-1 / t)))
    assert nt_xent(axes, -axes, 0.5).item() == pytest.approx(3.814065, abs=1e-6)


def test_nt_xent_is_the_row_by_row_softmax_without_the_diagonal():
    first, second = drawn(5, 2, 3), drawn(5, 2, 3, seed=1)
    z = normalize(torch.cat([first, second]).flatten(1), dim=1)
    rows = z @ z.T / 0.3
    total = 0.0
    for i in range(10):
        kept = torch.cat([rows[i, :i], rows[i, i + 1 :]])
        total += (kept.logsumexp(0) - rows[i, (i + 5) % 10]).item()
    assert nt_xent(first, second, 0.3).item() == pytest.approx(total / 10)
    assert in_batch(first, second)[2].shape == (8, 10, 2, 3)


def circle(count: int) -> Tensor:
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_alignment_and_uniformity():
    axes = torch.eye(2, dtype=torch.float64)
    assert alignment(axes, axes).item() == 0
    assert alignment(axes, axes.flip(0)).item() == pytest.approx(2)
    assert alignment(axes, -axes).item() == pytest.approx(4)
    assert alignment(axes, -axes, power=1).item() == pytest.approx(2)

    def of(points):
        return uniformity(points, None, others(points)).item()

    assert of(torch.ones(3, 2, dtype=torch.float64)) == 0
    assert of(circle(2)) == pytest.approx(-8) and of(circle(3)) == pytest.approx(-6)
    # All N^2 pairs of equally spaced points have the mean of a uniform circle, of which N are equal ones.
    uniform = math.exp(-4) * torch.special.i0(torch.tensor(4.0, dtype=torch.float64)).item()
    assert math.log(uniform) == pytest.approx(-1.57503, abs=1e-5)
    assert of(circle(48)) == pytest.approx(math.log((48 * uniform - 1) / 47))
    normal = torch.randn(300, 128, generator=torch.Generator().manual_seed(0))
    assert of(normal) == pytest.approx(-3.937, abs=0.03)  # towards -4 with the dimension
    assert of(normal[:, :3]) == pytest.approx(math.log(math.exp(-4) * math.sinh(4) / 4), abs=0.05)


def images(size: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    ir, vi = drawn(2, 2, 1, size, size)
    mask = torch.zeros_like(ir)
    mask[0, :, 2:5, 3:8], mask[1, :, :, :4] = 1, 1
    return ir, vi, mask


def test_the_average_scores_1_in_both_halves_whatever_the_mask():
    ir, vi, mask = images()
    for where in (mask, 0.3 * mask + 0.1, torch.ones_like(mask)):
        for hole in (0, 0.5):
            terms = coupled_contrast((ir + vi) / 2, ir, vi, where, hole=hole)
            assert terms["target"].item() == pytest.approx(1, abs=1e-4)
            full = bool((where == 1).all())  # nothing is outside: no detail, and no gradient
            assert terms["detail"].item() == (0 if full else pytest.approx(1, abs=1e-4))
    assert torch.equal(masked(ir, mask)[mask == 0], torch.full_like(ir, 0.5)[mask == 0])
    assert torch.equal(masked(ir, mask, 0.0), ir * mask)


def test_infrared_inside_and_visible_outside_is_the_goal():
    ir, vi, mask = images()
    goal = mask * ir + (1 - mask) * vi
    assert [term.item() for term in coupled_contrast(goal, ir, vi, mask).values()] == [0, 0]
    wrong = coupled_contrast(mask * vi + (1 - mask) * ir, ir, vi, mask)
    assert min(term.item() for term in wrong.values()) > 1e5
    fused = drawn(2, 1, 12, 12, seed=5)
    terms = coupled_contrast(fused, ir, vi, mask)

    def apart(a, b, where):
        return ((a - b).abs() * where).sum(dim=(1, 2, 3))

    by_hand = apart(fused, ir, mask) / apart(fused, vi, mask)
    assert terms["target"].item() == pytest.approx(by_hand.mean().item(), rel=1e-4)
    by_hand = apart(fused, vi, 1 - mask) / apart(fused, ir, 1 - mask)
    assert terms["detail"].item() == pytest.approx(by_hand.mean().item(), rel=1e-4)


@pytest.mark.parametrize(("k", "known"), [(1, 1.46875), (3, 0.48958)])
def test_five_layers_as_far_from_both_sources(k, known):
    layers = [drawn(1, 4, size, size, seed=size) for size in (16, 8, 4, 2, 1)]
    p, foes = [x + 1 for x in layers], [(x - 1).expand(k, *x.shape) for x in layers]
    assert over_layers(exact, layers, p, foes, VGG_WEIGHTS).item() == pytest.approx(known, abs=1e-5)
    with pytest.raises(UserError, match="1 weights for 5 layers"):
        over_layers(exact, layers, p, foes, [1.0])


def test_a_smaller_mask_leaves_the_value_and_raises_the_gradient_of_each_pixel():
    ir, vi = drawn(2, 1, 1, 40, 40)
    fused = drawn(1, 1, 40, 40, seed=3)
    values, largest = [], []
    for side in (40, 20, 4):
        mask = torch.zeros_like(ir)
        mask[..., :side, :side] = 1
        (gradient,) = slopes(lambda x, mask=mask: coupled_contrast(x, ir, vi, mask)["target"], fused)
        values.append(coupled_contrast(fused, ir, vi, mask)["target"].item())
        largest.append(gradient[mask == 1].abs().mean().item())
    assert max(values) < 1.7 * min(values)
    assert largest[1] / largest[0] == pytest.approx(4, rel=0.3)
    assert largest[2] / largest[0] == pytest.approx(100, rel=0.6)


def test_strangers_are_further_negatives_under_the_anchors_mask_and_kept_samples_are_not_seen_again():
    ir, vi, mask = images()
    far_ir, far_vi = drawn(2, 2, 2, 1, 12, 12, seed=7)
    seen = []

    def taps(image):
        seen.append(len(image))
        return [image, image.square()]

    fused = drawn(2, 1, 12, 12, seed=5)
    options = {"weights": (0.5, 2.0), "contrast": exact}
    terms = coupled_contrast(fused, ir, vi, mask, taps, strangers=(far_ir, far_vi), **options)
    assert sum(seen) == 2 * 2 + 2 * 2 + 2 * 3 * 2
    samples = coupled_samples(ir, vi, mask, taps, (far_ir, far_vi))
    seen.clear()
    kept = coupled_contrast(fused, ir, vi, mask, taps, samples=samples, **options)
    assert seen == [4] and all(torch.equal(kept[name], terms[name]) for name in terms)
    total = 0.0
    for power, weight in ((1, 0.5), (2, 2.0)):

        def apart(a, b, power=power):
            a, b = (masked(x, mask) ** power for x in (a, b))
            return (a - b).abs().mean(dim=(1, 2, 3))

        foes = apart(fused, vi) + apart(fused, far_vi[0]) + apart(fused, far_vi[1])
        total += weight * (apart(fused, ir) / foes).mean().item()
    assert terms["target"].item() == pytest.approx(total)


@pytest.mark.parametrize("contrast", [ratio_loss, info_nce, triplet_loss, alignment, uniformity])
def test_each_of_the_five_can_be_coupled(contrast):
    ir, vi, mask = images()
    fused = ((ir + vi) / 2).requires_grad_()
    terms = coupled_contrast(fused, ir, vi, mask, contrast=contrast)
    (gradient,) = torch.autograd.grad(terms["target"] + terms["detail"], fused)
    assert gradient.isfinite().all() and gradient.abs().max() > 0

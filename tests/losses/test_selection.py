"""CoMoFusion's losses on images where their value is known."""

import pytest
import torch

from fusionlab.errors import UserError
from fusionlab.losses.gradient import edge_strength, sobel, strongest_edge_loss
from fusionlab.losses.selection import activity, selection_loss


def pair(seed: int = 0, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ir, vi = torch.rand(2, 1, 1, size, size, generator=generator, dtype=torch.float64)
    return ir, vi


def test_sobel_of_a_ramp_and_its_transpose():
    ramp = torch.arange(7.0).expand(1, 1, 5, 7)
    gx, gy = sobel(ramp, "valid")
    assert gx.shape == (1, 1, 3, 5) and (gx == 8).all() and (gy == 0).all()
    turned = sobel(ramp.mT, "replicate")
    assert torch.equal(turned[1].mT, sobel(ramp, "replicate")[0])
    assert sobel(ramp)[0][0, 0, 0].tolist() == [4, 8, 8, 8, 8, 8, 4]


@pytest.mark.parametrize("size", [64, 160])
def test_a_black_border_gives_a_flat_image_activity(size):
    flat = torch.ones(1, 1, size, size)
    for form, corners in (("released", 144), ("paper", 72)):
        known = (64 * (size - 2) + corners) / size**2
        assert activity(flat, form, "zero").item() == pytest.approx(known, rel=1e-5)
        assert activity(flat, form, "replicate").item() == activity(flat, form, "valid").item() == 0


@pytest.mark.parametrize("border", ["replicate", "valid", "zero"])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_selection_on_the_ray_of_the_sum(border, form):
    """L_pvs(a (ir + vi)) = ((1 - a) / a)^2, whatever the border; bounded: r / (1 + r) of it."""
    ir, vi = pair()
    for a, known in [
        (0.25, 9),
        (0.5, 1),
        (0.75, 1 / 9),
        (1, 0),
        (1.5, 1 / 9),
        (2, 0.25),
        (4, 0.5625),
        (-1, 4),
    ]:
        value = selection_loss(a * (ir + vi), ir, vi, "ratio", form, border).item()
        assert value == pytest.approx(known, abs=1e-9)
        bounded = selection_loss(a * (ir + vi), ir, vi, "bounded", form, border).item()
        assert bounded == pytest.approx(known / (1 + known), abs=1e-7)


def test_selection_is_blind_to_brightness_but_for_a_black_border():
    ir, vi = pair()
    brighter = ir + vi + 0.3
    for border in ("replicate", "valid"):
        assert selection_loss(brighter, ir, vi, "ratio", "released", border).item() < 1e-24
    assert 0.009 < selection_loss(brighter, ir, vi, "ratio", "released", "zero").item() < 0.012


def test_a_flat_image_is_infinite_as_printed_and_finite_with_a_guard():
    ir, vi = pair()
    for border in ("replicate", "valid"):
        flat = torch.full_like(ir, 0.5, requires_grad=True)
        assert selection_loss(flat, ir, vi, "ratio", border=border).item() == float("inf")
        for guard in ("bounded", "epsilon"):
            loss = selection_loss(flat, ir, vi, guard, border=border)
            loss.backward()
            assert loss.isfinite() and flat.grad.isfinite().all()
    assert selection_loss(torch.full_like(ir, 0.5), ir, vi, "ratio", border="zero").isfinite()
    white = torch.ones_like(ir)
    nothing = selection_loss(white.requires_grad_(), white.detach(), white.detach(), "bounded")
    nothing.backward()
    assert nothing.item() == 0 and white.grad.isfinite().all()


def test_the_edge_loss_cannot_see_inversion_and_is_no_more_than_a_maximum_of_magnitudes():
    ir, vi = pair()
    average = (ir + vi) / 2
    for border in ("replicate", "valid"):
        value = strongest_edge_loss(average, ir, vi, border)
        torch.testing.assert_close(
            strongest_edge_loss(1 - average, ir, vi, border), value, rtol=0, atol=1e-12
        )
        torch.testing.assert_close(
            strongest_edge_loss(average + 0.2, ir, vi, border), value, rtol=0, atol=1e-12
        )
        selected = [selection_loss(x, ir, vi, "ratio", border=border).item() for x in (average, 1 - average)]
        assert selected == pytest.approx([1, 9])
    assert strongest_edge_loss(ir, ir, ir).item() == 0
    assert strongest_edge_loss(ir, ir, torch.full_like(ir, 0.5)).item() == 0
    by_hand = (edge_strength(average) - torch.maximum(edge_strength(ir), edge_strength(vi))).abs().mean()
    assert strongest_edge_loss(average, ir, vi).item() == by_hand.item() > 0.3


# Mean over TNO's 42 pairs, zero borders and the released form: (L_pvs, L_grad), measured independently.
ON_TNO = {"average": (1.0, 0.1136), "visible": (1.645, 0.0680), "maximum": (0.460, 0.0570)}


def test_on_tno_as_measured(shared):
    """In the paper's form L_pvs of visible is 1.748."""
    from fusionlab.data import open_pairs

    pairs = [(p.ir, p.vi) for p in open_pairs("tno")]
    images = {
        "average": [(a + b) / 2 for a, b in pairs],
        "visible": [b for _, b in pairs],
        "maximum": [torch.maximum(a, b) for a, b in pairs],
    }
    for name, (selection, edge) in ON_TNO.items():
        both = list(zip(images[name], pairs, strict=True))
        mean = sum(selection_loss(f, a, b, "ratio", "released", "zero").item() for f, (a, b) in both) / 42
        assert mean == pytest.approx(selection, abs=2e-3), name
        mean = sum(strongest_edge_loss(f, a, b, "zero").item() for f, (a, b) in both) / 42
        assert mean == pytest.approx(edge, abs=2e-4), name
    printed = [selection_loss(b, a, b, "ratio", "paper", "zero").item() for a, b in pairs]
    assert sum(printed) / 42 == pytest.approx(1.748, abs=2e-3)


@pytest.mark.parametrize("wrong", [{"guard": "none"}, {"form": "printed"}, {"border": "black"}])
def test_unknown_choices_never_become_another_loss(wrong):
    with pytest.raises(UserError, match="there is no .*use"):
        selection_loss(*torch.rand(3, 1, 1, 8, 8), **wrong)

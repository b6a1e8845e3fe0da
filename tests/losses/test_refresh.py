"""The history of best outputs: what it keeps, what it pulls, and that it can be taken up again."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve

from fusionlab.losses.gradient import laplacian_edges
from fusionlab.losses.refresh import Refresh, gmsd_to_both, released_gmsd, ssim_to_both

SIDE = 16


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(ir, vi, epochs):
    """Sources under noise that shrinks and grows again: some epochs are better, some worse."""
    for epoch in range(epochs):
        noise = random(*ir.shape, seed=epoch + 10) - 0.5
        yield ((ir + vi) / 2 + 0.4 * abs(np.sin(epoch + 1)) * noise).clamp(0, 1)


ALL = torch.arange(6)


def history(variant="released", patches=6, decide="image", past="best"):
    return Refresh(patches, (SIDE, SIDE), variant, decide, past)


def sources(count=6):
    return random(count, 1, SIDE, SIDE, seed=1), random(count, 1, SIDE, SIDE, seed=2)


def test_gmsd_against_a_slow_form_of_its_definition():
    x, y = (random(1, 1, 21, 18, seed=s) for s in (3, 4))
    magnitudes = []
    for image in (x, y):
        grey = 255 * image[0, 0].double().numpy()
        small = grey[:20, :18].reshape(10, 2, 9, 2).mean((1, 3))
        prewitt = np.array([[1, 0, -1]] * 3) / 3
        across, down = (convolve(small, kernel)[1:-1, 1:-1] for kernel in (prewitt, prewitt.T))
        magnitudes.append(np.hypot(across, down))
    a, b = magnitudes
    assert released_gmsd(x, y).item() == pytest.approx(
        ((2 * a * b + 170) / (a**2 + b**2 + 170)).std(ddof=1), rel=1e-5
    )
    assert released_gmsd(x, x).item() == pytest.approx(0, abs=1e-6)


def test_the_kept_history_never_gets_worse_and_is_what_its_score_says():
    ir, vi = sources()
    refresh = history()
    best_ssim, best_gmsd = torch.full((6,), -9.0), torch.full((6,), 9.0)
    for fused in outputs(ir, vi, 8):
        refresh(fused, ir, vi, ALL)
        kept_ssim = ssim_to_both(refresh.by_ssim.images / 255, ir, vi)
        kept_gmsd = gmsd_to_both(refresh.by_gmsd.images / 255, ir, vi)
        assert (kept_ssim >= best_ssim).all() and (kept_gmsd <= best_gmsd).all()
        assert torch.allclose(refresh.by_ssim.scores, kept_ssim, atol=1e-6)
        best_ssim, best_gmsd = kept_ssim, kept_gmsd
    assert refresh.by_ssim.images.dtype == torch.uint8


def test_the_printed_rule_keeps_the_worst_gmsd_and_pushes_away():
    ir, vi = sources()
    printed, released = history("paper"), history("released")
    for fused in outputs(ir, vi, 6):
        losses = [rule(fused, ir, vi, ALL).item() for rule in (printed, released)]
    assert losses[0] < 0 < losses[1]
    assert (printed.by_gmsd.scores > released.by_gmsd.scores).all()


def test_the_loss_of_one_patch_by_hand():
    ir, vi = sources(1)
    good, bad = ((ir + vi) / 2 * 255).round() / 255, random(1, 1, SIDE, SIDE, seed=5)
    refresh = history()
    assert refresh(good, ir, vi, ALL[5:]).item() == 0
    fused = bad.clone().requires_grad_()
    loss = refresh(fused, ir, vi, ALL[5:])
    seen = (bad * 255).round() / 255
    by_ssim = (ssim_to_both(good, ir, vi) - ssim_to_both(seen, ir, vi)).item()
    by_gmsd = (gmsd_to_both(seen, ir, vi) - gmsd_to_both(good, ir, vi)).item()
    assert by_ssim > 0 and by_gmsd > 0
    brightness, edges = (
        (bad - good).abs().mean(),
        (laplacian_edges(bad) - laplacian_edges(good)).square().mean(),
    )
    assert loss.item() == pytest.approx(10 * (by_ssim * brightness + by_gmsd * edges).item(), rel=1e-4)
    # A gap is a constant: the gradient is that of the distances alone.
    loss.backward()
    alone = bad.clone().requires_grad_()
    distance = by_ssim * (alone - good).abs().mean()
    distance = distance + by_gmsd * (laplacian_edges(alone) - laplacian_edges(good)).square().mean()
    (10 * distance).backward()
    assert torch.allclose(fused.grad, alone.grad, atol=1e-7)


def test_features_pull_as_well():
    """With taps that are the image times 1 to 5: three early ones for GMSD, two late ones for SSIM."""
    ir, vi = sources(1)
    good, bad = ((ir + vi) / 2 * 255).round() / 255, random(1, 1, SIDE, SIDE, seed=5)

    def taps(image):
        return [k * image for k in range(1, 6)]

    plain, with_taps = history(), history()
    for refresh in (plain, with_taps):
        refresh(good, ir, vi, ALL[:1])
    seen = (bad * 255).round() / 255
    by_ssim = (ssim_to_both(good, ir, vi) - ssim_to_both(seen, ir, vi)).item()
    by_gmsd = (gmsd_to_both(seen, ir, vi) - gmsd_to_both(good, ir, vi)).item()
    square = (bad - good).square().mean().item()
    more = 10 * square * (by_ssim * (16 + 25) / 2 + by_gmsd * (1 + 4 + 9) / 3)
    got = with_taps(bad, ir, vi, ALL[:1], taps, taps(bad)).item() - plain(bad, ir, vi, ALL[:1]).item()
    assert got == pytest.approx(more, rel=1e-4)


def test_the_order_does_not_matter_and_the_last_patch_has_a_place():
    """The released history has N rows for patches 1 to N, and fails at N."""
    ir, vi = sources()
    plain, shuffled = history(), history()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    for fused in outputs(ir, vi, 5):
        one = plain(fused, ir, vi, ALL).item()
        parts = [shuffled(fused[part], ir[part], vi[part], part).item() / 2 for part in order.split(3)]
        assert sum(parts) == pytest.approx(one, rel=1e-5, abs=1e-9)
    assert torch.allclose(plain.by_ssim.scores, shuffled.by_ssim.scores)
    assert torch.equal(plain.by_gmsd.images, shuffled.by_gmsd.images)


def test_a_random_past_is_any_output_alike_and_leaves_the_gaps_as_they_are():
    count, epochs = 600, 3
    ir, vi = (x[:1].expand(count, -1, -1, -1) for x in sources(1))
    best, control = history(patches=count), history(patches=count, past="random")
    generator, every = torch.Generator().manual_seed(0), torch.arange(count)
    seen = list(outputs(ir[:1], vi[:1], epochs))
    for fused in seen:
        for refresh in (best, control):
            refresh(fused.expand_as(ir), ir, vi, every, generator=generator)
    for mine, theirs in ((control.by_ssim, best.by_ssim), (control.by_gmsd, best.by_gmsd)):
        assert torch.equal(mine.scores, theirs.scores)  # so the gaps are the same
        shares = [(mine.images == (255 * x).round()).flatten(1).all(1).float().mean().item() for x in seen]
        assert shares == pytest.approx([1 / epochs] * epochs, abs=0.08) and sum(shares) == pytest.approx(1)
    alike = (control.by_ssim.images == control.by_gmsd.images).flatten(1).all(1).float().mean().item()
    assert alike < 0.5  # each history draws for itself


def test_a_batch_decides_as_a_whole_in_the_released_way():
    """One image gets better, one worse by more: alone the first is replaced, as a batch none is."""
    ir, vi = sources(2)
    first = torch.cat([random(1, 1, SIDE, SIDE, seed=6), (ir[1:] + vi[1:]) / 2])
    second = torch.cat([0.5 * first[:1] + 0.25 * (ir[:1] + vi[:1]), random(1, 1, SIDE, SIDE, seed=7)])
    for decide, wanted in (("image", [True, False]), ("batch", [False, False])):
        refresh = history(patches=2, decide=decide)
        refresh(first, ir, vi, ALL[:2])
        before = refresh.by_ssim.scores.clone()
        refresh(second, ir, vi, ALL[:2])
        assert (refresh.by_ssim.scores > before).tolist() == wanted


def test_stopped_and_resumed_equals_unbroken(tmp_path):
    ir, vi = sources()
    unbroken, stopped = history(), history()
    for epoch, fused in enumerate(outputs(ir, vi, 6)):
        assert unbroken(fused, ir, vi, ALL).item() == stopped(fused, ir, vi, ALL).item()
        if epoch == 2:
            torch.save(stopped.state_dict(), tmp_path / "state.pt")
            stopped = history()
            stopped.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(unbroken.by_ssim.images, stopped.by_ssim.images)

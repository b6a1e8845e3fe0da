"""Salient masks on images made up by hand, their shares, and patches chosen by them."""

import math

import pytest
import torch
from PIL import Image

from fusionlab.data.masks import hot_mask, mask_share, otsu_mask, read_mask, salient_patches
from fusionlab.errors import UserError


def test_hot_pixels_are_cleaned_of_specks_and_widened_by_one():
    ir = torch.full((1, 1, 40, 50), 0.2)
    ir[..., 10:16, 20:25] = 0.9  # a target
    ir[..., 30, 5] = 1.0  # a speck
    ir[..., 2:4, 40:48] = 1.0  # two pixels thin
    plain = hot_mask(ir, clean=False)
    assert plain.sum() == 30 + 1 + 16
    share = 47 / 2000
    deviation = ir.double().std(correction=0).item()
    assert ir.double().mean().item() + 2 * deviation < 0.9
    known = torch.zeros_like(ir)
    known[..., 9:17, 19:26] = 1
    assert torch.equal(hot_mask(ir), known)
    assert mask_share(plain).item() == pytest.approx(share)
    # k counts in deviations: of a pattern with a share p at 1 and the rest at 0, 1 lies sqrt((1 - p) / p) up.
    two = torch.zeros(1, 1, 10, 10)
    two[..., :4, :5] = 1
    up = math.sqrt(0.8 / 0.2)
    assert (
        hot_mask(two, up - 0.01, clean=False).sum() == 20 and hot_mask(two, up + 0.01, clean=False).sum() == 0
    )
    both = hot_mask(torch.cat([two, torch.zeros_like(two)]), clean=False)  # each by its own statistics
    assert mask_share(both).tolist() == pytest.approx([0.2 if up > 2 else 0.0, 0.0])


def plain_otsu(levels: list[int]) -> int:
    """The threshold t, so that what is above it is one class, that maximises w0 w1 (m0 - m1)^2."""
    best = (-1.0, 0)
    for t in range(255):
        low, high = [x for x in levels if x <= t], [x for x in levels if x > t]
        if low and high:
            means = sum(low) / len(low), sum(high) / len(high)
            best = max(best, (len(low) * len(high) * (means[0] - means[1]) ** 2, -t))
    return -best[1]


@pytest.mark.parametrize("seed", range(3))
def test_otsu_is_the_slow_search(seed):
    generator = torch.Generator().manual_seed(seed)
    dark = torch.randint(10, 90, (1, 1, 8, 8), generator=generator)
    bright = torch.randint(80, 250, (1, 1, 4, 8), generator=generator)
    levels = torch.cat([dark, bright], dim=2)
    threshold = plain_otsu(levels.flatten().tolist())
    assert torch.equal(otsu_mask(levels / 255), (levels > threshold).float())
    flat = torch.full((1, 1, 12, 8), 0.3)
    assert otsu_mask(torch.cat([levels / 255, flat]))[1].sum() == 0


def test_a_given_file_must_fit_its_image(tmp_path):
    ir = torch.zeros(1, 1, 6, 9)
    picture = Image.new("L", (9, 6), 0)
    picture.paste(255, (2, 1, 5, 4))
    picture.save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", ir)
    assert mask.shape == ir.shape and mask.sum() == 9 and mask[..., 1:4, 2:5].all()
    with pytest.raises(UserError, match=r"mask.png has 9x6 pixels, its image 9x7"):
        read_mask(tmp_path / "mask.png", torch.zeros(1, 1, 7, 9))


def test_patches_are_all_squares_within_the_bounds_and_no_other():
    masks = [torch.zeros(1, 1, 20, 24), torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 7, 30)]
    masks[0][..., 5:9, 6:16], masks[2][..., 2, 2] = 1, 1  # the second is empty, the third too small
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    images = [(rows.expand(1, 1, 20, 24), columns.expand(1, 1, 20, 24), masks[0])]
    images += [(mask, mask, mask) for mask in masks[1:]]
    patches = salient_patches(images, 8, 0.1, 0.4)
    known = [
        [top, left]
        for top in range(13)
        for left in range(17)
        if 0.1 <= masks[0][..., top : top + 8, left : left + 8].mean() <= 0.4
    ]
    assert patches.places[0].tolist() == known and [len(found) for found in patches.places[1:]] == [0, 0]
    ir, vi, mask = patches.draw(200, torch.Generator().manual_seed(0))
    assert ir.shape == mask.shape == (200, 1, 8, 8)
    corners = torch.stack([ir[:, 0, 0, 0], vi[:, 0, 0, 0]], dim=1).long().tolist()
    assert all(corner in known for corner in corners) and len(set(map(tuple, corners))) > len(known) / 2
    assert all(
        torch.equal(m[0], masks[0][0, 0, y : y + 8, x : x + 8])
        for m, (y, x) in zip(mask, corners, strict=True)
    )
    assert mask_share(mask).min() >= 0.1 and mask_share(mask).max() <= 0.4
    again = patches.draw(200, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], ir)
    with pytest.raises(UserError, match="no square of 8 pixels has a mask on 99% to 100%"):
        salient_patches(images, 8, 0.99, 1.0)


def test_on_tno_hot_targets_are_a_fortieth_and_otsu_takes_nearly_half(shared):
    """Medians of the mask's share, measured elsewhere on 38 pairs of another copy: .025, .010, .43."""
    from fusionlab.data import open_pairs

    images = [pair.ir for pair in open_pairs("tno")]

    def median(rule):
        return torch.cat([mask_share(rule(ir)) for ir in images]).median().item()

    assert median(lambda ir: hot_mask(ir, clean=False)) == pytest.approx(0.025, abs=0.01)
    assert median(lambda ir: hot_mask(ir, 2.5, clean=False)) == pytest.approx(0.010, abs=0.005)
    assert median(otsu_mask) == pytest.approx(0.43, abs=0.06)

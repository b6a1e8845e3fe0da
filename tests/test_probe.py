"""The linear probe: maps read at pixels against interpolation, the fit against a known line, recall."""

import pytest
import torch
import torch.nn.functional as F

from fusionlab import probe


def test_maps_are_read_as_interpolation_would():
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.rand(1, 3, 12, 16, generator=generator), torch.rand(1, 2, 3, 4, generator=generator)
    rows, columns = torch.tensor([0, 5, 11]), torch.tensor([15, 7, 0])
    whole = torch.cat([fine, F.interpolate(coarse, (12, 16), mode="bilinear")], dim=1)
    torch.testing.assert_close(
        probe.at_pixels([fine, coarse], rows, columns, (12, 16)), whole[0, :, rows, columns].T
    )


def test_probe_finds_a_line_and_nothing_where_there_is_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 6, generator=generator) * torch.tensor([1, 100, 0.01, 1, 1, 1]) + 5
    direction = torch.randn(6, 3, generator=generator) / torch.tensor([1, 100, 0.01, 1, 1, 1])[:, None]
    labels = ((x - 5) @ direction).argmax(dim=1)
    line = probe.fit_probe(x[:3000], labels[:3000], 3, decay=1e-6)
    assert probe.mean_recall(line(x[3000:]), labels[3000:]) > 0.97
    shuffled = labels[torch.randperm(4000, generator=generator)]
    blind = probe.fit_probe(x[:3000], shuffled[:3000], 3)
    assert probe.mean_recall(blind(x[3000:]), shuffled[3000:]) == pytest.approx(1 / 3, abs=0.06)


def test_recall_counts_rare_classes_as_much_as_common_ones():
    scores = F.one_hot(torch.tensor([0, 0, 0, 0, 1, 0]), 3).float()
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    assert probe.mean_recall(scores, labels) == pytest.approx((1 + 0.5) / 2)


def test_iou_is_intersection_over_union_by_class():
    scores = F.one_hot(torch.tensor([0, 0, 0, 1, 1, 2]), 4).float()
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    assert probe.mean_iou(scores, labels) == pytest.approx((2 / 4 + 2 / 3) / 2)


def test_an_unbalanced_line_prefers_the_commonest_class():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=generator) < 0.1).long()
    x = labels[:, None] + 2 * torch.randn(2000, 1, generator=generator)
    rates = [
        probe.fit_probe(x, labels, 2, balanced=b)(x).argmax(1).double().mean().item() for b in (False, True)
    ]
    assert rates[0] < 0.01 and rates[1] > 0.3

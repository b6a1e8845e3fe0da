"""The counter of multiply-adds against counts by hand, with weights and without memory for them."""

import torch
import torch.nn.functional as F
from torch import nn

from fusionlab.attention import criss_cross
from fusionlab.bench.cost import counted, peak_bytes


def test_three_layers_by_hand():
    with torch.device("meta"):
        convolution, linear = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(5, 7)
        image, row, tokens = torch.zeros(2, 3, 16, 12), torch.zeros(4, 5), torch.zeros(1, 1, 9, 4)
    none = {"convolution": 0, "linear": 0, "attention": 0}
    assert counted(lambda: convolution(image)) == none | {"convolution": 2 * (8 * 6) * 8 * (3 * 3 * 3)}
    assert counted(lambda: linear(row)) == none | {"linear": 4 * 5 * 7}
    attention = counted(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens))
    assert attention == none | {"attention": 2 * 9 * 9 * 4}
    assert counted(lambda: nn.Conv2d(3, 8, 1)(torch.zeros(1, 3, 4, 5)))["convolution"] == 20 * 24


def test_criss_cross_attention_asks_a_row_and_a_column():
    q, v = torch.zeros(1, 4, 6, 5), torch.zeros(1, 32, 6, 5)
    for rows in (None, 2):
        assert counted(lambda rows=rows: criss_cross(q, q, v, rows))["attention"] == 6 * 5 * (6 + 5) * (
            4 + 32
        )


def test_bytes_alive_at_once_by_hand():
    """A million float32: what is dropped counts no more, what a backward pass needs does, inputs never."""
    x = torch.rand(1000, 1000)
    million = 4_000_000
    assert peak_bytes(lambda: x + 1) == million
    assert peak_bytes(lambda: [((x + 1) + 1) + 1, None][1]) == 2 * million
    assert peak_bytes(lambda: [x + 1, x + 2, x.view(-1)]) == 2 * million
    assert peak_bytes(lambda: x.view(-1)) == 0
    y = x.clone().requires_grad_()
    chained = peak_bytes(lambda: y.exp().exp().exp().sum())  # each exp keeps its result
    assert 3 * million <= chained < 3 * million + 100

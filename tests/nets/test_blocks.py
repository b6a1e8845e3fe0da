"""Small layers: what they give where their weights are known."""

import torch

from fusionlab.nets.blocks import ScSE


def test_scse_adds_both_branches_by_hand():
    torch.manual_seed(0)
    layer, x = ScSE(4), torch.rand(2, 4, 3, 5)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
        torch.testing.assert_close(layer(x), x)  # both gates one half
        layer.channel[3].bias.fill_(30.0)
        layer.pixel[0].bias.fill_(30.0)
        torch.testing.assert_close(layer(x), 2 * x)

"""The U-Net: its size by part, its shapes, its start, and that the noise level reaches every part."""

import pytest
import torch
from torch import nn

from fusionlab.nets.unet import Attention, Block, UNet, norm


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_of_the_released_size():
    network = UNet()
    parts = {
        "time_embed": 82_432,
        "encoder": 1_639_296,
        "middle": 2_625_536,
        "decoder": 5_990_400,
        "out": 1_282,
    }
    assert {name: count(part) for name, part in network.named_children()} == parts
    assert count(network) == 10_338_946
    assert [count(stage) for stage in network.encoder] == [
        1_216,
        107_008,
        36_928,
        295_936,
        147_584,
        1_050_624,
    ]


def test_shapes_of_an_odd_size():
    network = UNet(width=16)
    x = torch.rand(2, 2, 66, 65)
    encoded = network.encode(x, torch.zeros(2))
    assert [tuple(m.shape[1:]) for m in encoded] == [
        (16, 68, 68), (16, 68, 68), (16, 34, 34), (32, 34, 34), (32, 17, 17), (64, 17, 17),
    ]  # fmt: skip
    decoded = network.decode(encoded, torch.zeros(2))
    assert [tuple(m.shape[1:]) for m in decoded] == [
        (64, 17, 17), (64, 34, 34), (32, 34, 34), (32, 68, 68), (16, 68, 68), (16, 68, 68),
    ]  # fmt: skip
    assert network(x, torch.zeros(2)).shape == x.shape


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2, 4)])
def test_depth_is_a_setting(multipliers):
    network = UNet(channels=3, width=8, multipliers=multipliers)
    x = torch.rand(1, 3, 16, 19)
    assert network(x, torch.tensor(0.5)).shape == x.shape
    assert len(network.encode(x, torch.tensor(0.5))) == 2 * len(multipliers)


def test_starts_at_zero_and_blind_to_the_noise():
    network = UNet(width=16)
    x = torch.rand(1, 2, 16, 16)
    assert (network(x, torch.tensor(0.3)) == 0).all()
    near, far = (network.encode(x, torch.tensor(c)) for c in (-1.5, 1.0))
    assert all(torch.equal(a, b) for a, b in zip(near, far, strict=True))


def test_noise_reaches_all_outputs_but_the_first_once_weights_move():
    network = UNet(width=16)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    x = torch.rand(2, 2, 16, 16, generator=generator)
    noise = torch.tensor([-1.5, 1.0])
    both = network.encode(x, noise)
    for sample in range(2):
        alone = network.encode(x[sample : sample + 1], noise[sample])
        for a, b in zip(both, alone, strict=True):
            torch.testing.assert_close(a[sample : sample + 1], b, atol=1e-5, rtol=1e-4)
    moved = network.encode(x, noise.flip(0))
    assert torch.equal(both[0], moved[0])
    assert not any(torch.equal(a, b) for a, b in zip(both[1:], moved[1:], strict=True))


def test_label_is_waves_of_the_noise_cosines_first():
    network = UNet(width=8)
    network.time_embed = nn.Identity()
    waves = network.label(torch.tensor([0.002]), 1)[0]
    rates = torch.tensor([1.0, 0.1, 0.01, 0.001])  # 10000^(-i/4)
    torch.testing.assert_close(waves, torch.cat([(2 * rates).cos(), (2 * rates).sin()]))


def test_groups_hold_two_channels_or_more():
    assert [norm(c).num_groups for c in (64, 128, 192, 384)] == [32] * 4
    assert [norm(c).num_groups for c in (8, 16, 24, 32, 48)] == [4, 8, 4, 16, 8]


def test_attention_is_softmax_over_all_positions_written_out():
    torch.manual_seed(0)
    layer, x = Attention(16).double(), torch.randn(2, 16, 3, 5, dtype=torch.float64)
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)
    weights = (torch.einsum("bcn,bcm->bnm", q, k) / 4).softmax(2)
    wanted = x + layer.out(torch.einsum("bnm,bcm->bcn", weights, v).view(x.shape))
    torch.testing.assert_close(layer(x), wanted, atol=1e-12, rtol=0)


def test_without_film_the_label_is_added_before_the_second_normalisation():
    torch.manual_seed(1)
    block = Block(8, 16, 4, film=False)
    nn.init.normal_(block.second[1].weight, std=0.1)
    x, label = torch.randn(2, 8, 6, 6), torch.randn(2, 4)
    inner = block.norm(block.first(x) + block.shift(label)[:, :, None, None])
    torch.testing.assert_close(block(x, label), block.shortcut(x) + block.second(inner))
    assert block.film is None and block.attention is None


def test_blocks_a_level_attention_in_the_last_and_dropout_in_training_alone():
    network = UNet(1, 8, (1, 2), blocks=2, film=False, attention=True, dropout=0.5)
    assert (len(network.encoder), len(network.decoder)) == (1 + 2 + 1 + 2, 6)
    attends = [name for name, layer in network.named_modules() if isinstance(layer, Attention)]
    assert attends == [
        *(f"encoder.{i}.attention" for i in (4, 5)),
        "middle.0.attention",
        *(f"decoder.{i}.attention" for i in (0, 1, 2)),
    ]
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.2)
    x, noise = torch.rand(1, 1, 8, 8), torch.tensor(0.5)
    assert not torch.equal(network(x, noise), network(x, noise))
    network.eval()
    assert torch.equal(network(x, noise), network(x, noise))

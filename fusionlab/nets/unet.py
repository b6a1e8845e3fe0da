"""The U-Net of CoMoFusion (Fig. 3): no attention, the noise level enters every block but the first."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """(B, C, H, W) and a noise label to (B, C, H, W): 10,338,946 parameters at the released size.

    `channels` are the images of a pair, vis before ir; `width` that of the first level, `multipliers` those
    of each level, half as large as the one before. Layers as in the released code. A new network answers 0.
    """

    def __init__(self, channels: int = 2, width: int = 64, multipliers: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.width, self.shrink = width, 2 ** (len(multipliers) - 1)
        label = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, label), nn.SiLU(), nn.Linear(label, label))

        widths = [width * multiplier for multiplier in multipliers]
        encoder: list[nn.Module] = [conv(channels, width)]
        kept = [width]  # the width of each encoder output
        for level, wide in enumerate(widths):
            if level:
                encoder.append(conv(kept[-1], kept[-1], stride=2))
                kept.append(kept[-1])
            encoder.append(Block(kept[-1], wide, label))
            kept.append(wide)
        self.encoder = nn.ModuleList(encoder)
        self.middle = nn.ModuleList(Block(widths[-1], widths[-1], label) for _ in range(2))

        decoder, running = [], widths[-1]
        for level, wide in reversed(list(enumerate(widths))):
            for last in (False, True):
                block = Block(running + kept.pop(), wide, label, up=last and level > 0)
                decoder.append(block)
                running = wide
        self.decoder = nn.ModuleList(decoder)
        self.out = nn.Sequential(norm(width), nn.SiLU(), zero(conv(width, channels)))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """F(x, c_noise) of Eq. 3: images (B, C, H, W) of any size, labels ln(t)/4 of shape (B,) or ()."""
        height, width = x.shape[-2:]
        decoded = self.decode(self.encode(x, noise), noise)
        return self.out(decoded[-1])[..., :height, :width]

    def encode(self, x: Tensor, noise: Tensor) -> list[Tensor]:
        """The outputs of the encoder, at the released size six; fusion takes 0, 3 and 5 (w, 2w, 4w wide).

        Sides that the network cannot halve evenly are first filled up, right and below, with the last pixel
        (the released code adds white on both sides), so the outputs have the filled size; crop after use.
        """
        label = self.label(noise, len(x))
        right, below = (-side % self.shrink for side in (x.shape[-1], x.shape[-2]))
        maps = [F.pad(x, (0, right, 0, below), mode="replicate")]
        for stage in self.encoder:
            maps.append(stage(maps[-1], label) if isinstance(stage, Block) else stage(maps[-1]))
        return maps[1:]

    def decode(self, encoded: Sequence[Tensor], noise: Tensor) -> list[Tensor]:
        """The outputs of the decoder from those of the encoder; Table 4, row III fuses 0, 2 and 5."""
        label = self.label(noise, len(encoded[-1]))
        x = encoded[-1]
        for block in self.middle:
            x = block(x, label)
        maps = [x]
        for block, beside in zip(self.decoder, reversed(encoded), strict=True):
            maps.append(block(torch.cat([maps[-1], beside], dim=1), label))
        return maps[1:]

    def label(self, noise: Tensor, batch: int) -> Tensor:
        """What every block is told of the noise, (B, 4 width): a small net on waves of 1000 c_noise."""
        half = self.width // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, device=noise.device) / half)
        angles = 1000 * noise.expand(batch)[:, None] * rates
        return self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))


class Block(nn.Module):
    """A residual block whose second normalisation is scaled and shifted by the noise label (FiLM).

    (B, C, H, W) and (B, L) to (B, D, H, W), or twice the sides with `up`. Starts as its own shortcut.
    """

    def __init__(self, channels_in: int, channels_out: int, label: int, up: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(channels_in), nn.SiLU(), conv(channels_in, channels_out))
        self.film = nn.Sequential(nn.SiLU(), nn.Linear(label, 2 * channels_out))
        self.norm = norm(channels_out)
        self.second = nn.Sequential(nn.SiLU(), zero(conv(channels_out, channels_out)))
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), conv(channels_out, channels_out)) if up else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        scale, shift = self.film(label)[..., None, None].chunk(2, dim=1)
        changed = self.second(torch.addcmul(shift, self.norm(self.first(x)), 1 + scale))
        result = self.shortcut(x) + changed
        return result if self.up is None else self.up(result)


def conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with zero padding."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 32 groups; narrower maps get fewer, so that a group has two channels or more.

    One channel alone would lose its mean, which is the brightness.
    """
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all weights 0, so that what it belongs to starts as the identity or as 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

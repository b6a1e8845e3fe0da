"""The U-Net of CoMoFusion (Fig. 3) and of DMFuse: what differs is a setting, what is named is the same."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """(B, C, H, W) and a noise label to (B, C, H, W): 10,338,946 parameters at CoMoFusion's released size.

    `channels` are those of the images; `width` that of the first level, `multipliers` those of each level,
    half as large as the one before. A level has `blocks` blocks on the way in and one more on the way out.
    With `film` the noise label scales and shifts in each block, without it is added. `attention` is that of
    the last level and the middle; `scale` multiplies the label before it is made waves. A new network answers
    0. Layers as in the released codes, but for the groups (see `norm`) and these zeros in DMFuse's.
    """

    def __init__(
        self,
        channels: int = 2,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        film: bool = True,
        attention: bool = False,
        dropout: float = 0.0,
        scale: float = 1000.0,
    ) -> None:
        super().__init__()
        self.width, self.shrink, self.scale = width, 2 ** (len(multipliers) - 1), scale
        label = 4 * width if film else width
        self.time_embed = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, label))

        def block(wide_in: int, wide_out: int, attends: bool, up: bool = False) -> Block:
            return Block(wide_in, wide_out, label, up, film, attention and attends, dropout)

        widths = [width * multiplier for multiplier in multipliers]
        deepest = len(widths) - 1
        encoder: list[nn.Module] = [conv(channels, width)]
        kept = [width]  # the width of each encoder output
        for level, wide in enumerate(widths):
            if level:
                encoder.append(conv(kept[-1], kept[-1], stride=2))
                kept.append(kept[-1])
            for _ in range(blocks):
                encoder.append(block(kept[-1], wide, level == deepest))
                kept.append(wide)
        self.encoder = nn.ModuleList(encoder)
        self.middle = nn.ModuleList(block(widths[-1], widths[-1], attends) for attends in (True, False))

        decoder, running = [], widths[-1]
        for level, wide in reversed(list(enumerate(widths))):
            for number in range(blocks + 1):
                up = number == blocks and level > 0
                decoder.append(block(running + kept.pop(), wide, level == deepest, up))
                running = wide
        self.decoder = nn.ModuleList(decoder)
        self.out = nn.Sequential(norm(width), nn.SiLU(), zero(conv(width, channels)))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """F(x, c_noise): images (B, C, H, W) of any size, labels such as ln(t)/4 of shape (B,) or ()."""
        height, width = x.shape[-2:]
        decoded = self.decode(self.encode(x, noise), noise)
        return self.out(decoded[-1])[..., :height, :width]

    def encode(self, x: Tensor, noise: Tensor) -> list[Tensor]:
        """The outputs of the encoder, fine to coarse: six in CoMoFusion, which takes 0, 3, 5; 15 in DMFuse.

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
        """As many outputs of the decoder, coarse to fine, from those of the encoder.

        The last one of a level is enlarged already. CoMoFusion's Table 4, row III, fuses 0, 2 and 5.
        """
        label = self.label(noise, len(encoded[-1]))
        x = encoded[-1]
        for block in self.middle:
            x = block(x, label)
        maps = [x]
        for block, beside in zip(self.decoder, reversed(encoded), strict=True):
            maps.append(block(torch.cat([maps[-1], beside], dim=1), label))
        return maps[1:]

    def label(self, noise: Tensor, batch: int) -> Tensor:
        """What every block is told of the noise, (B, L): a small net on waves of scale c_noise."""
        half = self.width // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, device=noise.device) / half)
        angles = self.scale * noise.expand(batch)[:, None] * rates
        return self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=1))


class Block(nn.Module):
    """A residual block that is told the noise label between its convolutions.

    (B, C, H, W) and (B, L) to (B, D, H, W), or twice the sides with `up`. The second normalisation is scaled
    and shifted by the label (FiLM), or, without `film`, what comes before it is shifted. Starts as its own
    shortcut, but for what `attention` then adds.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        label: int,
        up: bool = False,
        film: bool = True,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(channels_in), nn.SiLU(), conv(channels_in, channels_out))
        self.film = nn.Sequential(nn.SiLU(), nn.Linear(label, 2 * channels_out)) if film else None
        self.shift = None if film else nn.Linear(label, channels_out)
        self.norm = norm(channels_out)
        active = nn.Sequential(nn.SiLU(), nn.Dropout(dropout)) if dropout else nn.SiLU()
        self.second = nn.Sequential(active, zero(conv(channels_out, channels_out)))
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        self.attention = Attention(channels_out) if attention else None
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), conv(channels_out, channels_out)) if up else None

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        changed = self.first(x)
        if self.shift is not None:
            changed = self.norm(changed + self.shift(label)[..., None, None])
        if self.film is not None:
            scale, shift = self.film(label)[..., None, None].chunk(2, dim=1)
            changed = torch.addcmul(shift, self.norm(changed), 1 + scale)
        result = self.shortcut(x) + self.second(changed)
        if self.attention is not None:
            result = self.attention(result)
        return result if self.up is None else self.up(result)


class Attention(nn.Module):
    """Attention of all positions to all, one head, added to its input: (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Not contiguous, it falls back to a form of quadratic memory, silently.
        flat = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()
        q, k, v = (part[:, None].contiguous() for part in flat.chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


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


def draw_zeros(layer: nn.Module) -> None:
    """Draws the weights of a convolution that starts at 0, as torch draws the others."""
    if isinstance(layer, nn.Conv2d) and not layer.weight.any():
        layer.reset_parameters()

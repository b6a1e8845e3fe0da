"""Small layers that more than one network is made of."""

from torch import Tensor, nn


def reflect_conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution behind a reflection pad of one pixel: (B, C, H, W) to (B, D, ceil(H/s), ceil(W/s))."""
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels_in, channels_out, 3, stride))


class ScSE(nn.Module):
    """Weighs channels by their means and pixels by a 1x1 convolution, and adds both (Roy et al. 2018).

    (B, C, H, W) to the same; as both gates are at most 1, the gain is at most 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 2, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 1),
            nn.Sigmoid(),
        )
        self.pixel = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel(x) + x * self.pixel(x)

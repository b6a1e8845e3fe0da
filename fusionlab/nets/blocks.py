"""Small layers that more than one network is made of."""

from torch import nn


def reflect_conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution behind a reflection pad of one pixel: (B, C, H, W) to (B, D, ceil(H/s), ceil(W/s))."""
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels_in, channels_out, 3, stride))

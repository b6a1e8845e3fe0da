"""MMDRFuse: a student of 113 parameters learns from a teacher of 556,489.

Networks as in the released code (the paper draws them in Fig. 2 without layer sizes). Both take the infrared
image as channel 0 and the visible image as channel 1, and end in tanh. How they are trained stands in
`fusionlab.methods.mmdrfuse_training`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlab.losses.gradient import gradient_loss
from fusionlab.losses.pixel import intensity_loss
from fusionlab.nets import frames
from fusionlab.nets.blocks import reflect_conv


class Student(nn.Module):
    """The two convolutions of MMDRFuse (Fig. 2, right), 2 -> 4 -> 1 channels: 113 parameters.

    `hidden` is 4 in the paper; with 32 it has 897 parameters, which at the 8 bytes each that Table 3 counts
    for the teacher are the 7.01 KB of its second student.
    """

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        self.conv1 = reflect_conv(2, hidden)
        self.conv2 = reflect_conv(hidden, 1)

    def features(self, ir: Tensor, vi: Tensor) -> Tensor:
        """S_1 of Eq. 1: the hidden maps after ReLU, (B, 4, H, W)."""
        return F.relu(self.conv1(torch.cat([ir, vi], dim=1)))

    def maps(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """(S_1, S_2) in one pass."""
        hidden = self.features(ir, vi)
        return hidden, torch.tanh(self.conv2(hidden))

    def raw(self, ir: Tensor, vi: Tensor) -> Tensor:
        """S_2 of Eq. 1: the output after tanh, (B, 1, H, W) in (-1, 1), not clipped.

        Large frames without gradients take the faster form of `fusionlab.nets.frames` on a CPU; the two agree
        within 1e-6.
        """
        if torch.is_grad_enabled() or ir.is_cuda or ir[0].numel() < frames.LARGE:
            return self.maps(ir, vi)[1]
        return frames.two_convolutions(torch.cat([ir, vi], dim=1), self.conv1, self.conv2).tanh_()

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1] into one."""
        return self.raw(ir, vi).clamp(0, 1)


class Teacher(nn.Module):
    """The dense network that MMDRFuse distils from (Fig. 2, left): 556,489 parameters, most at half size.

    `width` is 32 in the paper: so many channels at full size, twice as many at half size.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w = width
        self.conv1 = reflect_conv(2, w)
        self.conv2 = reflect_conv(w, w)
        self.conv3 = reflect_conv(2 * w, 2 * w, stride=2)
        self.conv4 = reflect_conv(2 * w, 2 * w)
        self.conv5 = reflect_conv(4 * w, 2 * w)
        self.conv6 = reflect_conv(6 * w, 2 * w)
        self.conv66 = reflect_conv(2 * w, 2 * w)
        self.conv55 = reflect_conv(4 * w, 2 * w)
        self.conv44 = reflect_conv(4 * w, 2 * w)
        self.conv33 = reflect_conv(4 * w, 2 * w)
        self.conv22 = reflect_conv(3 * w, w)
        self.conv11 = reflect_conv(2 * w, 4)
        self.conv00 = reflect_conv(4, 1)

    def features(self, ir: Tensor, vi: Tensor) -> Tensor:
        """T_1 of Eq. 1: the last hidden maps after ReLU, (B, 4, H, W) for even H and W."""

        def layer(conv: nn.Module, *maps: Tensor) -> Tensor:
            return F.relu(conv(torch.cat(maps, dim=1)))

        a = layer(self.conv1, ir, vi)
        b = layer(self.conv2, a)
        d = layer(self.conv3, a, b)  # half size from here
        e = layer(self.conv4, d)
        f = layer(self.conv5, d, e)
        g = layer(self.conv6, d, e, f)
        y = layer(self.conv66, g)
        y = layer(self.conv55, f, y)
        y = layer(self.conv44, e, y)
        y = layer(self.conv33, d, y)
        y = F.interpolate(y, scale_factor=2, mode="bicubic", align_corners=False)
        y = layer(self.conv22, b, y)
        return layer(self.conv11, a, y)

    def maps(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """(T_1, T_2) in one pass, for even H and W."""
        hidden = self.features(ir, vi)
        return hidden, torch.tanh(self.conv00(hidden))

    def raw(self, ir: Tensor, vi: Tensor) -> Tensor:
        """T_2 of Eq. 1: the output after tanh, (B, 1, H, W) in (-1, 1), not clipped.

        The released network raises on an odd side, because half of it, doubled, is one pixel too many. Here
        one reflected row or column is added below or to the right and cut off again.
        """
        height, width = ir.shape[-2:]
        ir, vi = (F.pad(image, (0, width % 2, 0, height % 2), mode="reflect") for image in (ir, vi))
        return self.maps(ir, vi)[1][..., :height, :width]

    def forward(self, ir: Tensor, vi: Tensor) -> Tensor:
        """Fuses two (B, 1, H, W) images in [0, 1] into one."""
        return self.raw(ir, vi).clamp(0, 1)


def pixel_objective(network: Student | Teacher, ir: Tensor, vi: Tensor) -> Tensor:
    """L_int + 0.1 L_grad (Eq. 2 and 3, in the released form and weights of the student): no VGG, no teacher.

    What our shipped 113 parameters are trained with on scenes: seconds, where a teacher takes minutes.
    """
    _, fused = network.maps(ir, vi)
    return intensity_loss(fused, ir, vi) + 0.1 * gradient_loss(fused, ir, vi, variant="released")

"""What a network trained on photographs sees in the fused image (MMDRFuse, Eq. 4).

The functions take the feature maps, not the images: a pass through the network is dear, so each image makes
it once for all taps, and the sources, which never change, once for the whole training.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def source_maxima(ir: Sequence[Tensor], vi: Sequence[Tensor]) -> list[Tensor]:
    """max(phi(I_ir), phi(I_vis)) for each tap: what the fused image's features are compared with.

    ir, vi: the taps of the two sources, each (B, C, H, W). They hold for every epoch; keep them.
    """
    return [torch.maximum(a, b) for a, b in zip(ir, vi, strict=True)]


def perceptual_loss(fused: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean over the taps of the mean squared distance of features (MMDRFuse, Eq. 4 with five taps).

    fused, target: one (B, C, H, W) a tap. Each tap is divided by its own number of values, as the released
    code does; Eq. 4 prints one H and W for all. Returns a scalar.
    """
    distances = [F.mse_loss(a, b) for a, b in zip(fused, target, strict=True)]
    return torch.stack(distances).mean()

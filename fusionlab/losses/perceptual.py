"""What a network trained on photographs sees in the fused image (MMDRFuse, Eq. 4).

A pass through that network is dear. Each image needs one for all taps, and the sources, which never change,
one for the whole training: both can be handed in.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Taps = Callable[[Tensor], Sequence[Tensor]]  # an image (B, 1, H, W) to its feature maps, each (B, C, h, w)


@torch.no_grad()
def source_maxima(ir: Tensor, vi: Tensor, taps: Taps) -> list[Tensor]:
    """max(phi(I_ir), phi(I_vis)) of two (B, 1, H, W), for each tap: what the fused image's are compared with.

    They hold for every epoch; keep them.
    """
    return [torch.maximum(a, b) for a, b in zip(taps(ir), taps(vi), strict=True)]


def perceptual_loss(
    fused: Tensor,
    ir: Tensor,
    vi: Tensor,
    taps: Taps,
    *,
    maxima: Sequence[Tensor] | None = None,
    seen: Sequence[Tensor] | None = None,
) -> Tensor:
    """Mean over the taps of the mean squared distance of features (MMDRFuse, Eq. 4 with five taps).

    fused, ir, vi: (B, 1, H, W) in [0, 1]. maxima: `source_maxima(ir, vi, taps)`, seen: `taps(fused)`, where
    they are known already. Each tap is divided by its own number of values, as the released code does; Eq. 4
    prints one H and W for all. Returns a scalar.
    """
    if maxima is None:
        maxima = source_maxima(ir, vi, taps)
    if seen is None:
        seen = taps(fused)
    return torch.stack([F.mse_loss(a, b) for a, b in zip(seen, maxima, strict=True)]).mean()

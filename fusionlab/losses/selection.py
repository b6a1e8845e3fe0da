"""Which of two sources each pixel value should come from: the pixel value selection loss of CoMoFusion."""

from typing import Literal

from torch import Tensor

from fusionlab.errors import UserError
from fusionlab.losses.gradient import Border, edge_strength, sobel

ActivityForm = Literal["paper", "released"]
Guard = Literal["bounded", "ratio", "epsilon"]


def activity(image: Tensor, form: ActivityForm = "paper", border: Border = "replicate") -> Tensor:
    """g_I of each image, (B, 1, H, W) to (B,): how much there is to see, blind to brightness (Eq. 7).

    "paper" is the mean of gx^2 + gy^2, the squared Frobenius norm as printed; "released" that of
    (|gx| + |gy|)^2, up to twice as much.
    """
    if form == "released":
        return edge_strength(image, border).square().mean(dim=(1, 2, 3))
    if form != "paper":
        raise UserError(f"there is no form {form!r} of Eq. 7; use paper or released")
    gx, gy = sobel(image, border)
    return (gx.square() + gy.square()).mean(dim=(1, 2, 3))


def selection_loss(
    fused: Tensor,
    ir: Tensor,
    vi: Tensor,
    guard: Guard = "bounded",
    form: ActivityForm = "paper",
    border: Border = "replicate",
) -> Tensor:
    """L_pvs: how much activity g_r the fused image leaves over, I_r = I_vis + I_ir - I_f (Eq. 6-8): a scalar.

    All (B, 1, H, W). Least, 0, for I_f = I_vis + I_ir + any constant. `guard` says against what g_r counts:
    "ratio" is g_r / g_f as printed, infinite for a flat I_f, where a training starts; "epsilon" adds .01 to
    g_f; "bounded" is g_r / (g_r + g_f), within 0 and 1 with the same minimiser, 0 where both are flat.
    """
    left = activity(vi + ir - fused, form, border)
    kept = activity(fused, form, border)
    if guard == "ratio":
        return (left / kept).mean()
    if guard == "epsilon":
        return (left / (kept + 0.01)).mean()
    if guard == "bounded":
        return (left / (left + kept + 1e-8)).mean()
    raise UserError(f"there is no guard {guard!r} of the ratio; use bounded, ratio or epsilon")

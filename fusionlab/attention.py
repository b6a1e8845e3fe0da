"""Criss-cross attention: each position asks its row and its column (Huang et al., CCNet; DMFuse, Eq. 6-9)."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fusionlab.errors import UserError

Query = Literal["paper", "released"]

# Weights held at once: four million float32, 16 MiB, where all of a 256x256 map take eight times as much.
HELD = 2**22


def criss_cross(q: Tensor, k: Tensor, v: Tensor, rows: int | None = None) -> Tensor:
    """sum_m softmax_m(q_n . k_m) v_m over the H + W - 1 positions m in the row and column of each n.

    q, k: (B, d, H, W); v: (B, C, H, W); returns (B, C, H, W), any H and W. The centre lies in the row and in
    the column, and counts once. No 1/sqrt(d), as in CCNet. Exact whatever `rows`, the rows of queries that
    are done at once; by default as many as hold HELD weights, so that memory does not grow with H W (H + W).
    """
    batch, _, height, width = q.shape
    if rows is None:
        rows = max(1, HELD // (batch * width * (height + width)))
    parts = [_some_rows(q, k, v, top, min(top + rows, height)) for top in range(0, height, rows)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _some_rows(q: Tensor, k: Tensor, v: Tensor, top: int, bottom: int) -> Tensor:
    """The outputs of some rows, (B, C, bottom - top, W).

    One softmax over both lists is two exponentials over one sum, so the two are never joined.
    """
    q, k_row, v_row = (x[:, :, top:bottom] for x in (q, k, v))
    along = torch.einsum("bdhw,bdhj->bhwj", q, k_row)  # with each column j of the own row
    down = torch.einsum("bdhw,bdiw->bwhi", q, k)  # with each row i of the own column
    centre = torch.eye(k.shape[2], dtype=torch.bool, device=k.device)[top:bottom]
    down = down.masked_fill_(centre, -torch.inf)  # it is in `along` already, so no list is all -inf

    largest = torch.maximum(along.detach().amax(3), down.detach().amax(3).transpose(1, 2))[..., None]
    along = along.sub_(largest).exp_()
    down = down.sub_(largest.transpose(1, 2)).exp_()
    total = along.sum(3) + down.sum(3).transpose(1, 2)
    mixed = torch.einsum("bhwj,bchj->bchw", along, v_row) + torch.einsum("bwhi,bciw->bchw", down, v)
    return mixed / total[:, None]


class CrissCross(nn.Module):
    """Attention with its 1x1 convolutions Q, K (to C / 8 channels), V and the gain gamma, which starts at 0.

    With C = 32 this is the CAIM of DMFuse (Fig. 2 b), 1,321 parameters. `query` says whose queries meet whose
    keys across modalities. "released": the position asks with the other's query, its neighbours answer with
    own keys, as cross-attention goes. "paper", Eq. 6 as printed: the position shows its own key, and the
    neighbours' queries are the other's. Values are always its own.
    """

    def __init__(self, channels: int, query: Query = "released") -> None:
        super().__init__()
        if channels < 8:
            raise UserError(f"{channels} channels leave nothing of an eighth; give 8 or more")
        if query not in get_args(Query):
            raise UserError(f"there is no query {query!r}; use paper or released")
        self.crossed = query
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """gamma times attention plus x (Eq. 8, 9), (B, C, H, W); without `other` attention to itself."""
        q, k = self.query(x if other is None else other), self.key(x)
        if other is not None and self.crossed == "paper":
            q, k = k, q
        return self.gamma * criss_cross(q, k, self.value(x)) + x

    def exchange(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
        """Both modalities (B, C, H, W) after each has met the other's queries (Eq. 6-9): same shapes."""
        return self(ir, vi), self(vi, ir)

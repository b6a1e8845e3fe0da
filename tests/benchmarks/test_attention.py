"""Criss-cross attention in chunks beside its plain einsum form, full attention and SDPA: time and memory."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlab.attention import criss_cross


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The usual form: both lists of scores joined, one softmax, all positions at once."""
    height = q.shape[2]
    down = torch.einsum("bdhw,bdiw->bhwi", q, k)
    down = down.masked_fill(torch.eye(height, dtype=torch.bool)[:, None], -torch.inf)
    weights = torch.cat([down, torch.einsum("bdhw,bdhj->bhwj", q, k)], dim=3).softmax(3)
    mixed = torch.einsum("bhwi,bciw->bchw", weights[..., :height], v)
    return mixed + torch.einsum("bhwj,bchj->bchw", weights[..., height:], v)


def full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bdn,bdm->bnm", q.flatten(2), k.flatten(2)).softmax(2)
    return torch.einsum("bnm,bcm->bcn", weights, v.flatten(2)).view(v.shape)


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Not contiguous, it falls back to a form of quadratic memory, silently.
    a, b, c = (x.flatten(2).transpose(1, 2).contiguous()[:, None] for x in (q, k, v))
    return F.scaled_dot_product_attention(a, b, c, scale=1.0)[:, 0].transpose(1, 2).view(v.shape)


FORMS = {"chunked": criss_cross, "einsum": plain, "full": full, "SDPA": sdpa}


def inputs(side: int, d: int, c: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Two directions."""
    torch.manual_seed(0)
    return [tuple(torch.randn(1, n, side, side) for n in (d, d, c)) for _ in range(2)]


def extra(form: str, side: int, d: int, c: int) -> float:
    """MiB that a fresh process needs above its inputs and outputs, both directions."""
    code = f"""
from test_attention import *
def peak():
    if sys.platform == "linux":
        with open("/proc/self/status") as status:
            return int(next(line.split()[1] for line in status if line.startswith("VmHWM")))
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
torch.set_grad_enabled(False)
for qkv in inputs(8, {d}, {c}):
    FORMS["{form}"](*qkv)
both = inputs({side}, {d}, {c})
made = [torch.ones_like(qkv[2]) for qkv in both]
before = peak()
for place, qkv in enumerate(both):
    made[place] = FORMS["{form}"](*qkv)
print(peak() - before)
"""
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=here)
    return int(done.stdout.split()[-1]) / 1024


@torch.no_grad()
def both_ways(form: str, qkvs: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    for qkv in qkvs:
        FORMS[form](*qkv)


def test_two_directions_of_the_finest_level(cpu_seconds):
    """256x256 pixels, 32 channels, 4 of queries and keys: what one pair of DMFuse's finest maps costs."""
    qkvs = inputs(256, 4, 32)
    with torch.no_grad():
        torch.testing.assert_close(criss_cross(*qkvs[0]), plain(*qkvs[0]), atol=1e-5, rtol=0)
    times = {form: cpu_seconds(lambda form=form: both_ways(form, qkvs), 3) for form in ("chunked", "einsum")}
    memory = {form: extra(form, 256, 4, 32) for form in times}
    print()
    for form, time in times.items():
        print(f"{form}, 256x256, two directions: {time:.2f} s CPU, {memory[form]:.0f} MiB more")
    assert memory["chunked"] < 90
    assert times["chunked"] < times["einsum"]


@pytest.mark.parametrize("side", [32, 64, 96])
def test_beside_attention_to_all_positions(side, cpu_seconds):
    qkvs = inputs(side, 64, 64)
    times = {form: cpu_seconds(lambda form=form: both_ways(form, qkvs), 2) for form in FORMS}
    memory = {form: extra(form, side, 64, 64) for form in FORMS}
    print()
    for form, time in times.items():
        print(f"{form}, {side}x{side}, two directions: {1000 * time:.0f} ms CPU, {memory[form]:.0f} MiB more")
    if side == 96:
        assert times["chunked"] < min(times["full"], times["SDPA"]) / 5
        assert memory["chunked"] < memory["full"] / 10

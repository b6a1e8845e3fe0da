"""CoMoFusion's training steps beside the same steps written out, and its fusion of one 640x480 pair."""

import copy
import os
import subprocess
import sys

import pytest
import torch

from fusionlab.crops import draw_crops
from fusionlab.diffusion.consistency import pseudo_huber
from fusionlab.diffusion.edm import consistency_preconditioning, noise_levels
from fusionlab.losses import weighted_sum
from fusionlab.methods.comofusion import (
    AS_RELEASED,
    SOUND,
    CoMoFusion,
    Stage,
    fusion_terms,
    joint,
    train_consistency,
    train_fusion,
)
from fusionlab.scenes import scene

STEPS = 4


def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    ir, vi = torch.rand(2, 3, 1, 160, 200, generator=torch.Generator().manual_seed(0))
    return [(ir[i : i + 1], vi[i : i + 1]) for i in range(3)]


def plain_consistency(network: CoMoFusion, batch: int, size: int) -> None:
    """Eq. 5 in one function: no loop, no checkpoint, no bar."""
    unet, target = network.unet, copy.deepcopy(network.unet)
    optimiser = torch.optim.RAdam(unet.parameters(), lr=1e-4)
    generator, levels, pairs = torch.Generator().manual_seed(0), noise_levels(40).float(), images()

    def denoise(net, x, t):
        c = consistency_preconditioning(t)
        skip, out, scale = (k[:, None, None, None] for k in (c.c_skip, c.c_out, c.c_in))
        return skip * x + out * net(scale * x, c.c_noise)

    for _ in range(STEPS):
        x = joint(*draw_crops(pairs, batch, size, generator))
        i = torch.randint(39, (batch,), generator=generator)
        z, t, u = torch.randn(x.shape, generator=generator), levels[i], levels[i + 1]
        with torch.no_grad():
            nearer = denoise(target, x + t[:, None, None, None] * z, t)
        optimiser.zero_grad()
        pseudo_huber(denoise(unet, x + u[:, None, None, None] * z, u), nearer).mean().backward()
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), unet.parameters(), strict=True):
                slow.lerp_(fast, 0.0026)


def plain_fusion(network: CoMoFusion, batch: int, size: int) -> None:
    optimiser = torch.optim.AdamW(network.head.parameters(), lr=1e-4)
    generator, pairs, weights = torch.Generator().manual_seed(0), images(), {"selection": 1.0, "edges": 1.0}
    for _ in range(STEPS):
        ir, vi = draw_crops(pairs, batch, size, generator)
        with torch.no_grad():
            maps = network.maps(ir, vi)
        optimiser.zero_grad()
        weighted_sum(fusion_terms((network.head(maps) + 1) / 2, ir, vi), weights).backward()
        optimiser.step()


@pytest.mark.parametrize("width, batch, size", [(64, 4, 64), (32, 4, 64), (32, 4, 32)])
def test_training_steps_cost_what_their_arithmetic_costs(width, batch, size, cpu_seconds):
    network, stage = CoMoFusion(width), Stage(STEPS, batch, size)
    steps = {
        "consistency": (
            lambda: train_consistency(network.unet, images(), stage),
            lambda: plain_consistency(network, batch, size),
        ),
        "fusion": (
            lambda: train_fusion(network, images(), stage),
            lambda: plain_fusion(network, batch, size),
        ),
    }
    print()
    for name, both in steps.items():
        runs = [[cpu_seconds(work) / STEPS for work in both] for _ in range(3)]
        ours, plain = (min(run[k] for run in runs) for k in (0, 1))
        print(f"{name} step, width {width}, batch {batch}, {size}x{size}: {ours:.3f} s CPU, ", end="")
        print(f"written out {plain:.3f} s; ratio {ours / plain:.2f}")
        assert ours / plain < 1.1


def peak(work: str) -> float:
    """Peak memory in GiB of a fresh process that has imported this file and does some work.

    On Linux from the kernel's mark of this very program: what getrusage gives there begins at the parent's.
    """
    report = """
import resource, sys
if sys.platform == "linux":
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    code = f"from test_comofusion import *\n{work}\n{report}"
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=here)
    return int(done.stdout.split()[-1]) / 2**20


def test_peak_memory_and_fusing_one_pair(cpu_seconds):
    bare = peak("")
    ours, plain = (
        peak("train_consistency(CoMoFusion().unet, images(), Stage(2, 4, 64))"),
        peak("plain_consistency(CoMoFusion(), 4, 64)"),
    )
    fusing = peak("with torch.no_grad(): CoMoFusion()(*torch.rand(2, 1, 1, 480, 640))")
    network, (ir, vi) = CoMoFusion().eval(), torch.rand(2, 1, 1, 480, 640)
    with torch.no_grad():
        maps = network.maps(ir, vi)
        features = cpu_seconds(lambda: network.maps(ir, vi))
        head = cpu_seconds(lambda: network.head(maps))
        whole = cpu_seconds(lambda: network(ir, vi))
    print(
        f"\nfull width, 640x480: features {features:.2f} + head {head:.2f} s CPU, {fusing:.2f} GiB; "
        f"consistency step, batch 4, 64x64: {ours:.2f} GiB, written out {plain:.2f} GiB; "
        f"the import alone {bare:.2f} GiB"
    )
    assert whole < 1.2 * (features + head)
    assert bare < ours < 1.1 * plain


@pytest.mark.parametrize("seed", [0, 1])
def test_the_released_loss_goes_white_and_the_default_ends_like_the_sum(seed):
    """The long form of the test of the same name in tests/methods."""
    made = [scene(number, height=96, width=128) for number in range(4)]
    pairs, stage = [(pair.ir, pair.vi) for pair in made], Stage(120, 4, 64, 3e-3, seed)
    ir, vi = (torch.cat([image[..., :64, :64] for image in side]) for side in zip(*pairs, strict=True))
    fused = {}
    for name, loss in (("released", AS_RELEASED), ("default", SOUND)):
        torch.manual_seed(seed)
        network = CoMoFusion(8)
        train_fusion(network, pairs, stage, loss=loss)
        with torch.no_grad():
            fused[name] = network(ir, vi)
    assert fused["released"].mean() > 0.99 and fused["released"].std() < 0.01
    assert 0.2 < fused["default"].mean() < 0.8
    both = torch.stack([fused["default"].flatten(), (ir + vi).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9

"""CAF: what the exact product costs a step of the search, against the finite differences of the paper."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from fusionlab.crops import Labelled
from fusionlab.methods.caf import FusionNetwork, Recipe, search


def test_a_search_step_with_the_exact_product(cpu_seconds):
    """All of Algorithm 1 on 4 x 96x96: the paper's network, fifteen terms, a task of three layers."""
    torch.manual_seed(0)
    ir, vi = torch.rand(2, 4, 1, 96, 96)
    pairs = Labelled(ir, vi, (ir > 0.5).float())
    recipe = Recipe(1, 0, 0, batch=4, variant="released", perception="random")
    fusion = FusionNetwork()
    task = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 1, 1)),
    )
    seconds = {"exact": [], "darts": [], "none": []}
    for _ in range(3):  # in turn, so that a busy machine slows each alike
        for product, times in seconds.items():
            form = replace(recipe, warmup=1) if product == "none" else replace(recipe, product=product)
            times.append(cpu_seconds(lambda form=form: search(fusion, task, F.mse_loss, pairs, pairs, form)))
    exact, apart, without = (min(times) for times in seconds.values())
    print(f"\nsearch step: exact {exact:.2f} s CPU, finite differences {apart:.2f} s, ", end="")
    print(f"with beta at rest {without:.2f} s; ratio {exact / apart:.2f}")
    assert without < min(exact, apart)
    assert exact / apart <= 1.2

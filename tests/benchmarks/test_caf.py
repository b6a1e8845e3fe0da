"""CAF: what the exact product costs, against the paper's finite differences and against double backward."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad

from fusionlab.bench.cost import peak_bytes
from fusionlab.bilevel import as_function, finite_difference, flat, mixed_product, parameters_of
from fusionlab.crops import Labelled
from fusionlab.losses.space import fusion_loss
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


def test_the_exact_product_takes_half_the_memory_of_double_backward():
    """Of the paper's network and thirteen terms, 4 x 64x64, batch norm in training mode: tensors alive."""
    torch.manual_seed(0)
    network, (ir, vi) = FusionNetwork(), torch.rand(2, 4, 1, 64, 64)
    call, w, beta = as_function(network), parameters_of(network), torch.full((13,), 1 / 13)

    def lower(w, beta):
        return fusion_loss(call(w, ir, vi), ir, vi, beta)

    v = grad(lambda w: F.mse_loss(call(w, ir, vi), ir))(w)

    def double(lower, w, beta, v):
        return grad(lambda beta: flat(grad(lower)(w, beta)) @ flat(v))(beta)

    found = {
        name: (product(lower, w, beta, v), peak_bytes(lambda product=product: product(lower, w, beta, v)))
        for name, product in (("exact", mixed_product), ("double", double), ("darts", finite_difference()))
    }
    print(
        "\nmixed product: " + ", ".join(f"{name} {most / 2**20:.0f} MiB" for name, (_, most) in found.items())
    )
    torch.testing.assert_close(found["exact"][0], found["double"][0], rtol=1e-3, atol=1e-6)
    assert found["exact"][1] <= found["double"][1] / 2

"""The make-believe device itself: what torch does with devices, and what it refuses to do."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakecuda import NAME, FakeCuda, MixedDevices
from safetensors.torch import load_file, save_file
from torch import nn


@pytest.fixture(autouse=True)
def mode():
    with FakeCuda():
        yield


@pytest.fixture
def a():
    return torch.rand(2, 3, device="cuda")


@pytest.fixture
def b():
    return torch.rand(2, 3)


KEPT = {
    "arithmetic": lambda a, b: a + a,
    "a number of the CPU": lambda a, b: a * torch.tensor(2.0),
    "moved": lambda a, b: b.to("cuda"),
    "moved by keyword": lambda a, b: b.to(device=torch.device("cuda")),
    "moved to another": lambda a, b: b.to(a) + a,
    "moved by type_as": lambda a, b: b.type_as(a) + a,
    "moved by cuda": lambda a, b: b.cuda(),
    "as_tensor": lambda a, b: torch.as_tensor(b, device="cuda"),
    "tensor": lambda a, b: torch.tensor([1.0, 2.0], device="cuda"),
    "like": lambda a, b: torch.zeros_like(a),
    "new": lambda a, b: a.new_zeros(3),
    "new from the CPU": lambda a, b: a.new_tensor([1.0]),
    "index of the CPU": lambda a, b: a[torch.tensor([0, 1])],
    "mask of the CPU": lambda a, b: a[torch.tensor([True, False])],
    "own index": lambda a, b: a[torch.tensor([0, 1], device="cuda")],
    "view": lambda a, b: a.T[0],
    "split": lambda a, b: a.split(1)[0],
    "iterated": lambda a, b: next(iter(a)),
    "named tuple": lambda a, b: a.max(dim=0).values,
    "layer": lambda a, b: nn.Linear(3, 3).to("cuda")(a),
    "layer by cuda": lambda a, b: nn.Linear(3, 3).cuda()(a),
    "buffer": lambda a, b: nn.BatchNorm1d(3).to("cuda").running_mean,
    "parameter": lambda a, b: nn.Parameter(a),
    "copied layer": lambda a, b: copy.deepcopy(nn.Linear(3, 3).to("cuda")).weight,
    "copied tensor": lambda a, b: copy.deepcopy(a),
    "half": lambda a, b: nn.Linear(3, 3).to("cuda").half().weight,
    "detached": lambda a, b: a.detach().data,
    "copied into": lambda a, b: a.copy_(b),
}


@pytest.mark.parametrize("made", KEPT.values(), ids=KEPT)
def test_stays_on_cuda(made, a, b):
    result = made(a, b)
    assert result.device == torch.device("cuda", 0)
    assert result.is_cuda and not result.is_cpu and result.get_device() == 0


BROUGHT_BACK = {
    "cpu": lambda a, b: a.cpu(),
    "to": lambda a, b: a.to("cpu"),
    "moved to another": lambda a, b: a.to(b) + b,
    "layer": lambda a, b: nn.Linear(3, 3).to("cuda").cpu()(b),
    "copied into": lambda a, b: b.copy_(a),
    "of numbers on CUDA": lambda a, b: torch.tensor([a[0, 0], a[0, 1]]),
    "number on CUDA as index": lambda a, b: b[torch.tensor(1, device="cuda")],
}


@pytest.mark.parametrize("made", BROUGHT_BACK.values(), ids=BROUGHT_BACK)
def test_comes_back_to_the_cpu(made, a, b):
    result = made(a, b)
    assert result.device == torch.device("cpu") and not result.is_cuda
    np.asarray(result.detach())


REFUSED = {
    "arithmetic": lambda a, b: a + b,
    "in place": lambda a, b: b.add_(a),
    "a number grown in place": lambda a, b: torch.zeros(()).add_(a.sum()),
    "cat": lambda a, b: torch.cat([a, b]),
    "stack of numbers": lambda a, b: torch.stack([a.sum(), b.sum()]),
    "kernel": lambda a, b: F.conv2d(a[None, None], torch.ones(1, 1, 1, 1)),
    "layer": lambda a, b: nn.Linear(3, 3)(a),
    "layer on CUDA": lambda a, b: nn.Linear(3, 3).to("cuda")(b),
    "where": lambda a, b: torch.where(a > 0, b, b),
    "index on CUDA": lambda a, b: b[torch.tensor([0, 1], device="cuda")],
    "mask on CUDA": lambda a, b: b[torch.tensor([True, False], device="cuda")],
    "set by index": lambda a, b: a.__setitem__(torch.tensor([0, 1]), b),
    "generator": lambda a, b: torch.randn(2, generator=torch.Generator(), device="cuda"),
    "drawn by its generator": lambda a, b: torch.multinomial(a[0], 1, generator=torch.Generator()),
    "product": lambda a, b: a @ b.T,
    "loss": lambda a, b: F.mse_loss(a, b),
    "gradient": lambda a, b: setattr(nn.Parameter(a), "grad", b),
}


@pytest.mark.parametrize("mixed", REFUSED.values(), ids=REFUSED)
def test_refuses_two_devices(mixed, a, b):
    with pytest.raises(MixedDevices):
        mixed(a, b)


@pytest.mark.parametrize("convert", [np.asarray, lambda a: a.numpy(), lambda a: np.array([*a])])
def test_cuda_has_no_array(convert, a):
    with pytest.raises(TypeError, match="numpy"):
        convert(a)


def test_numbers_come_out_of_cuda(a):
    assert a.sum().item() == float(a.sum()) == pytest.approx(sum(map(sum, a.tolist())))
    assert bool(a.sum() >= 0) and len(a) == 2 and f"{a.mean():.1f}"


def test_slices_are_set_from_anywhere(a, b):
    a[0] = b[0]
    assert a.is_cuda and torch.equal(a[0].cpu(), b[0])


def test_gradients_lie_with_what_they_belong_to(a, b):
    leaf = b.clone().requires_grad_()
    loss = (leaf.to("cuda") * a).sum()
    assert not torch.autograd.grad(loss, [leaf], retain_graph=True)[0].is_cuda
    loss.backward()
    assert leaf.grad.device.type == "cpu" and torch.equal(leaf.grad, a.cpu())
    there = a.clone().requires_grad_()
    (2 * there).sum().backward()
    assert there.grad.is_cuda


@pytest.mark.parametrize(
    "optimiser", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RAdam]
)
def test_optimisers_step_and_are_taken_up_again(optimiser, a, tmp_path):
    layers = [nn.Linear(3, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    optimisers = []
    for layer, device in zip(layers, ("cpu", "cuda"), strict=True):
        optimisers.append(optimiser(layer.to(device).parameters(), lr=0.1))
        for _ in range(2):
            optimisers[-1].zero_grad()
            layer(a.to(device)).square().sum().backward()
            optimisers[-1].step()
    assert layers[1].weight.is_cuda
    torch.testing.assert_close(layers[0].weight, layers[1].weight.cpu())
    # From the CPU's state, as from a file.
    optimisers[1].load_state_dict(optimisers[0].state_dict())
    for state in optimisers[1].state.values():
        assert all(value.is_cuda for name, value in state.items() if name.startswith("exp_avg"))
    layers[1](a).sum().backward()
    optimisers[1].step()


def test_weights_pass_through_a_file(a, tmp_path):
    layer, other = nn.Linear(3, 3).to("cuda"), nn.Linear(3, 3).to("cuda")
    save_file(layer.state_dict(), tmp_path / "x.safetensors")
    read = load_file(tmp_path / "x.safetensors")
    assert not read["weight"].is_cuda
    other.load_state_dict(read)
    assert torch.equal(other(a), layer(a)) and other.weight.is_cuda


def test_there_is_one_device():
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.cuda.get_device_name(0) == torch.cuda.get_device_properties(0).name == NAME
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    end.record()
    assert start.elapsed_time(end) >= 0
    before = torch.cuda.get_rng_state()
    torch.cuda.set_rng_state(before)
    with torch.random.fork_rng(), torch.cuda.device(0):
        torch.manual_seed(1)


def test_leaves_no_trace():
    class Nothing(Exception):
        pass

    before = {name: getattr(torch.cuda, name) for name in ("is_available", "Event", "get_rng_state")}
    with pytest.raises(Nothing), FakeCuda():
        raise Nothing
    assert before == {name: getattr(torch.cuda, name) for name in before}

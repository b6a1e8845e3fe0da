"""What a network costs: multiply-adds, bytes alive, CPU milliseconds of one thread, seconds on any device."""

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def counted(work: Callable[[], object]) -> dict[str, int]:
    """Multiply-adds of what `work()` computes: of convolutions, linear layers and other matrix products.

    The last are those of attention. Biases, normalisations and elementwise functions are not counted. Works
    on the meta device, so without memory for weights or maps.
    """
    with FlopCounterMode(display=False) as counter:
        work()
    flops = {str(operation): number for operation, number in counter.get_flop_counts()["Global"].items()}
    return {
        "convolution": flops.pop("aten.convolution", 0) // 2,
        "linear": (flops.pop("aten.addmm", 0) + flops.pop("aten.mm", 0)) // 2,
        "attention": sum(flops.values()) // 2,
    }


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors made by `work()` that are alive at once, views and inputs not counted.

    What autograd keeps for a backward pass is alive, a buffer inside one operation is not seen.
    """
    with _Alive() as alive:
        work()
    return alive.most


class _Alive(TorchDispatchMode):
    """Notes the storage of each result, and when it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._note((args, kwargs), counted=False)
        result = operation(*args, **(kwargs or {}))
        self._note(result, counted=True)
        self.most = max(self.most, sum(self.sizes.values()))
        return result

    def _note(self, values: Any, counted: bool) -> None:
        for tensor in tree_leaves(values):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self.sizes:
                    self.sizes[id(storage)] = storage.nbytes() if counted else 0
                    weakref.finalize(storage, self.sizes.pop, id(storage), None)


@torch.no_grad()
def multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of all convolutions of a fusing network for one frame.

    Counted on 32x32 pixels, since each layer's share grows with the area.
    """
    image = torch.zeros(1, 1, 32, 32)
    return counted(lambda: network(image, image))["convolution"] * height * width // 32**2


@torch.no_grad()
def cpu_milliseconds(function: Callable[[Tensor, Tensor], object], images: Tensor, repeats: int) -> float:
    """CPU milliseconds of one call in one thread, the best of `repeats` after a first one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spent = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function(images[0], images[1])
        spent.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return 1000 * min(spent[1:])


@torch.no_grad()
def seconds(
    function: Callable[[Tensor, Tensor], object], ir: Tensor, vi: Tensor, synchronised: bool = True
) -> float:
    """The least wall time of three calls after one to warm up; on a GPU with or without waiting for it."""
    least = float("inf")
    for _ in range(4):
        if ir.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        function(ir, vi)
        if synchronised and ir.is_cuda:
            torch.cuda.synchronize()
        least = min(least, time.perf_counter() - start)
    return least

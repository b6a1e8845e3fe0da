"""What a network costs: multiply-adds, CPU milliseconds of one thread, seconds on any device."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
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

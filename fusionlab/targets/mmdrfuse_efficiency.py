"""MMDRFuse, Table 4: what the printed sizes and operations count, and how long a frame takes here."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fusionlab.bench.records import Record, measured, this_command
from fusionlab.errors import UserError
from fusionlab.methods.mmdrfuse import Student, Teacher, fuse_rows

ROWS: dict[str, Callable[[], Student | Teacher]] = {
    "student": Student,
    "student-897": lambda: Student(32),
    "teacher": Teacher,
    "teacher-half": lambda: Teacher(16),
}
SIZES = {"640x480": (480, 640), "1280x1024": (1024, 1280)}


def table4(row: str | None, profile: str, data: str, seed: int, run: Path) -> Iterator[Record]:
    """Table 4: parameters, kilobytes at 4 and 8 bytes, multiply-adds, and CPU milliseconds of one thread.

    A fresh network has the arithmetic of a trained one. Times are this machine's: another gives others.
    """
    if row not in (None, *ROWS) or data != "auto":
        raise UserError(f"mmdrfuse/table4 needs no data and has the rows {', '.join(ROWS)}")
    for name in [row] if row else ROWS:
        torch.manual_seed(seed)
        network = ROWS[name]()
        count = sum(weight.numel() for weight in network.parameters())
        values: dict[str, tuple[float, str]] = {
            "parameters": (count, "1"),
            "size at 4 bytes": (count * 4 / 1024, "KB"),
            "size at 8 bytes": (count * 8 / 1024, "KB"),
        }
        for size, (height, width) in SIZES.items():
            values[f"multiply-adds {size}"] = (multiply_adds(network, height, width) / 1e9, "G")
        if profile != "smoke":
            repeats = 7 if isinstance(network, Student) else 1
            for size, (height, width) in SIZES.items():
                images = torch.rand(2, 1, 1, height, width)
                quick = partial(fuse_rows, network) if isinstance(network, Student) else network
                values[f"time {size}"] = (milliseconds(quick, images, repeats), "ms")
                if isinstance(network, Student):
                    values[f"time {size}, plain"] = (milliseconds(network, images, repeats), "ms")
        for metric, (value, unit) in values.items():
            yield measured(
                "mmdrfuse/table4",
                name,
                metric,
                value,
                profile=profile,
                seed=seed,
                unit=unit,
                command=this_command(),
                note="CPU time of one thread, the best of a few" if unit == "ms" else "",
            )


@torch.no_grad()
def multiply_adds(network: Student | Teacher, height: int, width: int) -> int:
    """Multiply-adds of all convolutions for one frame; biases, padding and tanh are not counted.

    Counted on 32x32 pixels, since each layer's share grows with the area.
    """
    counted = []

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        counted.append(output[0].numel() * layer.weight[0].numel())  # type: ignore[index]

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network.maps(torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counted) * height * width // 32**2


@torch.no_grad()
def milliseconds(function: Callable[[Tensor, Tensor], object], images: Tensor, repeats: int) -> float:
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

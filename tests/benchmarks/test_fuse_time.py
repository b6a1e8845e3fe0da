"""`fusionlab fuse` on one 640x480 pair, import included, against nothing but importing torch."""

import resource
import subprocess
import sys
import time

from fusionlab.data import write_image
from fusionlab.scenes import scene


def seconds(*command: str) -> tuple[float, float]:
    """CPU and wall seconds of a process, the better of two runs."""
    runs = []
    for _ in range(2):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        runs.append((cpu, time.perf_counter() - start))
    return min(runs)


def test_fusing_one_pair_costs_little_more_than_importing_torch(tmp_path):
    pair = scene(0, height=480, width=640)
    write_image(pair.ir, tmp_path / "ir.png")
    write_image(pair.colour(pair.vi), tmp_path / "vi.png")
    files = [str(tmp_path / name) for name in ("ir.png", "vi.png", "fused.png")]
    fuse = seconds("-m", "fusionlab.cli", "fuse", files[0], files[1], "-o", files[2])
    torch = seconds("-c", "import torch")
    print(f"\nfusionlab fuse, 640x480: {fuse[0]:.2f} s CPU, {fuse[1]:.2f} s wall; ", end="")
    print(f"import torch: {torch[0]:.2f} s CPU; ratio {fuse[0] / torch[0]:.2f}")
    assert fuse[0] / torch[0] < 3

"""CPU time of `import fusionlab` beside that of `import torch`, on the same machine in the same minute."""

import subprocess
import sys


def cpu_seconds(module: str, runs: int = 5) -> float:
    """Least CPU time of importing `module` in a fresh interpreter, start-up not counted."""
    code = f"import time; start = time.process_time(); import {module}; print(time.process_time() - start)"
    command = [sys.executable, "-c", code]
    return min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs))


def test_import_is_cheap_beside_torch():
    ours, torch = cpu_seconds("fusionlab"), cpu_seconds("torch", runs=2)
    print(f"\nimport fusionlab {ours:.3f} s CPU, import torch {torch:.3f} s CPU")
    assert ours < 0.3 * torch

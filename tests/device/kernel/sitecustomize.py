"""Put on a kernel's PYTHONPATH: a make-believe CUDA device from the first cell on, and no network."""

import runpy
import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]

runpy.run_path(str(TESTS / "notebooks" / "offline" / "sitecustomize.py"))
sys.path.append(str(TESTS / "device"))
import fakecuda  # noqa: E402

fakecuda.believe_from_now_on()

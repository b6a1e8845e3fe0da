"""Infrared-visible image fusion, paper by paper (so far one of five), in a package small enough to read.

>>> import fusionlab
>>> pair = fusionlab.open_pairs("scenes", n=1)[0]
>>> fused = fusionlab.load("mmdrfuse")(pair.ir, pair.vi)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionlab.data import open_pairs
    from fusionlab.fuser import fuse, load
    from fusionlab.metrics import evaluate

__version__ = "0.1.0"
__all__ = ["evaluate", "fuse", "load", "open_pairs"]

_HOME = {
    "load": "fusionlab.fuser",
    "fuse": "fusionlab.fuser",
    "evaluate": "fusionlab.metrics",
    "open_pairs": "fusionlab.data",
}


def __getattr__(name: str) -> Any:
    """Loads a face function at first use, so that `import fusionlab` costs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'fusionlab' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)

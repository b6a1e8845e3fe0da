"""Infrared-visible image fusion, paper by paper (so far one of five), in a package small enough to read.

>>> import fusionlab
>>> pair = fusionlab.open_pairs("scenes", n=1)[0]
>>> fused = fusionlab.load("mmdrfuse")(pair.ir, pair.vi)
"""

from importlib import import_module
from importlib.util import find_spec
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
    """Loads a face function or a module at first use, so that `import fusionlab` costs no torch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if not name.startswith("_") and find_spec(f"fusionlab.{name}"):
        return import_module(f"fusionlab.{name}")
    raise AttributeError(f"module 'fusionlab' has no attribute '{name}'")

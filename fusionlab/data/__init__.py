"""Pairs of images by one call: synthetic scenes, registered datasets or a folder of one's own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionlab.data.folders import Pairs, open_pair
    from fusionlab.data.pair import Pair, read_image, to_uint8, write_image
    from fusionlab.data.sources import name_of, open_pairs

__all__ = [
    "Pair",
    "Pairs",
    "name_of",
    "open_pair",
    "open_pairs",
    "read_image",
    "to_uint8",
    "write_image",
]

_HOME = {
    "Pair": "pair",
    "Pairs": "folders",
    "name_of": "sources",
    "open_pair": "folders",
    "open_pairs": "sources",
    "read_image": "pair",
    "to_uint8": "pair",
    "write_image": "pair",
}


def __getattr__(name: str) -> Any:
    """Loads a name of this face at first use, so that `fusionlab.data.registry` costs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'fusionlab.data' has no attribute '{name}'")
    return getattr(import_module(f"fusionlab.data.{_HOME[name]}"), name)

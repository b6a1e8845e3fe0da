"""What notebooks use: a session, checks, pictures, records, reports. Heavy libraries load at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionlab.lab.checks import NotSolved, check, grade
    from fusionlab.lab.figures import grid, move, show, table
    from fusionlab.lab.results import decoded, printed, printed_methods, promoted, recorded
    from fusionlab.lab.session import Session, record, start

__all__ = [
    "NotSolved",
    "Session",
    "check",
    "decoded",
    "grade",
    "grid",
    "move",
    "printed",
    "printed_methods",
    "promoted",
    "record",
    "recorded",
    "show",
    "start",
    "table",
]

_HOME = {
    "NotSolved": "checks",
    "Session": "session",
    "check": "checks",
    "decoded": "results",
    "grade": "checks",
    "grid": "figures",
    "move": "figures",
    "printed": "results",
    "printed_methods": "results",
    "promoted": "results",
    "record": "session",
    "recorded": "results",
    "show": "figures",
    "start": "session",
    "table": "figures",
}


def __getattr__(name: str) -> Any:
    """Loads a face function at first use, so that `import fusionlab.lab` costs no plotting library."""
    if name not in _HOME:
        raise AttributeError(f"module 'fusionlab.lab' has no attribute '{name}'")
    return getattr(import_module(f"fusionlab.lab.{_HOME[name]}"), name)

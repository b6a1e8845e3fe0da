"""What notebooks use: a session, checks, pictures, records, reports. Heavy libraries load at first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusionlab.bench.results import decoded, printed, printed_methods, results, verdicts, wide
    from fusionlab.lab.checks import NotSolved, check, grade
    from fusionlab.lab.figures import grid, move, show, table
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
    "record",
    "results",
    "show",
    "start",
    "table",
    "verdicts",
    "wide",
]

_HOME = {
    "NotSolved": "fusionlab.lab.checks",
    "Session": "fusionlab.lab.session",
    "check": "fusionlab.lab.checks",
    "decoded": "fusionlab.bench.results",
    "grade": "fusionlab.lab.checks",
    "grid": "fusionlab.lab.figures",
    "move": "fusionlab.lab.figures",
    "printed": "fusionlab.bench.results",
    "printed_methods": "fusionlab.bench.results",
    "record": "fusionlab.lab.session",
    "results": "fusionlab.bench.results",
    "show": "fusionlab.lab.figures",
    "start": "fusionlab.lab.session",
    "table": "fusionlab.lab.figures",
    "verdicts": "fusionlab.bench.results",
    "wide": "fusionlab.bench.results",
}


def __getattr__(name: str) -> Any:
    """Loads a face function at first use, so that `import fusionlab.lab` costs no plotting library."""
    if name not in _HOME:
        raise AttributeError(f"module 'fusionlab.lab' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)

"""Lets the tests of this folder use the server beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from badserver import mirror, server  # noqa: E402, F401  # fixtures

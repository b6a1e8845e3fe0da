"""The one clock of the benchmarks."""

import time
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def cpu_seconds() -> Callable[..., float]:
    """`cpu_seconds(work, runs)`: CPU time of a call of `work`, the least of so many runs."""

    def least(work: Callable[[], object], runs: int = 1) -> float:
        times = []
        for _ in range(runs):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    return least

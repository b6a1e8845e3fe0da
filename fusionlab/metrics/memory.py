"""Statistics of the sources, computed once however many fused images are scored against them.

A metric is written as one formula of both sources and the fused image. The parts of it that may be known from
the sources alone are functions marked `statistic`; within `remembering(ir, vi)` each of them runs once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Memory:
    """What is known so far: the sources with all that was made of them, and every result by its call."""

    tensors: dict[int, Tensor]  # by identity, and held here so that no other tensor can take it over
    results: dict[Any, Any] = field(default_factory=dict)


_memory: ContextVar[Memory | None] = ContextVar("_memory", default=None)


@contextmanager
def remembering(*sources: Tensor) -> Iterator[Memory]:
    """Within it a `statistic` of these very tensors, or of what a statistic made of them, runs once.

    Nothing may write into the sources or a result meanwhile, and no gradient is taken of them.
    """
    memory = Memory({id(source): source for source in sources})
    token = _memory.set(memory)
    try:
        yield memory
    finally:
        _memory.reset(token)


def statistic(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function of images, given by position, whose results `remembering` keeps.

    Of a tensor that is not known it is computed as if unmarked.
    """

    @wraps(function)
    def once(*args: P.args, **options: P.kwargs) -> R:
        memory = _memory.get()
        images = [x for x in args if isinstance(x, Tensor)]
        if memory is None or not all(id(image) in memory.tensors for image in images):
            return function(*args, **options)
        call = (
            function,
            *(id(x) if isinstance(x, Tensor) else x for x in args),
            *options.items(),
        )
        if call not in memory.results:
            result = function(*args, **options)
            memory.results[call] = result
            memory.tensors.update((id(x), x) for x in _tensors(result))
        found: R = memory.results[call]
        return found

    return once


@statistic
def both(ir: Tensor, vi: Tensor) -> Tensor:
    """Both sources stacked, (2, B, 1, H, W): what is done to either is done to both at once."""
    return torch.stack((ir, vi))


def _tensors(result: Any) -> Iterator[Tensor]:
    """Every tensor in a result, which may be one or nested tuples and lists of them."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list):
        for part in result:
            yield from _tensors(part)

"""Statistics of the sources, computed once however many fused images are scored against them.

A metric is written as one formula of both sources and the fused image. The parts of it that may be known from
the sources alone are functions marked `statistic`; within `remembering(ir, vi)` each of them runs once, as
long as there is room: of frames of many megapixels most are computed anew, which changes no value.
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

ROOM = 2**29  # bytes that are kept at most: all of a metric's statistics of frames up to about 2 megapixels


@dataclass
class Memory:
    """What is known so far: the sources with all that was made of them, and every result by its call."""

    tensors: dict[int, Tensor]  # by identity, and held here so that no other tensor can take it over
    results: dict[Any, Any] = field(default_factory=dict)
    room: int = ROOM

    def knows(self, image: Tensor) -> bool:
        """Whether results of it may be kept: a tensor that a gradient is taken of must be computed anew."""
        return id(image) in self.tensors and not image.requires_grad

    def keep(self, call: Any, result: Any) -> None:
        """Keeps the result of a call where there is room for what is new in it."""
        new = {id(x): x for x in _tensors(result) if id(x) not in self.tensors}
        size = sum(x.numel() * x.element_size() for x in new.values())
        if size <= self.room:
            self.room -= size
            self.results[call] = result
            self.tensors |= new


_memory: ContextVar[Memory | None] = ContextVar("_memory", default=None)


@contextmanager
def remembering(*sources: Tensor) -> Iterator[Memory]:
    """Within it a `statistic` of these very tensors, or of what a statistic made of them, runs once.

    It lasts for one metric and one pair, so that little memory is held.
    """
    memory = Memory({id(source): source for source in sources})
    token = _memory.set(memory)
    try:
        yield memory
    finally:
        _memory.reset(token)


def statistic(function: Callable[P, R]) -> Callable[P, R]:
    """Marks a function of images and hashable parameters whose results `remembering` keeps.

    Of a tensor that is not known, or was written into since, it is computed as if unmarked.
    """

    @wraps(function)
    def once(*args: P.args, **options: P.kwargs) -> R:
        memory = _memory.get()
        given = (*args, *options.values())
        if memory is None or not all(memory.knows(x) for x in given if isinstance(x, Tensor)):
            return function(*args, **options)
        values = ((id(x), x._version) if isinstance(x, Tensor) else x for x in given)
        call = (function, tuple(options), *values)
        if call not in memory.results:
            result = function(*args, **options)
            memory.keep(call, result)
            return result
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

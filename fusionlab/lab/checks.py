"""Compares what a reader built by hand with the package, and grades exercises."""

from collections.abc import Iterator
from typing import Any

import numpy as np


class NotSolved(Exception):
    """An exercise whose stub still stands; the message is the exercise's name."""


def check(name: str, mine: Any, package: Any, atol: float = 1e-6, rtol: float = 0.0) -> None:
    """Asserts that two results agree and prints the tolerance met.

    `mine` and `package` are tensors, arrays, numbers, strings, or tuples, lists and dicts of them. Numbers
    agree where |mine - package| <= atol + rtol |package|; shapes must match; NaN agrees with nothing.
    Raises AssertionError with the largest difference and its place.
    """
    fault = next(_faults(mine, package, atol, rtol), None)
    if fault is not None:
        raise AssertionError(f"{name}: {fault}")
    print(f"{name}: equal within {atol:g}" + (f" + {rtol:g} relative" if rtol else ""))


def grade(name: str, answer: Any, expected: Any, atol: float = 1e-6) -> None:
    """Checks the answer to an exercise and prints that it is solved.

    Raises NotSolved where the answer is None or `...`, also inside a tuple, list or dict, and AssertionError
    with a hint (shape, or size and place of the largest error, never the expected value) where it is wrong.
    """
    if _unsolved(answer):
        raise NotSolved(name)
    fault = next(_faults(answer, expected, atol, 0.0, reveal=False), None)
    if fault is not None:
        raise AssertionError(f"{name}: not yet right, {fault}")
    print(f"{name}: solved")


def _unsolved(answer: Any) -> bool:
    if isinstance(answer, dict):
        return any(_unsolved(part) for part in answer.values())
    if isinstance(answer, list | tuple):
        return any(_unsolved(part) for part in answer)
    return answer is None or answer is ...


def _faults(
    mine: Any, package: Any, atol: float, rtol: float, where: str = "", reveal: bool = True
) -> Iterator[str]:
    """Describes each leaf that differs, in order; `where` is the path to it inside the containers."""
    if isinstance(package, dict):
        if not isinstance(mine, dict) or mine.keys() != package.keys():
            yield f"expected a dict with the keys {', '.join(map(str, package))}{_at(where)}"
            return
        for key in package:
            yield from _faults(mine[key], package[key], atol, rtol, f"{where}[{key!r}]", reveal)
    elif isinstance(package, list | tuple):
        if not isinstance(mine, list | tuple) or len(mine) != len(package):
            yield f"expected {len(package)} parts{_at(where)}"
            return
        for i, (a, b) in enumerate(zip(mine, package, strict=True)):
            yield from _faults(a, b, atol, rtol, f"{where}[{i}]", reveal)
    else:
        fault = _leaf_fault(_array(mine), _array(package), atol, rtol, where, reveal)
        if fault is not None:
            yield fault


def _leaf_fault(
    mine: np.ndarray, package: np.ndarray, atol: float, rtol: float, where: str, reveal: bool
) -> str | None:
    if mine.shape != package.shape:
        return f"the shape is {mine.shape}, expected {package.shape}{_at(where)}"
    if mine.dtype.kind == "U" or package.dtype.kind == "U":
        same = bool((mine == package).all()) if mine.dtype.kind == package.dtype.kind else False
        return None if same else f"the text differs{_at(where)}"
    a, b = mine.astype(np.float64), package.astype(np.float64)
    # Infinities of one sign agree, although their difference is NaN.
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, np.abs(a - b))
        agrees = (a == b) | (np.isfinite(difference) & (difference <= atol + rtol * np.abs(b)))
    if agrees.all():
        return None
    worst = np.unravel_index(np.argmax(np.where(np.isnan(difference), np.inf, difference * ~agrees)), a.shape)
    place = where + (f"[{', '.join(str(int(i)) for i in worst)}]" if worst else "")
    values = f" (mine {a[worst]:.6g}, package {b[worst]:.6g})" if reveal else ""
    share = f", {np.mean(~agrees):.0%} of the values differ" if a.size > 1 else ""
    return f"the largest difference is {difference[worst]:.3g}{_at(place)}{values}{share}; allowed {atol:g}"


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _array(value: Any) -> np.ndarray:
    """A leaf as an array; tensors of any device and dtype, without importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biufU":
        raise TypeError(f"cannot compare a {type(value).__name__}; give tensors, arrays, numbers or text")
    return array

"""The one exception for what a user can mend, checks of numbers that users give, and the want of memory."""

import operator
import re


class UserError(ValueError):
    """A mistake in input, data or set-up; the message names the thing and the remedy."""


def require_whole(name: str, value: object, low: int, high: int) -> None:
    """Raises UserError for what is no whole number from `low` to `high`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # that is what is asked
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise UserError(f"{name} is {str(value)[:80]}; give a whole number from {low} to {high}")


def require_seed(seed: object) -> None:
    """Raises UserError for a seed that not all of random, NumPy and torch take: 0 to 2**32 - 1."""
    require_whole("the seed", seed, 0, 2**32 - 1)


# What PyTorch's allocators and oneDNN say in a RuntimeError; NumPy and Python raise MemoryError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "could not create a primitive")


def out_of_memory(error: MemoryError | RuntimeError) -> str:
    """Says that memory ran out, and the remedy; raises any other error again.

    What tells the two apart is the text alone: the CPU allocator has no exception of its own.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
        raise error
    asked = re.search(r"allocate ([\d.]+) (bytes|[KMGTPE]iB)", text)
    detail = f" ({_size(*asked.groups())} more were asked for)" if asked else ""
    return f"memory ran out{detail}; cut or shrink the image, or free memory (fewer processes)"


def _size(number: str, unit: str) -> str:
    return f"{float(number) / 2**20:.0f} MiB" if unit == "bytes" else f"{number} {unit}"

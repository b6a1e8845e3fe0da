"""The one exception for what a user can mend, and the check of whole numbers that users give."""

import operator


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

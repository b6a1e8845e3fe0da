"""The one exception for what a user can mend."""


class UserError(ValueError):
    """A mistake in input, data or set-up; the message names the thing and the remedy."""

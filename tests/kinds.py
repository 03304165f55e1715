"""The kinds that there are, read from the unions of the configuration: a new one is tested as all
are, by being there."""

from typing import get_args


def kinds_of(union):
    """The classes of a discriminated union, in its order."""
    return get_args(get_args(union)[0])

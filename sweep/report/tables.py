"""Tables of texts, and lists of names, as short as they may be."""

from collections.abc import Sequence
from typing import NamedTuple

Rows = list[tuple[str, ...]]

EMPTY = "", "-"


class Filled(NamedTuple):
    """A table of which no column is empty."""

    columns: tuple[str, ...]
    rows: Rows


def filled(columns: Sequence[str], rows: Rows) -> Filled | None:
    """None if there are no rows."""
    if not rows:
        return None
    kept = [i for i in range(len(columns)) if any(row[i] not in EMPTY for row in rows)]
    return Filled(tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows])

"""Long work says how far it is, and whoever runs it may show that; nobody does by default.

What is shown is the work of the thread (or task) that asked for it: others work in silence.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

Advance = Callable[[float], None]  # is told how much more of the work is done

# what is done, in words, and how much of it there is (None: not known) → for as long as it is done
Show = Callable[[str, float | None], AbstractContextManager[Advance]]


@contextmanager
def _to_nobody(what: str, total: float | None) -> Iterator[Advance]:
    yield lambda amount: None


_show: ContextVar[Show] = ContextVar("show", default=_to_nobody)


@contextmanager
def shown_by(show: Show) -> Iterator[None]:
    """Meanwhile the work of this thread is shown by `show`."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def work(what: str, total: float | None = None) -> AbstractContextManager[Advance]:
    """For as long as `what` is done, as "reading pictures"; `total`: how much there is to do, in any
    unit. Gives what is to be called with the amount that was done since the last call."""
    return _show.get()(what, total)


def each(items: Collection[Item], what: str) -> Iterator[Item]:
    """The items, one after the other; each is done when the next is asked for."""
    return counted(items, what, len(items))


def counted(items: Iterable[Item], what: str, total: float) -> Iterator[Item]:
    """`each`, of items that are not counted yet."""
    with work(what, total) as advance:
        for item in items:
            yield item
            advance(1)

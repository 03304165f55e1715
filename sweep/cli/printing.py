"""How the command line prints; nothing else in the house does."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING

from trainables.progress import Advance, shown_by
from trainables.text import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from sweep.report.progress import Bars

LINE, LONG_LINE = 120, 100_000  # characters of a line where the output is not a terminal


def say(text: str = "", end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """`print` for texts that hold the user's: what the command line prints, it prints by this."""
    print(visible(text), end=end, file=file, flush=flush)


def warn(text: str) -> None:
    """Beside the output, where it is seen at once."""
    say(text, file=sys.stderr, flush=True)


@contextmanager
def long_work_shown() -> Iterator[None]:
    """Meanwhile long work of this thread is shown, beside the output."""
    with ExitStack() as stack:

        @cache  # most commands have no long work
        def bars() -> "Bars":
            from sweep.report.console import VisibleConsole
            from sweep.report.progress import Bars

            return stack.enter_context(Bars(VisibleConsole(stderr=True, force_jupyter=False)))

        def show(what: str, total: float | None) -> AbstractContextManager[Advance]:
            return bars().show(what, total)

        with shown_by(show):
            yield


def console(quiet: bool = False, line: int = LINE) -> "Console":
    """`line`: characters of a line where the output is not a terminal."""
    from sweep.report.console import VisibleConsole

    # a notebook is no terminal: lines are printed there as into a file
    width = None if sys.stdout.isatty() else line
    return VisibleConsole(quiet=quiet, width=width, force_jupyter=False)


def show(table: "RenderableType") -> None:
    """As wide as the terminal; elsewhere each row is one line, however long."""
    if sys.stdout.isatty():
        console().print(table)
        return
    screen = console(line=LONG_LINE)
    with screen.capture() as captured:
        screen.print(table)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))

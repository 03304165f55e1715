"""How the command line prints; nothing else in the house does."""

import sys
from typing import IO

from trainables.text import visible


def say(text: str = "", end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """`print` for texts that hold the user's: what the command line prints, it prints by this."""
    print(visible(text), end=end, file=file, flush=flush)


def warn(text: str) -> None:
    """Beside the output, where it is seen at once."""
    say(text, file=sys.stderr, flush=True)

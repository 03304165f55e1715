"""Texts of the user's on their way out: names, questions, causes of failures and paths are whatever
somebody wrote."""

import hashlib
import re
from typing import IO

# C0 but tab and newline, DEL, C1, what turns the direction of text around, line separators, halves
# of characters
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def say(text: str = "", end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """`print` for texts that hold the user's: what the command line prints, it prints by this."""
    print(visible(text), end=end, file=file, flush=flush)


def visible(text: str) -> str:
    """Control characters as escapes (`\\x1b`), for terminals; newlines and tabs stay."""
    return CONTROLS.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def cut(text: str, most: int) -> str:
    """At most so many characters; a hash at the end keeps apart what was cut alike."""
    return text if len(text) <= most else f"{text[: most - 10]}… {_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]

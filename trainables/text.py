"""Texts and numbers for people, and the user's own texts on their way out: names, questions, causes
of failures and paths are whatever somebody wrote.

It imports nothing but the standard library, so that whatever shows something can use it.
"""

import hashlib
import logging
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

# C0 but tab and newline, DEL, C1, what turns the direction of text around, line separators, halves
# of characters
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

# ---------------------------------------------------------------- texts
SECRET = "key|secret|token|pass|pwd|sas|sig|credential|auth"  # in the name of a parameter


def visible(text: str) -> str:
    """Control characters as escapes (`\\x1b`), for terminals; newlines and tabs stay."""
    return CONTROLS.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text
    )


def printable(text: str | Path) -> str:
    """A name as it may stand in a line: newlines and tabs are escapes as well."""
    return visible(str(text)).replace("\t", "\\t").replace("\n", "\\n")


MOST_NAMED = 6  # in a line


def some(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Not all of very many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def redacted(text: str) -> str:
    """A URL, or a text with URLs in it, as it may be shown: without users and passwords, without
    fragments, and without the values of parameters whose names speak of keys, signatures or the
    like."""
    # a secret key of S3 may hold a slash, and `user:` is no host where no port follows
    text = re.sub(r"://([^/\s]*|[^/:@\s]+:(?!\d{1,5}(?:/|\s|$))[^@?\s]*)@", "://…@", text)
    # a URL that was taken for a path has one slash of the two
    text = re.sub(r"(\w\w:/)[^/\s:@]+:[^/\s]+@", r"\1…@", text)
    # user:password@host:port
    text = re.sub(r"(?<![^\s'\"(])[^\s/:@'\"(]+:[^\s/@]+@(?=[\w.-]+:\d)", "…@", text)
    text = re.sub(r"(\w://[^\s#]*#)[^\s]+", r"\1…", text)
    return re.sub(rf"(?i)([?&;][^=&;#?\s]*(?:{SECRET})[^=&;#?\s]*=)[^&#\s]+", r"\1…", text)


class RedactedFormatter(logging.Formatter):
    """Nothing secret reaches a log, whatever library wrote it: not even by a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redact_last_resort() -> None:
    """What Python itself writes to stderr, where no log is set up, goes through a
    RedactedFormatter."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(RedactedFormatter())


WHOLE = range(-(2**63), 2**64)  # what 64 bits hold


def whole_number(text: str) -> int:
    """Raises ValueError where no 64 bits hold it. So long a text is not converted, which could take
    hours."""
    if len(text) > len(str(WHOLE.start)) or int(text) not in WHOLE:
        raise ValueError(f"a number of {len(text.lstrip('-'))} digits, which no 64 bits hold")
    return int(text)


def first_line(error: object) -> str:
    """What an error says, in one line; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def cut(text: str, most: int) -> str:
    """At most so many characters; a hash at the end keeps apart what was cut alike."""
    return text if len(text) <= most else f"{text[: most - 10]}… {short_hash(text)}"


def short_hash(text: str) -> str:
    """Eight hexadecimal digits, the same on every machine."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


# ---------------------------------------------------------------- numbers


def amount(value: float) -> str:
    """An EMM, an end of its interval, or a distance: three significant digits; any number, 0 too
    (of exact copies)."""
    if not 1e-3 <= abs(value) < 1e15:  # also 0, infinities and nan
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"


def human(count: float) -> str:
    """A number of images or of parameters: 640, 25.6 k, 1.2 M, 3.1 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def tick(value: float, position: float = 0) -> str:
    """A number at an axis, whole and narrow: 20, 500, 2k; `position` is matplotlib's, and of no
    use."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """What was measured; three digits are enough: 48 s, 3.4 min, 5.2 h, 12 d."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def time_left(seconds: float) -> str:
    """What is shown again and again, and must not flicker: 48 s, 12 min, 1:05 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes} min"


def span(seconds: float) -> str:
    """What is over and done, to the second or the minute: 48 s, 8 min 35 s, 2 h 5 min, 3 d 4 h."""
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    for (unit, size), (part, below) in pairwise(units):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole} s"


def estimated(hours: float | None) -> str:
    """As precise as an estimate is: < 1 s, 25 s, 4.1 min, 17 h, 12 days; "?" if there is none."""
    if hours is None:
        return "?"
    for unit, size in (("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= (2 * size if unit == "days" else size):
            return f"{two_digits(hours / size)} {unit}"
    return "< 1 s" if hours * 3600 < 1 else f"{two_digits(hours * 3600)} s"


def two_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"

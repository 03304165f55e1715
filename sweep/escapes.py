"""Texts of the user's on their way out: names, questions, causes of failures and paths are whatever somebody wrote.

Here they lose what a terminal would obey, what Markdown would fetch, what a spreadsheet would compute, what MLflow refuses.
"""

import hashlib
import posixpath
import re
from typing import IO

# C0 but tab and newline, DEL, C1, what turns the direction of text around, line separators, halves of characters
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# what begins a link, a picture, HTML, code, emphasis, a mention; what makes a link of an address that stands alone
MARKUP = re.compile(r"[\\`*_\[\]<>&!~|@#]|:(?=//)|(?<=www)\.", re.IGNORECASE)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
MLFLOW_KEY = 250  # characters, of letters, digits and `_ - . space : /`; as a path it must be its own normal form


def say(text: str = "", end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """`print` for texts that hold the user's: what the command line prints, it prints by this."""
    print(visible(text), end=end, file=file, flush=flush)


def visible(text: str) -> str:
    """Control characters as escapes (`\\x1b`), for terminals; newlines and tabs stay."""
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def markdown(text: str) -> str:
    """As one line that a Markdown page shows letter by letter: it fetches nothing and links to nothing."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(visible(text).split()))


def cell(text: str) -> str:
    """For a CSV file: behind an apostrophe, a spreadsheet takes it for text and computes nothing."""
    return f"'{text}" if text.startswith(FORMULA) else text


def cut(text: str, most: int) -> str:
    """At most so many characters; a hash at the end keeps apart what was cut alike."""
    return text if len(text) <= most else f"{text[: most - 10]}… {_digest(text)}"


def mlflow_key(name: str) -> str:
    """The name itself where MLflow takes it as a key of a parameter, else what comes near it, with a hash of the name."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name)
    is_path = name == posixpath.normpath(name) and name != "." and not name.startswith(("/", ".."))
    if allowed == name and is_path and len(name) <= MLFLOW_KEY:
        return name
    return f"{re.sub('[./ ]+', '_', allowed)[: MLFLOW_KEY - 9]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]

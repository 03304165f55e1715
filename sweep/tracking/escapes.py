"""Texts of the user's in MLflow: what Markdown would fetch, and what MLflow refuses as a key."""

import posixpath
import re

from trainables.text import short_hash, visible

# what begins a link, a picture, HTML, code, emphasis, a mention; what makes a link of an address
# that stands alone
MARKUP = re.compile(r"[\\`*_\[\]<>&!~|@#]|:(?=//)|(?<=www)\.", re.IGNORECASE)

# characters, of letters, digits and `_ - . space : /`; as a path it must be its own normal form
MLFLOW_KEY = 250


def markdown(text: str) -> str:
    """As one line that a Markdown page shows letter by letter: it fetches nothing and links to
    nothing."""
    return MARKUP.sub(lambda match: f"&#{ord(match[0])};", " ".join(visible(text).split()))


def mlflow_key(name: str) -> str:
    """The name itself where MLflow takes it as a key of a parameter, else what comes near it, with
    a hash of the name."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name)
    is_path = name == posixpath.normpath(name) and name != "." and not name.startswith(("/", ".."))
    if allowed == name and is_path and len(name) <= MLFLOW_KEY:
        return name
    return f"{re.sub('[./ ]+', '_', allowed)[: MLFLOW_KEY - 9]}-{short_hash(name)}"

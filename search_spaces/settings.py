"""Settings as they stand on the command line: PATH=VALUE."""

import json
import math
from collections import Counter
from typing import Any

from trainables.errors import UserError


def text_of(value: Any) -> str:
    """A value as it is written there: a text as it is, else JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def parse_settings(
    settings: list[str], option: str = "--set", example: str = "network.width=32"
) -> dict[str, Any]:
    """`["network.width=32", …]` → {"network.width": 32, …}; a value is JSON if it can be read so,
    else text. option, example: for messages.

    Raises UserError for a path that is given two values, a key that an object has twice, and a
    number that is not finite.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UserError(f"{option} {setting}: write it as path=value, as in {option} {example}")
        path = path.strip()
        value = _json_or_text(f"{option} {path}", text)
        if path in parsed and parsed[path] != value:
            both = f"{text_of(parsed[path])} and to {text_of(value)}"
            raise UserError(f"{option} {path}: it is set twice, to {both}; say it once")
        parsed[path] = value
    return parsed


def _json_or_text(setting: str, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise UserError(f"{setting}: {twice[0]} is there twice; leave one out")
        return dict(pairs)

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise UserError(f"{setting}: a finite number is needed, not {number}")
        return float(number)

    try:
        return json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=finite)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{setting[:40]}…: it is nested too deeply") from None
    except ValueError:  # no JSON
        return text

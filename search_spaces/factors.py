"""What a space varies: fields and their values, or factors and their named values."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """A value of a factor: its key in `vary`, what it is called, and the fields it sets, by
    path."""

    key: str
    value: Any
    fields: Mapping[str, Any]


def choices_of(key: str, values: Any) -> list[Choice]:
    """Of a factor; the name of a group is a number where it is written as one."""
    if not isinstance(values, dict):
        return [Choice(key, value, {key: value}) for value in values]
    return [
        Choice(key, int(name) if _is_count(name) else name, fields)
        for name, fields in values.items()
    ]


def _is_count(name: str) -> bool:
    return name.isascii() and name.isdecimal() and (name == "0" or not name.startswith("0"))


def check_factor(key: object, values: object) -> None:
    """Raises ValueError, in the words of YAML, for what is neither a field and its values nor a
    factor and its named values, and for a value that is there twice."""
    if not isinstance(key, str):
        raise ValueError(f'{key}: the name of a factor is text; write "{key}"')
    try:
        given = json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}: values as JSON has them are needed ({error})") from None
    if isinstance(values, Mapping):
        for name, fields in values.items():
            _check_named(key, name, fields)
    elif isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(
            f"{key}: a list of values is needed, as [8, 16], or named groups of fields, not {given}"
        )
    else:
        uses = Counter(json.dumps(value, sort_keys=True) for value in values)
        twice = next((text for text, count in uses.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{key}: {twice} is there twice; leave one out")


def _check_named(key: str, name: object, fields: object) -> None:
    if not isinstance(name, str):
        raise ValueError(f'{key}: {name}: the name of a value is text; write "{name}"')
    if not isinstance(fields, Mapping) or not all(isinstance(path, str) for path in fields):
        raise ValueError(
            f"{key}: {name}: fields by their paths are needed, as {{trainer.lr: 0.01}}, "
            f"not {json.dumps(fields)}"
        )

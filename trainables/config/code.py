"""Code by its name, "package.module:name": what a configuration is made by, ours or the user's."""

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue

from trainables.errors import UserError
from trainables.import_path import add_theirs
from trainables.text import whole_number


def _check_builder(path: str) -> str:
    module, colon, name = path.partition(":")
    words = [*module.split("."), name]
    if not colon or not all(word.isidentifier() for word in words):
        raise ValueError("write it as package.module:name")
    return path


Builder = Annotated[
    str,
    AfterValidator(_check_builder),
    Field(description="package.module:name of a function or class"),
]

Version = Annotated[
    str,
    Field(
        coerce_numbers_to_str=True,  # as `--set network.version=2` gives it
        description="change it when your code changes: of the code only names and options are "
        "compared",
    ),
]


def _check_numbers(options: dict[str, Any]) -> dict[str, Any]:
    """They are kept as JSON, of which only numbers of 64 bits are read again."""
    json.loads(json.dumps(options, default=str), parse_int=whole_number)
    return options


NUMBERS = AfterValidator(_check_numbers)
BuilderOptions = Annotated[dict[str, JsonValue], NUMBERS]


def load_code(path: str, field: str) -> Callable[..., Any]:
    """What "package.module:name" names. Raises UserError, naming the field of the configuration, if
    there is none."""
    module, _, name = path.partition(":")
    add_theirs()
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no part of what a command gives
            imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the user's module may raise whatever it likes
        raise UserError(
            f"{field}={path}: {module} can't be imported ({in_a_line(error)}); is it in PYTHONPATH?"
        ) from error
    builder = getattr(imported, name, None)
    if not callable(builder):
        # the file, for a library's where a module of theirs has the same name
        file = getattr(imported, "__file__", None) or "built in"
        raise UserError(f"{field}={path}: {module} has no function or class {name!r} ({file})")
    return builder  # type: ignore[no-any-return]


def in_a_line(error: BaseException) -> str:
    """The first line of what code that may raise anything has raised."""
    return f"{type(error).__name__}: {error}".splitlines()[0]

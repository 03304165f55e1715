"""A search space by its name, or from a file of the user's."""

import difflib
import json
import runpy
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search_spaces import recipes
from search_spaces.space import OF_ALL, SearchSpace, settable
from search_spaces.table import SPACES
from search_spaces.yaml12 import read_yaml
from trainables.config.fields import GROUP, explain_by_name, validated, with_fields
from trainables.config.listing import nearest
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.errors import UserError

RECIPES: dict[str, tuple[Configuration, Measurement]] = {
    "paper": (recipes.PAPER, recipes.PAPER_MEASUREMENT),
    "digits": (recipes.DIGITS, recipes.DIGITS_MEASUREMENT),
}


def find_space(asked: str | Mapping[str, Any] | SearchSpace) -> SearchSpace:
    """The space of that name, the one in a .py, .yaml or .yml file, or of these fields; one that is
    a space already is it. Raises UserError, which names those that are called alike.

    A YAML file, and a mapping, has the fields of SearchSpace; `base` is a complete configuration or
    the name of a recipe (paper, digits), which `settings` change by path. A Python file sets SPACE
    to a dict of the same, or to a SearchSpace.
    """
    if isinstance(asked, SearchSpace):
        return asked
    if isinstance(asked, Mapping):
        return _from_tree("space", asked)
    name = asked
    if Path(name).suffix in (".py", ".yaml", ".yml"):
        return _from_python(name) if name.endswith(".py") else _from_yaml(name)
    if name not in SPACES:
        near = difflib.get_close_matches(name, SPACES) or [one for one in SPACES if name in one][:3]
        there = f"did you mean {' or '.join(near)}? " if name and near else ""
        raise UserError(
            f"no search space {name!r}; {there}`emm spaces` lists them. Or give a .py or .yaml file"
        )
    return SPACES[name]


def _from_python(path: str) -> SearchSpace:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with redirect_stdout(sys.stderr):  # what it prints is no part of what a command gives
            space = runpy.run_path(path).get("SPACE")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except ValidationError as error:  # of a description that it makes
        raise UserError(f"{path}: {error.title}: {explain_by_name(error)}") from error
    except (Exception, SystemExit) as error:  # code of the user's: told in one line
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: {type(error).__name__}: {reason}") from error
    if isinstance(space, SearchSpace):
        is_named = "name" in space.model_fields_set
        return space if is_named else space.model_copy(update={"name": _name_of(path)})
    if not isinstance(space, dict):
        raise UserError(
            f"{path}: set SPACE to a dict of the fields of a search space: base, vary, search, …"
        )
    return _from_tree(path, space)


def _from_yaml(path: str) -> SearchSpace:
    try:
        # UTF-8 whatever the locale
        content = read_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise UserError(f"{path}: {line}{_in_a_line(error.problem or error)}") from None
    except RecursionError:
        raise UserError(f"{path}: it is nested too deeply") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {_in_a_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: the fields of a search space are needed: base, vary, search, …")
    return _from_tree(path, content)


def _from_tree(path: str, content: Mapping[Any, Any]) -> SearchSpace:
    """The space that a file describes: the fields of SearchSpace, and `settings`, which change its
    base."""
    try:
        return validated(SearchSpace, _completed({"name": _name_of(path), **content}))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _completed(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of SearchSpace: a recipe in place of its name, with the settings."""
    tree = dict(content)
    for name in ("settings", "measurement"):
        group = tree.get(name, {})
        if name == "measurement" and isinstance(group, Measurement):
            continue
        if not isinstance(group, dict) or not all(isinstance(key, str) for key in group):
            raise UserError(f"{name}: {GROUP}, not {json.dumps(group, default=repr)}")
    settings = tree.pop("settings", {})
    for path in settings:
        section = path.partition(".")[0]
        if section in OF_ALL:
            raise UserError(f"settings: {path}: write it below {section}, not below settings")
    fields = SearchSpace.model_fields
    unknown = [key for key in tree if key not in fields]
    if unknown:
        near = nearest(str(unknown[0]), fields)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}, settings"
        raise UserError(f"{unknown[0]}: there is no such field; {hint}")
    if "base" not in tree:
        raise UserError(
            f"base: it is required: a recipe ({', '.join(RECIPES)}), or a whole configuration"
        )
    if isinstance(tree["base"], str):
        tree["base"], recipe = _recipe(tree["base"])
        changes = tree.get("measurement", {})
        if not isinstance(changes, Measurement):
            tree["measurement"] = with_fields(recipe, changes, "measurement.", settable())
    if settings:
        base = tree["base"]
        if not isinstance(base, Configuration):
            base = validated(Configuration, base, "base.")
        try:
            tree["base"] = with_fields(base, settings, there=settable())
        except UserError as error:
            raise UserError(f"settings: {error}") from None
    return tree


def _recipe(name: str) -> tuple[Configuration, Measurement]:
    if name not in RECIPES:
        there = ", ".join(RECIPES)
        raise UserError(
            f"base: no recipe {name!r}; there are {there}, or give a whole configuration"
        )
    return RECIPES[name]


def _name_of(path: str) -> str:
    return Path(path).stem


def _in_a_line(error: object) -> str:
    return " ".join(str(error).split())

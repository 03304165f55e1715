"""A search space by its name, or from a file of the user's."""

import math
import re
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search_spaces import recipes
from search_spaces.space import SearchSpace
from search_spaces.table import SPACES
from trainables.config.fields import validated, with_fields
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.errors import UserError

RECIPES: dict[str, tuple[Configuration, Measurement]] = {
    "paper": (recipes.PAPER, recipes.PAPER_MEASUREMENT),
    "digits": (recipes.DIGITS, recipes.DIGITS_MEASUREMENT),
}


class _Yaml(yaml.SafeLoader):
    """YAML 1.2 (its core schema, https://yaml.org/spec/1.2.2/#103-core-schema), as JSON reads what
    looks like JSON.

    PyYAML reads YAML 1.1, where 1:30 is 90, 010 is 8, `no` is false, and 1e-2 is text. Of it the
    merge key `<<` is kept. Raises YAMLError, with the line, for a key that is there twice and for a
    number that is not finite.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        seen = set()
        for key in keys:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # !!int before something else, or thousands of digits
            raise yaml.constructor.ConstructorError(
                None, None, f"{text[:40]} is no integer", node.start_mark
            ) from None

    def finite_number(self, node: yaml.ScalarNode) -> float:
        text = self.construct_scalar(node)
        try:
            number = float(text)
        except ValueError:  # .inf, .nan
            number = math.nan
        if not math.isfinite(number):
            raise yaml.constructor.ConstructorError(
                None, None, f"{text} is no finite number", node.start_mark
            )
        return number


_Yaml.yaml_implicit_resolvers = {}  # those of YAML 1.1
for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
_Yaml.add_constructor("tag:yaml.org,2002:int", _Yaml.whole_number)
_Yaml.add_constructor("tag:yaml.org,2002:float", _Yaml.finite_number)


def find_space(asked: str | Mapping[str, Any] | SearchSpace) -> SearchSpace:
    """The space of that name, the one in a .py, .yaml or .yml file, or of these fields; one that is
    a space already is it. Raises UserError, which lists those there are.

    A Python file sets SPACE to a SearchSpace. A YAML file, and a mapping, has the fields of
    SearchSpace; `base` is a complete configuration or the name of a recipe (paper, digits), which
    `settings` change by path.
    """
    if isinstance(asked, SearchSpace):
        return asked
    if isinstance(asked, Mapping):
        return _from_fields("space", {"name": "space", **asked})
    name = asked
    if Path(name).suffix in (".py", ".yaml", ".yml"):
        return _from_python(name) if name.endswith(".py") else _from_yaml(name)
    if name not in SPACES:
        raise UserError(
            f"no search space {name!r}; there are {', '.join(SPACES)}; or give a .py or .yaml file"
        )
    return SPACES[name]


def _from_python(path: str) -> SearchSpace:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        space = runpy.run_path(path).get("SPACE")
    except UserError:
        raise
    except Exception as error:  # code of the user's: whatever it raises is told them in one line
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: {type(error).__name__}: {reason}") from error
    if not isinstance(space, SearchSpace):
        raise UserError(f"{path}: set SPACE to a search_spaces.space.SearchSpace")
    return space


def _from_yaml(path: str) -> SearchSpace:
    try:
        # UTF-8 whatever the locale
        content = _read_yaml(Path(path).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise UserError(f"{path}: {line}{_in_a_line(error.problem or error)}") from None
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {_in_a_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: the fields of a search space are needed: name, base, vary, search, …"
        )
    return _from_fields(path, {"name": Path(path).stem, **content})


def _from_fields(path: str, content: Mapping[str, Any]) -> SearchSpace:
    """path: where they stand, for messages."""
    words = dict.fromkeys(("question", "source", "expectation", "cost"), "")
    tree: dict[str, Any] = {**words, **content}
    for name in ("settings", "measurement"):
        group = tree.get(name, {})
        if not isinstance(group, dict) or not all(isinstance(key, str) for key in group):
            raise UserError(f"{path}: {name}: fields and their values are needed, not {group!r}")
    settings = tree.pop("settings", {})
    unknown = set(tree) - set(SearchSpace.model_fields)
    if unknown:
        fields = ", ".join(SearchSpace.model_fields)
        raise UserError(f"{path}: {min(unknown)}: there is no such field; there are {fields}")
    if isinstance(tree.get("base"), str):
        tree["base"], recipe = _recipe(path, tree["base"])
        changes = tree.get("measurement", {})
        tree["measurement"] = with_fields(recipe, changes, prefix="measurement.")
    if "base" in tree and settings:
        base = tree["base"]
        if not isinstance(base, Configuration):
            base = validated(Configuration, base, "base.")
        tree["base"] = with_fields(base, settings)
    try:
        return validated(SearchSpace, tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recipe(path: str, name: str) -> tuple[Configuration, Measurement]:
    if name not in RECIPES:
        there = ", ".join(RECIPES)
        raise UserError(
            f"{path}: base: no recipe {name!r}; there are {there}, or give a whole configuration"
        )
    return RECIPES[name]


def _read_yaml(text: str) -> Any:
    loader = _Yaml(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _in_a_line(error: object) -> str:
    return " ".join(str(error).split())

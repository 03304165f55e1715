"""A search space by its name, or from a file of the user's."""

import runpy
from pathlib import Path
from typing import Any

import yaml

from search_spaces import recipes
from search_spaces.space import SearchSpace
from search_spaces.table import SPACES
from trainables.config import Configuration, Measurement, validated, with_fields
from trainables.errors import UserError

RECIPES: dict[str, tuple[Configuration, Measurement]] = {
    "paper": (recipes.PAPER, recipes.PAPER_MEASUREMENT),
    "digits": (recipes.DIGITS, recipes.DIGITS_MEASUREMENT),
}


def find_space(name: str) -> SearchSpace:
    """The space of that name, or the one in a .py, .yaml or .yml file. Raises UserError, which lists those there are.

    A Python file sets SPACE to a SearchSpace. A YAML file has the fields of SearchSpace; `base` is a complete configuration
    or the name of a recipe (paper, digits), which `settings` change by path.
    """
    if Path(name).suffix in (".py", ".yaml", ".yml"):
        return _from_python(name) if name.endswith(".py") else _from_yaml(name)
    if name not in SPACES:
        raise UserError(f"no search space {name!r}; there are {', '.join(SPACES)}; or give a .py or .yaml file")
    return SPACES[name]


def _from_python(path: str) -> SearchSpace:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        space = runpy.run_path(path).get("SPACE")
    except UserError:
        raise
    except Exception as error:  # code of the user's: whatever it raises is told them in one line
        raise UserError(f"{path}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(space, SearchSpace):
        raise UserError(f"{path}: set SPACE to a search_spaces.space.SearchSpace")
    return space


def _from_yaml(path: str) -> SearchSpace:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {str(error).replace(chr(10), ' ')}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: the fields of a search space are needed: name, base, vary, search, …")
    tree: dict[str, Any] = {
        "name": Path(path).stem,
        **dict.fromkeys(("question", "source", "expectation", "cost"), ""),
        **content,
    }
    for name in ("settings", "measurement"):
        if not isinstance(group := tree.get(name, {}), dict) or not all(isinstance(field, str) for field in group):
            raise UserError(f"{path}: {name}: fields and their values are needed, not {group!r}")
    settings = tree.pop("settings", {})
    if unknown := set(tree) - set(SearchSpace.model_fields):
        raise UserError(f"{path}: {min(unknown)}: there is no such field; there are {', '.join(SearchSpace.model_fields)}")
    if isinstance(base := tree.get("base"), str):
        if base not in RECIPES:
            raise UserError(f"{path}: base: no recipe {base!r}; there are {', '.join(RECIPES)}, or give a whole configuration")
        tree["base"], measurement = RECIPES[base]
        tree["measurement"] = with_fields(measurement, tree.get("measurement", {}), prefix="measurement.")
    if "base" in tree and settings:
        base = tree["base"] if isinstance(tree["base"], Configuration) else validated(Configuration, tree["base"], "base.")
        tree["base"] = with_fields(base, settings)
    try:
        return validated(SearchSpace, tree)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None

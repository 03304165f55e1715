"""Fields by their dotted path: setting them, and saying in one line what is wrong with them."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainables.config.identity import Frozen
from trainables.errors import UserError

Model = TypeVar("Model", bound=Frozen)


def with_fields(model: Model, changes: Mapping[str, Any], prefix: str = "") -> Model:
    """`model` with fields replaced by dotted path, validated anew; `prefix` is where `model`
    stands, for messages.

    Setting `x.kind` drops the fields of the former kind. Raises UserError naming the field, what
    was given, what is allowed.
    """
    tree = model.model_dump()
    renewed = set()  # sections whose kind is set: pydantic fills in their other fields
    for path, value in sorted(changes.items(), key=lambda change: not change[0].endswith(".kind")):
        *sections, name = path.split(".")
        node, owner = tree, prefix.removesuffix(".") or type(model).__name__.lower()
        for section in sections:
            if section == "options":  # of the user's code: whatever they are called
                node.setdefault(section, {})
            if node.get(section) is None and (
                section in node or owner in renewed
            ):  # an optional group of fields
                node[section] = {}
                renewed.add(section)
            if not isinstance(node.get(section), dict):
                raise UserError(_no_such_field(prefix + path, section, owner, node))
            node, owner = node[section], section
        if name == "kind":
            node.clear()
            renewed.add(owner)
        elif name not in node and owner not in renewed and owner != "options":
            raise UserError(_no_such_field(prefix + path, name, owner, node))
        elif isinstance(node.get(name), dict) and "options" not in (name, owner):
            raise UserError(
                f"{path} is a group of fields: set one of {', '.join(f'{path}.{field}' for field in node[name])}"
            )
        node[name] = value
    return validated(type(model), tree, prefix)


def validated(kind: type[Model], tree: Any, prefix: str = "") -> Model:
    """`kind` built from plain data; raises UserError with the first thing that is wrong."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, prefix)) from None


def explain(error: ValidationError, prefix: str = "") -> str:
    """One line for the first error: the field, what is allowed, what was given."""
    first = error.errors()[0]
    kinds = {
        "digits",
        "mnist5k",
        "cifar10",
        "folder",
        "arrays",
        "photos",
        "ddpmpp",
        "optimum",
        "edm",
        "vp",
    }
    kinds |= {
        "ncsnpp",
        "dit",
        "mlp",
        "custom",
        "ve",
        "flow",
        "standard",
        "none",
        "true",
        "random",
        "unique",
    }
    path = prefix + ".".join(str(part) for part in first["loc"] if part not in kinds)
    allowed = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{path}: there is no such field"
    if isinstance(first["input"], dict | BaseModel):
        return f"{path.removesuffix('.')}: {allowed}" if path else allowed
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}: {allowed}, not {first['input']!r}{more}"


def _no_such_field(path: str, name: str, owner: str, node: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, node, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{owner} has: {', '.join(node)}"
    return f"{path}: no field {name!r}; {hint}"

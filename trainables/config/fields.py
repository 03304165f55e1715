"""Fields by their dotted path: setting them, and saying in one line what is wrong with them."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from trainables.config.identity import Frozen
from trainables.errors import UserError

Model = TypeVar("Model", bound=Frozen)


def with_fields(model: Model, changes: Mapping[str, Any], prefix: str = "") -> Model:
    """`model` with fields replaced by dotted path, validated anew; `prefix` is where `model`
    stands, for messages.

    Setting `x.kind` drops the fields of the former kind, and so does setting `x` to all its fields,
    kind included. Raises UserError naming the field, what was given, what is allowed.
    """
    tree = model.model_dump()
    renewed = set()  # sections whose kind is set: pydantic fills in their other fields
    kinds_first = sorted(changes.items(), key=lambda change: not change[0].endswith(".kind"))
    for path, value in kinds_first:
        *sections, name = path.split(".")
        node, owner = tree, prefix.removesuffix(".") or type(model).__name__.lower()
        for section in sections:
            if _are_options(section):
                node.setdefault(section, {})
            is_field = section in node or owner in renewed
            if is_field and node.get(section) is None:  # an optional group of fields
                node[section] = {}
                renewed.add(section)
            if not isinstance(node.get(section), dict):
                raise UserError(_no_such_field(prefix + path, section, owner, node))
            node, owner = node[section], section
        if name == "kind":
            node.clear()
            renewed.add(owner)
        elif name not in node and owner not in renewed and not _are_options(owner):
            raise UserError(_no_such_field(prefix + path, name, owner, node))
        elif isinstance(value, dict) and "kind" in value:
            pass  # a group of fields as a whole
        elif isinstance(node.get(name), dict) and not any(map(_are_options, (name, owner))):
            fields = ", ".join(f"{path}.{field}" for field in node[name])
            raise UserError(f"{path} is a group of fields: set one of {fields}")
        node[name] = value
    return validated(type(model), tree, prefix)


def _are_options(name: str) -> bool:
    """Of the user's code: whatever they are called."""
    return name == "options" or name.endswith("_options")


def validated(kind: type[Model], tree: Any, prefix: str = "") -> Model:
    """`kind` built from plain data; raises UserError with the first thing that is wrong."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, kind, prefix)) from None


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """One line for the first error in what was to be a `model`: the field, what is allowed, what
    was given."""
    first = error.errors()[0]
    path = prefix + ".".join(_fields_of(first["loc"], model))
    allowed = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{path}: there is no such field"
    if isinstance(first["input"], dict | BaseModel):
        return f"{path.removesuffix('.')}: {allowed}" if path else allowed
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}: {allowed}, not {first['input']!r}{more}"


def _fields_of(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The names of fields in pydantic's location of an error, which names the kind as well wherever
    a model is one of several kinds: ("network", "dit", "width") -> ["network", "width"]."""
    names: list[str] = []
    models = [model]  # that what comes next may be a part of
    for part in location:
        chosen = [one for one in models if part in _kinds(one)]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        names.append(str(part))
        if isinstance(part, str):
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)]
    return names


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    """What may stand as `kind` of a model; nothing if it has none."""
    field = model.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All models in an annotation, as in `Mix | None`, `tuple[Snapshot, ...]` or a union of
    kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _no_such_field(path: str, name: str, owner: str, node: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, node, n=1)
    hint = f"did you mean {near[0]}?" if near else f"{owner} has: {', '.join(node)}"
    return f"{path}: no field {name!r}; {hint}"

"""Fields by their dotted path: setting them, and saying in one line what is wrong with them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trainables.config.identity import Frozen
from trainables.config.listing import Listed, fields_of, kinds_of, models_in, no_such_field
from trainables.errors import UserError

Model = TypeVar("Model", bound=Frozen)

GROUP = "fields and their values are needed"
# what is allowed, by pydantic's types of errors: its own words are of Python, not of YAML or JSON
ALLOWED = {
    "missing": "it is required",
    "int_type": "an integer is needed",
    "int_parsing": "an integer is needed",
    "int_from_float": "an integer is needed",
    "float_type": "a number is needed",
    "float_parsing": "a number is needed",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "string_type": "text is needed",
    "tuple_type": "a list is needed, as [1, 2]",
    "dict_type": GROUP,
    "model_type": GROUP,
    "model_attributes_type": GROUP,
}


def with_fields(
    model: Model,
    changes: Mapping[str, Any],
    prefix: str = "",
    there: Sequence[Listed] | None = None,
) -> Model:
    """`model` with fields replaced by dotted path, validated anew. For messages, `prefix` is where
    `model` stands, and `there` what may have been meant (by default its own fields).

    Setting `x.kind` to another kind than it has drops the fields of the former one; setting `x` to a
    group of fields, kind included, drops all that are not in it. Raises UserError naming the field,
    what was given, what is allowed.
    """

    def unknown(path: str, owner: str, node: Mapping[str, Any]) -> UserError:
        among = _there(type(model), prefix) if there is None else there
        return UserError(no_such_field(prefix + path, among, f"{owner} has {', '.join(node)}"))

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
                raise unknown(path, owner, node)
            node, owner = node[section], section
        if name == "kind" and node.get("kind") != value:
            node.clear()
            renewed.add(owner)
        elif name not in node and owner not in renewed and not _are_options(owner):
            raise unknown(path, owner, node)
        elif isinstance(value, dict) and "kind" in value:
            pass  # a group of fields as a whole
        elif isinstance(node.get(name), dict) and not any(map(_are_options, (name, owner))):
            fields = ", ".join(f"{path}.{field}" for field in node[name])
            raise UserError(f"{path} is a group of fields: set one of {fields}")
        node[name] = value
    return validated(type(model), tree, prefix, there)


def _are_options(name: str) -> bool:
    """Of the user's code: whatever they are called."""
    return name == "options" or name.endswith("_options")


def validated(
    kind: type[Model], tree: Any, prefix: str = "", there: Sequence[Listed] | None = None
) -> Model:
    """`kind` built from plain data; raises UserError with the first thing that is wrong. prefix,
    there: see `with_fields`."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, kind, prefix, there)) from None


def explain(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str = "",
    there: Sequence[Listed] | None = None,
) -> str:
    """One line for the first error in what was to be a `model`: the field, what is allowed, what
    was given."""
    first = error.errors()[0]
    path = prefix + ".".join(_fields_of(first["loc"], model))
    given, context = first["input"], first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        return no_such_field(path, _there(model, prefix) if there is None else there)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = ", ".join(_kinds_at(first["loc"], model))
        if "tag" not in context:
            return f"{path}.kind: it is required; there are {kinds}"
        return f"{path}.kind: there is no kind {context['tag']!r}; there are {kinds}"
    allowed = _allowed(first["type"], first["msg"], context)
    if isinstance(given, dict | BaseModel):
        return f"{path.removesuffix('.')}: {allowed}" if path else allowed
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path}: {allowed}, not {_as_written(given)}{more}"


def explain_by_name(error: ValidationError) -> str:
    """The same of a description that code of the user's could not make: which, its title says."""
    described = [Frozen]
    for model in described:  # grows
        described += model.__subclasses__()
    model = next((one for one in described if one.__name__ == error.title), Frozen)
    return explain(error, model)


def _allowed(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "too_short":
        return f"at least {context['min_length']} of them are needed"
    if kind == "too_long":
        return f"at most {context['max_length']} of them are allowed"
    own = message.removeprefix("Value error, ").replace("Input should be", "it must be", 1)
    return ALLOWED.get(kind, own)


def _as_written(value: Any) -> str:
    """In the words of YAML and JSON, which a user has written."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _there(model: type[BaseModel], prefix: str) -> list[Listed]:
    return list(fields_of(model, prefix.removesuffix(".")))


def _fields_of(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The names of fields in pydantic's location of an error, which names the kind as well wherever
    a model is one of several kinds: ("network", "dit", "width") -> ["network", "width"]."""
    return _walk(location, model)[0]


def _kinds_at(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The kinds that there are of what stands at a location."""
    return [str(kind) for one in _walk(location, model)[1] for kind in kinds_of(one)]


def _walk(
    location: tuple[int | str, ...], model: type[BaseModel]
) -> tuple[list[str], list[type[BaseModel]]]:
    names: list[str] = []
    models = [model]  # that what comes next may be a part of
    for part in location:
        chosen = [one for one in models if part in kinds_of(one)]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        names.append(str(part))
        if isinstance(part, str):
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [inner for field in fields for inner in models_in(field.annotation)]
    return names, models

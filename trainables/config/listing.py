"""The fields of descriptions, listed: what `emm fields` prints, and what a typo is answered from."""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

NEEDED = "needed"  # in place of a default
LIMITS = {
    "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of",
    "min_length": "length >=", "max_length": "length <=",
}  # fmt: skip
WORDS = {int: "integer", float: "number", bool: "true | false", str: "text", NoneType: "null"}
ALIKE = 0.78  # of a word that may have been meant, 0 to 1
AS_GOOD, MOST_NEAR = 0.2, 3  # how much less alike than the best one others may be; how many


@dataclass(frozen=True)
class Listed:
    """A field. `kind`: of its section, where that has several; `may_change`: in a sweep that has
    begun; `counts`: whether it decides results. The others are texts for people."""

    path: str  # as `--set` and `vary` take it
    section: str  # all of the path but its last word
    kind: str
    type: str
    range: str
    default: str
    description: str
    may_change: bool = False
    counts: bool = True

    @property
    def group(self) -> str:
        """What a user sets to have this field: "network.kind=dit"; the section where it has no
        kinds."""
        return f"{self.section}.kind={self.kind}" if self.kind else self.section

    @property
    def names(self) -> tuple[str, ...]:
        """By which it is asked for: network.width, network.dit.width."""
        word = self.path.rpartition(".")[2]
        return self.path, ".".join(filter(None, (self.section, self.kind, word)))


def fields_of(
    model: type[BaseModel],
    section: str = "",
    kind: str = "",
    inside: Mapping[type[BaseModel], str] = MappingProxyType({}),
) -> Iterator[Listed]:
    """Every field of a model that stands at `section`, and of the models in it, in their order.

    `inside`: the models around it → where they stand; one that holds itself is listed once.
    """
    around = {**inside, model: section}
    for name, field in model.model_fields.items():
        path, inner = f"{section}.{name}".lstrip("."), models_in(field.annotation)
        if name == "kind" and kinds_of(model):
            continue  # is listed with the section
        if not inner:
            yield _listed(path, section, kind, field, type_words(field.annotation))
            continue
        again = next((around[one] for one in inner if one in around), None)
        if again is not None:
            yield _listed(path, section, kind, field, f"as {again}")
            continue
        if len(inner) == 1:
            words = "group | null" if field.default is None else "group"
            yield _listed(path, section, kind, field, words, _summary(inner[0]))
            yield from fields_of(inner[0], path, "", around)
            continue
        kinds = [kinds_of(one)[0] for one in inner]
        yield _kind_of(path, field, kinds)
        for one, its_kind in zip(inner, kinds, strict=True):
            yield Listed(f"{path}.kind", path, its_kind, its_kind, "", "", _summary(one))
            yield from fields_of(one, path, its_kind, around)


def _listed(
    path: str, section: str, kind: str, field: FieldInfo, words: str, description: str = ""
) -> Listed:
    extra = field.json_schema_extra
    marks = extra if isinstance(extra, dict) else {}
    return Listed(
        path=path,
        section=section,
        kind=kind,
        type=words,
        range=_range(field),
        default=NEEDED if field.is_required() else _value(field.get_default()),
        description=field.description or description,
        may_change=bool(marks.get("may_change")),
        counts=marks.get("identity") is not False,
    )


def _kind_of(path: str, field: FieldInfo, kinds: Sequence[str]) -> Listed:
    default = NEEDED if field.is_required() else field.get_default().kind
    words = "which kind; setting another one drops the fields of the former"
    return Listed(f"{path}.kind", path, "", " | ".join(kinds), "", default, words)


def grouped(fields: Iterable[Listed]) -> dict[str, list[Listed]]:
    """Under what a user sets to have them, each once; what all kinds of a section have, under the
    section."""
    unique = list(dict.fromkeys(fields))
    kinds: dict[str, set[str]] = {}
    uses = Counter(replace(one, kind="") for one in unique if one.kind)
    for one in unique:
        kinds.setdefault(one.section, set()).update({one.kind} - {""})
    groups: dict[str, list[Listed]] = {}
    for one in unique:
        shared = replace(one, kind="")
        is_shared = uses[shared] == len(kinds[one.section]) > 1
        group = groups.setdefault(one.section if is_shared else one.group, [])
        if not is_shared or shared not in group:
            group.append(shared if is_shared else one)
    return groups


def _summary(model: type[BaseModel]) -> str:
    """The first sentence of what a model says of itself."""
    text = " ".join((model.__doc__ or "").split())
    return re.split(r"\. (?=[A-Z])", text)[0].removesuffix(".")  # not in "et al. 2021"


def _value(value: Any) -> str:
    """As `--set` takes it: a text as it is, else JSON; of a group nothing, its fields have
    theirs."""
    if isinstance(value, BaseModel):
        return ""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def type_words(annotation: Any) -> str:
    """What a value may be, in the words of YAML and JSON."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_words(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(map(type_words, parts))
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin is tuple:
        items = [type_words(part) for part in parts if part is not ...]
        return f"[{', '.join([*items, '…'] if parts[-1] is ... else items)}]"
    if origin is dict:
        return f"{{{type_words(parts[0])}: {type_words(parts[1])}, …}}"
    return WORDS.get(annotation, "value")


def _range(field: FieldInfo) -> str:
    """The limits of a field's value, and of each value in a list."""
    limits = _limits(field.metadata)
    if get_origin(field.annotation) is tuple:
        item = getattr(get_args(field.annotation)[0], "__metadata__", ())
        inner = [_limits(info.metadata) for info in item if isinstance(info, FieldInfo)]
        limits += [f"each {' and '.join(of_each)}" for of_each in inner if of_each]
    return ", ".join(limits)


def _limits(metadata: Iterable[object]) -> list[str]:
    return [
        f"{words} {getattr(limit, name)}"
        for limit in metadata
        for name, words in LIMITS.items()
        if getattr(limit, name, None) is not None
    ]


# ---------------------------------------------------------------- models in models


def kinds_of(model: type[BaseModel]) -> tuple[Any, ...]:
    """What may stand as `kind` of a model; nothing if it has none."""
    field = model.model_fields.get("kind")
    return () if field is None else get_args(field.annotation)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """All models in an annotation, as in `Mix | None`, `tuple[Snapshot, ...]` or a union of
    kinds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


# ---------------------------------------------------------------- what was meant


def no_such_field(path: str, there: Sequence[Listed], beside: str = "") -> str:
    """What is said of a path that is none of `there`, or is one of another kind; `beside`: what
    there is where it was sought, if that is known."""
    kinds = [listed.group for listed in there if listed.path == path and listed.kind]
    if kinds:
        return f"{path}: this kind has no such field; {_or(kinds)} has it"
    words = path.rpartition(".")[2].replace("_", " ")  # learning_rate -> learning rate
    near = nearest(path, [listed.path for listed in there]) or [
        listed.path for listed in there if listed.description.startswith(words)
    ]
    hint = f"did you mean {_or(near)}?" if near else beside or "emm fields lists those there are"
    return f"{path}: there is no such field; {hint}"


def nearest(path: str, paths: Iterable[str]) -> list[str]:
    """The paths that have a word like the last one of a path that is none of them, the most alike
    first, in that word and as a whole. Empty if there is none."""
    last, likeness = path.rpartition(".")[2], {}
    for other in paths:
        word = max(_alike(last, word) for word in other.split("."))
        if word >= ALIKE:
            likeness[other] = word + _alike(path, other)
    near = sorted(likeness, key=lambda other: -likeness[other])
    return [other for other in near if likeness[other] >= likeness[near[0]] - AS_GOOD][:MOST_NEAR]


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()


def _or(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))

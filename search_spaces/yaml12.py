"""YAML 1.2, read and written: PyYAML knows 1.1, in which `no` is false and 1:30 is 90."""

import math
import re
from typing import Any

import yaml

MOST = 100_000  # values in a file


def read_yaml(text: str) -> Any:
    """Plain data. Raises YAMLError, with the line, for a key that is there twice, for a number that
    is not finite, and for aliases that would make more than `MOST` values."""
    loader = _Yaml(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _written_out(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """How many values there are with every alias written out: ten lines of ten aliases each, one on
    the other, are ten thousand millions. `known`: of other nodes; None while one is counted."""
    if node not in known:
        known[node] = None
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        known[node] = 1 + sum(_written_out(part, known) for part in parts)
    size = known[node]
    if size is None:
        raise _error(node, "an alias stands within what it names")
    if size > MOST:
        raise _error(node, f"with all aliases written out, these are more than {MOST:,} values")
    return size


def _error(node: yaml.Node, why: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, why, node.start_mark)


def write_yaml(tree: Any) -> str:
    """A text from which `read_yaml`, and any other reader, gets the same plain data."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


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
                raise _error(key, f"{key.value} is there twice")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # !!int before something else, or thousands of digits
            raise _error(node, f"{text[:40]} is no integer") from None

    def finite_number(self, node: yaml.ScalarNode) -> float:
        text = self.construct_scalar(node)
        try:
            number = float(text)
        except ValueError:  # .inf, .nan
            number = math.nan
        if not math.isfinite(number):
            raise _error(node, f"{text} is no finite number")
        return number


_Yaml.yaml_implicit_resolvers = {}  # those of YAML 1.1
CORE = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
)
for tag, pattern, first in CORE:
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first)
_Yaml.add_constructor("tag:yaml.org,2002:int", _Yaml.whole_number)
_Yaml.add_constructor("tag:yaml.org,2002:float", _Yaml.finite_number)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as something else; lists stay in a line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def in_a_line(self, data: list[Any]) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


for tag, pattern, first in CORE:
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), first
    )
_Dumper.add_representer(list, _Dumper.in_a_line)

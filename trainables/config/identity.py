"""The identity of a description: a key is the SHA-256 of canonical JSON.

Fields at their default value are left out of it, so that a field added later (with the old
behaviour as its default) orphans no result; defaults are therefore frozen, by a test. Paths,
devices and batch sizes that do not change the numbers are marked `identity=False`; of the data only
the content digest enters. NUMERICS is raised when the same description would give other numbers
than before.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

IGNORED: dict[str, Any] = {"identity": False}


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


NUMERICS = 1


def identity(model: Frozen) -> dict[str, Any]:
    """The fields of `model` that count: `kind`, and what differs from its default, without fields
    marked identity=False."""
    counted = {}
    for name, field in type(model).model_fields.items():
        value, marks = getattr(model, name), field.json_schema_extra
        is_ignored = isinstance(marks, dict) and marks.get("identity") is False
        if name == "kind" or (not is_ignored and value != field.default):
            counted[name] = value
    return counted


def key_of(value: Mapping[str, Any]) -> str:
    """SHA-256 (32 hexadecimal digits of it) of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a purpose and a position, so that no random number depends on what was
    drawn before."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8]) >> 1

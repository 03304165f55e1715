"""What a finished trial sampled with, as a file: a named state dict where it is one.

`weights.safetensors` holds names and tensors; of the standard trainer the state dict of its network,
with the EMA of what was trained. What else a trainer of the user's keeps (numbers, nested
dictionaries), and the list of tensors of older versions, is `weights.pt`, written by torch.save.
Neither can run code when it is read.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any, TypeGuard

import psutil
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainables.storage import Storage
from trainables.trial import checkpoint
from trainables.trial.result import OTHER_WEIGHTS, WEIGHTS

DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}

log = logging.getLogger(__name__)


def write(storage: Storage, weights: Any) -> None:
    """Into the directory of a trial, in place of what is there. Raises OSError."""
    if is_named(weights):
        dense = {name: value.contiguous() for name, value in weights.items()}
        metadata = {"format": "pt", "sha256": _digest(dense)}
        storage.write(WEIGHTS, safetensors.torch.save(dense, metadata))
        storage.delete(OTHER_WEIGHTS)
    else:
        checkpoint.write(storage, OTHER_WEIGHTS, {"ema": weights})
        storage.delete(WEIGHTS)


def read(storage: Storage) -> Any | None:
    """What `write` was given, its tensors on the CPU; None if it is missing or corrupt.

    Raises DamagedFile if it is more than the memory holds.
    """
    most = psutil.virtual_memory().available
    content = storage.read(WEIGHTS, most)
    if content is None:
        kept = checkpoint.load(storage, OTHER_WEIGHTS, most)
        return None if kept is None else kept["ema"]
    try:
        weights = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if header["__metadata__"]["sha256"] != _digest(weights):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, ValueError, KeyError) as error:
        log.warning("passing over the corrupt file %s: %s", storage.path(WEIGHTS), error)
        return None
    return weights


def is_named(weights: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(weights, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value)
        for name, value in weights.items()
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether the format has a place for it."""
    return tensor.layout == torch.strided and tensor.dtype in DTYPES


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and values: the format itself has no checksum."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

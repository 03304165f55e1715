"""Checkpoints of a trial: atomic to write, newest valid one to read, never unpickling code."""

import io
import logging
import pickle
import time
import zipfile
from typing import Any

from trainables.storage import Storage

log = logging.getLogger(__name__)
KEEP = 2  # the one before is there for the case that the newest turns out to be corrupt
SHARE = 0.05  # of the time that saving may take; where it took more, the next one waits


class Checkpoints:
    """When a trial saves its state: every `seconds`, and less often where saving takes long."""

    def __init__(self, storage: Storage, seconds: float) -> None:
        self.storage, self.seconds = storage, seconds
        self.interval = seconds  # until the next one is due …
        self.saved_at = time.monotonic()  # … after the last one
        self.position = 0  # images trained until the last one

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self.saved_at > self.interval

    def save(self, position: int, state: dict[str, Any]) -> None:
        begin = time.monotonic()
        save(self.storage, position, state)
        self.saved_at, self.position = time.monotonic(), position
        self.interval = max(self.seconds, (self.saved_at - begin) / SHARE)


def save(storage: Storage, position: int, state: dict[str, Any]) -> None:
    """Writes `checkpoint-<position>.pt` (images trained, so that names sort by it) and drops all
    but the newest two.

    Those of later positions are dropped as well: they were passed over, or the trial would be
    beyond them.
    """
    saved = f"checkpoint-{position:014d}.pt"
    write(storage, saved, state)
    reached = [name for name in names(storage) if name <= saved]
    for name in names(storage):
        if name not in reached[-KEEP:]:
            storage.delete(name)


def write(storage: Storage, name: str, state: dict[str, Any]) -> None:
    """By way of memory: torch.save hides the OSError of a full disk behind an error of its own."""
    import torch  # not to look which checkpoints there are, as the driver does

    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write(name, buffer.getvalue())


def load_newest(storage: Storage) -> dict[str, Any] | None:
    """The state of the newest checkpoint that is whole, on the CPU; None if there is none."""
    states = (load(storage, name) for name in reversed(names(storage)))
    return next((state for state in states if state is not None), None)


def load(storage: Storage, name: str, most: int | None = None) -> dict[str, Any] | None:
    """The state in a file that torch.save wrote, on the CPU; None if it is missing or corrupt.

    most: bytes, above which it raises DamagedFile."""
    content = storage.read(name, most)
    if content is None:
        return None
    try:
        return load_bytes(content)
    except (
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        log.warning("passing over the corrupt file %s: %s", storage.path(name), error)
        return None


def load_bytes(content: bytes) -> dict[str, Any]:
    """State from the bytes of a checkpoint, its checksums verified. Raises BadZipFile if it is
    truncated or damaged."""
    import torch

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():  # torch.load believes these, and no checksum covers them
            if entry.compress_type or entry.external_attr or entry.file_size != entry.compress_size:
                raise zipfile.BadZipFile(f"{entry.filename} is not as torch.save writes it")
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"checksum of {damaged} is wrong")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def names(storage: Storage) -> list[str]:
    return [
        name for name in storage.list() if name.startswith("checkpoint-") and name.endswith(".pt")
    ]


def delete_all(storage: Storage, but: int = 0) -> None:
    """All but the newest few."""
    found = names(storage)
    for name in found[: len(found) - but]:
        storage.delete(name)

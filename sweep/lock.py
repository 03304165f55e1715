"""One driver per sweep: a lock with a lease, on the sweep's own storage, so that it works on any cluster."""

import logging
import os
import platform
import threading
import time
from types import TracebackType
from typing import Any
from uuid import uuid4

import psutil

from trainables.errors import UserError
from trainables.storage import Storage

log = logging.getLogger(__name__)

LOCK = "lock.json"
LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0


def holder_of(storage: Storage) -> dict[str, Any] | None:
    """Who runs the sweep now (`host`, `pid`, `renewed`, …); None if nobody does, or whoever did is dead."""
    holder: dict[str, Any] | None = storage.read_json(LOCK)
    return None if holder is None or _is_dead(holder) else holder


class Lock:
    """Held inside a `with` block. Raises UserError, saying who holds it, if somebody else does.

    A holder on this machine whose process is gone, or one elsewhere that has not renewed its lease for a minute, is dead:
    its sweep is taken over.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.me: dict[str, Any] = {
            "token": uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        if (holder := holder_of(self.storage)) is not None:
            raise UserError(
                f"{self.storage.url} is being run by process {holder['pid']} on {holder['host']}; "
                f"wait for it, or end it and run this command again"
            )
        self._renew()
        time.sleep(0.2)  # of two that found it free, the later writer has it
        if not self.is_mine():
            raise UserError(f"{self.storage.url} has just been taken by another process; wait for it")
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self._thread.join()
        if self.is_mine():
            self.storage.delete(LOCK)

    def is_mine(self) -> bool:
        holder = self.storage.read_json(LOCK)
        return holder is not None and holder["token"] == self.me["token"]

    def _renew(self) -> None:
        self.storage.write_json(LOCK, {**self.me, "renewed": time.time()})

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                self._renew()
            except OSError as error:
                log.warning("the lease could not be renewed, and is tried again: %s", error)


def _is_dead(holder: dict[str, Any]) -> bool:
    if holder["host"] != platform.node():
        return bool(time.time() - holder["renewed"] > LEASE_SECONDS)
    try:
        return bool(abs(psutil.Process(holder["pid"]).create_time() - holder["started"]) > 1)
    except psutil.NoSuchProcess:
        return True

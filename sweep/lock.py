"""One driver per sweep: a lock with a lease, on the sweep's own storage, so that it works on any cluster.

Whoever wants the sweep first writes a claim of its own (`lock-<token>.json`) and then reads all others: of two at once at
least one sees the other and withdraws, whatever the storage's speed, so that no file ever has two writers. A claim names the
dead ones that it replaces; a driver that was suspended for longer than its lease finds itself among them and ends.
"""

import logging
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any
from uuid import uuid4

import psutil

from trainables.errors import UserError
from trainables.storage import Storage

log = logging.getLogger(__name__)

LOCK = "lock-"  # begins the name of every claim
LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
ATTEMPTS = 4  # of those that want the sweep in the same moment

Claim = dict[str, Any]  # token, host, pid, started, renewed, replaces


def claims(storage: Storage) -> list[Claim]:
    """Every claim that no other one replaces."""
    return _unreplaced(_all_claims(storage))


def _unreplaced(written: list[Claim]) -> list[Claim]:
    replaced = {token for claim in written for token in claim["replaces"]}
    return [claim for claim in written if claim["token"] not in replaced]


def _all_claims(storage: Storage) -> list[Claim]:
    found = [storage.read_json(name) for name in storage.list() if name.startswith(LOCK)]
    return [claim for claim in found if claim is not None]  # one that was listed may be gone


def holder_of(storage: Storage) -> Claim | None:
    """Who runs the sweep now (`host`, `pid`, `renewed`, …); None if nobody does, or whoever did is dead."""
    return next((claim for claim in claims(storage) if not _is_dead(claim)), None)


def _leave() -> None:
    """Nothing more may be written, by this process or by its trials, so no clean-up either."""
    os._exit(1)


class Lock:
    """Held inside a `with` block. Raises UserError, saying who holds it, if somebody else does.

    A holder on this machine whose process is gone, or one elsewhere that has not renewed its lease for a minute, is dead: its
    sweep is taken over. `patience`: how many seconds to wait for that, unless the holder is seen to renew.
    """

    def __init__(self, storage: Storage, patience: float = 0.0, lost: Callable[[], None] = _leave) -> None:
        self.storage, self.patience, self.lost = storage, patience, lost
        self.me: Claim = {
            "token": uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": _started(psutil.Process()),
            "replaces": [],
        }
        self.file = f"{LOCK}{self.me['token']}.json"
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        for _ in range(ATTEMPTS):
            self._refuse_if_held()
            written = _all_claims(self.storage)
            if all(_is_dead(claim) for claim in _unreplaced(written)):  # else somebody came since
                self.me["replaces"] = [claim["token"] for claim in written]  # dead, or replaced by dead ones
                self._claim()
                if self.is_mine() and all(_is_dead(claim) for claim in self._others()):
                    self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
                    self._thread.start()
                    return self
                self.storage.delete(self.file)
            time.sleep(random.uniform(0.1, 1.0))
        raise UserError(f"{self.storage.shown} is wanted by several processes at once; run this command again")

    def _claim(self) -> None:
        try:
            self._renew()
        except OSError as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"storage: {self.storage.shown} can't be written ({reason})") from error

    def _refuse_if_held(self) -> None:
        first, begin = holder_of(self.storage), time.monotonic()
        while (holder := holder_of(self.storage)) is not None:
            is_alive = first is None or holder["renewed"] != first["renewed"] or holder["host"] == platform.node()
            if is_alive or time.monotonic() - begin > self.patience:
                raise UserError(
                    f"{self.storage.shown} is being run by process {holder['pid']} on {holder['host']}; "
                    f"wait for it, or end it and run this command again"
                )
            time.sleep(1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self._thread.join()
        for token in (*self.me["replaces"], self.me["token"]):  # the own one last: it keeps those before it out
            self.storage.delete(f"{LOCK}{token}.json")

    def is_mine(self) -> bool:
        return any(claim["token"] == self.me["token"] for claim in claims(self.storage))

    def _others(self) -> list[Claim]:
        return [claim for claim in claims(self.storage) if claim["token"] != self.me["token"]]

    def _renew(self) -> None:
        self.storage.write_json(self.file, {**self.me, "renewed": time.time()})

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                if not self.is_mine():
                    print(
                        f"emm: {self.storage.shown} was taken over by another driver; leaving it", file=sys.stderr, flush=True
                    )
                    self.lost()
                    return
                self._renew()
            except OSError as error:
                log.warning("the lease could not be renewed, and is tried again: %s", error)


def _is_dead(claim: Claim) -> bool:
    if claim["host"] != platform.node():
        return bool(time.time() - claim["renewed"] > LEASE_SECONDS)
    try:
        process = psutil.Process(claim["pid"])
        is_killed = process.status() == psutil.STATUS_ZOMBIE  # and its parent does not care
        return is_killed or bool(abs(_started(process) - claim["started"]) > 1)
    except psutil.NoSuchProcess:
        return True


def _started(process: psutil.Process) -> float:
    """Seconds from the start of the machine: what psutil says in seconds since the epoch moves when the clock is set."""
    return float(process.create_time() - psutil.boot_time())

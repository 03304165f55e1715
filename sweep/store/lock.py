"""One driver per sweep: a lock with a lease, on the sweep's own storage, so that it works on any
cluster.

A *claim* is a file that its driver alone writes, again every RENEW_SECONDS. Nobody compares clocks:
a driver is taken for dead when its claim has not changed while somebody else looked at it for
LEASE_SECONDS of their own clock. One exception: on the same boot of the same machine and in the
same PID namespace, a process that is gone is dead at once, and one that is there is not dead. A
claim that is seen to change is alive, whatever else speaks against it.

* Who wants the sweep looks until every claim is dead, writes a claim that names the dead ones as
  replaced, and looks again: if somebody else came meanwhile, it withdraws. In a directory claims
  are numbered and created exclusively, so that of two who saw the same only one has the next
  number. Object stores have nothing like it that pyarrow offers.
* Who holds the sweep looks before every renewal. It leaves if its claim was replaced, or removed,
  or if another one that it did not replace is seen to be renewed and comes before its own (by time
  of entry, then token).

What follows, where each step is seen by the next reader: never two at once, but for one who was
suspended for a lease and replaced: it ends within RENEW_SECONDS of waking up, before it renews.
Where listings and reads are late by up to half a lease (NFS, some object stores), two may enter,
and then run side by side for at most that delay and four renewals: one of them stays. A missed
renewal loses nothing. A driver that died elsewhere costs the next one a lease of waiting.
"""

import logging
import os
import platform
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psutil

from trainables.errors import UserError
from trainables.storage import Storage
from trainables.text import first_line

log = logging.getLogger(__name__)

LOCK = "lock-"  # begins the name of every claim
LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0  # between two looks of who waits
ATTEMPTS = 8  # of those that want the sweep in the same moment

# FIELDS and, unless it is of an older version, `entered`, `machine`, `started`; `file`: its name
Claim = dict[str, Any]
FIELDS: dict[str, Any] = {
    "token": str,
    "host": str,
    "pid": int,
    "renewed": (int, float),
    "replaces": list,
}
UNKNOWN: Claim = {"host": "?", "pid": 0, "renewed": 0.0, "replaces": []}


class Clock(Protocol):
    """The module `time`, or one that runs faster."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


def _all_claims(storage: Storage) -> list[Claim]:
    found = [_read(storage, name) for name in storage.list() if name.startswith(LOCK)]
    return [claim for claim in found if claim is not None]  # one that was listed may be gone


def _read(storage: Storage, name: str) -> Claim | None:
    """A claim; one that can't be read (it was just created, or is damaged) is somebody's, who may
    be alive."""
    try:
        content = storage.read_json(name)
    except (ValueError, UserError):
        content = {}
    if content is None:
        return None
    is_whole = isinstance(content, dict) and all(
        isinstance(content.get(key), kind) for key, kind in FIELDS.items()
    )
    return {**(content if is_whole else {**UNKNOWN, "token": name}), "file": name}


def _unreplaced(written: list[Claim]) -> list[Claim]:
    replaced = {token for claim in written for token in claim["replaces"]}
    return [claim for claim in written if claim["token"] not in replaced]


def holder_of(storage: Storage) -> Claim | None:
    """Who seems to run the sweep (`host`, `pid`, `renewed`, …), at one look; None if nobody does.

    Of a driver elsewhere this compares clocks, which is good enough to be shown, and to leave alone
    what it may be using.
    """
    for claim in _unreplaced(_all_claims(storage)):
        is_here = _lives_here(claim)
        if is_here or (is_here is None and time.time() - claim["renewed"] < LEASE_SECONDS):
            return claim
    return None


class Watch:
    """Looks at the claims of a sweep again and again, and knows which of them it saw change."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self.storage, self.clock = storage, clock
        # by token: as it is, and since when on our clock
        self.seen: dict[str, tuple[Claim, float]] = {}
        self.renewing: set[str] = set()  # tokens of those that were seen to change

    def look(self) -> list[Claim]:
        """All claims."""
        written, now = _all_claims(self.storage), self.clock.monotonic()
        for claim in written:
            former, _ = self.seen.get(claim["token"], (None, now))
            if former != claim:
                self.seen[claim["token"]] = claim, now
                if former is not None:
                    self.renewing.add(claim["token"])
        return written

    def is_dead(self, claim: Claim) -> bool:
        """Of a claim of the last look."""
        is_here = _lives_here(claim)
        if is_here is False and claim["token"] not in self.renewing:
            return True
        _, since = self.seen[claim["token"]]
        return not is_here and self.clock.monotonic() - since > LEASE_SECONDS

    def is_sure(self, claim: Claim) -> bool:
        """Whether a claim that is not dead is known to be alive."""
        return claim["token"] in self.renewing or bool(_lives_here(claim))


def _leave() -> None:
    """Nothing more may be written, by this process or by its trials, so no clean-up either."""
    os._exit(1)


class Lock:
    """Held inside a `with` block. Raises UserError, saying who holds it, if somebody else does.

    Waits, up to a lease, for a claim of which it can't be known at once whether its driver lives.
    `lost` is called, from another thread, when the sweep is somebody else's. `tell` is given a line
    when it waits, and when it leaves.
    """

    def __init__(
        self,
        storage: Storage,
        lost: Callable[[], None] = _leave,
        clock: Clock = time,
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        self.storage, self.lost, self.clock, self.tell = storage, lost, clock, tell
        self.watch = Watch(storage, clock)
        self.me: Claim = {
            "host": platform.node(),
            "pid": os.getpid(),
            "machine": _machine(),
            "started": _started(psutil.Process()),
        }
        self.replaced: list[Claim] = []
        self._released = threading.Event()

    def __enter__(self) -> "Lock":
        for pause in self.entering():
            time.sleep(pause)
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()
        return self

    def entering(self) -> Iterator[float]:
        """The way to the lock, step by step: gives the seconds to wait before the next one. Raises
        UserError."""
        for _ in range(ATTEMPTS):
            yield from self._until_all_are_dead()
            if self._claim():
                if all(map(self.watch.is_dead, self._others(self.watch.look()))):
                    return
                self.storage.delete(self.file)
            yield random.uniform(0.1, 1.0)
        raise UserError(
            f"{self.storage.shown} is wanted by several processes at once; run this command again"
        )

    def _until_all_are_dead(self) -> Iterator[float]:
        is_told = False
        while True:
            self.replaced = self.watch.look()
            alive = [claim for claim in _unreplaced(self.replaced) if not self.watch.is_dead(claim)]
            if not alive:
                return
            who = f"process {alive[0]['pid']} on {alive[0]['host']}"
            if any(map(self.watch.is_sure, alive)):
                raise UserError(
                    f"{self.storage.shown} is being run by {who}; wait for it, or end it and run "
                    "this command again"
                )
            if not is_told:
                still = f"to see whether {who} still runs the sweep"
                self.tell(f"waiting, up to {LEASE_SECONDS:g} s, {still}")
                is_told = True
            yield LOOK_SECONDS

    def _claim(self) -> bool:
        """Writes a claim in place of those that are dead; whether nobody else has just written
        it."""
        self.me |= {
            "token": uuid4().hex,
            "entered": self.clock.time(),
            # dead, or replaced by dead ones
            "replaces": [claim["token"] for claim in self.replaced],
        }
        numbers = [
            int(found[1])
            for claim in self.replaced
            if (found := re.search(r"-(\d{1,9})\.json$", claim["file"]))
        ]
        number = max(numbers, default=0) + 1
        self.file = f"{LOCK}{number if self.storage.is_local else self.me['token']}.json"
        try:
            if self.storage.is_local and not self.storage.reserve(self.file):
                return False
            self._renew()
        except OSError as error:
            with suppress(OSError):  # an empty claim would be waited for
                self.storage.delete(self.file)
            reason = first_line(error)
            raise UserError(f"storage: {self.storage.shown} can't be written ({reason})") from error
        self.created = self.clock.monotonic()
        return True

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        self.release()

    def release(self) -> None:
        for claim in self.replaced:
            self.storage.delete(claim["file"])
        self.storage.delete(self.file)  # the last one: it keeps those before it out

    def _others(self, written: list[Claim]) -> list[Claim]:
        """Claims that neither this one nor another one replaces."""
        return [
            claim
            for claim in _unreplaced([*written, self.me])
            if claim["token"] != self.me["token"]
        ]

    def _renew(self) -> None:
        self.storage.write_json(self.file, {**self.me, "renewed": self.clock.time()})

    def trouble(self) -> str | None:
        """Why whoever holds the lock must leave, by what the storage says now; None if it may
        stay."""
        written, token = self.watch.look(), self.me["token"]
        mine = next((claim for claim in written if claim["file"] == self.file), None) or _read(
            self.storage, self.file
        )
        if any(token in claim["replaces"] for claim in written) or (
            mine and mine["token"] != token
        ):
            return "was taken over by another driver"
        is_new = self.clock.monotonic() - self.created <= LEASE_SECONDS  # a listing may be late
        if mine is None and not is_new:
            return "has lost its lock"
        for other in self._others(written):
            is_alive = other["token"] in self.watch.renewing and not self.watch.is_dead(other)
            if is_alive and _rank(other) < _rank(self.me):
                self.storage.delete(self.file)  # so that nobody waits for it
                return (
                    f"is run by process {other['pid']} on {other['host']} as well, which came "
                    "before"
                )
        return None

    def renew(self) -> bool:
        """Looks and renews the lease; False if the sweep is somebody else's. A storage that fails
        is no reason to leave."""
        try:
            trouble = self.trouble()
            if trouble is not None:
                self.tell(f"emm: {self.storage.shown} {trouble}; leaving it")
                return False
            self._renew()
        except OSError as error:
            log.warning("the lease could not be renewed, and is tried again: %s", error)
        return True

    def _keep(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            if not self.renew():
                self.lost()
                return


def _rank(claim: Claim) -> tuple[float, str]:
    """The same for everybody who reads the claim, whatever their clocks say."""
    return claim.get("entered", 0.0), claim["token"]


def _machine() -> str | None:
    """This boot of this machine and this PID namespace, in which alone a pid means a process; None
    where it can't be known.

    Containers share the kernel and may share the name of the host; clones of a virtual machine
    share the rest.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # a /proc of another namespace
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino} {platform.node()}"
    except OSError:
        return None


def _lives_here(claim: Claim) -> bool | None:
    """Whether the process behind a claim is there; None if this process can't know."""
    if claim.get("machine") is None or claim["machine"] != _machine():
        return None
    try:
        process = psutil.Process(claim["pid"])
        is_killed = process.status() == psutil.STATUS_ZOMBIE  # and its parent does not care
        return not is_killed and abs(_started(process) - claim["started"]) <= 1
    except psutil.NoSuchProcess:
        is_hidden = psutil.pid_exists(claim["pid"])  # /proc may hide processes of other users
        return None if is_hidden else False
    except (psutil.AccessDenied, ValueError, TypeError, KeyError, OverflowError):
        return None


def _started(process: psutil.Process) -> float:
    """Seconds from the start of the machine: what psutil says in seconds since the epoch moves when
    the clock is set."""
    return float(process.create_time() - psutil.boot_time())

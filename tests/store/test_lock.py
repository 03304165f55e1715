"""One driver per sweep: on a directory and on a store without rename, against the dead, the
suspended and the simultaneous; and, simulated, where clocks differ and listings are late."""

import heapq
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from sweep.store import lock as module
from sweep.store.lock import LEASE_SECONDS, LOCK, RENEW_SECONDS, Lock, holder_of
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from sweep.store import lock
from trainables.storage import Storage
lock.RENEW_SECONDS = 0.3
with lock.Lock(Storage(sys.argv[1])):
    print("held", flush=True)
    for i in range(600):
        time.sleep(0.1)
        if sys.argv[2:] == ["die"]: import os; os._exit(9)
"""


def hold(directory, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def files(directory):
    return list(Path(directory).glob(f"{LOCK}*"))


def claim(token, renewed, replaces=(), host="elsewhere"):
    return {
        "token": token,
        "host": host,
        "pid": 1,
        "started": 0.0,
        "renewed": renewed,
        "replaces": list(replaces),
    }


def write(storage, content):
    storage.write_json(f"{LOCK}{content['token']}.json", content)


def test_a_second_driver_is_told_who_holds_the_sweep(tmp_path):
    storage = Storage(str(tmp_path))
    with Lock(storage):
        second = hold(tmp_path)
        assert f"process {os.getpid()} on {platform.node()}" in second.communicate(timeout=50)[1]
        assert len(files(tmp_path)) == 1, "who is refused leaves nothing"
    assert not files(tmp_path)


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    hold(tmp_path, "die").communicate(timeout=50)
    assert len(files(tmp_path)) == 1
    with Lock(Storage(str(tmp_path))) as lock:
        assert lock.trouble() is None
    assert not files(tmp_path), "the dead one's claim goes with the lock"


def test_the_own_claim_goes_last(tmp_path):
    """While a claim that it replaced is there, so is the own one, by which its driver, should it
    wake up, sees that it was replaced."""

    class Seen(Storage):
        def delete(self, name):
            super().delete(name)
            left.append({path.name for path in files(tmp_path)})

    left = []
    write(Storage(str(tmp_path)), claim("suspended", 0.0))
    lock = Lock(Seen(str(tmp_path)))
    lock.replaced = lock.watch.look()
    assert lock._claim()
    lock.release()
    assert left == [{lock.file}, set()]


def test_a_killed_process_that_nobody_has_waited_for_is_dead(tmp_path):
    holder = hold(tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    with Lock(Storage(str(tmp_path))) as lock:
        assert lock.trouble() is None
    holder.communicate()


def test_a_clock_that_is_set_kills_nobody(tmp_path, monkeypatch):
    """Linux counts from the start of the machine; psutil adds the present idea of when that was."""
    with Lock(Storage(str(tmp_path))):
        boot = psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)
        monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
        assert holder_of(Storage(str(tmp_path)))["pid"] == os.getpid()


def renewing(storage, content, seconds=0.2):
    """A thread that renews a claim, until its event is set."""
    done = threading.Event()

    def renew():
        while not done.wait(seconds):
            write(storage, {**content, "renewed": time.time()})

    write(storage, content)
    threading.Thread(target=renew, daemon=True).start()
    return done


def test_a_process_of_another_pid_namespace_is_not_looked_up_in_this_one(tmp_path, monkeypatch):
    """Containers may have the host's name, and the same pids for other processes, or none that this
    one sees."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    nobody = subprocess.Popen(["true"])
    nobody.wait()
    storage, mine = Storage(str(tmp_path)), module._machine()
    assert mine is None or mine.startswith(
        Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    )
    for machine in (None, f"{mine} of another"):
        theirs = claim("x", time.time(), host=platform.node()) | {
            "pid": nobody.pid,
            "machine": machine,
        }
        write(storage, theirs)
        assert holder_of(storage)["token"] == "x"
        done = renewing(storage, theirs)
        with (
            pytest.raises(UserError, match=f"process {nobody.pid} on {platform.node()}"),
            Lock(storage),
        ):
            pass
        done.set()


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_elsewhere_a_claim_is_dead_when_it_was_not_renewed_for_a_lease_of_ones_own_clock(
    tmp_path, monkeypatch, ahead
):
    monkeypatch.setattr(module, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    storage = Storage(str(tmp_path))
    write(storage, claim("x", time.time() + ahead))
    begin, told = time.monotonic(), list[str]()
    with Lock(storage, tell=told.append) as lock:
        assert lock.trouble() is None
        assert time.monotonic() - begin > 1.0
    (line,) = told
    assert line.startswith("waiting, up to 1 s, to see whether process 1 on elsewhere still runs")
    assert not files(tmp_path)


def test_who_cannot_write_a_claim_leaves_none(tmp_path, monkeypatch):
    """On a full disk there is room for its name alone, which the next one would wait for."""

    def full(*_):
        raise OSError(28, "No space left on device")

    storage = Storage(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(Storage, "write_json", full)
        with pytest.raises(UserError, match=r"can't be written .*No space left"):
            next(Lock(storage).entering())
    assert not files(tmp_path)


def test_what_is_no_claim_is_taken_for_one_that_may_be_alive(tmp_path, monkeypatch):
    """It was created just now, or is damaged, or somebody else's."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    for number, content in enumerate(
        (b"", b"[]", b'{"token": 1}', b'{"token": "x", "renewed": "soon"}')
    ):
        (tmp_path / f"{LOCK}{number}.json").write_bytes(content)
    assert holder_of(Storage(str(tmp_path))) is None
    begin = time.monotonic()
    with Lock(Storage(str(tmp_path))):
        assert time.monotonic() - begin > 0.5
    assert not files(tmp_path)


@pytest.mark.parametrize("where", ["directory", "store"])
def test_of_many_at_once_at_most_one_has_it(tmp_path, where, monkeypatch):
    """Threads stand for hosts, of which this one can't know whether they live."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    storage = Storage(str(tmp_path) if where == "directory" else "mock:///bucket/sweep")
    inside, most, had = 0, 0, []
    guard, start = threading.Lock(), threading.Barrier(6)

    def contend(number):
        nonlocal inside, most
        one = Lock(storage)
        one.me |= {"host": f"host{number}", "machine": None}
        start.wait()
        try:
            with one:
                with guard:
                    inside += 1
                    most = max(most, inside)
                had.append(number)
                time.sleep(0.2)
                with guard:
                    inside -= 1
        except UserError:
            pass

    threads = [threading.Thread(target=contend, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 1
    assert had, "and somebody has it"
    assert holder_of(storage) is None


def test_who_comes_between_two_looks_is_seen(tmp_path, monkeypatch):
    """Nobody holds it at the first look; before the second, somebody elsewhere has claimed it."""
    storage, claimed = Storage(str(tmp_path)), Lock._claim

    def somebody_is_faster(lock):
        write(storage, claim("x", time.time()))
        return claimed(lock)

    monkeypatch.setattr(Lock, "_claim", somebody_is_faster)
    next(Lock(storage).entering())
    assert [path.name for path in files(tmp_path)] == [f"{LOCK}x.json"], "it has withdrawn"


def test_a_suspended_driver_that_lost_its_lease_ends_and_writes_nothing(tmp_path):
    driver = hold(tmp_path)
    assert driver.stdout.readline() == "held\n"
    (mine,) = files(tmp_path)
    driver.send_signal(signal.SIGSTOP)
    token = json.loads(mine.read_text())["token"]
    write(
        Storage(str(tmp_path)), claim("taker", time.time(), [token])
    )  # by another host, after the lease
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    driver.send_signal(signal.SIGCONT)
    assert "taken over by another driver" in driver.communicate(timeout=10)[1]
    assert driver.returncode == 1
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path)} == before
    assert holder_of(Storage(str(tmp_path)))["token"] == "taker"


# ---------------------------------------------------------------- claims of this machine


def of_here(token, renewed=0.0, **more):
    """A claim of this very process, unless `more` says otherwise."""
    mine = {"machine": module._machine(), "pid": os.getpid(), "host": platform.node()}
    return claim(token, renewed) | mine | {"started": module._started(psutil.Process())} | more


def nobody():
    """The pid of a process that has ended."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize("later", [-50.0, 50.0])
def test_another_process_with_the_pid_of_a_dead_driver_does_not_keep_its_sweep(tmp_path, later):
    storage, started = Storage(str(tmp_path)), module._started(psutil.Process())
    write(storage, of_here("x", time.time(), started=started + later))
    assert holder_of(storage) is None
    with Lock(storage, tell=pytest.fail):
        assert holder_of(storage)["pid"] == os.getpid()
    write(storage, of_here("x", time.time(), started=started + later / 100))
    assert holder_of(storage)["token"] == "x", "what is rounded is the same"


def test_a_claim_that_is_seen_to_change_is_alive_whatever_else_speaks_against_it(tmp_path):
    storage, pid = Storage(str(tmp_path)), nobody()
    watch = module.Watch(storage, time)
    write(storage, of_here("x", 1.0, pid=pid))
    (before,) = watch.look()
    assert watch.is_dead(before)
    write(storage, of_here("x", 2.0, pid=pid))
    (after,) = watch.look()
    assert not watch.is_dead(after)


def test_a_process_that_may_be_hidden_from_this_user_is_not_known_to_be_dead(tmp_path, monkeypatch):
    storage, pid = Storage(str(tmp_path)), nobody()
    write(storage, of_here("x", time.time(), pid=pid))
    assert holder_of(storage) is None
    monkeypatch.setattr(psutil, "pid_exists", lambda number: number == pid)
    assert holder_of(storage)["token"] == "x"


@pytest.mark.parametrize(
    ("age", "is_held"), [(LEASE_SECONDS - 5, True), (LEASE_SECONDS + 5, False)]
)
def test_elsewhere_a_sweep_seems_to_be_held_for_a_lease(tmp_path, age, is_held):
    storage = Storage(str(tmp_path))
    write(storage, claim("x", time.time() - age))
    assert (holder_of(storage) is not None) is is_held


def test_every_dead_claim_is_replaced_and_the_numbers_go_on(tmp_path):
    """Whichever of their drivers wakes up sees that it has lost the sweep."""
    storage, pid = Storage(str(tmp_path)), nobody()
    for number, token in ((2, "a"), (7, "b")):
        storage.write_json(f"{LOCK}{number}.json", of_here(token, pid=pid))
    with Lock(storage):
        assert sorted(storage.read_json(f"{LOCK}8.json")["replaces"]) == ["a", "b"]
    assert not files(tmp_path)


def test_who_leaves_to_one_that_came_before_takes_its_claim_along(tmp_path):
    """So that nobody waits for it; one that came later is no reason to leave."""
    storage = Storage(str(tmp_path))
    lock = Lock(storage)
    lock.replaced = lock.watch.look()
    assert lock._claim()
    for entered, trouble in ((3e9, False), (1.0, True)):
        for renewed in (1.0, 2.0):
            write(storage, claim("x", renewed) | {"entered": entered})
            said = lock.trouble()
        assert bool(said) is trouble
        assert storage.exists(lock.file) is not trouble
    assert "is run by process 1 on elsewhere as well, which came before" in said


# ---------------------------------------------------------------- late listings, other clocks


class Late(Storage):
    """Files of which each look, at a list or a content, sees some moment of the last `lag` seconds
    of a simulation."""

    def __init__(self, world):
        super().__init__("/nowhere" if world.is_exclusive else "memory://nowhere")
        self.world = world

    def _at(self, name, moment):
        return next(
            (content for at, content in reversed(self.world.files.get(name, [])) if at <= moment),
            None,
        )

    def _moment(self):
        return self.world.now - self.world.random.uniform(0, self.world.lag)

    def list(self, directory=""):
        moment = self._moment()
        return sorted(name for name in self.world.files if self._at(name, moment) is not None)

    def read_json(self, name):
        text = self._at(name, self._moment())
        return None if text is None else json.loads(text)

    def write_json(self, name, value, mode=0):
        if self.world.failing():
            raise OSError("the storage is away")
        self.world.files.setdefault(name, []).append((self.world.now, json.dumps(value)))

    def reserve(self, name):
        if self._at(name, self.world.now) is not None:
            return False
        self.write_json(name, {})
        return True

    def delete(self, name):
        self.world.files.setdefault(name, []).append((self.world.now, None))


@dataclass
class SkewedClock:
    world: object
    ahead: float

    def monotonic(self):
        return self.world.now + 1000 * self.ahead

    def time(self):
        return self.world.now + self.ahead


class World:
    """Drivers on hosts of their own, one event after the other."""

    def __init__(self, lag, is_exclusive=False, seed=0):
        self.lag, self.is_exclusive, self.random = lag, is_exclusive, random.Random(seed)
        random.seed(seed)
        self.now, self.files, self.events, self.count = 0.0, {}, [], itertools.count()
        self.inside, self.refused, self.history = set(), {}, []
        self.failing = lambda: False

    def start(self, name, at, ahead=0.0, until=1e9):
        heapq.heappush(self.events, (at, next(self.count), self._driver(name, ahead, until)))

    def _driver(self, name, ahead, until):
        lock = Lock(Late(self), clock=SkewedClock(self, ahead))
        lock.me |= {"host": name, "machine": name}
        try:
            yield from lock.entering()
        except UserError as error:
            self.refused[name] = str(error)
            return
        self._is_inside(name, True)
        while self.now < until:  # then it dies
            yield RENEW_SECONDS
            if self.now < until and not lock.renew():
                break
        self._is_inside(name, False)

    def _is_inside(self, name, now):
        (self.inside.add if now else self.inside.discard)(name)
        self.history.append((self.now, len(self.inside)))

    def run(self, until):
        while self.events[0][0] < until:
            self.now, _, driver = heapq.heappop(self.events)
            pause = next(driver, None)
            if pause is not None:
                heapq.heappush(self.events, (self.now + pause + 0.01, next(self.count), driver))
            if not self.events:
                break
        self.now = until

    def beside_each_other(self):
        """Seconds from the first moment with two drivers to the last one."""
        times = [
            (begin, end)
            for (begin, n), (end, _) in itertools.pairwise([*self.history, (self.now, 0)])
            if n > 1
        ]
        return times[-1][1] - times[0][0] if times else 0.0


@pytest.mark.parametrize("is_exclusive", [False, True])
@pytest.mark.parametrize("lag", [0.0, 5.0, 25.0])
def test_of_drivers_that_do_not_see_each_other_one_stays(lag, is_exclusive):
    """Some minutes of them, with clocks that are hours apart."""
    for seed in range(20):
        world = World(lag, is_exclusive, seed)
        for number in range(3):
            world.start(
                f"host{number}",
                at=world.random.uniform(0, 2),
                ahead=world.random.choice([-7200, -61, 0, 61, 7200]),
            )
        world.run(until=400)
        assert len(world.inside) == 1, (seed, world.history, world.refused)
        assert world.beside_each_other() <= (lag + 4 * RENEW_SECONDS + 1 if lag else 0), (
            seed,
            world.history,
        )
        if is_exclusive:
            assert world.beside_each_other() == 0


@pytest.mark.parametrize("ahead", [-7200, 61, 7200])
def test_a_holder_that_renews_is_never_taken_over_and_a_dead_one_is(ahead):
    for seed in range(10):
        world = World(25.0, seed=seed)
        world.start("first", at=0, until=500)
        for at in (40, 100, 333):
            world.start(f"other at {at}", at=at, ahead=ahead)
        world.run(until=499)
        assert world.inside == {"first"}
        assert {text.partition("; ")[0] for text in world.refused.values()} == {
            f"memory://nowhere is being run by process {os.getpid()} on first"
        }
        world.start("next", at=520, ahead=ahead)
        world.run(until=520 + LEASE_SECONDS + 25 + 5)
        assert world.inside == {"next"}


def test_a_missed_renewal_loses_nothing():
    """The storage fails for three of them, which is a large part of a lease; somebody waits for it
    all the while."""
    world = World(0.0)
    world.start("first", at=0)
    world.run(until=95)
    world.failing = lambda: world.inside == {"first"} and 95 < world.now < 129
    world.start("other", at=96)
    world.run(until=300)
    assert world.inside == {"first"}
    assert "is being run by" in world.refused["other"]


def test_a_holder_whose_claim_was_removed_by_hand_comes_back_or_leaves():
    world = World(0.0)
    world.start("first", at=0)
    world.run(until=15)
    world.files.clear()
    world.start("other", at=16)
    world.run(until=100)
    assert world.inside == {"first"}, (
        "young: a late listing may lack a claim; and it was there before the other"
    )
    world.files.clear()
    world.run(until=115)
    assert world.inside == set()

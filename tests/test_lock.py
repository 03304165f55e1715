"""One driver per sweep: on a directory and on a store without rename, against the dead, the suspended and the simultaneous."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from sweep import lock as module
from sweep.lock import LEASE_SECONDS, LOCK, Lock, holder_of
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from sweep import lock
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
    return {"token": token, "host": host, "pid": 1, "started": 0.0, "renewed": renewed, "replaces": list(replaces)}


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
        assert lock.is_mine()
    assert not files(tmp_path), "the dead one's claim goes with the lock"


def test_a_killed_process_that_nobody_has_waited_for_is_dead(tmp_path):
    holder = hold(tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    with Lock(Storage(str(tmp_path))) as lock:
        assert lock.is_mine()
    holder.communicate()


def test_a_clock_that_is_set_kills_nobody(tmp_path, monkeypatch):
    """Linux counts from the start of the machine; psutil adds the present idea of when that was."""
    with Lock(Storage(str(tmp_path))):
        boot = psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot + 3600)
        monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
        assert holder_of(Storage(str(tmp_path)))["pid"] == os.getpid()


@pytest.mark.parametrize(("age", "is_held"), [(1.0, True), (LEASE_SECONDS + 1, False)])
def test_elsewhere_a_lease_counts(tmp_path, age, is_held):
    storage = Storage(str(tmp_path))
    write(storage, claim("x", time.time() - age))
    if is_held:
        with pytest.raises(UserError, match="on elsewhere"), Lock(storage):
            pass
        assert len(files(tmp_path)) == 1
    else:
        with Lock(storage) as lock:
            assert lock.is_mine()


def test_patience_outlasts_the_lease_of_a_lost_node_but_not_a_driver_that_renews(tmp_path):
    storage = Storage(str(tmp_path))
    write(storage, claim("x", time.time() - LEASE_SECONDS + 2))
    with Lock(storage, patience=30) as lock:
        assert lock.is_mine()
    write(storage, claim("y", time.time()))
    renewal = threading.Timer(1.0, lambda: write(storage, claim("y", time.time())))
    renewal.start()
    begin = time.monotonic()
    with pytest.raises(UserError, match="on elsewhere"), Lock(storage, patience=30):
        pass
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("where", ["directory", "store"])
def test_of_many_at_once_at_most_one_has_it(tmp_path, where, monkeypatch):
    """Threads stand for hosts: each claims under another name and process, alive as long as its lease."""
    monkeypatch.setattr(module, "ATTEMPTS", 8)
    storage = Storage(str(tmp_path) if where == "directory" else "mock:///bucket/sweep")
    inside, most, had = 0, 0, []
    guard, start = threading.Lock(), threading.Barrier(6)

    def contend(number):
        nonlocal inside, most
        one = Lock(storage)
        one.me |= {"host": f"host{number}"}
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


def test_who_comes_between_two_looks_is_not_taken_for_dead(tmp_path, monkeypatch):
    """Nobody holds it at the first look; before the second, somebody elsewhere has claimed it."""
    storage = Storage(str(tmp_path))
    refuse = Lock._refuse_if_held

    def then_somebody_comes(lock):
        refuse(lock)
        write(storage, claim("x", time.time()))

    monkeypatch.setattr(Lock, "_refuse_if_held", then_somebody_comes)
    with pytest.raises(UserError, match="on elsewhere"), Lock(storage):
        pass
    assert holder_of(storage)["token"] == "x"


def test_a_suspended_driver_that_lost_its_lease_ends_and_writes_nothing(tmp_path):
    driver = hold(tmp_path)
    assert driver.stdout.readline() == "held\n"
    (mine,) = files(tmp_path)
    driver.send_signal(signal.SIGSTOP)
    token = json.loads(mine.read_text())["token"]
    write(Storage(str(tmp_path)), claim("taker", time.time(), [token]))  # by another host, after the lease
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    driver.send_signal(signal.SIGCONT)
    assert "taken over by another driver" in driver.communicate(timeout=10)[1]
    assert driver.returncode == 1
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path)} == before
    assert holder_of(Storage(str(tmp_path)))["token"] == "taker"

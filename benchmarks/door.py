"""What a user waits for at the door: one table, of the real commands.

    python -m benchmarks.door [--only NAME …]

Wall time is what is felt, and depends on what else the machine does; CPU time (of the command and
of the processes that it waited for) depends on it less.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# nothing heavy: the memory of a command is at least that of the process that starts it

ROOT = Path(__file__).parent.parent
OLD_SWEEP = "tests/store/old_sweep"
TRIAL_SECONDS, SLOTS = 20.0, 2  # of the trials that sleep


class Row(NamedTuple):
    """A figure, and the most (or, of a share, the least) that it may be."""

    name: str
    figure: str
    limit: str


class Cost(NamedTuple):
    wall: float
    cpu: float
    megabytes: float
    began: float  # seconds since the epoch
    ended: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s (CPU {self.cpu:.2f} s), {self.megabytes:.0f} MB"


def emm(*arguments: str) -> Cost:
    """What `emm` with these arguments costs."""
    began, before = time.time(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sweep", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    wall = time.perf_counter() - before
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss / 1e3, began, time.time())


def status() -> Iterator[Row]:
    yield Row("emm status", str(emm("status", OLD_SWEEP)), "1 s, 200 MB")
    yield Row("emm report --json", str(emm("report", OLD_SWEEP, "--json")), "1 s, 200 MB")


def plan() -> Iterator[Row]:
    yield Row("emm plan digits-width", str(emm("plan", "digits-width")), "1.5 s")


def run() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        cost = emm("run", "digits-width", "--out", directory)
        starts, ends = zip(*_times(directory), strict=True)
    yield Row(
        "emm run digits-width, until the first trial", f"{min(starts) - cost.began:.1f} s", "8 s"
    )
    yield Row("from the last trial to the prompt", f"{cost.ended - max(ends):.1f} s", "3 s")
    yield Row("all of it", str(cost), "90 s")


def _times(directory: str) -> list[tuple[float, float]]:
    """When every trial that was finished started and ended, in seconds since the epoch."""
    results = Path(directory).glob("trials/*/result.json")
    return [
        (file.with_name("trial.json").stat().st_mtime, file.stat().st_mtime) for file in results
    ]


def made_up(*arguments: str) -> str:
    """What `benchmarks.made_up` prints."""
    command = [sys.executable, "-m", "benchmarks.made_up", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def report() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        made_up("write", directory, "40", "12")
        yield Row("emm report, 40 × 12 trials", str(emm("report", directory)), "15 s")
        yield Row("the same again", str(emm("report", directory)), "")


def sync() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        made_up("write", directory, "6", "5")
        yield Row("emm sync, 6 × 5 trials", str(emm("sync", directory)), "6 s")
        yield Row("the same again", str(emm("sync", directory)), "")


def space() -> Iterator[Row]:
    yield Row("100 configurations of a space, then again", made_up("space"), "once")


def driver() -> Iterator[Row]:
    yield Row("1,000 finished trials: the next N; memory", made_up("driver"), "50 ms; 1.5 GiB")


def slots() -> Iterator[Row]:
    """Trials that sleep, of TRIAL_SECONDS."""
    space = str(ROOT / "benchmarks" / "made_up.py")
    with tempfile.TemporaryDirectory() as directory:
        cost = emm("run", space, "--out", directory, "--workers", str(SLOTS))
        times = _times(directory)
    began, ended = min(start for start, _ in times), max(end for _, end in times)
    busy = sum(end - start for start, end in times) / SLOTS / (ended - began)
    what = f"{SLOTS} slots busy, {len(times)} trials of {TRIAL_SECONDS:.0f} s"
    yield Row(what, f"{busy:.1%} of {ended - began:.0f} s; in all {cost}", "95 %")


TABLE: dict[str, Callable[[], Iterator[Row]]] = {
    made.__name__: made for made in (status, plan, run, report, sync, space, driver, slots)
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=TABLE, default=list(TABLE))
    print(f"{'what':<46} {'now':<40} must")
    for name in parser.parse_args().only:
        for row in TABLE[name]():
            print(f"{row.name:<46} {row.figure:<40} {row.limit}", flush=True)


if __name__ == "__main__":
    main()

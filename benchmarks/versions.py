"""How fast a training step is in several versions of this repository.

    git worktree add ../before 220a19c
    python -m benchmarks.versions ../before . [--width 16] [--rounds 8] [--sampled]

The digits demo on a CPU, one thread. Each round begins a process for every version and lets them take steps in turn:
processes of the same code differ by some percent, for as long as they live. Imports of a version are its own, packages are
those that run this script. --sampled: after a first snapshot, whose large tensors let glibc keep freed memory from then on.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

TURNS = 6  # of all versions in a round
STEPS = 10  # of one version in a turn

WORKER = f"""
import statistics, sys, time
import torch
from search_spaces.recipes import DIGITS, DIGITS_MEASUREMENT
from trainables.config.fields import with_fields
from trainables.data.sources import load
from trainables.training.trainer import Trainer

torch.set_num_threads(1)
images = torch.as_tensor(load(DIGITS.data).images[:24])
configuration = with_fields(DIGITS, {{"network.width": int(sys.argv[1])}})
trainer = Trainer(configuration, images, 0, torch.device("cpu"))
step = DIGITS.trainer.batch / trainer.total
trainer.train_until(20 * step)
if sys.argv[2:]:
    trainer.sample(list(range(500)), DIGITS_MEASUREMENT)
for _ in sys.stdin:
    taken = []
    for _ in range({STEPS}):
        begin = time.perf_counter()
        trainer.train_until(trainer.progress + step)
        taken.append(time.perf_counter() - begin)
    print(statistics.median(taken), flush=True)
"""


def begin(version: Path, arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(version), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        cwd=version,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds_of_turn(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def of_round(versions: list[Path], arguments: list[str]) -> list[float]:
    """Seconds of a step, of each version."""
    processes = [begin(version, arguments) for version in versions]
    try:
        turns = [[seconds_of_turn(process) for process in processes] for _ in range(TURNS)]
    finally:
        for process in processes:
            process.communicate()
    return [statistics.median(turn) for turn in zip(*turns[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", type=Path)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--sampled", action="store_true")
    given = parser.parse_args()
    arguments = [str(given.width), *(["sampled"] if given.sampled else [])]
    versions = [version.resolve() for version in given.versions]
    rounds = [of_round(versions, arguments) for _ in range(given.rounds)]
    print(f"{'version':30} {'step, ms':>9} {'against the first':>18} {'standard error':>15}")
    for version, seconds in zip(given.versions, zip(*rounds, strict=True), strict=True):
        ratios = [first[0] / own for first, own in zip(rounds, seconds, strict=True)]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
        step = 1000 * statistics.mean(seconds)
        print(f"{version!s:30} {step:9.1f} {statistics.mean(ratios):18.3f} {error:15.3f}")


if __name__ == "__main__":
    main()

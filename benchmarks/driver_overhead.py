"""What the driver costs: wall time of a slot in which its trial does nothing, as seconds and as a
share of trials of 60 s.

    python -m benchmarks.driver_overhead [TRIALS]

Runs `emm run digits` on one worker with trials of some seconds. From the times of their files:
between a trial's result and the start of the next one (Tune, the search, Optuna), and inside a
trial what is not in its own steps (Tune, once a step). A trial of 60 s has more steps; its overhead
is extrapolated by their number.
"""

import math
import statistics
import subprocess
import sys
import tempfile
import time

from trainables.storage import Storage
from trainables.trial.result import RESULT, STARTED, read_result, trial_directory
from trainables.trial.trial import Pace

TRIAL_SECONDS = 60.0


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        begin = time.time()
        settings = [
            f"search.max_trials={trials}",
            "search.precision=0.02",
            "measurement.snapshots=4",
            "trainer.length=300",
        ]
        command = [
            sys.executable,
            "-m",
            "sweep",
            "run",
            "digits",
            "--out",
            directory,
            "--workers",
            "1",
            "--quiet",
        ]
        subprocess.run(
            [*command, *(part for setting in settings for part in ("--set", setting))], check=True
        )
        end, storage = time.time(), Storage(directory)
        rows = sorted(_times(storage, key) for key in storage.list("trials"))
    between = [later[0] - earlier[1] for earlier, later in zip(rows, rows[1:], strict=False)]
    inside = [ended - started - seconds for started, ended, seconds, _ in rows]
    per_step = statistics.median(
        lost / steps for lost, (_, _, _, steps) in zip(inside, rows, strict=True)
    )
    steps = statistics.median(steps for *_, steps in rows) + TRIAL_SECONDS / Pace().slice_seconds
    gap = statistics.median(between)
    print(
        f"{len(rows)} trials of {statistics.median(seconds for _, _, seconds, _ in rows):.1f} s (median)"
    )
    print(f"between two trials of a slot: median {gap:.2f} s, largest {max(between):.2f} s")
    print(f"inside a trial, beside its steps: median {per_step:.3f} s a step")
    overhead = gap + per_step * steps
    share = overhead / (TRIAL_SECONDS + overhead)
    print(
        f"a trial of {TRIAL_SECONDS:.0f} s has about {steps:.0f} steps: {overhead:.2f} s of overhead, {share:.1%} of wall time"
    )
    print(
        f"once a sweep: {rows[0][0] - begin:.0f} s until the first trial, {end - rows[-1][1]:.0f} s after the last"
    )


def _times(storage: Storage, key: str) -> tuple[float, float, float, int]:
    """Start and end (s since the epoch), seconds and number of steps of a trial."""
    directory = trial_directory(storage, key)
    started, ended = (
        directory.filesystem.get_file_info(directory.path(name)).mtime_ns / 1e9
        for name in (STARTED, RESULT)
    )
    result = read_result(directory)
    assert result is not None
    how = result.measurement
    slices = len(result.curve) * max(
        1, math.ceil(result.curve[-1].seconds / len(result.curve) / Pace().slice_seconds)
    )
    return started, ended, result.seconds, slices + math.ceil(result.n_samples / how.at_once) + 1


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)

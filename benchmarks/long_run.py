"""A real driver over a thousand trials that cost nothing: its memory, and how long it takes to ask
for the next N.

    python -m benchmarks.long_run [TRIALS]

`emm run` in this process, with Ray, Optuna's database and MLflow, over CONFIGURATIONS
configurations on two workers.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.made_up import SLEEPING
from search_spaces.recipes import DIGITS
from search_spaces.space import Search, SearchSpace
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement

CONFIGURATIONS, LINES = 40, 10


def space(trials: int) -> SearchSpace:
    """Of a precision that nothing reaches, so that all trials are asked for."""
    emms = [16 + 4 * i for i in range(CONFIGURATIONS)]
    options = {f"emm-{n}": {"trainer.options": {"emm": n, "seconds": 0.0}} for n in emms}
    return SearchSpace(
        name="long-run",
        question="Does a driver stay as small and as quick as it was?",
        source="a formula",
        expectation="it does",
        cost="minutes",
        base=with_fields(DIGITS, {**SLEEPING, "trainer.options": {"emm": 30}}),
        vary={"trainer.options": options},
        search=Search(
            n_low=8, n_high=1024, precision=1e-4, max_trials=max(1, trials // CONFIGURATIONS)
        ),
        measurement=Measurement(n_samples=20, n_selection=10, snapshots=2),
    )


def main(trials: int) -> None:
    from sweep.api import run
    from sweep.run.studies import Studies, Ticket

    process, begin = psutil.Process(), time.monotonic()
    ask, asked = Studies.ask, list[tuple[float, float]]()
    print("trials asked for   seconds   memory, MB   next N, ms: median, longest, CPU", flush=True)

    def timed(studies: Studies, name: str) -> Ticket:
        before = time.perf_counter(), time.thread_time()
        ticket = ask(studies, name)
        wall, cpu = time.perf_counter() - before[0], time.thread_time() - before[1]
        asked.append((1e3 * wall, 1e3 * cpu))
        if len(asked) % (trials // LINES) == 0:
            walls, cpus = zip(*asked[-(trials // LINES) :], strict=True)
            print(
                f"{len(asked):16}   {time.monotonic() - begin:7.0f}   "
                f"{process.memory_info().rss / 1e6:10.0f}   {statistics.median(walls):10.0f}, "
                f"{max(walls):.0f}, {statistics.median(cpus):.0f}",
                flush=True,
            )
        return ticket

    Studies.ask = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        run(space(trials), Path(directory) / "sweep", workers=2, quiet=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)

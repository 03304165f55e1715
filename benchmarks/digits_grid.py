"""Does the interval of the search hold? A dense grid of trials on the demo's digits, with seeds
that no search uses.

    python benchmarks/digits_grid.py [--sweep results/digits-width] [--config width=8] [--seeds 3] [--processes 2]

Trains the configuration at several N with several seeds each, and reads the EMM off the mean of
R_mem over the seeds, by the definition: where the curve of the means, linear in logit R_mem over ln
N, crosses 0.9. A bootstrap over seeds gives its interval. Beside it stands what the sweep found
(`make demo` makes it). The figures are read in docs/search.md.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

FIRST_SEED = 1000
GRID = (8, 12, 16, 20, 24, 28, 32, 40, 48)


def r_mem_of(job: tuple[str, int, int]) -> float:
    """R_mem of one trial: (configuration, N, seed)."""
    import torch

    from search_spaces.find import find_space
    from trainables.config.trial import TrialSpec
    from trainables.data.sources import load
    from trainables.storage import Storage
    from trainables.trial.trial import Trial

    torch.set_num_threads(1)
    name, n, seed = job
    space = find_space("digits-width")
    (configuration,) = (one.configuration for one in space.configurations if one.name == name)
    spec = TrialSpec(
        name=name, configuration=configuration, measurement=space.measurement, n=n, seed=seed
    )
    with tempfile.TemporaryDirectory() as directory:
        trial = Trial(spec, load(configuration.data), Storage(directory), torch.device("cpu"))
        while trial.result is None:
            trial.step()
        assert trial.result.r_mem is not None
        return trial.result.r_mem


def crossing(sizes: NDArray[np.float64], r_mem: NDArray[np.float64]) -> float:
    """The largest N at which the mean of `r_mem` [sizes, seeds] over the seeds crosses 0.9; nan if
    it does not."""
    z = logit(np.clip(r_mem.mean(1), 1e-3, 1 - 1e-3)) - logit(0.9)
    falls = [i for i in range(len(z) - 1) if z[i] >= 0 > z[i + 1]]
    if not falls:
        return math.nan
    i, x = falls[-1], np.log(sizes)
    return float(np.exp(x[i] + (x[i + 1] - x[i]) * z[i] / (z[i] - z[i + 1])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sweep", type=Path, help="directory of a finished digits-width sweep, to compare with"
    )
    parser.add_argument("--config", default="width=8")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(GRID))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    start = time.perf_counter()
    jobs = [(args.config, n, FIRST_SEED + seed) for n in args.sizes for seed in range(args.seeds)]
    with multiprocessing.get_context("spawn").Pool(args.processes) as processes:
        r_mem = np.array(processes.map(r_mem_of, jobs, chunksize=1)).reshape(
            len(args.sizes), args.seeds
        )
    for n, row in zip(args.sizes, r_mem, strict=True):
        print(f"N = {n:4}: mean {row.mean():.3f}   seeds " + " ".join(f"{r:.3f}" for r in row))
    sizes, rng = np.array(args.sizes, float), np.random.default_rng(0)
    again = [
        crossing(sizes, np.array([rng.choice(row, len(row)) for row in r_mem])) for _ in range(2000)
    ]
    low, high = np.nanquantile(again, [0.025, 0.975])
    print(
        f"grid:   EMM {crossing(sizes, r_mem):.1f} [{low:.1f}, {high:.1f}], {r_mem.size} trials of {args.config}"
    )
    if args.sweep:
        from sweep.analysis.summary import summarize
        from trainables.storage import Storage

        (study,) = (
            study
            for study in summarize(Storage(str(args.sweep))).studies
            if study.name == args.config
        )
        found = study.verdict
        print(
            f"search: EMM {found.emm:.1f} [{found.emm_low:.1f}, {found.emm_high:.1f}], {found.n_trials} trials"
        )
    print(f"{time.perf_counter() - start:.0f} s on {args.processes} processes")


if __name__ == "__main__":
    main()

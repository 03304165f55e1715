"""What an EMM costs without this search, and how far off it is, on the trainings that replay.py has.

    python -m benchmarks.baselines [--replays 504] [--seed 2] [--processes 2] [--only digits-width8]
                                   [--wide 16] [--methods "log grid;bisection"] [--hub]

On every configuration of the bank the same number of trials is spent in other ways: as many as the
search takes there on average when it is alone, rounded up. A grid's sizes are trained once each, by
one seed. The paper's grid is that of its CIFAR-10 figure, stretched in ln N to the range searched,
with its linear interpolation. No other way gives an interval, so none is judged. The bank's sizes lie
about the EMM, and who searches doesn't know where that is: `--wide` has the range reach so many times
further up, to where the curves are continued. `--hub` adds what OptunaHub has for level sets (needs
`pip install optunahub` and GitHub).

Errors are |ln(answer / truth)| in %, of the replays that have an answer. Cost is in trainings at the
EMM: see `replay.cost_in_trainings`. Replays of optuna's samplers are as many, but for GP, whose are
a fifth.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from benchmarks.bank import NAMES
from benchmarks.replay import (
    N_SAMPLES,
    POOLED,
    Outcome,
    cost_in_trainings,
    curves_of,
    sweep,
    truth,
)

PAPER_SIZES = (500, 1000, 2000, 3000, 4000, 5000)  # Gu et al. 2023, unconditional CIFAR-10
STARTUP = 3  # random trials of Optuna's samplers; their own 10 would leave them hardly any other
GP_SHARE = 5  # a GP's replays are so many times fewer: each takes half a second


@dataclass(frozen=True)
class Task:
    """To find the largest N in `low` … `high` at which R_mem reaches `target`, by `trials` calls of
    `r_mem` (of N, with a new seed each time). `seed` of the methods that draw something."""

    r_mem: Callable[[int], float]
    low: int
    high: int
    target: float
    trials: int
    seed: int = 0


# --- what is made of trials: the EMM, or nan where they don't bracket it


def last_passing(n: Sequence[int], r: Sequence[float], target: float) -> int | None:
    """The index of the largest `n` (ascending) that passes, if a larger one fails."""
    passing = [i for i, one in enumerate(r) if one >= target]
    return passing[-1] if passing and passing[-1] < len(n) - 1 else None


def linear(n: Sequence[int], r: Sequence[float], target: float) -> float:
    """Between the last that passes and the next one, on a straight line in N and R_mem."""
    i = last_passing(n, r, target)
    if i is None:
        return math.nan
    return n[i] + (n[i + 1] - n[i]) * (r[i] - target) / (r[i] - r[i + 1])


def log_linear(n: Sequence[int], r: Sequence[float], target: float) -> float:
    """The same in ln N and logit R_mem, where a logistic curve is straight. All or none of the images
    count as half an image less or more."""
    i = last_passing(n, r, target)
    if i is None:
        return math.nan
    a, b = (logit(min(max(x, 0.5 / N_SAMPLES), 1 - 0.5 / N_SAMPLES)) for x in r[i : i + 2])
    return float(n[i] * (n[i + 1] / n[i]) ** ((a - logit(target)) / (a - b)))


def logistic_fit(n: Sequence[int], r: Sequence[float], task: Task) -> float:
    """Where the logistic curve in ln N that is nearest in R_mem (least squares) crosses; nan if that
    is outside the range."""
    x, y = np.log(n), np.array(r)
    low, high = math.log(task.low), math.log(task.high)
    start = log_linear(n, r, task.target)
    middle = math.log(start) if start > 0 else (low + high) / 2

    def residuals(p: np.ndarray) -> np.ndarray:
        return expit(logit(task.target) - math.exp(p[1]) * (x - p[0])) - y

    bounds = ([low - 2, math.log(0.1)], [high + 2, math.log(100)])
    crossing = least_squares(residuals, [middle, math.log(3)], bounds=bounds).x[0]
    return math.exp(crossing) if low <= crossing <= high else math.nan


# --- where trials are spent


def paper_sizes(low: int, high: int) -> list[int]:
    """The paper's, so stretched in ln N that they reach from `low` to `high`."""
    share = np.log(np.array(PAPER_SIZES) / PAPER_SIZES[0]) / math.log(
        PAPER_SIZES[-1] / PAPER_SIZES[0]
    )
    return sorted({round(n) for n in low * (high / low) ** share})


def log_sizes(low: int, high: int, trials: int) -> list[int]:
    """At equal ratios; fewer than `trials` where two of them round to one size."""
    return sorted({round(n) for n in np.geomspace(low, high, trials)})


def paper_grid(task: Task) -> float:
    n = paper_sizes(task.low, task.high)
    return linear(n, [task.r_mem(one) for one in n], task.target)


def log_grid(task: Task) -> float:
    n = log_sizes(task.low, task.high, task.trials)
    return log_linear(n, [task.r_mem(one) for one in n], task.target)


def fitted_grid(task: Task) -> float:
    n = log_sizes(task.low, task.high, task.trials)
    return logistic_fit(n, [task.r_mem(one) for one in n], task)


def bisected(task: Task) -> tuple[list[int], list[float], int, int]:
    """Sizes, their R_mem, and the bracket in ln N that is left; ends early where it has no whole
    number inside."""
    low, high = task.low, task.high
    n: list[int] = []
    r: list[float] = []
    while len(n) < task.trials and (middle := round(math.sqrt(low * high))) not in (low, high):
        n.append(middle)
        r.append(task.r_mem(middle))
        low, high = (middle, high) if r[-1] >= task.target else (low, middle)
    return n, r, low, high


def bisection(task: Task) -> float:
    """The middle of the bracket; nan where it still has an end at which nothing was trained."""
    n, _, low, high = bisected(task)
    return math.sqrt(low * high) if {low, high} <= set(n) else math.nan


def fitted_bisection(task: Task) -> float:
    n, r, _, _ = bisected(task)
    order = np.argsort(n)
    return logistic_fit([n[i] for i in order], [r[i] for i in order], task)


def best_of(task: Task, which: str) -> float:
    """N of the best trial of an Optuna study of |R_mem − target|."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if which == "TPE":
        sampler: optuna.samplers.BaseSampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP, seed=task.seed
        )
    else:
        sampler = optuna.samplers.GPSampler(n_startup_trials=STARTUP, seed=task.seed)
    study = optuna.create_study(sampler=sampler)

    def distance(trial: optuna.Trial) -> float:
        return abs(task.r_mem(trial.suggest_int("n", task.low, task.high, log=True)) - task.target)

    study.optimize(distance, task.trials)
    return float(study.best_params["n"])


def tpe(task: Task) -> float:
    return best_of(task, "TPE")


def gp(task: Task) -> float:
    return best_of(task, "GP")


def level_set(task: Task) -> float:
    """OptunaHub's samplers/drlse (after Inatsu et al., ICML 2021) without an environment: a Gaussian
    process of logit R_mem − logit target over the ln N of the range, mean 0, sd 3, length 1, noise .5.
    The answer is where its mean crosses, between two sizes that it may ask for."""
    import optuna
    import optunahub

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sizes = np.arange(task.low, task.high + 1)
    if len(sizes) > 64:  # it looks at every pair of them
        sizes = np.array(log_sizes(task.low, task.high, 64))
    settings = {
        "h": 0.0,
        "alpha": 0.5,
        "eps": 0.0,
        "sigma_f": 3.0,
        "scale": 2.0,
        "noise": 0.25,
        "n_startup_trials": STARTUP,
        "seed": task.seed,
    }
    package = optunahub.load_module("samplers/drlse")

    def above(trial: optuna.Trial) -> float:
        n = int(sizes[trial.suggest_int("x_index", 0, len(sizes) - 1)])
        trial.suggest_int("w_index", 0, 0)
        k = round(task.r_mem(n) * N_SAMPLES)
        return math.log((k + 0.5) / (N_SAMPLES - k + 0.5)) - float(logit(task.target))

    study = optuna.create_study(
        sampler=package.DRLevelSetSampler(np.log(sizes), np.zeros(1), **settings)
    )
    study.optimize(above, task.trials)
    # bounds of no width: above and below as the mean is
    judge = package.DRLevelSetSampler(np.log(sizes), np.zeros(1), beta=0.0, **settings)
    reliable = judge.classify(study)[0]
    i = last_passing(sizes, reliable, True)
    return math.nan if i is None else float(math.sqrt(sizes[i] * sizes[i + 1]))


METHODS: dict[str, Callable[[Task], float]] = {
    "the paper's grid, linear": paper_grid,
    "log grid, interpolated": log_grid,
    "log grid, logistic fit": fitted_grid,
    "bisection": bisection,
    "bisection, logistic fit": fitted_bisection,
    "Optuna TPE": tpe,
    "Optuna GP": gp,
}
HUB = {"OptunaHub drlse": level_set}


# --- replays


@dataclass(frozen=True)
class Replay:
    """`answer` nan if there is none; `low` and `high` nan if there is no interval."""

    answer: float
    trials: int
    cost: float
    low: float = math.nan
    high: float = math.nan


def replay(job: tuple[str, str, int, int, int]) -> Replay:
    """(method, configuration, trials, seed, wide)."""
    method, name, trials, seed, wide = job
    curves = curves_of(name)
    rng = np.random.default_rng((seed, 1, zlib.crc32(name.encode())))  # as the search is replayed
    spent: list[int] = []

    def r_mem(n: int) -> float:
        spent.append(n)
        return curves.trial(n, rng)[0].r_mem

    task = Task(r_mem, *curves.searched(wide), curves.target, trials, seed)
    answer = (METHODS | HUB)[method](task)
    return Replay(answer, len(spent), cost_in_trainings(name, len(spent), sum(spent)))


def of_ours(o: Outcome) -> Replay:
    cost = cost_in_trainings(o.name, o.trials, o.images)
    if o.verdict != "found":
        return Replay(math.nan, o.trials, cost)
    return Replay(o.median, o.trials, cost, o.low, o.high)


@dataclass(frozen=True)
class Summary:
    """Of the replays of a method on a configuration, in % but for trials and cost."""

    replays: int
    trials: float
    cost: float
    answers: float
    median: float
    high: float  # 90 % of the errors lie below
    coverage: float
    half_width: float


def summary(replays: Sequence[Replay], emm: float) -> Summary:
    there = [one for one in replays if one.answer > 0]
    error = [100 * abs(math.log(one.answer / emm)) for one in there] or [math.nan]
    return Summary(
        len(replays),
        float(np.mean([one.trials for one in replays])),
        float(np.mean([one.cost for one in replays])),
        100 * len(there) / len(replays),
        float(np.median(error)),
        float(np.quantile(error, 0.9)),
        100 * float(np.mean([one.low < emm < one.high for one in there] or [math.nan])),
        float(
            np.median([100 * (math.sqrt(one.high / one.low) - 1) for one in there] or [math.nan])
        ),
    )


HEADER = (
    "| configuration | method | replays | trials | cost, EMM | answers % | median error % "
    "| 90 % of errors under % | interval | coverage % | half-width % |\n|" + "---|" * 11
)


def row(name: str, method: str, s: Summary) -> str:
    cells = [name, method, str(s.replays), f"{s.trials:.1f}", f"{s.cost:.1f}", f"{s.answers:.0f}"]
    cells += [f"{s.median:.1f}", f"{s.high:.1f}"]
    if s.half_width > 0:
        cells += ["95 %", f"{s.coverage:.1f}", f"{s.half_width:.1f}"]
    else:
        cells += ["none", "–", "–"]
    return "| " + " | ".join(cells) + " |"


def overview(results: dict[tuple[str, str], Summary]) -> None:
    """A line for each method: means over configurations, and the errors on each."""
    names = list(dict.fromkeys(name for name, _ in results))
    head = ["method", "trials", "cost, EMM", "answers %", "interval", *names]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for method in dict.fromkeys(method for _, method in results):
        own = [results[name, method] for name in names]
        means = (np.mean([getattr(s, what) for s in own]) for what in ("trials", "cost", "answers"))
        cells = [method, *(f"{mean:.1f}" for mean in means)]
        cells.append("95 %" if own[0].half_width > 0 else "none")
        cells += [f"{s.median:.1f} / {s.high:.1f}" for s in own]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--replays", type=int, default=504, help="per configuration and method")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--wide", type=int, default=1, metavar="TIMES")
    parser.add_argument("--only", metavar="NAME", choices=NAMES, help="this configuration alone")
    parser.add_argument("--methods", help='";"-separated words, of which their names have one')
    parser.add_argument("--hub", action="store_true", help="OptunaHub's level sets, too")
    args = parser.parse_args()
    methods = [*METHODS, *(HUB if args.hub else ())]
    if args.methods:
        methods = [one for one in methods if any(word in one for word in args.methods.split(";"))]
    results: dict[tuple[str, str], Summary] = {}
    print(HEADER, flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes) as processes:
        for name in [args.only] if args.only else NAMES:
            emm = truth(name, "mean")

            def show(
                method: str, replays: list[Replay], name: str = name, emm: float = emm
            ) -> None:
                results[name, method] = summary(replays, emm)
                print(row(name, method, results[name, method]), flush=True)

            for size in (1, POOLED) if args.wide == 1 else (1,):
                seeds = range(args.seed * 100_000, args.seed * 100_000 + -(-args.replays // size))
                searches = [(name, size, seed, args.wide) for seed in seeds]
                found = processes.map(sweep, searches, chunksize=1)
                which = "this search, alone" if size == 1 else f"this search, in sweeps of {size}"
                show(which, [of_ours(o) for outcomes in found for o in outcomes])
            trials = math.ceil(results[name, "this search, alone"].trials)
            for method in methods:
                count = args.replays // GP_SHARE if method == "Optuna GP" else args.replays
                seeds = range(args.seed * 100_000, args.seed * 100_000 + count)
                jobs = [(method, name, trials, seed, args.wide) for seed in seeds]
                show(method, processes.map(replay, jobs, chunksize=8))
    overview(results)


if __name__ == "__main__":
    main()

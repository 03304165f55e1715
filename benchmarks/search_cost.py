"""What the search costs and whether its interval can be trusted, on synthetic configurations with a
known EMM.

    python benchmarks/search_cost.py [--configurations 504] [--seed 1] [--rows "logistic;noisy"] [--processes 2]

Drives the real `sweep.search` (no Optuna, no training). A configuration is
a law of R_mem given N; its EMM is the N at which the mean over seeds crosses the target.
Configurations are searched in sweeps of 1, 8 and 24, six at a time: from the fourth that is found
on, the next ones start with the prior pooled from those finished, and at the end each is reported
with the prior pooled from the others, as `emm report` does. A trial costs N images plus sampling;
costs are in units of EMM. The table is read in docs/search.md.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

from sweep.analysis.profile import belief_at
from sweep.search.belief import Belief, Observation, base_prior, shape_likelihood
from sweep.search.pooling import pool, pool_each
from sweep.search.rules import EFFORTS, Options, accept_bound, judge, propose

LOW, HIGH = 100, 40_000
# cost of generating one image at each of 10 snapshots, in training images (35 network evaluations)
SAMPLING = 2.9e-3
SELECTION = 500  # images of a snapshot, which decide whether a trial is accepted early
GROUP = 6  # configurations searched at the same time


@dataclass(frozen=True)
class Truth:
    """A configuration: logit R_mem = curve(N) + noise · deviate, its mean over seeds crossing
    `target` at `emm`. Deviates have mean 0 and variance 1: normal, or with an exponential tail to low
    R_mem (`skewed`).

    `slope` of logit R_mem per e-fold of N at EMM (of the factor that falls, for a plateau);
    `plateau` the R_mem that small N tend to; `dead` the share of runs with R_mem = 0; `dip` the
    depth of a dip at EMM/5; `early`: trials stop at a tenth, two tenths, … of their length once
    R_mem is for certain what `accept_bound` asks.
    """

    emm: float
    slope: float
    noise: float
    target: float = 0.9
    curve: str = "logistic"
    plateau: float = 1.0
    dead: float = 0.0
    dip: float = 0.0
    early: bool = False
    skewed: bool = False
    n_samples: int = 2000

    def logit_r(self, n: float) -> float:
        """Of a seed whose deviate is 0."""
        d = math.log(n / self.emm)
        at_emm = crossing(self.target, self.noise, self.skewed)
        r = float(expit(at_emm))
        if self.curve == "cloglog":  # R = 1 − exp(−e^y)
            y = math.log(-math.log(1 - r)) + self.slope * r * d / math.log(1 - r)
            r = -math.expm1(-math.exp(min(y, 30.0)))
        elif self.curve == "gompertz":  # R = exp(−e^−y)
            y = -math.log(-math.log(r)) + self.slope * (1 - r) * d / math.log(r)
            r = math.exp(-math.exp(min(-y, 30.0)))
        elif self.curve == "root":  # logistic in sqrt(N)
            r = float(expit(logit(r) - 2 * self.slope * math.expm1(d / 2)))
        else:
            r = self.plateau * float(expit(logit(r / self.plateau) - self.slope * d))
        r *= 1 - self.dip * math.exp(-0.5 * ((d + math.log(5)) / 0.35) ** 2)
        return float(logit(min(max(r, 1e-12), 1 - 1e-12)))

    def trial(self, n: int, rng: np.random.Generator) -> tuple[Observation, float]:
        """One trial and its cost in images."""
        deviate = 1 - rng.exponential() if self.skewed else rng.normal()
        z = self.logit_r(n) + self.noise * deviate
        dead, growth = rng.random() < self.dead, rng.uniform(1, 4)
        if self.early and not dead:
            for t in np.arange(0.1, 1, 0.1):  # logit R_mem grows by `growth` per e-fold of training
                now = expit(z + growth * math.log(t))
                if wilson_low(rng.binomial(SELECTION, now) / SELECTION, SELECTION) > accept_bound(
                    self.target
                ):
                    r = rng.binomial(self.n_samples, now) / self.n_samples
                    return Observation(n, r, self.n_samples, right_censored=True), t * (
                        n + SAMPLING * self.n_samples
                    )
        k = 0 if dead else rng.binomial(self.n_samples, expit(z))
        return Observation(n, k / self.n_samples, self.n_samples), n + SAMPLING * self.n_samples


@cache
def crossing(target: float, noise: float, skewed: bool = False) -> float:
    """The h at which the mean over deviates z of sigmoid(h + noise·z) is `target`: z ~ Normal(0, 1),
    or 1 − z ~ Exponential(1)."""
    if skewed:
        e, w = np.polynomial.laguerre.laggauss(40)
        z = 1 - e
    else:
        z, w = np.polynomial.hermite_e.hermegauss(40)
    h = float(logit(target))
    for _ in range(50):  # Newton
        r = expit(h + noise * z)
        h += float((target - r @ w / w.sum()) / ((r * (1 - r)) @ w / w.sum()))
    return h


def wilson_low(r: float, n: int, z: float = 1.96) -> float:
    return (r + z * z / 2 / n - z * math.sqrt(r * (1 - r) / n + z * z / 4 / n**2)) / (1 + z * z / n)


@dataclass(frozen=True)
class Row:
    """How the configurations of a row are drawn (ranges are log-uniform), and how they are
    searched."""

    slope: tuple[float, float] = (2, 8)
    noise: tuple[float, float] = (0.1, 0.5)
    emm: tuple[float, float] = (200, 20_000)
    plateau: tuple[float, float] | None = None
    fixed: dict[str, Any] = field(default_factory=dict)
    lone: bool = False  # one of these in a sweep of logistic ones; only that one is counted
    options: dict[str, Any] = field(default_factory=dict)
    shift: tuple[float, float] | None = None  # sd of ln N by which seeds are shifted: noise / slope
    sizes: tuple[int, ...] = (8, 24)
    verdict: str = "found"

    def draw(self, rng: np.random.Generator) -> Truth:
        emm, slope, noise = (
            math.exp(rng.uniform(*np.log(ends))) for ends in (self.emm, self.slope, self.noise)
        )
        if self.shift:
            noise = slope * math.exp(rng.uniform(*np.log(self.shift)))
        top = rng.uniform(*self.plateau) if self.plateau else 1.0
        return Truth(emm, slope, noise, self.options.get("target", 0.9), plateau=top, **self.fixed)


WITH = {name: {"precision": Options.precision * factor} for name, factor in EFFORTS.items()}

ROWS: dict[str, Row] = {
    "logistic": Row(sizes=(1, 8, 24)),
    "early accept": Row(fixed={"early": True}),
    "cloglog": Row(fixed={"curve": "cloglog"}),
    "gompertz": Row(fixed={"curve": "gompertz"}),
    "plateau": Row(plateau=(0.93, 0.995)),
    "shallow": Row(slope=(1, 1.5)),
    "very shallow": Row(slope=(0.4, 0.8)),
    "steep": Row(slope=(15, 30)),
    "noisy": Row(noise=(0.5, 1)),
    "very noisy": Row(noise=(1, 2), sizes=(8,)),
    "skewed": Row(fixed={"skewed": True}, sizes=(8,)),
    "skewed, noisy": Row(noise=(0.5, 1), fixed={"skewed": True}, sizes=(8,)),
    "shifted seeds": Row(shift=(0.05, 0.2), sizes=(8,)),
    "slopes .3 to .8": Row(slope=(0.3, 0.8), sizes=(8,)),
    "root-N": Row(fixed={"curve": "root"}, sizes=(1, 8, 24)),
    "dead": Row(fixed={"dead": 0.05}),
    "lone noisy": Row(noise=(0.5, 1), lone=True, sizes=(8,)),
    "lone shallow": Row(slope=(1, 1.5), lone=True, sizes=(8,)),
    "below range": Row(emm=(LOW / 15, LOW / 1.5), sizes=(8,), verdict="below_range"),
    "above range": Row(emm=(HIGH * 1.5, HIGH * 15), sizes=(8,), verdict="above_range"),
    "fixed steps": Row(options={"cost": "constant"}),
    "dip": Row(fixed={"dip": 0.35}, emm=(1000, 20_000), sizes=(8,)),
    "dip, guard": Row(fixed={"dip": 0.35}, emm=(1000, 20_000), sizes=(8,), options={"guard": True}),
    "logistic, guard": Row(sizes=(8,), options={"guard": True}),
    "quick": Row(options=WITH["quick"], sizes=(8,)),
    "quick, early accept": Row(fixed={"early": True}, options=WITH["quick"], sizes=(8,)),
    "quick, noisy": Row(noise=(0.5, 1), options=WITH["quick"], sizes=(8,)),
    "thorough": Row(options=WITH["thorough"], sizes=(8,)),
    "thorough, noisy": Row(noise=(0.5, 1), options=WITH["thorough"], sizes=(8,)),
    "target .5": Row(options={"target": 0.5}, sizes=(8,)),
    "target .1": Row(options={"target": 0.1}, sizes=(8,)),
    "target .01": Row(options={"target": 0.01}, sizes=(8,)),
}


@dataclass(frozen=True)
class Outcome:
    """One configuration searched to its verdict: the belief as reported (None by the methods that
    have none)."""

    truth: Truth
    verdict: str
    emm: float
    low: float
    high: float
    mean: float
    sd: float
    cost: float
    n_trials: int
    noise: tuple[float, float, float] = (
        math.nan,
    ) * 3  # 2.5 %, 50 % and 97.5 % of the sd between seeds


def search(
    truth: Truth, options: Options, rng: np.random.Generator
) -> tuple[list[Observation], float, str]:
    finished: list[Observation] = []
    cost = 0.0
    while True:
        b = options.belief(finished) if finished else None
        verdict = judge(finished, options, b)
        if verdict.state != "searching":
            return finished, cost, verdict.state
        observation, price = truth.trial(propose(finished, [], options, b), rng)
        finished.append(observation)
        cost += price


def sweep(job: tuple[str, int, int]) -> list[Outcome]:
    """One sweep of a row: (name, size, seed)."""
    name, size, seed = job
    row = ROWS[name]
    rng = np.random.default_rng((seed, size, zlib.crc32(name.encode())))
    truths = [row.draw(rng) for _ in range(size)]
    if row.lone:
        truths[:-1] = [ROWS["logistic"].draw(rng) for _ in truths[:-1]]
    order = rng.permutation(size)
    results: dict[int, tuple[list[Observation], float, str]] = {}
    tables: dict[int, Any] = {}
    options = Options(LOW, HIGH, **row.options)
    for start in range(0, size, GROUP):
        prior = pool(list(tables.values())) if len(tables) >= 4 else base_prior()
        for i in order[start : start + GROUP]:
            results[i] = search(truths[i], replace(options, prior=prior), rng)
        for i in order[start : start + GROUP]:
            if results[i][2] == "found":
                tables[i] = shape_likelihood(
                    options.heard(results[i][0]), LOW, HIGH, options.target
                )
    priors = dict(zip(tables, pool_each(list(tables.values())), strict=True))
    outcomes = []
    for i, (finished, cost, state) in results.items():
        b = replace(options, prior=priors.get(i) or base_prior()).belief(finished)
        outcomes.append(outcome(truths[i], state, b, cost, len(finished)))
    return [o for o in outcomes if o.truth is truths[-1]] if row.lone else outcomes


def outcome(truth: Truth, state: str, b: Belief, cost: float, n_trials: int) -> Outcome:
    low, middle, high = map(b.noise_quantile, (0.025, 0.5, 0.975))
    return Outcome(
        truth,
        state,
        b.median,
        *b.interval(),
        b.mean,
        b.sd,
        cost / truth.emm,
        n_trials,
        (low, middle, high),
    )


HEADER = (
    "| truth | sweep of | configurations | right verdict % | median error % | coverage % | half-width % | z-sd | z-mean "
    "| cost, EMM | trials | power % | false % |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def report(name: str, size: int, outcomes: list[Outcome], verdict: str = "found") -> str:
    """A line of the table; error, coverage and width are of resolved configurations, cost and
    trials of all."""
    found = [o for o in outcomes if o.verdict == verdict]
    cells = [f"{100 * len(found) / len(outcomes):.1f}"]
    if verdict == "found" and found:
        emm = np.array([o.truth.emm for o in found])
        median, low, high, mean, sd = np.array(
            [(o.emm, o.low, o.high, o.mean, o.sd) for o in found]
        ).T
        cells.append(f"{100 * np.median(abs(median / emm - 1)):.1f}")
        if np.isfinite(low).all():
            covered = (low < emm) & (emm < high)
            se = 100 * math.sqrt(max(covered.mean() * (1 - covered.mean()), 0.01) / len(found))
            z = (mean - np.log(emm)) / sd
            half = np.sqrt(high / low) - 1
            resampled = np.median(np.random.default_rng(0).choice(half, (400, len(half))), axis=1)
            cells += [
                f"{100 * covered.mean():.1f} ± {se:.1f}",
                f"{100 * np.median(half):.1f} ± {100 * resampled.std():.1f}",
            ]
            cells += [f"{z.std():.2f}", f"{z.mean():+.2f}"]
        else:
            cells += [""] * 4
    else:
        cells += [""] * 5
        found = []
    cost = np.array([o.cost for o in outcomes])
    cells += [
        f"{cost.mean():.2f} ± {cost.std() / math.sqrt(len(cost)):.2f}",
        f"{np.mean([o.n_trials for o in outcomes]):.1f}",
    ]
    cells += contrasts(found) if size > 1 and name.startswith("logistic") else ["", ""]
    return "| " + " | ".join([name, str(size), str(len(outcomes)), *cells]) + " |"


def contrasts(found: list[Outcome]) -> list[str]:
    """Share of pairs told apart at a ratio of 1.3, and at 1: |difference of means| > 1.96 ·
    sqrt(sd² + sd²)."""
    error = np.array([(o.mean - math.log(o.truth.emm), o.sd) for o in found])
    half = len(error) // 2
    difference = error[:half, 0] - error[half : 2 * half, 0]
    sd = np.hypot(error[:half, 1], error[half : 2 * half, 1])
    return [
        f"{100 * np.mean(abs(difference + shift) > 1.96 * sd):.0f}"
        for shift in (math.log(1.3), 0.0)
    ]


def spread_over_seeds(job: tuple[float, int]) -> list[tuple[float, float, float]]:
    """2.5 %, 50 % and 97.5 % of the noise in the report of a sweep of 8 logistic ones: (true noise,
    seed)."""
    noise, seed = job
    name = f"noise {noise}"
    ROWS[name] = Row(noise=(noise, noise))
    return [o.noise for o in sweep((name, 8, seed)) if o.verdict == "found"]


def spread_table(pool_of_processes: Any, n_configurations: int, seed: int) -> None:
    print(
        "\n| sd between seeds | found | median of the estimates | interval covers % | median interval |"
    )
    print("|---|---|---|---|---|", flush=True)
    for noise in (0.1, 0.2, 0.35, 0.6, 0.9):
        jobs = [(noise, seed * 100_000 + i) for i in range(math.ceil(n_configurations / 8))]
        said = np.array(
            [one for s in pool_of_processes.map(spread_over_seeds, jobs, chunksize=1) for one in s]
        )
        low, middle, high = np.median(said, axis=0)
        covers = 100 * np.mean((said[:, 0] <= noise) & (noise <= said[:, 2]))
        print(
            f"| {noise} | {len(said)} | {middle:.2f} | {covers:.1f} | {low:.2f} to {high:.2f} |",
            flush=True,
        )


# --- what a user would do otherwise
# -----------------------------------------------------------------------------------

Evaluate = Callable[[int], float]


def interpolated(
    points: list[tuple[int, float]], scale: Callable[[float], float]
) -> tuple[float, float, float]:
    """EMM between the last passing and the first failing N, `scale`d linearly in R_mem; those two
    as the interval."""
    (a, ra), (b, rb) = points[-2:]
    za, zb, zt = (scale(min(max(r, 5e-4), 1 - 5e-4)) for r in (ra, rb, 0.9))
    share = (za - zt) / (za - zb)
    return a * (b / a) ** share if scale is not float else a + (b - a) * share, a, b


def grid(
    step: Callable[[int], int], start: int, scale: Callable[[float], float], r_mem: Evaluate
) -> Any:
    points = [(start, r_mem(start))]
    while points[-1][1] >= 0.9 and points[-1][0] < HIGH:
        n = step(points[-1][0])
        points.append((n, r_mem(n)))
    return interpolated(points, scale) if len(points) > 1 and points[-1][1] < 0.9 else None


def linear_grid(r_mem: Evaluate) -> Any:
    return grid(lambda n: n + 1000, 1000, float, r_mem)


def log_grid(r_mem: Evaluate) -> Any:
    return grid(lambda n: round(1.5 * n), LOW, lambda r: float(logit(r)), r_mem)


def plain_bisection(r_mem: Evaluate) -> Any:
    low, high = float(LOW), float(HIGH)
    while high / low > 1.1:
        n = round(math.sqrt(low * high))
        low, high = (n, high) if r_mem(n) >= 0.9 else (low, n)
    return math.sqrt(low * high), low, high


def tpe(r_mem: Evaluate, n_trials: int = 16) -> Any:
    """Optuna's TPE on |R_mem − 0.9|: its best trial; it has no interval."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda t: abs(r_mem(t.suggest_int("n", LOW, HIGH, log=True)) - 0.9), n_trials)
    return study.best_params["n"], math.nan, math.nan


BASELINES = {
    "linear grid, 1000": linear_grid,
    "log grid, ×1.5": log_grid,
    "plain bisection": plain_bisection,
    "TPE": tpe,
}


def baseline(job: tuple[str, int]) -> Outcome:
    name, seed = job
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    truth = ROWS["logistic"].draw(rng)
    costs: list[float] = []

    def r_mem(n: int) -> float:
        observation, cost = truth.trial(n, rng)
        costs.append(cost)
        return observation.r_mem

    answer = BASELINES[name](r_mem)
    emm, low, high = answer or (math.nan,) * 3
    state = "found" if answer else "unresolved"
    return Outcome(
        truth, state, emm, low, high, math.log(emm), 1.0, sum(costs) / truth.emm, len(costs)
    )


# --- many workers
# -----------------------------------------------------------------------------------------------------


def workers(job: tuple[int, int, int, int]) -> tuple[float, float]:
    """(cost per configuration in EMM, wall time in mean EMM) of a sweep: (configurations, workers,
    most at once, seed).

    A free worker goes to the open study with the fewest running trials, unless all have `most` of
    them; trials still running when their study ends are stopped. Time is images trained.
    """
    size, n_workers, most, seed = job
    rng = np.random.default_rng((seed, size))
    truths = [replace(ROWS["logistic"], emm=(1000, 4000)).draw(rng) for _ in range(size)]
    options = Options(LOW, HIGH)
    finished: list[list[Observation]] = [[] for _ in truths]
    beliefs: list[Belief | None] = [None] * size
    running: list[
        tuple[float, float, int, Observation]
    ] = []  # end, start, study, what it will have seen
    still_open, now, spent = set(range(size)), 0.0, np.zeros(size)
    while still_open:
        while len(running) < n_workers:
            in_flight = {a: [r[3].n for r in running if r[2] == a] for a in still_open}
            a = min(sorted(still_open), key=lambda a: len(in_flight[a]))
            if len(in_flight[a]) >= most:
                break
            observation, price = truths[a].trial(
                propose(finished[a], in_flight[a], options, beliefs[a]), rng
            )
            running.append((now + price, now, a, observation))
        running.sort(key=lambda r: r[0])
        now, start, a, observation = running.pop(0)
        spent[a] += now - start
        finished[a].append(observation)
        beliefs[a] = options.belief(finished[a])
        if judge(finished[a], options, beliefs[a]).state != "searching":
            still_open.remove(a)
            spent[a] += sum(now - r[1] for r in running if r[2] == a)
            running = [r for r in running if r[2] != a]
    emm = np.array([t.emm for t in truths])
    return float(np.mean(spent / emm)), float(now / emm.mean())


def workers_table(pool_of_processes: Any, n_configurations: int, seed: int) -> None:
    print(
        "\n| configurations | workers | at once in a study | cost, EMM per configuration | wall time, EMM |"
    )
    print("|---|---|---|---|---|", flush=True)
    for size in (1, 4, 16):
        for n_workers in (1, 8, 64):
            for most in (2, 8) if n_workers > size else (2,):
                seeds = range(
                    seed * 100_000, seed * 100_000 + math.ceil(n_configurations / 8 / size)
                )
                cells = pool_of_processes.map(
                    workers, [(size, n_workers, most, s) for s in seeds], chunksize=1
                )
                cost, wall = np.mean(cells, axis=0)
                print(f"| {size} | {n_workers} | {most} | {cost:.2f} | {wall:.2f} |", flush=True)


ASKED: dict[str, dict[str, Any]] = {
    "one EMM": {},
    **{f"--replicates {count}": {"replicates": count} for count in (2, 3, 5)},
    "--targets .5": {"targets": (0.5,)},
    "--targets .5,.1": {"targets": (0.5, 0.1)},
    "--guard": {"guard": True},
    "--replicates 2 --targets .5": {"replicates": 2, "targets": (0.5,)},
}


def asked(job: tuple[Truth, dict[str, Any], int]) -> tuple[float, int]:
    """What a search costs that is asked for more than one EMM: in EMM of its own target where a trial
    costs its N, and in trials where all cost the same."""
    truth, options, seed = job
    finds = {
        cost: search(truth, Options(LOW, HIGH, cost=cost, **options), np.random.default_rng(seed))
        for cost in ("images", "constant")
    }
    return finds["images"][1] / truth.emm, len(finds["constant"][0])


def asked_table(pool_of_processes: Any, n_configurations: int, seed: int) -> None:
    print("\n| asked | costs its N, EMM | costs the same, trials |\n|---|---|---|")
    rng = np.random.default_rng(seed)
    truths = [ROWS["logistic"].draw(rng) for _ in range(min(n_configurations, 60))]
    for name, options in ASKED.items():
        jobs = [(truth, options, i) for i, truth in enumerate(truths)]
        costs, trials = zip(*pool_of_processes.map(asked, jobs), strict=True)
        print(f"| {name} | {np.mean(costs):.1f} | {np.mean(trials):.1f} |", flush=True)


ELSEWHERE = (0.95, 0.5, 0.1, 0.01)


def elsewhere(job: tuple[str, int]) -> list[tuple[bool, bool]]:
    """Of a study alone, at each target of ELSEWHERE: whether its crossing is told, and whether the
    interval holds, told or not."""
    name, seed = job
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    truth, options = ROWS[name].draw(rng), Options(LOW, HIGH, **ROWS[name].options)
    finished, _, _ = search(truth, options, rng)
    found = []
    for target in ELSEWHERE:
        low, high = options.at(target).belief(finished).interval()
        is_told = belief_at(finished, options, target) is not None
        found.append((is_told, low < crossed(truth, target) < high))
    return found


def crossed(truth: Truth, target: float) -> float:
    """The N at which the mean over seeds is `target`; 0 if it is less at every N."""
    of_median_seed = crossing(target, truth.noise, truth.skewed)

    def above(ln_n: float) -> float:
        return truth.logit_r(math.exp(ln_n)) - of_median_seed

    return math.exp(brentq(above, -20, 40)) if above(-20) > 0 else 0.0


def elsewhere_table(pool_of_processes: Any, n_configurations: int, seed: int) -> None:
    heads = [f"told at {target:g} % | held % | all held %" for target in ELSEWHERE]
    print(f"\n| truth | {' | '.join(heads)} |\n|" + "---|" * (1 + 3 * len(heads)))
    for name in ("logistic", "plateau", "shallow", "noisy"):
        jobs = [(name, seed * 100_000 + i) for i in range(min(n_configurations, 120))]
        told, held = np.moveaxis(np.array(pool_of_processes.map(elsewhere, jobs)), 2, 0)
        cells = [
            f"{100 * one.mean():.0f} | {share(right[one])} | {share(right)}"
            for one, right in zip(told.T, held.T, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def share(held: Any) -> str:
    """In %."""
    return f"{100 * np.mean(held):.0f}" if len(held) else "-"


def oracle_table(configurations: int, seed: int) -> None:
    """What an observer pays who knows curve and noise and sees every trial at the EMM itself: as many
    as make the sd of ln EMM what a search is asked for, one at least."""
    print("\n| truth | oracle: trials | cost, EMM |\n|---|---|---|")
    for name, row in ROWS.items():
        if row.verdict != "found" or row.lone:
            continue
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        truths = [row.draw(rng) for _ in range(configurations)]
        precision = row.options.get("precision", Options.precision)
        trials, costs = zip(*(_oracle(truth, precision) for truth in truths), strict=True)
        print(f"| {name} | {np.mean(trials):.1f} | {np.mean(costs):.2f} |", flush=True)


def _oracle(truth: Truth, precision: float) -> tuple[int, float]:
    """Its trials, and their cost in EMM. A trial's logit has the variance between seeds, and that of
    counting, 1 / (n r (1 − r))."""
    r = truth.target
    variance = truth.noise**2 + 1 / (truth.n_samples * r * (1 - r))
    n = max(1, math.ceil(variance / (truth.slope * precision) ** 2))
    return n, n * (1 + SAMPLING * truth.n_samples / truth.emm)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=504, help="per row and size of sweep")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--rows",
        default="all",
        help='";"-separated names; "seeds", "workers", "asked", "elsewhere", "oracle" for their tables',
    )
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    rows = (
        [*ROWS, *BASELINES, "seeds", "workers", "asked", "elsewhere", "oracle"]
        if args.rows == "all"
        else args.rows.split(";")
    )
    first, start = args.seed * 100_000, time.perf_counter()
    print(HEADER, flush=True)
    with multiprocessing.get_context("spawn").Pool(args.processes) as processes:
        for name in rows:
            for size in ROWS[name].sizes if name in ROWS else ():
                jobs = [
                    (name, size, first + i) for i in range(math.ceil(args.configurations / size))
                ]
                outcomes = [o for s in processes.map(sweep, jobs, chunksize=1) for o in s]
                print(report(name, size, outcomes, ROWS[name].verdict), flush=True)
            if name in BASELINES:
                tries = [(name, first + i) for i in range(min(args.configurations, 120))]
                print(report(name, 1, processes.map(baseline, tries)), flush=True)
        if "seeds" in rows:
            spread_table(processes, args.configurations, args.seed)
        if "workers" in rows:
            workers_table(processes, args.configurations, args.seed)
        if "asked" in rows:
            asked_table(processes, args.configurations, args.seed)
        if "elsewhere" in rows:
            elsewhere_table(processes, args.configurations, args.seed)
    if "oracle" in rows:
        oracle_table(args.configurations, args.seed)
    print(f"\n{time.perf_counter() - start:.0f} s on {args.processes} processes, seed {args.seed}")


if __name__ == "__main__":
    main()

"""Searches replayed on real trainings: whether the interval of an EMM holds there, and what it costs.

    python -m benchmarks.replay [--searches 504] [--seed 1] [--processes 2] [--only digits-width8]
                                [--wide 4]

A trial of a replay at N is one of the bank's seeds, drawn anew for every trial. Its logit R_mem is a
smooth curve through the means over seeds (without which the luck of twelve seeds at one size would be
a step in the curve) plus what that seed had more or less than the mean, interpolated in ln N between
its sizes and scaled to the spread of the seeds there. The truth is
where the mean over the seeds of these curves crosses the target for good, so it is known exactly;
other seeds would cross elsewhere: `bank sd` is the sd of ln truth over bootstraps of the seeds.
Rows are of studies that are searched and reported alone, and of sweeps of 8 with the pooled prior. A
search covers the sizes of the bank, which were chosen around the crossing; who searches doesn't know
where that is: with `--wide` the range reaches so many times as far. A second table is of what the
same trials tell of the EMM at other targets.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_smoothing_spline
from scipy.special import expit

from benchmarks.bank import BANK, HELD_OUT, NAMES, TABLE
from benchmarks.search_cost import GROUP, search
from sweep.analysis.profile import belief_at
from sweep.search.belief import Observation, base_prior, shape_likelihood
from sweep.search.pooling import pool, pool_each
from sweep.search.rules import Options

Array = NDArray[np.float64]
TARGETS = {"digits-epochs": 0.8}  # its mean is never much above .9
SMOOTHING = (
    0.003  # of the cubic spline; its distance from the means is then what their errors explain
)
N_SAMPLES = 500  # of a trial of the bank
POOLED = 8  # studies in a sweep
ELSEWHERE = (0.95, 0.5, 0.1)  # targets that were not searched for
SWEEPS = {name: (name,) for name in [*NAMES, *HELD_OUT]} | {
    "the demo's two": ("demo-width4", "demo-width8"),
    "the two of the former recipe": ("digits-width4", "digits-width8"),
}


@dataclass(frozen=True)
class RealCurves:
    """`logits` [seeds, sizes] of R_mem after training on `sizes` [sizes] images."""

    sizes: Array
    logits: Array
    cost: Literal["images", "constant"]
    target: float

    @cached_property
    def _mean(self) -> Callable[[float], float]:
        """Of the logits, over seeds, smooth in ln N, between the sizes."""
        weights = 1 / self.logits.var(0, ddof=1)
        weights /= weights.mean()
        means = self.logits.mean(0)
        return make_smoothing_spline(np.log(self.sizes), means, weights, lam=SMOOTHING)

    def mean(self, n: float) -> float:
        """Of the logits. Above the largest size, where nothing was trained, it falls on as it does
        between the last two."""
        x, (a, b) = math.log(n), np.log(self.sizes[-2:])
        if x <= b:
            return float(self._mean(x))
        at_a, at_b = float(self._mean(a)), float(self._mean(b))
        return at_b + (at_b - at_a) / (b - a) * (x - b)

    def at(self, n: float) -> Array:
        """[seeds] R_mem."""
        x, sd = np.log(self.sizes), self.logits.std(0, ddof=1)
        residuals = (self.logits - self.logits.mean(0)) / sd
        own = np.array([np.interp(math.log(n), x, residual) for residual in residuals])
        # between two sizes chance would cancel, and seeds agree more than at either
        own *= np.interp(math.log(n), x, sd) / own.std(ddof=1)
        return np.array(expit(self.mean(n) + own))

    def searched(self, wide: int = 1) -> tuple[int, int]:
        """The range of N that is searched: that of the sizes, its upper end times `wide`."""
        return int(self.sizes[0]), wide * int(self.sizes[-1])

    def trial(self, n: int, rng: np.random.Generator) -> tuple[Observation, float]:
        """One trial, and the images that it trained on."""
        r = float(rng.choice(self.at(n)))
        k = round(r * N_SAMPLES)
        return Observation(n, k / N_SAMPLES, N_SAMPLES), float(n)

    def crossing(self, middle: Callable[..., Any]) -> float:
        """The largest N at which the `middle` over seeds (np.mean or np.median) is the target."""
        n = np.geomspace(self.sizes[0], self.sizes[-1], 1000)
        passed = np.flatnonzero([middle(self.at(one)) >= self.target for one in n])
        return float(n[passed[-1]]) if len(passed) else math.nan


@cache
def curves_of(name: str) -> RealCurves:
    content = json.loads((BANK / f"{name}.json").read_text())
    trials = {(t["seed"], t["n"]): t["r_mem"] for t in content["trials"]}
    sizes = TABLE[name].sizes
    # a bank that was stopped has some sizes of its last seed
    seeds = sorted({seed for seed, _ in trials if all((seed, n) in trials for n in sizes)})
    r = np.array([[trials[seed, n] for n in sizes] for seed in seeds])
    k = r * N_SAMPLES
    by_epochs = content["configuration"]["trainer"]["clock"] == "epochs"
    logits = np.log((k + 0.5) / (N_SAMPLES - k + 0.5))
    cost: Literal["images", "constant"] = "images" if by_epochs else "constant"
    return RealCurves(np.array(sizes, float), logits, cost, TARGETS.get(name, 0.9))


@cache
def truth(name: str, middle: str, target: float | None = None) -> float:
    """At the bank's own target, or another; NaN if it is not crossed."""
    curves = curves_of(name)
    return replace(curves, target=target or curves.target).crossing(getattr(np, middle))


def cost_in_trainings(name: str, trials: int, images: float) -> float:
    """At the EMM: a training costs its N where epochs are fixed (`images` in all), and the same
    whatever N where steps are."""
    return images / truth(name, "mean") if curves_of(name).cost == "images" else float(trials)


@dataclass(frozen=True)
class Outcome:
    """A study, as it is reported; `trials` finished ones, `images` those they trained on."""

    name: str
    verdict: str
    median: float
    low: float
    high: float
    mean: float
    sd: float
    noise: float
    typical: tuple[float, float, float]
    trials: int
    images: float
    elsewhere: dict[float, tuple[float, float]]  # target → interval of the EMM there, if it is told


def sweep(job: tuple[str, int, int, int]) -> list[Outcome]:
    """(sweep, studies, seed, wide): its studies, searched `GROUP` at a time, as in search_cost."""
    which, size, seed, wide = job
    rng = np.random.default_rng((seed, size, zlib.crc32(which.encode())))
    names = [SWEEPS[which][i % len(SWEEPS[which])] for i in range(size)]
    options = []
    for name in names:
        curves = curves_of(name)
        options.append(Options(*curves.searched(wide), curves.target, cost=curves.cost))
    results: dict[int, tuple[list[Observation], float, str]] = {}
    tables: dict[int, Any] = {}
    order = rng.permutation(size)
    for start in range(0, size, GROUP):
        prior = pool(list(tables.values())) if len(tables) >= 4 else base_prior()
        for i in order[start : start + GROUP]:
            how = replace(options[i], prior=prior)
            results[i] = search(curves_of(names[i]), how, rng)  # type: ignore[arg-type]
        for i in order[start : start + GROUP]:
            finished, _, state = results[i]
            if state == "found":
                o = options[i]
                tables[i] = shape_likelihood(finished, o.low, o.high, o.target)
    priors = dict(zip(tables, pool_each(list(tables.values())), strict=True))
    outcomes = []
    for i, (finished, images, state) in results.items():
        reported = replace(options[i], prior=priors.get(i) or base_prior())
        b = reported.belief(finished)
        interval = b.interval()
        there = {target: belief_at(finished, reported, target) for target in ELSEWHERE}
        told = {target: one.interval() for target, one in there.items() if one is not None}
        outcomes.append(
            Outcome(
                *(names[i], state, b.median, *interval, b.mean, b.sd, b.noise, b.median_seed()),
                *(len(finished), images, told),
            )
        )
    return outcomes


HEADER = (
    "| configuration | sweep | searches | found % | coverage % | of the median seed's % | median error % "
    "| bias % | half-width % | z-sd | noise | trials | cost, EMM |\n|" + "---|" * 13
)


ELSEWHERE_HEADER = (
    "| configuration | sweep "
    + "".join(f"| EMM at {target:g} | told % | held % " for target in ELSEWHERE)
    + "|\n|"
    + "---|" * (2 + 3 * len(ELSEWHERE))
)


def row(which: str, name: str, size: int, outcomes: list[Outcome]) -> str:
    """Of the studies of one configuration."""
    found = [o for o in outcomes if o.verdict == "found"]
    emm, typical = truth(name, "mean"), truth(name, "median")
    median, low, high, mean, sd, noise = np.array(
        [(o.median, o.low, o.high, o.mean, o.sd, o.noise) for o in found]
    ).T
    typical_low, _, typical_high = np.array([o.typical for o in found]).T
    covered = np.mean((low < emm) & (emm < high))
    error = 100 * math.sqrt(covered * (1 - covered) / len(found))
    cells = [
        name,
        f"{which}, {size}" if size > 1 else "alone",
        str(len(outcomes)),
        f"{100 * len(found) / len(outcomes):.0f}",
        f"{100 * covered:.1f} ± {error:.1f}",
        f"{100 * np.mean((typical_low < typical) & (typical < typical_high)):.1f}",
        f"{100 * np.median(abs(median / emm - 1)):.1f}",
        f"{100 * (np.exp(np.mean(mean)) / emm - 1):+.1f}",
        f"{100 * np.median(np.sqrt(high / low) - 1):.1f}",
        f"{np.std((mean - math.log(emm)) / sd):.2f}",
        f"{np.median(noise):.2f}",
        f"{np.mean([o.trials for o in outcomes]):.1f}",
        f"{np.mean([cost_in_trainings(name, o.trials, o.images) for o in outcomes]):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def elsewhere_row(which: str, name: str, size: int, outcomes: list[Outcome]) -> str:
    """At each other target: in how many searches the EMM is told, and in how many of these it is
    in the interval."""
    cells = [name, f"{which}, {size}" if size > 1 else "alone"]
    for target in ELSEWHERE:
        emm = truth(name, "mean", target)
        if emm >= curves_of(name).sizes[-1]:  # it passes at all sizes of the bank
            emm = math.nan
        told = [o.elsewhere[target] for o in outcomes if target in o.elsewhere]
        held = [low < emm < high for low, high in told]
        cells += [
            "-" if math.isnan(emm) else f"{emm:.1f}",
            f"{100 * len(told) / len(outcomes):.0f}",
            f"{100 * np.mean(held):.0f}" if held else "-",
        ]
    return "| " + " | ".join(cells) + " |"


def truths_table(names: list[str]) -> None:
    print(
        "| configuration | mean over seeds crosses at | median crosses at | bank sd |\n|---|---|---|---|"
    )
    rng = np.random.default_rng(0)
    for name in names:
        curves = curves_of(name)
        n_seeds = len(curves.logits)
        drawn = [curves.logits[rng.integers(0, n_seeds, n_seeds)] for _ in range(40)]
        sd = np.nanstd([math.log(replace(curves, logits=one).crossing(np.mean)) for one in drawn])
        print(f"| {name} | {truth(name, 'mean'):.1f} | {truth(name, 'median'):.1f} | {sd:.2f} |")


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--searches", type=int, default=504, help="per configuration and row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sizes", default=f"1,{POOLED}", help="studies in a sweep")
    parser.add_argument("--only", metavar="NAME", choices=list(SWEEPS), help="this one alone")
    parser.add_argument("--wide", type=int, default=1, metavar="TIMES")
    args = parser.parse_args()
    chosen = [args.only] if args.only else list(SWEEPS)
    truths_table(sorted({name for which in chosen for name in SWEEPS[which]}))
    print("\n" + HEADER, flush=True)
    elsewhere = []
    with multiprocessing.get_context("spawn").Pool(args.processes) as processes:
        for which in chosen:
            for size in (int(text) for text in args.sizes.split(",")):
                n_sweeps = math.ceil(args.searches * len(SWEEPS[which]) / size)
                jobs = [(which, size, args.seed * 100_000 + i, args.wide) for i in range(n_sweeps)]
                found = [o for s in processes.map(sweep, jobs, chunksize=1) for o in s]
                for name in SWEEPS[which]:
                    own = [o for o in found if o.name == name]
                    if own:
                        print(row(which, name, size, own), flush=True)
                        elsewhere.append(elsewhere_row(which, name, size, own))
    print("\n" + ELSEWHERE_HEADER)
    print("\n".join(elsewhere))


if __name__ == "__main__":
    main()

"""How long a sweep will still take: trials as most searches need them (`sweep.search.cost`), each as
slow as those before it."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from sweep.search.cost import unit, units_left
from sweep.search.rules import Options, Verdict
from trainables.trial.result import Result, TrialRecord

Study = tuple[Options, Verdict]
Running = tuple[TrialRecord, Mapping[str, Any]]  # a trial, and its last report


def seconds_left(
    searching: Mapping[str, Study],
    finished: Iterable[Result],
    running: Iterable[Running],
    workers: int,
) -> float | None:
    """Until all that are searching have a verdict, with so many trials at once; None while no trial
    has shown how long it takes.

    More workers than studies hardly shorten a search, so it is at least what the longest takes.
    """
    finished, running = list(finished), list(running)
    work = longest = 0.0  # seconds of all that is left, and of the study of which most is left
    for name, (options, verdict) in searching.items():
        mine = [trial for trial in running if trial[0].spec.name == name]
        done = [result for result in finished if result.spec.name == name and result.complete]
        pace = _pace(options, done, mine) or _pace(options, finished, running)
        if pace is None:
            return None
        emm = verdict.emm or math.sqrt(options.low * options.high)
        done_at, running_at = [one.spec.n for one in done], [record.spec.n for record, _ in mine]
        next_ones = pace * units_left(options.cost, options, emm, done_at, running_at)
        begun = [_left(options, pace, trial) for trial in mine]
        work += next_ones + sum(begun)
        longest = max(longest, next_ones + max(begun, default=0.0))
    return max(work / workers, longest) if searching else None


def _pace(options: Options, finished: Iterable[Result], running: Iterable[Running]) -> float | None:
    """Seconds that a trial of cost 1 takes; before one is finished, as those that run foresee it."""
    taken = [(result.seconds, result.spec.n) for result in finished if result.complete]
    if not taken:
        taken = [
            (report.get("seconds", 0.0) + report["seconds_left"], record.spec.n)
            for record, report in running
            if report.get("seconds_left")
        ]
    units = sum(unit(options.cost, n) for _, n in taken)
    return sum(seconds for seconds, _ in taken) / units if units else None


def _left(options: Options, pace: float, trial: Running) -> float:
    """Of a trial that runs: its training as it tells, and its samples, by how long others took."""
    record, report = trial
    whole = pace * unit(options.cost, record.spec.n)
    training = float(report.get("seconds_left") or 0.0)
    return max(whole - float(report.get("seconds", 0.0)), training)

"""The commands that say what a sweep costs, before it or without one: `plan`, `fit`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import (
    PATH,
    AsJson,
    Effort,
    EffortOption,
    Guard,
    Only,
    Precision,
    Replicates,
    Settings,
    SpaceName,
    Target,
    Targets,
    check_names,
    parse_targets,
    searched_space,
)
from sweep.cli.printing import say, show
from trainables.errors import UserError
from trainables.text import estimated, human

if TYPE_CHECKING:
    from search_spaces.space import SearchSpace
    from sweep.analysis.study import StudySummary
    from sweep.run.checks import Sweep
    from sweep.run.plan import PlannedConfiguration


def plan(
    space: SpaceName,
    settings: Settings = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    effort: EffortOption = Effort.normal,
    precision: Precision = None,
    target: Target = None,
    guard: Guard = False,
    replicates: Replicates = None,
    targets: Targets = None,
    out: Annotated[
        Path | None,
        typer.Option(
            **PATH, help="Directory of a sweep: what it has trained already is not counted."
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="The same, of a sweep whose trials lie at a URL.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at once, for the estimate of wall time.")
    ] = None,
    tflops: Annotated[
        float,
        typer.Option(
            min=1e-6, help="TFLOP/s that your device sustains, for the estimate of times."
        ),
    ] = 10.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's speed in a few steps instead.")
    ] = False,
    cpus_per_trial: Annotated[
        float, typer.Option(help="CPUs, and threads, of a trial, when it is measured.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Shows size and cost of every configuration; needs no data, and trains nothing but, with
    --measure, a few steps.

    Where the data are here, it refuses what `emm run` would.
    """
    from sweep.run.checks import look_at_data
    from sweep.run.cluster import check_per_trial
    from sweep.run.plan import plan as planned
    from sweep.search.cost import wall_time

    check_per_trial(cpus_per_trial, None)
    chosen = searched_space(
        space,
        settings,
        effort=effort.value,
        precision=precision,
        target=target,
        guard=guard,
        replicates=replicates,
        targets=None if targets is None else parse_targets(targets),
    )
    check_names(chosen, "--only", only)
    sweep, notes = look_at_data(chosen)
    known = {} if out is None and storage is None else _known(chosen, sweep, out, storage)
    device = None
    if measure:
        from trainables.trial.trial import choose_device

        device = choose_device()
    threads = max(1, int(cpus_per_trial))
    rows = planned(chosen, tflops, device, threads, known, only)
    left = [row.hours_left for row in rows if row.hours_left is not None]
    is_told = len(left) == len(rows)
    wall = wall_time(left, workers) if is_told and workers else None
    if as_json:
        content = {
            "space": chosen.name,
            "configurations": [asdict(row) for row in rows],
            "hours_left": sum(left) if is_told else None,
            "workers": workers,
            "wall_hours": wall,
            "notes": notes,
        }
        say(json.dumps(content, indent=1))
        return
    search = chosen.search
    speed = f"at {tflops:g} TFLOP/s (--tflops X, or --measure for this machine)"
    if device is not None:
        speed = f"as measured on this {device.type.upper()}"
    if device is not None and device.type == "cpu":
        speed += f" with {threads} {'thread' if threads == 1 else 'threads'}"
    say(": ".join(filter(None, (chosen.name, chosen.question))))
    say(
        f"N from {search.n_low:,} to {search.n_high:,}, until sd(ln EMM) <= {search.precision:.3g} "
        f"at R_mem = {search.target}"
    )
    say(f"times {speed}")
    for note in notes:
        say(f"note: {note}")
    say()
    _tabulate(rows, bool(known))
    if not is_told:
        say("\n?: a trainer of your own, or nothing to count; --measure measures what is trained")
        return
    unit = "GPU" if device is None or device.type == "cuda" else device.type.upper()
    _tell_total(rows, unit, bool(known))
    if wall:
        say(f"with {workers} {'worker' if workers == 1 else 'workers'}: about {estimated(wall)}")


def _tell_total(rows: "list[PlannedConfiguration]", unit: str, with_known: bool) -> None:
    whole = sum(row.hours_search or 0 for row in rows)
    say(
        f"\nall searches: {estimated(whole)} of one {unit}, if they cost as much as most and each "
        "EMM is the geometric middle of the range of N"
    )
    left = sum(row.hours_left or 0 for row in rows)
    if with_known and left:
        say(f"left of them: {estimated(left)}, at the pace of its trials so far")
    elif with_known:
        say("left of them: nothing")


def _tabulate(rows: "list[PlannedConfiguration]", with_known: bool) -> None:
    """At both ends of the range of N, where they differ."""
    from sweep.report.console import Setting, grid

    columns: dict[str, Setting] = {"configuration": "fold"}
    numbers = ("parameters", "GFLOPs\nan image", "steps of\na trial", "images of\na trial")
    columns |= dict.fromkeys((*numbers, "time of\na trial", "time of\na search"), "right")
    if with_known:
        columns |= {"trials\nfinished": "right", "state": "left", "time\nleft": "right"}
    lines = []
    for row in rows:
        cells = [
            row.name,
            human(row.parameters) if row.parameters else "-",
            f"{row.flops_per_image / 1e9:.3g}" if row.flops_per_image else "-",
            _ends(f"{row.steps_low:,}", f"{row.steps_high:,}"),
            _ends(human(row.images_low), human(row.images_high)),
            _ends(estimated(row.hours_low), estimated(row.hours_high)),
            estimated(row.hours_search),
        ]
        known = [str(row.trials), row.state or "", estimated(row.hours_left)]
        if row.hours_left == 0:
            known[2] = "-"
        lines.append(cells + (known if with_known else []))
    show(grid(columns, lines))


def _ends(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _known(
    space: "SearchSpace", sweep: "Sweep | None", out: Path | None, storage: str | None
) -> "dict[str, StudySummary]":
    """What is known already, by name. Raises UserError if it is no sweep of this space."""
    from sweep.analysis.summary import summary_of
    from sweep.run.checks import check_sweep
    from sweep.store.files import read_sweep, read_trials
    from sweep.store.places import new_place
    from sweep.store.priors import FrozenPriors

    here = new_place(out, storage).storage
    if sweep is not None:
        check_sweep(here, sweep)
    former = read_sweep(here)
    if former is None:
        return {}
    if former.space.name != space.name:
        raise UserError(f"{here.shown} holds the sweep of {former.space.name}, not of {space.name}")
    keys = {**former.configurations, **(sweep.keys() if sweep else {})}
    results, started, damaged = read_trials(here, space, keys)
    for line in damaged:
        say(f"passed over: {line}", file=sys.stderr)
    summary = summary_of(space, results, started, FrozenPriors(here, keys))
    return {study.name: study for study in summary.studies}


def fit(
    points: Annotated[
        Path,
        typer.Argument(
            metavar="POINTS.csv",
            help="Columns n, r_mem and, if known, n_samples, configuration, right_censored, state.",
        ),
    ],
    target: Annotated[float, typer.Option(help="The R_mem whose crossing is sought.")] = 0.9,
    precision: Annotated[
        float, typer.Option(help="Standard deviation of ln EMM to be reached.")
    ] = 0.12,
    n_low: Annotated[int | None, typer.Option(help="Range of N; from half the smallest …")] = None,
    n_high: Annotated[int | None, typer.Option(help="… to twice the largest N by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Belief and next N from trials that were done elsewhere: an old grid is not wasted. Trains
    nothing.

    Where there is a column of configurations, each is fitted alone; trials.csv of a report is such
    a table.
    """
    from sweep.search.points import fit_points, fit_table, read_table
    from sweep.search.words import belief_text, counted

    table = read_table(points)
    fits = fit_table(table, lambda trials: fit_points(trials, target, precision, n_low, n_high))
    for note in table.notes:
        say(f"note: {note}", file=sys.stderr)
    if as_json:
        rows = [{**asdict(fitted.verdict), "next_n": fitted.next_n} for fitted in fits.values()]
        named = [{"name": name, **row} for name, row in zip(fits, rows, strict=True)]
        say(json.dumps({"configurations": named} if table.is_split else rows[0], indent=1))
        return
    for name, fitted in fits.items():
        whose, verdict = f"{name}: " if table.is_split else "", fitted.verdict
        say(
            f"{whose}{verdict.state}: {belief_text(verdict, fitted.options)}, from "
            f"{counted(verdict.n_trials, 'trial')}"
        )
        say(verdict.reason)
        if fitted.next_n is not None:
            say(f"next: train at N = {fitted.next_n}")

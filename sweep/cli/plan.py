"""The commands that say what a sweep costs, before it or without one: `plan`, `fit`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import AsJson, Settings, SpaceName, space_of
from sweep.cli.printing import say, show
from trainables.text import estimated_hours, human


def plan(
    space: SpaceName,
    settings: Settings = [],  # noqa: B006
    tflops: Annotated[
        float,
        typer.Option(
            min=1e-6, help="TFLOP/s that your device sustains, for the estimate of hours."
        ),
    ] = 10.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's speed in a few steps instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows size and cost of every configuration; needs no data, and trains nothing but, with
    --measure, a few steps."""
    chosen = space_of(space, settings)
    from sweep.report.console import Setting, grid
    from sweep.run.plan import plan as planned

    device = None
    if measure:
        from trainables.trial.trial import choose_device

        device = choose_device()
    rows = planned(chosen, tflops, device)
    if as_json:
        say(
            json.dumps(
                {"space": chosen.name, "configurations": [asdict(row) for row in rows]}, indent=1
            )
        )
        return
    search = chosen.search
    speed = f"as measured on this {device.type}" if device else f"at {tflops:g} TFLOP/s"
    say(": ".join(filter(None, (chosen.name, chosen.question))))
    say(
        f"N from {search.n_low} to {search.n_high}, until sd(ln EMM) <= {search.precision:.3g} at "
        f"R_mem = {search.target}"
    )
    say(
        "steps, images trained and device hours of one trial at these ends; of a whole search; "
        f"{speed}\n"
    )
    lines = [
        (
            row.name,
            human(row.parameters),
            f"{row.flops_per_image / 1e9:.3g}",
            f"{row.steps_low:,} - {row.steps_high:,}",
            f"{row.images_low:.2g} - {row.images_high:.2g}",
            f"{estimated_hours(row.hours_low)} - {estimated_hours(row.hours_high)}",
            estimated_hours(row.hours_search),
        )
        for row in rows
    ]
    numbers = ("parameters", "GFLOPs/image", "steps", "images", "hours", "search")
    columns: dict[str, Setting] = {"configuration": "fold", **dict.fromkeys(numbers, "right")}
    show(grid(columns, lines))
    if all(row.hours_search is not None for row in rows):
        total = sum(row.hours_search or 0 for row in rows)
        say(
            f"\nall searches: {estimated_hours(total)} device hours, if each EMM is the geometric "
            "middle of the range of N"
        )


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
    from sweep.search.words import belief_text

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
            f"{verdict.n_trials} trials"
        )
        say(verdict.reason)
        if fitted.next_n is not None:
            say(f"next: train at N = {fitted.next_n}")

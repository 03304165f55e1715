"""The command line, `emm`: the commands that read, and the way in. Heavy imports stand inside the commands, so that
`emm --help` is instant. What trains is in `sweep.cli_run`."""

import io
import json
import logging
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sweep import cli_run
from sweep.audit import audit
from sweep.escapes import say, visible
from sweep.options import AsJson, Settings, SpaceName, Sweep_, console, destination, space_of
from trainables.errors import TrialFailed, UserError
from trainables.import_path import ours_first
from trainables.storage import RedactedFormatter, redacted

# Typer carries a click of its own since 0.20; this finds the base of its errors in either
UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


for command in (cli_run.run, cli_run.trial, cli_run.stop):
    app.command()(command)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    options_metavar="SPACE [OPTIONS OF RUN] [OPTIONS]",
)(cli_run.submit)


@app.callback()
def emm() -> None:
    """Finds the effective model memorization (EMM) of diffusion configurations: the largest number of training images N at
    which at least 90 % of what a model generates are copies of its training images."""


@app.command()
def spaces(
    space: Annotated[str | None, typer.Argument(metavar="[SPACE]", help="One of them, in full.")] = None,
    as_json: AsJson = False,
) -> None:
    """Lists the search spaces, with their question and cost class; of one, also where it comes from and what is known."""
    from search_spaces.find import find_space
    from search_spaces.table import SPACES

    chosen = list(SPACES.values()) if space is None else [find_space(space)]
    fields = ("name", "question", "source", "expectation", "cost")
    rows = [{**{name: getattr(s, name) for name in fields}, "configurations": len(s.configurations)} for s in chosen]
    if as_json:
        say(json.dumps(rows, indent=1))
    elif space is not None:
        say("\n".join(f"{name:<14}  {value}" for name, value in rows[0].items()))
        say("\n".join(f"{'':<14}  {named.name}" for named in chosen[0].configurations))
    else:
        width = max(len(str(row["name"])) for row in rows)
        for row in rows:
            say(f"{row['name']:<{width}}  {row['configurations']:>2} x  {row['cost']:<22}  {row['question']}")


@app.command()
def plan(
    space: SpaceName,
    settings: Settings = [],  # noqa: B006
    tflops: Annotated[
        float, typer.Option(min=1e-6, help="TFLOP/s that your device sustains, for the estimate of hours.")
    ] = 10.0,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine's speed in a few steps instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows size and cost of every configuration; needs no data, and trains nothing but, with --measure, a few steps."""
    chosen = space_of(space, settings)
    from sweep.plan import plan as planned
    from trainables.trial import choose_device

    device = choose_device() if measure else None
    rows = planned(chosen, tflops, device)
    if as_json:
        say(json.dumps({"space": chosen.name, "configurations": [asdict(row) for row in rows]}, indent=1))
        return
    search, speed = chosen.search, f"as measured on this {device.type}" if device else f"at {tflops:g} TFLOP/s"
    say(f"{chosen.name}: {chosen.question}")
    say(f"N from {search.n_low} to {search.n_high}, until sd(ln EMM) <= {search.precision} at R_mem = {search.target}")
    say(f"steps, images trained and device hours of one trial at these ends; of a whole search; {speed}\n")
    width = max(20, *(len(row.name) for row in rows))
    titles = f"{'parameters':>11} {'GFLOPs/image':>13} {'steps':>21} {'images':>15} {'hours':>17} {'search':>9}"
    say(f"{'configuration':<{width}} {titles}")
    for row in rows:
        steps, images = f"{row.steps_low:,} - {row.steps_high:,}", f"{row.images_low:.2g} - {row.images_high:.2g}"
        hours = f"{_hours(row.hours_low)} - {_hours(row.hours_high)}"
        size = f"{_millions(row.parameters):>11} {row.flops_per_image / 1e9:>13.3g}"
        say(f"{row.name:<{width}} {size} {steps:>21} {images:>15} {hours:>17} {_hours(row.hours_search):>9}")
    if all(row.hours_search is not None for row in rows):
        total = sum(row.hours_search or 0 for row in rows)
        say(f"\nall searches: {_hours(total)} device hours, if each EMM is the geometric middle of the range of N")


@app.command()
def fit(
    points: Annotated[
        Path,
        typer.Argument(
            metavar="POINTS.csv", help="Columns n, r_mem and, if known, n_samples, configuration, right_censored, state."
        ),
    ],
    target: Annotated[float, typer.Option(help="The R_mem whose crossing is sought.")] = 0.9,
    precision: Annotated[float, typer.Option(help="Standard deviation of ln EMM to be reached.")] = 0.12,
    n_low: Annotated[int | None, typer.Option(help="Range of N; from half the smallest …")] = None,
    n_high: Annotated[int | None, typer.Option(help="… to twice the largest N by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Belief and next N from trials that were done elsewhere: an old grid is not wasted. Trains nothing.

    Where there is a column of configurations, each is fitted alone; trials.csv of a report is such a table.
    """
    from sweep.fit import fit_points, fit_table, read_table
    from sweep.wording import belief_text

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
        say(f"{whose}{verdict.state}: {belief_text(verdict, fitted.options)}, from {verdict.n_trials} trials")
        say(verdict.reason)
        if fitted.next_n is not None:
            say(f"next: train at N = {fitted.next_n}")


@app.command()
def status(directory: Sweep_, as_json: AsJson = False) -> None:
    """Shows what is known of every study now, and what is training."""
    from sweep.budget import hours_spent
    from sweep.lock import holder_of
    from sweep.places import place
    from sweep.summary import summarize
    from sweep.wording import belief_text

    storage = place(directory).storage
    summary, hours = summarize(storage), hours_spent(storage)
    holder = holder_of(storage)
    if as_json:
        driver = None if holder is None else {key: holder[key] for key in ("host", "pid", "renewed")}
        say(json.dumps({**summary.as_json(), "driver": driver, "device_hours": hours}, indent=1))
        return
    running = f"driver {holder['pid']} on {holder['host']}" if holder else "no driver is running"
    say(f"{summary.name}: {running}, {hours:.3g} device hours")
    for line in summary.damaged:
        say(f"passed over: {line}")
    for study in summary.studies:
        trials = f"{len(study.complete)} trials, {len(study.running)} started"
        started = ", ".join(f"N={record.spec.n} seed={record.spec.seed}" for record in study.running)
        say(f"{study.name}  {study.verdict.state}  {belief_text(study.verdict, study.options)}  {trials}  {started}".rstrip())


@app.command()
def report(
    directory: Sweep_,
    out: Annotated[Path | None, typer.Option(help="Where the report goes; DIR/report by default.")] = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="K", help="Judge copies by another k, e.g. 1/2, from the kept distances.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prints the table of a sweep and writes its report."""
    from sweep.gallery import pictures_of
    from sweep.other_k import parse_k
    from sweep.places import check_writable, place
    from sweep.report import print_table, write_report
    from sweep.summary import summarize

    here, chosen = place(directory), None if k is None else parse_k(k)
    summary = summarize(here.storage, chosen)
    if as_json:
        say(json.dumps(summary.as_json(), indent=1))
        return
    name = "report" if chosen is None else f"report-k{chosen:.3g}"  # beside the report at the sweep's own k
    target = out or (here.views / name if here.views else Path(f"{summary.name}-{name}"))
    if target.exists() and not target.is_dir():
        raise UserError(f"--out {target}: this is a file; choose a directory")
    if out is None:
        check_writable(target)
    terminal = console()
    print_table(summary, terminal)
    page = write_report(summary, target, pictures_of(summary.space, here.storage), say)
    terminal.print(f"report: {page}", soft_wrap=True, highlight=False)


app.command()(audit)


@app.command()
def ui(directory: Sweep_, port: Annotated[int | None, typer.Option(help="Port; a free one by default.")] = None) -> None:
    """Opens the sweep in the MLflow UI, on loopback."""
    from sweep.places import place
    from sweep.ui import serve

    here = place(directory)
    if here.views is None:
        raise UserError(f"{here.storage.shown} has no local directory; look at the MLflow server that --tracking-uri named")
    serve(here.storage, here.views, port)


@app.command()
def sync(
    directory: Sweep_,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; the database in DIR by default.")] = None,
) -> None:
    """Rebuilds Optuna's database and MLflow's runs from the results."""
    from sweep.driver import Sweep
    from sweep.lock import holder_of
    from sweep.places import check_writable, place
    from sweep.pooling import FrozenPriors
    from sweep.studies import Studies
    from sweep.summary import read_finals, read_keys, read_space, read_trials, summary_of
    from sweep.tracking import sync as sync_mlflow
    from sweep.ui import check_tracking, sqlite_url, why_unreachable

    if tracking_uri:
        check_tracking(tracking_uri)
        if reason := why_unreachable(tracking_uri):
            raise UserError(f"--tracking-uri {redacted(tracking_uri)}: no MLflow can be reached there ({reason})")
    here = place(directory)
    storage, views = here.storage, here.views
    space = read_space(storage)
    if views is None and tracking_uri is None:
        raise UserError("--tracking-uri: say which MLflow server, since the sweep has no local directory")
    if views is not None:
        check_writable(views, *(views / name for name in ("optuna.db", "mlflow.db", "artifacts")))
    keys = read_keys(storage)
    results, started, damaged = read_trials(storage, space, keys)
    priors = FrozenPriors(storage, keys)
    is_live = holder_of(storage) is not None  # then Optuna's database is the driver's
    is_rebuilt = views is not None and not is_live
    if views is not None and is_rebuilt:
        Studies(space, sqlite_url(views / "optuna.db"), priors).reconcile(results, started)
    where = destination(space, views or Path.cwd(), tracking_uri, Sweep(space).data_of)
    summary = summary_of(space, results, started, priors, read_finals(storage), damaged)
    sync_mlflow(summary, storage, where, live=is_live)
    for line in damaged:
        say(f"passed over: {line}")
    say(f"{len(results)} results are in MLflow" + (" and in Optuna's database" if is_rebuilt else ""))


@app.command()
def purge(directory: Sweep_, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False) -> None:
    """Removes a sweep: trials, results, databases, report. MLflow servers keep what they have."""
    from sweep.places import check_pointed, place, purge as remove
    from sweep.summary import read_space
    from trainables.result import read_all

    here = place(directory)
    name, (results, started, _) = read_space(here.storage).name, read_all(here.storage)
    if yes:
        check_pointed(here)
    else:
        question = f"Remove {name} in {here.storage.shown}: {len(results)} results and {len(started)} unfinished trials?"
        typer.confirm(visible(question), abort=True)
    left = remove(here)
    say(f"removed: {here.storage.shown}" + (f"; not of the sweep, and kept: {', '.join(left)}" if left else ""))


def _hours(hours: float | None) -> str:
    return "?" if hours is None else f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0: done; 2: the user's mistake, in one line; 1: ours, with a traceback in the log."""
    ours_first()  # again, for those who come by another way than `emm`
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no σ shows \\u03c3
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(RedactedFormatter())
    try:
        sys.exit(app(args=arguments, prog_name="emm", standalone_mode=False) or 0)
    except (UserError, UsageError) as error:
        text = str(error) if isinstance(error, UserError) else error.format_message()
        say(f"emm: error: {redacted(' '.join(text.splitlines()))}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except TrialFailed as error:
        say(f"emm: the trial failed: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception:  # the outermost frame: nothing below may end without a trace
        logging.getLogger("emm").exception("emm failed")
        say(redacted(traceback.format_exc()), end="", file=sys.stderr)
        sys.exit(1)

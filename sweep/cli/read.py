"""The commands that read a sweep: `status`, `report`, `ui`, `sync`, `purge`."""

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import PATH, AsJson, Sweep_
from sweep.cli.printing import console, say, show
from trainables.errors import UserError
from trainables.text import redacted, span, visible

if TYPE_CHECKING:
    from sweep.store.places import Place


def status(directory: Sweep_, as_json: AsJson = False) -> None:
    """Shows what is known of every study now, and what is training."""
    from sweep.analysis.summary import summarize
    from sweep.report.failed import failed_line
    from sweep.report.live import still
    from sweep.search.words import counted
    from sweep.store.budget import hours_spent
    from sweep.store.lock import holder_of
    from sweep.store.places import place

    storage = place(directory).storage
    summary, hours = summarize(storage), hours_spent(storage)
    holder = holder_of(storage)
    if as_json:
        told = None if holder is None else {key: holder[key] for key in ("host", "pid", "renewed")}
        say(json.dumps({**summary.as_json(), "driver": told, "device_hours": hours}, indent=1))
        return
    driver = f"driver {holder['pid']} on {holder['host']}" if holder else "no driver is running"
    say(f"{summary.name}: {driver}; {span(hours * 3600)} of device time so far")
    for line in summary.damaged:
        say(f"passed over: {line}")
    searching = [study for study in summary.studies if study.verdict.state == "searching"]
    begun = [record for study in searching for record in study.running]
    show(
        still(
            [study.name for study in summary.studies],
            {study.name: study.verdict for study in summary.studies},
            {study.name: study.options for study in summary.studies},
            begun if holder else [],
            console(),
        )
    )
    failed = failed_line(summary)
    if failed is not None:
        say(failed)
    if begun and not holder:
        trials = counted(len(begun), "unfinished trial")
        say(f"the same emm run goes on with {trials}")


def report(
    directories: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR",
            help="The --out directory or --storage URL of a sweep; of several, compared.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(**PATH, help="Where the report goes; DIR/report by default.")
    ] = None,
    k: Annotated[
        str | None,
        typer.Option(
            "--k", metavar="K", help="Judge copies by another k, e.g. 1/2, from the kept distances."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prints the table of a sweep, or of single trials, and writes its report; of several sweeps, side
    by side, with the contrasts across them."""
    from sweep.cli.options import parse_k
    from sweep.report.hands import begun_early
    from sweep.store.files import SWEEP
    from sweep.store.lone_trials import holds_lone_trials
    from sweep.store.places import place

    chosen = None if k is None else parse_k(k)
    places = [place(directory) for directory in directories]
    here, is_alone = places[0], len(places) == 1
    lone = [one.storage for one in places if holds_lone_trials(one.storage)]
    if lone and not is_alone:
        raise UserError(f"{lone[0].shown}: trials of emm trial are reported alone")
    if lone and chosen is not None:
        raise UserError(
            f"--k: {lone[0].shown} holds trials of emm trial, which are judged by their own k"
        )
    if lone:
        _report_lone_trials(here, out, as_json)
        return
    has_report = here.views is None or (here.views / "report").exists()
    is_new = not as_json and is_alone and not has_report and here.storage.exists(SWEEP)
    with begun_early(is_new):
        _report_sweeps(directories, places, chosen, out, as_json)


def _report_lone_trials(here: "Place", out: Path | None, as_json: bool) -> None:
    from sweep.cli.lone_report import report_lone_trials
    from sweep.store.places import make_directory

    target = out or (here.views / "report" if here.views else Path("trials-report"))
    _check_target(target, out)
    if not as_json:
        make_directory(target)
    report_lone_trials(here.storage, target, as_json)


def _report_sweeps(
    directories: list[str],
    places: "list[Place]",
    k: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    from sweep.analysis.summary import summarize
    from sweep.analysis.views import called_apart, joined
    from sweep.store.places import make_directory

    here, is_alone = places[0], len(places) == 1
    names = called_apart(directories)
    sweeps = [summarize(one.storage, k) for one in places]
    summary = sweeps[0] if is_alone else joined(dict(zip(names, sweeps, strict=True)))
    if as_json:
        say(json.dumps(summary.as_json(), indent=1))
        return
    from sweep.report.files import write_report
    from sweep.report.gallery import pictures_of
    from sweep.report.table import print_table

    # beside the report of the sweep itself, at its own k
    words = ["report"] if is_alone else ["report", "with", *names[1:]]
    name = re.sub(r"[^\w.-]+", "-", "-".join(words))
    if k is not None:
        name += f"-k{k:.3g}"
    target = out or (here.views / name if here.views else Path(f"{sweeps[0].name}-{name}"))
    _check_target(target, out)
    make_directory(target)
    terminal = console()
    pictures = pictures_of(summary.space, here.storage) if is_alone else None
    show_table = partial(print_table, summary, terminal, target)
    page = write_report(summary, target, pictures, say, show_table)
    terminal.print(f"report: {page}", soft_wrap=True, highlight=False)


def _check_target(target: Path, out: Path | None) -> None:
    """Raises UserError if no report can be written there; `out`: as it was asked for."""
    from sweep.store.places import check_directory, check_writable

    check_directory(f"--out {target}", target)
    if out is None:
        check_writable(target)


def ui(
    directory: Sweep_,
    port: Annotated[int | None, typer.Option(help="Port; a free one by default.")] = None,
) -> None:
    """Opens the sweep in the MLflow UI, on loopback."""
    from sweep.store.places import place
    from sweep.tracking.server import serve

    here = place(directory)
    if here.views is None:
        raise UserError(
            f"{here.storage.shown} has no local directory; look at the MLflow server that "
            "--tracking-uri named"
        )
    serve(here.storage, here.views, partial(say, flush=True), port)


def sync(
    directory: Sweep_,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server; the database in DIR by default.")
    ] = None,
) -> None:
    """Rebuilds Optuna's database and MLflow's runs from the results."""
    from sweep.report.hands import begun_early
    from sweep.store.files import SWEEP
    from sweep.store.places import place
    from sweep.tracking.place import DATABASE, check_tracking, why_unreachable

    if tracking_uri:
        check_tracking(tracking_uri)
        reason = why_unreachable(tracking_uri)
        if reason:
            raise UserError(
                f"--tracking-uri {redacted(tracking_uri)}: no MLflow can be reached there "
                f"({reason})"
            )
    here = place(directory)
    if here.views is None and tracking_uri is None:
        raise UserError(
            "--tracking-uri: say which MLflow server, since the sweep has no local directory"
        )
    has_database = here.views is None or (here.views / DATABASE).exists()
    is_new = tracking_uri is None and not has_database and here.storage.exists(SWEEP)
    with begun_early(is_new):
        _sync(here, tracking_uri)


def _sync(here: "Place", tracking_uri: str | None) -> None:
    from sweep.analysis.summary import summary_of
    from sweep.run.checks import Sweep
    from sweep.run.studies import Studies
    from sweep.search.words import counted
    from sweep.store.databases import sound_url
    from sweep.store.files import read_finals, read_made_sweep, read_trials
    from sweep.store.lock import holder_of
    from sweep.store.places import check_writable
    from sweep.store.priors import FrozenPriors
    from sweep.tracking.place import destination
    from sweep.tracking.sync import sync as sync_mlflow

    storage, views = here.storage, here.views
    made = read_made_sweep(storage)
    space = made.space
    if views is not None:
        check_writable(views, *(views / name for name in ("optuna.db", "mlflow.db", "artifacts")))
    keys = made.configurations
    results, started, damaged = read_trials(storage, space, keys)
    priors = FrozenPriors(storage, keys)
    is_live = holder_of(storage) is not None  # then Optuna's database is the driver's
    is_rebuilt = views is not None and not is_live

    def rebuild() -> None:
        if views is not None and is_rebuilt:
            Studies(space, sound_url(views / "optuna.db", say), priors).reconcile(results, started)

    where = destination(space, views or Path.cwd(), tracking_uri, Sweep(space).data_of)
    summary = summary_of(space, results, started, priors, read_finals(storage), damaged, made.runs)
    sync_mlflow(summary, storage, where, is_live, rebuild)
    for line in damaged:
        say(f"passed over: {line}")
    say(
        f"{counted(len(results), 'result')} {'is' if len(results) == 1 else 'are'} in MLflow"
        + (" and in Optuna's database" if is_rebuilt else "")
    )


def purge(
    directory: Sweep_, yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False
) -> None:
    """Removes a sweep: trials, results, databases, report. MLflow servers keep what they have."""
    from sweep.search.words import counted
    from sweep.store.files import read_space
    from sweep.store.places import check_pointed, place, purge as remove
    from trainables.trial.result import read_all

    here = place(directory)
    name, (results, started, _) = read_space(here.storage).name, read_all(here.storage)
    if yes:
        check_pointed(here)
    else:
        trials = (
            f"{counted(len(results), 'result')} and {counted(len(started), 'unfinished trial')}"
        )
        question = f"Remove {name} in {here.storage.shown}: {trials}?"
        typer.confirm(visible(question), abort=True)
    left = remove(here)
    say(
        f"removed: {here.storage.shown}"
        + (f"; not of the sweep, and kept: {', '.join(left)}" if left else "")
    )

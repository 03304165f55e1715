"""`emm run`: finds the EMM of every configuration of a space."""

import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import (
    Precision,
    Settings,
    SpaceName,
    Target,
    console,
    shown,
    space_of,
)
from sweep.tracking.place import destination
from trainables.storage import RedactedFormatter
from trainables.text import say

if TYPE_CHECKING:
    from rich.console import Console

    from sweep.run.driver import Run
    from sweep.run.machines import Resources
    from sweep.store.places import Place
    from sweep.tracking.place import Destination


GONE_SECONDS = 13.0  # from a SIGTERM to the end of the driver, at most


class Objective(StrEnum):
    cost = "cost"
    wall = "wall"


def run(
    space: SpaceName,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the sweep; the same one again resumes it.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="URL for trials and results (s3://, gs://, NFS path) in place of DIR."),
    ] = None,
    settings: Settings = [],  # noqa: B006
    precision: Precision = None,
    target: Target = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; as many as fit by default.")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs, and threads, of a trial.")] = 1,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="GPUs of a trial; 1 by default if there are any.")
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="With more workers than studies: save images, or time.")
    ] = Objective.wall,
    guard: Annotated[
        bool, typer.Option(help="Also try N at 4 × the estimate, against curves that dip and rise.")
    ] = False,
    replicates: Annotated[
        int | None, typer.Option(min=1, help="Seeds at every N that is tried.")
    ] = None,
    early_accept: Annotated[
        bool, typer.Option(help="End a trial at a snapshot that is clearly above the target.")
    ] = False,
    final_samples: Annotated[
        int | None, typer.Option(min=1, help="Images of a last measurement near each EMM.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster to join.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server; a database in DIR by default.")
    ] = None,
    budget_hours: Annotated[
        float | None,
        typer.Option(
            min=0, help="Device hours for all trials, those of earlier runs included; then it ends."
        ),
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(help="When this run ends: 90m, 6h, 2d, or 2026-01-31T08:00.")
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train the failed trials of studies without an answer again."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result alone.")] = False,
) -> None:
    """Finds the EMM of every configuration of a space: starts, resumes or extends the sweep in
    DIR."""
    from sweep.cli.options import parse_deadline
    from sweep.run.cluster import check_per_trial
    from sweep.store.budget import Limits
    from sweep.store.places import check_views, create_private, new_place, remember
    from sweep.tracking.place import check_tracking, why_unreachable
    from trainables.storage import redacted

    check_per_trial(cpus_per_trial, gpus_per_trial)
    if tracking_uri:
        check_tracking(tracking_uri)
    here = new_place(out, storage)
    given = {"search.precision": precision, "search.target": target, "search.guard": guard or None}
    given |= {"search.replicates": replicates, "search.final_samples": final_samples}
    chosen = space_of(space, settings, **given)
    limits = Limits(budget_hours, parse_deadline(deadline) if deadline else None)
    if tracking_uri and (reason := why_unreachable(tracking_uri)):
        say(
            f"warning: no MLflow can be reached at {redacted(tracking_uri)} ({reason}); the sweep goes on without it",
            file=sys.stderr,
            flush=True,
        )
    from sweep.run.checks import Sweep, check_sweep
    from sweep.run.driver import Run
    from sweep.run.machines import Resources, start_ray
    from sweep.run.retry import reopen_failed
    from sweep.search.rules import accept_bound
    from sweep.store.lock import Lock

    if early_accept:
        chosen = chosen.with_settings({"measurement.accept": accept_bound(chosen.search.target)})
    resources = Resources(cpus_per_trial, gpus_per_trial, workers, address, objective.value)
    if address is None:
        _check_machine(resources)
    else:
        start_ray(resources)
    sweep = Sweep(chosen)
    sweep.load_data()
    check_sweep(here.storage, sweep)
    check_views(here)
    create_private(here)
    with Lock(here.storage), _views(here) as views:
        check_sweep(here.storage, sweep)  # another driver may have begun one meanwhile
        _log_to(None if here.views is None else views / "emm.log")
        for result in reopen_failed(here.storage, chosen, sweep.keys()) if retry_failed else ():
            say(
                f"tried again: {result.spec.name} N={result.spec.n} seed={result.spec.seed}, which failed: {result.cause}"
            )
        one = Run(sweep, here.storage, views, resources, limits=limits)
        remember(here, one.sweep_id)
        is_tracked = here.views is not None or tracking_uri is not None
        where = destination(chosen, views, tracking_uri, sweep.data_of) if is_tracked else None
        in_mlflow = _run(one, where, quiet, None if here.views is None else views / "report")
        if not in_mlflow:
            lacks = "some of this sweep" if where else "this sweep"
            say(f"MLflow lacks {lacks}: {_sync_command(here, tracking_uri)} writes it")
        elif tracking_uri is None:
            say(f"compare in MLflow: emm ui {shown(views)}")
    if one.ended and _is_open(one):
        say(one.ended)
    elif not one.is_decided:
        say("interrupted; the same command goes on where it stopped")
        raise typer.Exit(130)


@contextmanager
def _views(here: "Place") -> Iterator[Path]:
    """The directory of Optuna's database and Tune's files; if the sweep has none, a temporary
    one."""
    if here.views is not None:
        yield here.views
        return
    with tempfile.TemporaryDirectory(prefix="emm-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def _sync_command(here: "Place", tracking_uri: str | None) -> str:
    """The command that writes what this very MLflow lacks; credentials left out."""
    from trainables.storage import redacted

    kept = here.storage.shown if here.views is None else shown(here.views)
    command = ["emm", "sync", kept]
    if tracking_uri or here.views is None:
        command += ["--tracking-uri", redacted(tracking_uri or "http://HOST:PORT")]
    return shlex.join(command)


def _run(one: "Run", where: "Destination | None", quiet: bool, report: Path | None) -> bool:
    """Runs a sweep to its table, and to its report if there is a directory for it.

    Returns whether MLflow holds all of it.
    """
    from sweep.report.files import write_report
    from sweep.report.gallery import pictures_of
    from sweep.report.table import print_table
    from sweep.tracking.tracker import make_up

    terminal = console()
    for name, data in {data.source: data for data in one.sweep.data.values()}.items():
        if data.duplicates:
            terminal.print(
                f"note: {data.duplicates} of the {len(data)} images of {name} equal another one; copies of them don't count"
            )
    for note in dict.fromkeys(note for data in one.sweep.data.values() for note in data.notes):
        terminal.print(f"note: {note}", markup=False, highlight=False)
    if _is_open(one):
        in_mlflow = _fit(one, where, console(quiet))
    else:
        in_mlflow = where is not None and make_up(one.summary(), one.storage, where)
    summary = one.summary()
    print_table(summary, terminal)
    if report is None:
        page = f"emm report {shlex.quote(one.storage.shown)} writes it"
    else:
        page = shown(write_report(summary, report, pictures_of(summary.space, one.storage), say))
    terminal.print(f"report: {page}", soft_wrap=True, highlight=False)
    return in_mlflow


def _is_open(one: "Run") -> bool:
    from sweep.analysis.finals import missing_finals

    return not one.is_decided or bool(missing_finals(one.summary()))


def _fit(one: "Run", where: "Destination | None", console: "Console") -> bool:
    """Until every study has a verdict, or the budget, the deadline or a signal ends it. After a
    SIGTERM there are seconds.

    Returns whether MLflow holds all of it.
    """
    from sweep.report.live import Terminal
    from sweep.report.rows import final_line
    from sweep.run.driver import SIGTERM
    from sweep.run.finals import measure_finals
    from sweep.run.machines import remove_session, start_ray, stop_ray
    from sweep.tracking.tracker import Tracker

    def end(number: int, frame: FrameType | None) -> None:
        one.ended = SIGTERM
        timer = threading.Timer(GONE_SECONDS, leave)  # whatever Ray or MLflow are waiting for
        timer.daemon = True
        timer.start()

    def leave() -> None:
        say(SIGTERM, flush=True)
        remove_session()
        os._exit(128 + signal.SIGTERM)

    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # while Ray starts, so that its files go
    start_ray(one.resources)
    signal.signal(signal.SIGTERM, end)  # after Ray has set its own
    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    tracker = (
        Tracker(one.summary(), one.studies.verdict, one.storage, where, tell) if where else None
    )
    try:
        studies = one.studies
        with Terminal(
            studies.configurations, studies.verdict, studies.options, console
        ) as terminal:
            if not one.is_decided:
                one.fit([terminal, tracker] if tracker else [terminal])
        if one.is_decided:
            for result, final in measure_finals(one):
                console.print(final_line(result, final), highlight=False)
    finally:
        try:
            how: dict[str, Any] = (
                {"timeout": 1.0} if one.ended == SIGTERM else {"final": one.summary()}
            )
            written = tracker is not None and tracker.close(**how)
        finally:
            stop_ray()
    if one.ended == SIGTERM:
        say(SIGTERM, flush=True)
        raise typer.Exit(128 + signal.SIGTERM)
    return written


def _check_machine(resources: "Resources") -> None:
    import torch

    from sweep.run.machines import check_local_resources, session_parent, usable_cpus

    session_parent()
    check_local_resources(resources, usable_cpus(), torch.cuda.device_count())


def _log_to(path: Path | None) -> None:
    """A file, or, where no directory stays, the log of the job."""
    if path is None:
        _log_by(logging.StreamHandler(sys.stderr))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    _log_by(logging.FileHandler(path, encoding="utf-8", errors="backslashreplace"))


def _log_by(handler: logging.Handler) -> None:
    # only what is wrong: at level INFO fontTools alone tells 100 lines about every figure
    handler.setFormatter(RedactedFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)

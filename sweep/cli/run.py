"""`emm run`: finds the EMM of every configuration of a space."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sweep.cli.dry_run import tell_what_would_run
from sweep.cli.options import (
    PATH,
    SPACES_OWN,
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
    parse_deadline,
    parse_targets,
    searched_space,
    shown,
)
from sweep.cli.printing import console, long_work_shown, say, show, warn
from trainables.text import RedactedFormatter, redacted

if TYPE_CHECKING:
    from rich.console import Console

    from search_spaces.space import SearchSpace
    from sweep.run.driver import Run
    from sweep.store.places import Place
    from sweep.tracking.place import Destination


# loggers that tell of every trial that fails
OF_TUNE = "ray.tune.execution.tune_controller", "ray.tune.tune"


class Objective(StrEnum):
    cost = "cost"
    wall = "wall"


def run(
    space: SpaceName,
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="Directory of the sweep; the same one again resumes it."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="URL for trials and results (s3://, gs://, NFS path) in place of DIR."),
    ] = None,
    settings: Settings = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run; train and create nothing.")
    ] = False,
    effort: EffortOption = Effort.normal,
    precision: Precision = None,
    target: Target = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at once.", show_default="as many as fit")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs, and threads, of a trial.")] = 1,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            help="GPUs that train a trial together, or a share of one.",
            show_default="1 where there are GPUs",
        ),
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="With more workers than studies: save images, or time.")
    ] = Objective.wall,
    guard: Guard = False,
    replicates: Replicates = None,
    targets: Targets = None,
    early_accept: Annotated[
        bool,
        typer.Option(
            "--early-accept", help="End a trial at a snapshot that is clearly above the target."
        ),
    ] = False,
    final_samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images of a last measurement near each EMM.", show_default=SPACES_OWN
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster to join.", show_default="this machine"),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server.", show_default="a database in DIR")
    ] = None,
    budget_hours: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Device hours for all trials, those of earlier runs included; then it ends.",
            show_default="no end",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="When this run ends: 90m, 6h, 2d, or 2026-01-31T08:00.", show_default="never"
        ),
    ] = None,
    reuse: Annotated[
        list[str],
        typer.Option(
            metavar="DIR",
            help="Take over what this sweep (directory or URL) has trained of the same "
            "configurations, as often as needed.",
            show_default="none",
        ),
    ] = [],  # noqa: B006
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train the failed trials of studies without an answer again."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the table of EMMs alone.")] = False,
) -> None:
    """Finds the EMM of every configuration of a space: starts, resumes or extends the sweep in
    DIR."""
    this_run = start(
        space,
        out,
        storage,
        command=["emm", *sys.argv[1:]],
        settings=settings,
        effort=effort.value,
        precision=precision,
        target=target,
        workers=workers,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        objective=objective.value,
        guard=guard,
        replicates=replicates,
        targets=None if targets is None else parse_targets(targets),
        early_accept=early_accept,
        final_samples=final_samples,
        address=address,
        tracking_uri=tracking_uri,
        budget_hours=budget_hours,
        deadline=deadline,
        retry_failed=retry_failed,
        quiet=quiet,
        only=only,
        reuse=reuse,
        dry_run=dry_run,
    )
    if this_run is not None and not this_run.is_decided and not this_run.ended:
        raise typer.Exit(130)


@long_work_shown()
def start(
    space: "str | Mapping[str, Any] | SearchSpace",
    out: Path | None,
    storage: str | None,
    *,
    command: Sequence[str],
    settings: Sequence[str] | Mapping[str, Any],
    effort: Literal["quick", "normal", "thorough"],
    precision: float | None,
    target: float | None,
    workers: int | None,
    cpus_per_trial: float,
    gpus_per_trial: float | None,
    objective: Literal["cost", "wall"],
    guard: bool,
    replicates: int | None,
    targets: list[float] | None,
    early_accept: bool,
    final_samples: int | None,
    address: str | None,
    tracking_uri: str | None,
    budget_hours: float | None,
    deadline: str | None,
    retry_failed: bool,
    quiet: bool,
    only: Sequence[str] = (),
    reuse: Sequence[str] = (),
    dry_run: bool = False,
    shows_table: bool = True,
) -> "Run | None":
    """The whole of `emm run`, in the words of its options, for the command and for `sweep.api`. None
    after a dry run. Raises UserError.

    space, settings: see `space_of`; command: as the sweep is to remember it; shows_table: whether
    the verdicts are printed at the end.
    """
    from sweep.run.checks import open_sweep
    from sweep.run.cluster import check_per_trial
    from sweep.run.driver import Run
    from sweep.run.machines import Resources, claim
    from sweep.run.own_code import code_of
    from sweep.run.retry import reopen_failed
    from sweep.store.budget import Limits
    from sweep.store.files import Invocation
    from sweep.store.places import POINTER, new_place, remember
    from sweep.store.reuse import former_trials

    check_per_trial(cpus_per_trial, gpus_per_trial)
    if tracking_uri:
        _check_tracking(tracking_uri)
    here = new_place(out, storage)
    chosen = searched_space(
        space,
        settings,
        effort=effort,
        precision=precision,
        target=target,
        guard=guard,
        replicates=replicates,
        targets=targets,
        early_accept=early_accept,
        final_samples=final_samples,
    )
    check_names(chosen, "--only", only)
    former = [former_trials(where, here.storage) for where in reuse]
    limits = Limits(budget_hours, None if deadline is None else parse_deadline(deadline))
    resources = Resources(cpus_per_trial, gpus_per_trial, workers, address, objective)
    if dry_run:
        if address is None:
            claim(resources)
        tell_what_would_run(chosen, here, only, retry_failed, former)
        return None
    if tracking_uri:
        _warn_if_unreachable(tracking_uri)
    claim(resources)
    # what is no result; quietly, only what the user must do something about
    tell, must_tell = (_say_nothing, warn) if quiet else (say, say)
    with open_sweep(chosen, here, warn) as (sweep, views):
        if not (views / POINTER).exists():  # the first thing there: by it the same command goes on
            remember(here)
        _log_to(None if here.views is None else views / "emm.log")
        if retry_failed:
            for result in reopen_failed(here.storage, chosen, sweep.keys(), only or None):
                trial = f"{result.spec.name} {result.spec.title}"
                tell(f"tried again: {trial}, which failed: {result.cause}")
        this_run = Run(
            sweep,
            here.storage,
            views,
            resources,
            limits=limits,
            invocation=Invocation.now(command, code_of(chosen)),
            only=only or None,
            reuse=former,
            tell=must_tell,
        )
        for one, taken in zip(former, this_run.taken_over, strict=True):
            for line in one.damaged:
                must_tell(f"passed over: {line}")
            tell(f"taken over: {one.part(taken)}")
        remember(here, this_run.sweep_id)
        is_tracked = here.views is not None or tracking_uri is not None
        where = _destination(this_run, tracking_uri) if is_tracked else None
        in_mlflow = _carry_out(this_run, where, quiet)
        _show(this_run, None if here.views is None else views / "report", quiet, shows_table)
        if not in_mlflow:
            lacks = "some of this sweep" if where else "this sweep"
            must_tell(f"MLflow lacks {lacks}: {_sync_command(here, tracking_uri)} writes it")
        elif tracking_uri is None:
            tell(f"compare in MLflow: {shlex.join(['emm', 'ui', shown(views)])}")
    _tell_what_is_left(this_run, bool(only), tell, must_tell)
    return this_run


def _tell_what_is_left(
    run: "Run", is_of_some: bool, tell: Callable[[str], None], must_tell: Callable[[str], None]
) -> None:
    """is_of_some: whether only some of the configurations were asked for."""
    if run.ended and run.is_open:
        must_tell(run.ended)
    elif not run.is_decided:
        must_tell("interrupted; the same command goes on where it stopped")
    elif is_of_some:
        tell("the same command without --only goes on with the other configurations")


def _say_nothing(text: str) -> None: ...


def arguments_of_run(arguments: list[str]) -> dict[str, Any]:
    """As `emm run` would read them; raises what it would raise."""
    alone = typer.Typer(add_completion=False)
    alone.command("run")(run)
    return typer.main.get_command(alone).make_context("run", list(arguments)).params


def _check_tracking(uri: str) -> None:
    from sweep.tracking.place import check_tracking

    check_tracking(uri)


def _warn_if_unreachable(uri: str) -> None:
    from sweep.tracking.place import why_unreachable

    reason = why_unreachable(uri)
    if reason is not None:
        no_mlflow = f"no MLflow can be reached at {redacted(uri)} ({reason})"
        say(f"warning: {no_mlflow}; the sweep goes on without it", file=sys.stderr, flush=True)


def _destination(run: "Run", tracking_uri: str | None) -> "Destination":
    from sweep.tracking.place import destination

    return destination(run.sweep.space, run.views, tracking_uri, run.sweep.data_of)


def _sync_command(here: "Place", tracking_uri: str | None) -> str:
    """The command that writes what this very MLflow lacks; credentials left out."""
    kept = here.storage.shown if here.views is None else shown(here.views)
    command = ["emm", "sync", kept]
    if tracking_uri or here.views is None:
        command += ["--tracking-uri", redacted(tracking_uri or "http://HOST:PORT")]
    return shlex.join(command)


def _carry_out(run: "Run", where: "Destination | None", quiet: bool) -> bool:
    """Trains what is open; returns whether MLflow holds all of it."""
    terminal = console(quiet)
    for note in run.sweep.notes:
        terminal.print(f"note: {note}", markup=False, highlight=False)
    if run.is_open:
        return _train(run, where, terminal, warn if quiet else partial(say, flush=True))
    if where is None:
        return False
    from sweep.tracking.tracker import make_up

    return make_up(run.summary(), run.storage, where)


def _train(
    run: "Run",
    where: "Destination | None",
    console: "Console",
    must_tell: Callable[[str], None],
) -> bool:
    """Until every study has a verdict, or the budget, the deadline or a signal ends it.

    Returns whether MLflow holds all of it.
    """
    from sweep.report.live import Terminal
    from sweep.report.rows import final_line
    from sweep.run.finals import measure_finals
    from sweep.run.session import session
    from sweep.tracking.tracker import Tracker

    tell = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    studies, tracker, summary = run.studies, None, run.summary()
    finished = [result for study in summary.studies for result in study.results]
    try:
        with session(run, must_tell, warn):
            if where is not None:
                tracker = Tracker(summary, studies.verdict, run.storage, where, tell)
            terminal = Terminal(
                run.wanted, studies.verdict, studies.options, console, finished=finished
            )
            try:
                with terminal:
                    run.fit([terminal, tracker] if tracker else [terminal])
                if run.is_decided:
                    for result, final in measure_finals(run):
                        console.print(final_line(result, final), highlight=False)
            finally:
                if tracker is not None:  # it writes while Ray ends
                    tracker.end(None if run.is_terminated else run.summary())
    finally:
        # after a SIGTERM there are seconds
        seconds = 1.0 if run.is_terminated else 60.0
        written = tracker is not None and tracker.close(seconds)
    return written


def _show(run: "Run", report: Path | None, quiet: bool, shows_table: bool) -> None:
    """The table, if it is to be shown, the report if there is a directory for it, and how failed
    trials go on."""
    from sweep.report.failed import failed_line
    from sweep.report.files import write_report
    from sweep.report.gallery import pictures_of
    from sweep.report.table import print_table, result_table

    summary, terminal = run.summary(), console()

    def show_table() -> None:
        if shows_table and quiet:
            show(result_table(summary))
        elif shows_table:
            print_table(summary, terminal, report)

    if report is None:
        show_table()
        page = f"emm report {shlex.quote(run.storage.shown)} writes it"
    else:
        pictures, tell = pictures_of(summary.space, run.storage), _say_nothing if quiet else say
        page = shown(write_report(summary, report, pictures, tell, show_table))
    if not quiet:
        terminal.print(f"report: {page}", soft_wrap=True, highlight=False)
    failed = failed_line(summary)
    if failed is not None:
        log = "" if report is None else f"; tracebacks: {shown(report.parent / 'emm.log')}"
        (warn if quiet else say)(failed + log)


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
    # to a terminal Ray's library would write a hundred lines for every trial that fails, of which we
    # tell the cause; its own handler is above these
    for name in OF_TUNE:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False

"""The command line, `emm`. Heavy imports stand inside the commands, so that `emm --help` is
instant."""

import atexit
import errno
import gc
import io
import logging
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from sweep.cli import (
    advise,
    audit,
    plan,
    read,
    remeasure,
    run,
    sample,
    spaces,
    submit,
    trial,
)
from sweep.cli.printing import long_work_shown, say
from trainables.errors import TrialFailed, UserError
from trainables.import_path import ours_first
from trainables.text import redact_last_resort, redacted

# of any mistake on the command line; Typer carries a click of its own since 0.20, so it is found
# through a class of Typer's
UsageError: Any = typer.BadParameter.__base__

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def summary(command: Callable[..., None]) -> str:
    """Its first sentence, which `emm --help` shows whole."""
    return " ".join((command.__doc__ or "").split()).partition(". ")[0].removesuffix(".")


def _add(*commands: Callable[..., None], **settings: Any) -> None:
    for command in commands:
        app.command(short_help=summary(command), **settings)(command)


def _add_above_run(command: Callable[..., None], usage: str) -> None:
    """One that takes every option of `emm run` as well."""
    more = {"allow_extra_args": True, "ignore_unknown_options": True}
    _add(command, context_settings=more, options_metavar=usage)


# in the order of `emm --help`
_add(run.run, trial.trial, submit.stop)
_add_above_run(submit.submit, "SPACE [OPTIONS OF RUN] [OPTIONS]")
_add(spaces.spaces, spaces.fields, plan.plan, plan.fit, read.status)
_add_above_run(advise.advise, "[OPTIONS OF RUN] [OPTIONS]")
_add(read.report, remeasure.remeasure, sample.sample, audit.audit, read.ui, read.sync, read.purge)


def _version(is_asked: bool) -> None:
    if not is_asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        say(f"emm-sweep {version('emm-sweep')}")
    except PackageNotFoundError:  # a job runs the code alone
        say("emm-sweep, which is not installed")
    raise typer.Exit


@app.callback(invoke_without_command=True)
def emm(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Finds the effective model memorization (EMM) of diffusion configurations: the largest number
    of training images N at which at least 90 % of what a model generates are copies of its training
    images."""
    if context.invoked_subcommand is None:
        say(context.get_help())


GARBAGE = 50_000  # objects that are made before Python looks for those that nobody needs

INTERRUPTED = 130  # exit code, as shells have it of a SIGINT


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0: done; 2: the user's mistake, in one line; 1: ours, with a traceback in the
    log."""
    ours_first()  # again, for those who come by another way than `emm`
    if arguments is None:  # the process is this command's alone
        # else Python looks for garbage again and again through all that is being imported
        gc.set_threshold(GARBAGE)
    atexit.register(gc.freeze)  # and at the end, for a second, through all that was
    if sys.stdout is None or sys.stderr is None:  # closed, as by `>&-`
        nowhere = open(os.devnull, "w")  # noqa: SIM115  until the end
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows no σ shows \\u03c3
            stream.reconfigure(errors="backslashreplace")
    redact_last_resort()
    try:
        with long_work_shown():
            code = app(args=arguments, prog_name="emm", standalone_mode=False) or 0
        if code == INTERRUPTED:
            say("emm: interrupted", file=sys.stderr)
        sys.exit(code)
    except (UserError, UsageError) as error:
        text = str(error) if isinstance(error, UserError) else error.format_message()
        text = text.replace("Value error, ", "")  # pydantic's, by which typer reads a choice
        say(f"emm: error: {redacted(' '.join(text.splitlines()))}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        say("emm: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except TrialFailed as error:
        say(f"emm: the trial failed: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:  # the outermost frame: nothing below may end without a trace
        if (full := _lack_of_room(error)) is not None:
            say(
                f"emm: error: {redacted(str(full))}; make room, or write elsewhere", file=sys.stderr
            )
            sys.exit(2)
        logging.getLogger("emm").exception("emm failed")
        say(redacted(traceback.format_exc()), end="", file=sys.stderr)
        sys.exit(1)


def _lack_of_room(error: BaseException | None) -> BaseException | None:
    """What said so that a disk is full or read-only: of an error, or of what it was raised from, as
    MLflow and SQLAlchemy raise what SQLite says."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return error
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return error
        error = error.__cause__ or error.__context__
    return None

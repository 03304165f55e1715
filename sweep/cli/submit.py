"""`emm submit` and `emm stop`: a sweep as a job of a Ray cluster."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import PATH, Dashboard, StorageUrl, check_names, space_of
from sweep.cli.printing import say
from sweep.cli.run import arguments_of_run
from trainables.errors import UserError


def submit(
    context: typer.Context,
    address: Dashboard,
    storage: StorageUrl,
    code: Annotated[
        Path | None,
        typer.Option(
            **PATH,
            help="Directory of your own modules, to travel with the job and be its working directory.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show its log until it ends.")
    ] = True,
) -> None:
    """Runs SPACE as a job of a Ray cluster, or finds the job that runs it. SPACE and every option
    of `emm run` are taken; `emm run --help` lists them.

    The terminal may be closed. The same command follows the job's log again, or goes on with what a
    dead job left.
    """
    from sweep.cli.options import with_zone
    from sweep.run.cluster import check_per_trial
    from sweep.run.jobs import Jobs, check_code, check_data_elsewhere, check_elsewhere, space_in_job
    from sweep.tracking.place import check_tracking

    check_elsewhere("--storage", storage)
    asked = arguments_of_run([*context.args, "--storage", storage, "--address", "auto"])
    check_per_trial(asked["cpus_per_trial"], asked["gpus_per_trial"])
    if asked["out"] is not None:
        raise UserError("--out: a job has no directory of yours; results go to --storage")
    if asked["dry_run"]:
        raise UserError("--dry-run: say it to emm run; no job is needed for that")
    for where in asked["reuse"]:
        check_elsewhere("--reuse", where)
    if code is not None:
        check_code(code)
    uri = asked["tracking_uri"]
    if uri:
        check_tracking(uri)
        check_elsewhere("--tracking-uri", uri)
    space = space_in_job(asked["space"], code)
    arguments = [space if argument == asked["space"] else argument for argument in context.args]
    deadline = asked["deadline"]
    if deadline is not None and (zoned := with_zone(deadline)) != deadline:
        arguments += ["--deadline", zoned]  # the last one counts
    if not space.endswith(".py"):  # code of the user's may need what only the cluster has
        local = space if code is None else str(code / space)
        chosen = space_of(local if Path(local).is_file() else space, asked["settings"])
        check_names(chosen, "--only", asked["only"])
        check_data_elsewhere(chosen, code)
    jobs = Jobs(address, storage)
    command = ["run", *arguments, "--storage", storage, "--address", "auto"]
    job = jobs.running()
    if job is not None:
        say(f"running already: {job.submission_id}, as {job.entrypoint}", flush=True)
        name = str(job.submission_id)
    else:
        name = jobs.submit(space, command, code)
        say(f"submitted: {name}", flush=True)
    stop_it = shlex.join(["emm", "stop", "--address", address, "--storage", storage])
    again = f"{stop_it} ends it, the same command shows its log again"
    if not wait:
        say(again)
        return
    try:
        exit_code = jobs.follow(name, partial(say, end="", flush=True))
    except KeyboardInterrupt:
        say(f"\n{name} goes on; {again}")
        raise typer.Exit(130) from None
    if exit_code is None:
        say(
            f"emm: {address} does not answer any more; the same command finds the job, or goes on with the sweep",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    raise typer.Exit(exit_code)


def stop(address: Dashboard, storage: StorageUrl) -> None:
    """Ends the job that runs the sweep at a storage; its trials leave checkpoints."""
    from sweep.run.jobs import Jobs, check_elsewhere

    check_elsewhere("--storage", storage)
    jobs = Jobs(address, storage)
    job = jobs.running()
    if job is None:
        say(f"no job runs the sweep in {storage}")
        return
    jobs.stop(job.submission_id)
    say(f"ended: {job.submission_id}; the same emm submit goes on where it stopped")

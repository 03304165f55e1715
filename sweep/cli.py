"""The command line, `emm`. Heavy imports stand inside the commands, so that `emm --help` is instant."""

import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainables.errors import TrialFailed, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from search_spaces.space import SearchSpace
    from sweep.driver import Resources, Run, Sweep
    from sweep.tracking import Destination
    from trainables.datasets import ImageData
    from trainables.storage import Storage

# Typer carries a click of its own since 0.20; this finds the base of its errors in either
UsageError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


class Objective(StrEnum):
    cost = "cost"
    wall = "wall"


SpaceName = Annotated[str, typer.Argument(metavar="SPACE", help="A search space; `emm spaces` lists them.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="PATH=VALUE", help="Set any field, e.g. network.depth=2.")]
Precision = Annotated[float | None, typer.Option(help="Standard deviation of ln EMM at which a study is decided.")]
Target = Annotated[float | None, typer.Option(help="The R_mem whose crossing is sought.")]
Sweep_ = Annotated[str, typer.Argument(metavar="DIR", help="The --out directory or --storage URL of a sweep.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def emm() -> None:
    """Finds the effective model memorization (EMM) of diffusion configurations: the largest number of training images N at
    which at least 90 % of what a model generates are copies of its training images."""


@app.command()
def spaces(as_json: AsJson = False) -> None:
    """Lists the search spaces, with their question and cost class."""
    from search_spaces.table import SPACES

    rows = [
        {"name": s.name, "question": s.question, "cost": s.cost, "configurations": len(s.configurations)}
        for s in SPACES.values()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)  # type: ignore[arg-type]
    for row in rows:
        print(f"{row['name']:<{width}}  {row['configurations']} configurations  {row['cost']:<22}  {row['question']}")


@app.command()
def plan(
    space: SpaceName,
    settings: Settings = [],  # noqa: B006
    tflops: Annotated[
        float, typer.Option(min=1e-6, help="TFLOP/s that your device sustains, for the estimate of hours.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Shows size and cost of every configuration; trains nothing and needs no data."""
    chosen = _space(space, settings)
    from sweep.plan import plan as planned

    rows = planned(chosen, tflops)
    if as_json:
        print(json.dumps({"space": chosen.name, "configurations": [asdict(row) for row in rows]}, indent=1))
        return
    search = chosen.search
    print(f"{chosen.name}: {chosen.question}")
    print(f"N from {search.n_low} to {search.n_high}, until sd(ln EMM) <= {search.precision} at R_mem = {search.target}\n")
    titles = f"{'parameters':>11} {'steps':>21} {'images':>15} {f'hours at {tflops:g} TFLOP/s':>22}"
    print(f"{'configuration':<20} {titles}   per trial")
    for row in rows:
        steps, images = f"{row.steps_low:,} - {row.steps_high:,}", f"{row.images_low:.2g} - {row.images_high:.2g}"
        hours = f"{row.hours_low:.2g} - {row.hours_high:.2g}"
        print(f"{row.name:<20} {_millions(row.parameters):>11} {steps:>21} {images:>15} {hours:>22}")


@app.command()
def run(
    space: SpaceName,
    out: Annotated[Path | None, typer.Option(help="Directory of the sweep; the same one again resumes it.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL for trials and results (s3://, gs://, NFS path) in place of DIR.")
    ] = None,
    settings: Settings = [],  # noqa: B006
    precision: Precision = None,
    target: Target = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once; as many as fit by default.")] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs, and threads, of a trial.")] = 1,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a trial; 1 by default if there are any.")] = None,
    objective: Annotated[
        Objective, typer.Option(help="With more workers than studies: save images, or time.")
    ] = Objective.wall,
    guard: Annotated[bool, typer.Option(help="Also try N at 4 × the estimate, against curves that dip and rise.")] = False,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster to join.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; a database in DIR by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result alone.")] = False,
) -> None:
    """Finds the EMM of every configuration of a space: starts, resumes or extends the sweep in DIR."""
    if out is None and storage is None:
        raise UserError("--out DIR: say where the sweep is kept (or --storage URL)")
    given = {"search.precision": precision, "search.target": target, "search.guard": guard or None}
    chosen = _space(space, settings, **given)
    from sweep.driver import Resources, Sweep, check_sweep
    from sweep.lock import Lock
    from trainables.storage import Storage

    resources = Resources(cpus_per_trial, gpus_per_trial, workers, address, objective.value)
    if address is None:
        _check_machine(resources)
    sweep = Sweep(chosen)
    sweep.load_data()
    kept = Storage(storage or str(out))
    check_sweep(kept, sweep)
    views = out.absolute() if out is not None else Path(tempfile.mkdtemp(prefix="emm-"))
    with Lock(kept):
        _log_to(views / "emm.log")
        _run(sweep, kept, views, resources, tracking_uri, quiet)


def _run(sweep: "Sweep", storage: "Storage", views: Path, resources: "Resources", uri: str | None, quiet: bool) -> None:
    from sweep.driver import Run
    from sweep.gallery import pictures_of
    from sweep.report import print_table, write_report
    from sweep.tracking import make_up

    console = _console()
    for name, data in {data.source: data for data in sweep.data.values()}.items():
        if data.duplicates:
            console.print(
                f"note: {data.duplicates} of the {len(data)} images of {name} equal another one; copies of them don't count"
            )
    one = Run(sweep, storage, views, resources)
    destination = _destination(sweep.space, views, uri, sweep.data_of)
    in_mlflow = make_up(one.summary(), storage, destination) if one.is_decided else _fit(one, destination, _console(quiet))
    summary = one.summary()
    print_table(summary, console)
    page = write_report(summary, views / "report", pictures_of(summary.space, storage))
    console.print(f"report: {_shown(page)}", soft_wrap=True, highlight=False)
    if not in_mlflow:
        console.print(f"MLflow lacks some of this sweep: emm sync {_shown(views)} writes it", soft_wrap=True, highlight=False)
    elif uri is None:
        console.print(f"compare in MLflow: emm ui {_shown(views)}", soft_wrap=True, highlight=False)
    if not one.is_decided:
        console.print("interrupted; the same command goes on where it stopped", highlight=False)
        raise typer.Exit(130)


def _fit(one: "Run", destination: "Destination", console: "Console") -> bool:
    """Runs the sweep; returns whether MLflow holds all of it."""
    import ray

    from sweep.driver import start_ray
    from sweep.terminal import Terminal
    from sweep.tracking import Tracker

    start_ray(one.resources)
    tracker = Tracker(one.summary(), one.studies.verdict, one.storage, destination)
    try:
        with Terminal(one.studies, console) as terminal:
            one.fit([terminal, tracker])
    finally:
        try:
            written = tracker.close(final=one.summary())
        finally:
            ray.shutdown()
    return written


@app.command()
def trial(
    space: SpaceName,
    config: Annotated[str, typer.Option(help="Name of a configuration, e.g. width=16.")],
    n: Annotated[int, typer.Option("--n", help="Number of training images N.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed: subset, initialization, noise, latents.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Directory for its files; a temporary one by default.")] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Trains and measures one trial in the foreground, for looking closely."""
    chosen = _space(space, settings)
    named = {one.name: one for one in chosen.configurations}
    if config not in named:
        raise UserError(f"--config {config}: {space} has {', '.join(named)}")
    from sweep.summary import SWEEP
    from trainables.config import TrialSpec, validated
    from trainables.datasets import load
    from trainables.storage import Storage
    from trainables.trial import Trial, choose_device, start_record

    configuration = named[config].configuration
    tree = {"name": config, "configuration": configuration, "measurement": chosen.measurement, "n": n, "seed": seed}
    spec = validated(TrialSpec, tree)
    data = load(configuration.data)
    start_record(spec, data)  # raises if N is more than there are, before anything is created
    storage = Storage(str(out or tempfile.mkdtemp(prefix="emm-trial-")))
    if storage.exists(SWEEP):
        raise UserError(f"--out {out}: a sweep is kept there; choose another directory for a single trial")
    one = Trial(spec, data, storage, choose_device())
    shown = 0
    while one.result is None:
        one.step()
        for snapshot in one.curve[shown:]:
            print(f"{snapshot.images_trained:>12,} images  loss {snapshot.loss:8.4f}  R_mem {snapshot.r_mem:.3f}", flush=True)
        shown = len(one.curve)
    if not one.result.complete:
        raise TrialFailed(one.result.cause or "unknown cause")
    from trainables.memorization import r_mem_interval

    low, high = r_mem_interval(one.result.n_memorized, one.result.n_samples)
    print(f"R_mem {one.result.r_mem:.4f} [{low:.4f}, {high:.4f}]  {one.result.n_samples} samples  {one.result.seconds:.0f} s")
    print(f"files: {one.storage.url}")


@app.command()
def fit(
    points: Annotated[Path, typer.Argument(metavar="POINTS.csv", help="Columns n, r_mem and, if known, n_samples.")],
    target: Annotated[float, typer.Option(help="The R_mem whose crossing is sought.")] = 0.9,
    precision: Annotated[float, typer.Option(help="Standard deviation of ln EMM to be reached.")] = 0.12,
    n_low: Annotated[int | None, typer.Option(help="Range of N; from half the smallest …")] = None,
    n_high: Annotated[int | None, typer.Option(help="… to twice the largest N by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Belief and next N from trials that were done elsewhere: an old grid is not wasted. Trains nothing."""
    from sweep.fit import fit_points, read_points
    from sweep.wording import belief_text

    fitted = fit_points(read_points(points), target, precision, n_low, n_high)
    if as_json:
        print(json.dumps({**asdict(fitted.verdict), "next_n": fitted.next_n}, indent=1))
        return
    print(f"{fitted.verdict.state}: {belief_text(fitted.verdict, fitted.options)}, from {fitted.verdict.n_trials} trials")
    print(fitted.verdict.reason)
    if fitted.next_n is not None:
        print(f"next: train at N = {fitted.next_n}")


@app.command()
def status(directory: Sweep_, as_json: AsJson = False) -> None:
    """Shows what is known of every study now, and what is training."""
    from sweep.lock import holder_of
    from sweep.summary import summarize
    from sweep.wording import belief_text
    from trainables.storage import Storage

    storage = Storage(directory)
    summary = summarize(storage)
    holder = holder_of(storage)
    if as_json:
        driver = None if holder is None else {key: holder[key] for key in ("host", "pid", "renewed")}
        print(json.dumps({**summary.as_json(), "driver": driver}, indent=1))
        return
    print(f"{summary.name}: " + (f"driver {holder['pid']} on {holder['host']}" if holder else "no driver is running"))
    for study in summary.studies:
        trials = f"{len(study.complete)} trials, {len(study.running)} started"
        started = ", ".join(f"N={record.spec.n} seed={record.spec.seed}" for record in study.running)
        print(f"{study.name}  {study.verdict.state}  {belief_text(study.verdict, study.options)}  {trials}  {started}".rstrip())


@app.command()
def report(
    directory: Sweep_,
    out: Annotated[Path | None, typer.Option(help="Where the report goes; DIR/report by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prints the table of a sweep and writes its report."""
    from sweep.gallery import pictures_of
    from sweep.report import print_table, write_report
    from sweep.summary import summarize
    from trainables.storage import Storage

    storage = Storage(directory)
    summary = summarize(storage)
    if as_json:
        print(json.dumps(summary.as_json(), indent=1))
        return
    console = _console()
    print_table(summary, console)
    target = out or (Path(directory) / "report" if storage.is_local else Path(f"{summary.name}-report"))
    page = write_report(summary, target, pictures_of(summary.space, storage))
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


@app.command()
def ui(directory: Sweep_, port: Annotated[int | None, typer.Option(help="Port; a free one by default.")] = None) -> None:
    """Opens the sweep in the MLflow UI, on loopback."""
    from sweep.ui import serve

    serve(Path(directory), port)


@app.command()
def sync(
    directory: Sweep_,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow server; the database in DIR by default.")] = None,
) -> None:
    """Rebuilds Optuna's database and MLflow's runs from the results."""
    from sweep.driver import Sweep
    from sweep.lock import holder_of
    from sweep.pooling import FrozenPriors
    from sweep.studies import Studies
    from sweep.summary import read_space, summary_of
    from sweep.tracking import sync as sync_mlflow
    from trainables.result import read_all
    from trainables.storage import Storage

    storage = Storage(directory)
    space = read_space(storage)
    if not storage.is_local and tracking_uri is None:
        raise UserError("--tracking-uri: say which MLflow server, since the sweep has no local directory")
    results, started = read_all(storage)
    priors = FrozenPriors(storage)
    is_live = holder_of(storage) is not None  # then Optuna's database is the driver's
    if storage.is_local and not is_live:
        Studies(space, f"sqlite:///{Path(directory).absolute() / 'optuna.db'}", priors).reconcile(results, started)
    destination = _destination(space, Path(directory), tracking_uri, Sweep(space).data_of)
    sync_mlflow(summary_of(space, results, started, priors), storage, destination, live=is_live)
    print(f"{len(results)} results are in MLflow" + (" and in Optuna's database" if storage.is_local and not is_live else ""))


# ---------------------------------------------------------------- helpers


def _space(name: str, settings: Sequence[str], **more: float | None) -> "SearchSpace":
    from search_spaces.space import parse_settings
    from search_spaces.table import find_space

    given: dict[str, Any] = {path: value for path, value in more.items() if value is not None}
    return find_space(name).with_settings({**parse_settings(list(settings)), **given})


def _destination(space: "SearchSpace", views: Path, uri: str | None, data_of: "Callable[[str], ImageData]") -> "Destination":
    from sweep.tracking import Destination
    from sweep.ui import local_tracking

    local, artifacts = local_tracking(views)
    return Destination(uri or local, None if uri else artifacts, space.images, data_of)


def _check_machine(resources: "Resources") -> None:
    import torch

    from sweep.driver import check_local_resources, usable_cpus

    check_local_resources(resources, usable_cpus(), torch.cuda.device_count())


def _console(quiet: bool = False) -> "Console":
    from rich.console import Console

    return Console(quiet=quiet, width=None if sys.stdout.isatty() else 120)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", force=True)


def _shown(path: Path) -> str:
    """As the user would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0: done; 2: the user's mistake, in one line; 1: ours, with a traceback in the log."""
    try:
        sys.exit(app(args=arguments, prog_name="emm", standalone_mode=False) or 0)
    except (UserError, UsageError) as error:
        text = str(error) if isinstance(error, UserError) else error.format_message()
        print(f"emm: error: {text}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except TrialFailed as error:
        print(f"emm: the trial failed: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception:  # the outermost frame: nothing below may end without a trace
        logging.getLogger("emm").exception("emm failed")
        traceback.print_exc()
        sys.exit(1)

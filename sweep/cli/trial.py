"""`emm trial`: one trial in the foreground."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import PATH, Settings, SpaceName, check_names, configurations_like, space_of
from sweep.cli.printing import console, say
from trainables.errors import TrialFailed, UserError

if TYPE_CHECKING:
    from types import FrameType

    from search_spaces.space import SearchSpace
    from sweep.report.trial_view import TrialView
    from trainables.config.trial import TrialSpec
    from trainables.data.images import ImageData
    from trainables.storage import Storage
    from trainables.trial.result import Result
    from trainables.trial.trial import Trial


SLICE_SECONDS = 1.0  # of training between two looks of the bar


def trial(
    space: SpaceName,
    config: Annotated[
        str,
        typer.Option(
            help="Name of a configuration, e.g. width=16.", autocompletion=configurations_like
        ),
    ],
    n: Annotated[int, typer.Option("--n", help="Number of training images N.")],
    seed: Annotated[
        int, typer.Option(min=0, help="Seed: subset, initialization, noise, latents.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            **PATH,
            help="Directory that keeps its files, with a page of pictures and curve; the same "
            "command goes on there.",
            show_default="a temporary one, removed at the end",
        ),
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs, and threads, of the trial.")] = 1,
    settings: Settings = [],  # noqa: B006
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train it again if it has failed in DIR.")
    ] = False,
) -> None:
    """Trains and measures one trial in the foreground, for looking closely."""
    chosen = space_of(space, settings)
    check_names(chosen, "--config", [config])
    named = {one.name: one for one in chosen.configurations}
    from sweep.run.machines import Resources, check_local_resources, usable_cpus
    from sweep.store.places import check_directory
    from trainables.config.fields import validated
    from trainables.config.trial import TrialSpec
    from trainables.data.labels import planned_label_dim
    from trainables.data.sources import load
    from trainables.measure.features import open_features
    from trainables.training.custom import check_custom
    from trainables.trial.result import start_record
    from trainables.trial.trial import choose_device, threads

    check_local_resources(Resources(cpus_per_trial), usable_cpus(), 0)
    if out is not None:
        check_directory(f"--out {out}", out)
    configuration = named[config].configuration
    tree = {
        "name": config,
        "configuration": configuration,
        "measurement": chosen.measurement,
        "n": n,
        "seed": seed,
    }
    spec = validated(TrialSpec, tree)
    data = load(configuration.data, may_fetch=True)
    start_record(spec, data)  # raises if N is more than there are, before anything is created
    check_custom(configuration, planned_label_dim(configuration, n, data))
    open_features(spec.measurement, data.images.shape[1:], choose_device())
    with _terminable(), _place(out) as storage, threads(cpus_per_trial):
        for note in data.notes:
            say(f"note: {note}", flush=True)
        result = _trained(spec, data, storage, retry_failed)
        _tell(result, chosen)
        if out is not None:
            _write_page(out, storage, result, chosen, data)


@contextmanager
def _terminable() -> "Iterator[None]":
    """A SIGTERM ends it as Ctrl-C does, so that its temporary directory goes."""

    def interrupt(number: int, frame: "FrameType | None") -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _place(out: Path | None) -> "Iterator[Storage]":
    """Where its files go, which is said before anything is trained."""
    from sweep.store.files import SWEEP
    from sweep.store.places import check_views, create_private, place
    from trainables.storage import Storage

    if out is None:
        with tempfile.TemporaryDirectory(
            prefix="emm-trial-", ignore_cleanup_errors=True
        ) as directory:
            say(
                f"files: {directory}, removed at the end; --out DIR keeps them, with a page of "
                "pictures and curve",
                flush=True,
            )
            yield Storage(directory)
        say(f"removed: {directory}")
        return
    storage = Storage(str(out))
    if storage.exists(SWEEP):
        raise UserError(
            f"--out {out}: a sweep is kept there; choose another directory for a single trial"
        )
    if (out / "report").exists() and not storage.list("trials"):
        raise UserError(
            f"--out {out}: it holds a report and no trials; choose another directory, in which "
            "nothing is written over"
        )
    here = place(str(out))
    check_views(here)
    create_private(here)
    say(f"files: {storage.shown}", flush=True)
    try:
        yield storage
    except KeyboardInterrupt:
        say("stopped; the same command goes on from its last checkpoint")
        raise


def _trained(
    spec: "TrialSpec", data: "ImageData", storage: "Storage", retry_failed: bool
) -> "Result":
    """Raises TrialFailed."""
    from sweep.report.trial_view import TrialView
    from sweep.run.retry import reopen
    from trainables.trial.result import read_all, start_record
    from trainables.trial.trial import Pace, Trial, choose_device

    key = start_record(spec, data).training_key
    before = next((one for one in read_all(storage).results if one.training_key == key), None)
    if before is not None and before.complete:
        say("it was trained before, and this is what it gave; another --out trains it anew")
    elif before is not None and not retry_failed:
        raise TrialFailed(f"{before.cause} (an earlier run; --retry-failed trains it again)")
    elif before is not None:
        reopen(storage, before)
    one = Trial(spec, data, storage, choose_device(), Pace(slice_seconds=SLICE_SECONDS))
    told = 0
    with TrialView(f"{spec.name}  {spec.title}", console()) as view:
        while one.result is None:
            view.update(one.step())
            told = _tell_snapshots(one, told, view)
    if not one.result.complete:
        raise TrialFailed(one.result.cause or "unknown cause")
    return one.result


def _tell_snapshots(one: "Trial", told: int, view: "TrialView") -> int:
    """A line for each that is new; returns how many are told now."""
    for snapshot in one.curve[told:]:
        loss = "" if snapshot.loss is None else f"loss {snapshot.loss:8.4f}  "
        view.tell(f"{snapshot.images_trained:>12,} images  {loss}R_mem {snapshot.r_mem:.3f}")
    return len(one.curve)


def _tell(result: "Result", chosen: "SearchSpace") -> None:
    from trainables.measure.r_mem import r_mem_interval

    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    say(
        f"R_mem {result.r_mem:.4f} [{low:.4f}, {high:.4f}]  {result.n_samples} samples  "
        f"{result.seconds:.0f} s"
    )
    if result.measurement.features is not None:
        say(_in_features(result))
    band = chosen.expected
    if band is not None and band.n == result.spec.n:
        is_inside = band.r_mem_low <= (result.r_mem or 0) <= band.r_mem_high
        say(
            f"{'inside' if is_inside else 'OUTSIDE'} the band {band.r_mem_low:g} to "
            f"{band.r_mem_high:g} in which it must fall ({chosen.expectation})"
        )


def _write_page(
    out: Path, storage: "Storage", result: "Result", chosen: "SearchSpace", data: "ImageData"
) -> None:
    """Of all trials in the directory; pictures as the space allows them."""
    from sweep.cli.lone_report import write_lone_report
    from sweep.store.lone_trials import allow_pictures

    allow_pictures(storage, result.training_key, chosen.images)
    say(f"report: {write_lone_report(storage, out / 'report', {data.digest: data})}")


def _in_features(result: "Result") -> str:
    from trainables.measure.feature_rule import LEAST_HELD_OUT

    if result.r_mem_features is None:
        return (
            f"R_mem in features is not known: fewer than {LEAST_HELD_OUT} held-out images are left"
        )
    if result.measurement.judge == "features":
        beside = f"it is that in features; in pixels {result.r_mem_pixels:.4f}"
    else:
        beside = f"R_mem in features {result.r_mem_features:.4f}"
    score = "d1 / d2" if result.measurement.features_rule == "ratio" else "d1"
    return (
        f"{beside}  {score} below "
        f"{result.features_threshold:.3f}, as {result.features_null:.1%} of held-out images have it"
    )

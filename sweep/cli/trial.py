"""`emm trial`: one trial in the foreground."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import Settings, SpaceName, check_names, configurations_like, space_of
from sweep.cli.printing import say
from trainables.errors import TrialFailed, UserError

if TYPE_CHECKING:
    from trainables.trial.result import Result


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
        Path | None, typer.Option(help="Directory for its files; a temporary one by default.")
    ] = None,
    settings: Settings = [],  # noqa: B006
) -> None:
    """Trains and measures one trial in the foreground, for looking closely."""
    chosen = space_of(space, settings)
    check_names(chosen, "--config", [config])
    named = {one.name: one for one in chosen.configurations}
    from sweep.store.files import SWEEP
    from sweep.store.places import check_no_file
    from trainables.config.fields import validated
    from trainables.config.trial import TrialSpec
    from trainables.data.labels import planned_label_dim
    from trainables.data.sources import load
    from trainables.measure.features import open_features
    from trainables.storage import Storage
    from trainables.training.custom import check_custom
    from trainables.trial.result import start_record
    from trainables.trial.trial import Trial, choose_device

    if out is not None:
        check_no_file(f"--out {out}", out)
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
    storage = Storage(str(out or tempfile.mkdtemp(prefix="emm-trial-")))
    if storage.exists(SWEEP):
        raise UserError(
            f"--out {out}: a sweep is kept there; choose another directory for a single trial"
        )
    for note in data.notes:
        say(f"note: {note}", flush=True)
    one = Trial(spec, data, storage, choose_device())
    shown = 0
    while one.result is None:
        one.step()
        for snapshot in one.curve[shown:]:
            loss = "" if snapshot.loss is None else f"loss {snapshot.loss:8.4f}  "
            say(
                f"{snapshot.images_trained:>12,} images  {loss}R_mem {snapshot.r_mem:.3f}",
                flush=True,
            )
        shown = len(one.curve)
    if not one.result.complete:
        raise TrialFailed(one.result.cause or "unknown cause")
    from trainables.measure.r_mem import r_mem_interval

    low, high = r_mem_interval(one.result.n_memorized, one.result.n_samples)
    say(
        f"R_mem {one.result.r_mem:.4f} [{low:.4f}, {high:.4f}]  {one.result.n_samples} samples  {one.result.seconds:.0f} s"
    )
    if spec.measurement.features is not None:
        say(_in_features(one.result))
    band = chosen.expected
    if band is not None and band.n == n:
        inside = (
            "inside" if band.r_mem_low <= (one.result.r_mem or 0) <= band.r_mem_high else "OUTSIDE"
        )
        say(
            f"{inside} the band {band.r_mem_low:g} to {band.r_mem_high:g} in which it must fall ({chosen.expectation})"
        )
    say(f"files: {one.files.storage.shown}")


def _in_features(result: "Result") -> str:
    if result.r_mem_features is None:
        return "R_mem in features is not known: fewer than 198 held-out images are left"
    if result.measurement.judge == "features":
        beside = f"it is that in features; in pixels {result.r_mem_pixels:.4f}"
    else:
        beside = f"R_mem in features {result.r_mem_features:.4f}"
    score = "d1 / d2" if result.measurement.features_rule == "ratio" else "d1"
    return (
        f"{beside}  {score} below "
        f"{result.features_threshold:.3f}, as {result.features_null:.1%} of held-out images have it"
    )

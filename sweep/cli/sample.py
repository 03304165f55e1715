"""`emm sample`: images of a trained model, where the user wants them."""

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import PATH, Sweep_
from sweep.cli.printing import say
from trainables.errors import UserError


def sample(
    directory: Sweep_,
    out: Annotated[
        Path,
        typer.Option(**PATH, help="A new folder of pictures, a file.npz, or a grid.png of all."),
    ],
    config: Annotated[
        str | None, typer.Option(help="Name of the trial's configuration, e.g. width=16.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Its number of training images N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Its seed.")] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many images.")] = 64,
    sample_seed: Annotated[
        int,
        typer.Option(
            min=0, help="Of the images; the trial's own seed gives those that it was judged by."
        ),
    ] = 0,
    label: Annotated[
        int | None, typer.Option(min=0, help="Of all images; drawn as the trial did by default.")
    ] = None,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run a network or trainer of your own that it names."),
    ] = False,
) -> None:
    """Draws images by the trained model of a finished trial, and writes them where you say."""
    from sweep.report.samples import check_target, write_samples
    from sweep.search.words import counted
    from sweep.store.one_trial import load_model
    from sweep.store.places import check_no_url

    check_no_url(f"--out {out}", out, "choose a place here")
    check_target(out, "--out")
    model = load_model(directory, config, n, seed, trust_code=trust_code)
    labels = (
        model.drawn_labels(count, sample_seed) if label is None else model.checked(label, count)
    )
    images = model.sample(count, sample_seed, labels)
    try:
        write_samples(out, images, labels)
    except OSError as error:
        raise UserError(f"--out {out}: it can't be written ({error.strerror})") from None
    spec = model.result.spec
    say(f"{spec.name}, {spec.title}: {counted(count, 'image')}, seed {sample_seed}, in {out}")
    if spec.configuration.data.holds_private:
        say(
            "note: the model was trained on private data, and may have copied them into these images"
        )

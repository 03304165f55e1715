"""`emm audit`: the measurement alone, for a model trained anywhere. Heavy imports stand inside the
command, so that `emm --help` is instant."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import FeaturesOptions, FeaturesRule, Rule, measurement_in, parse_k
from sweep.cli.printing import say
from trainables.errors import UserError
from trainables.progress import work

SHOWN = 10  # copied images that are printed


def audit(
    train: Annotated[
        Path, typer.Option(help="Training images: a folder, a .zip, an .npy or an .npz file.")
    ],
    generated: Annotated[Path, typer.Option(help="Images that the model generated.")],
    holdout: Annotated[
        Path | None, typer.Option(help="Images like the training images that were not trained on.")
    ] = None,
    k: Annotated[
        str,
        typer.Option("--k", metavar="K", help="A copy is nearer than k times the second nearest."),
    ] = "1/3",
    resolution: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1024,
            metavar="R",
            help="Resize all images to R x R (bicubic, after a centre crop); needed where sizes "
            "differ.",
        ),
    ] = None,
    flips: Annotated[
        bool, typer.Option(help="A mirrored copy is a copy: for models trained with flips.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that can't be read.")
    ] = False,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="What gives images features, to be compared in as well."
        ),
    ] = None,
    features_options: FeaturesOptions = [],  # noqa: B006
    features_rule: FeaturesRule = Rule.ratio,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with the copies shown.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write a row for every generated image: the nearest and second nearest training "
            "image, the distances, the verdict.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measures how many of a model's images are copies of its training images, and of which; trains
    nothing."""
    from sweep.audit.compare import audit as compare
    from sweep.audit.image_sets import open_set
    from sweep.audit.words import lines
    from sweep.store.places import check_no_url
    from trainables.trial.trial import choose_device

    for option, file, suffix in (("--out", out, ".html"), ("--csv", csv, ".csv")):
        if file is not None:
            check_no_url(f"{option} {file}", file, "choose a place here")
        if file is not None and (file.suffix != suffix or file.is_dir()):
            raise UserError(f"{option} {file}: a file name that ends in {suffix} is needed")
    if features is None and (features_options or features_rule is not Rule.ratio):
        raise UserError("--features: name the function of which more is said")
    if features is not None and holdout is None:
        raise UserError(
            "--features: --holdout is needed as well; from these images comes the threshold of "
            "copies"
        )
    chosen = parse_k(k)
    how = None
    if features is not None:
        how = measurement_in(features, features_options, features_rule)
    held_out = None if holdout is None else open_set("--holdout", holdout, skip_bad=skip_bad)
    sets = (
        open_set("--train", train, least=2, skip_bad=skip_bad),
        open_set("--generated", generated, skip_bad=skip_bad),
        held_out,
    )
    found = compare(*sets, chosen, resolution, flips, choose_device(), how=how)
    if out is not None:
        from sweep.audit.page import write_page

        with work("writing the page"):
            write_page(found, out)
    if csv is not None:
        from sweep.audit.table import write_table

        with work("writing the table"):
            write_table(found, csv)
    content = found.as_json()
    if as_json:
        say(json.dumps(content, indent=1))
        return
    for line in lines(content):
        say(line)
    for source in content["copied"][:SHOWN]:
        say(f"  {source['image']}: {source['copies']} copies")
    say(f"page: {out}" if out else "--out FILE.html shows the copies; --json lists them all")
    say(f"table: {csv}" if csv else "--csv FILE.csv tells of every generated image")

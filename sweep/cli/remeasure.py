"""`emm remeasure`: a finished sweep looked at by another eye than pixels. Heavy imports stand inside
the command, so that `emm --help` is instant."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli.options import (
    PATH,
    AsJson,
    Features,
    FeaturesOptions,
    FeaturesRule,
    FeaturesVersion,
    Rule,
    Sweep_,
    measurement_in,
)
from sweep.cli.printing import console, say
from trainables.errors import UserError

if TYPE_CHECKING:
    from trainables.config.measurement import Measurement
    from trainables.trial.result import Result


def remeasure(
    directory: Sweep_,
    features: Features,
    features_options: FeaturesOptions = [],  # noqa: B006
    features_rule: FeaturesRule = Rule.ratio,
    features_version: FeaturesVersion = "",
    out: Annotated[
        Path | None,
        typer.Option(**PATH, help="Where the report goes; DIR/report-features-NAME by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judges a sweep in features, from the images that its trials kept; trains nothing."""
    from sweep.analysis.summary import in_pixels, summarize
    from sweep.report.files import write_report
    from sweep.report.table import print_table
    from sweep.run.checks import features_of
    from sweep.run.remeasure import DISTANCES, remeasure as look, space_in_features
    from sweep.store.places import check_directory, check_writable, make_directory, place
    from trainables.trial.trial import choose_device

    here = place(directory)
    how = measurement_in(features, features_options, features_rule, features_version)
    pixels = in_pixels(summarize(here.storage))
    name = f"report-features-{name_of(how)}"
    target = out or (here.views / name if here.views else Path(f"{pixels.name}-{name}"))
    check_directory(f"--out {target}", target)
    check_writable(target, target / DISTANCES)
    if not any(study.complete for study in pixels.studies):
        raise UserError(f"{here.storage.shown} has no finished trial to look at")
    space = space_in_features(pixels.space, how)
    eye = features_of(space, choose_device(), "--features")
    make_directory(target)
    judged = look(pixels, here.storage, how, eye, target, _quiet if as_json else _told)
    page = write_report(judged, target, tell=_quiet if as_json else say)
    if as_json:
        say(json.dumps(judged.as_json(), indent=1))
        return
    terminal = console()
    print_table(judged, terminal, target)
    terminal.print(f"report: {page}", soft_wrap=True, highlight=False)


def name_of(how: "Measurement") -> str:
    """Of a directory: of the function, and of all else if it is not as by default."""
    from trainables.config.identity import identity, key_of

    plain, asked = re.sub(r"[^\w.]+", ".", how.features or ""), identity(how)
    return plain if asked.keys() == {"features"} else f"{plain}-{key_of(asked)[:8]}"


def _told(result: "Result") -> None:
    trial = f"{result.spec.name}: {result.spec.title}"
    in_features = "not known" if result.r_mem_features is None else f"{result.r_mem_features:.3f}"
    say(f"{trial}: R_mem in pixels {result.r_mem:.3f}, in features {in_features}", flush=True)


def _quiet(_: object) -> None: ...

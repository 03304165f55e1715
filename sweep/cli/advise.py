"""`emm advise`: with how many images at most a given share of what a model generates is copied."""

import json
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.options import AsJson
from sweep.cli.printing import say
from sweep.cli.run import arguments_of_run, run
from trainables.errors import UserError

if TYPE_CHECKING:
    from sweep.analysis.study import StudySummary


def advise(
    context: typer.Context,
    asked: Annotated[
        str,
        typer.Argument(metavar="DIR|SPACE", help="A sweep; or a search space to ask it of first."),
    ],
    share: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Of the generated images, at most.")
    ] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Says with how many training images at most a share of what a model generates is copied.

    Of a sweep in DIR, from its trials; of SPACE, with --out DIR and any other option of `emm run`,
    by a search for just that.
    """
    from search_spaces.table import SPACES
    from sweep.analysis.summary import summarize
    from sweep.store.places import new_place, place

    if context.args or asked in SPACES:
        options = arguments_of_run([asked, *context.args])
        if options["target"] is not None:
            raise UserError(f"--target: what is searched for here is the share; --share {share:g}")
        here = new_place(options["out"], options["storage"])
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            run(**{**options, "target": share})
        if options["dry_run"]:
            return
    elif Path(asked).is_file():
        raise UserError(f"{asked}: a search space is searched first; add --out DIR")
    else:
        here = place(asked)
    told = [_told(study, share) for study in summarize(here.storage).studies]
    if as_json:
        say(json.dumps(told, indent=1))
        return
    copied = f"at most {share:.4g} of what it generates is copied, on average over seeds, with 95 %"
    for one in told:
        enough = one["n"]
        advice = f"not known: {one['why']}" if enough is None else f"with N ≥ {enough:,} {copied}"
        say(f"{one['name']}: {advice}")


def _told(study: "StudySummary", share: float) -> dict[str, Any]:
    """`n`: images that are enough, with 95 %; None if that is not known, and `why`."""
    from sweep.analysis.study import outcomes
    from sweep.search.rules import judge

    told: dict[str, Any] = {"name": study.name, "share": share, "n": None, "why": None}
    verdict, options = study.verdict, study.options
    if share in options.targets:
        verdict = judge(outcomes(study.results), options.at(share))
    is_sought = share in (options.target, *options.targets)
    if is_sought and verdict.state == "below_range":
        return {**told, "n": options.low}
    if is_sought and verdict.state == "above_range":
        return {**told, "why": f"more than {options.high:,} images; search.n_high is too low"}
    belief = study.belief_at(share)
    if belief is None and is_sought:
        return {**told, "why": verdict.reason}
    if belief is None:
        return {**told, "why": f"search there: emm run … --targets {share:g}"}
    return {**told, "n": math.ceil(belief.quantile(0.95))}

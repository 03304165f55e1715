"""`emm advise`: with how many images at most a given share of what a model generates is copied."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

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
        run(**{**options, "target": share})
    else:
        here = place(asked)
    for study in summarize(here.storage).studies:
        say(f"{study.name}: {_advice(study, share)}")


def _advice(study: "StudySummary", share: float) -> str:
    copied = f"at most {share:.4g} of what it generates is copied, on average over seeds, with 95 %"
    verdict, options = study.verdict, study.options
    if share == options.target and verdict.state == "above_range":
        return f"not known: more than {options.high:,} images; search.n_high is too low"
    if share == options.target and verdict.state == "below_range":
        return f"with N ≥ {options.low:,} {copied}"
    belief = study.belief_at(share)
    if belief is None:
        return f"not known; search there: emm run … --targets {share:g}"
    return f"with N ≥ {math.ceil(belief.quantile(0.95)):,} {copied}"

"""All figures of a sweep, by the name of their file."""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from search_spaces.space import Search
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.drawn import Drawing
from sweep.report.study_figures import study_figure, training_figure
from sweep.report.style import Figure
from sweep.report.sweep_figures import (
    contrast_figure,
    cost_figure,
    pair_figure,
    profile_figure,
    sweep_figure,
)


class Figures(dict[str, Callable[[], Figure]]):
    """Name → what draws it."""

    def __repr__(self) -> str:
        return f"figures, each drawn when it is called: {', '.join(self)}"


def figures_of(summary: SweepSummary) -> Figures:
    """Name → what draws it: "emm", "profile", "contrasts", "pairs", "cost"; of every study `name_of("study", …)` and
    `name_of("training", …)`.

    What there is nothing to show of is left out.
    """
    figures = overview_figures(summary)
    for number, study in enumerate(summary.studies, 1):
        figures |= {
            name_of(kind, number, study): draw
            for kind, draw in study_figures(study, summary.space.search).items()
        }
    return figures


def overview_figures(summary: SweepSummary) -> Figures:
    """Of the whole sweep."""
    figures = Figures(emm=partial(sweep_figure, summary))
    if sum(study.belief is not None for study in summary.studies) > 1:
        figures["profile"] = partial(profile_figure, summary)
    if summary.steps:
        figures["contrasts"] = partial(contrast_figure, summary)
    complete = [result for study in summary.studies for result in study.complete]
    if any(result.pair_agreement is not None for result in complete):
        figures["pairs"] = partial(pair_figure, summary)
    if any(study.results for study in summary.studies):
        figures["cost"] = partial(cost_figure, summary)
    return figures


def study_figures(study: StudySummary, search: Search) -> Figures:
    """Of one study."""
    figures = Figures(
        study=partial(study_figure, study, search.target, search.n_low, search.n_high)
    )
    if any(one.images_trained for result in study.results for one in result.curve):
        figures["training"] = partial(training_figure, study)
    return figures


def study_drawings(study: StudySummary, search: Search) -> dict[str, Drawing]:
    """`study_figures`, with all that they depend on."""
    shows = {
        "study": study.as_json(),
        "eye": study.eye,
        "options": asdict(study.options),
        "curves": [[one.model_dump() for one in result.curve] for result in study.results],
        "search": search.model_dump(),
    }
    figures = study_figures(study, search)
    return {kind: Drawing(kind, draw, shows) for kind, draw in figures.items()}


def overview_drawings(summary: SweepSummary) -> dict[str, Drawing]:
    """`overview_figures`, with all that they depend on."""
    seconds = [[result.seconds for result in study.results] for study in summary.studies]
    space = summary.space.model_dump(mode="json")
    shows = {"space": space, "summary": summary.as_json(), "seconds": seconds}
    figures = overview_figures(summary)
    return {kind: Drawing(kind, draw, shows) for kind, draw in figures.items()}


def name_of(kind: str, number: int, study: StudySummary) -> str:
    """Name of a study's figure, its number from 1 in the order of the table: `study-01-width-4`."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", study.name)[:60].strip("-.")
    return f"{kind}-{number:02d}-{slug}"

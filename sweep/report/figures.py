"""All figures of a sweep, by the name of their file."""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from search_spaces.space import Search
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.canvas import Canvas
from sweep.report.drawn import Drawing
from sweep.report.emm_figures import factor_figure, sweep_figure
from sweep.report.study_figures import study_figure, training_figure
from sweep.report.style import Figure
from sweep.report.sweep_figures import contrast_figure, cost_figure, pair_figure, profile_figure
from trainables.config.identity import key_of


class Figures(dict[str, Callable[[], Figure]]):
    """Name → what draws it."""

    def __repr__(self) -> str:
        return f"figures, each drawn when it is called: {', '.join(self)}"


def figures_of(summary: SweepSummary, canvas: Canvas | None = None) -> Figures:
    """Name → what draws it: "emm", "profile", "contrasts", "pairs", "cost"; if two factors or more are
    varied, of each `name_of("factor", …)` and `name_of("contrasts", …)`; of every study
    `name_of("study", …)` and `name_of("training", …)`.

    What there is nothing to show of is left out.
    """
    canvas = canvas or Canvas()
    figures = overview_figures(summary, canvas)
    for number, study in enumerate(summary.studies, 1):
        for kind, draw in study_figures(study, summary.space.search, canvas).items():
            figures[name_of(kind, number, study.name)] = draw
    return figures


def overview_figures(summary: SweepSummary, canvas: Canvas | None = None) -> Figures:
    """Of the whole sweep."""
    canvas = canvas or Canvas()
    figures = Figures(emm=partial(sweep_figure, summary, canvas))
    for number, factor in enumerate(varied(summary), 1):
        figures[name_of("factor", number, factor)] = partial(factor_figure, summary, factor, canvas)
    if sum(study.belief is not None for study in summary.studies) > 1:
        figures["profile"] = partial(profile_figure, summary, canvas)
    figures |= _contrast_figures(summary, canvas)
    complete = [result for study in summary.studies for result in study.complete]
    if any(result.pair_agreement is not None for result in complete):
        figures["pairs"] = partial(pair_figure, summary, canvas)
    if any(study.results for study in summary.studies):
        figures["cost"] = partial(cost_figure, summary, canvas)
    return figures


def _contrast_figures(summary: SweepSummary, canvas: Canvas) -> Figures:
    """One, or one of each factor if several are varied: a figure is no longer than a page."""
    shown = {one.factor for one in summary.compared.shown}
    if not varied(summary):
        draw = partial(contrast_figure, summary, canvas)
        return Figures(contrasts=draw) if shown else Figures()
    return Figures(
        (name_of("contrasts", number, factor), partial(contrast_figure, summary, canvas, factor))
        for number, factor in enumerate(varied(summary), 1)
        if factor in shown
    )


def varied(summary: SweepSummary) -> list[str]:
    """The factors that have two levels or more, if there are two of them or more; against a single
    one "emm" is drawn."""
    levels: dict[str, set[str]] = {}
    for study in summary.studies:
        for factor, value in study.factors.items():
            levels.setdefault(factor, set()).add(repr(value))
    factors = [factor for factor, seen in levels.items() if len(seen) > 1]
    return factors if len(factors) > 1 else []


def study_figures(study: StudySummary, search: Search, canvas: Canvas | None = None) -> Figures:
    """Of one study; those of several axes are none for a user's axes."""
    canvas = canvas or Canvas()
    figures = Figures(study=partial(study_figure, study, search, canvas))
    has_curve = any(one.images_trained for result in study.results for one in result.curve)
    if has_curve and canvas.axes is None:
        figures["training"] = partial(training_figure, study)
    return figures


def study_drawings(study: StudySummary, search: Search) -> dict[str, Drawing]:
    """`study_figures`, with all that they depend on."""
    shows = {
        "results": [result.model_dump(mode="json") for result in study.results],
        "verdict": asdict(study.verdict),
        "eye": study.eye,
        "options": asdict(study.options),
        "search": search.model_dump(),
    }
    figures = study_figures(study, search)
    return {kind: Drawing(kind, draw, shows) for kind, draw in figures.items()}


def overview_drawings(summary: SweepSummary) -> dict[str, Drawing]:
    """`overview_figures`, with all that they depend on."""
    seconds = [[result.seconds for result in study.results] for study in summary.studies]
    space = summary.space.model_dump(mode="json")
    # as a key, which is made once for all of them: of many configurations that is long
    shows = key_of({"space": space, "summary": summary.as_json(), "seconds": seconds})
    figures = overview_figures(summary)
    return {kind: Drawing(kind, draw, shows) for kind, draw in figures.items()}


def name_of(kind: str, number: int, name: str) -> str:
    """Name of the figure of a study or a factor, its number from 1 in the order of the table:
    `study-01-width-4`."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name)[:60].strip("-.")
    return f"{kind}-{number:02d}-{slug}"

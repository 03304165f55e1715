"""More figures of a sweep, in the style of `sweep.figures`; and a table of all of them, by the name of their file."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import matplotlib
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from search_spaces.space import Search
from sweep.figures import BLUE, ORANGE, STYLE, WIDTH, numbers, plain, short, study_figure, sweep_figure
from sweep.summary import StudySummary, SweepSummary

Figures = dict[str, Callable[[], Figure]]
ROW, AROUND = 0.17, 0.75  # inches: a line of a figure with names, and what is above and below all of them


def figures_of(summary: SweepSummary) -> Figures:
    """Name → what draws it: "emm", "contrasts", "cost"; of every study `name_of("study", …)` and `name_of("training", …)`.

    What there is nothing to show of is left out.
    """
    figures = overview_figures(summary)
    for number, study in enumerate(summary.studies, 1):
        figures |= {name_of(kind, number, study): draw for kind, draw in study_figures(study, summary.space.search).items()}
    return figures


def overview_figures(summary: SweepSummary) -> Figures:
    """Of the whole sweep."""
    figures: Figures = {"emm": partial(sweep_figure, summary)}
    if summary.steps:
        figures["contrasts"] = partial(contrast_figure, summary)
    if any(study.results for study in summary.studies):
        figures["cost"] = partial(cost_figure, summary)
    return figures


def study_figures(study: StudySummary, search: Search) -> Figures:
    """Of one study."""
    figures: Figures = {"study": partial(study_figure, study, search.target, search.n_low, search.n_high)}
    if any(result.curve for result in study.results):
        figures["training"] = partial(training_figure, study)
    return figures


def name_of(kind: str, number: int, study: StudySummary) -> str:
    """Name of a study's figure, its number from 1 in the order of the table: `study-01-width-4`."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", study.name)[:60].strip("-.")
    return f"{kind}-{number:02d}-{slug}"


@matplotlib.rc_context(STYLE)
def training_figure(study: StudySummary) -> Figure:
    """R_mem at the snapshots against the share of the training; a line for every trial, its colour N."""
    figure = Figure((WIDTH, 2.3))
    axes = figure.add_axes((0.14, 0.175, 0.66, 0.715))
    trials = sorted((result for result in study.results if result.curve), key=lambda result: result.spec.n)
    sizes = [result.spec.n for result in trials]
    norm, colours = LogNorm(min(sizes) / 1.01, max(sizes) * 1.01), matplotlib.colormaps["viridis_r"]
    for result in trials:
        total = result.configuration.trainer.train_images(result.spec.n)
        share, r_mem = zip(*((one.images_trained / total, one.r_mem) for one in result.curve), strict=True)
        axes.plot(share, r_mem, "o-", ms=2.5, color=colours(norm(result.spec.n)), label=f"N={result.spec.n}")
    axes.axhline(study.options.target, color="black", ls="--", lw=0.8)
    axes.set(xlabel="share of the training", ylabel=r"$\mathrm{R_{mem}}$ at the snapshot", xlim=(0, 1.03), ylim=(-0.04, 1.07))
    axes.set_title(short(study.name), parse_math=False)
    beside = figure.add_axes((0.84, 0.175, 0.03, 0.715))
    figure.colorbar(ScalarMappable(norm, colours), cax=beside, label="N")
    numbers(beside.yaxis, min(sizes) / 1.01, max(sizes) * 1.01)
    return figure


@matplotlib.rc_context(STYLE)
def contrast_figure(summary: SweepSummary) -> Figure:
    """EMM ratios of configurations that differ by one step of one factor, with their 95 % intervals.

    Filled: the interval excludes 1, so they are told apart. A diamond: they were trained on different data.
    """
    factors = {study.name: study.factors for study in summary.studies}
    figure, axes = _with_names([_step(factors[one.a], factors[one.b]) for one in summary.steps])
    low, high = min(1.0, *(one.low for one in summary.steps)) / 1.2, max(1.0, *(one.high for one in summary.steps)) * 1.2
    for row, one in enumerate(summary.steps):
        style: Any = {"fmt": "o" if one.same_data else "D", "color": BLUE, "mfc": BLUE if one.is_clear else "white"}
        label = "told apart" if one.is_clear else "not told apart"
        bars = [[one.ratio - one.low], [one.high - one.ratio]]
        axes.errorbar(one.ratio, row, xerr=bars, label=label + ("" if one.same_data else ", other data"), **style)
    axes.axvline(1, color="black", ls="--", lw=0.8)
    axes.set(xscale="log", xlim=(low, high), xlabel="ratio of the EMMs, 95 % interval")
    numbers(axes.xaxis, low, high)
    _legend_below(figure, axes)
    return figure


@matplotlib.rc_context(STYLE)
def cost_figure(summary: SweepSummary) -> Figure:
    """Images trained by configuration, and at the end of each bar the time; hatched: trials that failed."""
    figure, axes = _with_names([study.name for study in summary.studies])
    for row, study in enumerate(summary.studies):
        failed = sum(result.images_trained for result in study.results if not result.complete)
        axes.barh(row, study.images_trained - failed, color=BLUE, height=0.6, label="complete")
        if failed:
            axes.barh(row, failed, left=study.images_trained - failed, color=ORANGE, hatch="////", height=0.6, label="failed")
        seconds = sum(result.seconds for result in study.results)
        axes.annotate(f" {duration(seconds)}", (study.images_trained, row), va="center", fontsize=6)
    axes.set(xlabel="images trained (at the bar: time)", xlim=(0, 1.25 * _most(summary)))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(plain)
    if len(set(axes.get_legend_handles_labels()[1])) > 1:
        _legend_below(figure, axes)
    return figure


def _most(summary: SweepSummary) -> int:
    return max(1, *(study.images_trained for study in summary.studies))


def duration(seconds: float) -> str:
    """Three digits are enough: 48 s, 3.4 min, 5.2 h, 12 d."""
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s"


def _step(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs first, since long names are cut: "width 16 / 8, dropout 0.1"."""
    changed = [f"{factor} {b[factor]} / {value}" for factor, value in a.items() if b[factor] != value]
    return ", ".join(changed + [f"{factor} {value}" for factor, value in a.items() if b[factor] == value])


def _with_names(names: list[str]) -> tuple[Figure, Any]:
    """A figure with a line for every name, from the top."""
    figure = Figure((WIDTH, AROUND + ROW * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [short(name, 34) for name in names], parse_math=False)
    return figure, axes


def _legend_below(figure: Figure, axes: Any) -> None:
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3)

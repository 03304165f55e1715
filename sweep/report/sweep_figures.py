"""Figures of a whole sweep: its curves, contrasts and costs, as matplotlib objects."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.ticker import MaxNLocator, NullLocator

from sweep.analysis.contrasts import Contrast
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.canvas import SIZES, Canvas, labelled, mark_range, set_log, spans
from sweep.report.factors import numeric_factor
from sweep.report.style import BLUE, COLOURS, MARKERS, ORANGE, Figure, Legend, numbers, short
from trainables.text import duration, tick


def profile_figure(summary: SweepSummary, canvas: Canvas | None = None) -> Figure:
    """R_mem against N of all configurations: every complete trial, the mean that is believed, and the
    targets. Open: a trial that was accepted early, whose R_mem is at least that.

    Of more configurations than have a colour and a marker of their own, colours go from dark to
    light: by the factor if there is one and it is a number, else through the table.
    """
    canvas = canvas or Canvas()
    studies = [study for study in summary.studies if study.belief is not None]
    sizes = [trial.n for study in studies for trial in study.observations]
    left, right = min(sizes) / 1.15, max(sizes) * 1.15
    factor = numeric_factor(studies) if len(studies) > len(MARKERS) else None
    levels = [study.factors[factor] for study in studies] if factor else []
    with canvas.styled():
        figure, axes = canvas.begin(2.8)
        set_log(axes.xaxis, left, right)
        legend: Legend = {}
        for study, (colour, marker) in zip(studies, _looks(len(studies), levels), strict=True):
            size = 3.0 if len(studies) <= len(MARKERS) else 1.8
            legend[canvas.called(study.name, 40)] = _draw_curve(axes, study, colour, marker, size)
        own = studies[0].options.target
        for target in sorted(studies[0].profile, key=lambda one: one != own):
            is_own = target == own
            line = axes.axhline(target, color="black", lw=0.5, ls="--" if is_own else ":")
            legend[f"target {own:g}" if is_own else "other targets"] = line
        mark_range(axes.xaxis, summary.space.search)
        of_eye = "" if summary.eye == "pixels" else " in features"
        axes.set(ylim=(-0.04, 1.07), ylabel=canvas.r_mem + of_eye)
        axes.set_xlabel(canvas.with_range(SIZES, summary.space.search))
        if factor:
            targets = list(legend.items())[len(studies) :]
            legend = dict(targets)
            _colour_bar(axes, levels, canvas.called(factor))
        canvas.legend(axes, legend)
    return figure


def _looks(count: int, levels: Sequence[float] = ()) -> list[tuple[Any, str]]:
    """Colour and marker of each configuration: by their levels, if these are given."""
    if levels:
        norm, colours = _shades(levels)
        return [(colours(norm(level)), "o") for level in levels]
    if count <= len(MARKERS):
        return [(COLOURS[i % len(COLOURS)], MARKERS[i]) for i in range(count)]
    shades = matplotlib.colormaps["viridis"].resampled(count)
    return [(shades(i), MARKERS[i % len(MARKERS)]) for i in range(count)]


def _shades(values: Sequence[float]) -> tuple[Normalize, Colormap]:
    low, high = min(values), max(values)
    norm = LogNorm(low, high) if spans(values) else Normalize(low, high)
    return norm, matplotlib.colormaps["viridis"]


def _draw_curve(axes: Axes, study: StudySummary, colour: Any, marker: str, size: float) -> Any:
    """What stands for it in a legend."""
    assert study.belief is not None
    n = np.geomspace(*axes.get_xlim(), 60)
    (line,) = axes.plot(n, study.belief.predict(n)[0], color=colour, lw=0.8)
    for is_open in (True, False):
        seen = [one for one in study.observations if one.right_censored is is_open]
        style: Any = {"color": colour, "ms": size, "mfc": "white" if is_open else colour}
        x, y = [one.n for one in seen], [one.r_mem for one in seen]
        (points,) = axes.plot(x, y, ls="", marker=marker, **style)
    return line, points


def _colour_bar(axes: Axes, values: Sequence[float], name: str) -> None:
    norm, colours = _shades(values)
    bar = axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, aspect=30)
    bar.ax.set_ylabel(name, parse_math=False)
    if spans(values):
        numbers(bar.ax.yaxis, min(values), max(values))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def pair_figure(summary: SweepSummary, canvas: Canvas | None = None) -> Figure:
    """Of trials with a second model: R_mem (filled) and the share of latents from which both models
    draw the same image (open) against N, their means at each N joined by a line."""
    canvas = canvas or Canvas()
    studies = {}
    for study in summary.studies:
        trials = [one for one in study.complete if one.pair_agreement is not None]
        if trials:
            studies[study.name] = trials
    sizes = [one.spec.n for trials in studies.values() for one in trials]
    with canvas.styled():
        figure, axes = canvas.begin(2.6)
        set_log(axes.xaxis, min(sizes) / 1.15, max(sizes) * 1.15)
        mark_range(axes.xaxis, summary.space.search)
        legend: Legend = {}
        looks = _looks(len(studies))
        for (name, trials), (colour, marker) in zip(studies.items(), looks, strict=True):
            called = canvas.called(name, 30)
            n = np.array([one.spec.n for one in trials])
            for what, said, line, fill in (
                ("r_mem", "R_mem", "-", colour),
                ("pair_agreement", "same image", ":", "white"),
            ):
                shares = np.array([getattr(one, what) for one in trials], dtype=float)
                style: Any = {"color": colour, "mfc": fill, "ms": 3}
                (points,) = axes.plot(n, shares, ls="", marker=marker, **style)
                legend[f"{called}: {said}"] = points
                known = np.unique(n)
                means = [shares[n == one].mean() for one in known]
                axes.plot(known, means, line, color=colour, lw=0.7)
        axes.set(ylim=(-0.04, 1.07), ylabel="share of the samples")
        axes.set_xlabel(canvas.with_range(SIZES, summary.space.search))
        canvas.legend(axes, legend, columns=2)
    return figure


# inches: a line of a figure with names, and what is above and below all of them
ROW, AROUND = 0.17, 0.8

TOLD = {"yes": "told apart", "alone": "told apart alone", "no": "not told apart"}


def contrast_figure(
    summary: SweepSummary, canvas: Canvas | None = None, factor: str | None = None
) -> Figure:
    """EMM ratios against the first level of each factor, or of one: thick their own 95 % interval,
    thin that which holds together with all others.

    Filled: the interval excludes 1, so they are told apart; grey: only the own one does. A diamond:
    they were trained on different data.
    """
    canvas = canvas or Canvas()
    shown = [one for one in summary.compared.shown if factor in (None, one.factor)]
    together = f"together, 95 % (of {summary.compared.n_together})"
    with canvas.styled():
        figure, axes = _with_names([_pair_text(summary, one, canvas) for one in shown], canvas)
        ends = [(one.together_low or one.low, one.together_high or one.high) for one in shown]
        least = min(1.0, *(low for low, _ in ends))
        most = max(1.0, *(high for _, high in ends))
        set_log(axes.xaxis, least / 1.15, most * 1.15)
        for row, one in enumerate(shown):
            told = TOLD[one.told] if one.same_data else f"{TOLD[one.told]}, other data"
            fill = {"yes": BLUE, "alone": "#a6c9e2", "no": "white"}[one.told]
            axes.hlines(row, *ends[row], color=BLUE, lw=0.6, label=together)
            axes.hlines(row, one.low, one.high, color=BLUE, lw=1.8, label="alone, 95 %")
            style: Any = {"marker": "o" if one.same_data else "D", "color": BLUE, "mfc": fill}
            axes.plot(one.ratio, row, ls="", ms=4, label=told, **style)
        axes.axvline(1, color="black", ls="--", lw=0.8)
        axes.set_xlabel("ratio of the EMMs")
        canvas.legend(axes, labelled(axes))
    return figure


def _pair_text(summary: SweepSummary, one: Contrast, canvas: Canvas) -> str:
    """As the user calls them; else what differs first, since long names are cut."""
    if one.a in canvas.labels or one.b in canvas.labels:
        return f"{canvas.called(one.b, 24)} / {canvas.called(one.a, 24)}"
    factors = {study.name: study.factors for study in summary.studies}
    a, b = factors[one.a], factors[one.b]
    changed = [name for name, value in a.items() if repr(b[name]) != repr(value)]
    texts = [
        f"{canvas.called(name)} {canvas.value(b[name])} / {canvas.value(a[name])}"
        for name in changed
    ]
    kept = {name: value for name, value in a.items() if name not in changed}
    if len(kept) > 1:  # then there is no room for their names
        return f"{', '.join(texts)} ({', '.join(map(canvas.value, kept.values()))})"
    if kept:
        texts.append(canvas.levels(kept))
    return ", ".join(texts)


def cost_figure(summary: SweepSummary, canvas: Canvas | None = None) -> Figure:
    """Images trained by configuration, and at the end of each bar the time; hatched: trials that
    failed."""
    canvas = canvas or Canvas()
    with canvas.styled():
        names = [canvas.called(study.name) for study in summary.studies]
        figure, axes = _with_names(names, canvas)
        for row, study in enumerate(summary.studies):
            failed = sum(result.images_trained for result in study.results if not result.complete)
            complete = study.images_trained - failed
            axes.barh(row, complete, color=BLUE, height=0.6, label="complete")
            if failed:
                style: Any = {"color": ORANGE, "hatch": "////", "height": 0.6, "label": "failed"}
                axes.barh(row, failed, left=complete, **style)
            seconds = sum(result.seconds for result in study.results)
            end = (study.images_trained, row)
            axes.annotate(f" {duration(seconds)}", end, va="center", fontsize=6)
        most = max(1, *(study.images_trained for study in summary.studies))
        axes.set(xlabel="images trained (at the bar: time)", xlim=(0, 1.25 * most))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(tick)
        legend = labelled(axes)
        canvas.legend(axes, legend if len(legend) > 1 else {})
    return figure


def _with_names(names: Sequence[str], canvas: Canvas) -> tuple[Figure, Axes]:
    """A figure with a line for every name, from the top."""
    figure, axes = canvas.begin(AROUND + ROW * len(names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [short(name, 34) for name in names], parse_math=False)
    return figure, axes

"""Figures of a whole sweep, as matplotlib objects."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator

from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.style import (
    BLUE,
    COLOURS,
    MARKERS,
    ORANGE,
    RED,
    STYLE,
    WIDTH,
    Figure,
    numbers,
    short,
)
from trainables.text import duration, tick


@matplotlib.rc_context(STYLE)
def sweep_figure(summary: SweepSummary) -> Figure:
    """EMM of every configuration with its 95 % interval: against the factor if there is one and it
    is a number, else by name.

    Filled: found. Open: not decided. An arrow at the end of the range: the EMM lies beyond it.
    """
    studies, values = summary.studies, _numeric_factor(summary)
    figure = Figure((WIDTH, 2.3 if values else 0.9 + 0.17 * len(studies)), layout="constrained")
    axes = figure.add_subplot()
    for position, study in zip(values or range(len(studies)), studies, strict=True):
        _draw_emm(axes, study, position, upright=values is not None)
    known = [n for study in studies for n in study.verdict.known]
    search, emm = summary.space.search, "EMM" if summary.eye == "pixels" else "EMM in features"
    low, high = (min(known) / 1.3, max(known) * 1.3) if known else (search.n_low, search.n_high)
    if values:
        axes.set(yscale="log", ylim=(low, high), ylabel=emm)
        axes.set_xlabel(short(next(iter(studies[0].factors))), parse_math=False)
        margin = (max(values) - min(values)) * 0.1
        axes.set_xlim(min(values) - margin, max(values) + margin)
        if len(values) <= 8:
            axes.xaxis.set_major_locator(FixedLocator(values))
        numbers(axes.yaxis, low, high)
    else:
        axes.set(xscale="log", xlim=(low, high), xlabel=emm, ylim=(len(studies) - 0.5, -0.5))
        axes.set_yticks(
            range(len(studies)), [short(study.name, 30) for study in studies], parse_math=False
        )
        numbers(axes.xaxis, low, high)
    if not _legend_below(figure, axes):
        axes.text(0.5, 0.5, "no EMM is known yet", ha="center", transform=axes.transAxes)
    return figure


def _draw_emm(axes: Axes, study: StudySummary, position: float, upright: bool) -> None:
    """One study's EMM; `upright` has EMM on the vertical axis."""
    verdict = study.verdict
    if verdict.emm is None:
        end = verdict.emm_low if verdict.emm_high is None else verdict.emm_high
        if end is not None:  # as an arrow that points away from the range
            x, y = (position, end) if upright else (end, position)
            below, above = "v^" if upright else "<>"
            marker = below if verdict.emm_low is None else above
            axes.plot(x, y, marker, color=RED, mfc="white", ms=5, label="outside the range of N")
        return
    low, high = verdict.emm_low or verdict.emm, verdict.emm_high or verdict.emm
    bars = [[verdict.emm - low], [high - verdict.emm]]
    found = verdict.state == "found"
    label = "found, 95 % interval" if found else "not decided, 95 % interval"
    style: Any = {"fmt": "o", "color": BLUE, "mfc": BLUE if found else "white", "label": label}
    if upright:
        axes.errorbar(position, verdict.emm, yerr=bars, **style)
    else:
        axes.errorbar(verdict.emm, position, xerr=bars, **style)


def _numeric_factor(summary: SweepSummary) -> list[float] | None:
    """The values of the only factor, if they are different numbers."""
    values = []
    for study in summary.studies:
        if len(study.factors) != 1:
            return None
        (value,) = study.factors.values()
        if type(value) not in (int, float):  # a bool is no number here
            return None
        values.append(value)
    return values if len(set(values)) == len(values) > 1 else None


@matplotlib.rc_context(STYLE)
def profile_figure(summary: SweepSummary) -> Figure:
    """R_mem against N of all configurations: every complete trial, the mean that is believed, and the
    targets.

    Colours run through the table; of more configurations than have a colour and a marker of their
    own, from dark to light.
    """
    studies = [study for study in summary.studies if study.belief is not None]
    figure = Figure((WIDTH, 3.0), layout="constrained")
    axes = figure.add_subplot()
    sizes = [trial.n for study in studies for trial in study.observations]
    left, right = min(sizes) / 1.15, max(sizes) * 1.15
    few = len(studies) <= len(MARKERS)
    shades = matplotlib.colormaps["viridis"].resampled(len(studies))
    for number, study in enumerate(studies):
        colour = COLOURS[number % len(COLOURS)] if few else shades(number)
        marker, n = MARKERS[number % len(MARKERS)], np.geomspace(left, right, 60)
        assert study.belief is not None
        axes.plot(n, study.belief.predict(n)[0], color=colour, lw=0.8)
        points = [(trial.n, trial.r_mem) for trial in study.observations]
        name = short(study.name, 24).replace("$", r"\$")
        axes.plot(*zip(*points, strict=True), marker, color=colour, ms=3, label=name)
    for target in studies[0].profile:
        style: Any = {
            "color": "black",
            "lw": 0.5,
            "ls": "--" if target == studies[0].options.target else ":",
        }
        axes.axhline(target, **style)
    in_eye = "" if summary.eye == "pixels" else " in features"
    axes.set(xscale="log", xlim=(left, right), ylim=(-0.04, 1.07))
    axes.set(xlabel="number of training images N", ylabel=r"$\mathrm{R_{mem}}$" + in_eye)
    numbers(axes.xaxis, left, right)
    if few:
        _legend_below(figure, axes)
    return figure


@matplotlib.rc_context(STYLE)
def pair_figure(summary: SweepSummary) -> Figure:
    """Of trials with a second model: R_mem (filled) and the share of latents from which both models
    draw the same image (open) against N, their means at each N joined by a line."""
    figure = Figure((WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    sizes = []
    for number, study in enumerate(summary.studies):
        trials = [one for one in study.complete if one.pair_agreement is not None]
        if not trials:
            continue
        n = np.array([one.spec.n for one in trials])
        sizes += n.tolist()
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        name = short(study.name, 20).replace("$", r"\$")
        for what, line, fill in (("r_mem", "-", colour), ("pair_agreement", ":", "white")):
            shares = np.array([getattr(one, what) for one in trials], dtype=float)
            style: Any = {"color": colour, "mfc": fill, "ms": 3}
            label = f"{name}: {'R_mem' if what == 'r_mem' else 'same image'}"
            axes.plot(n, shares, marker, label=label, **style)
            known = np.unique(n)
            means = [shares[n == one].mean() for one in known]
            axes.plot(known, means, line, color=colour, lw=0.7)
    left, right = min(sizes) / 1.15, max(sizes) * 1.15
    axes.set(xscale="log", xlim=(left, right), ylim=(-0.04, 1.07), ylabel="share of the samples")
    axes.set_xlabel("number of training images N")
    numbers(axes.xaxis, left, right)
    if len(summary.studies) <= len(MARKERS):
        _legend_below(figure, axes, columns=2)
    return figure


# inches: a line of a figure with names, and what is above and below all of them
ROW, AROUND = 0.17, 0.75


@matplotlib.rc_context(STYLE)
def contrast_figure(summary: SweepSummary) -> Figure:
    """EMM ratios of configurations that differ by one step of one factor, with their 95 %
    intervals.

    Filled: the interval excludes 1, so they are told apart. A diamond: they were trained on
    different data.
    """
    factors = {study.name: study.factors for study in summary.studies}
    steps = summary.steps
    figure, axes = _with_names([_step(factors[step.a], factors[step.b]) for step in steps])
    low = min(1.0, *(step.low for step in steps)) / 1.2
    high = max(1.0, *(step.high for step in steps)) * 1.2
    for row, step in enumerate(steps):
        label = "told apart" if step.is_clear else "not told apart"
        style: Any = {
            "fmt": "o" if step.same_data else "D",
            "color": BLUE,
            "mfc": BLUE if step.is_clear else "white",
            "label": label if step.same_data else f"{label}, other data",
        }
        bars = [[step.ratio - step.low], [step.high - step.ratio]]
        axes.errorbar(step.ratio, row, xerr=bars, **style)
    axes.axvline(1, color="black", ls="--", lw=0.8)
    axes.set(xscale="log", xlim=(low, high), xlabel="ratio of the EMMs, 95 % interval")
    numbers(axes.xaxis, low, high)
    _legend_below(figure, axes)
    return figure


@matplotlib.rc_context(STYLE)
def cost_figure(summary: SweepSummary) -> Figure:
    """Images trained by configuration, and at the end of each bar the time; hatched: trials that
    failed."""
    figure, axes = _with_names([study.name for study in summary.studies])
    for row, study in enumerate(summary.studies):
        failed = sum(result.images_trained for result in study.results if not result.complete)
        complete = study.images_trained - failed
        axes.barh(row, complete, color=BLUE, height=0.6, label="complete")
        if failed:
            style: Any = {"color": ORANGE, "hatch": "////", "height": 0.6, "label": "failed"}
            axes.barh(row, failed, left=complete, **style)
        seconds = sum(result.seconds for result in study.results)
        axes.annotate(f" {duration(seconds)}", (study.images_trained, row), va="center", fontsize=6)
    most = max(1, *(study.images_trained for study in summary.studies))
    axes.set(xlabel="images trained (at the bar: time)", xlim=(0, 1.25 * most))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(tick)
    if len(set(axes.get_legend_handles_labels()[1])) > 1:
        _legend_below(figure, axes)
    return figure


def _step(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs first, since long names are cut: "width 16 / 8, dropout 0.1"."""
    changed = [factor for factor, value in a.items() if b[factor] != value]
    kept = [factor for factor in a if factor not in changed]
    texts = [f"{factor} {b[factor]} / {a[factor]}" for factor in changed]
    return ", ".join(texts + [f"{factor} {a[factor]}" for factor in kept])


def _with_names(names: list[str]) -> tuple[Figure, Axes]:
    """A figure with a line for every name, from the top."""
    figure = Figure((WIDTH, AROUND + ROW * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [short(name, 34) for name in names], parse_math=False)
    return figure, axes


def _legend_below(figure: Figure, axes: Axes, columns: int = 3) -> bool:
    """Each label once; whether there is any."""
    handles, labels = axes.get_legend_handles_labels()
    drawn = dict(zip(labels, handles, strict=True))
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=columns)
    return bool(drawn)

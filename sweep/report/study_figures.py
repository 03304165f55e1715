"""Figures of one study, as matplotlib objects."""

from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from search_spaces.space import Search
from sweep.analysis.study import StudySummary
from sweep.report.canvas import SIZES, Canvas, mark_range, set_log
from sweep.report.style import BLUE, GREY, R_MEM, RED, STYLE, WIDTH, Figure, Legend, numbers
from sweep.search.belief import BAND_SEEDS
from trainables.measure.r_mem import r_mem_interval
from trainables.trial.result import Result

Floats = NDArray[np.float64]


def study_figure(study: StudySummary, search: Search, canvas: Canvas | None = None) -> Figure:
    """R_mem against N: every complete trial with its 95 % interval, the belief, the target, the EMM
    with its 95 % interval, the ends of the range."""
    canvas = canvas or Canvas()
    with canvas.styled():
        if canvas.axes is not None:
            canvas.legend(canvas.axes, _draw_study(canvas.axes, study, search, canvas))
            return cast(Figure, canvas.axes.figure)
        figure = Figure((WIDTH, 2.3))
        # the same in all studies, so that they can be compared
        axes = figure.add_axes((0.14, 0.375, 0.835, 0.595))
        legend = _draw_study(axes, study, search, canvas)
        place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.225), "ncols": 2}
        figure.legend(legend.values(), legend.keys(), handlelength=1.6, columnspacing=1.2, **place)
    return figure


def _draw_study(axes: Axes, study: StudySummary, search: Search, canvas: Canvas) -> Legend:
    verdict, belief, n_low, n_high = study.verdict, study.belief, search.n_low, search.n_high
    shown = [n_low, n_high, *(result.spec.n for result in study.complete), *verdict.known]
    left, right = min(shown) / 1.2, max(shown) * 1.2
    legend = _draw_trials(axes, study)
    if belief is not None:
        n = np.geomspace(left, right, 150)
        mean, lower, upper = belief.predict(n, BAND_SEEDS)
        band = axes.fill_between(n, lower, upper, color=GREY, alpha=0.3, lw=0)
        (line,) = axes.plot(n, mean, color="0.35")
        legend["belief: mean, 95 % of trials"] = (band, line)
    own = study.options.target
    legend[f"target {own:g}"] = axes.axhline(own, color="black", ls="--", lw=0.8)
    if verdict.known:
        low, high = verdict.emm_low or left, verdict.emm_high or right
        drawn: list[Artist] = [axes.axvspan(low, high, color=RED, alpha=0.2, lw=0)]
        if verdict.emm is not None:
            drawn.append(axes.axvline(verdict.emm, color=RED, label="EMM"))
        legend["EMM, 95 % interval"] = tuple(drawn)
    axes.set(ylim=(-0.04, 1.07))
    set_log(axes.xaxis, left, right)
    mark_range(axes.xaxis, search)
    axes.set_ylabel(canvas.r_mem + ("" if study.eye == "pixels" else " in features"))
    axes.set_xlabel(canvas.with_range(SIZES, search))
    return legend


def _draw_trials(axes: Axes, study: StudySummary) -> Legend:
    """Dots; upward arrows for trials that were accepted early, whose R_mem is at least what was
    measured."""
    legend: Legend = {}
    measured = [result for result in study.complete if result.r_mem is not None]
    common: Any = {"color": BLUE, "elinewidth": 0.8}
    trials = [result for result in measured if not result.right_censored]
    if trials:
        n, r_mem, below, above = _bars(trials)
        legend["trial, 95 % interval"] = axes.errorbar(
            n, r_mem, [below, above], fmt="o", mfc=BLUE, **common
        )
    trials = [result for result in measured if result.right_censored]
    if trials:
        n, r_mem, below, above = _bars(trials)
        legend["trial, at least this"] = axes.errorbar(
            n, r_mem, [below, np.zeros_like(above)], fmt="^", mfc="white", **common
        )
    return legend


def _bars(trials: list[Result]) -> tuple[Floats, Floats, Floats, Floats]:
    """N, R_mem, and how far the 95 % interval reaches below and above it; of each trial."""
    n = np.array([result.spec.n for result in trials], dtype=float)
    r_mem = np.array([result.r_mem for result in trials], dtype=float)
    ends = [r_mem_interval(result.n_memorized, result.n_samples) for result in trials]
    low, high = np.array(ends).T
    return n, r_mem, np.maximum(r_mem - low, 0), np.maximum(high - r_mem, 0)


@matplotlib.rc_context(STYLE)
def training_figure(study: StudySummary) -> Figure:
    """R_mem at the snapshots against the share of the training, and against epochs, where trials of
    all N coincide if the onset of copying is proportional to N; a line for every trial, its colour
    N."""
    figure = Figure((WIDTH, 4.0))
    axes = figure.add_axes((0.14, 0.615, 0.66, 0.37))
    below = figure.add_axes((0.14, 0.1, 0.66, 0.37))
    trials = sorted(
        (result for result in study.results if result.curve), key=lambda result: result.spec.n
    )
    sizes = [result.spec.n for result in trials]
    low, high = min(sizes) / 1.01, max(sizes) * 1.01
    norm, colours = LogNorm(low, high), matplotlib.colormaps["viridis_r"]
    for result in trials:
        n = result.spec.n
        total = result.configuration.trainer.train_images(n)
        share = [snapshot.images_trained / total for snapshot in result.curve]
        r_mem = [snapshot.r_mem for snapshot in result.curve]
        axes.plot(share, r_mem, "o-", ms=2.5, color=colours(norm(n)), label=f"N={n}")
    # at once, which takes a quarter of the time of a line after the other
    by_epoch = [
        [(one.images_trained / result.spec.n, one.r_mem) for one in result.curve]
        for result in trials
    ]
    below.add_collection(LineCollection(by_epoch, colors=colours(norm(sizes))))
    for part in (axes, below):
        part.axhline(study.options.target, color="black", ls="--", lw=0.8)
        part.set(ylabel=f"{R_MEM} at the snapshot", ylim=(-0.04, 1.07))
    axes.set(xlabel="share of the training", xlim=(0, 1.03))
    epochs = [epoch for line in by_epoch for epoch, _ in line if epoch]
    ends = min(epochs) / 1.1, max(epochs) * 1.1
    below.set(xlabel="epochs (images trained / N)", xscale="log", xlim=ends)
    numbers(below.xaxis, *ends)
    beside = figure.add_axes((0.84, 0.1, 0.03, 0.885))
    figure.colorbar(ScalarMappable(norm, colours), cax=beside, label="N")
    numbers(beside.yaxis, low, high)
    return figure

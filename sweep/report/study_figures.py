"""Figures of one study, as matplotlib objects."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sweep.analysis.study import StudySummary
from sweep.report.style import BLUE, GREY, RED, STYLE, WIDTH, Legend, numbers, short
from sweep.search.words import emm_text, interval_text
from trainables.measure.r_mem import r_mem_interval


@matplotlib.rc_context(STYLE)
def study_figure(study: StudySummary, target: float, n_low: int, n_high: int) -> Figure:
    """R_mem against N: every complete trial with its 95 % interval, the belief, the target, the EMM
    with its 95 % interval."""
    figure = Figure((WIDTH, 2.6))
    # the same in all studies, so that they can be compared
    axes = figure.add_axes((0.14, 0.335, 0.835, 0.525))
    verdict, belief = study.verdict, study.belief
    shown = [n_low, n_high, *(result.spec.n for result in study.complete), *_known(study)]
    left, right = min(shown) / 1.2, max(shown) * 1.2
    legend = _draw_trials(axes, study)
    if belief is not None:
        n = np.geomspace(left, right, 150)
        mean, low, high = belief.predict(n)
        band = axes.fill_between(n, low, high, color=GREY, alpha=0.3, lw=0)
        legend["belief: mean, 95 % of trials"] = band, *axes.plot(n, mean, color="0.35")
    legend[f"target {target:g}"] = axes.axhline(target, color="black", ls="--", lw=0.8)
    if _known(study):
        drawn: list[Artist] = [
            axes.axvspan(
                verdict.emm_low or left, verdict.emm_high or right, color=RED, alpha=0.2, lw=0
            )
        ]
        if verdict.emm is not None:
            drawn.append(axes.axvline(verdict.emm, color=RED, label="EMM"))
        legend["EMM, 95 % interval"] = tuple(drawn)
    axes.set(xscale="log", xlim=(left, right), ylim=(-0.04, 1.07), ylabel=r"$\mathrm{R_{mem}}$")
    axes.set_xlabel("number of training images N")
    numbers(axes.xaxis, left, right)
    axes.set_title(f"{short(study.name)}\n{short(_caption(study))}", parse_math=False)
    place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.2), "ncols": 2}
    figure.legend(legend.values(), legend.keys(), handlelength=1.6, columnspacing=1.2, **place)
    return figure


def _caption(study: StudySummary) -> str:
    verdict = study.verdict
    if not _known(study):
        return f"{verdict.state}: {verdict.reason}"
    both = verdict.emm is not None
    return f"{verdict.state}: EMM {emm_text(verdict, study.options)}" + (
        f", 95 % interval {interval_text(verdict)}" if both else ""
    )


def _draw_trials(axes: Axes, study: StudySummary) -> Legend:
    """Dots; upward arrows for trials that were accepted early, whose R_mem is at least what was
    measured."""
    legend: Legend = {}
    for censored, marker, label in (
        (False, "o", "trial, 95 % interval"),
        (True, "^", "trial, at least this"),
    ):
        trials = [r for r in study.complete if r.right_censored is censored and r.r_mem is not None]
        if trials:
            r_mem = np.array([r.r_mem for r in trials])
            low, high = np.array([r_mem_interval(r.n_memorized, r.n_samples) for r in trials]).T
            bars = np.maximum([r_mem - low, np.zeros_like(low) if censored else high - r_mem], 0)
            style: Any = {
                "fmt": marker,
                "color": BLUE,
                "elinewidth": 0.8,
                "mfc": "white" if censored else BLUE,
            }
            legend[label] = axes.errorbar([r.spec.n for r in trials], r_mem, bars, **style)
    return legend


def _known(study: StudySummary) -> list[float]:
    """The EMM and the ends of its interval, as far as they are known."""
    verdict = study.verdict
    return [n for n in (verdict.emm, verdict.emm_low, verdict.emm_high) if n is not None]


@matplotlib.rc_context(STYLE)
def training_figure(study: StudySummary) -> Figure:
    """R_mem at the snapshots against the share of the training; a line for every trial, its colour
    N."""
    figure = Figure((WIDTH, 2.3))
    axes = figure.add_axes((0.14, 0.175, 0.66, 0.715))
    trials = sorted(
        (result for result in study.results if result.curve), key=lambda result: result.spec.n
    )
    sizes = [result.spec.n for result in trials]
    norm, colours = LogNorm(min(sizes) / 1.01, max(sizes) * 1.01), matplotlib.colormaps["viridis_r"]
    for result in trials:
        total = result.configuration.trainer.train_images(result.spec.n)
        share, r_mem = zip(
            *((one.images_trained / total, one.r_mem) for one in result.curve), strict=True
        )
        axes.plot(
            share,
            r_mem,
            "o-",
            ms=2.5,
            color=colours(norm(result.spec.n)),
            label=f"N={result.spec.n}",
        )
    axes.axhline(study.options.target, color="black", ls="--", lw=0.8)
    axes.set(
        xlabel="share of the training",
        ylabel=r"$\mathrm{R_{mem}}$ at the snapshot",
        xlim=(0, 1.03),
        ylim=(-0.04, 1.07),
    )
    axes.set_title(short(study.name), parse_math=False)
    beside = figure.add_axes((0.84, 0.175, 0.03, 0.715))
    figure.colorbar(ScalarMappable(norm, colours), cax=beside, label="N")
    numbers(beside.yaxis, min(sizes) / 1.01, max(sizes) * 1.01)
    return figure

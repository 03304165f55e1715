"""Figures of a sweep, as matplotlib objects: one for each study, one for all. No pyplot, and no setting outlives a call.

They are one column of a paper wide. Colours are Okabe and Ito's, which colour-blind people tell apart; nothing is said by
colour alone. Names are users' text: never read as mathematics.
"""

import math
import textwrap
import warnings
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from sweep.summary import StudySummary, SweepSummary
from sweep.wording import emm_text, interval_text
from trainables.memorization import r_mem_interval

WIDTH = 3.3  # inches
BLUE, RED, ORANGE, GREY = "#0072B2", "#D55E00", "#E69F00", "#999999"
Legend = dict[str, Any]  # text → what is drawn, one thing or several in one place
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "errorbar.capsize": 1.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType; publishers refuse Type 3
}


@matplotlib.rc_context(STYLE)
def study_figure(study: StudySummary, target: float, n_low: int, n_high: int) -> Figure:
    """R_mem against N: every complete trial with its 95 % interval, the belief, the target, the EMM with its 95 % interval."""
    figure = Figure((WIDTH, 2.6))
    axes = figure.add_axes((0.14, 0.335, 0.835, 0.525))  # the same in all studies, so that they can be compared
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
        drawn: list[Artist] = [axes.axvspan(verdict.emm_low or left, verdict.emm_high or right, color=RED, alpha=0.2, lw=0)]
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
    """Dots; upward arrows for trials that were accepted early, whose R_mem is at least what was measured."""
    legend: Legend = {}
    for censored, marker, label in ((False, "o", "trial, 95 % interval"), (True, "^", "trial, at least this")):
        trials = [r for r in study.complete if r.right_censored is censored and r.r_mem is not None]
        if trials:
            r_mem = np.array([r.r_mem for r in trials])
            low, high = np.array([r_mem_interval(r.n_memorized, r.n_samples) for r in trials]).T
            bars = np.maximum([r_mem - low, np.zeros_like(low) if censored else high - r_mem], 0)
            style: Any = {"fmt": marker, "color": BLUE, "elinewidth": 0.8, "mfc": "white" if censored else BLUE}
            legend[label] = axes.errorbar([r.spec.n for r in trials], r_mem, bars, **style)
    return legend


@matplotlib.rc_context(STYLE)
def sweep_figure(summary: SweepSummary) -> Figure:
    """EMM of every configuration with its 95 % interval: against the factor if there is one and it is a number, else by name.

    Filled: found. Open: not decided. An arrow at the end of the range: the EMM lies beyond it.
    """
    studies, values = summary.studies, _numeric_factor(summary)
    figure = Figure((WIDTH, 2.3 if values else 0.9 + 0.17 * len(studies)), layout="constrained")
    axes = figure.add_subplot()
    for position, study in zip(values or range(len(studies)), studies, strict=True):
        _draw_emm(axes, study, position, upright=values is not None)
    known = [n for study in studies for n in _known(study)]
    search = summary.space.search
    low, high = (min(known) / 1.3, max(known) * 1.3) if known else (search.n_low, search.n_high)
    if values:
        axes.set(yscale="log", ylim=(low, high), ylabel="EMM")
        axes.set_xlabel(short(next(iter(studies[0].factors))), parse_math=False)
        margin = (max(values) - min(values)) * 0.1
        axes.set_xlim(min(values) - margin, max(values) + margin)
        if len(values) <= 8:
            axes.xaxis.set_major_locator(FixedLocator(values))
        numbers(axes.yaxis, low, high)
    else:
        axes.set(xscale="log", xlim=(low, high), xlabel="EMM", ylim=(len(studies) - 0.5, -0.5))
        axes.set_yticks(range(len(studies)), [short(study.name, 30) for study in studies], parse_math=False)
        numbers(axes.xaxis, low, high)
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each label once
    if not drawn:
        axes.text(0.5, 0.5, "no EMM is known yet", ha="center", transform=axes.transAxes)
    else:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3)
    return figure


def _known(study: StudySummary) -> list[float]:
    """The EMM and the ends of its interval, as far as they are known."""
    verdict = study.verdict
    return [n for n in (verdict.emm, verdict.emm_low, verdict.emm_high) if n is not None]


def _draw_emm(axes: Axes, study: StudySummary, position: float, upright: bool) -> None:
    """One study's EMM; `upright` has EMM on the vertical axis."""
    verdict = study.verdict
    if verdict.emm is None:
        end = verdict.emm_low if verdict.emm_high is None else verdict.emm_high
        if end is not None:  # as an arrow that points away from the range
            marker = ("^v" if upright else "><")[verdict.emm_low is None]
            point = (position, end) if upright else (end, position)
            axes.plot(*point, marker, color=RED, mfc="white", ms=5, label="outside the range of N")
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
    factors = [study.factors for study in summary.studies]
    values = [value for one in factors for value in one.values() if type(value) in (int, float)]
    return values if all(len(one) == 1 for one in factors) and len(set(values)) == len(factors) > 1 else None


def numbers(axis: Axis, low: float, high: float) -> None:
    """Plain numbers (20, 500, 2k) on a logarithmic axis, few enough to be read, also where it spans less than a decade."""
    decades = math.log10(high / low)
    subs = (1, 1.5, 2, 3, 4, 5, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.7 else (1,)
    axis.set_major_locator(MaxNLocator(5) if decades < 0.35 else LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(plain)


def plain(n: float, position: float = 0) -> str:
    """A number at an axis."""
    return f"{n:g}" if n < 1000 else f"{n / 1e3:g}k" if n < 1e6 else f"{n / 1e6:g}M"


def short(name: str, width: int = 58) -> str:
    return (
        textwrap.shorten(name, width, placeholder="…")
        if " " in name
        else name
        if len(name) <= width
        else name[: width - 1] + "…"
    )


# a name in letters that the font lacks: they are drawn as boxes
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def as_png(figure: Figure, dpi: int = 220) -> bytes:
    return _saved(figure, "png", {"Software": None}, dpi)


def as_pdf(figure: Figure) -> bytes:
    return _saved(figure, "pdf", {"CreationDate": None}, 220)  # the same figure gives the same bytes


@matplotlib.rc_context(STYLE)
def _saved(figure: Figure, kind: str, metadata: dict[str, None], dpi: int) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format=kind, metadata=metadata, dpi=dpi)
    return stream.getvalue()

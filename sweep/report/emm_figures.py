"""Figures of the EMM of many configurations: by name, and against their factors."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from search_spaces.space import Search
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.canvas import Canvas, labelled, mark_range, set_log, spans
from sweep.report.factors import is_number, numeric_factor
from sweep.report.style import BLUE, COLOURS, MARKERS, Figure, Legend
from trainables.text import tick

APART = 0.03  # of an axis: lines at one value of a factor stand beside each other

MOST_TICKS = 9  # levels of a factor that each have a tick of their own


def sweep_figure(summary: SweepSummary, canvas: Canvas | None = None) -> Figure:
    """EMM of every configuration with its 95 % interval: against the factor if there is one and it
    is a number, else by name.

    Filled: found. Open: not decided. An arrow at the end of the range: the EMM lies beyond it.
    """
    canvas = canvas or Canvas()
    factor = numeric_factor(summary.studies)
    if factor is not None:
        return factor_figure(summary, factor, canvas)
    studies = summary.studies
    with canvas.styled():
        figure, axes = canvas.begin(0.95 + 0.17 * len(studies))
        _scale_emm(axes.xaxis, studies, summary, canvas)
        for position, study in enumerate(studies):
            _draw_emm(axes, study, position, summary.space.search, upright=False)
        axes.set_ylim(len(studies) - 0.5, -0.5)
        names = [canvas.called(study.name, 30) for study in studies]
        axes.set_yticks(range(len(studies)), names, parse_math=False)
        _finish(axes, canvas)
    return figure


def factor_figure(summary: SweepSummary, factor: str, canvas: Canvas | None = None) -> Figure:
    """EMM against a factor, with its 95 % interval; a line for every combination of the others'
    levels.

    Levels that are numbers stand at their value, on a logarithmic axis if they span a factor of 4;
    others in the order of the table. Points as in `sweep_figure`; lines join those that were found.
    """
    canvas = canvas or Canvas()
    studies = [study for study in summary.studies if factor in study.factors]
    lines: dict[str, list[StudySummary]] = {}
    for study in studies:
        rest = {name: value for name, value in study.factors.items() if name != factor}
        lines.setdefault(canvas.levels(rest), []).append(study)
    with canvas.styled():
        figure, axes = canvas.begin(2.4)
        places = _scale_factor(axes, studies, factor, canvas)
        _scale_emm(axes.yaxis, studies, summary, canvas)
        legend: Legend = {}
        for number, (name, of_line) in enumerate(lines.items()):
            aside = APART * (number - (len(lines) - 1) / 2) / max(1, len(lines) / 4)
            x = [_beside(axes, places[repr(study.factors[factor])], aside) for study in of_line]
            drawn = _draw_line(axes, of_line, x, _look(number, len(lines)), summary.space.search)
            if len(lines) > 1:
                legend[name] = drawn
        said = labelled(axes)
        _finish(axes, canvas, legend | {text: _grey(text) for text in said} if legend else said)
    return figure


# ---------------------------------------------------------------- axes


def _scale_emm(
    axis: Axis, studies: Sequence[StudySummary], summary: SweepSummary, canvas: Canvas
) -> None:
    """From the smallest to the largest N that is known of any EMM, and to the end of the range where
    one lies beyond it."""
    search, states = summary.space.search, {study.verdict.state for study in studies}
    known = [float(n) for study in studies for n in _ends(study)]
    known += [search.n_low] if "below_range" in states or not known else []
    known += [search.n_high] if "above_range" in states or len(known) < 2 else []
    set_log(axis, min(known) / 1.3, max(known) * 1.3)
    mark_range(axis, search)
    emm = "EMM" if summary.eye == "pixels" else "EMM in features"
    axis.set_label_text(canvas.with_range(emm, search))


def _ends(study: StudySummary) -> list[float]:
    """What is drawn of an EMM; nothing of one beyond the range, which stands at its end."""
    return [] if study.verdict.emm is None else study.verdict.known


def _scale_factor(
    axes: Axes, studies: Sequence[StudySummary], factor: str, canvas: Canvas
) -> dict[str, float]:
    """repr of a level → its place on the horizontal axis."""
    levels = list({repr(s.factors[factor]): s.factors[factor] for s in studies}.values())
    axes.set_xlabel(canvas.called(factor), parse_math=False)
    if not all(map(is_number, levels)):
        names = [canvas.value(level) for level in levels]
        is_long = sum(map(len, names)) > 40
        slant: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
        axes.set_xticks(range(len(levels)), names, parse_math=False, **slant)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        return {repr(level): float(i) for i, level in enumerate(levels)}
    if spans(levels):
        margin = (max(levels) / min(levels)) ** 0.08
        set_log(axes.xaxis, min(levels) / margin, max(levels) * margin)
    else:
        margin = (max(levels) - min(levels)) * 0.08 or 0.5
        axes.set_xlim(min(levels) - margin, max(levels) + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    if len(levels) <= MOST_TICKS and _are_apart(axes, sorted(levels)):
        axes.xaxis.set_major_locator(FixedLocator(levels))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: canvas.called(tick(value)))
    return {repr(level): float(level) for level in levels}


def _are_apart(axes: Axes, levels: Sequence[float]) -> bool:
    """Whether there is room for a number at each."""
    places = [axes.transLimits.transform(axes.transScale.transform((x, 1)))[0] for x in levels]
    return bool(np.diff(places).min(initial=1) > 0.07)


def _beside(axes: Axes, place: float, aside: float) -> float:
    """`aside`: as a share of the axis."""
    if not aside:
        return place
    to_axes = axes.transScale + axes.transLimits
    x, y = to_axes.transform((place, axes.get_ylim()[0]))
    return float(to_axes.inverted().transform((x + aside, y))[0])


# ---------------------------------------------------------------- what is drawn


def _look(number: int, count: int) -> dict[str, Any]:
    """Colour and marker of a line: of more than have one of their own, from dark to light."""
    shades = matplotlib.colormaps["viridis"].resampled(max(count, 2))
    colour = COLOURS[number % len(COLOURS)] if count <= len(MARKERS) else shades(number)
    return {"color": colour, "marker": MARKERS[number % len(MARKERS)]}


SIGNS = {
    "found, 95 % interval": ("o", "0.4"),
    "not decided, 95 % interval": ("o", "white"),
    "below the range": ("v", "white"),
    "above the range": ("^", "white"),
}


def _grey(text: str) -> Line2D:
    """What stands for it in a legend of lines that have colours and markers of their own."""
    marker, fill = SIGNS[text]
    return Line2D([], [], ls="", marker=marker, color="0.4", mfc=fill)


def _draw_line(
    axes: Axes,
    studies: Sequence[StudySummary],
    x: Sequence[float],
    look: dict[str, Any],
    search: Search,
) -> Any:
    """The studies of a line, at `x`; what stands for it in the legend."""
    ordered = sorted(zip(x, studies, strict=True), key=lambda pair: pair[0])
    found = [(place, s.verdict.emm) for place, s in ordered if s.verdict.state == "found"]
    style = {**look, "ms": 3.5}
    for place, study in ordered:
        _draw_emm(axes, study, place, search, upright=True, look=style)
    (line,) = axes.plot(*(zip(*found, strict=True) if found else ([], [])), lw=0.8, **style)
    return line


def _draw_emm(
    axes: Axes,
    study: StudySummary,
    position: float,
    search: Search,
    upright: bool,
    look: dict[str, Any] | None = None,
) -> None:
    """One study's EMM; `upright` has EMM on the vertical axis."""
    verdict, look = study.verdict, look or {"color": BLUE, "marker": "o", "ms": 3.5}
    if verdict.state in ("below_range", "above_range"):
        is_below = verdict.state == "below_range"
        end = search.n_low if is_below else search.n_high
        x, y = (position, end) if upright else (end, position)
        arrow: Any = {"marker": ("v^" if upright else "<>")[0 if is_below else 1], "ms": 5}
        arrow |= {"ls": "", "mfc": "white", "clip_on": False, "color": look["color"]}
        axes.plot(x, y, label="below the range" if is_below else "above the range", **arrow)
    if verdict.emm is None:
        return
    low, high = verdict.emm_low or verdict.emm, verdict.emm_high or verdict.emm
    bars = [[verdict.emm - low], [high - verdict.emm]]
    found = verdict.state == "found"
    style: Any = {**look, "ls": "", "elinewidth": 0.8, "mfc": look["color"] if found else "white"}
    style["label"] = f"{'found' if found else 'not decided'}, 95 % interval"
    if upright:
        axes.errorbar(position, verdict.emm, yerr=bars, **style)
    else:
        axes.errorbar(verdict.emm, position, xerr=bars, **style)


def _finish(axes: Axes, canvas: Canvas, legend: Legend | None = None) -> None:
    legend = labelled(axes) if legend is None else legend
    signs = {text: legend[text] for text in SIGNS if text in legend}
    legend = {text: drawn for text, drawn in legend.items() if text not in signs} | signs
    if not legend:
        axes.text(0.5, 0.5, "no EMM is known yet", ha="center", transform=axes.transAxes)
    canvas.legend(axes, legend)

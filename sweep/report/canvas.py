"""Where a figure is drawn, and what it calls things: a figure of its own, or axes of the user's."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis

from search_spaces.settings import text_of
from search_spaces.space import Search
from sweep.analysis.summary import SweepSummary
from sweep.report.style import GREY, R_MEM, STYLE, WIDTH, Figure, Legend, numbers, short
from trainables.text import tick

LOG_FROM = 4.0  # an axis is logarithmic where its values span this factor

SIZES = "number of training images N"  # of an axis

ROW = 0.13  # inches: a line of a legend

# points, about: a letter of a legend, the sign beside a text, the room between two columns
LETTER, SIGN, BETWEEN = 3.7, 22.0, 8.0


@dataclass(frozen=True)
class Canvas:
    """`axes`: of the user's, into which a figure is drawn, in the user's own style; `labels`: what
    configurations, factors and their values are called, where it is not their name."""

    axes: Axes | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def styled(self) -> AbstractContextManager[None]:
        return cast(
            AbstractContextManager[None],
            matplotlib.rc_context(STYLE) if self.axes is None else nullcontext(),
        )

    def begin(self, height: float) -> tuple[Figure, Axes]:
        """A figure of one column's width, or the user's; and the axes to draw into."""
        if self.axes is not None:
            return cast(Figure, self.axes.figure), self.axes
        figure = Figure((WIDTH, height), layout="constrained")
        return figure, figure.add_subplot()

    def called(self, name: str, width: int = 58) -> str:
        return short(self.labels.get(name, name), width)

    @property
    def r_mem(self) -> str:
        """On an axis; the user's font may lack lowered letters."""
        return R_MEM if self.axes is None else r"$\mathrm{R_{mem}}$"

    def value(self, value: Any) -> str:
        """A level of a factor."""
        return self.called(text_of(value), 24)

    def levels(self, factors: Mapping[str, Any]) -> str:
        """Several factors with their values: "labels none, depth 2"."""
        return ", ".join(f"{self.called(name)} {self.value(v)}" for name, v in factors.items())

    def with_range(self, text: str, search: Search) -> str:
        """What an axis of N is called; of ours with the range, whose ends may not be seen on it."""
        if self.axes is not None:
            return text
        return f"{text} (searched: N {tick(search.n_low)} to {tick(search.n_high)})"

    def legend(self, axes: Axes, legend: Legend, columns: int | None = None) -> None:
        """Each text once: below a figure of our own, which grows by it; in the user's axes."""
        if not legend:
            return
        texts = [text.replace("$", r"\$") for text in legend]
        if self.axes is not None:
            axes.legend(legend.values(), texts, fontsize="small", frameon=False)
            return
        count = columns or columns_for(texts)
        figure = cast(Figure, axes.figure)
        rows = -(-len(texts) // count)
        figure.set_figheight(figure.get_figheight() + ROW * (rows - 1))
        figure.legend(
            legend.values(), texts, loc="outside lower center", ncols=count, columnspacing=1.2
        )


def names_of(summary: SweepSummary) -> set[str]:
    """All that a label may stand for: configurations, factors, and their values."""
    factors = [study.factors for study in summary.studies]
    values = {text_of(value) for one in factors for value in one.values()}
    return {
        *(study.name for study in summary.studies),
        *(n for one in factors for n in one),
        *values,
    }


def columns_for(texts: Sequence[str]) -> int:
    """Of a legend below a figure: as many as there is room for, up to four."""
    longest = LETTER * max(len(text) for text in texts) + SIGN
    room = int((WIDTH * 72 + BETWEEN) // (longest + BETWEEN))
    return max(1, min(4, len(texts), room))


def labelled(axes: Axes) -> Legend:
    """What was drawn with a label, each once."""
    handles, texts = axes.get_legend_handles_labels()
    return dict(zip(texts, handles, strict=True))


def spans(values: Sequence[float]) -> bool:
    """Whether they are to stand on a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def set_log(axis: Axis, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high`, with plain numbers."""
    axes = axis.axes
    if axis is axes.xaxis:
        axes.set(xscale="log", xlim=(low, high))
    else:
        axes.set(yscale="log", ylim=(low, high))
    numbers(axis, low, high)


def mark_range(axis: Axis, search: Search) -> None:
    """Lines at the ends of the range of N that was searched, where they lie on the axis."""
    low, high = sorted(axis.get_view_interval())
    draw = axis.axes.axvline if axis is axis.axes.xaxis else axis.axes.axhline
    for end in (search.n_low, search.n_high):
        if low <= end <= high:
            draw(end, color=GREY, lw=0.7, ls=(0, (1, 1.5)), zorder=0)

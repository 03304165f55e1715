"""How figures look, and how they become files. No pyplot, and no setting outlives a call.

Figures are one column of a paper wide. Colours are Okabe and Ito's, which colour-blind people tell
apart; nothing is said by colour alone. Names are users' text: never read as mathematics.
"""

import math
import textwrap
import warnings
from io import BytesIO
from typing import Any

import matplotlib
from fontTools import subset
from matplotlib import figure as figures
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from sweep.report.font import families
from trainables.text import tick

WIDTH = 3.3  # inches

DPI = 220  # of a PNG

BLUE, RED, ORANGE, GREY = "#0072B2", "#D55E00", "#E69F00", "#999999"

# all of Okabe and Ito's that show on white, and what tells more configurations than these apart
COLOURS = BLUE, RED, "#009E73", "#CC79A7", ORANGE, "#56B4E9", "black"
MARKERS = "o", "s", "^", "D", "v", "P", "X", "<", ">", "*"

R_MEM = "Rₘₑₘ"  # as text: mathematics would be set anew for every figure, in a second font

Legend = dict[str, Any]  # text → what is drawn, one thing or several in one place

STYLE: Any = {
    "font.family": families(),
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
    # by this matplotlib's PDFs say how many letters a font has: else those of R_MEM are a second one
    "ps.fonttype": 42,
}


class Figure(figures.Figure):
    """One that a notebook shows, though it is none of pyplot's."""

    def _repr_png_(self) -> bytes:
        return as_png(self)


def numbers(axis: Axis, low: float, high: float) -> None:
    """Plain numbers (20, 500, 2k) on a logarithmic axis, few enough to be read, also where it spans
    less than a decade."""
    decades = math.log10(high / low)
    if decades < 0.35:
        axis.set_major_locator(MaxNLocator(5))
    elif decades < 1:
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.7 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(tick)


def short(name: str, width: int = 58) -> str:
    """At most `width` characters; a name of several words is cut between two of them."""
    if " " in name:
        return textwrap.shorten(name, width, placeholder="…")
    return name if len(name) <= width else name[: width - 1] + "…"


# a name in letters that the font lacks: they are drawn as boxes
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


# matplotlib has set a text before it is embedded. The tables by which others would set it take
# a sixth to a third of the time of a PDF, to be cut down to its letters
subset.Options._drop_tables_default = [
    *getattr(subset.Options, "_drop_tables_default", []),
    *("GDEF", "GPOS", "GSUB"),
]


# without what changes from day to day: the same figure gives the same bytes


def as_png(figure: figures.Figure, dpi: int = DPI) -> bytes:
    # PIL's usual effort takes half as long again, for files that are at most a tenth smaller
    effort = {"compress_level": 3}
    return _saved(figure, format="png", metadata={"Software": None}, dpi=dpi, pil_kwargs=effort)


def as_pdf(figure: figures.Figure) -> bytes:
    return _saved(figure, format="pdf", metadata={"CreationDate": None}, dpi=DPI)


@matplotlib.rc_context(STYLE)
def _saved(figure: figures.Figure, **how: Any) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, **how)
    return stream.getvalue()

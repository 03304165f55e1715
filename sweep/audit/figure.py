"""How near generated images are to training images, drawn beside how near held-out ones are."""

import matplotlib
import numpy as np

from sweep.audit.compare import Audit
from sweep.report.style import BLUE, RED, STYLE, WIDTH, Figure
from trainables.measure.r_mem import Floats, Neighbours

BINS = np.linspace(0, 1, 51).tolist()


def ratios(near: Neighbours) -> Floats:
    """[n], d1 / d2; 1 where both are 0: neither can be told to be the source."""
    return np.divide(near.d1, near.d2, out=np.ones_like(near.d1), where=near.d2 > 0)


@matplotlib.rc_context(STYLE)
def histogram(found: Audit) -> Figure:
    """Of d1 / d2; left of the line at k are the copies."""
    figure = Figure((1.6 * WIDTH, 2.1), layout="constrained")
    axes = figure.add_subplot()
    generated, null = ratios(found.distances.found), found.distances.null
    # shares, so that sets of other sizes can be compared
    weights = np.full(len(generated), 1 / len(generated))
    axes.hist(generated, BINS, weights=weights, color=BLUE, alpha=0.6, label="generated images")
    if null is not None:
        axes.hist(
            ratios(null),
            BINS,
            weights=np.full(len(null.d1), 1 / len(null.d1)),
            histtype="step",
            color="black",
            label="held-out images",
        )
    axes.axvline(found.k, color=RED, ls="--", lw=0.8, label=f"k = {found.k:.4g}: below, copies")
    axes.set(xlim=(0, 1), xlabel="distance to the nearest / to the second nearest training image")
    axes.set_ylabel("share of the images")
    axes.legend(loc="upper left")
    return figure

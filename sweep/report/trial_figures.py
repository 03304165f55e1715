"""The figure of one trial, as a matplotlib object."""

from typing import Any

import matplotlib
from matplotlib.axes import Axes

from sweep.report.style import BLUE, R_MEM, RED, STYLE, WIDTH, Figure, short
from trainables.measure.r_mem import r_mem_interval
from trainables.trial.result import Result


@matplotlib.rc_context(STYLE)
def curve_figure(result: Result) -> Figure:
    """R_mem at the snapshots, with the final one at the best of them and its 95 % interval; below it
    the loss, if the trainer tells one."""
    losses = [(one.images_trained, one.loss) for one in result.curve if one.loss is not None]
    figure = Figure((WIDTH, 3.4 if losses else 2.2), layout="constrained")
    axes, *others = figure.subplots(2 if losses else 1, squeeze=False, sharex=True)[:, 0]
    trained = [one.images_trained for one in result.curve]
    axes.plot(trained, [one.r_mem for one in result.curve], "o-", color=BLUE, label="at a snapshot")
    if result.complete:
        _draw_final(axes, result)
    axes.set(ylim=(-0.04, 1.07), ylabel=R_MEM)
    axes.set_title(short(f"{result.spec.name}  {result.spec.title}"), parse_math=False)
    for below in others:
        below.plot(*zip(*losses, strict=True), "o-", color=BLUE)
        below.set_ylabel("mean loss since\nthe snapshot before")
    last = others[-1] if others else axes
    last.set(xlabel="images trained", xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_final(axes: Axes, result: Result) -> None:
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    r_mem = result.r_mem or 0.0
    bars: Any = [[max(0.0, r_mem - low)], [max(0.0, high - r_mem)]]
    label = "with fresh latents, 95 % interval"
    axes.errorbar(result.best_images_trained, r_mem, bars, fmt="s", color=RED, label=label)

"""What figures show, whatever the number of configurations; and what a user may ask of them."""

import math
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from scipy.special import logit

from search_spaces.space import Search
from sweep import api
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary, summary_of
from sweep.report.canvas import Canvas, columns_for, mark_range, spans
from sweep.report.emm_figures import factor_figure, sweep_figure
from sweep.report.factors import numeric_factor
from sweep.report.figures import figures_of
from sweep.report.study_figures import study_figure
from sweep.report.style import BLUE, as_pdf, as_png
from sweep.report.sweep_figures import contrast_figure, profile_figure
from sweep.search.belief import NOISES, SHAPE, Prior
from sweep.search.rules import Options, Verdict
from tests.summaries import SPACE, VERDICTS, curve, found, study, sweep_of, trial
from trainables.errors import UserError
from trainables.measure.r_mem import r_mem_interval
from trainables.trial.result import Snapshot

SIZES = (8, 16, 24, 28, 32, 36, 40, 60, 80, 120, 160)


@pytest.fixture(scope="module")
def two() -> SweepSummary:
    """Two configurations that were found; the second has twice the EMM."""
    return summary_of(SPACE, [*curve("width=8", 24, SIZES), *curve("width=16", 48, SIZES)], [])


def grid(**emms: Any) -> SweepSummary:
    """EMM = 2 × width, × 1.5 with labels; `emms`: other verdicts, by "WIDTH_LABELS"."""
    studies = []
    for width in (8, 16, 32, 64):
        for label, factor in (("none", 1.0), ("true", 1.5)):
            emm = 2 * width * factor
            verdict = emms.get(f"w{width}_{label}", found(emm, emm / 1.1, emm * 1.1))
            factors = {"width": width, "labels": label}
            studies.append(study(f"width={width},labels={label}", verdict, factors=factors))
    return sweep_of(*studies)


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def points(axes: Axes) -> list[tuple[float, float]]:
    """Of all EMMs that are drawn with an interval."""
    return [tuple(bar.lines[0].get_xydata()[0]) for bar in axes.containers]


# ---------------------------------------------------------------- EMM against factors


def test_a_line_for_every_level_of_the_other_factor() -> None:
    figure = factor_figure(grid(), "width")
    axes = figure.axes[0]
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 4]
    assert [line[:, 1].tolist() for line in lines] == [[16, 32, 64, 128], [24, 48, 96, 192]]
    for line in lines:  # beside each other, each near its level
        assert np.log(line[:, 0] / [8, 16, 32, 64]) == pytest.approx(0, abs=0.06)
    assert lines[0][0, 0] < 8 < lines[1][0, 0]
    assert legend_of(figure) == ["labels none", "labels true", "found, 95 % interval"]
    assert (axes.get_xlabel(), axes.get_xscale(), axes.get_yscale()) == ("width", "log", "log")


def test_levels_that_are_no_numbers_stand_in_the_order_of_the_table() -> None:
    axes = factor_figure(grid(), "labels").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "true"]
    joined = [line for line in axes.lines if line.get_linestyle() == "-"]
    lines = [line.get_xydata() for line in joined]
    assert [line[:, 1].tolist() for line in lines] == [[16, 24], [32, 48], [64, 96], [128, 192]]
    assert axes.get_xscale() == "linear"


def test_what_was_not_found_is_drawn_and_joined_to_nothing() -> None:
    sweep = grid(
        w8_none=VERDICTS["below_range"], w64_true=VERDICTS["above_range"], w16_none=VERDICTS["unresolved"]
    )  # fmt: skip
    figure = factor_figure(sweep, "width")
    axes = figure.axes[0]
    joined = [line.get_ydata().tolist() for line in axes.lines if line.get_linestyle() == "-"]
    assert [64, 128] in joined
    assert [24, 48, 96] in joined
    edges = {
        line.get_marker(): float(line.get_ydata()[0])
        for line in axes.lines
        if line.get_label() in ("below the range", "above the range")
    }
    assert edges == {"v": 8, "^": 256}
    assert legend_of(figure)[2:] == [
        *("found, 95 % interval", "not decided, 95 % interval"),
        *("below the range", "above the range"),
    ]
    low, high = axes.get_ylim()
    assert low < 8 < 256 < high


@pytest.mark.parametrize(
    ("values", "is_log"),
    [((8, 16), False), ((8, 31), False), ((8, 32), True), ((0, 32), False), ((-1, 4), False)],
)
def test_an_axis_is_logarithmic_where_values_span_a_factor_of_four(
    values: tuple[float, ...], is_log: bool
) -> None:
    assert spans(values) is is_log
    studies = [study(f"x={x}", found(30, 25, 40), factors={"x": x}) for x in values]
    assert (sweep_figure(sweep_of(*studies)).axes[0].get_xscale() == "log") is is_log


def test_the_ends_of_the_range_are_marked_where_they_are_seen() -> None:
    axes = Figure().add_subplot()
    axes.set(xscale="log", xlim=(10, 300))
    mark_range(axes.xaxis, Search(n_low=8, n_high=256))
    assert [line.get_xdata()[0] for line in axes.lines] == [256]
    assert "searched: N 8 to 256" in sweep_figure(grid()).axes[0].get_xlabel()


@pytest.mark.parametrize("count", [1, 6, 40])
def test_every_legend_is_complete_and_nothing_is_cut_off(count: int) -> None:
    """Of configurations of one factor with names, which have the longest legends."""
    names = [f"a rather long name, number {i}" for i in range(count)]
    trials = [trial("width=8", 20, 0, 480), trial("width=8", 60, 1, 200)]
    sweep = sweep_of(*(study(name, found(30.0, 25.0, 40.0), trials) for name in names))
    profile = profile_figure(sweep)
    assert set(names) <= set(legend_of(profile))
    assert {"target 0.9", "other targets"} <= set(legend_of(profile))
    drawn = [sweep_figure(sweep), profile, *([contrast_figure(sweep)] if count > 1 else [])]
    for figure in drawn:
        figure.draw_without_rendering()
        assert figure.get_figwidth() == pytest.approx(3.3)
        page = figure.bbox
        (axes, *_) = figure.axes
        assert axes.bbox.height > 0.15 * page.height or axes.bbox.height > 90
        boxes = [legend.get_window_extent() for legend in figure.legends]
        boxes += [
            axes.xaxis.label.get_window_extent(),
            *(t.get_window_extent() for t in axes.get_yticklabels()),
        ]
        for box in boxes:
            assert box.x0 >= -1
            assert box.x1 <= page.x1 + 1
            assert box.y0 >= -1


def test_many_values_of_one_factor_have_a_bar_of_colours() -> None:
    trials = [trial("width=8", 20, 0, 480), trial("width=8", 60, 1, 200)]
    studies = [
        study(f"width={w}", found(30.0, 25.0, 40.0), trials, {"width": w}) for w in range(8, 96, 8)
    ]
    figure = profile_figure(sweep_of(*studies))
    plot, bar = figure.axes
    assert bar.get_ylabel() == "width"
    assert bar.get_ylim() == pytest.approx((8, 88))
    colours = [line.get_color() for line in plot.lines if len(line.get_xdata()) == 60]
    assert len(set(colours)) == len(studies)
    assert legend_of(figure) == ["target 0.9", "other targets"]


def test_a_trial_that_was_accepted_early_is_open_in_the_profile(two: SweepSummary) -> None:
    axes = profile_figure(two).axes[0]
    opened = {
        (x, y)
        for line in axes.lines
        if line.get_markerfacecolor() == "white"
        for x, y in line.get_xydata()
    }
    seen = [one for study in two.studies for one in study.observations]
    assert opened == {(one.n, one.r_mem) for one in seen if one.right_censored}
    assert opened


def test_contrasts_of_several_factors_have_a_figure_each() -> None:
    names = [name for name in figures_of(summaries()) if name.startswith(("contrasts", "factor"))]
    assert names == [
        "factor-01-width", "factor-02-labels", "contrasts-01-width", "contrasts-02-labels",
    ]  # fmt: skip
    figure = figures_of(summaries())["contrasts-02-labels"]()
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert texts == ["labels true / none, width 8", "labels true / none, width 16"]


def test_what_else_two_configurations_have_is_short_in_a_contrast() -> None:
    """So that rows are not cut where they would begin to differ."""
    (one, _) = summary_of(SPACE, curve("width=8", 24, SIZES), []).studies
    names = "no augmentation", "mirrored"
    studies = [
        replace(one, name=f"{width}{name}", factors={"width": width, "augment": name, "depth": 2})
        for name in names
        for width in (8, 16)
    ]
    axes = contrast_figure(sweep_of(*studies), factor="width").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("width 16 / 8 (no augmentation, 2)", "width 16 / 8 (mirrored, 2)"),
    ]


def summaries() -> SweepSummary:
    """Two factors, judged by trials."""
    made = []
    for width in (8, 16):
        for label in ("none", "true"):
            one = summary_of(SPACE, curve("width=8", 3 * width, SIZES), []).studies[0]
            factors = {"width": width, "labels": label}
            made.append(
                StudySummary(f"{width}-{label}", factors, one.verdict, one.options, one.results, [])
            )
    return sweep_of(*made)


# ---------------------------------------------------------------- no titles


def test_no_figure_has_a_title(two: SweepSummary) -> None:
    snapshots = tuple(
        Snapshot(images_trained=640 * i, loss=1.0, r_mem=0.1 * i, n_samples=200, n_memorized=20 * i, median_d1=1.0, seconds=1.0)
        for i in (1, 2)
    )  # fmt: skip
    curved = study("a", VERDICTS["found"], [trial("a", 20, 0, curve=snapshots)])
    drawn = [draw() for sweep in (two, sweep_of(curved)) for draw in figures_of(sweep).values()]
    assert len(drawn) == 6 + 4
    for figure in drawn:
        assert figure.get_suptitle() == ""
        assert [axes.get_title() for axes in figure.axes] == [""] * len(figure.axes)
    assert b"/Title" not in as_pdf(drawn[0])


# ---------------------------------------------------------------- what a user may ask


def test_some_configurations_by_other_names(two: SweepSummary) -> None:
    figures = api.figures(two, select=["width=16"], labels={"width=16": "wide $\\alpha$"})
    assert list(figures) == ["emm", "cost", "study-01-width-16"]
    texts = [label.get_text() for label in figures["emm"]().axes[0].get_yticklabels()]
    assert texts == ["wide $\\alpha$"]
    figures = api.figures(two, labels={"width=16": "wide", "width=8": "narrow"})
    assert "wide" in legend_of(figures["profile"]())
    (text,) = [label.get_text() for label in figures["contrasts"]().axes[0].get_yticklabels()]
    assert text == "wide / narrow"
    relabelled = api.figures(grid(), labels={"width": "channels", "true": "classes"})
    figure = relabelled["factor-01-width"]()
    assert figure.axes[0].get_xlabel() == "channels"
    assert "labels classes" in legend_of(figure)


def test_select_orders_and_contrasts_are_looked_at_among_them() -> None:
    sweep = summaries()
    chosen = api.figures(sweep, select=["16-none", "8-none"])
    (text,) = [t.get_text() for t in chosen["contrasts"]().axes[0].get_yticklabels()]
    assert text == "width 8 / 16, labels none"
    names = [label.get_text() for label in chosen["emm"]().axes[0].get_yticklabels()]
    assert names == ["16-none", "8-none"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"select": ["width=9"]}, "select: there is no width=9; there are width=16, width=8"),
        ({"select": []}, "select: name at least one configuration"),
        ({"labels": {"depth": "d"}}, "labels: there is no depth; there are 16, 8, width, width=16"),
        ({"target": 1.0}, "target: an R_mem between 0 and 1 is needed, not 1"),
    ],
)
def test_what_there_is_not_is_said(two: SweepSummary, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        api.figures(two, **asked)


@pytest.mark.parametrize("name", ["emm", "profile", "contrasts", "cost", "study-01-width-8"])
def test_figures_are_drawn_into_axes_of_the_users(two: SweepSummary, name: str) -> None:
    before = dict(matplotlib.rcParams)
    figure = Figure((8, 3))
    left, right = figure.subplots(1, 2)
    figures = api.figures(two, ax=right)
    assert not any(name.startswith("training") for name in figures)
    assert figures[name]() is figure
    assert len(right.lines) + len(right.patches) > 0
    assert not left.lines
    assert figure.get_size_inches().tolist() == [8, 3]
    assert figure.legends == []
    assert (right.get_legend() is None) is (name == "cost")
    assert "searched" not in right.get_xlabel() + right.get_ylabel(), "there is no room to rely on"
    assert dict(matplotlib.rcParams) == before


def test_at_another_target_the_crossing_there_is_shown(two: SweepSummary) -> None:
    """Of a logistic curve of slope 3 the EMM at .5 is larger by 9^(1/3)."""
    half = api.figures(two, target=0.5)["emm"]().axes[0]
    (narrow, wide) = points(half)
    told = {study.name: study.profile[0.5] for study in two.studies}
    assert [narrow[1], wide[1]] == pytest.approx([one.median for one in told.values() if one])
    assert narrow[1] == pytest.approx(24 * 9 ** (1 / 3), rel=0.1)
    (one,) = api.figures(two, target=0.5)["contrasts"]().axes[0].get_yticklabels()
    assert one.get_text() == "width 16 / 8"
    lines = api.figures(two, target=0.5)["study-01-width-8"]().axes[0].lines
    assert any(set(line.get_ydata()) == {0.5} for line in lines)
    far = api.figures(two, target=0.001)["emm"]().axes[0]
    assert points(far) == []
    assert [text.get_text() for text in far.texts] == ["no EMM is known yet"]


def test_as_many_columns_as_a_legend_has_room_for() -> None:
    assert columns_for(["a"]) == 1
    assert columns_for(["a", "b", "c", "d", "e"]) == 4
    assert columns_for(["x" * 60, "y"]) == 1
    assert Canvas().called("x" * 80, 10) == "x" * 9 + "…"
    assert math.isclose(Canvas().begin(2.0)[0].get_figwidth(), 3.3)


# ---------------------------------------------------------------- a study, a sweep


def test_the_band_of_a_study_holds_95_percent_of_trials_where_all_is_known() -> None:
    """It is 1.96 sd of the seeds to either side then, on the logit."""
    weights = [np.zeros(size) for size in SHAPE]
    for weight, place in zip(weights, (0, 14, 4), strict=True):  # logistic, a slope of 3.5
        weight[place] = 1.0
    (one, _) = summary_of(SPACE, curve("width=8", 24, tuple(range(12, 52))), []).studies
    one = replace(one, options=replace(one.options, prior=Prior(*map(tuple, weights))))
    drawn = study_figure(one, SPACE.search).axes[0].collections
    (band,) = (part for part in drawn if isinstance(part, PolyCollection))
    x, y = band.get_paths()[0].vertices.T
    at_emm = y[np.isclose(x, x[np.argmin(abs(x - 24))])]
    assert logit(at_emm.max()) - logit(at_emm.min()) == pytest.approx(
        2 * 1.96 * NOISES[4], rel=0.06
    )


def test_a_study_figure_shows_what_was_measured(real: SweepSummary) -> None:
    one = real.studies[0]
    axes = study_figure(one, SPACE.search).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "EMM")
    assert set(line.get_xdata()) == {one.verdict.emm}
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((one.verdict.emm_low, one.verdict.emm_high))
    assert any(set(line.get_ydata()) == {0.9} for line in axes.lines)
    dots, arrows = (
        {tuple(p) for line in axes.lines if line.get_marker() == m for p in line.get_xydata()}
        for m in "o^"
    )
    assert dots == {(r.spec.n, r.r_mem) for r in one.complete if not r.right_censored}
    assert arrows == {(r.spec.n, r.r_mem) for r in one.complete if r.right_censored}
    assert arrows
    bars = {
        (x, low, high)
        for one in axes.containers
        for segments in one.lines[2]
        for (x, low), (_, high) in segments.get_segments()
    }
    for r in one.complete:
        low, high = r_mem_interval(r.n_memorized, r.n_samples)
        assert any(
            np.allclose(bar, (r.spec.n, low, r.r_mem if r.right_censored else high)) for bar in bars
        )
    assert axes.get_xscale() == "log"


def test_a_study_figure_shows_the_belief(real: SweepSummary) -> None:
    one = real.studies[0]
    assert one.belief is not None
    axes = study_figure(one, SPACE.search).axes[0]
    curve = max(axes.lines, key=lambda line: len(line.get_xdata()))
    n, mean = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    assert n[0] < 8
    assert n[-1] > 256
    assert np.interp(one.verdict.emm or 0, n, mean) == pytest.approx(0.9, abs=0.02)


def test_a_sweep_figure_with_numbers_for_a_factor_and_without() -> None:
    verdicts = (found(30, 25, 40), found(60, 50, 70))
    widths = [
        study(f"width={w}", v, factors={"width": w}) for w, v in zip((8, 16), verdicts, strict=True)
    ]
    upright = sweep_figure(sweep_of(*widths)).axes[0]
    assert [tuple(p) for one in upright.containers for p in one.lines[0].get_xydata()] == [
        (8, 30),
        (16, 60),
    ]
    assert upright.get_xlabel() == "width"
    lying = sweep_figure(
        sweep_of(*(study(name, v) for name, v in zip("ab", verdicts, strict=True)))
    ).axes[0]
    assert [tuple(p) for one in lying.containers for p in one.lines[0].get_xydata()] == [
        (30, 0),
        (60, 1),
    ]
    assert [label.get_text() for label in lying.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("factors", "factor"),
    [
        ([{"width": 8}, {"width": 16.0}], "width"),
        ([{"width": 8}], None),  # which stands in no relation
        ([{"width": 8}, {"width": 8.0}], None),
        ([{"width": 8}, {"width": "none"}], None),
        ([{"skips": True}, {"skips": False}], None),
        ([{"width": 8}, {"depth": 2}], None),
        ([{"width": 8, "depth": 2}, {"width": 16, "depth": 4}], None),
        ([{}, {}], None),
    ],
)
def test_which_factor_is_a_number(factors: list[dict[str, Any]], factor: str | None) -> None:
    studies = [study(str(i), found(30, 25, 40), factors=one) for i, one in enumerate(factors)]
    assert numeric_factor(studies) == factor


def test_a_sweep_figure_shows_intervals_and_what_is_not_found() -> None:
    """Filled what was found, open what is not decided, an arrow away from the range of N."""
    studies = [study(state, verdict) for state, verdict in VERDICTS.items()]
    factors = [{"width": 8 * 2**i} for i in range(5)]
    upright = [
        study(state, verdict, factors=factor)
        for factor, (state, verdict) in zip(factors, VERDICTS.items(), strict=True)
    ]
    for is_upright, summary in ((False, sweep_of(*studies)), (True, sweep_of(*upright))):
        axes = sweep_figure(summary).axes[0]
        found, open_one = axes.containers
        for bar, ends, colour in ((found, (29.14, 42.0), BLUE), (open_one, (30, 120), "white")):
            (segment,) = bar.lines[2][0].get_segments()
            assert segment[:, int(is_upright)] == pytest.approx(ends)
            assert bar.lines[0].get_markerfacecolor() == colour
        arrows = {
            line.get_marker(): line.get_xydata()[0][int(is_upright)]
            for line in axes.lines
            if line.get_label() in ("below the range", "above the range")
        }
        below, above = "v^" if is_upright else "<>"
        assert arrows == {below: 8, above: 256}, "at the edge"


@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_sweep_figure_has_room_for_every_configuration(count: int) -> None:
    summary = sweep_of(*(study(f"name {i}", list(VERDICTS.values())[i % 5]) for i in range(count)))
    figure = sweep_figure(summary)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == count
    assert all(above.y0 >= below.y1 for above, below in zip(boxes, boxes[1:], strict=False))
    assert figure.get_figwidth() == pytest.approx(3.3)


def test_figures_leave_no_setting_behind(real: SweepSummary) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure = study_figure(real.studies[0], SPACE.search)
    assert as_png(figure) == as_png(figure)
    assert as_pdf(figure) == as_pdf(figure)
    assert dict(matplotlib.rcParams) == before


def test_a_factor_is_no_mathematics() -> None:
    options, verdict = Options(8, 256), Verdict("unresolved", 61.0, 30.0, 120.0, 0.4, "none", 2)
    studies = [
        StudySummary(f"{n}", {r"$\frac$": n}, verdict, options, [trial(f"{n}", 8, 0)], [])
        for n in (1, 2)
    ]
    assert as_png(sweep_figure(SweepSummary("s", SPACE, studies)))

"""Ratios of EMMs and of such ratios, as rows of text, as lines, and as records for machines."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from search_spaces.settings import text_of
from sweep.analysis.contrasts import Contrast, Interaction
from sweep.analysis.summary import SweepSummary
from sweep.report.tables import Rows
from sweep.search.words import counted
from trainables.text import some

JUDGED = ("ratio", "95 % interval", "together", "told apart")

CONTRASTS = ("EMM ratio of", "to", *JUDGED, "data")

INTERACTIONS = ("EMM ratio of", "at", "over that at", *JUDGED, "data")

# columns of the records of both, for machines
CONTRAST_CSV = "ratio_of", *(one.name for one in fields(Contrast)), "told_apart"
INTERACTION_CSV = "ratio_of", *(one.name for one in fields(Interaction)), "told_apart"

PAIRS = ("R_mem", "EMM ratio of", "to", *JUDGED)


def contrast_records(summary: SweepSummary) -> list[dict[str, Any]]:
    """All pairs, for machines: `ratio_of` says which over which."""
    return [
        {"ratio_of": f"{one.b} / {one.a}", **asdict(one), "told_apart": one.told}
        for one in summary.compared.pairs
    ]


def interaction_records(summary: SweepSummary) -> list[dict[str, Any]]:
    """All ratios of ratios, for machines: `ratio_of` is (d / c) / (b / a)."""
    return [
        {
            "ratio_of": f"({one.d} / {one.c}) / ({one.b} / {one.a})",
            **asdict(one),
            "told_apart": one.told,
        }
        for one in summary.compared.interactions
    ]


def contrast_rows(summary: SweepSummary) -> Rows:
    """Against the first level of each factor."""
    return [
        (one.b, one.a, *_judged_texts(one), "same" if one.same_data else "other")
        for one in summary.compared.shown
    ]


def interaction_rows(summary: SweepSummary) -> Rows:
    """How the ratio by one factor changes with another."""
    factors = {study.name: study.factors for study in summary.studies}
    return [
        (
            step_text(*(_but(factors[name], one.by) for name in (one.a, one.b))),
            f"{one.by}={text_of(factors[one.c][one.by])}",
            f"{one.by}={text_of(factors[one.a][one.by])}",
            *_judged_texts(one),
            "same" if one.same_data else "other",
        )
        for one in summary.compared.interactions
    ]


def _but(factors: Mapping[str, Any], factor: str) -> dict[str, Any]:
    return {name: value for name, value in factors.items() if name != factor}


def step_text(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs first, since long names are cut: "width 16 / 8, dropout 0.1"."""
    changed = [factor for factor, value in a.items() if b[factor] != value]
    kept = [factor for factor in a if factor not in changed]
    texts = [f"{factor} {text_of(b[factor])} / {text_of(a[factor])}" for factor in changed]
    return ", ".join(texts + [f"{factor} {text_of(a[factor])}" for factor in kept])


TOLD = {"yes": "told apart", "alone": "told apart alone, not together", "no": "not told apart"}


def contrast_lines(summary: SweepSummary) -> list[str]:
    """The ratio of two EMMs and whether it excludes 1, and the ratio of two ratios; how many are
    looked at first."""
    compared = summary.compared
    ratios = [_line(f"EMM of {one.b} / EMM of {one.a}", one) for one in compared.shown]
    changes = [
        _line(f"({row[0]}) at {row[1]} / at {row[2]}", one)
        for one, row in zip(compared.interactions, interaction_rows(summary), strict=True)
    ]
    return [*family_lines(summary), *ratios, *changes]


def _line(what: str, one: Contrast | Interaction) -> str:
    ratio, interval, together, _ = _judged_texts(one)
    told = TOLD[one.told] if one.same_data else f"{TOLD[one.told]}; on other data"
    return f"{what}: {ratio}, 95 % interval {interval}, together {together} ({told})"


def family_lines(summary: SweepSummary) -> list[str]:
    """How many contrasts are looked at, and what "together" means."""
    compared = summary.compared
    counts = {
        "against a first level": len(compared.shown),
        "of two factors": len(compared.interactions),
    }
    looked_at = [f"{count} {what}" for what, count in counts.items() if count]
    lines = []
    if compared.n_together == 1:
        lines.append("1 contrast is looked at, against a first level")
    elif looked_at:
        lines.append(
            f"{compared.n_together} contrasts are looked at, {' and '.join(looked_at)}; together, all "
            "their intervals hold with 95 %"
        )
    if compared.pairs:
        lines.append(
            f"{counted(len(compared.pairs), 'pair')}: contrasts.csv has all, with intervals "
            "that hold together for them"
        )
        lines += _without(summary)
    return lines


def _without(summary: SweepSummary) -> list[str]:
    """Which configurations have no ratio."""
    names = [study.name for study in summary.studies if study.verdict.state != "found"]
    return [f"no ratio, since no EMM: {some(names)}"] if names else []


def _judged_texts(one: Contrast | Interaction) -> tuple[str, str, str, str]:
    """A ratio, its interval, that which holds together with others, and whether it is told."""
    low, high = one.together_low, one.together_high
    together = "-" if low is None or high is None else _ends(low, high)
    return f"{one.ratio:.2f}", _ends(one.low, one.high), together, one.told


def _ends(low: float, high: float) -> str:
    """Of an interval of ratios."""
    return f"{low:.2f} to {high:.2f}"


def pair_rows(summary: SweepSummary) -> Rows:
    """The contrasts against a first level at the targets other than the search's own."""
    own = summary.space.search.target
    return [
        (f"{target:g}", one.b, one.a, *_judged_texts(one))
        for target, found in summary.contrasts_by_target.items()
        if target != own
        for one in found
        if one.together_low is not None
    ]

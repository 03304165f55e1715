"""A sweep's question and its answer, in a sentence each."""

from collections.abc import Sequence
from dataclasses import replace

from sweep.analysis.contrasts import Contrast
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.factors import numeric_factor
from sweep.search.words import ends_text, interval_text
from trainables.text import amount, some

WORDS = {
    "searching": "not finished",
    "below_range": "below the range of N",
    "above_range": "above the range of N",
    "unresolved": "not resolved",
}


def question(summary: SweepSummary) -> str:
    """The user's own; where they gave none, what varies."""
    if summary.space.question:
        return summary.space.question
    factors = [name.replace("_", " ") for name in summary.space.factor_names.values()]
    if not factors:
        return f"What is the EMM of {summary.name}?"
    *others, last = factors
    names = f"{', '.join(others)} and {last}" if others else last
    return f"How does the EMM depend on {names}?"


def answer(summary: SweepSummary) -> str:
    """The EMM, or how it differs between the configurations; then of which it is not known. Where
    two are not told apart it says so."""
    if not any(study.complete for study in summary.studies):
        if summary.damaged:
            return f"Nothing is known: no finished trial can be read ({len(summary.damaged)} passed over)."
        return "Nothing is known yet: no trial has finished."
    found = [study for study in summary.studies if study.verdict.state == "found"]
    known = [study for study in found if study.belief is not None]
    parts = [_known(summary, known)] if known else []
    if len(found) < len(summary.studies):
        parts.append(_not_found(summary, has_found=bool(found)))
    text = " ".join(parts)
    is_over = all(study.verdict.state != "searching" for study in summary.studies)
    return text[0].upper() + text[1:] if is_over else f"So far, {text}"


def _known(summary: SweepSummary, known: Sequence[StudySummary]) -> str:
    """In one sentence, and another on the steps between the ends where there are any."""
    if len(known) == 1:
        return _single(summary, known[0])
    factor = numeric_factor(summary.studies)
    if factor is None:
        ordered = sorted(known, key=lambda study: study.verdict.emm or 0.0)
        ends = f"the EMM is between {_emm(ordered[0])} and {_emm(ordered[-1])}"
        # of many the extremes lie apart by chance alone
        ratio = _ratio_text(summary, *ordered) if len(known) == 2 else ""
        return f"{ends}{ratio}.{_steps(summary)}"
    ordered = sorted(known, key=lambda study: float(study.factors[factor]))
    first, last = ordered[0], ordered[-1]
    ends = f"from {_emm(first)} to {_emm(last)}{_ratio_text(summary, first, last)}"
    moves = _moves(summary, ordered)
    return f"the EMM {moves} with the {factor.replace('_', ' ')}, {ends}.{_steps(summary)}"


def _moves(summary: SweepSummary, ordered: Sequence[StudySummary]) -> str:
    """Which way, by the pairs that are told apart by intervals that hold for all pairs together:
    those against a first level have narrower ones, and both families at once would err more often."""
    position = {study.name: number for number, study in enumerate(ordered)}
    pairs = [replace(one, together_low=None, together_high=None) for one in summary.contrasts]
    told = [one for one in pairs if one.told == "yes"]
    # no sentence is to deny what the next one says of the first level
    told = told or [one for one in summary.contrasts if one.told == "yes"]
    ways = {(one.ratio > 1) == (position[one.a] < position[one.b]) for one in told}
    if len(ways) == 2:
        return "both grows and falls"
    return ("grows" if ways.pop() else "falls") if ways else "is not seen to change"


def _single(summary: SweepSummary, study: StudySummary) -> str:
    of = "" if len(summary.studies) == 1 else f" of {study.name}"
    emm = f"{amount(study.verdict.emm or 0.0)} (95 % interval {interval_text(study.verdict)})"
    copied = f"less than {100 * summary.space.search.target:.4g} % of what is generated are copies"
    return f"the EMM{of} is {emm}: with more training images, {copied}."


def _emm(study: StudySummary) -> str:
    return f"{amount(study.verdict.emm or 0.0)} [{interval_text(study.verdict)}] at {study.name}"


def _ratio_text(summary: SweepSummary, first: StudySummary, last: StudySummary) -> str:
    """EMM of `last` / EMM of `first`; nothing where there is no ratio of them."""
    names = {first.name, last.name}
    found = next((one for one in summary.contrasts if {one.a, one.b} == names), None)
    if found is None:
        return ""
    one = found if found.b == last.name else found.inverse
    told = {"yes": "", "alone": ", told apart alone", "no": ", not told apart"}[one.told]
    data = "" if one.same_data else ", on other data"
    return f", a ratio of {one.ratio:.3g} [{ends_text(one.low, one.high)}]{told}{data}"


def _steps(summary: SweepSummary) -> str:
    """How many are told apart from the first level of their factor, and whether all in one direction;
    where there are more than the two ends."""
    shown = summary.compared.shown
    if len(shown) < 2:
        return ""
    by_factor: dict[str, list[Contrast]] = {}
    for one in shown:
        by_factor.setdefault(str(one.factor).replace("_", " "), []).append(one)
    counts = [f"{_told_apart(ones)} by the {name}" for name, ones in by_factor.items()]
    return f" Told apart from the first level of their factor: {', '.join(counts)}."


def _told_apart(steps: Sequence[Contrast]) -> str:
    clear = [step for step in steps if step.told == "yes"]
    up = sum(step.ratio > 1 for step in clear)
    ways = f" ({up} upwards, {len(clear) - up} downwards)" if 0 < up < len(clear) else ""
    return f"{len(clear)} of {len(steps)}{ways}"


def _not_found(summary: SweepSummary, has_found: bool) -> str:
    """The names of each other verdict, as many as there is room for."""
    parts = []
    for state, words in WORDS.items():
        names = [study.name for study in summary.studies if study.verdict.state == state]
        if names:
            parts.append(f"{words}: {some(names)}")
    return f"{'Not known' if has_found else 'no EMM is known'} ({'; '.join(parts)})."

"""How an EMM is written for people, the same in terminal, table, figures and page."""

import math

from sweep.search.rules import Options, Verdict


def amount(value: float) -> str:
    """An EMM, an end of its interval, or a distance: three significant digits; any number, 0 too
    (of exact copies)."""
    if not 1e-3 <= abs(value) < 1e15:  # also 0, infinities and nan
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def emm_text(verdict: Verdict, options: Options) -> str:
    """The EMM in a word: a number, `< n_low`, `> n_high`, or `-` when nothing is known."""
    if verdict.state == "below_range":
        return f"< {options.low:,}"
    if verdict.state == "above_range":
        return f"> {options.high:,}"
    return "-" if verdict.emm is None else amount(verdict.emm)


def interval_text(verdict: Verdict) -> str:
    """The 95 % interval of an EMM; one-sided where the EMM lies outside the range."""
    return ends_text(verdict.emm_low, verdict.emm_high)


def ends_text(low: float | None, high: float | None) -> str:
    """An interval, of which an end or both may be open."""
    if low is not None and high is not None:
        return f"{amount(low)} to {amount(high)}"
    return (
        f"up to {amount(high)}"
        if high is not None
        else f"from {amount(low)}"
        if low is not None
        else "-"
    )


def belief_text(verdict: Verdict, options: Options) -> str:
    """EMM and interval in one phrase."""
    return f"EMM {emm_text(verdict, options)} [{interval_text(verdict)}]"

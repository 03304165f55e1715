"""How an EMM is written for people, the same in terminal, table, figures and page."""

from sweep.search.rules import Options, Verdict
from trainables.text import amount


def counted(count: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{count} {what}{'' if count == 1 else 's'}"


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
    if low is None:
        return "-" if high is None else f"up to {amount(high)}"
    return f"from {amount(low)}" if high is None else f"{amount(low)} to {amount(high)}"


def belief_text(verdict: Verdict, options: Options) -> str:
    """EMM and interval in one phrase."""
    return f"EMM {emm_text(verdict, options)} [{interval_text(verdict)}]"

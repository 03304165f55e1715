"""What is to be said of trials that failed."""

from collections import Counter

from sweep.analysis.summary import SweepSummary
from sweep.search.words import counted
from trainables.text import first_line


def failed_line(summary: SweepSummary) -> str | None:
    """Of the studies that have no answer, those that `--retry-failed` trains again: how many, of what
    most of them failed, and how they go on."""
    unanswered = [
        one for one in summary.studies if one.verdict.state in ("searching", "unresolved")
    ]
    failed = [result for one in unanswered for result in one.results if not result.complete]
    if not failed:
        return None
    causes = Counter(first_line(result.cause or "unknown cause") for result in failed)
    cause, count = causes.most_common(1)[0]
    most = "" if count == len(failed) else f", {count} of them"
    return (
        f"{counted(len(failed), 'trial')} failed{most}: {cause}. When that is mended, emm run with "
        "--retry-failed trains them again"
    )

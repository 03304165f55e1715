"""Which trials are measured once more, with many images, so that the points nearest each EMM are
sharp.

They are picked by their N, never by their outcome, and what comes out does not enter the belief: to
measure again what looks good would bias it.
"""

from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from trainables.trial.result import Result


def nearest_trials(study: StudySummary) -> list[Result]:
    """The trials, of all seeds, at the nearest N on each side of the EMM; none unless it was
    found."""
    if study.verdict.state != "found" or study.verdict.emm is None:
        return []
    emm = study.verdict.emm
    sizes = {result.spec.n for result in study.complete}
    near = {
        max((n for n in sizes if n <= emm), default=0),
        min((n for n in sizes if n > emm), default=0),
    }
    return [result for result in study.complete if result.spec.n in near]


def missing_finals(summary: SweepSummary) -> list[Result]:
    """The trials that are to be measured with `search.final_samples` images, and are not yet."""
    wanted = summary.space.search.final_samples
    near = [
        (result, study.finals.get(result.training_key))
        for study in summary.studies
        for result in nearest_trials(study)
    ]
    return [
        result for result, final in near if wanted and (final is None or final.n_samples < wanted)
    ]

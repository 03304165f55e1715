"""The last measurement of a sweep: many images from the trials nearest each EMM, so that these points are sharp.

They are picked by their N, never by their outcome, and what comes out does not enter the belief: to measure again what looks
good would bias it.
"""

from sweep.summary import StudySummary, SweepSummary
from trainables.memorization import r_mem_interval
from trainables.result import FinalMeasurement, Result


def nearest_trials(study: StudySummary) -> list[Result]:
    """The trials, of all seeds, at the nearest N on each side of the EMM; none unless it was found."""
    if study.verdict.state != "found" or study.verdict.emm is None:
        return []
    emm = study.verdict.emm
    sizes = {result.spec.n for result in study.complete}
    near = {max((n for n in sizes if n <= emm), default=0), min((n for n in sizes if n > emm), default=0)}
    return [result for result in study.complete if result.spec.n in near]


def missing_finals(summary: SweepSummary) -> list[Result]:
    """The trials that are to be measured with `search.final_samples` images, and are not yet."""
    wanted = summary.space.search.final_samples
    near = [(result, study.finals.get(result.training_key)) for study in summary.studies for result in nearest_trials(study)]
    return [result for result, final in near if wanted and (final is None or final.n_samples < wanted)]


def final_line(result: Result, final: FinalMeasurement | None) -> str:
    """A last measurement in words."""
    trial = f"{result.spec.name}: N={result.spec.n} seed={result.spec.seed}"
    if final is None:
        return f"{trial} could not be measured again; emm.log says why"
    low, high = r_mem_interval(final.n_memorized, final.n_samples)
    return f"{trial} measured again: R_mem {final.r_mem:.4f}, 95 % interval {low:.4f} to {high:.4f}, {final.n_samples:,} images"


def final_lines(summary: SweepSummary) -> list[str]:
    """The last measurements, by configuration and N."""
    measured = [(r, s.finals[r.training_key]) for s in summary.studies for r in s.complete if r.training_key in s.finals]
    return [final_line(*one) for one in sorted(measured, key=lambda one: (one[0].spec.name, one[0].spec.n))]

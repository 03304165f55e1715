"""The spread over seeds: how much R_mem differs between trials at one N. A seed decides subset,
initialization and latents."""

from collections import defaultdict

from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.words import ends_text
from trainables.text import amount


def seed_lines(summary: SweepSummary) -> list[str]:
    """For people: every study's spread over seeds and the EMM of its median seed, with 95 %
    intervals, and trials at the same N."""
    lines = []
    for study in summary.studies:
        if study.belief is not None and study.median_seed is not None:
            low, middle, high = map(study.belief.noise_quantile, (0.025, 0.5, 0.975))
            noise = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            low, middle, high = study.median_seed
            half = f"{amount(middle)} [{ends_text(low, high)}]"
            lines.append(
                f"{study.name}: sd of logit R_mem between seeds {noise}; half of the seeds pass the "
                f"target up to N = {half}{_same_n(study)}"
            )
    return lines


def _same_n(study: StudySummary) -> str:
    repeated = defaultdict(list)
    for result in study.complete:
        if result.r_mem is not None:
            repeated[result.spec.n].append(f"{result.r_mem:.3f}")
    return "".join(
        f"; N = {n}: R_mem " + " ".join(values)
        for n, values in sorted(repeated.items())
        if len(values) > 1
    )

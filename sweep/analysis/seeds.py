"""The spread over seeds: how much R_mem differs between trials at one N. A seed decides subset,
initialization and latents."""

from collections import defaultdict

from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.words import ends_text
from trainables.text import amount

SEEDS = (
    *("configuration", "sd between seeds", "its 95 % interval"),
    *("half of the seeds up to N", "95 % interval", "R_mem of the seeds at one N"),
)


def seed_rows(summary: SweepSummary) -> list[tuple[str, ...]]:
    """For people: every found study's spread over seeds (of logit R_mem) and the EMM of its median
    seed, with 95 % intervals, and trials at the same N."""
    return [
        (study.name, *_spread(study), _same_n(study))
        for study in summary.studies
        if study.median_seed is not None
    ]


def _spread(study: StudySummary) -> tuple[str, str, str, str]:
    assert study.belief is not None, "a study whose median seed is known has a belief"
    assert study.median_seed is not None
    low, middle, high = map(study.belief.noise_quantile, (0.025, 0.5, 0.975))
    half_low, half, half_high = study.median_seed
    noise = f"{middle:.2f}", f"{low:.2f} to {high:.2f}"
    return *noise, amount(half), ends_text(half_low, half_high)


def _same_n(study: StudySummary) -> str:
    repeated = defaultdict(list)
    for result in study.complete:
        if result.r_mem is not None:
            bound = ">=" if result.right_censored else ""
            repeated[result.spec.n].append(f"{bound}{result.r_mem:.3f}")
    several = {n: values for n, values in sorted(repeated.items()) if len(values) > 1}
    return "; ".join(f"N = {n}: {' '.join(values)}" for n, values in several.items()) or "-"

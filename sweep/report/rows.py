"""What a sweep found, as rows of text: made once, and shown everywhere.

Every number of them is one of `SweepSummary.as_json`.
"""

from typing import Any

from sweep.analysis.scale import Scale
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.words import emm_text, ends_text, interval_text
from trainables.measure.r_mem import r_mem_interval
from trainables.text import amount, human
from trainables.trial.result import FinalMeasurement, Result

CONFIGURATIONS = (
    "configuration",
    "verdict",
    "EMM",
    "95 % interval",
    "own trials",
    "trials",
    "images trained",
)

TRIALS = ("configuration", "N", "seed", "R_mem", "95 % interval", "images trained", "state")

SCALE = (
    "configuration", "median d1", "NN distance", "null rate", "ceiling", "noisy copier", "N/|D|", "EMM at T/2",
    "its 95 % interval",
)  # fmt: skip

TWO_LINES = {
    "images trained",
    *SCALE[1:-1],
}  # heads of columns that are broken at their first space

CONTRASTS = ("EMM ratio of", "to", "ratio", "95 % interval", "told apart", "data")

PROVENANCE = (
    "configuration", "N", "seed", "N/|D|", "seconds", "finished", "ran on", "training key",
)  # fmt: skip

# columns of text, and how the page sets them
LEFT = dict.fromkeys(("verdict", "state", "finished", "EMM ratio of", "to"), "")

LEFT |= dict.fromkeys(("digest", "training key"), "key")

LEFT |= dict.fromkeys(("configuration", "reason", "data", "ran on"), "text")

Rows = list[tuple[str, ...]]


def configuration_rows(summary: SweepSummary) -> Rows:
    return [
        (
            *(
                s.name,
                s.verdict.state,
                emm_text(s.verdict, s.options),
                interval_text(s.verdict),
                ends_text(*s.alone),
            ),
            *(str(len(s.results)), human(s.images_trained)),
        )
        for s in summary.studies
    ]


def trial_rows(summary: SweepSummary) -> Rows:
    """By configuration, then N, then seed. A trial is "stopped" if its study was decided without
    it."""
    decided = {study.name for study in summary.studies if study.verdict.state != "searching"}
    return [
        (
            *(name, str(t["n"]), str(t["seed"]), *_r_mem_texts(t), human(t["images_trained"])),
            "stopped" if t["state"] == "running" and name in decided else t["state"],
        )
        for name, t in trials_in_order(summary)
    ]


def trials_in_order(summary: SweepSummary) -> list[tuple[str, dict[str, Any]]]:
    return [
        (configuration["name"], trial)
        for configuration in summary.as_json()["configurations"]
        for trial in sorted(configuration["trials"], key=lambda trial: (trial["n"], trial["seed"]))
    ]


def _r_mem_texts(trial: dict[str, Any]) -> tuple[str, str]:
    """R_mem and its interval; a trial that was accepted early only bounds them from below."""
    if trial["r_mem"] is None:
        return "-", "-"
    if trial["right_censored"]:
        return f">= {trial['r_mem']:.3f}", f"from {trial['r_mem_low']:.3f}"
    return f"{trial['r_mem']:.3f}", f"{trial['r_mem_low']:.3f} to {trial['r_mem_high']:.3f}"


def undecided(summary: SweepSummary) -> list[str]:
    """A line with the reason for every study that has no answer."""
    return [
        f"{s.name}: {s.verdict.state}, {s.verdict.reason}"
        for s in summary.studies
        if s.verdict.state in ("searching", "unresolved")
    ]


def scale_rows(summary: SweepSummary) -> Rows:
    """What an EMM must be read beside, see `sweep.analysis.scale`."""
    return [
        (study.name, *_scale_texts(study.scale, study))
        for study in summary.studies
        if study.complete
    ]


def _scale_texts(scale: Scale, study: StudySummary) -> tuple[str, ...]:
    """A distance is in pixel values; an EMM that the halves of the trainings do not reach is
    outside the range of N."""
    distances = (
        "-" if value is None else amount(value) for value in (scale.median_d1, scale.nn_distance)
    )
    known = scale.null_rate, scale.ceiling, scale.noisy_copier, scale.share
    shares = ("-" if value is None else f"{value:.3f}" for value in known)
    if scale.half_emm is not None:
        half = amount(scale.half_emm)
    elif scale.half_high is not None:
        half = f"< {study.options.low:,}"
    else:
        half = "-" if scale.half_low is None else f"> {study.options.high:,}"
    return *distances, *shares, half, ends_text(scale.half_low, scale.half_high)


def half_lines(summary: SweepSummary) -> list[str]:
    """Why there is no EMM at half of the training, a line for each reason."""
    names: dict[str, list[str]] = {}
    complete = [study for study in summary.studies if study.complete]
    for study in complete:
        names.setdefault(study.scale.why_no_half, []).append(study.name)
    return [
        f"EMM at T/2{'' if len(of) == len(complete) else ' of ' + ', '.join(of)}: not shown, since {why}"
        for why, of in names.items()
        if why
    ]


def contrast_rows(summary: SweepSummary) -> Rows:
    return [
        (
            c.b,
            c.a,
            f"{c.ratio:.2f}",
            f"{c.low:.2f} to {c.high:.2f}",
            _yes(c.is_clear),
            "same" if c.same_data else "other",
        )
        for c in summary.steps
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def contrast_lines(summary: SweepSummary) -> list[str]:
    """The ratio of two EMMs, and whether it excludes 1."""
    return [
        f"EMM of {b} / EMM of {a}: {ratio}, 95 % interval {ends} ({'' if clear == 'yes' else 'not '}told apart"
        + (")" if data == "same" else "; on other data)")
        for b, a, ratio, ends, clear, data in contrast_rows(summary)
    ]


HARDWARE = ("device", "name", "threads", "torch")  # not the host: a report is given away


def provenance_rows(summary: SweepSummary) -> Rows:
    """What each finished trial is, for finding it again, and what it ran on."""
    finished = [
        r for s in summary.studies for r in sorted(s.results, key=lambda r: (r.spec.n, r.spec.seed))
    ]
    return [
        (
            *(
                r.spec.name,
                str(r.spec.n),
                str(r.spec.seed),
                f"{r.spec.n / r.data.size:.3f}",
                f"{r.seconds:.0f}",
            ),
            *(
                r.finished_at,
                ", ".join(f"{key} {r.hardware[key]}" for key in HARDWARE if key in r.hardware),
                r.training_key,
            ),
        )
        for r in finished
    ]


def final_line(result: Result, final: FinalMeasurement | None) -> str:
    """A last measurement in words."""
    trial = f"{result.spec.name}: {result.spec.title}"
    if final is None:
        return f"{trial} could not be measured again; emm.log says why"
    low, high = r_mem_interval(final.n_memorized, final.n_samples)
    return f"{trial} measured again: R_mem {final.r_mem:.4f}, 95 % interval {low:.4f} to {high:.4f}, {final.n_samples:,} images"


def final_lines(summary: SweepSummary) -> list[str]:
    """The last measurements, by configuration and N."""
    measured = [
        (r, s.finals[r.training_key])
        for s in summary.studies
        for r in s.complete
        if r.training_key in s.finals
    ]
    return [
        final_line(*one)
        for one in sorted(measured, key=lambda one: (one[0].spec.name, one[0].spec.n))
    ]

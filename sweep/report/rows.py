"""What a sweep found, as rows of text: made once, and shown everywhere.

Every number of them is one of `SweepSummary.as_json`.
"""

from typing import Any

from sweep.analysis.contrasts import Contrast
from sweep.analysis.scale import Scale
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.search.words import emm_text, ends_text, interval_text
from trainables.measure.measures import BESIDE_EMM, Written
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
    "configuration",
    *(row.title for row in BESIDE_EMM.values()),
    *("N/|D|", "EMM at T/2", "its 95 % interval"),
)

# heads of columns that are broken at their first space
TWO_LINES = {"images trained", *SCALE[1:-1]}

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
            study.name,
            study.verdict.state,
            emm_text(study.verdict, study.options),
            interval_text(study.verdict),
            ends_text(*study.alone),
            str(len(study.results)),
            human(study.images_trained),
        )
        for study in summary.studies
    ]


def trial_rows(summary: SweepSummary) -> Rows:
    """By configuration, then N, then seed. A trial is "stopped" if its study was decided without
    it."""
    decided = {study.name for study in summary.studies if study.verdict.state != "searching"}
    rows: Rows = []
    for name, trial in trials_in_order(summary):
        r_mem, interval = _r_mem_texts(trial)
        is_stopped = trial["state"] == "running" and name in decided
        rows.append(
            (
                name,
                str(trial["n"]),
                str(trial["seed"]),
                r_mem,
                interval,
                human(trial["images_trained"]),
                "stopped" if is_stopped else trial["state"],
            )
        )
    return rows


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
        f"{study.name}: {study.verdict.state}, {study.verdict.reason}"
        for study in summary.studies
        if study.verdict.state in ("searching", "unresolved")
    ]


def scale_rows(summary: SweepSummary) -> Rows:
    """What an EMM must be read beside, see `sweep.analysis.scale`."""
    return [
        (study.name, *_scale_texts(study.scale, study))
        for study in summary.studies
        if study.complete
    ]


def _scale_texts(scale: Scale, study: StudySummary) -> tuple[str, ...]:
    """An EMM that the halves of the trainings do not reach is outside the range of N."""
    means = [measure_text(scale.means[name], row.written) for name, row in BESIDE_EMM.items()]
    share = measure_text(scale.share, "share")
    if scale.half_emm is not None:
        half = amount(scale.half_emm)
    elif scale.half_high is not None:
        half = f"< {study.options.low:,}"
    else:
        half = "-" if scale.half_low is None else f"> {study.options.high:,}"
    return *means, share, half, ends_text(scale.half_low, scale.half_high)


def measure_text(value: float | None, written: Written) -> str:
    """A distance is in pixel values."""
    if value is None:
        return "-"
    if written == "share":
        return f"{value:.3f}"
    return f"{value:,.0f}" if written == "count" else amount(value)


def half_lines(summary: SweepSummary) -> list[str]:
    """Why there is no EMM at half of the training, a line for each reason."""
    names: dict[str, list[str]] = {}
    complete = [study for study in summary.studies if study.complete]
    for study in complete:
        names.setdefault(study.scale.why_no_half, []).append(study.name)
    lines = []
    for why, without in names.items():
        if why:
            whose = "" if len(without) == len(complete) else f" of {', '.join(without)}"
            lines.append(f"EMM at T/2{whose}: not shown, since {why}")
    return lines


def isolation_lines(summary: SweepSummary) -> list[str]:
    """Whether isolated training images are copied more, a line for each study that can tell."""
    lines = []
    for study in summary.studies:
        found = study.isolation
        if found is None:
            continue
        trials = f"{found.n_trials} {'trial' if found.n_trials == 1 else 'trials'} that copy"
        even = ""
        if found.even is not None:
            ends = f"{found.even_low:+.2f} to {found.even_high:+.2f}"
            even = f"; if all were copied alike {found.even:+.2f} ({ends})"
        lines.append(
            f"{study.name}: rho of copies with isolation {found.rho:+.2f} ({found.low:+.2f} to "
            f"{found.high:+.2f}), from {trials}, p {found.p_permuted:.2g} if dealt at random{even}"
        )
    return lines


def contrast_rows(summary: SweepSummary) -> Rows:
    return [
        (
            step.b,
            step.a,
            *_ratio_texts(step),
            "yes" if step.is_clear else "no",
            "same" if step.same_data else "other",
        )
        for step in summary.steps
    ]


def contrast_lines(summary: SweepSummary) -> list[str]:
    """The ratio of two EMMs, and whether it excludes 1."""
    lines = []
    for step in summary.steps:
        ratio, interval = _ratio_texts(step)
        told = "told apart" if step.is_clear else "not told apart"
        judged = told if step.same_data else f"{told}; on other data"
        lines.append(
            f"EMM of {step.b} / EMM of {step.a}: {ratio}, 95 % interval {interval} ({judged})"
        )
    return lines


def _ratio_texts(contrast: Contrast) -> tuple[str, str]:
    """A ratio and its interval."""
    return f"{contrast.ratio:.2f}", f"{contrast.low:.2f} to {contrast.high:.2f}"


HARDWARE = ("device", "name", "threads", "torch")  # not the host: a report is given away


def provenance_rows(summary: SweepSummary) -> Rows:
    """What each finished trial is, for finding it again, and what it ran on."""
    return [
        (
            result.spec.name,
            str(result.spec.n),
            str(result.spec.seed),
            f"{result.spec.n / result.data.size:.3f}",
            f"{result.seconds:.0f}",
            result.finished_at,
            _ran_on(result),
            result.training_key,
        )
        for study in summary.studies
        for result in sorted(study.results, key=lambda result: (result.spec.n, result.spec.seed))
    ]


def _ran_on(result: Result) -> str:
    known = [name for name in HARDWARE if name in result.hardware]
    return ", ".join(f"{name} {result.hardware[name]}" for name in known)


def final_line(result: Result, final: FinalMeasurement | None) -> str:
    """A last measurement in words."""
    trial = f"{result.spec.name}: {result.spec.title}"
    if final is None:
        return f"{trial} could not be measured again; emm.log says why"
    low, high = r_mem_interval(final.n_memorized, final.n_samples)
    interval = f"95 % interval {low:.4f} to {high:.4f}"
    return (
        f"{trial} measured again: R_mem {final.r_mem:.4f}, {interval}, {final.n_samples:,} images"
    )


def final_lines(summary: SweepSummary) -> list[str]:
    """The last measurements, by configuration and N."""
    measured = [
        (result, study.finals[result.training_key])
        for study in summary.studies
        for result in study.complete
        if result.training_key in study.finals
    ]
    measured.sort(key=lambda pair: (pair[0].spec.name, pair[0].spec.n))
    return [final_line(result, final) for result, final in measured]

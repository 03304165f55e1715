"""What a sweep found, as rows of text: made once, and shown everywhere.

Every number of them is one of `SweepSummary.as_json`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from sweep.analysis.isolation import Isolation
from sweep.analysis.onset import NUMBERS, Growth, Law
from sweep.analysis.scale import Ends, Scale
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.tables import Rows
from sweep.search.words import emm_text, ends_text, interval_text
from trainables.measure.measures import BESIDE_EMM, Written
from trainables.measure.r_mem import r_mem_interval
from trainables.text import amount, human, some
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
TWO_LINES = {
    *("images trained", "R_mem in pixels", "R_mem in features", *SCALE[1:-1]),
    *("sd between seeds", "half of the seeds up to N"),
    *("rho if alike", "R_mem of the seeds at one N"),
}

LENGTHS = ("configuration", "share of the training", "EMM", "95 % interval")

GROWTH = (
    *("configuration", "R_mem", "onsets", "law", "onset, images"),
    *("exponent of N", "95 % interval", "sd of ln onset"),
)

ISOLATION = (
    *("configuration", "rho", "95 % interval", "trials", "p"),
    *("rho if alike", "its 95 % interval"),
)

# of every trial; beside its configuration, N and seed
ONSETS = tuple(
    f"{unit} to {level:g}" for level in NUMBERS for unit in ("images", "epochs", "steps")
)

EYES = (
    *("configuration", "EMM in pixels", "95 % interval"),
    *("EMM in features", "its 95 % interval"),
)

LOOKS = (
    *("configuration", "N", "seed", "R_mem in pixels", "R_mem in features"),
    *("threshold", "null rate"),
)

PROVENANCE = (
    "configuration",
    "N",
    "seed",
    "N/|D|",
    "seconds",
    "finished",
    "ran on",
    "code",
    "training key",
)
RUNS = "began (UTC)", "command", "code", "your repository", "packages"  # fmt: skip

# columns of text, and how the page sets them
LEFT = dict.fromkeys(
    ("verdict", "state", "finished", "EMM ratio of", "to", "at", "over that at", "told apart"), ""
)

LEFT |= dict.fromkeys(("digest", "training key"), "key")

LEFT |= dict.fromkeys(
    (
        *("configuration", "reason", "data", "ran on", "law", "command", "packages"),
        "R_mem of the seeds at one N",
    ),
    "text",
)


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


def caption(study: StudySummary) -> str:
    """What was found of a study, below its name."""
    verdict = study.verdict
    if not verdict.known:
        return f"{verdict.state}: {verdict.reason}"
    emm = f"{verdict.state}: EMM {emm_text(verdict, study.options)}"
    return emm if verdict.emm is None else f"{emm}, 95 % interval {interval_text(verdict)}"


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
    return *means, share, *_ends_texts(scale.half, study)


def _ends_texts(ends: Ends, study: StudySummary) -> tuple[str, str]:
    """An EMM and its interval."""
    if ends.emm is not None:
        emm = amount(ends.emm)
    elif ends.high is not None:
        emm = f"< {study.options.low:,}"
    else:
        emm = "-" if ends.low is None else f"> {study.options.high:,}"
    return emm, ends_text(ends.low, ends.high)


def length_rows(summary: SweepSummary) -> Rows:
    """The EMM by length of training, where the trainings tell it."""
    return [
        (study.name, f"{share:.3g}", *_ends_texts(ends, study))
        for study in summary.studies
        for share, ends in study.by_length.items()
    ]


def profile_columns(summary: SweepSummary) -> tuple[str, ...]:
    """A configuration, and its EMM at every target."""
    targets = summary.studies[0].profile if summary.studies else ()
    return ("configuration", *(f"EMM at {target:g}" for target in targets))


def profile_rows(summary: SweepSummary) -> Rows:
    """The EMM at every target, where trials tell it; nothing if none tells it elsewhere than at the
    target of the search."""
    own = summary.space.search.target
    told = [
        belief is not None and target != own
        for study in summary.studies
        for target, belief in study.profile.items()
    ]
    if not any(told):
        return []
    return [
        (study.name, *(_at_target(study, target) for target in study.profile))
        for study in summary.studies
    ]


def _at_target(study: StudySummary, target: float) -> str:
    """At its own target what the verdict says, an end of the range of N too."""
    belief = study.profile[target]
    if belief is not None:
        return f"{amount(belief.median)} [{ends_text(*belief.interval())}]"
    is_beyond = study.verdict.state in ("below_range", "above_range")
    is_own = target == study.options.target
    return emm_text(study.verdict, study.options) if is_own and is_beyond else "-"


def growth_rows(summary: SweepSummary) -> Rows:
    """How the onset of copying grows with N, of studies that tell it."""
    return [
        (study.name, f"{growth.level:g}", _sides_text(growth), *_law_texts(growth))
        for study in summary.studies
        for growth in study.growth
        if growth.laws
    ]


def _sides_text(growth: Growth) -> str:
    """Trials whose onset is known, and those that only bound it: "9 (1 before, 3 after)"."""
    bounds = [f"{growth.counts[side]} {side}" for side in BOUNDS if growth.counts[side]]
    known = str(growth.counts["at"])
    return f"{known} ({', '.join(bounds)})" if bounds else known


BOUNDS: tuple[Literal["before", "after"], ...] = ("before", "after")


def _law_texts(growth: Growth) -> tuple[str, ...]:
    """The preferred law and those not told from it, the first as a formula; the exponent, if the
    power law was fitted."""
    first, power = growth.laws[growth.preferred[0]], growth.exponent
    known = ("-", "-")
    if power is not None:
        known = f"{power.value:.3g}", f"{power.low:.3g} to {power.high:.3g}"
    return " or ".join(growth.preferred), _formula(first), *known, f"{first.sd:.2f}"


def _formula(law: Law) -> str:
    a = amount(law.a.value)
    if law.b is None:
        return f"{a} N"
    if law.form == "power":
        return f"{a} N^{law.b.value:.3g}"
    sign = "-" if law.b.value < 0 else "+"
    return f"{a} {sign} {amount(abs(law.b.value))} N"


def onset_rows(summary: SweepSummary) -> Rows:
    """Of every complete trial, when R_mem reached each level: "< 640" if its first snapshot had
    it, "> 25,600" if none."""
    return [
        (name, str(trial["n"]), str(trial["seed"]), *_onset_texts(trial))
        for name, trial in trials_in_order(summary)
        if trial["state"] == "complete"
    ]


def _onset_texts(trial: dict[str, Any]) -> Iterator[str]:
    signs = {"at": "", "before": "< ", "after": "> "}
    for side, *numbers in NUMBERS.values():
        for name in numbers:
            value = trial[name]
            yield "-" if value is None else f"{signs[trial[side]]}{amount(value)}"


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
            whose = "" if len(without) == len(complete) else f" of {some(without)}"
            lines.append(f"EMM at T/2{whose}: not shown, since {why}")
    return lines


def isolation_rows(summary: SweepSummary) -> Rows:
    """Whether isolated training images are copied more, of each study that can tell."""
    found = {study.name: study.isolation for study in summary.studies}
    return [
        (name, *_isolation_texts(isolation))
        for name, isolation in found.items()
        if isolation is not None
    ]


def _isolation_texts(found: Isolation) -> tuple[str, ...]:
    even = "-", "-"
    if found.even is not None:
        even = f"{found.even:+.2f}", f"{found.even_low:+.2f} to {found.even_high:+.2f}"
    interval = f"{found.low:+.2f} to {found.high:+.2f}"
    p = f"{found.p_permuted:.2g}"
    return f"{found.rho:+.2f}", interval, str(found.n_trials), p, *even


def result_lines(summary: SweepSummary) -> list[str]:
    """Why the EMM is not the number with which the search ended, and the live view."""
    changed = [
        (study.name, study.searched, study.verdict)
        for study in summary.studies
        if study.searched is not None and study.searched.emm is not None
    ]
    texts = [
        (f"{name} {amount(before.emm)}", abs(math.log(after.emm / before.emm)))
        for name, before, after in changed
        if before.emm and after.emm and amount(before.emm) != amount(after.emm)
    ]
    if not texts:
        return []
    texts.sort(key=lambda one: -one[1])
    most = ", ".join(text for text, _ in texts[:MOST_CHANGED])
    more = f" and {len(texts) - MOST_CHANGED} more" if len(texts) > MOST_CHANGED else ""
    return [
        "EMM is the result: every study that was found is judged once more, with what the others of "
        f"its recipe tell of noise and slope. The searches, and the live view, ended at {most}{more}"
    ]


def eye_rows(summary: SweepSummary) -> Rows:
    """The EMM of every configuration in pixels and in features; none of a sweep that was looked at
    in pixels alone."""
    if summary.eyes is None:
        return []
    pixels, features = summary.eyes["pixels"].studies, summary.eyes["features"].studies
    return [
        (
            study.name,
            *(emm_text(study.verdict, study.options), interval_text(study.verdict)),
            *(emm_text(other.verdict, other.options), interval_text(other.verdict)),
        )
        for study, other in zip(pixels, features, strict=True)
    ]


def look_rows(summary: SweepSummary) -> Rows:
    """The same of every finished trial, with what makes an image a copy in features."""
    if summary.eyes is None:
        return []
    return [
        (
            study.name,
            str(result.spec.n),
            str(result.spec.seed),
            measure_text(result.r_mem if study.eye == "pixels" else result.r_mem_pixels, "share"),
            measure_text(result.r_mem_features, "share"),
            measure_text(result.features_threshold, "share"),
            measure_text(result.features_null, "share"),
        )
        for study in summary.studies
        for result in sorted(study.results, key=lambda result: (result.spec.n, result.spec.seed))
        if result.n_samples
    ]


MOST_CHANGED = 6  # that are named

HARDWARE = ("device", "name", "threads", "torch")  # not the host: a report is given away


def provenance_rows(summary: SweepSummary) -> Rows:
    """What each finished trial is, for finding it again, and what it ran on."""
    return [
        (
            study.name,
            str(result.spec.n),
            str(result.spec.seed),
            f"{result.spec.n / result.data.size:.3f}",
            f"{result.seconds:.0f}",
            result.finished_at,
            ran_on(result),
            code_text(result.made_by),
            result.training_key,
        )
        for study in summary.studies
        for result in sorted(study.results, key=lambda result: (result.spec.n, result.spec.seed))
    ]


def run_rows(summary: SweepSummary) -> Rows:
    """Every run of a driver: the command and the code that carried it out."""
    return [
        (
            run.at,
            run.shown,
            code_text(run.ours),
            code_text(run.yours),
            ", ".join(f"{name} {number}" for name, number in run.packages.items()),
        )
        for run in summary.runs
    ]


def code_text(code: Mapping[str, str | bool | None]) -> str:
    """A version, and a commit: "0.1.0, 4f1c2d0a9b" or "…, changed since"; empty if nothing is
    known."""
    commit = code.get("commit")
    parts = [code.get("version"), commit and str(commit)[:10]]
    changed = ["changed since"] if code.get("clean") is False else []
    return ", ".join([*(str(part) for part in parts if part), *changed])


def ran_on(result: Result) -> str:
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

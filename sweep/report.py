"""What a sweep found, for people: tables for the terminal, and one self-contained page with figures, CSV and JSON.

Rows are made once, as text, and shown in both places. Every number of them is one of `SweepSummary.as_json`.
"""

import base64
import csv
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sweep.bisection import NEAR
from sweep.figures import as_pdf, as_png, study_figure, sweep_figure
from sweep.finals import final_lines
from sweep.page import PAGE
from sweep.seeds import seed_lines
from sweep.summary import StudySummary, SweepSummary
from sweep.wording import emm_text, ends_text, interval_text
from trainables.result import DataSummary
from trainables.storage import Storage

RISING = 0.05  # rise of R_mem from half to the end of the training that is worth a warning

CONFIGURATIONS = ("configuration", "verdict", "EMM", "95 % interval", "own trials", "trials", "images trained")
TRIALS = ("configuration", "N", "seed", "R_mem", "95 % interval", "images trained", "state")
# columns of text, and how the page sets them
LEFT = dict.fromkeys(("verdict", "state", "finished"), "") | dict.fromkeys(("digest", "training key"), "key")
LEFT |= dict.fromkeys(("configuration", "reason", "data", "ran on"), "text")
CSV = (
    "configuration", "n", "seed", "state", "r_mem", "r_mem_low", "r_mem_high", "r_mem_last", "r_mem_half", "ceiling",
    "n_samples", "right_censored", "images_trained", "cause", "training_key",
)  # fmt: skip
HARDWARE = ("device", "name", "threads", "torch")  # not the host: a report is given away

Rows = list[tuple[str, ...]]


# ---------------------------------------------------------------- rows


def human(count: float) -> str:
    """A number of images for people: 640, 25.6 k, 1.2 M, 3.1 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"


def configuration_rows(summary: SweepSummary) -> Rows:
    return [
        (
            *(s.name, s.verdict.state, emm_text(s.verdict, s.options), interval_text(s.verdict), ends_text(*s.alone)),
            *(str(len(s.results)), human(s.images_trained)),
        )
        for s in summary.studies
    ]


def trial_rows(summary: SweepSummary) -> Rows:
    """By configuration, then N, then seed. A trial is "stopped" if its study was decided without it."""
    decided = {study.name for study in summary.studies if study.verdict.state != "searching"}
    return [
        (
            *(name, str(t["n"]), str(t["seed"]), *_r_mem_texts(t), human(t["images_trained"])),
            "stopped" if t["state"] == "running" and name in decided else t["state"],
        )
        for name, t in _trials(summary)
    ]


def _trials(summary: SweepSummary) -> list[tuple[str, dict[str, Any]]]:
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


def contrast_lines(summary: SweepSummary) -> list[str]:
    """The ratio of the EMMs of configurations that differ by one step of one factor, and whether it excludes 1.

    `SweepSummary.contrasts` has all pairs.
    """
    shown = {(a.name, b.name) for a, b in _neighbours(summary.studies)}
    return [
        f"EMM of {c.b} / EMM of {c.a}: {c.ratio:.2f}, 95 % interval {c.low:.2f} to {c.high:.2f}"
        f" ({'told apart' if c.is_clear else 'not told apart'})"
        for c in summary.contrasts
        if (c.a, c.b) in shown
    ]


def _neighbours(studies: Sequence[StudySummary]) -> Iterable[tuple[StudySummary, StudySummary]]:
    levels: dict[str, list[str]] = {}  # of each factor, in the order of the table
    for study in studies:
        for factor, value in study.factors.items():
            if repr(value) not in levels.setdefault(factor, []):
                levels[factor].append(repr(value))
    positions = [[levels[factor].index(repr(value)) for factor, value in study.factors.items()] for study in studies]
    for (a, here), (b, there) in itertools.combinations(zip(studies, positions, strict=True), 2):
        if sum(abs(i - j) for i, j in zip(here, there, strict=True)) == 1:
            yield a, b


# ---------------------------------------------------------------- warnings


def cautions(summary: SweepSummary) -> list[str]:
    """What may make an EMM of this sweep mean something else than it seems; a line each, and every cause of failure."""
    lines = [
        f"{data.source}: {data.duplicates:,} of {data.size:,} images equal another one; copies of them never count as memorized"
        for data in _data(summary)
        if data.duplicates
    ]
    for study in summary.studies:
        found = _alone(study), _rising(study), _low_ceiling(study), _large_share(study), *_failures(study)
        lines += [f"{study.name}: {line}" for line in found if line]
    return lines


def _alone(study: StudySummary) -> str | None:
    if not study.contradicts:
        return None
    return "its trials contradict what the other configurations have in common; its interval is from its own trials only"


def _rising(study: StudySummary) -> str | None:
    emm = study.verdict.emm
    trials = [r for r in study.complete if emm and abs(math.log(r.spec.n / emm)) <= NEAR]
    pairs = [(r.r_mem_half, r.r_mem_last) for r in trials if r.r_mem_half is not None and r.r_mem_last is not None]
    if not pairs:
        return None
    half, last = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    centre, n_samples = (half + last) / 2, len(pairs) * study.results[0].measurement.n_selection
    if last - half <= max(RISING, 2 * math.sqrt(2 * centre * (1 - centre) / n_samples)):
        return None
    return (
        f"near the EMM, R_mem still rises: {half:.2f} at half of the training, {last:.2f} at its end "
        f"(mean of {len(pairs)} trials); longer training may give a larger EMM"
    )


def _low_ceiling(study: StudySummary) -> str | None:
    ceilings = [(r.ceiling, r.spec.n) for r in study.complete if r.ceiling is not None]
    low, n = min(ceilings, default=(1.0, 0))
    if low >= study.options.target:
        return None
    return f"even the closed-form optimum reaches only R_mem {low:.2f} at N = {n}, below the target {study.options.target:g}"


def _large_share(study: StudySummary) -> str | None:
    size = min((r.data.size for r in study.results), default=0)
    n = study.options.high if study.verdict.state == "above_range" else study.verdict.emm
    if not n or n <= size / 2:
        return None
    share = f"N = {n:.0f} is {n / size:.0%} of the {size:,} images that there are"
    return f"{share}; above half, the verdict is for this data set only"


def _failures(study: StudySummary) -> list[str]:
    causes = Counter(r.cause or "unknown cause" for r in study.results if not r.complete)
    return [f"{count} {'trial' if count == 1 else 'trials'} failed: {cause}" for cause, count in causes.items()]


def _data(summary: SweepSummary) -> list[DataSummary]:
    """Every data set that trials were trained on."""
    return list({t.data.digest: t.data for s in summary.studies for t in [*s.results, *s.running]}.values())


# ---------------------------------------------------------------- terminal


def table(summary: SweepSummary) -> RenderableType:
    """Trials, configurations, comparison and warnings, for any console: plain ASCII but for users' texts."""
    trials, target = trial_rows(summary), f"EMM at target R_mem {summary.space.search.target:g}"
    once = [("" if i and row[0] == trials[i - 1][0] else row[0], *row[1:]) for i, row in enumerate(trials)]
    return Group(
        _heading("Trials"),
        _grid(TRIALS, once) if once else Text("  no trial has started"),
        _heading(target),
        _grid(CONFIGURATIONS, configuration_rows(summary)),
        *_lines("Not decided", undecided(summary)),
        *_lines("Contrasts", contrast_lines(summary)),
        *_lines("Seeds", seed_lines(summary)),
        *_lines("Measured again", final_lines(summary)),
        *_lines("Warnings", cautions(summary)),
    )


def print_table(summary: SweepSummary, console: Console) -> None:
    console.print(table(summary))


def _grid(columns: Sequence[str], rows: Rows) -> Table:
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        folds = column == "configuration"  # the rest is never cut
        head = Text(column.replace("images trained", "images\ntrained"))
        grid.add_column(head, justify="left" if column in LEFT else "right", no_wrap=not folds, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _lines(title: str, lines: list[str]) -> list[RenderableType]:
    return [_heading(title), *(Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines)] if lines else []


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


# ---------------------------------------------------------------- files


def write_report(summary: SweepSummary, directory: Path) -> Path:
    """Writes index.html, report.json, trials.csv and the figures (PNG and PDF) into `directory`; returns the page's path.

    A file appears under its name when it is complete, the page last. The same summary gives the same bytes. Raises OSError.
    """
    files, search = Storage(str(directory)), summary.space.search
    figures = {"emm": sweep_figure(summary)}
    for number, study in enumerate(summary.studies, 1):
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", study.name)[:60].strip("-.")
        figures[f"study-{number:02d}-{slug}"] = study_figure(study, search.target, search.n_low, search.n_high)
    images = []
    for name, figure in figures.items():
        images.append(as_png(figure))
        files.write(f"{name}.png", images[-1])
        files.write(f"{name}.pdf", as_pdf(figure))
    files.write_json("report.json", summary.as_json())
    files.write("trials.csv", _csv(summary).encode())
    files.write("index.html", _page(summary, images).encode())
    return directory / "index.html"


def _csv(summary: SweepSummary) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"configuration": name, **trial} for name, trial in _trials(summary))
    return text.getvalue()


def _page(summary: SweepSummary, images: Sequence[bytes]) -> str:
    first, *others = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    reasons = [s.verdict.reason for s in summary.studies]
    return page.render(
        space=summary.space,
        left=LEFT,
        configurations=[(*row, why) for row, why in zip(configuration_rows(summary), reasons, strict=True)],
        configuration_columns=(*CONFIGURATIONS, "reason"),
        trials=trial_rows(summary),
        trial_columns=TRIALS,
        contrasts=contrast_lines(summary),
        seeds=seed_lines(summary),
        finals=final_lines(summary),
        cautions=cautions(summary),
        overview=first,
        figures=list(zip(summary.studies, others, strict=True)),
        data=[(d.source, f"{d.size:,}", f"{d.duplicates:,}", d.digest) for d in _data(summary)],
        provenance=_provenance(summary),
    )


def _provenance(summary: SweepSummary) -> Rows:
    """What each finished trial is, for finding it again, and what it ran on."""
    finished = [r for s in summary.studies for r in sorted(s.results, key=lambda r: (r.spec.n, r.spec.seed))]
    return [
        (
            *(r.spec.name, str(r.spec.n), str(r.spec.seed), f"{r.spec.n / r.data.size:.3f}", f"{r.seconds:.0f}"),
            *(r.finished_at, ", ".join(f"{key} {r.hardware[key]}" for key in HARDWARE if key in r.hardware), r.training_key),
        )
        for r in finished
    ]

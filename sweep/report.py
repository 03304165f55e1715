"""What a sweep found, for people: tables for the terminal and for LaTeX, one self-contained page with figures, CSV and JSON.

Rows are made once, as text, and shown everywhere. Every number of them is one of `SweepSummary.as_json`.
"""

import base64
import csv
import io
import logging
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sweep.cautions import cautions, data_sets
from sweep.charts import figures_of, name_of
from sweep.escapes import cell
from sweep.figures import as_pdf, as_png
from sweep.finals import final_lines
from sweep.gallery import Pictures, gallery_figure
from sweep.page import PAGE
from sweep.scale import Scale
from sweep.seeds import seed_lines
from sweep.summary import StudySummary, SweepSummary
from sweep.wording import amount, emm_text, ends_text, interval_text
from trainables.errors import DamagedFile
from trainables.result import Result
from trainables.storage import Storage

log = logging.getLogger(__name__)

CONFIGURATIONS = ("configuration", "verdict", "EMM", "95 % interval", "own trials", "trials", "images trained")
TRIALS = ("configuration", "N", "seed", "R_mem", "95 % interval", "images trained", "state")
SCALE = (
    "configuration", "median d1", "NN distance", "null rate", "ceiling", "noisy copier", "N/|D|", "EMM at T/2",
    "its 95 % interval",
)  # fmt: skip
TWO_LINES = {"images trained", *SCALE[1:-1]}  # heads of columns that are broken at their first space
CONTRASTS = ("EMM ratio of", "to", "ratio", "95 % interval", "told apart", "data")
# columns of text, and how the page sets them
LEFT = dict.fromkeys(("verdict", "state", "finished", "EMM ratio of", "to"), "")
LEFT |= dict.fromkeys(("digest", "training key"), "key")
LEFT |= dict.fromkeys(("configuration", "reason", "data", "ran on"), "text")
CSV = (
    "configuration", "n", "seed", "state", "r_mem", "r_mem_low", "r_mem_high", "r_mem_last", "r_mem_half", "ceiling",
    "noisy_copier", "r_mem_without_flips", "r_mem_with_flips", "n_samples", "right_censored", "images_trained", "cause",
    "training_key",
)  # fmt: skip
OVERVIEWS = {
    "emm": "EMM of every configuration, with its 95 % interval",
    "contrasts": "Ratios of EMMs, with their 95 % intervals",
    "cost": "What every configuration cost",
}
PER_STUDY = ("study", "training", "gallery")
PAGE_BYTES = 8_000_000  # for figures, as they stand in the page
HARDWARE = ("device", "name", "threads", "torch")  # not the host: a report is given away

LATEX = {letter: "\\" + letter for letter in "&%$#_{}"} | {letter: f"${letter}$" for letter in "<>|"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "×": r"$\times$"}
INTERVAL = re.compile(r"(-?[\d.,]+(?:e[-+]?\d+)?) to (-?[\d.,]+(?:e[-+]?\d+)?)")
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode: control and format, lone surrogates, line and paragraph ends

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


def scale_rows(summary: SweepSummary) -> Rows:
    """What an EMM must be read beside, see `sweep.scale`."""
    return [(study.name, *_scale_texts(study.scale, study)) for study in summary.studies if study.complete]


def _scale_texts(scale: Scale, study: StudySummary) -> tuple[str, ...]:
    """A distance is in pixel values; an EMM that the halves of the trainings do not reach is outside the range of N."""
    distances = ("-" if value is None else amount(value) for value in (scale.median_d1, scale.nn_distance))
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
        (c.b, c.a, f"{c.ratio:.2f}", f"{c.low:.2f} to {c.high:.2f}", _yes(c.is_clear), "same" if c.same_data else "other")
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
        *_table("Beside each EMM", SCALE, scale_rows(summary)),
        *_indented(half_lines(summary)),
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
        head = Text(column.replace(" ", "\n", 1) if column in TWO_LINES else column)
        grid.add_column(head, justify="left" if column in LEFT else "right", no_wrap=not folds, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _table(title: str, columns: Sequence[str], rows: Rows) -> list[RenderableType]:
    return [_heading(title), _grid(columns, rows)] if rows else []


def _lines(title: str, lines: list[str]) -> list[RenderableType]:
    return [_heading(title), *_indented(lines)] if lines else []


def _indented(lines: list[str]) -> list[RenderableType]:
    return [Padding(Text(line), (0, 0, 0, 2), expand=False) for line in lines]


def _heading(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


# ---------------------------------------------------------------- files


def write_report(
    summary: SweepSummary, directory: Path, pictures: Pictures | None = None, tell: Callable[[str], None] = log.warning
) -> Path:
    """Writes index.html, report.json, trials.csv, LaTeX tables and the figures (PNG and PDF) into `directory`; returns the
    page's path. `pictures`: where those of the galleries come from, one of each study, if they may be shown. `tell`: is given
    a line for each file that had to be passed over.

    A file appears under its name when it is complete, the page last. The same summary gives the same bytes. Raises OSError.
    """
    files = Storage(str(directory))
    images: dict[str, bytes] = {}
    for name, make in figures_of(summary).items():
        images[name] = _write_figure(files, name, make())
    for number, study in enumerate(summary.studies, 1):
        try:
            shown = pictures.of(trial) if pictures and (trial := _shown_trial(study)) else None
        except DamagedFile as error:  # that costs a gallery, and no more
            summary = replace(summary, damaged=[*summary.damaged, str(error)])
            tell(f"passed over: {error}")
            continue
        if shown:
            name = name_of("gallery", number, study)
            images[name] = _write_figure(files, name, gallery_figure(shown))
    files.write_json("report.json", summary.as_json())
    files.write("trials.csv", _csv(summary).encode())
    for name, (columns, rows) in _tables(summary).items():
        files.write(f"{name}.tex", latex(columns, rows).encode())
    files.write("index.html", _page(summary, images, pictures).encode())
    return directory / "index.html"


def _shown_trial(study: StudySummary) -> Result | None:
    """The one whose gallery stands for its study: of N nearest to the EMM; while none is known, the last."""
    emm = study.verdict.emm
    return min(study.complete, key=lambda trial: abs(math.log(trial.spec.n / emm)) if emm else -trial.spec.seed, default=None)


def _write_figure(files: Storage, name: str, figure: Figure) -> bytes:
    image = as_png(figure)
    files.write(f"{name}.png", image)
    files.write(f"{name}.pdf", as_pdf(figure))
    return image


def latex(columns: Sequence[str], rows: Rows) -> str:
    """A booktabs table; what is special to LaTeX is escaped."""
    text = pd.DataFrame([map(_in_latex, row) for row in rows], columns=list(map(_in_latex, columns)))
    alignment = "".join("l" if column in LEFT else "r" for column in columns)
    return str(text.to_latex(index=False, column_format=alignment))


def _in_latex(text: str) -> str:
    """A cell: an interval of two numbers has a dash, what is not to be seen (line ends, control characters) is spelt out."""
    if INTERVAL.fullmatch(text):
        text = text.replace(" to ", "--")
    return "".join(LATEX.get(letter, letter) for letter in "".join(map(_visible, text)))


def _visible(letter: str) -> str:
    return repr(letter)[1:-1] if unicodedata.category(letter) in UNSEEN else letter


def _csv(summary: SweepSummary) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for name, trial in _trials(summary):
        texts = {"configuration": cell(name), "cause": cell(trial.get("cause") or "")}
        writer.writerow({**trial, **texts})
    return text.getvalue()


def _tables(summary: SweepSummary) -> dict[str, tuple[Sequence[str], Rows]]:
    """Those of a paper, by name of their file."""
    return {
        "configurations": (CONFIGURATIONS, configuration_rows(summary)),
        "scale": (SCALE, scale_rows(summary)),
        "contrasts": (CONTRASTS, contrast_rows(summary)),
        "trials": (TRIALS, trial_rows(summary)),
    }


def _page(summary: SweepSummary, images: Mapping[str, bytes], pictures: Pictures | None) -> str:
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    reasons = [s.verdict.reason for s in summary.studies]
    shown = {name: f"data:image/png;base64,{base64.b64encode(image).decode()}" for name, image in _fitting(images).items()}
    return page.render(
        space=summary.space,
        left=LEFT,
        configurations=[(*row, why) for row, why in zip(configuration_rows(summary), reasons, strict=True)],
        configuration_columns=(*CONFIGURATIONS, "reason"),
        scale=scale_rows(summary),
        scale_columns=SCALE,
        halves=half_lines(summary),
        trials=trial_rows(summary),
        trial_columns=TRIALS,
        contrasts=contrast_rows(summary),
        contrast_columns=CONTRASTS,
        seeds=seed_lines(summary),
        finals=final_lines(summary),
        cautions=cautions(summary),
        overviews=[(shown[name], words) for name, words in OVERVIEWS.items() if name in shown],
        figures=[(s.name, *(shown.get(name_of(kind, i, s)) for kind in PER_STUDY)) for i, s in enumerate(summary.studies, 1)],
        omitted=len(images) - len(shown),
        images="none" if pictures is None else pictures.images,
        data=[(d.source, f"{d.size:,}", f"{d.duplicates:,}", d.digest) for d in data_sets(summary)],
        provenance=_provenance(summary),
    )


def _fitting(images: Mapping[str, bytes]) -> dict[str, bytes]:
    """As many as a page may hold: the galleries come last."""
    left, fitting = PAGE_BYTES, {}
    for name in sorted(images, key=lambda name: name.startswith("gallery")):
        left -= len(images[name]) * 4 // 3
        if left > 0:
            fitting[name] = images[name]
    return fitting


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

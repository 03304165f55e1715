"""The report: one self-contained page with figures, and tables, CSV and JSON beside it."""

import csv
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_spaces.settings import text_of
from sweep.analysis.onset import NUMBERS
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.drawn import Drawing, ahead, undrawn, write_figures
from sweep.report.factors import by_factors, factor_heads, is_number
from sweep.report.figures import name_of, overview_drawings, study_drawings
from sweep.report.gallery import Pictures, gallery_drawing
from sweep.report.latex import latex
from sweep.report.page import report_page
from sweep.report.ratios import (
    CONTRAST_CSV,
    CONTRASTS,
    INTERACTION_CSV,
    INTERACTIONS,
    contrast_records,
    contrast_rows,
    interaction_records,
    interaction_rows,
)
from sweep.report.rows import (
    CONFIGURATIONS,
    EYES,
    GROWTH,
    LENGTHS,
    LOOKS,
    SCALE,
    TRIALS,
    configuration_rows,
    eye_rows,
    growth_rows,
    length_rows,
    look_rows,
    profile_columns,
    profile_rows,
    scale_rows,
    trial_rows,
    trials_in_order,
)
from sweep.report.tables import Rows
from trainables.errors import DamagedFile
from trainables.measure.measures import MEASURES
from trainables.progress import work
from trainables.storage import Storage
from trainables.trial.result import Result

log = logging.getLogger(__name__)

# beside the configuration and its factors
CSV = (
    *("n", "seed", "state", "r_mem", "r_mem_low", "r_mem_high"),
    *(name for name, row in MEASURES.items() if row.in_csv),
    *(name for names in NUMBERS.values() for name in names),
    *("n_samples", "right_censored", "images_trained", "seconds", "loss", "cause", "training_key"),
)


def write_report(
    summary: SweepSummary,
    directory: Path,
    pictures: Pictures | None = None,
    tell: Callable[[str], None] = log.warning,
    meanwhile: Callable[[], None] = lambda: None,
) -> Path:
    """Writes index.html, report.json, trials.csv, LaTeX tables and the figures (PNG and PDF) into
    `directory`; returns the page's path. `pictures`: where those of the galleries come from, one of
    each study, if they may be shown. `tell`: is given a line for each file that had to be passed
    over. `meanwhile`: is done when the first figures are being drawn.

    A file appears under its name when it is complete, the page last; a figure is drawn again only if
    what it shows has changed. The same summary gives the same bytes. Raises OSError.
    """
    files = Storage(str(directory))
    drawings, damaged = _study_drawings(summary, pictures)
    for line in damaged:
        tell(f"passed over: {line}")
    if damaged:  # else what it has worked out is kept
        summary = replace(summary, damaged=[*summary.damaged, *damaged])
    with ahead(undrawn(files, drawings).values()):  # while all else is worked out
        meanwhile()
        images = write_figures(files, overview_drawings(summary) | drawings)
    files.write_json("report.json", summary.as_json())
    files.write("trials.csv", _csv(summary).encode())
    files.write("contrasts.csv", _dicts(CONTRAST_CSV, contrast_records(summary)).encode())
    files.write("interactions.csv", _dicts(INTERACTION_CSV, interaction_records(summary)).encode())
    for name, (columns, rows) in _tables(summary).items():
        files.write(f"{name}.tex", latex(*by_factors(summary, columns, rows)).encode())
    allowed = "none" if pictures is None else pictures.images
    with work("writing the page"):
        files.write("index.html", report_page(summary, images, allowed).encode())
    return directory / "index.html"


def _study_drawings(
    summary: SweepSummary, pictures: Pictures | None
) -> tuple[dict[str, Drawing], list[str]]:
    """By name, and a line for every gallery that a damaged file has cost."""
    drawings: dict[str, Drawing] = {}
    galleries: dict[str, Drawing] = {}
    damaged: list[str] = []
    if summary.notes:  # of several sweeps, whose own reports show each study
        return drawings, []
    for number, study in enumerate(summary.studies, 1):
        for kind, drawing in study_drawings(study, summary.space.search).items():
            drawings[name_of(kind, number, study.name)] = drawing
        trial = _shown_trial(study)
        if pictures is None or trial is None:
            continue
        try:
            gallery = pictures.of(trial)
        except DamagedFile as error:
            damaged.append(str(error))
            continue
        if gallery is not None:
            galleries[name_of("gallery", number, study.name)] = gallery_drawing(trial, gallery)
    return drawings | galleries, damaged


def _shown_trial(study: StudySummary) -> Result | None:
    """The one whose gallery stands for its study: of N nearest to the EMM; while none is known, the
    last."""
    emm = study.verdict.emm
    if emm is None:
        return max(study.complete, key=lambda trial: trial.spec.seed, default=None)
    return min(study.complete, key=lambda trial: abs(math.log(trial.spec.n / emm)), default=None)


def _csv(summary: SweepSummary) -> str:
    text = io.StringIO()
    factors = factor_heads(summary, ("configuration", *CSV))
    heads = ["configuration", *map(cell, factors.values()), *CSV]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    values = {study.name: study.factors for study in summary.studies}
    for name, trial in trials_in_order(summary):
        levels = [values[name].get(factor, "") for factor in factors]
        row = [name, *map(_plain, levels), *(trial.get(column, "") for column in CSV)]
        writer.writerow([cell(value) if isinstance(value, str) else value for value in row])
    return text.getvalue()


def _plain(value: Any) -> str | int | float:
    """A factor's value, as a number if it is one."""
    return value if is_number(value) else text_of(value)


def _dicts(columns: Sequence[str], records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow(
            {name: cell(one) if isinstance(one, str) else one for name, one in record.items()}
        )
    return text.getvalue()


def _tables(summary: SweepSummary) -> dict[str, tuple[Sequence[str], Rows]]:
    """Those of a paper, by name of their file."""
    both = {"eyes": (EYES, eye_rows(summary)), "looks": (LOOKS, look_rows(summary))}
    return {
        "configurations": (CONFIGURATIONS, configuration_rows(summary)),
        "scale": (SCALE, scale_rows(summary)),
        "lengths": (LENGTHS, length_rows(summary)),
        "profile": (profile_columns(summary), profile_rows(summary)),
        "contrasts": (CONTRASTS, contrast_rows(summary)),
        "interactions": (INTERACTIONS, interaction_rows(summary)),
        "onset": (GROWTH, growth_rows(summary)),
        "trials": (TRIALS, trial_rows(summary)),
        **({} if summary.eyes is None else both),
    }


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """For a CSV file: behind an apostrophe, a spreadsheet takes it for text and computes
    nothing."""
    return f"'{text}" if text.startswith(FORMULA) else text

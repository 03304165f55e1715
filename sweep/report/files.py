"""The report: one self-contained page with figures, and tables, CSV and JSON beside it."""

import base64
import csv
import io
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from sweep.analysis.cautions import cautions, data_sets
from sweep.analysis.seeds import seed_lines
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.figures import figures_of, name_of
from sweep.report.gallery import Pictures, gallery_figure
from sweep.report.latex import latex
from sweep.report.page import PAGE
from sweep.report.rows import (
    CONFIGURATIONS,
    CONTRASTS,
    LEFT,
    SCALE,
    TRIALS,
    Rows,
    _provenance,
    _trials,
    configuration_rows,
    contrast_rows,
    final_lines,
    half_lines,
    scale_rows,
    trial_rows,
)
from sweep.report.style import as_pdf, as_png
from trainables.errors import DamagedFile
from trainables.measure.measures import BESIDE_EMM, MEASURES
from trainables.storage import Storage
from trainables.trial.result import Result

log = logging.getLogger(__name__)

CSV = (
    *("configuration", "n", "seed", "state", "r_mem", "r_mem_low", "r_mem_high"),
    *(name for name, row in MEASURES.items() if row.in_csv),
    *("n_samples", "right_censored", "images_trained", "cause", "training_key"),
)

OVERVIEWS = {
    "emm": "EMM of every configuration, with its 95 % interval",
    "contrasts": "Ratios of EMMs, with their 95 % intervals",
    "cost": "What every configuration cost",
}

PER_STUDY = ("study", "training", "gallery")

PAGE_BYTES = 8_000_000  # for figures, as they stand in the page


def write_report(
    summary: SweepSummary,
    directory: Path,
    pictures: Pictures | None = None,
    tell: Callable[[str], None] = log.warning,
) -> Path:
    """Writes index.html, report.json, trials.csv, LaTeX tables and the figures (PNG and PDF) into
    `directory`; returns the page's path. `pictures`: where those of the galleries come from, one of
    each study, if they may be shown. `tell`: is given a line for each file that had to be passed
    over.

    A file appears under its name when it is complete, the page last. The same summary gives the
    same bytes. Raises OSError.
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
    """The one whose gallery stands for its study: of N nearest to the EMM; while none is known, the
    last."""
    emm = study.verdict.emm
    return min(
        study.complete,
        key=lambda trial: abs(math.log(trial.spec.n / emm)) if emm else -trial.spec.seed,
        default=None,
    )


def _write_figure(files: Storage, name: str, figure: Figure) -> bytes:
    image = as_png(figure)
    files.write(f"{name}.png", image)
    files.write(f"{name}.pdf", as_pdf(figure))
    return image


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
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        PAGE
    )
    reasons = [s.verdict.reason for s in summary.studies]
    shown = {
        name: f"data:image/png;base64,{base64.b64encode(image).decode()}"
        for name, image in _fitting(images).items()
    }
    return page.render(
        space=summary.space,
        left=LEFT,
        configurations=[
            (*row, why) for row, why in zip(configuration_rows(summary), reasons, strict=True)
        ],
        configuration_columns=(*CONFIGURATIONS, "reason"),
        scale=scale_rows(summary),
        scale_columns=SCALE,
        measures=list(BESIDE_EMM.values()),
        halves=half_lines(summary),
        trials=trial_rows(summary),
        trial_columns=TRIALS,
        contrasts=contrast_rows(summary),
        contrast_columns=CONTRASTS,
        seeds=seed_lines(summary),
        finals=final_lines(summary),
        cautions=cautions(summary),
        overviews=[(shown[name], words) for name, words in OVERVIEWS.items() if name in shown],
        figures=[
            (s.name, *(shown.get(name_of(kind, i, s)) for kind in PER_STUDY))
            for i, s in enumerate(summary.studies, 1)
        ],
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


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """For a CSV file: behind an apostrophe, a spreadsheet takes it for text and computes
    nothing."""
    return f"'{text}" if text.startswith(FORMULA) else text

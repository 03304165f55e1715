"""The page of single trials, those of `emm trial --out`: the curve, the pictures that may be shown,
every measure, what was trained."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from search_spaces.space import NamedConfiguration
from sweep.report import html
from sweep.report.drawn import Drawing, write_figures
from sweep.report.gallery import Pictures, gallery_drawing
from sweep.report.page import FIELDS_LEFT, TRAINED_COLUMNS
from sweep.report.rows import LEFT, code_text, measure_text, ran_on
from sweep.report.tables import Rows
from sweep.report.trained import trained_in
from sweep.report.trial_figures import curve_figure
from sweep.search.words import counted
from trainables.errors import DamagedFile
from trainables.measure.measures import NUMBERS
from trainables.measure.r_mem import r_mem_interval
from trainables.storage import Storage
from trainables.text import duration, human
from trainables.trial.result import Result, Trials

MEASURES = "measure", "value", "what it is"
TRIAL_COLUMNS = (
    *("configuration", "N", "seed", "R_mem", "95 % interval"),
    *("images trained", "seconds", "state"),
)
PicturesOf = Callable[[Result], Pictures]


def lone_rows(trials: Trials) -> Rows:
    """By configuration, N and seed; then those that are not finished."""
    rows: Rows = []
    for one in trials.results:
        spec = one.spec
        state = "complete" if one.complete else "failed"
        cost = human(one.images_trained), f"{one.seconds:.0f}"
        rows.append((spec.name, str(spec.n), str(spec.seed), *_r_mem(one), *cost, state))
    for record in trials.started:
        spec = record.spec
        rows.append((spec.name, str(spec.n), str(spec.seed), "-", "-", "-", "-", "not finished"))
    return rows


def _r_mem(result: Result) -> tuple[str, str]:
    if result.r_mem is None:
        return "-", "-"
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    if result.right_censored:
        return f">= {result.r_mem:.3f}", f"from {low:.3f}"
    return f"{result.r_mem:.3f}", f"{low:.3f} to {high:.3f}"


def verdict(result: Result) -> str:
    """What came out, in a sentence."""
    if not result.complete:
        return f"The trial failed: {result.cause}."
    r_mem, interval = _r_mem(result)
    eye = " in features" if result.measurement.judge == "features" else ""
    return (
        f"{result.n_memorized:,} of {result.n_samples:,} generated images are copies of one of the "
        f"{result.spec.n:,} training images{eye}: R_mem {r_mem} [{interval}]."
    )


def write_trials(
    trials: Trials, directory: Path, pictures: PicturesOf, tell: Callable[[str], None]
) -> Path:
    """Writes index.html and the figures (PNG and PDF) into `directory`; returns the page's path.
    `tell`: is given a line for each file that had to be passed over. Raises OSError."""
    files, drawings, shown = Storage(str(directory)), dict[str, Drawing](), dict[str, str]()
    for line in trials.damaged:
        tell(f"passed over: {line}")
    for result in trials.results:
        own, key = pictures(result), result.training_key
        shown[key] = own.images
        if any(one.images_trained for one in result.curve):
            content = result.model_dump(mode="json")
            drawings[f"curve-{key}"] = Drawing("curve", partial(curve_figure, result), content)
        try:
            gallery = own.of(result) if result.complete else None
        except DamagedFile as error:
            tell(f"passed over: {error}")
            continue
        if gallery is not None:
            drawings[f"gallery-{key}"] = gallery_drawing(result, gallery)
    images = write_figures(files, drawings)
    files.write("index.html", _page(trials, images, shown).encode())
    return directory / "index.html"


def _page(trials: Trials, images: Mapping[str, bytes], shown: Mapping[str, str]) -> str:
    return html.page(
        "trials.html",
        title=_title(trials),
        rows=lone_rows(trials),
        columns=TRIAL_COLUMNS,
        trials=[_content(result, images, shown[result.training_key]) for result in trials.results],
        unfinished=len(trials.started),
        measure_columns=MEASURES,
        measure_left=dict.fromkeys(MEASURES, "text") | {"value": ""},
        trained_columns=TRAINED_COLUMNS,
        fields_left=FIELDS_LEFT,
        left=LEFT,
    )


def _title(trials: Trials) -> str:
    everything = [*trials.results, *trials.started]
    if len(everything) != 1:
        return counted(len(everything), "trial")
    (only,) = everything
    return f"{only.spec.name}: {only.spec.title}"


def _content(result: Result, images: Mapping[str, bytes], shown: str) -> dict[str, Any]:
    spec, key = result.spec, result.training_key
    named = NamedConfiguration(name=spec.name, factors={}, configuration=spec.configuration)
    rows = [
        (row.title, measure_text(value, row.written), row.says)
        for name, row in NUMBERS.items()
        if (value := getattr(result, name)) is not None and result.complete
    ]
    figures = {
        kind: html.data_uri(images[f"{kind}-{key}"])
        for kind in ("curve", "gallery")
        if f"{kind}-{key}" in images
    }
    return {
        "name": f"{spec.name}: {spec.title}",
        "verdict": verdict(result),
        "figures": figures,
        "images": shown,
        "measures": rows,
        "trained": trained_in([named], spec.measurement),
        "facts": {
            "data": f"{result.data.size:,} images of {result.data.source}",
            "took": duration(result.seconds),
            "finished": result.finished_at,
            "ran on": ran_on(result),
            "code": code_text(result.made_by),
            "training key": key,
        },
    }

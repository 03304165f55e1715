"""The page of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweep.analysis.cautions import cautions, data_sets
from sweep.analysis.seeds import SEEDS, seed_rows
from sweep.analysis.summary import SweepSummary
from sweep.report import html
from sweep.report.answer import answer, question
from sweep.report.figures import name_of, varied
from sweep.report.glossary import glossary, heads
from sweep.report.ratios import (
    CONTRASTS,
    INTERACTIONS,
    PAIRS,
    contrast_rows,
    family_lines,
    interaction_rows,
    pair_rows,
)
from sweep.report.rows import (
    CONFIGURATIONS,
    EYES,
    GROWTH,
    ISOLATION,
    LEFT,
    LENGTHS,
    LOOKS,
    ONSETS,
    PROVENANCE,
    RUNS,
    SCALE,
    TRIALS,
    caption,
    configuration_rows,
    eye_rows,
    final_lines,
    growth_rows,
    half_lines,
    isolation_rows,
    length_rows,
    look_rows,
    onset_rows,
    profile_columns,
    profile_rows,
    provenance_rows,
    result_lines,
    run_rows,
    scale_rows,
    trial_rows,
)
from sweep.report.tables import Filled, filled
from sweep.report.trained import DIFFERING, OTHERS, VARIED, trained
from sweep.search.words import counted
from trainables.text import human

OVERVIEWS = {
    "emm": "EMM of every configuration, with its 95 % interval",
    "profile": "R_mem against N of all configurations",
    "contrasts": "Ratios of EMMs against the first level, with their 95 % intervals: thick alone, "
    "thin together",
    "pairs": "R_mem, and how often two models of disjoint images draw the same image from one latent, "
    "against N",
    "cost": "What every configuration cost",
}

PER_STUDY = ("study", "training", "gallery")

DATA = ("data", "images", "duplicates", "digest")

PAGE_BYTES = 8_000_000  # for figures, as they stand in the page


FEW, MANY = 4, 40  # configurations, and trials, that are shown at once; more are folded

TRAINED_COLUMNS = {"varied": VARIED, "differing": DIFFERING, "others": OTHERS}

FIELDS_LEFT = dict.fromkeys((*VARIED, *DIFFERING), "text")


def report_page(summary: SweepSummary, images: Mapping[str, bytes], pictures: str) -> str:
    """HTML. `images`: PNG files by the names of `figures_of`; `pictures`: what may be shown (none,
    generated, pairs)."""
    shown = {name: html.data_uri(image) for name, image in _fitting(images).items()}
    content = _content(summary, shown)
    words = glossary(summary)
    columns: dict[str, None] = {}  # each once, in their order
    for name, value in content.items():
        if name.endswith("_columns"):
            columns |= dict.fromkeys(value)
        elif isinstance(value, Filled):
            columns |= dict.fromkeys(value.columns)
    return html.page(
        "report.html",
        **content,
        space=summary.space,
        question=question(summary),
        answer=answer(summary),
        contents={id: title for id, title, *parts in CONTENTS if _any(content, parts)},
        in_features=summary.eye == "features",
        left=LEFT,
        few=FEW,
        many=MANY,
        glossary=words,
        heads=heads(words, columns),
        trained=trained(summary),
        trained_columns=TRAINED_COLUMNS,
        fields_left=FIELDS_LEFT,
        omitted=len(images) - len(shown),
        images=pictures,
    )


def _overviews(summary: SweepSummary) -> list[tuple[str, str]]:
    """Names of the figures of the whole sweep, and what they show."""
    factors = list(enumerate(varied(summary), 1))
    emm = [(name_of("factor", number, name), f"EMM against {name}") for number, name in factors]
    ratios = [
        (name_of("contrasts", number, name), f"{OVERVIEWS['contrasts']}: {name}")
        for number, name in factors
    ]
    first, *others = OVERVIEWS.items()
    return [first, *emm, *ratios, *others]


# section of the page: its id, its title, and the parts of which it needs one; none: always there
CONTENTS = (
    ("results", "Results"),
    ("warnings", "Warnings", "cautions"),
    ("overview", "All configurations", "overviews"),
    ("comparisons", "Comparisons", "contrasts", "profile"),
    ("trained", "What was trained"),
    ("beside", "Beside each EMM", "scale", "isolation", "lengths", "growth", "seeds", "finals"),
    ("figures", "Each configuration", "figures"),
    ("each-trial", "Trials", "trials"),
    ("reading", "How to read this"),
    ("provenance-of-all", "Provenance", "runs", "data", "provenance"),
)


def _any(content: Mapping[str, Any], parts: Sequence[str]) -> bool:
    return not parts or any(content[part] for part in parts)


def _content(summary: SweepSummary, shown: Mapping[str, str]) -> dict[str, Any]:
    """The parts of the page. `shown`: addresses of pictures, by name."""
    reasons = [study.verdict.reason for study in summary.studies]
    rows = zip(configuration_rows(summary), reasons, strict=True)
    has_trials = any(study.results for study in summary.studies)
    overviews = [(shown[name], words) for name, words in _overviews(summary) if name in shown]
    figures = [
        (
            *(study.name, caption(study)),
            *(shown.get(name_of(kind, number, study.name)) for kind in PER_STUDY),
        )
        for number, study in enumerate(summary.studies, 1)
        if study.results
    ]
    return {
        "configurations": [(*row, reason) for row, reason in rows],
        "configuration_columns": (*CONFIGURATIONS, "reason"),
        "eyes": eye_rows(summary),
        "eye_columns": EYES,
        "looks": look_rows(summary),
        "look_columns": LOOKS,
        "scale": filled(SCALE, scale_rows(summary)),
        "halves": half_lines(summary),
        "isolation": filled(ISOLATION, isolation_rows(summary)),
        "profile": filled(profile_columns(summary), profile_rows(summary)),
        "pairs": pair_rows(summary),
        "pair_columns": PAIRS,
        "lengths": length_rows(summary),
        "length_columns": LENGTHS,
        "growth": growth_rows(summary),
        "growth_columns": GROWTH,
        "onsets": onset_rows(summary),
        "onset_columns": ("configuration", "N", "seed", *ONSETS),
        "trials": trial_rows(summary),
        "trial_columns": TRIALS,
        "totals": _totals(summary),
        "results": result_lines(summary),
        "notes": summary.notes,
        "families": family_lines(summary),
        "contrasts": contrast_rows(summary),
        "contrast_columns": CONTRASTS,
        "interactions": interaction_rows(summary),
        "interaction_columns": INTERACTIONS,
        "seeds": filled(SEEDS, seed_rows(summary)),
        "finals": final_lines(summary),
        "cautions": cautions(summary),
        "overviews": overviews if has_trials else [],
        "figures": [figure for figure in figures if any(figure[2:])],
        "data": [
            (d.source, f"{d.size:,}", f"{d.duplicates:,}", d.digest) for d in data_sets(summary)
        ],
        "data_columns": DATA,
        "provenance": filled(PROVENANCE, provenance_rows(summary)),
        "runs": filled(RUNS, run_rows(summary)),
    }


def _totals(summary: SweepSummary) -> str:
    trials = sum(len(study.results) for study in summary.studies)
    images = human(sum(study.images_trained for study in summary.studies))
    return f"In all {counted(trials, 'trial')}, {images} images trained, repeats included"


def _fitting(images: Mapping[str, bytes]) -> dict[str, bytes]:
    """As many as a page may hold: the galleries come last."""
    left, fitting = PAGE_BYTES, {}
    for name in sorted(images, key=lambda name: name.startswith("gallery")):
        size = len(images[name]) * 4 // 3
        if size < left:
            fitting[name] = images[name]
            left -= size
    return fitting

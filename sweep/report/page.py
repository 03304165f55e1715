"""The page of a report."""

from collections.abc import Mapping

from sweep.analysis.cautions import cautions, data_sets
from sweep.analysis.seeds import seed_lines
from sweep.analysis.summary import SweepSummary
from sweep.report import html
from sweep.report.figures import name_of, varied
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
    isolation_lines,
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
from trainables.measure.measures import BESIDE_EMM

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


def report_page(summary: SweepSummary, images: Mapping[str, bytes], pictures: str) -> str:
    """HTML. `images`: PNG files by the names of `figures_of`; `pictures`: what may be shown (none,
    generated, pairs)."""
    shown = {name: html.data_uri(image) for name, image in _fitting(images).items()}
    reasons = [study.verdict.reason for study in summary.studies]
    rows = zip(configuration_rows(summary), reasons, strict=True)
    return html.page(
        "report.html",
        space=summary.space,
        in_features=summary.eye == "features",
        left=LEFT,
        configurations=[(*row, reason) for row, reason in rows],
        configuration_columns=(*CONFIGURATIONS, "reason"),
        eyes=eye_rows(summary),
        eye_columns=EYES,
        looks=look_rows(summary),
        look_columns=LOOKS,
        scale=scale_rows(summary),
        scale_columns=SCALE,
        measures=list(BESIDE_EMM.values()),
        halves=half_lines(summary),
        isolation=isolation_lines(summary),
        profile=profile_rows(summary),
        profile_columns=profile_columns(summary),
        pairs=pair_rows(summary),
        pair_columns=PAIRS,
        lengths=length_rows(summary),
        length_columns=LENGTHS,
        growth=growth_rows(summary),
        growth_columns=GROWTH,
        onsets=onset_rows(summary),
        onset_columns=("configuration", "N", "seed", *ONSETS),
        trials=trial_rows(summary),
        trial_columns=TRIALS,
        results=result_lines(summary),
        notes=summary.notes,
        families=family_lines(summary),
        contrasts=contrast_rows(summary),
        contrast_columns=CONTRASTS,
        interactions=interaction_rows(summary),
        interaction_columns=INTERACTIONS,
        seeds=seed_lines(summary),
        finals=final_lines(summary),
        cautions=cautions(summary),
        overviews=[(shown[name], words) for name, words in _overviews(summary) if name in shown],
        figures=[
            (
                *(study.name, caption(study)),
                *(shown.get(name_of(kind, number, study.name)) for kind in PER_STUDY),
            )
            for number, study in enumerate(summary.studies, 1)
        ],
        omitted=len(images) - len(shown),
        images=pictures,
        data=[(d.source, f"{d.size:,}", f"{d.duplicates:,}", d.digest) for d in data_sets(summary)],
        data_columns=DATA,
        provenance=provenance_rows(summary),
        provenance_columns=PROVENANCE,
        runs=run_rows(summary),
        run_columns=RUNS,
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


def _fitting(images: Mapping[str, bytes]) -> dict[str, bytes]:
    """As many as a page may hold: the galleries come last."""
    left, fitting = PAGE_BYTES, {}
    for name in sorted(images, key=lambda name: name.startswith("gallery")):
        left -= len(images[name]) * 4 // 3
        if left > 0:
            fitting[name] = images[name]
    return fitting

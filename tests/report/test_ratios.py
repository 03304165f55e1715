"""Ratios as they are read: the same in table, page, LaTeX, CSV, JSON and notebook."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sweep import api
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary, summary_of
from sweep.report.files import write_report
from sweep.report.latex import latex
from sweep.report.ratios import (
    CONTRASTS,
    INTERACTIONS,
    contrast_lines,
    contrast_rows,
    family_lines,
    interaction_rows,
)
from sweep.report.rows import result_lines
from sweep.search.rules import Verdict
from tests.summaries import SPACE, Page, curve, found, printed, study, sweep_of, trial

SIZES = (8, 16, 24, 28, 32, 36, 40, 60, 80)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are of words and numbers here."""
    monkeypatch.setattr("sweep.report.files.write_figures", lambda *_: {})


@pytest.fixture(scope="module")
def sweep() -> SweepSummary:
    """Two factors, labels with a line break and a formula in their names: random labels halve the EMM
    of the wider network, and not that of the other; a last configuration has no EMM."""
    emms = {(8, "none"): 24.0, (8, "=random"): 24.0, (16, "none"): 48.0, (16, "=random"): 24.0}
    studies = []
    for (width, label), emm in emms.items():
        (one, _) = summary_of(SPACE, curve("width=8", emm, SIZES), []).studies
        factors = {"width": width, "labels": label}
        studies.append(replace(one, name=f"{width},{label}", factors=factors))
    lost = Verdict("searching", None, None, None, None, "no trial has finished", 0)
    return sweep_of(*studies, study("32,none", lost, factors={"width": 32, "labels": "none"}))


def test_the_words_of_every_ratio(sweep: SweepSummary) -> None:
    counted, pairs, without, *lines = contrast_lines(sweep)
    assert counted == (
        "5 contrasts are looked at, 4 against a first level and 1 of two factors; together, all their "
        "intervals hold with 95 %"
    )
    assert pairs.startswith("6 pairs: contrasts.csv has all")
    assert without == "no ratio, since no EMM: 32,none"
    whats = [line.partition(": ")[0] for line in lines]
    assert whats == [
        "EMM of 16,none / EMM of 8,none", "EMM of 16,=random / EMM of 8,=random",
        "EMM of 8,=random / EMM of 8,none", "EMM of 16,=random / EMM of 16,none",
        "(width 16 / 8) at labels==random / at labels=none",
    ]  # fmt: skip
    told = [line.rpartition("(")[2] for line in lines]
    assert told == [
        "told apart)",
        "not told apart)",
        "not told apart)",
        "told apart)",
        "told apart)",
    ]
    at_own = sweep.contrasts_by_target[sweep.space.search.target]
    assert [one.factor for one in at_own] == ["labels", "width", "width", "labels"]
    (change,) = sweep.compared.interactions
    ends = (change.low, change.high, change.together_low, change.together_high)
    texts = [f"{change.ratio:.2f}", *(f"{end:.2f}" for end in ends)]
    assert change.ratio == pytest.approx(0.5, rel=0.05)
    assert interaction_rows(sweep) == [
        (
            *("width 16 / 8", "labels==random", "labels=none", texts[0]),
            *(f"{texts[1]} to {texts[2]}", f"{texts[3]} to {texts[4]}", "yes", "same"),
        )
    ]


def test_an_interval_that_does_not_hold_together_is_told_apart_alone() -> None:
    """ln EMM that lie 2.1 of its sd apart, one of three contrasts."""
    one = summary_of(SPACE, curve("width=8", 24, SIZES), []).studies[0]
    assert one.belief is not None
    emm = 24 * math.exp(2.1 * math.sqrt(2) * one.belief.sd)
    studies = []
    for label, there in (("none", 24.0), ("true", 24.0), ("shifted", emm), ("other", 24.0)):
        of_label = summary_of(SPACE, curve("width=8", there, SIZES), []).studies[0]
        studies.append(replace(of_label, name=label, factors={"labels": label}))
    summary = sweep_of(*studies)
    assert [row[-2] for row in contrast_rows(summary)] == ["no", "alone", "no"]
    (line,) = (line for line in contrast_lines(summary) if "shifted" in line)
    assert line.endswith("(told apart alone, not together)")


def test_latex_csv_json_page_and_notebook_say_the_same(sweep: SweepSummary, tmp_path: Path) -> None:
    page = Page(write_report(sweep, tmp_path).read_text())
    assert page.tables["contrasts"][1:] == [list(row) for row in contrast_rows(sweep)]
    assert page.tables["interactions"][1:] == [list(row) for row in interaction_rows(sweep)]
    for line in family_lines(sweep):
        assert line in page.text
    for name, columns, rows in (
        ("contrasts", CONTRASTS, contrast_rows(sweep)),
        ("interactions", INTERACTIONS, interaction_rows(sweep)),
    ):
        assert (tmp_path / f"{name}.tex").read_text() == latex(columns, rows)
    for name, table, content in (
        ("contrasts", api.contrasts(sweep), sweep.as_json()["contrasts"]),
        ("interactions", api.interactions(sweep), sweep.as_json()["interactions"]),
    ):
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        assert list(rows[0]) == list(table.columns)
        assert len(rows) == len(content) == len(table)
        for row, record, said in zip(rows, table.to_dict("records"), content, strict=True):
            for column in ("ratio", "low", "high", "together_low", "together_high"):
                known = said[column]
                assert (float(row[column]) if row[column] else None) == known
                assert record[column] == known or (known is None and math.isnan(record[column]))
            assert row["told_apart"] == record["told_apart"]
    (interaction,) = csv.DictReader((tmp_path / "interactions.csv").read_text().splitlines())
    assert interaction["ratio_of"] == "(16,=random / 8,=random) / (16,none / 8,none)"
    names = {
        row["a"] for row in csv.DictReader((tmp_path / "contrasts.csv").read_text().splitlines())
    }
    assert names == {"8,none", "8,=random", "16,none"}


def test_no_cell_of_these_tables_is_a_formula(tmp_path: Path) -> None:
    (one, _) = summary_of(SPACE, curve("width=8", 24, SIZES), []).studies
    studies = [replace(one, name=name, factors={"x": name}) for name in ("=a", "@b")]
    write_report(sweep_of(*studies), tmp_path)
    (row,) = csv.DictReader((tmp_path / "contrasts.csv").read_text().splitlines())
    assert (row["a"], row["b"], row["ratio_of"]) == ("'=a", "'@b", "'@b / =a")


def test_both_numbers_of_a_study_are_explained_where_they_stand(tmp_path: Path) -> None:
    def judged(name: str, before: float | None, after: float) -> StudySummary:
        searched = None if before is None else found(before, 0.9 * before, 1.1 * before)
        verdict = found(after, 0.9 * after, 1.1 * after)
        return replace(study(name, verdict, [trial(name, 20, 0)]), searched=searched)

    changed = [judged("a", 17.5, 17.1), judged("b", 30.0, 40.0), judged("c", 12.34, 12.34)]
    summary = sweep_of(*changed, judged("d", None, 12.0))
    (line,) = result_lines(summary)
    assert line.startswith("EMM is the result: every study that was found is judged once more")
    assert line.endswith("The searches, and the live view, ended at b 30.0, a 17.5")
    assert line in " ".join(printed(summary, 400).split())
    assert line in Page(write_report(summary, tmp_path).read_text()).text
    said = summary.as_json()["configurations"]
    assert [one["search_emm"] for one in said] == [17.5, 30.0, 12.34, 12.0]
    assert said[0]["search_low"] == pytest.approx(0.9 * 17.5)
    assert result_lines(sweep_of(*changed[2:])) == []
    many = sweep_of(*(judged(str(i), 10.0 + i, 50.0) for i in range(9)))
    assert result_lines(many)[0].endswith(
        "0 10.0, 1 11.0, 2 12.0, 3 13.0, 4 14.0, 5 15.0 and 3 more"
    )


def test_a_search_ends_with_the_number_that_the_live_view_shows() -> None:
    """Of four studies of a recipe, each is judged with what the other three tell."""
    widths = (8, 16, 24, 32)
    space = SPACE.model_copy(update={"vary": {"network.width": widths}})
    results = []
    for width in widths:
        near = [round(width * factor) for factor in (0.8, 1, 1.2, 1.5, 2, 2.6)]
        results += curve("width=8", 1.1 * width, tuple(near))
        for i, one in enumerate(results[-6:]):
            spec = one.spec.model_copy(update={"name": f"width={width}"})
            results[len(results) - 6 + i] = one.model_copy(update={"spec": spec})
    studies = [one for one in summary_of(space, results, []).studies if one.pooled]
    assert studies
    for one in studies:
        assert one.searched is not None
        assert one.searched.state == one.verdict.state == "found"
        assert one.searched.emm != one.verdict.emm

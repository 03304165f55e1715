"""The page of findings says what its summaries say."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import findings, findings_page
from benchmarks.claims import QUESTIONS, Claim
from benchmarks.findings import contrast_of, verdict

KEPT = {
    "target": 0.9,
    "contrasts": [{"a": "x", "b": "y", "ratio": 2.0, "low": 1.6, "high": 2.5}],
    "contrasts_by_target": [
        {"target": 0.5, "contrasts": [{"a": "y", "b": "x", "ratio": 0.8, "low": 0.5, "high": 1.25}]}
    ],
}


@pytest.mark.parametrize(
    ("more", "less", "target", "source", "ratio", "word"),
    [
        ("y", "x", 0.9, "they", (2.0, 1.6, 2.5), "found again"),
        ("x", "y", 0.9, "they", (0.5, 0.4, 0.625), "opposite"),
        ("x", "y", 0.9, None, (0.5, 0.4, 0.625), "a difference"),
        ("x", "y", 0.5, "they", (0.8, 0.5, 1.25), "not at this scale"),
        ("y", "x", 0.5, None, (1.25, 0.8, 2.0), "not told apart"),
        ("x", "z", 0.9, "they", None, "not known"),
        ("x", "y", 0.1, "they", None, "not known"),
    ],
)
def test_a_verdict_follows_from_the_interval(more, less, target, source, ratio, word) -> None:
    claim = Claim("says", more, less, source, target)
    found = contrast_of(KEPT, claim)
    assert found == (None if ratio is None else pytest.approx(ratio))
    assert verdict(claim, found) == word


@pytest.mark.parametrize(
    ("more", "less", "ends", "word"),
    [
        ("found", "below", (8 / 7, None), "found again"),
        ("below", "found", (None, 7 / 8), "opposite"),
        ("above", "found", (256 / 12, None), "found again"),
        ("wide", "below", (4 / 7, None), "not at this scale"),
        ("above", "below", None, "not known"),
        ("found", "wide", None, "not known"),
    ],
)
def test_an_emm_beyond_the_range_bounds_the_ratio(more, less, ends, word) -> None:
    ranges = {
        "found": ("found", 8.0, 12.0),
        "wide": ("unresolved", 4.0, 20.0),
        "below": ("below_range", None, 6.0),
        "above": ("above_range", 300.0, None),
    }
    trained = [{"n": 7}, {"n": 256}]  # beyond these, an end is the curve's
    configurations = [
        {"name": name, "verdict": state, "emm_low": low, "emm_high": high, "trials": trained}
        for name, (state, low, high) in ranges.items()
    ]
    kept = {**KEPT, "contrasts": [], "contrasts_by_target": [], "configurations": configurations}
    claim = Claim("says", more, less, "they")
    found = contrast_of(kept, claim)
    assert (found and found[1:]) == ends
    assert verdict(claim, found) == word


def test_the_page_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_page, "FIGURES", tmp_path)
    assert findings_page.PAGE.read_text() == findings_page.page()
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (findings.ROOT / "docs/figures").iterdir()}


def test_claims_name_configurations_that_there_are() -> None:
    for question in QUESTIONS:
        file = findings.KEPT / f"{question.name}.json"
        if file.exists():
            names = {one["name"] for one in json.loads(file.read_text())["configurations"]}
            named = {name for claim in question.claims for name in (claim.more, claim.less)}
            assert named <= names, question.name


def isolation(
    rho: tuple[float, float, float], even: tuple[float, float, float]
) -> dict[str, float]:
    names = ("rho", "low", "high", "even", "even_low", "even_high")
    return dict(zip(names, (*rho, *even), strict=True)) | {"n_images": 100}


def test_who_is_copied_is_told_where_both_intervals_are_apart_and_once() -> None:
    """ρ with its interval, against that of a copier that copies all images alike."""
    told = {
        "more": ((0.5, 0.3, 0.7), (0.1, 0.0, 0.2)),
        "less": ((-0.5, -0.7, -0.3), (0.1, 0.0, 0.2)),
        "above 0, as the copier": ((0.5, 0.3, 0.7), (0.4, 0.2, 0.6)),
    }
    configurations = [
        {"name": name, "key": name, "isolation": isolation(*of_one), "trials": [{}, {}]}
        for name, of_one in told.items()
    ]
    again = [{**configurations[0], "name": "the same with fewer trials", "trials": [{}]}]
    unknown = [{"name": "kept before", "trials": [{}]}]
    kept = {"a": {"configurations": configurations + unknown}, "b": {"configurations": again}}
    found = [(name, answer) for name, _, answer in findings_page.isolated(kept)]
    assert found == [
        ("a, more", "found again"),
        ("a, less", "opposite"),
        ("a, above 0, as the copier", "not at this scale"),
    ]


def test_all_contrasts_have_a_line_within_the_figure() -> None:
    claims = [Claim("says", "x=b", "x=a", source) for source in ("they", None, "they", "they")]
    ratios = [(2.0, 1.5, 2.6), (None, 40.0, None), (None, None, 0.5), (1.0, 0.01, 100.0)]
    axes = findings_page.overview(list(zip(claims, ratios, strict=True))).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x=b : a"] * 4
    low, high = findings_page.OUTER
    bars = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    wanted = [(1.5, 2.6), (high, high), (low, 0.5), (low, high)]
    np.testing.assert_allclose(bars[:4], wanted)


def test_what_holds_together_by_hand() -> None:
    """p of .001, .02, .04 and .5: the sorted ones are asked to be .0125, .025, .0375 and .05 at most
    (Benjamini and Hochberg 1995), so that the third holds alone only."""
    deviations = norm.isf(np.array([0.001, 0.02, 0.04, 0.5]) / 2)
    ratios = [tuple(np.exp(0.1 * np.array([z, z - 1.96, z + 1.96]))) for z in deviations]
    claim = Claim("says", "y", "x", "they")
    p_values = [findings.p_value(KEPT, claim, one) for one in ratios]
    assert p_values == pytest.approx([0.001, 0.02, 0.04, 0.5])
    assert findings.hold_together(p_values) == [True, True, False, False]
    assert findings.hold_together([]) == []


@pytest.mark.parametrize(
    ("more", "less", "ratio", "p"),
    [
        ("found", "below", (None, 1.2, None), 2 * (0.01 + 0.002)),
        ("below", "found", (None, None, 0.8), 2 * (0.01 + 0.002)),
        ("above", "found", (None, 3.0, None), 2 * (0.03 + 0.0001)),
        ("above", "below", (None, 30.0, None), 2 * 0.01),  # by the surer of the two ends
        ("found", "below", (None, 0.9, None), 1),
    ],
)
def test_how_sure_a_bound_is_hangs_on_the_belief_beyond_the_range(more, less, ratio, p) -> None:
    beliefs = {
        "found": ("found", 0.002, 0.0001),
        "below": ("below_range", 0.99, 0.0),
        "above": ("above_range", 0.0, 0.97),
    }
    configurations = [
        {"name": name, "verdict": state, "below": below, "above": above}
        for name, (state, below, above) in beliefs.items()
    ]
    kept = {**KEPT, "configurations": configurations}
    claim = Claim("says", more, less, "they")
    assert findings.p_value(kept, claim, ratio) == pytest.approx(p)


def test_two_answers_to_one_question_are_compared_by_their_standard_errors() -> None:
    """Of standard errors .3 and .4, ln ratios that lie 1 apart differ by 1 / .5."""
    first = tuple(np.exp([0.0, -0.3 * 1.96, 0.3 * 1.96]))
    now = tuple(np.exp([1.0, 1 - 0.4 * 1.96, 1 + 0.4 * 1.96]))
    assert findings_page.deviation(first, now) == pytest.approx(2)
    assert findings_page.deviation(now, first) == pytest.approx(-2)
    assert findings_page.deviation(first, (None, 1.2, None)) is None

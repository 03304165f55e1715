"""Two sweeps as one: which configurations meet, on which data, and what else differs."""

import csv
import json
import math

import pytest

from sweep import api
from sweep.analysis.cautions import cautions
from sweep.analysis.summary import summary_of
from sweep.analysis.views import at_target, called_apart, joined, selected
from sweep.report.answer import answer
from sweep.report.files import write_report
from sweep.report.trained import trained
from tests.summaries import DATA, SPACE, curve, printed
from trainables.config.fields import with_fields
from trainables.errors import UserError
from trainables.trial.result import DataSummary

SIZES = (8, 16, 24, 28, 32, 36, 40, 60, 80, 120)
OTHER = DataSummary(source="faces", digest="e" * 64, size=5000, duplicates=0)


def space(**changes):
    return SPACE.model_copy(update=changes)


def found(emms, of=SPACE, data=DATA):
    """A sweep of configurations with these EMMs, in the order of the table; those of one EMM are of
    the same trials."""
    results = [
        one.model_copy(update={"data": data, "training_key": f"{one.training_key} {emm}"})
        for named, emm in zip(of.configurations, emms, strict=True)
        for one in curve(named.name, emm, SIZES)
    ]
    return summary_of(of, results, [])


@pytest.fixture(scope="module")
def two():
    """The second sweep has EMMs 1.5 times as large, at twice the length of training."""
    longer = space(base=with_fields(SPACE.base, {"trainer.length": 800}))
    return {"short": found((20, 40)), "long": found((30, 60), longer)}


def test_what_is_said_of_two_sweeps_is_said_of_both(two):
    mirrored = space(base=with_fields(SPACE.base, {"trainer.augment": "flip"}))
    assert two_rules_told(joined({"short": two["short"], "mirrored": found((20, 40), mirrored)}))
    assert not two_rules_told(joined(two))
    varied = {row[0]: row[1] for row in trained(joined(two)).varied}
    assert varied["trainer.length"] == "400, 800"
    assert "trainer.length" not in {row[0] for row in trained(two["short"]).varied}


def two_rules_told(summary):
    return any("trainer.augment differs" in one.what for one in cautions(summary))


def test_configurations_that_differ_in_the_sweep_alone_are_compared_across(two):
    both = joined(two)
    assert [study.name for study in both.studies] == [
        *("short: width=8", "short: width=16", "long: width=8", "long: width=16"),
    ]
    across = [one for one in both.compared.shown if one.factor == "sweep"]
    assert [(one.b, one.a) for one in across] == [
        ("long: width=8", "short: width=8"),
        ("long: width=16", "short: width=16"),
    ]
    for one in across:
        assert one.ratio == pytest.approx(1.5, rel=0.05)
    inside = [(one.b, one.a) for one in both.compared.shown if one.factor == "width"]
    assert inside == [("short: width=16", "short: width=8"), ("long: width=16", "long: width=8")]
    (change,) = both.compared.interactions
    assert (change.factor, change.by) == ("sweep", "width")
    assert change.ratio == pytest.approx(1, rel=0.1)
    assert both.notes == [
        "2 contrasts are across the sweeps, on the same data; noise and shape of the curves are "
        "pooled within each sweep",
        "trainer.length differs: short 400, long 800",
    ]
    numbers = [(one.verdict.emm, one.options) for sweep in two.values() for one in sweep.studies]
    assert [(one.verdict.emm, one.options) for one in both.studies] == numbers, "as in each report"


def test_whether_the_data_are_the_same_is_said(two):
    both = joined({"digits": two["short"], "faces": found((30, 60), data=OTHER)})
    across = [one for one in both.compared.shown if one.factor == "sweep"]
    assert [one.same_data for one in across] == [False, False]
    assert both.notes[0].startswith("2 contrasts are across the sweeps, on other data")


def test_a_factor_of_one_sweep_is_that_field_of_the_other():
    """A varies the width at depth 1, B the depth at width 16: they meet in (16, 1)."""
    widths = found((20, 40), space(base=with_fields(SPACE.base, {"network.width": 64})))
    depths = space(
        vary={"depths": {"flat": {"network.depth": 1}, "deep": {"network.depth": 2}}},
        base=with_fields(SPACE.base, {"network.width": 16}),
    )
    both = joined({"A": widths, "B": found((45, 90), depths)})
    assert [study.factors for study in both.studies] == [
        {"sweep": "A", "width": 8, "depths": "flat"},
        {"sweep": "A", "width": 16, "depths": "flat"},
        {"sweep": "B", "width": 16, "depths": "flat"},
        {"sweep": "B", "width": 16, "depths": "deep"},
    ]
    (one,) = (one for one in both.compared.pairs if one.factor == "sweep")
    assert (one.a, one.b) == ("A: width=16", "B: depths=flat")
    assert both.notes[0].startswith("1 contrast is across the sweeps")
    assert not any("width" in note or "depth" in note for note in both.notes)


def test_of_the_same_trials_there_is_no_ratio(two):
    """As `emm run --reuse` leaves them: all of one configuration, some of the other."""
    taken, mine = two["short"].studies
    own = found((20, 41)).studies[1].results
    results = [*taken.results[:-1], *mine.results[:3], *own[3:]]
    both = joined({"first": two["short"], "second": summary_of(SPACE, results, [])})
    pairs = {(one.b, one.a) for one in both.compared.pairs}
    assert len(pairs) == 5
    assert ("second: width=8", "first: width=8") not in pairs
    across = [one.b for one in both.compared.shown if one.factor == "sweep"]
    assert across == ["second: width=16"]
    assert both.compared.interactions == [], "its ratio by the sweep would be one"
    assert both.notes[1:3] == [
        "no ratio, since the trials are the same: second: width=8 / first: width=8",
        "some trials are the same, so that the ratio is nearer to 1: second: width=16 / "
        "first: width=16 (3 of 10)",
    ]
    one = selected(two["short"], ["width=8"])
    alone = joined({"first": one, "again": one})
    assert alone.compared.pairs == []
    assert alone.notes[0].startswith("no contrast is across the sweeps")
    assert "ratio" not in answer(alone)


def test_sweeps_that_never_meet(two, tmp_path):
    """Nothing else is known of a width of 64."""
    far = space(vary={"network.width": (64,)})
    both = joined({"A": two["short"], "B": found((50,), far)})
    assert both.notes[0].startswith("no contrast is across the sweeps")
    assert both.notes[0].endswith("; all were trained on the same data")
    assert len(both.compared.pairs) == 3
    assert write_report(both, tmp_path).exists()
    elsewhere = DATA.model_copy(update={"digest": "e" * 64})
    other = joined({"A": two["short"], "B": found((50,), far, elsewhere)})
    assert other.notes[0].endswith("; not all are of the same data")


def test_both_are_looked_at_at_the_target_of_the_first(two):
    half = space(search=SPACE.search.model_copy(update={"target": 0.5}))
    both = joined({"A": two["short"], "B": found((30, 60), half)})
    told = {study.name: study for study in both.studies}
    assert both.space.search.target == 0.9
    assert {study.options.target for study in both.studies} == {0.9}
    assert told["B: width=8"].verdict.emm == pytest.approx(30, rel=0.1)
    assert told["B: width=8"].verdict.reason == "by the trials of a search for 0.5"
    assert "search.target differs: A 0.9, B 0.5" in both.notes


@pytest.mark.parametrize(
    ("change", "said"),
    [({"k": 0.5}, "counts copies by k = 0.333, B by 0.5"), ({"judge": "features"}, "in features")],
)
def test_what_does_not_count_alike_is_not_compared(two, change, said):
    how = SPACE.measurement.model_copy(update=change)
    with pytest.raises(UserError, match=said):
        joined({"A": two["short"], "B": found((30, 60), space(measurement=how))})
    with pytest.raises(UserError, match="two sweeps or more"):
        joined({"A": two["short"]})


def test_the_report_of_two_sweeps_says_what_is_across(two, tmp_path):
    both = joined(two)
    text = write_report(both, tmp_path).read_text()
    assert "2 contrasts are across the sweeps, on the same data" in text
    assert "trainer.length differs: short 400, long 800" in text
    assert "none here; those of each sweep are in its own report" in text
    assert json.loads((tmp_path / "report.json").read_text())["across_sweeps"] == both.notes
    assert not list(tmp_path.glob("study-*")), "those of each study are in its own report"
    assert {path.name for path in tmp_path.glob("contrasts*.pdf")} == {
        *("contrasts-01-sweep.pdf", "contrasts-02-width.pdf"),
    }
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert {(row["sweep"], row["width"]) for row in rows} == {
        *(("short", "8"), ("short", "16"), ("long", "8"), ("long", "16")),
    }
    shown = " ".join(printed(both, 200).split())
    assert "Across the sweeps 2 contrasts are across the sweeps" in shown


def test_tables_of_two_sweeps_in_a_notebook(two):
    both = api.compare(list(two.values()), names=["short", "long"])
    assert api.configurations(both)["sweep"].tolist() == ["short", "short", "long", "long"]
    across = api.contrasts(both).query("factor == 'sweep'")
    assert across["ratio"].tolist() == pytest.approx([1.5, 1.5], rel=0.05)
    assert api.interactions(both)["factor"].tolist() == ["sweep"]
    assert "short: width=8" in repr(both)
    assert repr(both).endswith("trainer.length differs: short 400, long 800")
    assert list(api.figures(both))[:3] == ["emm", "factor-01-sweep", "factor-02-width"]
    names = [study.name for study in api.compare(list(two.values())).studies]
    assert names[::2] == ["digits-width (1): width=8", "digits-width (2): width=8"]
    for wrong in (["one"], ["a", "a"]):
        with pytest.raises(UserError, match="2 different names are needed"):
            api.compare(list(two.values()), names=wrong)


def test_sweeps_are_called_by_what_tells_them_apart():
    assert called_apart(["results/a", "s3://bucket/b/"]) == ["a", "b"]
    assert called_apart(["old/digits", "new/digits"]) == ["old/digits", "new/digits"]
    assert called_apart(["digits", "digits"]) == ["digits (1)", "digits (2)"]


def test_a_view_changes_nothing_of_the_sweep(two):
    sweep = two["short"]
    before = json.dumps(sweep.as_json())
    assert at_target(sweep, 0.9) is sweep
    seen = at_target(sweep, 0.5)
    assert [study.verdict.state for study in seen.studies] == ["found", "found"]
    assert seen.studies[0].verdict.emm == pytest.approx(20 * 9 ** (1 / 3), rel=0.1)
    ratio = next(iter(seen.contrasts)).ratio
    assert math.log(ratio) == pytest.approx(math.log(2), abs=0.15)
    assert [study.name for study in selected(sweep, ["width=16"]).studies] == ["width=16"]
    assert selected(sweep, ["width=16"]).contrasts == []
    assert json.dumps(sweep.as_json()) == before

"""`emm fit`: points from elsewhere."""

import json

import numpy as np
import pytest

from sweep.analysis.summary import summarize
from sweep.cli.main import main
from sweep.report.files import _csv
from sweep.search.belief import Observation
from sweep.search.points import fit_points, fit_table, read_table
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage

# R_mem of Gu et al. 2023 on CIFAR-10 at 32 × 32, digitised from their figure; they interpolate EMM
# = 1.06k
PUBLISHED = "n,r_mem\n1000,0.92\n2000,0.609\n3000,0.346\n4000,0.171\n5000,0.089\n"


def test_the_published_grid_gives_the_published_emm(tmp_path, capsys):
    (tmp_path / "points.csv").write_text(PUBLISHED)
    with pytest.raises(SystemExit) as ended:
        main(["fit", str(tmp_path / "points.csv"), "--json"])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["emm_low"] < 1060 < said["emm_high"]
    assert said["n_trials"] == 5


def test_many_points_of_a_known_curve_are_judged_and_nothing_is_asked(tmp_path):
    sizes = np.geomspace(60, 240, 24).astype(int)
    rows = [f"{n},{1 / (1 + (n / 120) ** 5 / 9):.6f},100000" for n in sizes]
    (tmp_path / "points.csv").write_text("\n".join(["n,r_mem,n_samples", *rows]))
    fitted = fit_points(read(tmp_path, (tmp_path / "points.csv").read_text()).trials[""], 0.9, 0.12)
    assert fitted.verdict.state == "found"
    assert fitted.next_n is None
    assert fitted.verdict.emm == pytest.approx(120, rel=0.02)


def read(tmp_path, text):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    return read_table(tmp_path / "points.csv")


TRIALS = [Observation(100, 0.95, 500), Observation(240, 0.92, 2000)]


@pytest.mark.parametrize(
    "text",
    [
        "n,r_mem,n_samples\n100,0.95,500\n240,0.92,2000\n",
        "N ; R mem ; N samples\n100;0,95;500\n240;0,92;\n",
        "\ufeffImages\tR_mem\tn_samples\r\n100\t.95\t500\r\n\r\n240\t92e-2\t2e3\r\n",
        "# by hand\nr-mem,n_train,samples\n95 %,100,500\n92%,240.0,2000.0\n",
        'n,r_mem,n_samples\n100,"0,95",500\n240,"0,92",2000\n',
    ],
)
def test_tables_as_people_have_them(tmp_path, text):
    assert read(tmp_path, text).trials == {"": TRIALS}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("a,b\n1,2\n", "header"),
        ("n r_mem\n1 2\n", "header"),
        ("[" * 200_000, "header"),
        ("n,r_mem\n", "no row of a trial"),
        ("n,r_mem\n100,high\n", "line 2: r_mem"),
        ("n,r_mem\n100,0.5\n200,1.5\n", "line 3"),
        ("n,r_mem\n100\n", "line 2: 1 cells, and the header has 2"),
        ("n,r_mem\n\n# mine\n100,0.5\n\n200,nan\n", "line 6"),
        ("n,r_mem\n240,0,92\n", "line 2: 3 cells"),
        ("n,r_mem\n1,000,0.9\n", "line 2: 3 cells"),
        ("n;r_mem\n1.000;0,9\n", "line 2: n: an integer"),
        ("n;r_mem\n1,000;0.9\n", "line 2: n: an integer"),
        ("n,r_mem\n1_000,0.9\n", "line 2: n: an integer"),
        ("n,r_mem\n10.5,0.9\n", "line 2: n: an integer"),
        ("n,r_mem\n1e400,0.9\n", "line 2: n: an integer"),
        ("n,r_mem\n0,0.9\n", "line 2: n: an integer"),
        ("n,r_mem\n100,92\n", "line 2: r_mem"),
        ("n,r_mem (%)\n100,92\n", "write R_mem as a share"),
        ("n,r_mem\n100,92 %\n200,0.5\n", "line 3: r_mem 0.5: write % in all rows"),
        ("n,images,r_mem\n100,100,0.5\n", "the columns n and images both mean n"),
        ("n,r_mem,right_censored\n100,0.5,maybe\n", "line 2: right_censored"),
        ("n,r_mem,configuration\n100,0.5,a\n200,0.4,\n", "line 3: the configuration is missing"),
        (
            "n,r_mem,state\n100,,failed\n200,,running\n",
            "no row of a trial that is complete; there are 1 failed, 1 running",
        ),
        ('n,r_mem\n100,"0.5\n200,0.4\n', "line 3: unexpected end"),
    ],
)
def test_what_could_be_misread_is_refused_with_its_line(tmp_path, text, said):
    with pytest.raises(UserError) as raised:
        read(tmp_path, text)
    assert said in str(raised.value)


def test_configurations_are_fitted_one_by_one(tmp_path, capsys):
    """As one they would have an EMM between the two."""
    curves = [
        (name, n, 1 / (1 + (n / emm) ** 5 / 9))
        for name, emm in (("a", 30), ("b", 3000))
        for n in (emm, emm * 2, emm // 2)
    ]
    (tmp_path / "points.csv").write_text(
        "Configuration,note,n,R_mem\n" + "".join(f"{a},x,{n},{r:.4f}\n" for a, n, r in curves)
    )
    with pytest.raises(SystemExit):
        main(["fit", str(tmp_path / "points.csv"), "--json"])
    printed = capsys.readouterr()
    fits = {one["name"]: one for one in json.loads(printed.out)["configurations"]}
    assert list(fits) == ["a", "b"]
    for name, emm in (("a", 30), ("b", 3000)):
        assert fits[name]["emm_low"] < emm < fits[name]["emm_high"] < 2 * emm
        assert fits[name]["n_trials"] == 3
    assert "columns that are not used: note" in printed.err
    assert "n_samples is not known of 6 trials" in printed.err


def test_the_trials_of_a_report_are_such_a_table(tmp_path):
    """Failed and censored trials count as they do in the sweep."""
    space, data, storage = fake_space((8,)), load(Digits()), Storage(str(tmp_path / "sweep"))
    write_sweep(storage, space, data, trials=6)
    (named,) = space.configurations
    failure = {"complete": False, "r_mem": None, "n_samples": 0, "n_memorized": 0, "cause": "a, b"}
    write_trial(storage, space, named, data, 12, 6, **failure)
    write_trial(storage, space, named, data, 6, 7, right_censored=True)
    summary = summarize(storage)
    table = read(tmp_path, _csv(summary))
    (study,) = summary.studies
    assert sorted(table.trials["width=8"], key=lambda o: o.n) == sorted(
        study.observations, key=lambda o: o.n
    )
    assert [o.n for o in table.trials["width=8"] if o.right_censored] == [6]
    assert table.notes[0] == "left out, since their state is not complete: 1 failed"
    (fitted,) = fit_table(table, lambda trials: fit_points(trials, 0.9, 0.15)).values()
    assert fitted.verdict.emm_low < 16 < fitted.verdict.emm_high


def test_the_range_is_from_half_the_smallest_to_twice_the_largest():
    options = fit_points([Observation(301, 0.9, 100), Observation(90, 0.9, 100)], 0.6, 0.2).options
    assert (options.low, options.high) == (45, 602)
    assert (options.target, options.precision) == (0.6, 0.2)


def test_censored_is_said_in_any_of_these_words(tmp_path):
    rows = {"true": 1, "Yes": 1, "1": 1, "FALSE": 0, "no": 0, "0": 0, "": 0}
    text = "\n".join(["n,r_mem,censored", *(f"10,0.9,{word}" for word in rows)])
    found = read(tmp_path, text).trials[""]
    assert [o.right_censored for o in found] == list(map(bool, rows.values()))
    assert {o.n_samples for o in found} == {2000}, "taken as so many where they are not known"


def test_one_trial_of_one_image_has_a_range():
    assert fit_points([Observation(1, 0.9, 100)], 0.9, 0.12).options.low == 2


@pytest.mark.parametrize("times", [1, 15], ids=["two trials", "more than a search may have"])
def test_where_every_trial_memorizes_a_larger_n_is_asked_for(times):
    points = [Observation(100, 0.99, 2000), Observation(200, 0.96, 2000)] * times
    fitted = fit_points(points, 0.9, 0.12)
    assert fitted.verdict.state == "searching"
    assert 200 < fitted.next_n <= fitted.options.high == 400


def test_where_one_has_failed_a_smaller_n_is_asked_for():
    points = [Observation(100, 0.99, 2000), Observation(160, 0.6, 2000)]
    fitted = fit_points(points, 0.9, 0.12)
    assert fitted.options.low == 50 <= fitted.next_n < 160

"""docs/notebook.md as it stands there, on a sweep whose R_mem is a formula; and what shows itself."""

import logging
import multiprocessing
import re
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pandas as pd
import pytest

from search_spaces.find import find_space
from search_spaces.table import SPACES
from sweep import api
from sweep.report.files import write_report
from sweep.report.style import Figure
from sweep.run import driver
from sweep.store.files import read_space
from tests.fakes import FakeTrainable, fake_space
from tests.results import write_sweep, write_trial
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import Snapshot

PAGE = Path(__file__).parents[2] / "docs" / "notebook.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
WIDTHS = (8, 16)


def renamed(space, **changes):
    return space.model_copy(update=changes)


def written(directory, space, trials=6):
    write_sweep(Storage(str(directory)), space, load(space.base.data), trials)
    return api.read(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep")
    written(path, fake_space(WIDTHS, n_high=256))
    return path


# ---------------------------------------------------------------- the page


def test_the_page_runs_as_it_stands_there(directory, monkeypatch, tmp_path):
    (run, space, *reading) = BLOCKS
    assert "api.run(" in run
    assert all("api.run(" not in block for block in reading)
    (asked,) = re.findall(r'api\.read\("(.*?)"\)', "".join(reading))
    names = {"api": api}
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    for block in (space, *reading):
        exec(block.replace(asked, str(directory)), names)
    found = find_space(names["space"])
    assert [one.factors for one in found.configurations] == [{"dropout": 0}, {"dropout": 0.1}]
    said = api.read(directory).as_json()["configurations"]
    assert names["hours"].to_dict() == {width: pytest.approx(6 * 40 / 3600) for width in WIDTHS}
    growing = names["growing"]
    assert growing.columns.tolist() == [0.25, 0.5, 0.75, 1]
    for one in said:
        for trial in one["trials"]:
            row = growing.loc[(one["factors"]["width"], trial["n"])]
            expected = [trial["r_mem"] * share for share in row.index]
            assert row.tolist() == pytest.approx(expected, abs=1e-3)
    assert (tmp_path / "emm.pdf").read_bytes().startswith(b"%PDF")
    assert isinstance(names["emm"], Figure)
    matplotlib.pyplot.close("all")


@pytest.mark.slow
def test_a_run_from_a_notebook(monkeypatch, tmp_path, capsys):
    """The first block of the page, and again: then there is nothing to do. The process is left as
    it was."""
    monkeypatch.setattr(driver, "Run", partial(driver.Run, trainable=FakeTrainable))
    log, handlers = [], logging.getLogger().handlers[:]
    signal.signal(signal.SIGTERM, ours := lambda *_: log.append("SIGTERM"))
    code = BLOCKS[0].replace("results/digits-width", str(tmp_path / "out"))
    first, again = {}, {}
    exec(code, first)
    printed = capsys.readouterr().out
    assert f"report: {tmp_path / 'out' / 'report' / 'index.html'}" in printed
    exec(code, again)
    assert "verdict" not in printed, "what is returned shows the table"
    sweep = first["sweep"]
    assert {study.verdict.state for study in sweep.studies} <= {"found", "below_range"}
    told, told_again = sweep.as_json(), again["sweep"].as_json()
    assert told_again == api.read(tmp_path / "out").as_json()
    assert [len(one.pop("runs")) for one in (told, told_again)] == [1, 2]
    assert told == told_again
    assert type(sweep) is type(api.read(tmp_path / "out"))
    assert read_space(Storage(str(tmp_path / "out"))).search.precision == 0.15
    assert logging.getLogger().handlers == handlers
    assert signal.getsignal(signal.SIGTERM) is ours
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(UserError, match="holds the sweep of digits-width, not of space"):
        api.run({**dict.fromkeys(("question",), ""), "base": "digits", "vary": {},
                 "search": {"n_low": 4, "n_high": 9}}, tmp_path / "out")  # fmt: skip


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("space", "options", "said"),
    [
        ("digits-widht", {}, "no search space 'digits-widht'; did you mean digits-width"),
        (Path("none.yaml"), {}, "none.yaml: no such file"),
        ({"base": "digits", "vary": {}}, {}, "space: search"),
        ({"name": "a", "base": "digit", "vary": {}}, {}, "no recipe 'digit'; there are paper, d"),
        ({"wary": {}}, {}, "space: wary: there is no such field"),
        ("digits", {"settings": {"network.widht": 8}}, "did you mean network.width"),
        (
            "digits",
            {"settings": {"search.precision": 0.1}, "precision": 0.2},
            "it is set to 0.1, and by its own option to 0.2",
        ),
        ("digits", {"settings": {"search.n_high": 9999}}, "9999 is more than the 1797 images"),
        (fake_space(), {"targets": [2.0]}, "targets"),
        ("digits", {"workers": 10_000}, "--workers 10000: 1 CPUs each, and this machine has"),
        ("digits", {"deadline": "soon"}, "--deadline soon: write a duration"),
        ("digits", {"deadline": ""}, "--deadline : write a duration"),
    ],
)
def test_a_mistake_is_one_line_and_creates_nothing(tmp_path, space, options, said):
    with pytest.raises(UserError, match=said) as raised:
        api.run(space, tmp_path / "out", **options)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_where_a_sweep_is_kept_must_be_said():
    with pytest.raises(UserError, match="say where the sweep is kept"):
        api.run("digits")


def test_where_it_can_not_run(tmp_path, monkeypatch):
    raised = []

    def elsewhere():
        try:
            api.run("digits", tmp_path / "out")
        except UserError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "call it in the main thread" in raised[0]
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
        with pytest.raises(UserError, match=r"uses a Ray already.*ray\.shutdown\(\) first"):
            api.run("digits", tmp_path / "out")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(UserError, match="__main__"):
        api.run("digits", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_space_is_what_it_is_given_as(tmp_path):
    fields = {"base": "digits", "vary": {"network.width": [8, 16]},
              "settings": {"network.depth": 2}, "search": {"n_low": 4, "n_high": 99}}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: digits\nvary: {network.width: [8, 16]}\nsettings: {network.depth: 2}\n"
        "search: {n_low: 4, n_high: 99}\n"
    )
    assert find_space({"name": "mine", **fields}) == find_space(str(path))
    assert find_space(SPACES["digits"]) is SPACES["digits"]
    assert find_space(fields).name == "space"


# ---------------------------------------------------------------- what shows itself


def test_a_sweep_shows_its_question_and_its_verdicts(directory):
    sweep = api.read(directory)
    lines = repr(sweep).splitlines()
    assert lines[0] == "fake: Does the sweep find what the formula says?"
    assert lines[1] == "EMM at target R_mem 0.9"
    rows = [line.split() for line in lines[3:]]
    assert [row[:2] for row in rows] == [["width=8", "found"], ["width=16", "found"]]
    assert cells(sweep)[1:] == [re.split(r"\s{2,}", line) for line in lines[3:]]
    assert "Does the sweep find what the formula says?" in sweep._repr_html_()


def cells(sweep):
    rows = re.findall(r"<tr>(.*?)</tr>", sweep._repr_html_(), re.S)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_every_text_in_html_is_escaped_and_no_control_reaches_a_terminal(tmp_path):
    space = renamed(
        fake_space((8,)),
        name="<i>",
        question="<script>a & b</script>\x1b[2J",
        vary={"<b>x": {"<img src=y>": {"network.width": 8}}},
    )
    sweep = written(tmp_path, space, trials=1)
    (key,) = Storage(str(tmp_path)).list("trials")
    Storage(str(tmp_path)).write(f"trials/{key}/result.json", b"{<u>")
    html, text = api.read(tmp_path)._repr_html_(), repr(sweep)
    for tag in ("<script", "<img", "<b>x", "<i>", "<u>"):
        assert tag not in html
    assert "&lt;script&gt;a &amp; b" in html
    assert "passed over:" in html
    assert "&lt;img src=y&gt;" in html
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_figures_show_themselves(directory):
    sweep = api.read(directory)
    figures = api.figures(sweep)
    assert repr(figures).endswith("emm, profile, contrasts, cost, study-01-width-8, "
                                  "training-01-width-8, study-02-width-16, training-02-width-16")  # fmt: skip
    for name in ("emm", "study-01-width-8", "training-01-width-8", "contrasts"):
        assert figures[name]()._repr_png_().startswith(b"\x89PNG"), name


# ---------------------------------------------------------------- tables


def test_curves_are_long(directory):
    sweep = api.read(directory)
    curves = api.curves(sweep)
    assert list(curves.columns) == ["configuration", "width", "n", "seed", *Snapshot.model_fields]
    assert len(curves) == 2 * 6 * 4
    for study in sweep.studies:
        for result in study.results:
            mine = curves[(curves.configuration == study.name) & (curves.seed == result.spec.seed)]
            assert mine.r_mem.tolist() == [one.r_mem for one in result.curve]
            assert mine.loss.tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
            assert set(mine.n) == {result.spec.n}
            assert set(mine.width) == {study.factors["width"]}
    trials = api.trials(sweep)
    assert trials.seconds.tolist() == [40] * 12
    assert trials.loss.tolist() == [0.25] * 12


def test_a_factor_with_the_name_of_a_column_loses_nothing(tmp_path):
    space = renamed(
        fake_space((8,)),
        vary={
            "loss": {"small": {"network.width": 8}, "=2+2": {"network.width": 16}},
            "emm": {"-1": {}},
            "=x": {"a": {}},
            "diffusion.P_mean": (-1.5,),
        },
    )
    sweep = written(tmp_path, space, trials=3)
    trials, curves, table = api.trials(sweep), api.curves(sweep), api.configurations(sweep)
    assert trials.factor_loss.tolist() == ["small"] * 3 + ["=2+2"] * 3
    assert trials.loss.tolist() == [0.25] * 6
    assert set(trials.emm) == {"-1"}
    assert curves.factor_loss.nunique() == 2
    assert table.loss.tolist() == ["small", "=2+2"]
    assert table.factor_emm.tolist() == ["-1", "-1"]
    assert table.emm.notna().all()
    write_report(sweep, tmp_path / "report")
    csv = pd.read_csv(tmp_path / "report" / "trials.csv")
    assert list(csv.columns[:4]) == ["configuration", "factor_loss", "emm", "'=x"]
    assert csv.factor_loss.tolist() == ["small"] * 3 + ["'=2+2"] * 3
    assert csv.P_mean.tolist() == [-1.5] * 6, "a negative number is no formula"
    assert csv.loss.tolist() == [0.25] * 6
    lines = (tmp_path / "report" / "configurations.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{lllrlrrrrr}"
    assert lines[2].startswith(r"loss & emm & =x & P\_mean & verdict & EMM &")
    assert lines[5].startswith("=2+2 & -1 & a & -1.5 &")


def test_a_contrast_says_which_over_which(directory):
    sweep = api.read(directory)
    (row,) = api.contrasts(sweep).to_dict("records")
    a, b = sweep.studies
    assert row["ratio_of"] == f"{b.name} / {a.name}" == "width=16 / width=8"
    assert row["ratio"] == pytest.approx(b.verdict.emm / a.verdict.emm, rel=0.05)
    assert row["told_apart"] == "yes"
    assert row["low"] > 1


def test_tables_of_a_sweep_that_has_not_begun_have_their_columns(tmp_path):
    space = fake_space((8,))
    write_sweep(Storage(str(tmp_path)), space, load(space.base.data), 0)
    sweep = api.read(tmp_path)
    assert {"configuration", "width", "n", "seed", "r_mem", "seconds"} <= {*api.trials(sweep)}
    assert {"width", "images_trained", "loss", "r_mem"} <= {*api.curves(sweep)}
    assert len(api.trials(sweep)) == len(api.curves(sweep)) == 0
    assert api.profile(sweep).emm.isna().all()


def test_a_last_measurement_stands_beside_the_trial(tmp_path):
    space = fake_space((8,))
    data = load(space.base.data)
    write_sweep(Storage(str(tmp_path)), space, data, 0)
    (named,) = space.configurations
    result = write_trial(Storage(str(tmp_path)), space, named, data, 12, 0)
    write_trial(Storage(str(tmp_path)), space, named, data, 20, 1)
    final = {"r_mem": 0.75, "n_samples": 4000, "n_memorized": 3000}
    Storage(str(tmp_path)).write_json("final.json", {result.training_key: final})
    trials = api.trials(api.read(tmp_path))
    assert trials.final_r_mem[0] == 0.75
    assert trials.final_n_samples[0] == 4000
    assert trials.final_r_mem.isna().tolist() == [False, True]

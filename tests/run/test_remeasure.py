"""`emm remeasure`: a finished sweep looked at by another eye, judged by what it prints and leaves
behind."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from search_spaces.recipes import DIGITS
from sweep.analysis.features import result_in
from sweep.analysis.summary import summarize
from sweep.cli.main import main
from tests import eyes
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.trial.result import MEASUREMENT, RESULT, trial_directory

SPACE = fake_space((8, 16), n_low=8, n_high=200)
DATA = load(DIGITS.data)
BY_PIXELS = ["--features", "tests.eyes:pixels"]


@pytest.fixture
def sweep(tmp_path):
    sweep = Storage(str(tmp_path / "sweep"))
    write_sweep(sweep, SPACE, DATA, trials=6)
    return sweep


def emm(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def files_in(directory):
    return {
        path.relative_to(directory): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file()
    }


def unit(images):
    rows = images.reshape(len(images), -1) - 127.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("rule", ["ratio", "distance"])
def test_every_trial_as_brute_force_has_it_and_every_emm_by_the_same_belief(sweep, capsys, rule):
    """Generated images are copies with a noise of sd 4 as often as the formula says, the others
    have one of sd 60; the distances that were kept are made up."""
    before = files_in(sweep.root)
    how = [] if rule == "ratio" else ["--features-rule", rule]
    code, output, _ = emm(capsys, "remeasure", sweep.url, *BY_PIXELS, *how, "--json")
    found = json.loads(output)
    assert code == 0
    assert found["judged_in"] == "features"
    pixels = json.loads(emm(capsys, "report", sweep.url, "--json")[1])
    for study, other in zip(
        found["configurations"], found["beside"]["configurations"], strict=True
    ):
        width = study["factors"]["width"]
        assert study["verdict"] == other["verdict"] == "found"
        assert study["emm"] == pytest.approx(2 * width, rel=0.2)
        assert study["emm_low"] < study["emm"] < study["emm_high"]
        for trial, first in zip(study["trials"], other["trials"], strict=True):
            order = subset_order(DATA, trial["seed"])
            with np.load(sweep.path(f"trials/{trial['training_key']}/{MEASUREMENT}")) as kept:
                images = kept["images"]
            training = unit(DATA.images[order[: trial["n"]]])
            distances = np.linalg.norm(unit(images)[:, None] - training[None], axis=2)
            nearest = np.sort(distances, axis=1)[:, :2].T
            score = nearest[0] / nearest[1] if rule == "ratio" else nearest[0]
            assert trial["r_mem"] == (score < trial["features_threshold"]).mean()
            assert trial["r_mem"] == first["r_mem_features"] == trial["r_mem_features"]
            assert trial["r_mem"] == pytest.approx(first["r_mem"], abs=0.03)
            assert trial["features_null"] == pytest.approx(0.01, abs=0.015)
            assert (trial["ceiling"], trial["null_rate"], trial["r_mem_last"]) == (None,) * 3
            assert (first["ceiling"], first["null_rate"]) == (1.0, 0.01), "all that pixels told"
    for study, other in zip(
        pixels["configurations"], found["beside"]["configurations"], strict=True
    ):
        for name in ("verdict", "emm", "emm_low", "emm_high"):
            assert study[name] == other[name], "in pixels as ever"
    after = files_in(sweep.root)
    assert {path: content for path, content in after.items() if path in before} == before
    (directory,) = {path.parts[0] for path in after.keys() - before.keys()}
    assert directory.startswith("report-features-tests.eyes.pixels")
    assert (directory == "report-features-tests.eyes.pixels") == (rule == "ratio")


def test_the_page_the_table_and_the_files_have_both(sweep, capsys, tmp_path):
    code, output, _ = emm(capsys, "remeasure", sweep.url, *BY_PIXELS)
    assert code == 0
    assert output.count("R_mem in pixels 0.") == 12, "a line for every trial as it is looked at"
    assert "In pixels and in features" in output
    assert "EMM at target R_mem 0.9 in features" in output
    report = tmp_path / "sweep" / "report-features-tests.eyes.pixels"
    page = (report / "index.html").read_text()
    assert "by tests.eyes:pixels" in page
    assert "R_mem and EMM on this page are in features" in page
    for text in ("EMM in pixels", "EMM in features", "R_mem in pixels", "R_mem in features"):
        assert f">{text}</th>" in page
    for row in csv.DictReader((report / "trials.csv").read_text().splitlines()):
        assert row["r_mem"] == row["r_mem_features"]
        assert float(row["r_mem_pixels"]) == pytest.approx(float(row["r_mem"]), abs=0.03)
    assert "EMM in features" in (report / "eyes.tex").read_text()
    assert json.loads((report / "report.json").read_text())["features"] == {
        "function": "tests.eyes:pixels", "options": {}, "rule": "ratio", "version": "",
    }  # fmt: skip
    assert "in features" not in emm(capsys, "report", sweep.url)[1]
    plain = (tmp_path / "sweep" / "report" / "index.html").read_text()
    assert "EMM in features" not in plain
    assert "R_mem in features" not in plain
    assert "are in features" not in plain


def test_what_was_looked_at_is_not_looked_at_again(sweep, capsys, tmp_path, monkeypatch):
    report = tmp_path / "sweep" / "report-features-tests.eyes.counting"
    arguments = ["remeasure", sweep.url, "--features", "tests.eyes:counting", "--json"]
    first = json.loads(emm(capsys, *arguments)[1])
    some = sorted((report / "distances").iterdir())
    assert len(some) == 12
    monkeypatch.setattr(eyes, "counted", 0)
    assert json.loads(emm(capsys, *arguments)[1]) == first
    assert eyes.counted <= 3 * 8, "the check alone"
    with np.load(some[1]) as kept:
        fewer = {name: array[:-1] if array.ndim else array for name, array in kept.items()}
    for content in (b"broken", None):
        if content is None:
            np.savez(some[0], **fewer)
        else:
            some[0].write_bytes(content)
        eyes.counted = 0
        assert json.loads(emm(capsys, *arguments)[1]) == first
        assert eyes.counted > 3 * 8
    # new trials
    write_trial(sweep, SPACE, SPACE.configurations[0], DATA, 20, 17)
    again = json.loads(emm(capsys, *arguments)[1])
    assert len(again["configurations"][0]["trials"]) == 7
    assert len(list((report / "distances").iterdir())) == 13
    # other options, another version: another report
    emm(capsys, *arguments, "--features-options", "power=2")
    emm(capsys, *arguments, "--features-options", "power=2", "--features-version", "2")
    assert len(list((tmp_path / "sweep").glob("report-features-tests.eyes.counting*"))) == 3


def test_a_sweep_that_was_measured_in_features_is_reported_in_pixels_with_these_beside(
    tmp_path, capsys
):
    """R_mem in features a factor of 2 in N above that in pixels, so the EMM too."""
    space = SPACE.with_settings({"measurement.features": "tests.eyes:pixels"})
    sweep, named = Storage(str(tmp_path)), space.configurations[0]
    write_sweep(sweep, space, DATA, trials=0)
    for seed, n in enumerate((10, 13, 16, 20, 24, 32, 40, 52)):
        of_half = [1 / (1 + np.exp(4 * np.log(n / emm) - np.log(9))) for emm in (16, 32)]
        more = dict(zip(("r_mem", "r_mem_features"), of_half, strict=True))
        memorized = {"n_memorized": round(2000 * of_half[0]), "n_samples": 2000}
        write_trial(sweep, space, named, DATA, n, seed, **more, **memorized)
    found = json.loads(emm(capsys, "report", sweep.url, "--json")[1])
    assert found["judged_in"] == "pixels"
    for content, emm_there in ((found, 16), (found["beside"], 32)):
        study = content["configurations"][0]
        assert study["emm"] == pytest.approx(emm_there, rel=0.05)
        assert study["verdict"] == "found"
    page = emm(capsys, "report", sweep.url)[1]
    assert "In pixels and in features" in page
    assert "EMM at target R_mem 0.9 in features" not in page


def test_a_sweep_that_searched_in_features_is_reported_in_them_with_pixels_beside(tmp_path, capsys):
    """R_mem is then that in features, for the search as for the report; in pixels the EMM is half.
    By another k it is judged in pixels, and another eye has these beside."""
    eye = {"measurement.features": "tests.eyes:sorted_pixels", "measurement.judge": "features"}
    space = SPACE.with_settings(eye)
    sweep, named = Storage(str(tmp_path)), space.configurations[0]
    write_sweep(sweep, space, DATA, trials=0)
    for seed, n in enumerate((8, 10, 13, 16, 20, 24, 32, 40, 52)):
        pixels, features = (1 / (1 + np.exp(4 * np.log(n / emm) - np.log(9))) for emm in (16, 32))
        more = {"r_mem": features, "r_mem_features": features, "r_mem_pixels": pixels}
        memorized = {"n_memorized": round(2000 * features), "n_samples": 2000}
        write_trial(sweep, space, named, DATA, n, seed, **more, **memorized)
    found = json.loads(emm(capsys, "report", sweep.url, "--json")[1])
    assert found["judged_in"] == "features"
    for content, emm_there in ((found, 32), (found["beside"], 16)):
        study = content["configurations"][0]
        assert (study["verdict"], study["emm"]) == ("found", pytest.approx(emm_there, rel=0.07))
    assert found["configurations"][0]["trials"][0]["r_mem_last"] is not None, "its own curve"
    output = emm(capsys, "report", sweep.url)[1]
    assert "EMM at target R_mem 0.9 in features" in output
    assert "noisy copier)" not in output
    page = (tmp_path / "report" / "index.html").read_text()
    assert "R_mem and EMM on this page are in features" in page
    assert 'class="gallery"' in page, "pictures are shown as ever"
    at_k = json.loads(emm(capsys, "report", sweep.url, "--k", "1/3", "--json")[1])
    assert at_k["judged_in"] == "pixels", "k is of pixels"
    again = json.loads(emm(capsys, "remeasure", sweep.url, *BY_PIXELS, "--json")[1])
    assert again["features"]["function"] == "tests.eyes:pixels"
    assert again["beside"]["configurations"][0]["emm"] == pytest.approx(16, rel=0.07)


def test_a_lower_bound_in_pixels_is_one_in_features(sweep):
    result = write_trial(sweep, SPACE, SPACE.configurations[0], DATA, 20, 17, right_censored=True)
    high, low = (
        result_in("features", result.model_copy(update={"r_mem_features": r_mem}))
        for r_mem in (0.95, 0.7)
    )
    assert (high.complete, high.right_censored, high.r_mem) == (True, True, 0.95)
    assert high.n_memorized == round(0.95 * result.n_samples)
    assert (low.complete, low.right_censored, low.r_mem) == (True, True, 0.7)
    assert (high.r_mem_pixels, high.measurement.judge) == (result.r_mem, "features")
    back = result_in("pixels", high)
    assert (back.r_mem, back.n_memorized) == (result.r_mem, result.n_memorized)
    unknown = result_in("features", result)
    assert not unknown.complete
    assert "fewer than 198 held-out images" in unknown.cause


def test_lost_images_are_passed_over_and_said(sweep, capsys):
    result = summarize(sweep).studies[0].results[2]
    trial_directory(sweep, result.training_key).delete(MEASUREMENT)
    content = json.loads(emm(capsys, "remeasure", sweep.url, *BY_PIXELS, "--json")[1])
    assert [len(one["trials"]) for one in content["configurations"]] == [5, 6]
    (line,) = content["passed_over"]
    assert "without its images" in line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["DIR", "--features", "eye"], "--features: write it as package.module:name, not 'eye'"),
        (["DIR", "--features", "tests.eyes:closed"], "--features=tests.eyes:closed: tests.eyes has no function"),
        (["DIR", "--features", "no_such_module:f"], "no_such_module can't be imported"),
        (["DIR", "--features", "tests.eyes:wrong", "--features-options", "how=random"], "when called again"),
        (["DIR", *BY_PIXELS, "--features-options", "size=3"], "TypeError"),
        (["DIR", *BY_PIXELS, "--features-options", "size"], "--features-options size: write it as path=value"),
        (["DIR", *BY_PIXELS, "--out", "FILE"], "is a file; choose a directory"),
        (["DIR"], "--features"),
        (["EMPTY", *BY_PIXELS], "holds no sweep"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_exit_2_and_nothing_is_created(
    sweep, capsys, tmp_path, arguments, text
):
    (tmp_path / "file").write_text("")
    named = {"DIR": sweep.url, "FILE": tmp_path / "file", "EMPTY": tmp_path / "empty"}
    before = files_in(tmp_path)
    code, _, error = emm(capsys, "remeasure", *(named.get(word, word) for word in arguments))
    assert code == 2
    assert error.startswith("emm: error: ")
    assert error.count("\n") == 1
    assert text in error
    assert files_in(tmp_path) == before


def test_nothing_is_written_through_a_link(sweep, capsys, tmp_path):
    """Whoever made the directory could have placed one."""
    report, elsewhere = Path(sweep.root) / "report-features-tests.eyes.pixels", tmp_path / "mine"
    report.mkdir()
    elsewhere.mkdir()
    (report / "distances").symlink_to(elsewhere)
    code, _, error = emm(capsys, "remeasure", sweep.url, *BY_PIXELS)
    assert (code, error.count("\n")) == (2, 1)
    assert "is a link" in error
    assert not list(elsewhere.iterdir())


def test_other_data_are_refused_before_anything_is_written(sweep, capsys, tmp_path):
    """The last trial is of other data than those that the sweep's recipe gives now."""
    study = summarize(sweep).studies[-1]
    last = study.results[-1]
    data = last.data.model_copy(update={"digest": "0" * 64})
    changed = last.model_copy(update={"data": data})
    trial_directory(sweep, last.training_key).write(RESULT, changed.model_dump_json().encode())
    before = files_in(tmp_path)
    code, _, error = emm(capsys, "remeasure", sweep.url, *BY_PIXELS)
    assert (code, error.count("\n")) == (2, 1)
    assert f"{study.name}: its data are not those that it was trained on" in error
    assert files_in(tmp_path) == before


def test_without_a_finished_trial_there_is_nothing_to_look_at(tmp_path, capsys):
    sweep = Storage(str(tmp_path))
    write_sweep(sweep, SPACE, DATA, trials=0)
    code, _, error = emm(capsys, "remeasure", sweep.url, *BY_PIXELS)
    assert code == 2
    assert "no finished trial" in error

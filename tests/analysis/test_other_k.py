"""`emm report --k`: the whole sweep judged anew from the distances that its trials kept."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.recipes import DIGITS
from sweep.analysis.other_k import result_at
from sweep.analysis.study import outcomes
from sweep.analysis.summary import summarize
from sweep.cli.main import main
from sweep.cli.options import parse_k
from sweep.report.answer import answer
from sweep.search.belief import SLOPES, base_prior, lognormal
from sweep.store.files import FINAL, SWEEP
from sweep.store.priors import FrozenPriors
from tests.fakes import fake_space
from trainables.config.trial import TrialSpec
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import (
    MEASUREMENT,
    RESULT,
    STARTED,
    Result,
    Snapshot,
    TrialRecord,
    read_all,
    start_record,
    trial_directory,
)

SPACE = fake_space((8,), n_low=8, n_high=400)
EMMS = {
    0.25: 20,
    1 / 3: 40,
    0.5: 80,
}  # of a model whose copies are the noisier the more images it was trained on


def r_mem(n, emm):
    return 1 / (1 + math.exp(-math.log(9) + 4 * math.log(n / emm)))


def finished(sweep, n, seed, **more):
    """A trial with 2,000 samples, of which exactly R_mem(N) at each k have a ratio of distances
    below that k."""
    spec = TrialSpec(
        name="width=8",
        configuration=SPACE.configurations[0].configuration,
        measurement=SPACE.measurement,
        n=n,
        seed=seed,
    )
    record = start_record(spec, load(DIGITS.data))
    directory = trial_directory(sweep, record.training_key)
    share = np.arange(2000) / 2000
    ratio = np.select([share < r_mem(n, emm) for emm in EMMS.values()], [0.2, 0.3, 0.4], 0.8)
    with directory.writing(MEASUREMENT) as stream:
        of, images = np.arange(2000) % n, np.zeros((2000, 1, 8, 8), np.uint8)
        np.savez(
            stream,
            images=images,
            subset=np.arange(n),
            d1=100 * ratio,
            d2=np.full(2000, 100.0),
            i1=of,
            i2=of,
        )
    found = int((ratio < 1 / 3).sum())
    outcome = {
        "complete": True,
        "r_mem": found / 2000,
        "n_memorized": found,
        "n_samples": 2000,
        "ceiling": 1.0,
        **more,
    }
    result = Result(**dict(record), **outcome)
    directory.write(RESULT, result.model_dump_json().encode())
    return result


@pytest.fixture
def sweep(tmp_path):
    sweep = Storage(str(tmp_path / "sweep"))
    sweep.write_json(SWEEP, {"space": SPACE.model_dump(mode="json")})
    for seed, n in enumerate((10, 20, 28, 40, 56, 80, 110, 160)):
        finished(sweep, n, seed)
    return sweep


def report(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_emm_is_that_of_its_k(sweep, capsys, tmp_path):
    for text, k in [("1/4", 0.25), ("1/3", 1 / 3), ("0.5", 0.5)]:
        content = json.loads(report(capsys, sweep.url, "--k", text, "--json"))
        (study,) = content["configurations"]
        assert content["k"] == k
        assert study["emm_low"] < EMMS[k] < study["emm_high"]
        assert study["emm"] == pytest.approx(EMMS[k], rel=0.12)
        for trial in study["trials"]:
            assert trial["r_mem"] == pytest.approx(r_mem(trial["n"], EMMS[k]), abs=1 / 2000)
            assert trial["r_mem_low"] <= trial["r_mem"] <= trial["r_mem_high"]
    assert json.loads(report(capsys, sweep.url, "--json")) == summarize(sweep).as_json(), (
        "its own k without the option"
    )
    report(capsys, sweep.url, "--k", "1/2")
    assert "k = 0.5" in (tmp_path / "sweep" / "report-k0.5" / "index.html").read_text()
    assert not (tmp_path / "sweep" / "report").exists()


def test_a_last_measurement_is_of_the_k_of_its_sweep_alone(sweep):
    key = finished(sweep, 40, 20).training_key
    sweep.write_json(FINAL, {key: {"r_mem": 0.9, "n_samples": 10_000, "n_memorized": 9000}})
    assert list(summarize(sweep).studies[0].finals) == [key]
    assert not summarize(sweep, 0.5).studies[0].finals


def test_the_prior_that_a_study_searched_with_is_of_the_k_of_its_sweep_alone(tmp_path):
    """Of two trials, one on each side of both EMMs, the shape that is believed decides much."""
    storage = Storage(str(tmp_path))
    storage.write_json(SWEEP, {"space": SPACE.model_dump(mode="json")})
    finished(storage, 10, 0)
    finished(storage, 160, 1)
    before = {k: summarize(storage, k).studies[0].verdict for k in (None, 0.5)}
    pooled = replace(base_prior(), slope=tuple(lognormal(SLOPES, 1, 0.2)))
    FrozenPriors(storage).freeze("width=8", pooled)
    after = {k: summarize(storage, k).studies[0].verdict for k in (None, 0.5)}
    assert after[None].sd > 1.1 * before[None].sd
    assert after[0.5] == before[0.5]


def test_what_is_not_kept_is_not_claimed(sweep):
    old = {"spurious": 0.1, "noisy_copier": 0.9, "r_mem_with_flips": 0.6}
    at_its_own_k = Snapshot(
        images_trained=60,
        loss=1.0,
        r_mem=0.7,
        n_samples=500,
        n_memorized=350,
        median_d1=30.0,
        seconds=1.0,
    )
    old["curve"] = [at_its_own_k]
    result = finished(sweep, 60, 20, r_mem_last=0.7, r_mem_half=0.6, right_censored=True, **old)
    assert result.curve == (at_its_own_k,)
    high, low = result_at(result, sweep, 0.5), result_at(result, sweep, 0.25)
    assert (high.complete, high.right_censored) == (True, True)
    assert (high.ceiling, high.r_mem_last, high.r_mem_half, high.curve) == (None, None, None, ())
    assert (high.noisy_copier, high.spurious, high.r_mem_with_flips) == (None, None, None)
    assert (high.null_rate, high.nn_distance) == (None, None), (
        "this trial is of a version that kept no controls"
    )
    assert (low.complete, low.right_censored) == (True, True)
    assert low.r_mem < 0.9 < high.r_mem, "a lower bound, on whichever side of the target"


def test_a_bound_below_the_target_is_shown_and_no_witness(sweep, capsys):
    """Accepted early at its own k; at the other one it may have come to pass, had it gone on."""
    early = finished(sweep, 30, 20, right_censored=True)
    at = result_at(early, sweep, 0.25)
    assert at.r_mem < 0.9 < early.r_mem
    study = summarize(sweep, 0.25).studies[0]
    (seen,) = [one for one in outcomes(study.results) if one.right_censored]
    assert (seen.n, seen.r_mem) == (30, at.r_mem)
    assert len(study.complete) == 9
    (row,) = [line for line in report(capsys, sweep.url, "--k", "1/4").splitlines() if ">=" in line]
    assert row.split()[:5] == ["30", "20", ">=", f"{at.r_mem:.3f}", "from"]


def test_a_sweep_at_another_k_has_its_own_target_and_its_running_trials(tmp_path):
    """.27 is below a target of .9, and above one of .2; what failed keeps its cause."""
    storage = Storage(str(tmp_path))
    space = fake_space((8,), n_low=8, n_high=400, target=0.2)
    storage.write_json(SWEEP, {"space": space.model_dump(mode="json")})
    finished(storage, 36, 0, right_censored=True)
    finished(storage, 60, 1, complete=False, r_mem=None, cause="out of memory")
    unfinished = finished(storage, 50, 2)
    trial_directory(storage, unfinished.training_key).delete(RESULT)
    record = TrialRecord.model_validate(dict(unfinished))
    trial_directory(storage, record.training_key).write(STARTED, record.model_dump_json().encode())
    for k in (None, 0.25):
        (study,) = summarize(storage, k).studies
        assert [r.complete for r in study.results] == [True, False]
        assert study.results[1].cause == "out of memory"
        assert [record.spec.n for record in study.running] == [50]
    assert 0.2 < study.results[0].r_mem < 0.5


def test_labels_are_judged_at_the_k_too(sweep):
    result = finished(sweep, 40, 20, own_label=0.5, r_mem_per_label={0: 0.1})
    storage = trial_directory(sweep, result.training_key)
    with np.load(storage.path(MEASUREMENT)) as kept:
        content = {**kept, "labels": np.arange(2000) % 40 % 2, "subset_labels": np.arange(40) % 2}
    with storage.writing(MEASUREMENT) as stream:
        np.savez(stream, **content)
    low, high = result_at(result, sweep, 0.25), result_at(result, sweep, 0.5)
    assert low.own_label == high.own_label == 1
    for at in (low, high):
        assert sum(at.r_mem_per_label.values()) / 2 == pytest.approx(at.r_mem)


def test_lost_distances_are_the_users_to_know(sweep):
    result = finished(sweep, 60, 20)
    trial_directory(sweep, result.training_key).delete(MEASUREMENT)
    with pytest.raises(UserError, match=r"has no measurement\.npz"):
        result_at(result, sweep, 0.5)
    (line,) = summarize(sweep, 0.5).damaged
    assert "has no measurement.npz" in line
    assert answer(summarize(sweep)).startswith("The EMM"), "it is as it was at its own k"
    for other in read_all(sweep).results:
        trial_directory(sweep, other.training_key).delete(MEASUREMENT)
    at_half = summarize(sweep, 0.5)
    count = len(at_half.damaged)
    assert count > 1
    assert answer(at_half) == (
        f"Nothing is known: no finished trial can be read ({count} passed over)."
    )


@pytest.mark.parametrize("text", ["0", "1", "-1/3", "3/2", "third", "1/0", "", "nan", "1e999"])
def test_a_k_that_is_none(text):
    with pytest.raises(UserError, match="between 0 and 1"):
        parse_k(text)


def test_a_fraction_is_exact():
    assert (parse_k("1/3"), parse_k("0.5"), parse_k(" 2/7 ")) == (1 / 3, 0.5, 2 / 7)

"""Optuna around the search: resumed at every point, with running and failed trials, from several
processes."""

from __future__ import annotations

import json
import math
import multiprocessing
from dataclasses import asdict, replace

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from scipy.special import expit, logit

from sweep.search.belief import NOISES, Observation, base_prior, belief, lognormal
from sweep.search.rules import Options, judge, propose
from sweep.search.sampler import (
    OPTIONS_KEY,
    EmmSampler,
    observations_of,
    stop_when_decided,
    study_verdict,
)
from tests.search.curves import HIGH, LOW, curve, search

optuna.logging.set_verbosity(optuna.logging.ERROR)


def ask_and_tell(study, r_mem, low=LOW, high=HIGH):
    trial = study.ask()
    n = trial.suggest_int("n", low, high, log=True)
    trial.set_user_attr("n_samples", 2000)
    study.tell(trial, r_mem(n, trial.number))
    return n


@pytest.fixture(params=["memory", "sqlite", "journal"])
def storage(request, tmp_path):
    if request.param == "memory":
        return optuna.storages.InMemoryStorage()
    return open_storage(request.param, tmp_path)


def open_storage(kind, path):
    if kind == "sqlite":
        return RDBStorage(f"sqlite:///{path}/optuna.db")
    return JournalStorage(JournalFileBackend(str(path / "optuna.log")))


def create(storage=None, **options):
    sampler = EmmSampler(**{"low": LOW, "high": HIGH, **options})
    return optuna.create_study(
        study_name="s", direction="maximize", storage=storage, sampler=sampler, load_if_exists=True
    )


def test_the_example_of_the_interface():
    train_and_measure = curve(2000)
    study = optuna.create_study(
        direction="maximize",
        sampler=EmmSampler(low=100, high=40_000, target=0.9, precision=0.12, max_trials=24),
    )
    while (verdict := study_verdict(study)).state == "searching":
        trial = study.ask()
        n = trial.suggest_int("n", 100, 40_000, log=True)
        r_mem, n_samples = train_and_measure(n, seed=trial.number), 2000
        trial.set_user_attr("n_samples", n_samples)
        study.tell(trial, r_mem)
    assert verdict.state == "found"
    assert verdict.emm_low < 2000 < verdict.emm_high
    assert verdict.emm_low < verdict.emm < verdict.emm_high


def test_optimize_with_callback():
    r_mem, study = curve(2000), create()

    def objective(trial):
        return r_mem(trial.suggest_int("n", LOW, HIGH, log=True), trial.number)

    study.optimize(objective, n_trials=50, callbacks=[stop_when_decided])
    assert study_verdict(study).state == "found"
    assert len(study.trials) < 15


def test_resumes_at_every_prefix(storage):
    reference = create()
    while study_verdict(reference).state == "searching":
        ask_and_tell(reference, curve(2000))
    for expected in reference.trials:
        study = create(storage)  # a fresh study object and a fresh sampler for every trial
        assert study_verdict(study).state == "searching"
        assert ask_and_tell(study, curve(2000)) == expected.params["n"]
    loaded = optuna.load_study(study_name="s", storage=storage)  # with Optuna's own sampler
    assert study_verdict(loaded) == study_verdict(reference)
    assert study_verdict(loaded, precision=0.001).state == "searching"
    quiet = replace(base_prior(), noise=tuple(lognormal(NOISES, 0.06, 0.1)))
    finished = observations_of(reference.trials)
    believed = belief(finished, LOW, HIGH, prior=quiet)
    assert study_verdict(loaded, prior=quiet).sd == believed.sd < study_verdict(loaded).sd


def test_empty_study():
    for study in (create(), optuna.create_study()):
        verdict = study_verdict(study)
        assert (verdict.state, verdict.emm, verdict.n_trials) == ("searching", None, 0)


def test_running_trials_are_pending():
    study = create()
    asked = [study.ask() for _ in range(4)]
    assert (
        len({t.suggest_int("n", LOW, HIGH, log=True) for t in asked[::-1]}) == 4
    )  # N stored in the wrong order


def test_failed_trials_say_nothing_but_end_a_study():
    study = create()
    for _ in range(2):
        ask_and_tell(study, curve(2000))
    before = study_verdict(study)
    asked = []
    for _ in range(3):
        assert study_verdict(study) == before
        trial = study.ask()
        asked.append(trial.suggest_int("n", LOW, HIGH, log=True))
        trial.set_user_attr("cause", "out of memory")
        study.tell(trial, state=TrialState.FAIL)
    assert len(set(asked)) == 1
    verdict = study_verdict(study)
    assert verdict.state == "unresolved"
    assert "out of memory" in verdict.reason
    assert verdict.emm == before.emm


@pytest.mark.parametrize(
    ("states", "verdict"),
    [("fcffcf", "unresolved"), ("fcfcfc", "searching"), ("cfcfcfcfff", "unresolved")],
)
def test_failing_more_often_than_finishing_or_thrice_in_a_row_ends_a_study(states, verdict):
    study = create()
    for state in states:
        if state == "c":
            ask_and_tell(study, curve(2000))
        else:
            trial = study.ask()
            trial.suggest_int("n", LOW, HIGH, log=True)
            study.tell(trial, state=TrialState.FAIL)
    assert study_verdict(study).state == verdict


def test_pruned_trials_and_trials_without_n_are_ignored():
    study = create()
    ask_and_tell(study, curve(2000))
    before = study_verdict(study)
    for _ in range(3):  # of failures so many would end the study
        pruned = study.ask()
        pruned.suggest_int("n", LOW, HIGH, log=True)
        study.tell(pruned, state=TrialState.PRUNED)
        study.tell(study.ask(), state=TrialState.FAIL)
    assert study_verdict(study) == before


def test_user_attributes_reach_the_belief():
    def verdict(**attrs):
        study = create()
        for r_mem in (1.0, 0.93):
            trial = study.ask()
            trial.suggest_int("n", LOW, HIGH, log=True)
            for name, value in attrs.items():
                trial.set_user_attr(name, value)
            study.tell(trial, r_mem)
        return study_verdict(study)

    assert verdict() == verdict(n_samples=2000)
    assert verdict(n_samples=30).sd != verdict().sd
    assert verdict(right_censored=True).emm > verdict().emm


def test_enqueued_trials_count():
    study = create()
    study.enqueue_trial({"n": 900})
    assert ask_and_tell(study, curve(2000)) == 900
    (trial,) = observations_of(study.trials)
    assert ask_and_tell(study, curve(2000)) == propose([trial], [], Options(LOW, HIGH))


@pytest.mark.parametrize(
    "other", [{"low": 50}, {"high": 99}, {"target": 0.5}, {"cost": "constant"}, {"start": 200}]
)
def test_a_differing_sampler_is_refused(other):
    study = create(high=50_000)
    ask_and_tell(study, curve(2000), high=50_000)
    study.sampler = EmmSampler(
        **{"low": LOW, "high": 50_000, **({"high": 9999} if "high" in other else other)}
    )
    with pytest.raises(ValueError, match=rf"searches with {next(iter(other))}="):
        study.ask()
    assert study_verdict(study).state == "searching"
    study.sampler = EmmSampler(LOW, 50_000)
    finished, options = observations_of(study.trials), Options(LOW, 50_000)
    n = propose(finished, [], options)
    assert n != propose(finished, [n], options)
    assert ask_and_tell(study, curve(2000), high=50_000) == n, "the refused trial is not pending"


def test_precision_and_cap_may_change():
    study = create()
    while study_verdict(study).state == "searching":
        ask_and_tell(study, curve(2000))
    count = len(study.trials)
    study.sampler = EmmSampler(LOW, HIGH, precision=0.01, max_trials=count + 2)
    ask_and_tell(study, curve(2000))
    assert study_verdict(study).state == "searching"
    ask_and_tell(study, curve(2000))
    assert study_verdict(study).state == "unresolved"


def test_the_prior_stays_as_it_was():
    """Whatever prior a later sampler brings; and a study of old, with weights on slopes from 0.8 on
    alone, goes on."""
    study = create()
    ask_and_tell(study, curve(2000))
    written = study.user_attrs[OPTIONS_KEY]
    study.sampler = EmmSampler(
        LOW, HIGH, precision=0.1, prior=replace(base_prior(), curve=(1.0, 0.0, 0.0))
    )
    ask_and_tell(study, curve(2000))
    assert study.user_attrs[OPTIONS_KEY] == {**written, "precision": 0.1}
    of_old = lognormal(np.geomspace(0.8, 32, 21), 5, 0.4)
    study.set_user_attr(
        OPTIONS_KEY, {**written, "prior": {**asdict(base_prior()), "slope": list(of_old)}}
    )
    ask_and_tell(study, curve(2000))
    assert study_verdict(study).n_trials == 3
    np.testing.assert_array_equal(
        study.user_attrs[OPTIONS_KEY]["prior"]["slope"], [0] * 6 + list(of_old)
    )


@pytest.mark.parametrize(
    ("name", "low", "high"), [("n", LOW, 30_000), ("n", 50, HIGH), ("m", LOW, HIGH)]
)
def test_suggest_must_ask_for_n_in_the_range(name, low, high):
    with pytest.raises(ValueError, match=r"suggest_int asks for n|alone"):
        create().ask().suggest_int(name, low, high, log=True)


@pytest.mark.parametrize(
    "bad",
    [
        {"low": 0},
        {"high": LOW},
        {"high": 1e4},
        {"target": 1.0},
        {"precision": 0},
        {"max_trials": 0},
        {"cost": "time"},
        {"start": 50},
    ],
)
def test_refuses_senseless_options(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        EmmSampler(**{"low": LOW, "high": HIGH, **bad})


def test_arguments_may_be_given_by_place_and_a_wrong_one_names_the_sampler():
    sampler = EmmSampler(LOW, HIGH, 0.5, 0.2, 9, "constant", 200, None, True, 2)
    assert sampler.options == Options(
        LOW, HIGH, 0.5, 0.2, 9, "constant", 200, base_prior(), True, 2
    )
    with pytest.raises(TypeError, match=r"EmmSampler.*'precison'"):
        EmmSampler(LOW, HIGH, precison=0.2)


def test_no_argument_but_the_range_means_what_the_options_mean_by_it():
    assert EmmSampler(LOW, HIGH).options == Options(LOW, HIGH)


def test_a_study_without_range_is_refused():
    study = optuna.create_study()
    trial = study.ask({"n": optuna.distributions.IntDistribution(1, 9)})
    study.tell(trial, 0.5)
    with pytest.raises(ValueError, match="EmmSampler"):
        study_verdict(study)


def _work(kind, path, barrier, queue):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, r_mem = create(open_storage(kind, path)), curve(2000)
    for _ in range(4):
        barrier.wait(30)
        trial = study.ask()
        n = trial.suggest_int("n", LOW, HIGH, log=True)
        queue.put((trial.number, n))
        barrier.wait(30)  # both run at the same time
        study.tell(trial, r_mem(n, trial.number))


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_processes_share_a_study(kind, tmp_path):
    create(open_storage(kind, tmp_path))
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_work, args=(kind, tmp_path, barrier, queue)) for _ in range(2)
    ]
    for p in processes:
        p.start()
    asked = sorted(queue.get(timeout=40) for _ in range(8))
    for p in processes:
        p.join(20)
        assert p.exitcode == 0
    assert [number for number, _ in asked] == list(range(8))
    for i in range(0, 8, 2):
        assert asked[i][1] != asked[i + 1][1]


def test_other_targets_are_sought_after_the_own_one():
    """A logistic curve of slope 4: .5 is crossed at 1.73 × EMM, .1 at 3 × EMM; without being asked
    for, they are not."""
    emm, low, high = 1000, 100, 40_000
    alone, own = search(curve(emm), Options(low, high))
    finished, verdict = search(curve(emm), Options(low, high, targets=(0.5, 0.1)))
    assert finished[: len(alone)] == alone
    assert verdict.state == "found"
    assert len(finished) <= len(alone) + 12
    for target, crossing in ((0.9, emm), (0.5, emm * 9 ** (1 / 4)), (0.1, emm * 81 ** (1 / 4))):
        there = judge(finished, Options(low, high, target=target))
        assert there.state == "found", target
        assert there.emm_low < crossing < there.emm_high
    assert judge(alone, Options(low, high, target=0.1)).state == "searching"
    still = judge(alone, Options(low, high, targets=(0.5, 0.1)))
    assert (still.state, still.emm) == ("searching", own.emm)
    assert still.reason.startswith("at target 0.5: ")


def test_a_hard_target_leaves_the_others_their_trials():
    """Not decided at .9, where seeds differ by 2 on the logit; at .5, 10 times farther on, they
    agree."""
    rng = np.random.default_rng(2)
    options = Options(100, 40_000, max_trials=8, targets=(0.5,), cost="constant")
    finished: list[Observation] = []
    while judge(finished, options).state == "searching":
        n = propose(finished, [], options)
        x = math.log(n / 1000)
        level = logit(0.9) * (1 - x / math.log(10) if x > 0 else 1) - 1.5 * min(x, 0)
        r = expit(level + (2 if x < 1 else 0.05) * rng.standard_normal())
        finished.append(Observation(n, round(1000 * r) / 1000, 1000))
    assert judge(finished, options.own).state == "unresolved"
    assert judge(finished[:8], options.at(0.5)).state == "searching"
    assert min(trial.n for trial in finished[8:14]) > 10_000
    assert judge(finished[:14], options.at(0.5)).state == "found"
    assert max(trial.n for trial in finished[14:]) < 2000, "what the other has left"
    assert len(finished) == options.cap
    assert 9500 < judge(finished, options.at(0.5)).emm < 10_500


def test_other_targets_have_as_many_trials_more():
    options = Options(LOW, HIGH, targets=(0.5, 0.1), max_trials=3, replicates=2)
    assert options.cap == 18
    assert options.own.cap == options.at(0.5).cap == 18
    assert options.at(0.5).targets == ()
    values = json.loads(json.dumps(asdict(options)))
    assert Options.from_json(values) == options
    del values["targets"]  # of an older study
    assert Options.from_json(values) == replace(options, targets=())
    for wrong in (0, 1.0, -0.5):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            Options(LOW, HIGH, targets=(0.5, wrong))

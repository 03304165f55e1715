"""Verdicts straight from results: those that Optuna's studies give, a sweep of an older version."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from search_spaces.space import MAY_CHANGE, Search
from sweep.analysis.study import options_of
from sweep.analysis.summary import summarize, summary_of
from sweep.run.studies import Studies, Ticket
from sweep.search.belief import base_prior
from sweep.search.rules import Options
from sweep.store.files import by_seed, read_keys, read_space, read_trials
from sweep.store.priors import FrozenPriors
from tests.fakes import fake_space
from tests.results import write_trial
from trainables.data.sources import load
from trainables.storage import Storage

OLD = Path(__file__).parents[1] / "store" / "old_sweep"
WIDTHS = tuple(range(4, 100, 4))


@pytest.mark.parametrize("more", [{}, {"guard": True}, {"replicates": 2}, {"max_trials": 8}])
def test_they_are_those_of_optuna(tmp_path, more):
    """24 studies of 8 trials each, at random sizes, every fifth of which failed; of the others some
    are of few images, and some were accepted early."""
    space, storage = fake_space(WIDTHS, **more), Storage(str(tmp_path))
    data, rng, results = load(space.base.data), np.random.default_rng(7), []
    for named in space.configurations:
        for seed in range(8):
            n = int(np.exp(rng.uniform(np.log(4), np.log(400))))
            failure = {"complete": False, "r_mem": None, "cause": "by chance"}
            fields_of = failure if rng.random() < 0.2 else {}
            if not fields_of:
                few, accepted = rng.random(2) < 0.3
                fields_of = {"n_samples": 50 if few else 2000, "right_censored": bool(accepted)}
                fields_of["n_memorized"] = 0
            results.append(write_trial(storage, space, named, data, n, seed, **fields_of))
    studies = Studies(space)
    studies.reconcile(results, [])
    verdicts = {study.name: study.verdict for study in summary_of(space, results, []).studies}
    assert len(verdicts) == 24
    for name, verdict in verdicts.items():
        theirs = studies.verdict(name)
        assert verdict.state == theirs.state
        if verdict.state == "found":  # reported under another prior
            verdict = replace(
                verdict,
                emm=theirs.emm,
                emm_low=theirs.emm_low,
                emm_high=theirs.emm_high,
                sd=theirs.sd,
            )
        assert verdict == theirs


def test_of_two_results_with_one_seed_the_one_that_came_first_counts(tmp_path):
    """Not the one whose key happens to be the smaller."""
    space, data = fake_space((8,)), load(fake_space().base.data)
    for first, second in ((12, 30), (30, 12)):
        storage = Storage(str(tmp_path / str(first)))
        for n, hour in ((first, 8), (second, 9)):
            at = f"2026-01-01T0{hour}:00:00+00:00"
            write_trial(storage, space, space.configurations[0], data, n, 0, finished_at=at)
        results = read_trials(storage, space, {}).results
        assert [trial.spec.n for trial in by_seed(results).values()] == [first]


def test_a_sweep_of_an_older_version_is_read_as_it_was():
    """What the version that made it said of it stands beside it, and is said still, but for what
    follows from the search of today: the intervals of a study's trials alone, and what one that goes on
    waits for. Of what is measured since then nothing is known."""
    said = json.loads((OLD / "report.json").read_text())
    now = summarize(Storage(str(OLD))).as_json()
    for study in said["configurations"] + now["configurations"]:
        del study["alone_low"], study["alone_high"]
        if study["verdict"] == "searching":
            del study["reason"]
    assert of_these(now, said) == near(said)
    studies = now["configurations"]
    trials = [trial for study in studies for trial in study["trials"]]
    assert {trial["authentic"] for trial in trials if trial["state"] == "complete"} == {None}
    assert {study["isolation"] for study in studies} == {None}


def of_these(said, names):
    """What is `said` under the `names` of an older report, at every depth."""
    if isinstance(names, dict):
        return {name: of_these(said[name], names[name]) for name in names}
    if isinstance(names, list):
        return [of_these(one, other) for one, other in zip(said, names, strict=True)]
    return said


def near(said):
    """Equal to what differs by the rounding of another processor or NumPy."""
    if isinstance(said, dict):
        return {name: near(one) for name, one in said.items()}
    if isinstance(said, list):
        return [near(one) for one in said]
    return pytest.approx(said, rel=1e-9) if isinstance(said, float) else said


def test_a_sweep_of_an_older_version_goes_on():
    """One of its trials has no result yet, and is not asked for again; its studies go on with the
    priors that they began with, by the rules of today."""
    storage = Storage(str(OLD))
    space, keys = read_space(storage), read_keys(storage)
    results, started, damaged = read_trials(storage, space, keys)
    assert not damaged
    studies = Studies(space, priors=FrozenPriors(storage, keys))
    assert studies.reconcile(results, started) == [Ticket("width=8,lr=0.02", 3, 17)]
    searching = [n for n in studies.configurations if studies.verdict(n).state == "searching"]
    asked = [studies.ask(name) for name in searching]
    assert asked == [Ticket("width=4,lr=0.02", 6, 6), Ticket("width=8,lr=0.02", 4, 15)]


def test_a_search_says_itself_what_may_change():
    """Both where a space is described and where a study of Optuna's is loaded."""
    of_space = {
        name
        for name, field in Search.model_fields.items()
        if field.json_schema_extra == MAY_CHANGE and name != "final_samples"  # of no study
    }
    assert of_space == {field.name for field in fields(Options) if field.metadata}
    assert of_space == {"precision", "max_trials", "guard", "replicates", "targets"}


def test_options_are_those_of_the_space():
    search = Search(
        n_low=5, n_high=90, target=0.7, precision=0.2, guard=True, replicates=3, max_trials=7
    )
    options = Options.of(search, cost="constant", prior=base_prior())
    expected = Options(5, 90, 0.7, 0.2, max_trials=7, cost="constant", guard=True, replicates=3)
    assert options == expected


@pytest.mark.parametrize(("clock", "cost"), [("epochs", "images"), ("steps", "constant")])
def test_a_trial_costs_its_images_at_fixed_epochs_and_the_same_at_fixed_steps(clock, cost):
    (named,) = fake_space((8,)).with_settings({"trainer.clock": clock}).configurations
    assert options_of(fake_space().search, named, base_prior()).cost == cost


def test_failures_are_in_a_row_by_their_seeds_whatever_order_results_come_in():
    """Three failed of eight, the last three of all; and, of others, three before five."""
    space = fake_space((8,))
    (named,) = space.configurations
    data = load(space.base.data)
    for failed, state in ((range(5, 8), "unresolved"), (range(3), "searching")):
        storage = Storage(f"memory://bucket/{state}")
        failure = {"complete": False, "r_mem": None, "cause": "by chance"}
        results = [
            write_trial(storage, space, named, data, 6, seed, **(failure if seed in failed else {}))
            for seed in (7, 2, 5, 0, 3, 6, 1, 4)
        ]
        (study,) = summary_of(space, results, []).studies
        assert study.verdict.state == state

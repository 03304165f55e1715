"""`--retry-failed`: which failed trials are tried again, and where they go on."""

import pytest
import torch

from search_spaces.space import Search, SearchSpace
from sweep.run.retry import reopen_failed
from sweep.run.studies import Studies
from tests.fakes import fake_space
from tests.results import write_trial
from tests.trials import SPEC, assert_same_trial, finish, start
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.errors import TrialFailed
from trainables.storage import Storage
from trainables.trial import checkpoint
from trainables.trial.result import FAILED, Result, read_all

NAMED = SPEC.model_copy(update={"name": "width=4"})
SPACE = SearchSpace(
    name="tiny",
    question="Does it go on?",
    source="a test",
    expectation="it does",
    cost="seconds",
    base=SPEC.configuration,
    vary={"network.width": (4,)},
    search=Search(n_low=4, n_high=20),
    measurement=SPEC.measurement,
)


@pytest.mark.parametrize("snapshots_before", [0, 2])
def test_it_goes_on_from_the_newest_checkpoint_to_the_same_end(tmp_path, caplog, snapshots_before):
    undisturbed, sweep = Storage(str(tmp_path / "a")), Storage(str(tmp_path / "b"))
    finish(start(undisturbed, NAMED))
    failing = start(sweep, NAMED)
    while len(failing.curve) < snapshots_before:
        failing.step()

    def fail(*_):
        raise torch.OutOfMemoryError("too much")

    failing.training.trainer.batch_loss = fail
    with pytest.raises(TrialFailed):
        failing.step()
    assert len(checkpoint.names(failing.files.storage)) == min(1, snapshots_before), (
        "but the newest, none is kept"
    )
    (reopened,) = reopen_failed(sweep, SPACE)
    assert read_all(sweep) == ([], [failing.files.record], [])
    assert reopen_failed(sweep, SPACE) == [], "it did not fail any more"
    again = start(sweep, NAMED)
    assert len(again.curve) == snapshots_before
    finish(again)
    kept = Result.model_validate_json(again.files.storage.read(FAILED))
    assert "too much" in kept.cause
    assert kept == reopened
    again.files.storage.delete(FAILED)
    assert_same_trial(sweep, undisturbed)


def test_only_studies_without_an_answer_and_with_the_same_numbers(tmp_path):
    """width=8 was found although one of its trials failed; width=16 gave up."""
    data, space = load(Digits()), fake_space()
    storage, url = Storage(str(tmp_path)), f"sqlite:///{tmp_path / 'optuna.db'}"
    found, given_up = space.configurations
    failure = {"complete": False, "r_mem": None, "cause": "out of memory"}
    for seed in range(12):
        write_trial(
            storage,
            space,
            found,
            data,
            [12, 14, 16, 18, 20][seed % 5],
            seed,
            **(failure if seed == 3 else {}),
        )
    for seed in range(5):
        write_trial(storage, space, given_up, data, 20 + seed, seed, **failure)
    before = read_all(storage)[0]
    studies = Studies(space, url)
    studies.reconcile(before, [])
    assert [studies.verdict(name).state for name in studies.configurations] == [
        "found",
        "unresolved",
    ]
    reopened = reopen_failed(storage, space)
    assert [(result.spec.name, result.spec.seed) for result in reopened] == [
        ("width=16", seed) for seed in range(5)
    ]
    results, started, _ = read_all(storage)
    assert results == [result for result in before if result not in reopened]
    tickets = Studies(space, url).reconcile(results, started)
    assert [(ticket.study, ticket.number, ticket.n) for ticket in tickets] == [
        ("width=16", i, 20 + i) for i in range(5)
    ]

"""A trial that fails says why, and waits for a storage that does."""

import re
from traceback import format_exception
from types import SimpleNamespace

import pytest
import torch

from tests.trials import CPU, DATA, OPTIMUM, SPEC, files, finish, not_built, start
from trainables.config.fields import with_fields
from trainables.data.sources import data_key
from trainables.errors import TrialFailed, UserError
from trainables.training.build import build_trainer
from trainables.trial import ray_trainable
from trainables.trial.ray_trainable import EmmTrainable
from trainables.trial.result import read_all


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
            r"^out of memory; lower trainer\.micro_batch .*Tried\)$",
        ),
        (MemoryError(), "^out of memory"),
        (ZeroDivisionError("a bug in a network"), "^ZeroDivisionError: a bug in a network$"),
        (
            FileNotFoundError(2, "No such file", "w.pt"),
            "^FileNotFoundError: .*w.pt",
        ),  # of the user's: no outage of the storage
        (SystemExit(3), "^SystemExit: 3$"),  # of the user's: no end of the trial's process
        (TrialFailed("a cause"), "^a cause$"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"),
            "^out of memory.*can't allocate",
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_failure_is_recorded_with_its_cause(sweep, quiet, raised, cause):
    running = start(sweep)
    while len(running.curve) < 2:
        running.step()

    def fail(*_):
        raise raised

    running.training.trainer.batch_loss = fail
    with pytest.raises(TrialFailed, match=cause):
        running.step()
    result = read_all(sweep)[0][0]
    assert running.result == result
    assert not result.complete
    assert re.search(cause, result.cause)
    assert (result.r_mem, result.images_trained, len(result.curve)) == (None, 24, 2)
    assert running.step()["state"] == "failed"
    before = files(sweep)
    again = start(sweep, build=not_built)
    expected = {"state": "failed", "progress": 1.0, "images_trained": 24, "seconds": 0.0}
    assert again.step() == expected
    assert files(sweep) == before, "it is not tried again"


def test_a_learning_rate_that_blows_up_fails_the_trial(sweep):
    running = start(sweep, with_fields(SPEC, {"configuration.trainer.lr": 1e30}))
    with pytest.raises(TrialFailed, match="not finite"):
        finish(running)
    result = read_all(sweep)[0][0]
    assert not result.complete
    assert "try a lower trainer.lr" in result.cause


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (TrialFailed("no such arithmetic"), "no such arithmetic"),
        (RuntimeError("too large"), "too large"),
        (FileNotFoundError(2, "No such file", "w.pt"), "w.pt"),
    ],
)
def test_a_network_that_cannot_be_built_is_a_failure(sweep, quiet, raised, cause):
    """It is recorded, and raised: nobody gets a trial that is half built."""

    def fail(*_):
        raise raised

    with pytest.raises(TrialFailed, match=cause):
        start(sweep, build=fail)
    result = read_all(sweep)[0][0]
    assert cause in result.cause
    assert (result.complete, result.images_trained, result.curve) == (False, 0, ())
    assert start(sweep, build=not_built).report()["state"] == "failed", "it is not tried again"


def test_a_worker_is_told_that_a_trial_could_not_be_built(sweep, quiet):
    """Also where an earlier measurement of it is complete, which stays; and one that needs no
    building is not told so."""
    missing = {
        "configuration.trainer.kind": "custom",
        "configuration.trainer.builder": "no_such_module:trainer",
    }
    spec = with_fields(SPEC, missing)

    def ours(configuration, *others):
        return build_trainer(SPEC.configuration, *others)

    finish(start(sweep, spec, build=ours))
    (before,) = read_all(sweep)[0]
    assert worker(sweep, spec).step()["state"] == "complete"
    again = worker(sweep, with_fields(spec, {"measurement.n_samples": 11}))
    with pytest.raises(TrialFailed, match="no_such_module can't be imported"):
        again.step()
    assert again.trial is None
    assert read_all(sweep)[0] == [before]


def worker(sweep, spec):
    """What Ray makes, without Ray."""
    made = object.__new__(EmmTrainable)
    made.data, made.storage = {data_key(spec.configuration.data): DATA}, sweep
    made.trial, made.note, made.preempted = None, {}, False
    made.device, made.team = CPU, None
    made._begin({"spec": spec.model_dump_json()})
    return made


def test_what_a_network_raises_has_no_secret_where_it_is_seen(sweep, quiet):
    """Neither in its result nor in what Ray and Tune write of it."""

    def fail(*_):
        raise RuntimeError("no answer from https://me:hush@host/x?token=hush")

    made = worker(sweep, SPEC)
    made.step()
    made.trial.training.trainer.batch_loss = fail
    with pytest.raises(TrialFailed, match="no answer from https://…@host") as raised:
        made.step()
    assert "in fail" in str(raised.value), "where it was raised is told as well"
    assert "hush" not in "".join(format_exception(raised.value))
    assert read_all(sweep)[0][0].cause.endswith("no answer from https://…@host/x?token=…")


def test_every_outage_of_the_storage_has_the_whole_patience(sweep, monkeypatch, quiet):
    """Two short ones, hours apart, are not one long one."""

    def away():
        raise OSError("away")

    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=lambda seconds: None)
    made = worker(sweep, SPEC)
    made.preempted = True  # so that it does not sleep between two attempts
    monkeypatch.setattr(ray_trainable, "time", clock)
    for _ in range(2):
        made._advance()
        assert made.pause == 1, "as after none"
        now += 2 * ray_trainable.PATIENCE_SECONDS
        with monkeypatch.context() as patched:
            patched.setattr(made.trial, "step", away)
            assert "waits for the storage (OSError: away)" in made._advance()["note"]
            now += ray_trainable.PATIENCE_SECONDS
            assert "waits for the storage" in made._advance()["note"]
    now += 1
    monkeypatch.setattr(made.trial, "step", away)
    with pytest.raises(OSError, match="away"):
        made._advance()


def test_the_storage_is_tried_again_less_and_less_often(sweep, monkeypatch, quiet):
    def away():
        raise OSError("away")

    made, pauses = worker(sweep, SPEC), []
    made._advance()
    monkeypatch.setattr(made.trial, "step", away)
    made.preempted = True  # so that it does not sleep between two attempts
    for _ in range(9):
        pauses.append(made.pause)
        made._advance()
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("cpus", "threads"), [(3.0, 3), (2.9, 2), (0.5, 1), (None, 1)])
def test_a_trial_has_as_many_threads_as_cpus(sweep, monkeypatch, cpus, threads):
    """Those that Ray gives it; and it says so if it was given a GPU that torch does not find."""
    assigned = {"GPU": 1.0} | ({} if cpus is None else {"CPU": cpus})
    context = SimpleNamespace(get_assigned_resources=lambda: assigned)
    monkeypatch.setattr(ray_trainable.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray_trainable.signal, "signal", lambda *_: None)
    made, before = object.__new__(EmmTrainable), torch.get_num_threads()
    try:
        made.setup({"spec": SPEC.model_dump_json()}, {}, sweep)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert bool(made.note) is not torch.cuda.is_available()


def test_more_images_than_there_are_is_the_users_mistake(sweep):
    with pytest.raises(UserError, match="N=21 is more than the 20 images of test"):
        start(sweep, with_fields(SPEC, {"n": 21}))
    assert not sweep.exists(), "and leaves nothing behind"
    finish(start(sweep, with_fields(OPTIMUM, {"n": 20})))

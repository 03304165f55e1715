"""A trial that is told to leave, and one whose disk is full: both go on to the same numbers."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.trials import assert_same_trial, finish, start
from trainables.storage import Storage
from trainables.trial import checkpoint
from trainables.trial.result import trial_directory


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    sweep = Storage(str(tmp_path_factory.mktemp("undisturbed")))
    finish(start(sweep))
    return sweep


@pytest.fixture
def sweep(tmp_path):
    return Storage(str(tmp_path / "sweep"))


@pytest.mark.parametrize("step", [1, 2, 5, 11])
def test_an_interrupted_trial_keeps_every_step_it_took(undisturbed, sweep, step):
    """Interrupted as by a signal, in the middle of a step of the optimizer; the slice would be all
    that is left."""
    first, begun = start(sweep), []
    trainer = first.training.trainer
    loss = trainer.batch_loss

    def interrupted(*batch):
        begun.append(trainer.position)
        if len(begun) == step:
            first.interrupt()
        return loss(*batch)

    trainer.batch_loss = interrupted
    while len(begun) < step:
        first.step()
    first.keep()
    second = start(sweep)
    assert second.training.trainer.position == begun[-1] + 4 == 4 * step
    finish(second)
    assert_same_trial(sweep, undisturbed)


def test_nothing_is_kept_twice_or_of_a_finished_trial(sweep):
    trial = start(sweep)
    storage = trial.files.storage
    trial.keep()
    assert checkpoint.names(storage) == [], "nothing was trained"
    trial.step()
    trial.keep()
    (name,) = checkpoint.names(storage)
    before = storage.filesystem.get_file_info(storage.path(name)).mtime
    trial.keep()
    assert storage.filesystem.get_file_info(storage.path(name)).mtime == before
    finish(trial)
    trial.interrupt()
    trial.keep()
    assert checkpoint.names(storage) == []


@contextmanager
def full_disk(n_bytes):
    """No file of this process may grow beyond so many bytes; writing then fails as on a full
    disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 2_000, 20_000])
def test_a_disk_that_is_full_at_a_checkpoint_loses_nothing(undisturbed, sweep, room):
    trial = start(sweep)
    storage = trial.files.storage
    while not checkpoint.names(storage):
        trial.step()
    before = {name: storage.read(name) for name in storage.list()}
    largest = max(len(content) for content in before.values())
    assert room < largest, "else the disk would not be full"
    with full_disk(room), pytest.raises(OSError, match="File too large"):
        finish(trial)
    assert {name: storage.read(name) for name in storage.list()} == before
    assert not list(Path(sweep.root).rglob("*.part"))
    finish(start(sweep))
    assert_same_trial(sweep, undisturbed)


def test_a_full_disk_at_the_end_leaves_no_result(undisturbed, sweep):
    trial = start(sweep)
    while trial.samples is None or len(trial.samples.images) < 3:
        trial.step()
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        trial.step()
    assert trial_directory(sweep, trial.files.record.training_key).read("result.json") is None
    finish(start(sweep))
    assert_same_trial(sweep, undisturbed)

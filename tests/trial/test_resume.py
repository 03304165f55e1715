"""A trial that was interrupted ends as if it had not been."""

import pytest

from tests.trials import DATA, SPEC, Untrained, assert_same, assert_same_trial, built, finish, start
from trainables.config.fields import with_fields
from trainables.storage import Storage
from trainables.trial import checkpoint
from trainables.trial.trial import Pace


def interrupted(sweep, pattern, pace):
    """Runs a trial that is thrown away after each number of steps in `pattern`, and then to its
    end."""
    for steps in pattern:
        running = start(sweep, pace=pace)
        for _ in range(steps):
            running.step()
    running = start(sweep, pace=pace)
    return running, finish(running)[1]


@pytest.mark.parametrize(
    ("slice_seconds", "pattern"),
    [
        *((8.0, pattern) for pattern in [(1,), (2,), (4, 3), (6, 2, 1), (8,), (9,), (30,)]),
        *((0.0, pattern) for pattern in [(2,), (4,), (7, 3), (14,)]),
        (0.02, (3, 3)),
    ],
)
def test_resumed_equals_uninterrupted(whole, sweep, slice_seconds, pattern):
    """Bit for bit: curve, weights, average, optimizer, samples; whatever the slices, also amid the
    final measurement."""
    undisturbed, _, trained = whole
    running, resumed = interrupted(sweep, pattern, Pace(slice_seconds))
    assert running.result.complete
    if resumed is not None:
        assert_same(resumed, trained)
    assert_same_trial(undisturbed, sweep)


def test_resumed_after_every_single_step(whole, sweep):
    """With a checkpoint after each slice of one step, so that it goes on between snapshots, too."""
    undisturbed, _, trained = whole
    pace, positions = Pace(slice_seconds=0, checkpoint_seconds=-1), []
    while (running := start(sweep, pace=pace)).report()["state"] == "training":
        positions.append(running.step()["images_trained"])
    assert positions == [4 * step for step in range(1, 13)]
    assert_same(finish(running)[1], trained)
    assert_same_trial(undisturbed, sweep)


def test_a_damaged_checkpoint_costs_time_only(whole, sweep):
    undisturbed, _, _ = whole
    running = start(sweep)
    while len(running.curve) < 3:
        running.step()
    storage = running.files.storage
    newest = checkpoint.names(storage)[-1]
    storage.write(newest, storage.read(newest)[:-100])
    again = start(sweep)
    assert len(again.curve) == 2
    finish(again)
    assert_same_trial(undisturbed, sweep)


def test_storage_that_fails_at_every_file(whole, sweep, monkeypatch):
    """An error of the storage is raised, is not the trial's failure, and the next step tries
    again."""
    undisturbed, _, _ = whole
    running = start(sweep)
    write, tried = Storage.writing, []

    def flaky(self, name, mode=0o666):
        tried.append(name)
        if tried.count(name) == 1:
            raise OSError("no space left on device")
        return write(self, name, mode)

    monkeypatch.setattr(Storage, "writing", flaky)
    errors = 0
    while running.result is None:
        try:
            running.step()
        except OSError:
            errors += 1
            assert running.report()["state"] in ("training", "measuring")
    assert errors == 4 + 3, "four checkpoints, weights, measurement, result"
    monkeypatch.undo()
    assert_same_trial(undisturbed, sweep)


@pytest.mark.parametrize("lost", ["weights.safetensors", "measurement.npz", "result.json"])
def test_checkpoints_stay_until_the_result_is_written(whole, sweep, monkeypatch, lost):
    """A node that dies at its last files leaves all that another one needs to end the trial without
    training."""
    undisturbed, _, _ = whole
    write = Storage.writing

    def full(self, name, mode=0o666):
        if name == lost:
            raise OSError("no space left on device")
        return write(self, name, mode)

    with monkeypatch.context() as failing:
        failing.setattr(Storage, "writing", full)
        with pytest.raises(OSError, match="no space"):
            finish(start(sweep))
    finish(start(sweep, build=built(Untrained)))
    assert_same_trial(undisturbed, sweep)


def test_a_checkpoint_of_another_measurement_is_not_continued(sweep, tmp_path):
    """Its curve would not be the new one's: other snapshots, other samples."""
    other = with_fields(SPEC, {"measurement.snapshots": 2, "measurement.n_selection": 3})
    assert other.training_key(DATA.digest) == SPEC.training_key(DATA.digest)
    running = start(sweep)
    while len(running.curve) < 3:
        running.step()
    finish(start(sweep, other))
    fresh = Storage(str(tmp_path / "fresh"))
    finish(start(fresh, other))
    assert_same_trial(sweep, fresh)

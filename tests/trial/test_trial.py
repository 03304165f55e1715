"""What a trial tells while it runs, and what its result says."""

import itertools
import json
import os
import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.trials import CPU, DATA, SPEC, finish, measured, start
from trainables.config.fields import with_fields
from trainables.data.images import subset_order
from trainables.trial import training
from trainables.trial.result import read_all, read_result, trial_directory
from trainables.trial.trial import Pace, hardware


def test_result(whole):
    sweep, _, _ = whole
    results, unfinished, damaged = read_all(sweep)
    assert not damaged
    assert (len(results), unfinished) == (1, [])
    result = results[0]
    directory = trial_directory(sweep, result.training_key)
    assert directory.list() == [
        *("measurement.npz", "result.json", "trial.json", "weights.safetensors")
    ], "no checkpoint is left"
    assert result == read_result(directory)
    assert result.spec == SPEC
    assert result.complete
    assert result.cause is None
    assert result.training_key == SPEC.training_key(DATA.digest)
    assert result.measurement_key == SPEC.measurement_key(DATA.digest)
    assert (result.data.source, result.data.digest, result.data.size, result.data.duplicates) == (
        "test",
        DATA.digest,
        20,
        0,
    )
    assert result.images_trained == 48
    assert [snapshot.images_trained for snapshot in result.curve] == [12, 24, 36, 48]
    assert all(snapshot.n_samples == 12 for snapshot in result.curve)
    assert all(snapshot.r_mem == snapshot.n_memorized / 12 for snapshot in result.curve)
    assert all(0 < snapshot.r_mem < 1 for snapshot in result.curve), (
        "so that all these tests compare numbers"
    )
    assert result.r_mem_half != result.r_mem_last
    assert 0 < result.r_mem < 1
    assert 0 < result.noisy_copier < 1
    assert all(snapshot.loss > 0 for snapshot in result.curve)
    assert result.r_mem_half == result.curve[1].r_mem
    assert result.r_mem_last == result.curve[3].r_mem
    assert result.n_samples == 10
    assert result.null_samples == 10, "of the 14 images that are left"
    assert result.hardware["device"] == "cpu"
    assert 0 < result.seconds < 60
    assert not result.right_censored
    assert (
        json.loads(directory.read("trial.json")).items()
        <= json.loads(directory.read("result.json")).items()
    )


def test_measurement_is_of_these_samples_and_this_subset(whole):
    """Distances, indices and ratio anew from the kept images, by brute force."""
    sweep, _, _ = whole
    result = read_all(sweep)[0][0]
    kept, _ = measured(sweep)
    np.testing.assert_array_equal(kept["subset"], subset_order(DATA, 0)[:6])
    training = DATA.images[kept["subset"]].reshape(6, -1).astype(np.int64)
    assert kept["images"].shape == (10, 1, 4, 4)
    distances = np.sqrt(
        ((kept["images"].reshape(10, 1, -1).astype(np.int64) - training) ** 2).sum(2)
    )
    ranked = np.sort(distances, axis=1)
    np.testing.assert_array_equal(kept["d1"], ranked[:, 0])
    np.testing.assert_array_equal(kept["d2"], ranked[:, 1])
    np.testing.assert_array_equal(distances[np.arange(10), kept["i1"]], kept["d1"])
    np.testing.assert_array_equal(distances[np.arange(10), kept["i2"]], kept["d2"])
    copied = kept["d1"] < 0.9 * kept["d2"]
    assert (result.n_memorized, result.r_mem) == (copied.sum(), copied.mean())
    assert result.median_d1 == np.median(kept["d1"])
    assert result.distinct_copied == len(set(kept["i1"][copied]))


def test_reports_are_plain_and_rise(sweep):
    running = start(sweep)
    reports = [running.report()]
    while running.result is None:
        reports.append(running.step())
    json.dumps(reports, allow_nan=False)
    assert [report["progress"] for report in reports] == sorted(
        report["progress"] for report in reports
    )
    states = [report["state"] for report in reports]
    assert list(dict.fromkeys(states)) == ["training", "measuring", "complete"]
    assert reports[0]["images_trained"] == 0
    assert reports[-1]["images_trained"] == 48
    assert {report["snapshot"]["images_trained"] for report in reports if "snapshot" in report} == {
        12,
        24,
        36,
        48,
    }


def test_what_is_left_is_told_by_the_rate_of_the_last_slice(sweep):
    running = start(sweep, pace=Pace(slice_seconds=0))
    assert "seconds_left" not in running.report()
    running.step()
    assert "seconds_left" not in running.report(), "the first step compiles and allocates"
    running.step()
    running.training.rate = 0.25  # of a whole training, each second
    report = running.report()
    assert report["progress"] == pytest.approx(2 / 12)
    assert report["seconds_left"] == pytest.approx(10 / 12 / 0.25)


def test_the_rate_is_of_the_last_slice_alone(sweep, monkeypatch):
    """Each look at the clock is a second after the last, and each slice is a step of twelve."""
    clock = SimpleNamespace(monotonic=itertools.count(100.0).__next__)
    monkeypatch.setattr(training, "time", clock)
    running = start(sweep, pace=Pace(slice_seconds=0))
    for step in range(1, 6):
        running.step()
        assert running.training.trainer.progress == pytest.approx(step / 12)
        assert running.training.rate == pytest.approx(1 / 12)


def test_time_is_counted_over_all_attempts(sweep):
    running = start(sweep)
    while len(running.curve) < 2:
        running.step()
    running.training.stopwatch.total += 1000.0
    running.step()
    again = start(sweep)
    assert again.report()["seconds"] > 1000
    finish(again)
    assert 1000 < again.result.seconds < 1060
    assert again.result.curve[1].seconds < 1000 < again.result.curve[2].seconds


def test_it_is_said_what_a_trial_runs_on(sweep):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = hardware(CPU)
    finally:
        torch.set_num_threads(threads)
    expected = ("cpu", platform.machine(), "2", torch.__version__, platform.node())
    assert tuple(found[name] for name in ("device", "name", "threads", "torch", "host")) == expected
    assert found["pid"] == str(os.getpid())


@pytest.mark.parametrize("n", [2, 5, 13])
@pytest.mark.parametrize("clock", ["epochs", "steps"])
def test_as_many_snapshots_whatever_n_is(sweep, n, clock):
    """Also where there are fewer steps than snapshots."""
    spec = with_fields(
        SPEC, {"n": n, "configuration.trainer.clock": clock, "configuration.trainer.length": 3}
    )
    running = start(sweep, spec)
    finish(running)
    total = 3 * (n if clock == "epochs" else 4)
    positions = [snapshot.images_trained for snapshot in running.result.curve]
    assert len(positions) == 4
    assert positions[-1] == running.result.images_trained == total
    for share, position in zip((0.25, 0.5, 0.75, 1.0), positions, strict=True):
        assert share * total <= position < share * total + 4, "at the first step that reaches it"


@pytest.mark.parametrize("length", [2, 300])
def test_short_and_long_trainings_move(sweep, length):
    """Each step of a trial takes at least one step of the training, however slow it was before."""
    spec = with_fields(SPEC, {"configuration.trainer.length": length})
    running = start(sweep, spec, pace=Pace(slice_seconds=0))
    positions = [running.step()["images_trained"] for _ in range(3)]
    assert positions == [4, 8, 12]

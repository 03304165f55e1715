"""The life of a trial, seen from its files: resume, failure, re-measurement, and what the
measurement promises."""

import itertools
import json
import logging
import os
import platform
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sweep.analysis.other_k import result_at
from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.images import ImageData, subset_order
from trainables.data.sources import data_key
from trainables.errors import TrialFailed, UserError
from trainables.measure.features import open_features
from trainables.measure.kept import arrays_in_features
from trainables.measure.r_mem import Neighbours, n_sufficient
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.training.trainer import Trainer
from trainables.trial import checkpoint, ray_trainable, training
from trainables.trial.again import look_again
from trainables.trial.final import measure_final
from trainables.trial.ray_trainable import EmmTrainable
from trainables.trial.result import Result, read_all, read_result, trial_directory
from trainables.trial.subset import Subset
from trainables.trial.training import key_of_curve
from trainables.trial.trial import Pace, Trial, hardware

CPU = torch.device("cpu")
SPEC = TrialSpec(
    name="tiny",
    configuration=Configuration(
        data=Digits(resolution=4),
        network=DDPMpp(width=4, depth=1, multipliers=(1,), attention=()),
        diffusion=EDM(),
        trainer=StandardTrainer(
            length=8, batch=4, lr=2e-2, warmup=1, ema_rampup=0.0, ema_decay=0.7
        ),
    ),
    measurement=Measurement(
        n_samples=10, n_selection=12, snapshots=4, sampler_steps=3, batch=4, k=0.9
    ),
    n=6,
    seed=0,
    # 12 steps; a snapshot after every third; 3 batches of final samples; at this k some of what is
    # generated counts
)
OPTIMUM = with_fields(
    SPEC, {"configuration.network.kind": "optimum", "measurement.sampler_steps": 18}
)


def data(size=20, labels=True, copies=0):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 1, 4, 4)).astype(np.uint8)
    images[1 : 1 + copies] = images[0]
    return ImageData.of(images, np.arange(size) % 2 if labels else None, "test")


DATA = data()


@pytest.fixture
def sweep(tmp_path):
    return Storage(str(tmp_path / "sweep"))


def start(sweep, spec=SPEC, dataset=DATA, pace=None, build=build_trainer):
    return Trial(spec, dataset, sweep, CPU, pace or Pace(), build)


def built(kind):
    """How a trial builds its trainer, where that is of a kind of ours with a fault or an ear."""

    def build(configuration, images, labels, seed, device):
        return kind(configuration, images, seed, device, labels)

    return build


class Untrained(Trainer):
    def train_until(self, progress):
        raise AssertionError("it trains")


def not_built(configuration, images, labels, seed, device):
    raise AssertionError("it builds a trainer")


def finish(trial):
    """Runs a trial to its end; the number of steps that took, and the state in which the training
    ended."""
    steps, trained = 0, None
    while trial.result is None:
        if trained is None and trial.report()["state"] == "measuring":
            trained = deep_copy(trial.training.trainer.state_dict())
        trial.step()
        steps += 1
        assert steps < 200
    return steps, trained


def deep_copy(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: deep_copy(item) for key, item in value.items()}
    return [deep_copy(item) for item in value] if isinstance(value, list | tuple) else value


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def numbers(result):
    """A result without what is allowed to differ between two runs."""
    content = result.model_dump(exclude={"seconds", "finished_at", "hardware"})
    for snapshot in content["curve"]:
        del snapshot["seconds"]
    return content


def measured(sweep, spec=SPEC, dataset=DATA):
    directory = trial_directory(sweep, spec.training_key(dataset.digest))
    with np.load(directory.path("measurement.npz")) as content:
        arrays = {name: content[name] for name in content.files}
    return arrays, load_file(directory.path("weights.safetensors"))


def assert_same_trial(one, other):
    """Results, samples, distances and weights in two storages."""
    results = [read_all(sweep)[0] for sweep in (one, other)]
    assert [numbers(result) for result in results[0]] == [numbers(result) for result in results[1]]
    for a, b in zip(measured(one), measured(other), strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            assert_same(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that was never interrupted: its storage, its number of steps, the state after
    training."""
    sweep = Storage(str(tmp_path_factory.mktemp("whole")))
    return sweep, *finish(start(sweep))


# ---------------------------------------------------------------- the record


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


# ---------------------------------------------------------------- resume


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


# ---------------------------------------------------------------- what is finished


def files(sweep, spec=SPEC):
    directory = trial_directory(sweep, spec.training_key(DATA.digest))
    return {
        name: directory.filesystem.get_file_info(directory.path(name)).mtime_ns
        for name in directory.list()
    }


def test_a_finished_trial_is_left_alone(whole):
    sweep, _, _ = whole
    before = files(sweep)
    spec = with_fields(SPEC, {"name": "other name", "measurement.batch": 999})
    again = start(sweep, spec, build=not_built)
    assert again.result == read_all(sweep)[0][0]
    assert again.step()["state"] == "complete"
    assert again.step()["images_trained"] == 48
    assert files(sweep) == before


@pytest.mark.parametrize("n_samples", [23, 3])
def test_other_numbers_of_final_samples_only_measure_again(sweep, n_samples):
    first = start(sweep)
    finish(first)
    old, old_weights = measured(sweep)
    spec = with_fields(SPEC, {"measurement.n_samples": n_samples})
    again = start(sweep, spec, build=built(Untrained))
    assert again.result is None
    assert again.step()["state"] == "measuring"
    finish(start(sweep, spec, build=built(Untrained)))  # interrupted amid it
    new, new_weights = measured(sweep)
    assert new["images"].shape == (n_samples, 1, 4, 4)
    common = min(n_samples, 10)
    for name in ("images", "d1", "d2", "i1", "i2"):
        np.testing.assert_array_equal(new[name][:common], old[name][:common])
    assert_same(old_weights, new_weights)
    result = read_all(sweep)[0][0]
    assert (result.n_samples, result.spec, result.complete) == (n_samples, spec, True)
    assert (
        result.measurement_key == spec.measurement_key(DATA.digest) != first.result.measurement_key
    )
    same = {
        "curve",
        "images_trained",
        "best_images_trained",
        "r_mem_last",
        "r_mem_half",
        "training_key",
        "configuration_key",
    }
    assert result.model_dump(include=same) == first.result.model_dump(include=same)
    assert result.r_mem == result.n_memorized / n_samples
    assert result.seconds > first.result.seconds, "that time was spent on it as well"
    assert start(sweep, spec).result == result


def test_another_precision_of_the_final_ratio_only_measures_again(sweep):
    """At R_mem from .3 to .7 that takes 500 images, looked at every 250."""
    many = with_fields(SPEC, {"measurement.n_samples": 750, "measurement.batch": 750})
    first = start(sweep, many)
    finish(first)
    assert 0.3 < first.result.r_mem < 0.7
    spec = with_fields(many, {"measurement.logit_se": 0.1})
    again = start(sweep, spec, build=built(Untrained))
    assert again.step()["state"] == "measuring"
    finish(again)
    assert again.result.curve == first.result.curve
    assert len(measured(sweep)[0]["d1"]) == again.result.n_samples == 500


IN_FEATURES = with_fields(
    SPEC, {"measurement.features": "tests.eyes:pixels", "measurement.n_samples": 200}
)


def test_features_only_measure_again(sweep):
    """By features that are the pixels, so that their distances are known: of a trial as of one that
    was finished without them."""
    dataset = data(600)
    finish(first := start(sweep, with_fields(SPEC, {"measurement.n_samples": 200}), dataset))
    eye = open_features(IN_FEATURES.measurement, (1, 4, 4), CPU)
    asked = first.result.model_copy(update={"spec": IN_FEATURES})
    seen = look_again(asked, dataset, sweep, eye)
    again = start(sweep, IN_FEATURES, dataset, build=built(Untrained))
    assert again.step()["state"] == "measuring"
    finish(again)
    result, kept = again.result, np.load(again.files.storage.path("measurement.npz"))
    order = subset_order(dataset, 0)

    def unit(images):
        rows = images.reshape(len(images), -1) - 127.5
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    training, scores = unit(dataset.images[order[:6]]), {}
    for name, images in (
        ("features_", kept["images"]),
        ("features_null_", dataset.images[order[6:]]),
    ):
        brute = np.sort(np.linalg.norm(unit(images)[:, None] - training[None], axis=2), axis=1)
        scores[name] = brute[:, 0] / brute[:, 1]
        for part in (1, 2):
            assert kept[f"{name}d{part}"] == pytest.approx(brute[:, part - 1], abs=1e-6)
    for name, array in arrays_in_features(seen).items():
        np.testing.assert_array_equal(kept[name], array)
    assert np.abs(scores["features_null_"] - result.features_threshold).min() < 1e-9
    assert result.r_mem_features == (scores["features_"] < result.features_threshold - 1e-9).mean()
    assert 0 < result.r_mem_features < 1
    assert 0 <= result.features_null < 0.1
    assert result.measurement_key == IN_FEATURES.measurement_key(dataset.digest)
    at_its_k = result_at(result, sweep, 0.9, 0.9)
    assert at_its_k.r_mem_features == result.r_mem_features
    fresh = Storage(sweep.url + "-fresh")
    finish(first := start(fresh, IN_FEATURES, dataset))
    assert numbers(first.result) == numbers(result)


def test_features_that_fail_on_this_device_end_a_trial_before_it_trains(sweep):
    spec = with_fields(IN_FEATURES, {"measurement.features": "tests.eyes:no_such"})
    with pytest.raises(TrialFailed, match="has no function or class 'no_such'"):
        start(sweep, spec, data(600), build=not_built)
    assert "no_such" in read_all(sweep)[0][0].cause


def test_judged_in_features_every_choice_is_made_in_them(sweep, monkeypatch):
    """Snapshots, the best of them, how many images are enough, and R_mem: all as brute force on the
    images has it; pixels decide nothing."""
    dataset = data(600)
    spec = with_fields(
        IN_FEATURES,
        {"measurement.judge": "features", "measurement.n_samples": 400, "measurement.logit_se": 0.2,
         "measurement.batch": 250},
    )  # fmt: skip
    order = subset_order(dataset, 0)

    def unit(images):
        rows = np.asarray(images).reshape(len(images), -1) - 127.5
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def score(images):
        training = unit(dataset.images[order[:6]])
        found = np.sort(np.linalg.norm(unit(images)[:, None] - training[None], axis=2), axis=1)
        return found[:, 0] / found[:, 1]

    drawn = []

    class Listening(Trainer):
        def sample(self, *arguments):
            drawn.append(super().sample(*arguments))
            return drawn[-1]

    finish(one := start(sweep, spec, dataset, build=built(Listening)))
    result = one.result
    control = score(dataset.images[order[6:]])
    half = control[np.random.default_rng(0).permutation(594)[:297]]
    threshold = np.sort(half)[1]
    assert result.features_threshold == pytest.approx(threshold, abs=1e-9)
    shares = [(score(images) < threshold - 1e-9).mean() for images in drawn]
    curve = [snapshot.r_mem for snapshot in result.curve]
    assert curve == pytest.approx(shares[:4], abs=1e-12)
    best = max(range(4), key=lambda i: (curve[i], i))
    assert result.best_images_trained == result.curve[best].images_trained
    kept = np.load(one.files.storage.path("measurement.npz"))
    n = result.n_samples
    final = score(torch.cat(drawn[4:])[:n]) < threshold - 1e-9
    assert n == n_sufficient(final, 400, 0.2)
    assert result.r_mem == result.r_mem_features == final.mean()
    assert result.n_memorized == final.sum()
    assert result.r_mem_pixels == (kept["d1"] < 0.9 * kept["d2"]).mean() != result.r_mem
    in_pixels = result_at(result, sweep, 0.9, 0.9)
    assert (in_pixels.r_mem, in_pixels.measurement.judge) == (result.r_mem_pixels, "pixels")
    assert measure_final(result, dataset, sweep, 300, CPU).r_mem == pytest.approx(
        result.r_mem, abs=5 * (0.25 / 300) ** 0.5
    )
    assert start(sweep, spec, dataset).result == result
    other = with_fields(spec, {"measurement.features_version": "2"})
    assert key_of_curve(other.measurement) != key_of_curve(spec.measurement)
    assert key_of_curve(with_fields(other, {"measurement.judge": "pixels"}).measurement) == (
        key_of_curve(with_fields(spec, {"measurement.judge": "pixels"}).measurement)
    )


def test_judged_in_features_too_few_held_out_images_fail(sweep):
    spec = with_fields(IN_FEATURES, {"measurement.judge": "features"})
    with pytest.raises(TrialFailed, match="needs 198 held-out images, and 197 are left"):
        start(sweep, spec, data(203), build=not_built)


def test_few_held_out_images_leave_features_unknown(sweep):
    finish(one := start(sweep, IN_FEATURES, data(203)))
    assert (one.result.r_mem_features, one.result.features_threshold) == (None, None)
    assert one.result.null_samples == 197
    plenty = with_fields(IN_FEATURES, {"measurement.n_samples": 10})
    finish(two := start(sweep, plenty, data(600)))
    assert two.result.null_samples == 10
    assert two.result.r_mem_features is not None, "of all that are left, however few are sampled"


def test_a_checkpoint_of_a_version_that_counted_the_precision_goes_on(sweep):
    spec = with_fields(SPEC, {"measurement.logit_se": 0.3})
    running = start(sweep, spec)
    while len(running.curve) < 3:
        running.step()
    state = running.files.newest_state()
    older = key_of_curve(spec.measurement, but=("n_samples",))
    assert older != state["curve_key"]
    checkpoint.save(running.files.storage, 36, state | {"curve_key": older})
    assert len(start(sweep, spec).curve) == 3
    checkpoint.save(running.files.storage, 36, state | {"curve_key": "of another curve"})
    assert len(start(sweep, spec).curve) == 0, "it trains anew"


class Unsampled(Trainer):
    def sample(self, *_):
        raise ZeroDivisionError("division by zero")


def broken(*_):
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize("build", [built(Unsampled), broken], ids=["sampled", "built"])
def test_a_measurement_that_fails_leaves_the_good_result(sweep, quiet, build):
    finish(start(sweep))
    before = files(sweep)
    spec = with_fields(SPEC, {"measurement.n_samples": 23})
    with pytest.raises(TrialFailed, match=r"^ZeroDivisionError: division by zero$"):
        start(sweep, spec, build=build).step()
    after = files(sweep)
    assert after.pop("trial.json") != before.pop("trial.json")
    assert after == before
    assert read_all(sweep)[0][0].complete
    finish(start(sweep, spec))
    assert read_all(sweep)[0][0].n_samples == 23


@pytest.mark.parametrize(
    "change",
    [
        {"measurement.k": 0.7},
        {"measurement.sampler_steps": 4, "measurement.n_samples": 12},
        {"measurement.n_selection": 7, "measurement.n_samples": 12},
    ],
)
def test_any_other_measurement_trains_again(sweep, change, tmp_path):
    spec = with_fields(SPEC, change)
    finish(start(sweep))
    finish(start(sweep, spec))
    fresh = Storage(str(tmp_path / "fresh"))
    finish(start(fresh, spec))
    assert_same_trial(sweep, fresh)


def test_without_its_weights_a_trial_is_trained_again(whole, sweep, tmp_path):
    spec = with_fields(SPEC, {"measurement.n_samples": 12})
    first = start(sweep)
    finish(first)
    storage = first.files.storage
    storage.write("weights.safetensors", storage.read("weights.safetensors")[:-1])
    finish(start(sweep, spec))
    fresh = Storage(str(tmp_path / "fresh"))
    finish(start(fresh, spec))
    assert_same_trial(sweep, fresh)


def test_a_result_of_a_newer_version_is_read(whole):
    sweep, _, _ = whole
    result = read_all(sweep)[0][0]
    content = json.loads(result.model_dump_json()) | {"a_field_of_tomorrow": 1}
    assert Result.model_validate(content) == result


@pytest.mark.parametrize(
    ("path", "value"), [("network.a_field_of_tomorrow", 1), ("network.kind", "of tomorrow")]
)
def test_a_result_of_a_configuration_that_is_not_known_here_is_refused_in_one_line(
    whole, tmp_path, path, value
):
    content = json.loads(read_all(whole[0])[0][0].model_dump_json())
    section, field = path.split(".")
    content["spec"]["configuration"][section][field] = value
    storage = Storage(str(tmp_path))
    storage.write_json(f"trials/{content['training_key']}/result.json", content)
    with pytest.raises(
        UserError,
        match=r"result.json was written by a newer emm-sweep \(spec\.configuration\.network.* is not",
    ):
        read_all(storage)


def test_results_and_started_trials_are_listed(sweep):
    specs = [
        with_fields(OPTIMUM, {"seed": seed, "name": name})
        for name, seed in (("b", 2), ("a", 1), ("a", 0))
    ]
    for spec in specs[1:]:
        finish(start(sweep, spec))
    start(sweep, specs[0])
    results, unfinished, damaged = read_all(sweep)
    assert not damaged
    assert [(result.spec.name, result.spec.seed) for result in results] == [("a", 0), ("a", 1)]
    assert [record.spec for record in unfinished] == specs[:1]
    assert read_all(sweep / "elsewhere") == ([], [], [])


# ---------------------------------------------------------------- failure


@pytest.fixture
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)


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


# ---------------------------------------------------------------- what the measurement promises


def test_the_optimum_copies_and_trains_nothing(sweep):
    running = start(sweep, OPTIMUM)
    finish(running)
    result = running.result
    assert (result.r_mem, result.n_memorized, result.ceiling, result.median_d1) == (1, 10, 1, 0)
    assert result.images_trained == result.best_images_trained == 0
    assert [snapshot.r_mem for snapshot in result.curve] == [1] * 4
    assert result.r_mem_last == result.r_mem_half == 1
    assert 1 < result.distinct_copied <= 6


def test_controls_come_from_the_images_outside_the_subset(sweep):
    """Seen from the files: the null distances are those of the next images in the order of the
    subsets."""
    dataset = data(size=520)
    spec = with_fields(SPEC, {"measurement.n_samples": 500, "measurement.batch": 500})
    running = start(sweep, spec, dataset)
    finish(running)
    kept, _ = measured(sweep, spec, dataset)
    order = subset_order(dataset, 0)
    subset, rest = (
        dataset.images[part].reshape(-1, 16).astype(float) for part in (order[:6], order[6:506])
    )
    distances = np.sort(np.linalg.norm(rest[:, None] - subset[None], axis=2), axis=1)
    np.testing.assert_allclose(kept["null_d1"], distances[:, 0])
    np.testing.assert_allclose(kept["null_d2"], distances[:, 1])
    result = running.result
    assert result.null_samples == 500, "as many as samples"
    assert result.null_rate == np.mean(distances[:, 0] < 0.9 * distances[:, 1]) > 0
    assert result.r_mem + result.spurious + result.generalized == pytest.approx(1)
    assert result.spurious_null is not None
    samples = kept["images"].reshape(-1, 16).astype(float)
    nearest = [
        np.linalg.norm(samples[:, None] - x[None], axis=2).min(1) for x in (subset, rest[:6])
    ]
    np.testing.assert_allclose(kept["to_held_out"], nearest[1])
    assert result.nearer_training == np.mean(nearest[0] < nearest[1]), "as many as training images"
    assert None not in (result.authentic, result.authentic_null, result.calibrated)
    assert all(snapshot.loss_gap is not None for snapshot in result.curve)
    trainer = running.training.trainer  # as it was measured
    errors = [
        sum(trainer.denoising_errors(images, sigma) / sigma**2 for sigma in (0.1, 0.2, 0.4))
        for images in (running.training.subset.images, running.training.subset.held_out[:256])
    ]
    np.testing.assert_allclose(kept["errors"].sum(0), errors[0])
    np.testing.assert_allclose(kept["null_errors"].sum(0), errors[1])
    pairs = [trained < other for trained in errors[0] for other in errors[1]]
    assert result.membership_auroc == np.mean(pairs)
    assert result.membership_error == pytest.approx((263 / (12 * 6 * 256)) ** 0.5)
    whole = start(sweep, with_fields(SPEC, {"n": 20}))
    finish(whole)
    assert (whole.result.null_rate, whole.result.c_t, whole.result.curve[0].loss_gap) == (
        None,
        None,
        None,
    )
    assert whole.result.nn_distance > 0
    assert whole.result.authentic is not None
    unknown = ("nearer_training", "authentic_null", "calibrated", "membership_auroc")
    assert {getattr(whole.result, name) for name in unknown} == {None}
    few = start(sweep, with_fields(SPEC, {"n": 11}), dataset=data(size=20))
    finish(few)
    assert few.result.null_samples == 9
    assert few.result.nearer_training is None, "nine held-out images are fewer than eleven"


def test_there_are_as_many_held_out_images_as_training_images_however_few_are_sampled():
    dataset, spec = data(size=640), with_fields(SPEC, {"n": 310})
    subset, order = Subset(spec, dataset, CPU), subset_order(dataset, 0)
    samples = subset.images[:5]
    pool = dataset.images[order[310:620]].reshape(-1, 16).astype(float)
    by_hand = np.linalg.norm(samples.reshape(-1, 1, 16).numpy() - pool, axis=2).min(1)
    taken = subset.distances(subset.nearest(samples), samples)
    np.testing.assert_allclose(taken.to_held_out, by_hand)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_both_rules_are_told_and_the_trials_own_counts(sweep, augment):
    """Half of what is generated are training images, the other half are mirrored ones."""

    class Copier(Trainer):
        def sample(self, seeds, measurement, labels=None):
            return torch.cat([self.images[:5], self.images[:5].flip(-1)])[: len(seeds)]

    changes = {
        "configuration.trainer.augment": augment,
        "measurement.k": 1 / 3,
        "measurement.batch": 10,
    }
    spec = with_fields(OPTIMUM, changes)
    running = start(sweep, spec, build=built(Copier))
    finish(running)
    result = running.result
    assert (result.r_mem_without_flips, result.r_mem_with_flips) == (0.5, 1.0)
    assert result.r_mem == {"none": 0.5, "flip": 1.0}[augment]
    kept, _ = measured(sweep, spec)
    assert {"none": "with_flips_d1", "flip": "without_flips_d1"}[augment] in kept
    for k, other in ((0.4, 0.5), (1e-9, 0.5)):
        at = result_at(result, sweep, k, 0.9)
        assert (at.r_mem_without_flips, at.r_mem_with_flips) == (other, 1.0), "also at another k"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"configuration.trainer.decay": 0.6}, "the learning rate decays over the last 60%"),
        (
            {"measurement.protocol": "paper", "measurement.snapshots": None},
            "protocol=paper takes its snapshots by images",
        ),
        (
            {
                "configuration.trainer.kind": "custom",
                "configuration.trainer.builder": "my.code:trainer",
            },
            "of your own",
        ),
    ],
)
def test_whether_half_of_a_training_is_a_training(changes, why):
    plain = with_fields(SPEC, {"measurement.n_samples": 2000, "measurement.n_selection": 500})
    found = with_fields(plain, changes).why_no_half
    assert found.startswith(why) if why.startswith(("the", "prot")) else why in found
    assert bool(found) == bool(why)


def test_half_of_a_training_at_a_constant_rate_is_a_training(sweep):
    """Bit for bit, so `r_mem_half` is what the shorter training has at its end."""
    shorter = with_fields(SPEC, {"configuration.trainer.length": 4})
    whole, half = (start(sweep, spec).training.trainer for spec in (SPEC, shorter))
    # each configuration has an initialization of its own
    half.load_state_dict(deep_copy(whole.state_dict()))
    whole.train_until(0.5)
    half.train_until(1.0)
    assert whole.position == half.position == 24
    assert_same(whole.averages.views, half.averages.views)


@pytest.mark.parametrize(
    ("images", "number"), [(5_000_000, 1), (6_000_000, None), (40_000_000, 8), (100, None)]
)
def test_a_snapshot_by_images_is_at_half_only_if_it_is(images, number):
    assert Measurement(protocol="paper").half(images) == number
    assert Measurement(snapshots=6).half(images) == 3


def test_duplicates_lower_the_ceiling(sweep):
    """Of six images three are the same: half of what the optimum copies can't be told apart."""
    dataset = data(size=6, labels=False, copies=2)
    spec = with_fields(OPTIMUM, {"measurement.n_samples": 256, "measurement.k": 1 / 3})
    running = start(sweep, spec, dataset)
    finish(running)
    assert running.result.data.duplicates == 2
    assert running.result.r_mem == pytest.approx(0.5, abs=0.12)
    assert running.result.ceiling == pytest.approx(0.5, abs=0.12)
    trained = start(sweep, dataset=dataset)
    finish(trained)
    assert 0 < trained.result.ceiling < 1, "also for a network"


def sampled():
    """How to build a trainer that is listened to, and the seeds of the latents of each call of its
    sampler."""
    calls = []

    class Listening(Trainer):
        def sample(self, seeds, measurement, labels=None):
            calls.append(list(seeds))
            return super().sample(seeds, measurement, labels)

    return built(Listening), calls


def test_the_best_snapshot_is_measured_with_fresh_latents(sweep):
    build, calls = sampled()
    finish(start(sweep, build=build))
    selection, final = calls[:4], [seed for seeds in calls[4:] for seed in seeds]
    assert all(seeds == selection[0] for seeds in selection), (
        "all snapshots are compared on the same latents"
    )
    assert len(set(selection[0])) == 12
    assert len(final) == len(set(final)) == 10
    assert not set(final) & set(selection[0])


def test_latents_depend_on_data_and_seed_alone(tmp_path):
    def seeds_of(name, spec, dataset=DATA):
        build, calls = sampled()
        finish(start(Storage(str(tmp_path / name)), spec, dataset, build=build))
        return calls[0], [seed for seeds in calls[4:] for seed in seeds]

    first = seeds_of("a", OPTIMUM)
    assert (
        seeds_of("b", with_fields(OPTIMUM, {"configuration.diffusion.kind": "vp", "n": 9})) == first
    )
    assert seeds_of("c", SPEC) == first
    others = [
        seeds_of("d", with_fields(OPTIMUM, {"seed": 1})),
        seeds_of("e", OPTIMUM, data(labels=False)),
    ]
    for other in others:
        assert not set(other[0] + other[1]) & set(first[0] + first[1])


def test_the_gap_of_the_loss_is_of_all_images_that_are_left_however_few_are_sampled(tmp_path):
    gaps = []
    for n_samples in (3, 10):
        spec = with_fields(SPEC, {"measurement.n_samples": n_samples})
        running = start(Storage(str(tmp_path / str(n_samples))), spec)
        while not running.curve:
            running.step()
        gaps.append(running.curve[0].loss_gap)
    assert gaps[0] == gaps[1]
    training = running.training
    held_out = torch.from_numpy(DATA.images[subset_order(DATA, 0)[6:]])
    errors = [
        training.trainer.denoising_errors(images, 0.2)
        for images in (held_out, training.subset.images)
    ]
    assert gaps[0] == pytest.approx((errors[0].mean() - errors[1].mean()) / 0.04)
    pairs = [trained < other for trained in errors[1] for other in errors[0]]
    assert running.curve[0].membership == np.mean(pairs)


def test_configurations_see_the_same_images_and_subsets_are_nested(tmp_path):
    specs = {
        "small": with_fields(OPTIMUM, {"n": 5}),
        "large": with_fields(OPTIMUM, {"n": 9}),
        "vp": with_fields(OPTIMUM, {"n": 9, "configuration.diffusion.kind": "vp"}),
        "seed": with_fields(OPTIMUM, {"n": 9, "seed": 1}),
    }
    kept = {}
    for name, spec in specs.items():
        sweep = Storage(str(tmp_path / name))
        finish(start(sweep, spec))
        kept[name] = measured(sweep, spec)[0]
    np.testing.assert_array_equal(kept["large"]["subset"][:5], kept["small"]["subset"])
    np.testing.assert_array_equal(kept["large"]["subset"], kept["vp"]["subset"])
    np.testing.assert_array_equal(kept["large"]["images"], kept["vp"]["images"])
    assert set(kept["seed"]["subset"]) != set(kept["large"]["subset"])


@pytest.mark.parametrize(
    ("ratios", "best"),
    [((1, 4, 4, 2), 3), ((6, 1, 1, 1), 1), ((0, 0, 0, 0), 4), ((1, 2, 3, 3), 4), ((0, 5, 1, 4), 2)],
)
def test_the_best_snapshot_is_the_last_of_the_highest(sweep, monkeypatch, ratios, best):
    """Its weights are what is measured and kept, and the final ratio is a measurement of its
    own."""
    build, calls = sampled()
    running = start(sweep, build=build)
    script, weights = iter([*ratios, 1]), []

    def scripted(images):
        memorized = next(script, 0)
        weights.append(running.training.trainer.sampling_weights())
        d1 = np.array([0.0] * memorized + [5.5] * (len(images) - memorized))
        index = np.arange(len(images))
        return Neighbours(d1, np.full(len(images), 6.0), index, index)

    monkeypatch.setattr(running.training.subset, "nearest", scripted)
    finish(running)
    result = running.result
    assert result.best_images_trained == 12 * best
    assert [snapshot.n_memorized for snapshot in result.curve] == list(ratios)
    assert [snapshot.median_d1 for snapshot in result.curve] == [
        2.75 if memorized == 6 else 5.5 for memorized in ratios
    ]
    assert (result.r_mem, result.n_memorized) == (0.1, 1)
    assert (result.r_mem_half, result.r_mem_last) == (ratios[1] / 12, ratios[3] / 12)
    arrays, kept = measured(sweep)
    assert_same(kept, weights[best - 1])
    first = min(kept)
    fresh = Trainer(SPEC.configuration, running.training.subset.images, 0, CPU)
    fresh.load_sampling_weights(kept)
    drawn = [fresh.sample(seeds, SPEC.measurement) for seeds in calls[4:7]]
    np.testing.assert_array_equal(arrays["images"], torch.cat(drawn))
    assert all(
        not torch.equal(kept[first], other[first])
        for index, other in enumerate(weights[:4])
        if index != best - 1
    )


def test_r_mem_of_a_trained_network_rises(sweep):
    """Four images and a small network: at the end it copies them, at the beginning it did not."""
    changes = {
        "n": 4, "configuration.network.width": 8, "configuration.network.dropout": 0.0, "configuration.trainer.clock": "steps",
        "configuration.trainer.length": 200, "configuration.trainer.batch": 16, "configuration.trainer.lr": 2e-2,
        "configuration.trainer.warmup": 20, "configuration.trainer.decay": 0.5, "configuration.trainer.ema_decay": 0.9,
        "configuration.diffusion.stratified": True, "measurement.n_samples": 100, "measurement.n_selection": 50,
        "measurement.sampler_steps": 6, "measurement.sigma_min": 0.02, "measurement.sigma_max": 10, "measurement.batch": 100,
        "measurement.snapshots": 10, "measurement.k": 1 / 3,
    }  # fmt: skip
    running = start(sweep, with_fields(SPEC, changes))
    finish(running)
    result = running.result
    assert result.r_mem > 0.6
    assert result.curve[0].r_mem < 0.3
    assert result.distinct_copied == 4
    assert result.curve[0].loss > result.curve[-1].loss


ACCEPTING = SPEC.model_copy(
    update={"measurement": SPEC.measurement.model_copy(update={"accept": 0.3, "n_selection": 20})}
)


class TwoInFive(Trainer):
    """Samples copies of its images, and images halfway between two of them."""

    copies = 2  # of five images

    def sample(self, seeds, measurement, labels=None):
        number = torch.arange(len(seeds))
        middle = ((self.images[0].int() + self.images[1].int()) // 2).to(torch.uint8)
        copied = (number % 5 < self.copies).reshape(-1, 1, 1, 1)
        return torch.where(copied, self.images[number % len(self.images)], middle)


class AllCopies(TwoInFive):
    copies = 5


def test_it_is_not_accepted_early_while_there_is_doubt(sweep):
    """8 copies of 20 are .40, with an interval of [.22, .61]: not for certain above .3."""
    running = start(sweep, ACCEPTING, build=built(TwoInFive))
    finish(running)
    assert running.result.curve[0].n_memorized == 8
    assert len(running.result.curve) == ACCEPTING.measurement.snapshots
    assert not running.result.right_censored


def test_it_is_accepted_early_when_a_snapshot_leaves_no_doubt(sweep):
    """Recorded as a lower bound; and what was accepted early trains on when asked for without."""
    running = start(sweep, ACCEPTING, build=built(AllCopies))
    finish(running)
    assert running.result.right_censored
    assert len(running.result.curve) == 1
    assert running.result.r_mem_last is None
    assert running.result.images_trained < SPEC.configuration.trainer.train_images(SPEC.n)
    again = start(sweep)
    finish(again)
    assert not again.result.right_censored


class LateCopies(TwoInFive):
    @property
    def copies(self):
        return 2 if self.progress < 0.7 else 5


def test_one_that_is_accepted_after_half_of_its_training_is_a_lower_bound_too(sweep):
    running = start(sweep, ACCEPTING, build=built(LateCopies))
    finish(running)
    result = running.result
    assert [snapshot.n_memorized for snapshot in result.curve] == [8, 8, 20]
    assert (result.right_censored, result.r_mem_half, result.r_mem_last) == (True, 0.4, None)
    assert (result.r_mem, result.images_trained, result.best_images_trained) == (1, 36, 36)


class TurnedCopies(AllCopies):
    """Upside down, as pixels that are sorted do not notice."""

    def sample(self, seeds, *arguments):
        return super().sample(seeds, *arguments).flip(-2)


def test_judged_in_features_it_is_accepted_early_by_them(sweep):
    changes = {"features": "tests.eyes:sorted_pixels", "n_samples": 200}
    measurement = ACCEPTING.measurement.model_copy(update=changes)
    for judge in ("pixels", "features"):
        how = measurement.model_copy(update={"judge": judge, "k": 1 / 3})
        spec = ACCEPTING.model_copy(update={"measurement": how})
        finish(one := start(sweep / judge, spec, data(600), build=built(TurnedCopies)))
        assert one.result.r_mem == (judge == "features")
        assert one.result.r_mem_features == 1
        assert one.result.right_censored == (judge == "features")
        assert len(one.result.curve) == (1 if judge == "features" else how.snapshots)

"""What is finished is left alone, measured again, or trained again: as little as what is asked
needs."""

import json

import numpy as np
import pytest
import torch

from sweep.analysis.other_k import result_at
from tests.trials import (
    CPU,
    DATA,
    OPTIMUM,
    SPEC,
    Untrained,
    assert_same,
    assert_same_trial,
    built,
    data,
    files,
    finish,
    measured,
    not_built,
    numbers,
    start,
)
from trainables.config.fields import with_fields
from trainables.data.images import subset_order
from trainables.errors import TrialFailed, UserError
from trainables.measure.features import open_features
from trainables.measure.kept import arrays_in_features
from trainables.measure.r_mem import n_sufficient
from trainables.storage import Storage
from trainables.training.trainer import Trainer
from trainables.trial import checkpoint
from trainables.trial.again import look_again
from trainables.trial.final import measure_final
from trainables.trial.result import Result, read_all
from trainables.trial.training import key_of_curve


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
    at_its_k = result_at(result, sweep, 0.9)
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
    in_pixels = result_at(result, sweep, 0.9)
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


def test_without_its_weights_it_goes_on_from_its_checkpoint(sweep):
    """Which a trial that is broken off more often than it ends depends on."""
    spec = with_fields(SPEC, {"measurement.n_samples": 12})
    first = start(sweep)
    finish(first)
    first.files.storage.delete("weights.safetensors")
    trial = start(sweep, spec)
    while trial.training.trainer.position < 24:
        trial.step()
    trial.keep()
    again = start(sweep, spec)
    assert again.training.trainer.position >= 24
    finish(again)
    assert again.result.r_mem is not None


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

"""What the measurement of a trial promises."""

import numpy as np
import pytest
import torch

from sweep.analysis.other_k import result_at
from tests.trials import (
    CPU,
    DATA,
    OPTIMUM,
    SPEC,
    assert_same,
    built,
    data,
    deep_copy,
    finish,
    measured,
    start,
)
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.data.images import subset_order
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage
from trainables.training.trainer import Trainer
from trainables.trial.subset import Subset


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
        at = result_at(result, sweep, k)
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

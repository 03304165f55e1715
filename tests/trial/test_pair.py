"""Two models on disjoint images from the same latents: which images the second has, what is
compared, and that the first is what it would be alone."""

import numpy as np
import pytest
import torch

from search_spaces.find import find_space
from sweep.run.checks import Sweep
from tests.trials import (
    CPU,
    SPEC,
    Untrained,
    built,
    data,
    finish,
    start,
)
from trainables.config.fields import with_fields
from trainables.data.images import ImageData, subset_order
from trainables.errors import TrialFailed, UserError
from trainables.measure.neighbours import Comparison
from trainables.storage import Storage
from trainables.training.build import build_trainer
from trainables.training.trainer import Trainer
from trainables.trial import checkpoint
from trainables.trial.pair import agreement
from trainables.trial.result import Result, read_measurement, trial_directory
from trainables.trial.samples import FinalSamples
from trainables.trial.subset import Subset

PAIR = with_fields(SPEC, {"measurement.pair": True})
OWN = {"pair_agreement", "pair_distance", "pair_r_mem"}


@pytest.fixture
def sweep(tmp_path):
    return Storage(str(tmp_path / "sweep"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial of two models that nothing interrupted, and its storage."""
    storage = Storage(str(tmp_path_factory.mktemp("whole") / "sweep"))
    trial = start(storage, PAIR)
    finish(trial)
    return trial.result, storage


def random_images(n, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)
    return torch.from_numpy(images)


# ---------------------------------------------------------------- what is compared


def test_agreement_of_images_that_are_known():
    images = random_images(50)
    same = agreement(images, images, Comparison())[1]
    assert same == {"pair_agreement": 1.0, "pair_distance": 0.0}
    shifted = agreement(images, images.roll(1, 0), Comparison())[1]
    assert shifted["pair_agreement"] == 0.0, "each is there, but of another latent"
    half = torch.cat([images[:25], random_images(25, seed=1)])
    there, back = (
        np.mean([_nearest(one, others) == i for i, one in enumerate(images_of)])
        for images_of, others in ((images, half), (half, images))
    )
    found = agreement(images, half, Comparison())[1]["pair_agreement"]
    assert found == pytest.approx((there + back) / 2)
    assert found > 0.5


def _nearest(image, others):
    return int((others.double() - image.double()).flatten(1).norm(dim=1).argmin())


def test_by_chance_it_is_one_in_n_and_the_distances_are_alike():
    found = [
        agreement(random_images(100, seed), random_images(100, seed + 1000), Comparison())[1]
        for seed in range(40)
    ]
    # 8,000 draws with a chance of .01: their mean has a standard deviation of .0011
    assert np.mean([one["pair_agreement"] for one in found]) == pytest.approx(0.01, abs=0.0045)
    assert np.mean([one["pair_distance"] for one in found]) == pytest.approx(1, abs=0.02)


def test_the_distance_is_that_of_a_latent_over_that_of_different_ones():
    first = torch.zeros(4, 1, 1, 1, dtype=torch.uint8) + torch.tensor([0, 10, 20, 30]).view(
        -1, 1, 1, 1
    )
    second = first + 2
    kept, numbers = agreement(first.byte(), second.byte(), Comparison())
    assert kept["pair_apart"].tolist() == [2, 2, 2, 2]
    # each and the next: 12, 12, 12, 28
    assert numbers["pair_distance"] == pytest.approx(2 / 12)


# ---------------------------------------------------------------- the images of the second


def test_the_second_has_the_next_images_that_equal_none_of_the_first():
    images = random_images(40).numpy()
    images[30:] = images[:10]  # ten have a double
    dataset = ImageData.of(images, None, "test")
    spec = with_fields(PAIR, {"n": 15})
    first, second = (Subset(spec, dataset, CPU, second=one) for one in (False, True))
    assert first.indices.tolist() == subset_order(dataset, 0)[:15].tolist()
    contents = {image.tobytes() for image in first.images.numpy()}
    expected = [
        index for index in subset_order(dataset, 0)[15:] if images[index].tobytes() not in contents
    ]
    assert second.indices.tolist() == expected[:15]
    held_out = {image.tobytes() for image in second.held_out.numpy()}
    assert not held_out & {image.tobytes() for image in second.images.numpy()}


def test_too_few_others_fail_the_trial(sweep):
    trial = start(sweep, PAIR, data(size=12, copies=5))
    with pytest.raises(TrialFailed, match=r"measurement\.pair: of the 12 images only"):
        finish(trial)
    assert trial.result.cause is not None
    assert "lower search.n_high" in trial.result.cause


def test_both_models_are_asked_for_the_same_labels():
    spec = with_fields(PAIR, {"configuration.labels.kind": "true", "n": 7})
    images = random_images(40).numpy()
    dataset = ImageData.of(images, np.random.default_rng(1).integers(0, 2, 40), "test")
    first, second = (Subset(spec, dataset, CPU, second=one) for one in (False, True))
    seeds = first.latent_seeds("final", 0, 60)
    assert second.latent_seeds("final", 0, 60) == seeds
    asked = [subset.sample_labels(seeds).tolist() for subset in (first, second)]
    assert asked[0] == asked[1]
    assert first.labels.tolist() != second.labels.tolist()
    assert second.labels.tolist() == dataset.labels[second.indices].tolist()


# ---------------------------------------------------------------- the life of a trial


def test_the_first_model_is_what_it_would_be_alone(whole, tmp_path):
    result, storage = whole
    alone = Storage(str(tmp_path / "alone"))
    trial = start(alone)
    finish(trial)
    assert trial.result.training_key == result.training_key
    assert trial.result.measurement_key != result.measurement_key
    assert (result.images_trained, trial.result.images_trained) == (96, 48), "by both"
    left = {"measurement_key", "spec", "seconds", "finished_at", "curve", "images_trained", *OWN}
    first, only = (one.model_dump(exclude=left) for one in (result, trial.result))
    assert first == only
    assert [one.r_mem for one in result.curve] == [one.r_mem for one in trial.result.curve]
    kept, kept_alone = (
        read_measurement(where, one) for where, one in ((storage, result), (alone, trial.result))
    )
    assert kept.keys() - kept_alone.keys() == {"pair_nearest", "pair_nearest_back", "pair_apart"}
    assert np.array_equal(kept["images"], kept_alone["images"])


def test_the_second_is_trained_on_its_own_images_from_its_own_start(whole, sweep):
    built_with = []

    class Seen(Trainer):
        def __init__(self, configuration, images, seed, device, labels):
            built_with.append((images.clone(), seed))
            super().__init__(configuration, images, seed, device, labels)

    finish(start(sweep, PAIR, build=built(Seen)))
    (first, seed), (second, other_seed) = built_with
    dataset = data()
    order = subset_order(dataset, 0)
    assert np.array_equal(first.numpy(), dataset.images[order[:6]])
    assert np.array_equal(second.numpy(), dataset.images[order[6:12]])
    assert seed == 0
    assert other_seed != 0


@pytest.mark.parametrize("stop", [1, 4, 9, 16])
def test_interrupted_anywhere_it_comes_to_the_same(whole, sweep, stop):
    """Each of three attempts takes `stop` steps, and leaves as a preempted trial does."""
    result, _ = whole
    for _ in range(3):
        trial = start(sweep, PAIR)
        for _ in range(stop):
            if trial.result is None:
                trial.step()
        trial.keep()
    trial = start(sweep, PAIR)
    finish(trial)
    left = {"seconds", "finished_at", "curve"}
    assert trial.result.model_dump(exclude=left) == result.model_dump(exclude=left)
    assert checkpoint.names(trial.files.storage) == []


def test_the_second_goes_on_where_it_was(sweep):
    trial = start(sweep, PAIR)
    while trial.first is None or trial.training.trainer.position < 16:
        trial.step()
    assert "the second model" in trial.report()["state"]
    assert "snapshot" not in trial.report()
    trial.keep()
    position = trial.training.trainer.position
    # of both models, so that it is newer than those of the first
    assert checkpoint.names(trial.files.storage)[-1] == f"checkpoint-{48 + position:014d}.pt"
    again = start(sweep, PAIR)
    assert again.training.is_over, "the first is not trained again"
    while again.first is None:
        again.step()
    assert again.training.trainer.position == position
    assert len(again.curve) == 4, "of the first"


def test_a_failure_of_the_second_tells_what_both_have_taken(sweep):
    trial = start(sweep, PAIR)
    while trial.first is None or trial.training.trainer.position < 8:
        trial.step()
    position = trial.training.trainer.position

    def fails(progress):
        raise RuntimeError("of the second")

    trial.training.trainer.train_until = fails
    with pytest.raises(TrialFailed):
        trial.step()
    assert trial.result.images_trained == 48 + position


def test_a_second_that_can_not_be_built_fails_a_trial_that_has_trained(sweep):
    built_with = []

    def build(*arguments):
        if built_with:
            raise RuntimeError("no memory for the second")
        built_with.append(arguments)
        return build_trainer(*arguments)

    trial = start(sweep, PAIR, build=build)
    with pytest.raises(TrialFailed, match="no memory for the second"):
        finish(trial)
    assert (trial.result.images_trained, len(trial.result.curve)) == (48, 4)


def test_the_second_makes_as_many_images_as_the_first(sweep):
    """However many would be enough for an R_mem of its own."""
    trial = start(sweep, PAIR)
    while trial.samples is None or trial.samples.n_sufficient is None:
        trial.step()
    eight = FinalSamples(trial.training, 8)
    eight.draw()
    assert eight.n_sufficient is None
    eight.draw()
    assert eight.n_sufficient == 8
    while trial.first is None or trial.samples is None:
        trial.step()
    assert trial.samples.n == len(trial.first.arrays["images"])


def test_asked_for_later_only_the_second_is_trained(whole, sweep):
    finish(start(sweep))
    trained = []

    class Counted(Trainer):
        def __init__(self, configuration, images, seed, device, labels):
            self.is_first = not trained
            trained.append(images)
            super().__init__(configuration, images, seed, device, labels)

        def train_until(self, progress):
            assert not self.is_first, "it trains the first again"
            super().train_until(progress)

    trial = start(sweep, PAIR, build=built(Counted))
    finish(trial)
    for name in OWN:
        assert getattr(trial.result, name) == getattr(whole[0], name), name


def test_asked_for_no_longer_nothing_is_trained(whole, tmp_path):
    result, storage = whole
    directory = trial_directory(storage, result.training_key)
    copied = trial_directory(Storage(str(tmp_path)), result.training_key)
    for name in directory.list():
        copied.write(name, directory.read(name))
    trial = start(Storage(str(tmp_path)), build=built(Untrained))
    finish(trial)
    assert trial.result.pair_agreement is None
    assert trial.result.r_mem == result.r_mem
    assert trial.result.images_trained == 48, "by the one that is measured"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("kind", ["random", "unique"])
def test_labels_that_say_nothing_to_the_other_model_are_refused(sweep, kind):
    spec = with_fields(PAIR, {"configuration.labels.kind": kind})
    with pytest.raises(UserError, match=f"measurement.pair: labels.kind={kind} says nothing"):
        start(sweep, spec)


def test_n_reaches_to_half_of_the_data(sweep):
    with pytest.raises(UserError, match="two models of N=11 need 22 images; test has 20"):
        start(sweep, with_fields(PAIR, {"n": 11}))
    space = find_space("digits-pair").with_settings({"search.n_high": 899})
    with pytest.raises(UserError, match=r"more than half of the 1797 .*search.n_high=898"):
        Sweep(space).load_data()
    Sweep(space.with_settings({"search.n_high": 898})).load_data()


def test_a_result_of_before_has_no_pair(whole):
    old = whole[0].model_dump(mode="json", exclude=OWN)
    assert Result.model_validate(old).pair_agreement is None

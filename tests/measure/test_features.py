"""Copies in feature space: distances by brute force, the threshold by counting, and what is refused
of a function."""

import math

import numpy as np
import pytest
import torch

from tests import eyes
from trainables.config.data import Digits
from trainables.config.measurement import Measurement
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.measure.distances import take_distances
from trainables.measure.feature_rule import LEAST_HELD_OUT, InFeatures
from trainables.measure.features import AT_ONCE, open_features
from trainables.measure.kept import Distances
from trainables.measure.measures import measures
from trainables.measure.neighbours import Comparison, nearest_two

CPU = torch.device("cpu")
SHAPE = (1, 4, 4)


def opened(function="tests.eyes:sorted_pixels", shape=SHAPE, **options):
    return open_features(Measurement(features=function, features_options=options), shape, CPU)


def pictures(n, seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, *shape)).astype(np.uint8))


def unit(image, power=1.0):
    """By plain Python, in double precision."""
    values = [v**power for v in sorted(v / 255 + 1e-3 for v in image.flatten().tolist())]
    length = math.sqrt(sum(v * v for v in values))
    return [v / length for v in values]


# ---------------------------------------------------------------- distances


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_distances_are_those_of_features_of_length_one(power):
    n = AT_ONCE + 9  # more than one call
    samples, held_out, training = pictures(n, 0), pictures(5, 1), pictures(AT_ONCE + 3, 2)
    found = opened(power=power).compare(samples, held_out, training, flips=False)
    rows = [unit(image, power) for image in training]
    for images, d1, i1 in ((samples, found.d1, found.i1), (held_out, found.null, None)):
        brute = [[math.dist(unit(image, power), row) for row in rows] for image in images]
        assert d1 == pytest.approx([min(row) for row in brute], abs=1e-6)
        if i1 is not None:
            assert i1.tolist() == [row.index(min(row)) for row in brute]


def test_what_the_features_do_not_see_is_a_copy():
    """Turned upside down, an image has the same pixels: nothing for them, much for L2."""
    training = pictures(50, 0)
    found = opened().compare(training[7:19].flip(-2), pictures(40, 1), training, flips=False)
    assert found.i1.tolist() == list(range(7, 19))
    assert found.d1.max() < 1e-6
    assert nearest_two(training[7:19].flip(-2), training).d1.min() > 50


def test_a_mirrored_training_image_is_one_where_flips_count():
    """These features are the pixels themselves, so that mirrored they are others."""
    eye = opened("tests.eyes:pixels")
    training = pictures(AT_ONCE + 20, 3)
    mirrored = training[AT_ONCE - 2 : AT_ONCE + 4].flip(-1)
    plain = eye.compare(mirrored, pictures(1, 4), training, flips=False)
    orbit = eye.compare(mirrored, pictures(1, 4), training, flips=True)
    assert plain.d1.min() > 0.1
    assert orbit.d1.max() < 1e-6
    assert orbit.i1.tolist() == list(range(AT_ONCE - 2, AT_ONCE + 4))


def test_features_are_of_the_images_not_of_what_a_function_does_to_them():
    images = pictures(4, 0)
    before = images.clone()
    opened("tests.eyes:overwriting").of(images)
    assert torch.equal(images, before)


# ---------------------------------------------------------------- the rule


def in_features(d1, null):
    return InFeatures(np.asarray(d1, float), np.zeros(len(d1), np.int64), np.asarray(null, float))


@pytest.mark.parametrize(("m", "rank"), [(198, 1), (199, 1), (398, 2), (5800, 29), (6000, 30)])
def test_the_threshold_is_an_order_statistic_of_one_half(m, rank):
    """The r-th smallest of half of m distances, r = ⌊(m / 2 + 1) / 100⌋: exactly r − 1 of that half
    lie below it."""
    null = np.random.default_rng(m).permutation(m) + 1.0
    found = in_features([], null)
    half, others = found._halves
    assert sorted([*half, *others]) == sorted(null)
    assert (len(half), len(others)) == (m // 2, m - m // 2)
    assert (half < found.threshold).sum() == rank - 1
    assert found.threshold in half
    assert found.null_rate == (others < found.threshold).mean()


def test_a_distance_at_the_threshold_is_no_copy():
    found = in_features([0.0, 0.5, 1.0], [0.5] * 198)
    assert found.threshold == 0.5
    assert found.copies.tolist() == [True, False, False]
    assert (found.r_mem, found.null_rate) == (1 / 3, 0.0)


def test_the_null_rate_is_what_order_statistics_say():
    """One more exchangeable distance is below the r-th of m with probability r / (m + 1): 2 / 251
    of 250, whatever the distribution."""
    rng = np.random.default_rng(0)
    rates = [in_features([], np.exp(3 * rng.normal(size=500))).null_rate for _ in range(3000)]
    # of one rate: sd of a Beta(2, 249) and of counting in 250
    p = 2 / 251
    assert np.mean(rates) == pytest.approx(p, abs=4 * math.sqrt(2 * p / 250 / 3000))


def test_sorted_held_out_images_do_not_bias_it():
    """Sorted by class in a folder, or with the classes taking turns: the halves are at random."""
    near, far = np.full(300, 0.1), np.full(300, 1.0)
    rng = np.random.default_rng(0)
    for null in (np.concatenate([near, far]), np.stack([near, far], 1).ravel()):
        half, others = in_features([], null + rng.normal(0, 1e-3, 600))._halves
        assert (half < 0.5).mean() == pytest.approx((others < 0.5).mean(), abs=0.15)


@pytest.mark.parametrize("m", [0, 1, LEAST_HELD_OUT - 1])
def test_too_few_held_out_images_say_nothing(m):
    found = in_features([0.0, 1.0], np.arange(m))
    assert (found.threshold, found.copies, found.r_mem, found.null_rate) == (None,) * 4
    assert in_features([0.0, 1.0], np.arange(LEAST_HELD_OUT)).r_mem is not None


def test_digits_moved_by_a_pixel():
    """Copies that pixels do not see. Features: pixels summed along rows and columns, whose order
    moves with the image; held-out digits are copies as rarely as the rule says."""
    digits = load(Digits())
    order = subset_order(digits, 0)
    training, held_out, fresh = (
        torch.from_numpy(digits.images[order[part]])
        for part in (slice(100), slice(100, 900), slice(900, 1700))
    )
    eye = opened("tests.eyes:spectrum", shape=(1, 8, 8))
    rolled = training.roll((1, 1), dims=(-2, -1))
    samples = torch.cat([rolled, fresh])
    taken = take_distances(
        nearest_two(samples, training), samples, held_out, training, features=eye
    )
    found = measures(taken, len(training), 1 / 3)
    assert taken.in_features.copies[:100].all()
    assert not taken.found.memorized()[:100].any()
    chance = taken.in_features.copies[100:].mean()
    assert chance == pytest.approx(0.01, abs=0.015)
    assert found["features_null"] == pytest.approx(0.01, abs=0.015)
    assert found["r_mem_features"] == pytest.approx((100 + 800 * chance) / 900)
    assert found["r_mem"] < 0.01


# ---------------------------------------------------------------- how it is kept


def test_kept_and_read_again():
    samples, held_out, training = pictures(9, 0), pictures(200, 1), pictures(8, 2)
    for flips in (False, True):
        how = Comparison(flips=flips)
        found = how.nearest(samples, training)
        taken = take_distances(found, samples, held_out, training, how, features=opened())
        again = Distances.of_arrays(taken.as_arrays())
        assert measures(again, 8, 0.9) == measures(taken, 8, 0.9)
        assert measures(again, 8, 0.9)["features_threshold"] == taken.in_features.threshold > 0
        assert measures(again, 8, 0.1)["r_mem_features"] == taken.in_features.r_mem, "whatever k is"
    without = take_distances(found, samples, held_out, training, how)
    assert without.as_arrays().keys() == taken.as_arrays().keys() - {
        "features_d1", "features_i1", "features_null"
    }  # fmt: skip
    assert measures(without, 8, 0.9)["r_mem_features"] is None


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("raises", "called with images [8, 1, 4, 4] it raised RuntimeError: mat1 and mat2 differ"),
        ("random", "other features when called again"),
        ("counts calls", "other features when called again"),
        ("batchnorm", "depend on the images beside it"),
        ("order", "depend on the images beside it"),
        ("numpy", "must return floats [n, D], not ndarray"),
        ("int", "must return floats [n, D], not torch.int32 [8, 16]"),
        ("flat", "not torch.float32 [128]"),
        ("row", "must return a row for each, not [1, 16]"),
        ("nan", "not finite"),
        ("zeros", "zeros alone"),
        ("same", "the same features"),
        ("option", "raised TypeError"),
    ],
)
def test_what_a_function_may_not_do(how, text):
    options = {"how": how} if how != "option" else {"size": 3}
    with pytest.raises(UserError) as raised:
        opened("tests.eyes:wrong", **options)
    assert str(raised.value).startswith("measurement.features=tests.eyes:wrong: ")
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tests.no_eyes:sorted_pixels", "tests.no_eyes can't be imported"),
        ("tests.eyes:closed", "has no function or class 'closed'"),
        ("tests.eyes:NOT_A_FUNCTION", "has no function or class"),
    ],
)
def test_a_function_that_is_not_there(name, text):
    with pytest.raises(UserError, match=text):
        opened(name)
    assert eyes.NOT_A_FUNCTION == 3


def test_no_features_without_a_name():
    assert open_features(Measurement(), SHAPE, CPU) is None

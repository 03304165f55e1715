"""Nearest neighbours against brute force, the ⅓ rule at its edges, and the interval of a ratio."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.measure.neighbours import (
    PRODUCTS,
    Comparison,
    around_of,
    chunk_size,
    fastest_product,
    nearest_two,
    nearest_two_of,
)
from trainables.measure.r_mem import Neighbours, n_sufficient, r_mem_interval


def random_images(n, shape=(3, 4, 4), high=256, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, high, (n, *shape)).astype(np.uint8)
    )


def brute_force(samples, training):
    """Squared distances [n, N] in integers."""
    a, b = (x.numpy().reshape(len(x), -1).astype(np.int64) for x in (samples, training))
    return ((a[:, None] - b[None]) ** 2).sum(2)


def check(samples, training, **options):
    found, squares = nearest_two(samples, training, **options), brute_force(samples, training)
    nearest = np.sort(squares, axis=1)
    np.testing.assert_array_equal(found.d1, np.sqrt(nearest[:, 0].astype(np.float64)))
    np.testing.assert_array_equal(found.d2, np.sqrt(nearest[:, 1].astype(np.float64)))
    rows = np.arange(len(samples))
    np.testing.assert_array_equal(squares[rows, found.i1], nearest[:, 0])
    np.testing.assert_array_equal(squares[rows, found.i2], nearest[:, 1])
    assert (found.i1 != found.i2).all(), "the second neighbour is another image"
    assert found.d1.dtype == found.d2.dtype == np.float64
    assert found.i1.dtype == found.i2.dtype == np.int64
    return found


# ---------------------------------------------------------------- nearest neighbours


@pytest.mark.parametrize("max_bytes", [1, 40_000, 100_000, 2**28])
@pytest.mark.parametrize(("n", "size"), [(1, 2), (5, 3), (23, 50), (40, 7)])
def test_against_brute_force(n, size, max_bytes):
    """In chunks of two images, in odd ones, and all at once: always the same."""
    samples, training = random_images(n, seed=1), random_images(size, seed=2)
    found = check(samples, training, max_bytes=max_bytes)
    whole = nearest_two(samples, training)
    np.testing.assert_array_equal(found.i1, whole.i1)
    np.testing.assert_array_equal(found.d2, whole.d2)


@pytest.mark.parametrize("max_bytes", [1, 2**28])
def test_with_many_ties(max_bytes):
    check(
        random_images(60, (1, 2, 2), high=2, seed=3),
        random_images(30, (1, 2, 2), high=2, seed=4),
        max_bytes=max_bytes,
    )


SETS = {
    "random": (random_images(30, seed=1), random_images(50, seed=2)),
    "all equal": (torch.full((4, 3, 4, 4), 7, dtype=torch.uint8),) * 2,
    "black and white": (255 * random_images(30, high=2), 255 * random_images(50, high=2, seed=1)),
    "as far as can be": (
        torch.zeros((3, 3, 64, 64), dtype=torch.uint8),
        torch.full((3, 3, 64, 64), 255, dtype=torch.uint8),
    ),
    "doubles": (random_images(20, seed=3), random_images(20, seed=3).repeat(3, 1, 1, 1)),
    "copies": (random_images(20, seed=4), random_images(20, seed=4)),
    "one pixel": (random_images(9, (1, 1, 1)), random_images(8, (1, 1, 1), seed=5)),
    "more than an int32 of squares": (
        255 * random_images(3, (3, 128, 128), high=2),
        255 * random_images(4, (3, 128, 128), high=2, seed=6),
    ),
    "more than an int32 of products": (
        255 * random_images(2, (1, 400, 400), high=2),
        torch.cat([torch.zeros(1, 1, 400, 400), torch.full((2, 1, 400, 400), 255)]).byte(),
    ),
}


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.__name__)
@pytest.mark.parametrize("name", SETS)
def test_each_product_is_exact(name, product):
    samples, training = SETS[name]
    check(samples, training, product=product, max_bytes=2**20)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.__name__)
@pytest.mark.parametrize("pixels", [1, 7, 1023, 1024, 1025, 3072])
def test_products_of_pixels_are_integers(product, pixels):
    rng = np.random.default_rng(pixels)
    x, y = (rng.integers(-128, 128, (rows, pixels)).astype(np.int8) for rows in (5, 19))
    x[0], y[0] = -128, -128  # as large as they come
    found = product(torch.from_numpy(x), torch.from_numpy(y))
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), x.astype(np.int64) @ y.T.astype(np.int64))


def test_the_faster_of_the_exact_products_is_taken():
    assert fastest_product(torch.device("cpu")) in PRODUCTS


def test_a_second_neighbour_of_another_group_is_missed_where_there_is_one_group():
    images = random_images(5)
    with pytest.raises(AssertionError, match="of another group, is needed"):
        nearest_two(images, images, groups=np.zeros(5, dtype=np.int64))


def test_more_samples_than_a_block():
    check(random_images(2500, (1, 2, 2), seed=5), random_images(9, (1, 2, 2), seed=6))


def test_many_training_images():
    check(
        random_images(3, (1, 2, 2), seed=5),
        random_images(20_000, (1, 2, 2), seed=6),
        max_bytes=2**20,
    )


@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
def test_a_copy_is_at_distance_zero(value):
    """Also where squares are largest: 3 × 64 × 64 pixels of 255."""
    training = torch.full((3, 3, 64, 64), value, dtype=torch.uint8)
    training[0, 0, 0, 0] ^= 1
    training[2, 2, 63, 63] ^= 1
    found = nearest_two(training[:1], training)
    assert (found.d1[0], found.i1[0]) == (0, 0)
    assert found.d2[0] == 1, "one grey value in one pixel is seen"
    assert found.memorized().all()


def test_extremes_are_far_apart():
    training = torch.stack([torch.zeros(3, 64, 64), torch.full((3, 64, 64), 255.0)]).to(torch.uint8)
    found = nearest_two(training, training)
    np.testing.assert_array_equal(found.d1, 0)
    np.testing.assert_array_equal(found.d2, np.sqrt(255.0**2 * 3 * 64 * 64))


def test_wrong_pixels_are_refused():
    images = random_images(3)
    with pytest.raises(AssertionError, match="uint8"):
        nearest_two(images.float(), images)
    with pytest.raises(AssertionError, match="second nearest"):
        nearest_two(images, images[:1])


class LargestTensor(TorchDispatchMode):
    """Remembers the most bytes that one tensor took."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if (
                isinstance(tensor, torch.Tensor) and tensor.dtype != torch.uint8
            ):  # but for the images themselves
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_memory_does_not_grow_with_the_data():
    most = {}
    for n, size in [(50, 250), (50, 1000), (250, 250)]:
        samples, training = random_images(n, (1, 8, 8)), random_images(size, (1, 8, 8))
        with LargestTensor() as seen:
            nearest_two(samples, training, max_bytes=2**20)
        most[n, size] = seen.bytes
    assert len(set(most.values())) == 1, most
    assert 2**12 < most[50, 1000] < 2**20


# ---------------------------------------------------------------- the rule


def test_duplicates_hide_their_copies():
    """Neither of two equal training images can be told to be the source: d1 = d2, and the copy does
    not count."""
    training = random_images(10)
    training[7] = training[2]
    found = nearest_two(training, training)
    np.testing.assert_array_equal(found.memorized(), [i not in (2, 7) for i in range(10)])
    assert found.r_mem() == 0.8
    assert (found.d1[[2, 7]] == 0).all()
    assert (found.d2[[2, 7]] == 0).all()
    assert found.r_mem(k=0.999) == 0.8


def neighbours(d1, d2):
    index = np.zeros(len(d1), dtype=np.int64)
    return Neighbours(np.array(d1, dtype=float), np.array(d2, dtype=float), index, index)


def test_the_third_is_strict():
    found = neighbours([0, 1, 0.9999, 1.0001, 0, 5], [3, 3, 3, 3, 0, 5])
    assert found.memorized().tolist() == [True, False, True, False, False, False]
    assert found.r_mem() == 2 / 6


def test_r_mem_rises_with_k():
    rng = np.random.default_rng(0)
    d2 = rng.uniform(0, 9, 500)
    found = neighbours(d2 * rng.uniform(0, 1, 500), d2)
    ratios = [found.r_mem(k) for k in np.linspace(0.01, 0.99, 50)]
    assert ratios == sorted(ratios)
    assert ratios[25] == pytest.approx(0.5, abs=0.1)
    assert (found.memorized(0.25) <= found.memorized(0.5)).all()


# ---------------------------------------------------------------- the interval


@pytest.mark.parametrize(
    ("n_memorized", "n_samples", "low", "high"),
    # Wilson's score interval as printed in tables, e.g. Newcombe 1998 (81 of 263: 0.2553, 0.3662)
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0000),
    ],
)
def test_wilson_interval(n_memorized, n_samples, low, high):
    assert r_mem_interval(n_memorized, n_samples) == pytest.approx((low, high), abs=5e-5)


def test_interval_covers_as_often_as_it_says():
    """Averaged over ratios, the chance that the interval holds the true one is the level, within
    two points."""
    from scipy.stats import binom

    for level in (0.8, 0.95):
        limits = [r_mem_interval(x, 50, level) for x in range(51)]
        covered = []
        for p in np.linspace(0.02, 0.98, 97):
            inside = [low <= p <= high for low, high in limits]
            covered.append(binom.pmf(np.arange(51), 50, p)[inside].sum())
        assert np.mean(covered) == pytest.approx(level, abs=0.02)


def test_images_are_enough_when_the_logit_is_known():
    """At R_mem = 0.9 the logit's standard error is 0.1 near n = 1 / (0.1² · 0.9 · 0.1) = 1,111: the
    next look is at 1,250."""
    memorized = np.arange(4000) % 10 != 0
    assert n_sufficient(memorized, 2000, 0.1) == 1250
    assert n_sufficient(memorized[:1200], 2000, 0.1) is None
    assert n_sufficient(memorized, 1000, 0.1) == 1000  # the cap
    assert n_sufficient(memorized, 2000, 0.0) == 2000
    assert n_sufficient(memorized[:1999], 2000, 0.0) is None


# ---------------------------------------------------------------- groups, mirror images, streams


def by_hand(samples, training, groups=None, flips=False):
    """For each sample: d1, d2, i1, found by looking at every training image in turn."""
    groups = np.arange(len(training)) if groups is None else groups
    squares = brute_force(samples, training)
    if flips:
        squares = np.minimum(squares, brute_force(samples, training.flip(-1)))
    rows = []
    for row in squares:
        first = int(row.argmin())
        others = [value for value, group in zip(row, groups, strict=True) if group != groups[first]]
        rows.append((row[first] ** 0.5, min(others) ** 0.5))
    return np.array(rows).T


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("max_bytes", [1, 200_000, 2**28])
def test_groups_and_mirror_images_against_brute_force(grouped, flips, max_bytes):
    """Groups of all sizes, one of them most of the set; neighbours of a sample are mostly its
    relatives."""
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (12, 1, 3, 4))
    of = np.concatenate([np.zeros(40, dtype=np.int64), rng.integers(0, 12, 30)])
    training = torch.from_numpy(
        (sources[of] + rng.integers(-9, 9, (70, 1, 3, 4))).clip(0, 255).astype(np.uint8)
    )
    training[::3] = training[::3].flip(-1)
    samples = torch.from_numpy(
        (sources[rng.integers(0, 12, 25)] + rng.integers(-9, 9, (25, 1, 3, 4)))
        .clip(0, 255)
        .astype(np.uint8)
    )
    groups = of * 7 - 3 if grouped else None
    found = nearest_two(samples, training, groups=groups, flips=flips, max_bytes=max_bytes)
    d1, d2 = by_hand(samples, training, groups, flips)
    np.testing.assert_array_equal(found.d1, d1)
    np.testing.assert_array_equal(found.d2, d2)
    assert (found.i1 != found.i2).all()
    if grouped:
        assert (of[found.i1] != of[found.i2]).all()
        assert found.r_mem() > nearest_two(samples, training, flips=flips).r_mem() + 0.3, (
            "relatives hide their copies"
        )


def test_a_mirrored_copy_is_a_copy():
    training = random_images(20, (3, 5, 5))
    mirrored = training.flip(-1)
    assert nearest_two(mirrored, training).r_mem() == 0
    found = nearest_two(mirrored, training, flips=True)
    assert found.r_mem() == 1
    np.testing.assert_array_equal(found.i1, np.arange(20))


def test_a_group_for_each_image_changes_nothing():
    samples, training = random_images(30, seed=1), random_images(40, seed=2)
    plain, grouped = (
        nearest_two(samples, training),
        nearest_two(samples, training, groups=np.arange(40)[::-1].copy()),
    )
    for name in ("d1", "d2", "i1", "i2"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(grouped, name))


def test_one_group_has_no_second_neighbour():
    with pytest.raises(AssertionError, match="of another group"):
        nearest_two(random_images(3), random_images(5), groups=np.zeros(5, dtype=np.int64))


def test_a_stream_of_chunks_gives_what_the_whole_set_gives():
    samples, training = random_images(30, seed=1), random_images(101, seed=2)
    whole = nearest_two(samples, training)
    for sizes in ([1] * 101, [100, 1], [3, 0, 50, 48]):
        streamed = nearest_two_of(samples, iter(training.split(sizes)))
        for name in ("d1", "d2", "i1", "i2"):
            np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))


# ---------------------------------------------------------------- how near images are around


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("max_bytes", [1, 200_000, 2**28])
@pytest.mark.parametrize("n_nearest", [1, 5, 50])
def test_mean_of_the_nearest_against_brute_force(n_nearest, max_bytes, grouped, flips):
    """50 are more than there are; a group of half the images counts once, at its nearest one."""
    rng = np.random.default_rng(0)
    samples, training = (
        random_images(21, (1, 2, 3), high=9, seed=1),
        random_images(43, (1, 2, 3), high=9),
    )
    of = np.concatenate([np.full(21, -1), rng.integers(0, 9, 22)])[rng.permutation(43)]
    groups = of if grouped else None
    squares = brute_force(samples, training)
    if flips:
        squares = np.minimum(squares, brute_force(samples, training.flip(-1)))
    names = np.arange(43) if groups is None else groups
    least = np.array([squares[:, names == name].min(1) for name in np.unique(names)]).T
    expected = np.sqrt(np.sort(least, axis=1)[:, :n_nearest].astype(float)).mean(1)
    chunks = training.split(chunk_size(6, max_bytes))
    found = around_of(samples, chunks, None, groups, flips, max_bytes, n_nearest)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    if n_nearest == 50:
        np.testing.assert_array_equal(
            Comparison(flips=flips).around(samples, training, groups), found
        )

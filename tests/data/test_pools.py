"""Factors of the data: number of classes, a second source, copies; as the subsets of trials show
them."""

from collections import Counter

import numpy as np
import pytest

from trainables.config.data import Arrays, Digits, Duplicates, Mix
from trainables.data.images import ImageData, subset_order
from trainables.data.pools import Pool, Rule, first_classes, mixed
from trainables.data.sources import load
from trainables.errors import UserError


def distinct(n, start=0):
    """n different images of 1×2×2 pixels."""
    return np.arange(start, start + n, dtype="<u4").view(np.uint8).reshape(n, 1, 2, 2)


def pool(*sizes, start=0):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Pool(distinct(len(labels), start), labels)


def mixture(share, first=(60, 60, 60), second=(40, 50, 60)):
    p = mixed(pool(*first), pool(*second, start=10**6), share)
    return ImageData.of(p.images, p.labels, "mix", second=p.second, rule=Rule(mix=share))


def copies(n, share, multiplicity, classes=4):
    labels = None if classes is None else np.arange(n) % classes
    return ImageData.of(
        distinct(n), labels, "copies", rule=Rule(repeated=share, multiplicity=multiplicity)
    )


# ---------------------------------------------------------------- classes


def test_the_first_classes_are_kept():
    few = load(Digits(classes=3))
    whole = load(Digits())
    kept = np.flatnonzero(whole.labels < 3)
    np.testing.assert_array_equal(few.images, whole.images[kept])
    np.testing.assert_array_equal(few.labels, whole.labels[kept])
    assert load(Digits(classes=10)).digest == whole.digest != few.digest
    assert Counter(few.labels[subset_order(few, 0)[:30]].tolist()) == {0: 10, 1: 10, 2: 10}


def test_the_first_classes_are_the_lowest_labels_whatever_numbers_they_are():
    few = first_classes(Pool(distinct(6), np.array([9, 4, 7, 4, 12, 7])), 2)
    assert few.labels.tolist() == [4, 7, 4, 7]
    np.testing.assert_array_equal(few.images, distinct(6)[[1, 2, 3, 5]])


def test_classes_that_are_not_there():
    with pytest.raises(UserError, match=r"data\.classes: 11 is more than the 10 classes there are"):
        load(Digits(classes=11))
    with pytest.raises(UserError, match=r"data\.classes: these images have no labels"):
        first_classes(Pool(distinct(3)), 1)


# ---------------------------------------------------------------- a second source


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.5, 0.75])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_prefix_of_every_class_has_the_share(share, seed):
    data = mixture(share)
    order = subset_order(data, seed)
    assert sorted(order.tolist()) == list(range(len(data))), "every image once"
    for label in range(3):
        from_second = data.second[order[data.labels[order] == label]]
        turns = np.arange(1, len(from_second) + 1)
        assert np.abs(from_second.cumsum() - share * turns).max() <= 1
    whole = np.abs(data.second[order].cumsum() - share * np.arange(1, len(data) + 1))
    assert whole.max() <= 2, "roundings of the classes even out"


def test_few_images_of_many_classes_have_the_share_on_the_whole():
    """With one image of each of 20 classes, a quarter of them comes from the second source, not
    none."""
    data = mixture(0.25, first=(8,) * 20, second=(8,) * 20)
    assert data.second[subset_order(data, 0)[:20]].sum() == 5
    assert data.second[subset_order(data, 0)[:40]].sum() == 10


def test_a_mix_has_as_many_images_as_the_share_allows():
    """Of class 0 there are 60 and 40: at α = 0.5 that is 40 + 40, at 0.8 10 + 40, at 0.1 59 + 7 of
    66."""
    for share, ours, theirs in (
        (0.5, 40, 40),
        (0.8, 10, 40),
        (0.1, 59, 7),
        (0.0, 60, 0),
        (1.0, 0, 40),
    ):
        data = mixture(share)
        of_class = data.second[data.labels == 0]
        assert ((~of_class).sum(), of_class.sum()) == (ours, theirs)
        origin = data.images.reshape(len(data), 4).copy().view("<u4").ravel() >= 10**6
        np.testing.assert_array_equal(origin, data.second)


def test_the_ends_of_a_mix_are_the_sources():
    only_first, only_second = mixture(0.0), mixture(1.0)
    np.testing.assert_array_equal(
        np.sort(only_first.images.ravel()), np.sort(pool(60, 60, 60).images.ravel())
    )
    assert only_second.second.all()


def test_a_mix_is_identified_by_its_share():
    assert mixture(0.5).digest == mixture(0.5).digest
    a = ImageData.of(
        distinct(4), None, "a", second=np.array([0, 0, 1, 1], bool), rule=Rule(mix=0.5)
    )
    b = ImageData.of(
        distinct(4), None, "a", second=np.array([0, 0, 1, 1], bool), rule=Rule(mix=0.4)
    )
    c = ImageData.of(
        distinct(4), None, "a", second=np.array([0, 1, 0, 1], bool), rule=Rule(mix=0.5)
    )
    assert len({a.digest, b.digest, c.digest, ImageData.of(distinct(4), None, "a").digest}) == 4


def test_a_mix_is_loaded(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "second.npz"
    np.savez(
        path, images=rng.integers(0, 256, (200, 8, 8)).astype(np.uint8), labels=np.arange(200) % 20
    )
    data = load(Digits(mix=Mix(share=0.5, data=Arrays(path=str(path), resolution=8, channels=1))))
    assert Counter(data.labels.tolist()) == dict.fromkeys(range(10), 20), (
        "ten of each source; classes 10–19 are not used"
    )
    assert data.second.sum() == 100
    subset = subset_order(data, 0)[:40]
    assert data.second[subset].sum() == 20
    assert data.source == "digits"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Pool(distinct(9)), "one of the two sources has labels"),
        (pool(5, 5), "no image of class 2"),
        (Pool(distinct(3), np.arange(3), np.arange(3)), "images with groups"),
    ],
)
def test_sources_that_do_not_mix(second, message):
    with pytest.raises(UserError, match=rf"data\.mix: .*{message}"):
        mixed(pool(5, 5, 5), second, 0.5)


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize(
    ("share", "multiplicity"), [(0.5, 2), (0.1, 5), (0.9, 3), (1.0, 4), (1.0, 2)]
)
@pytest.mark.parametrize("classes", [None, 4])
def test_a_share_of_the_images_is_there_several_times(share, multiplicity, classes):
    data = copies(4000, share, multiplicity, classes)
    for n in (400, 1000, 4000):
        subset = subset_order(data, 1)[:n]
        times = np.array(list(Counter(subset.tolist()).values()))
        assert len(subset) == n, "N counts the copies"
        cut = multiplicity * (classes or 1)  # of each class the last image may be there less often
        assert np.count_nonzero((times != 1) & (times != multiplicity)) <= (classes or 1)
        assert abs(times[times > 1].sum() - share * n) <= cut


def test_copies_keep_classes_balanced_and_subsets_nested():
    data = copies(400, 0.5, 3)
    order = subset_order(data, 2)
    for n in range(1, 400):
        taken = np.bincount(data.labels[order[:n]], minlength=4)
        assert taken.max() - taken.min() <= 1
    assert not np.array_equal(order, subset_order(data, 3))


def test_copies_are_a_group():
    data = copies(100, 0.5, 3)
    np.testing.assert_array_equal(data.groups, np.arange(100))
    grouped = ImageData.of(
        distinct(4), None, "x", groups=np.array([5, 5, 6, 7]), rule=Rule(repeated=1, multiplicity=2)
    )
    np.testing.assert_array_equal(grouped.groups, [5, 5, 6, 7])
    assert (
        copies(100, 0.5, 2).digest
        != data.digest
        != ImageData.of(data.images, data.labels, "x").digest
    )
    assert data.duplicates == 0, "the data have none; the subsets do"


def test_copies_are_loaded():
    data = load(Digits(duplicates=Duplicates(share=1, multiplicity=4)))
    times = Counter(subset_order(data, 0)[:400].tolist())
    assert set(times.values()) == {4}
    assert load(Digits()).groups is None


# ---------------------------------------------------------------- groups


def test_groups_are_part_of_the_content():
    images = distinct(4)
    groups = [None, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])]
    assert len({ImageData.of(images, None, "x", group).digest for group in groups}) == 3
    as_groups, as_labels = (
        ImageData.of(images, None, "x", groups[1]),
        ImageData.of(images, groups[1], "x"),
    )
    assert as_groups.digest != as_labels.digest


# ---------------------------------------------------------------- the paper's subsets


def test_the_first_images_of_every_class_in_file_order():
    """For every seed, and nested."""
    data = load(Digits())
    expected = np.sort(
        np.concatenate([np.flatnonzero(data.labels == label)[:7] for label in range(10)])
    )
    for seed in (0, 5):
        order = subset_order(data, seed, in_file_order=True)
        np.testing.assert_array_equal(np.sort(order[:70]), expected)
        assert sorted(order.tolist()) == list(range(1797))

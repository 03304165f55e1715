"""Every measure against a count by hand, a closed form or a known null distribution."""

import itertools
import math
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.labels import UniqueLabels
from trainables.config.network import DDPMpp, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.measure import distances as distances_module
from trainables.measure.distances import (
    LOSS_SIGMA,
    denoising_errors,
    noisy_copies,
    take_distances,
)
from trainables.measure.kept import Distances, Judged, are_spurious
from trainables.measure.measures import (
    MEASURES,
    auroc,
    auroc_error,
    c_t,
    copies_and_isolation,
    expected_distinct,
    loss_gap,
    measures,
    membership,
    rows_of,
    share_below,
)
from trainables.measure.neighbours import Comparison, nearest_two
from trainables.measure.r_mem import Neighbours
from trainables.training.trainer import Trainer
from trainables.trial.result import Result, Snapshot

ROOT = Path(__file__).parents[2]


def pictures(n, seed, shape=(1, 4, 4)):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)
    )


def distance(a, b):
    return math.dist(a.flatten().tolist(), b.flatten().tolist())


def neighbours(d1, d2):
    index = np.arange(len(d1))
    return Neighbours(np.array(d1, dtype=float), np.array(d2, dtype=float), index, index)


# ---------------------------------------------------------------- all of them, by hand


@pytest.mark.parametrize("k", [0.25, 1 / 3, 0.6, 0.9])
def test_every_measure_by_hand(k):
    """Samples: noisy copies of three training images, two doubles of something else, and
    strangers."""
    training, held_out = pictures(9, 0), pictures(7, 1)
    noise = np.random.default_rng(3).integers(-20, 20, (6, 1, 4, 4))
    copies = torch.from_numpy(
        (training[[0, 0, 1, 2, 2, 2]].numpy() + noise).clip(0, 255).astype(np.uint8)
    )
    samples = torch.cat([copies, pictures(1, 5).repeat(2, 1, 1, 1), pictures(4, 6)])
    # some of the samples are among those others, and some are not
    found, pool = nearest_two(samples, training), pictures(9, 7)
    taken = take_distances(found, samples, held_out, training, n_others=7, pool=pool)
    found = measures(taken, len(training), k)

    def rule(x):
        ranked = sorted((distance(x, y), i) for i, y in enumerate(training))
        return ranked[0][0] < k * ranked[1][0], ranked[0]

    judged = [rule(x) for x in samples]
    copied = [judgement[1][1] for judgement in judged if judgement[0]]

    def made_again(images):
        return [
            not rule(x)[0]
            and min(distance(x, z) for j, z in enumerate(images[:7]) if j != i) < k * rule(x)[1][0]
            for i, x in enumerate(images)
        ]

    spurious = made_again(samples)
    nearest_other = [
        min(distance(y, z) for j, z in enumerate(training) if j != i)
        for i, y in enumerate(training)
    ]
    assert found["r_mem"] == len(copied) / len(samples)
    assert (found["n_memorized"], found["n_samples"]) == (len(copied), 12)
    assert found["median_d1"] == pytest.approx(np.median([judgement[1][0] for judgement in judged]))
    assert found["nn_distance"] == pytest.approx(np.median(nearest_other))
    assert found["null_rate"] == sum(rule(x)[0] for x in held_out) / 7
    assert found["null_samples"] == 7
    assert found["distinct_copied"] == len(set(copied))
    assert found["spurious"] == sum(spurious) / 12
    assert found["spurious_null"] == sum(made_again(held_out)) / 7
    orbits = [
        sorted(min(distance(x, y), distance(x, y.flip(-1))) for y in training)[:2] for x in samples
    ]
    assert (found["r_mem_without_flips"], found["r_mem_with_flips"]) == (
        found["r_mem"], sum(one < k * two for one, two in orbits) / 12
    )  # fmt: skip
    flipped = take_distances(
        nearest_two(samples, training, flips=True),
        samples,
        held_out,
        training,
        comparison=Comparison(flips=True),
    )
    both = measures(flipped, len(training), k)
    assert both["r_mem"] == both["r_mem_with_flips"] == found["r_mem_with_flips"]
    assert both["r_mem_without_flips"] == found["r_mem"]
    assert found["generalized"] == pytest.approx(1 - found["r_mem"] - found["spurious"])
    farther = [a[1][0] > rule(b)[1][0] for a in judged for b in held_out]
    assert found["c_t"] == pytest.approx((sum(farther) - 42) / math.sqrt(12 * 7 * 20 / 12))
    nearest_of_pool = [min(distance(x, z) for z in pool) for x in samples]
    nearer = [a[1][0] < other for a, other in zip(judged, nearest_of_pool, strict=True)]
    assert found["nearer_training"] == sum(nearer) / 12

    def authentic(images):
        return [rule(x)[1][0] > nearest_other[rule(x)[1][1]] for x in images]

    assert found["authentic"] == sum(authentic(samples)) / 12
    assert found["authentic_null"] == sum(authentic(held_out)) / 7
    assert found["calibrated"] is None, "of seven held-out images one in a hundred can't be told"
    np.testing.assert_allclose(
        taken.around, [np.mean([distance(x, y) for y in training]) for x in samples]
    )
    if k == 1 / 3:
        assert found["distinct_copied"] == 3
        assert found["spurious"] == 1 / 12, (
            "the second of the doubles: the first alone is among the seven"
        )


def test_without_held_out_images():
    samples, training = pictures(5, 0), pictures(6, 1)
    found = measures(
        take_distances(nearest_two(samples, training), samples, pictures(0, 2), training), 6, 1 / 3
    )
    assert (found["null_rate"], found["null_samples"], found["c_t"]) == (None, 0, None)


def test_what_an_older_version_kept_still_gives_r_mem():
    kept = {
        "d1": np.array([1.0, 2]),
        "d2": np.array([9.0, 3]),
        "i1": np.array([0, 1]),
        "i2": np.array([1, 0]),
        "images": None,
    }
    found = measures(Distances.of_arrays(kept), 2, 1 / 3)
    assert (found["r_mem"], found["median_d1"], found["distinct_copied"]) == (0.5, 1.5, 1)
    unknown = (
        *("nearer_training", "authentic", "authentic_null", "calibrated"),
        *("membership_auroc", "membership_error"),
        "nn_distance",
        "null_rate",
        "spurious",
        "spurious_null",
        "generalized",
        "c_t",
        "noisy_copier",
    )
    assert {found[name] for name in (*unknown, "r_mem_without_flips", "r_mem_with_flips")} == {None}
    kept["others"] = np.zeros(2)  # among all samples, however many there were
    assert measures(Distances.of_arrays(kept), 2, 1 / 3)["spurious"] is None


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 1, 1, 2, 2])])
@pytest.mark.parametrize("n_held_out", [0, 3])
def test_distances_are_kept_whole(tmp_path, n_held_out, groups):
    samples, training = pictures(5, 0), pictures(6, 1)
    held_out = pictures(n_held_out, 2)
    found = nearest_two(samples, training, groups=groups)
    taken = take_distances(
        found,
        samples,
        held_out,
        training,
        groups=groups,
        seeds=range(9),
        n_others=3,
        pool=pictures(6, 3) if n_held_out else None,
    )
    np.savez(tmp_path / "kept.npz", **taken.as_arrays())
    with np.load(tmp_path / "kept.npz") as kept:
        again = Distances.of_arrays(kept)
    assert measures(again, 6, 0.99) == measures(taken, 6, 0.99)
    np.testing.assert_array_equal(again.repeats, taken.repeats)
    np.testing.assert_array_equal(again.copies.d2, taken.copies.d2)
    np.testing.assert_array_equal(again.around, taken.around)
    for name in ("nearer_training", "authentic_null"):
        assert (measures(again, 6, 0.8)[name] is None) == (n_held_out == 0)
    assert measures(again, 6, 0.8)["noisy_copier"] is not None


def test_doubles_in_the_training_set_are_each_others_neighbours():
    training = pictures(8, 1)
    training[5] = training[2]
    spacing = take_distances(
        nearest_two(training, training), training, training[:0], training
    ).spacing
    assert np.flatnonzero(spacing == 0).tolist() == [2, 5]


def test_groups_and_mirror_images_count_in_the_controls():
    training = pictures(8, 1)
    training[5] = training[2]
    mirrored, groups = training.flip(-1), np.array([0, 1, 2, 3, 4, 2, 6, 7])
    none = training[:0]
    plain = take_distances(nearest_two(training, training), training, mirrored, training)
    orbit = take_distances(
        nearest_two(training, training),
        training,
        mirrored,
        training,
        groups=groups,
        comparison=Comparison(flips=True),
    )
    assert measures(plain, 8, 1 / 3)["null_rate"] == 0
    assert measures(orbit, 8, 1 / 3)["null_rate"] == 1
    assert orbit.spacing.min() > 0, "the nearest image of another group"
    both = torch.cat([training, mirrored])
    found = nearest_two(both, training)
    assert (
        take_distances(
            found, both, none, training, comparison=Comparison(flips=True), n_others=16
        ).repeats.max()
        == 0
    )


# ---------------------------------------------------------------- distinct copied images


@pytest.mark.parametrize(("n_copies", "n_training"), [(0, 5), (1, 5), (3, 2), (4, 3), (6, 4)])
def test_expected_distinct_is_the_mean_over_all_outcomes(n_copies, n_training):
    outcomes = list(itertools.product(range(n_training), repeat=n_copies))
    mean = sum(len(set(outcome)) for outcome in outcomes) / len(outcomes)
    assert expected_distinct(n_copies, n_training) == pytest.approx(mean)


def test_expected_distinct_of_large_sets():
    assert expected_distinct(2000, 10**9) == pytest.approx(2000, rel=1e-5)
    assert expected_distinct(10**6, 100) == pytest.approx(100)


# ---------------------------------------------------------------- spurious


def test_a_collapsed_model_is_spurious_not_general():
    """A hundred times the same strange image: their nearest and second nearest doubles are at one
    distance, and it shows."""
    found = neighbours([100.0] * 100 + [1.0, 100.0], [120.0] * 102)
    repeats = np.array([0.0] * 100 + [0.0, 90.0])
    assert are_spurious(found, repeats, 1 / 3).tolist() == [True] * 100 + [False, False]
    assert not are_spurious(neighbours([100.0], [200.0]), np.array([50.0]), 1 / 3)[0], (
        "the scale is d1"
    )
    assert are_spurious(neighbours([100.0], [200.0]), np.array([33.0]), 1 / 3)[0]


def test_spurious_does_not_grow_with_the_number_of_images():
    """Real digits in place of generated ones: none is made again, and the more there are the nearer
    is another one."""
    digits = torch.from_numpy(load(Digits()).images[subset_order(load(Digits()), 0)])
    training, real = digits[:50], digits[50:]
    few, many = (
        measures(take_distances(nearest_two(x, training), x, real[:600], training), 50, 0.5)
        for x in (real[:500], real)
    )
    assert few["spurious"] == pytest.approx(many["spurious"], abs=0.03)
    among_all = nearest_two(real, real).d2
    assert are_spurious(nearest_two(real, training), among_all, 0.5).mean() > 1.5 * many["spurious"]
    assert few["spurious_null"] == pytest.approx(few["spurious"], abs=0.03)
    fewer = measures(
        take_distances(nearest_two(real[:499], training), real[:499], real[:499], training), 50, 0.5
    )
    assert (fewer["spurious"], fewer["spurious_null"], fewer["generalized"]) == (None, None, None)


# ---------------------------------------------------------------- who is copied


def copied(copies, spacing, n_training=None, groups=None):
    """So many copies of each training image, and one sample that is none of the first."""
    i1 = np.append(np.repeat(np.arange(len(copies)), copies), 0)
    d1 = np.append(np.zeros(len(i1) - 1), 5.0)
    found = Neighbours(d1, np.full(len(i1), 9.0), i1, i1)
    spacing = np.array(spacing, dtype=float)
    taken = Distances(found, spacing=spacing, groups=groups, copies=found)
    return measures(taken, n_training or len(copies), 1 / 3)


def test_the_isolation_rho_is_the_correlation_of_ranks():
    """1 − 6 Σ d² / (n³ − n) without ties; with ties, the correlation of mean ranks."""
    assert copied([1, 2, 3, 4], [10, 20, 30, 40])["isolation_rho"] == pytest.approx(1)
    assert copied([4, 3, 2, 0], [10, 20, 30, 40])["isolation_rho"] == pytest.approx(-1)
    found = copied([3, 0, 2, 7, 1], [10, 20, 40, 30, 50])
    d = np.array([4, 1, 3, 5, 2]) - np.array([1, 2, 4, 3, 5])
    assert found["isolation_rho"] == pytest.approx(1 - 6 * (d**2).sum() / (125 - 5))
    assert found["isolation_rho_even"] == found["isolation_rho"]
    assert found["isolation_images"] == 5
    tied = copied([0, 0, 2, 2, 5], [1, 2, 3, 4, 5])
    ranks = [1.5, 1.5, 3.5, 3.5, 5]
    assert tied["isolation_rho"] == pytest.approx(np.corrcoef(ranks, range(5))[0, 1])
    assert copied([2, 2, 2], [1, 2, 3])["isolation_rho"] is None
    assert copied([1, 2, 3], [4, 4, 4])["isolation_rho"] is None


def test_a_group_is_copied_as_one_image_and_what_has_no_spacing_is_left_out():
    """Images 0 and 3 are one, nearest to others at 5; image 4 has no spacing, its copies go with
    those of image 1."""
    groups = np.array([7, 3, 9, 7, 3, 8])
    by_hand = {7: (1 + 4, 5.0), 3: (2 + 6, 20.0), 9: (0, 30.0)}
    one = Judged(
        Distances(neighbours([0], [1]), spacing=np.array([5.0, 20, 30, 8]), groups=groups), 6, 1 / 3
    )
    i1 = np.repeat(np.arange(6), [1, 2, 0, 4, 6, 3])
    zeros = np.zeros(len(i1))
    copies, isolation = copies_and_isolation(one, Neighbours(zeros, zeros + 1, i1, i1))
    pairs = sorted(zip(copies.tolist(), isolation.tolist(), strict=True))
    assert pairs == sorted(by_hand.values())
    found = copied([1, 2, 0, 4, 6, 3], [5, 20, 30, 8], 6, groups)
    assert found["isolation_images"] == 3
    assert found["isolation_rho"] == pytest.approx(-0.5)


def test_the_rule_alone_prefers_isolated_images():
    """What copies real digits all alike, with noise, is seen to copy isolated ones more: hence the
    even copier beside each rho."""
    digits = load(Digits())
    rows = []
    for seed in range(4):
        training = torch.from_numpy(digits.images[subset_order(digits, seed)[:200]])
        blurred = [noisy_copies(training, 100.0, range(seed, 9000, step)) for step in (4, 9)]
        found = nearest_two(blurred[0], training)
        taken = take_distances(found, blurred[0], training[:0], training, seeds=range(1000))
        rows.append(measures(taken, 200, 1 / 3))
    for row in rows:
        assert row["isolation_rho"] > 0.3
        assert row["isolation_rho_even"] == pytest.approx(row["isolation_rho"], abs=0.2)


# ---------------------------------------------------------------- against held-out images


def real_digits(n, seed):
    """Training images, as many for a pool, 600 held-out ones and 500 in place of generated ones."""
    digits = torch.from_numpy(load(Digits()).images[subset_order(load(Digits()), seed)])
    return digits.split([n, n, 600, 500, len(digits) - 2 * n - 1100])[:4]


def test_real_images_are_as_near_to_training_as_to_held_out_images():
    """And as authentic as these, and 1 % of them fall below the threshold: means over subsets,
    within 4 standard errors of what subsets differ by. Copies with noise are told by all three."""
    rows = []
    for seed in range(12):
        training, pool, held_out, real = real_digits(100, seed)
        noise = np.random.default_rng(seed).normal(0, 12, (500, 1, 8, 8))
        copies = training[torch.arange(500) % 100].numpy() + noise
        copies = torch.from_numpy(copies.round().clip(0, 255).astype(np.uint8))
        for samples in (real, copies):
            found = take_distances(
                nearest_two(samples, training), samples, held_out, training, pool=pool
            )
            rows.append(measures(found, 100, 1 / 3))
    real, copied = rows[::2], rows[1::2]

    def mean(rows, value):
        values = np.array([value(row) for row in rows])
        return values.mean(), 4 * values.std() / math.sqrt(len(values))

    for expected, value in (
        (0.5, lambda row: row["nearer_training"]),
        (0.0, lambda row: row["authentic"] - row["authentic_null"]),
        (6 / 601, lambda row: row["calibrated"]),
    ):
        found, error = mean(real, value)
        assert 0 < error < 0.1
        assert found == pytest.approx(expected, abs=error)
    assert min(row["nearer_training"] for row in copied) > 0.99
    assert max(row["authentic"] for row in copied) < 0.1 < min(r["authentic_null"] for r in copied)
    assert min(row["calibrated"] for row in copied) > 0.99


def test_an_equally_near_training_image_counts_half():
    training, pool = pictures(5, 0), pictures(5, 1)
    samples = torch.cat([training[:1], pool[:1], pool[1:2]])
    pool[1] = training[1]  # and the third is as near to both
    samples[2] = training[1]
    taken = take_distances(nearest_two(samples, training), samples, pool, training, pool=pool)
    assert measures(taken, 5, 1 / 3)["nearer_training"] == 1.5 / 3


def test_authentic_by_groups_mirror_images_and_beyond_the_spacing_that_is_kept(monkeypatch):
    """The distance from a training image to its nearest other one is taken by the trial's own rule,
    also of those of which no spacing is kept."""
    monkeypatch.setattr(distances_module, "N_SPACING", 3)
    training, held_out = pictures(8, 1), pictures(6, 3)
    training[5] = training[2]
    samples = torch.cat([training, pictures(9, 4)])
    groups = np.array([0, 1, 2, 3, 4, 2, 6, 7])
    found = nearest_two(samples, training, groups=groups, flips=True)
    taken = take_distances(
        found, samples, held_out, training, groups=groups, comparison=Comparison(flips=True)
    )
    orbit = [[min(distance(a, b), distance(a, b.flip(-1))) for b in training] for a in training]
    spacing = np.array(
        [
            min(d for d, g in zip(row, groups, strict=True) if g != groups[i])
            for i, row in enumerate(orbit)
        ]
    )
    np.testing.assert_allclose(taken.spacing, spacing[:3])
    np.testing.assert_allclose(taken.source_spacing, spacing[found.i1])
    np.testing.assert_allclose(taken.null_source_spacing, spacing[taken.null.i1])
    assert measures(taken, 8, 1 / 3)["authentic"] == np.mean(found.d1 > spacing[found.i1]) < 1


def test_images_around_are_counted_by_the_same_rule_for_samples_and_held_out_images():
    """Of each group the nearest image, mirrored or not: else the threshold that the held-out images
    give would be of another scale than the samples."""
    training, held_out, samples = pictures(8, 1), pictures(6, 3), pictures(9, 4)
    groups = np.array([0, 1, 2, 3, 4, 2, 6, 1])
    taken = take_distances(
        nearest_two(samples, training, groups=groups, flips=True),
        *(samples, held_out, training, Comparison(flips=True), groups),
    )
    for images, found in ((samples, taken.around), (held_out, taken.null_around)):
        orbit = [[min(distance(a, b), distance(a, b.flip(-1))) for b in training] for a in images]
        of_groups = [np.array(orbit)[:, groups == group].min(1) for group in np.unique(groups)]
        np.testing.assert_allclose(found, np.mean(of_groups, axis=0))


def test_what_is_as_near_as_training_images_are_to_each_other_is_not_authentic():
    """And so is a copy of an image that has a double: both are at distance 0."""
    taken = Distances(neighbours([5.0, 5.1, 0.0], [9, 9, 9]), source_spacing=np.array([5.0, 5, 0]))
    assert measures(taken, 3, 1 / 3)["authentic"] == 1 / 3


@pytest.mark.parametrize("n_null", [98, 99, 198, 199, 1000])
def test_a_value_drawn_as_the_null_is_below_its_threshold_once_in_a_hundred(n_null):
    """Over all ranks that it may have among them, each as likely."""
    if n_null < 99:
        assert share_below(np.zeros(3), np.arange(n_null)) is None
        return
    null = np.random.default_rng(0).permutation(n_null).astype(float)
    gaps = np.arange(n_null + 1) - 0.5
    rank = (n_null + 1) // 100
    assert share_below(gaps, null) == rank / (n_null + 1) <= 0.01
    assert share_below(np.array([rank - 1.0]), null) == 0, "the threshold itself is not below it"


def test_calibrated_distances_do_not_depend_on_scale():
    """One image at a sixth of the usual distance, one in a dense region where that is usual; and
    none where 50 training images are all equal to it."""
    rng = np.random.default_rng(0)
    null = neighbours(rng.uniform(0.5, 0.9, 200), np.ones(200))
    taken = Distances(
        neighbours([0.1, 0.1, 0.0], [1, 1, 1]),
        null=null,
        around=np.array([0.6, 0.15, 0.0]),
        null_around=np.ones(200),
    )
    assert measures(taken, 60, 1 / 3)["calibrated"] == 1 / 3


# ---------------------------------------------------------------- the noisy copier


def test_the_noisy_copier_of_the_digits():
    """Pixel noise of sd 16, clipped and rounded, at its median distance: what the rule leaves of a
    faithful copier falls with density, from nearly all copies to a quarter of them. 4 standard
    errors of counting, and what subsets differ by."""
    digits = load(Digits())
    order, noise = subset_order(digits, 0), np.random.default_rng(0)
    for n, expected in ((32, 0.996), (256, 0.616), (1600, 0.252)):
        training = torch.from_numpy(digits.images[order[:n]])
        plain = training[noise.integers(0, n, 1000)].numpy()
        noisy = torch.from_numpy(
            (plain + noise.normal(0, 16, plain.shape)).round().clip(0, 255).astype(np.uint8)
        )
        found = nearest_two(noisy, training)
        copies = noisy_copies(training, float(np.median(found.d1)), range(1000))
        share, error = (
            nearest_two(copies, training).r_mem(),
            math.sqrt(expected * (1 - expected) / 1000),
        )
        assert share == pytest.approx(expected, abs=4 * error + 0.02)
        assert share == pytest.approx(found.r_mem(), abs=4 * math.sqrt(2) * error + 0.02)


def test_the_noisy_copier_is_judged_by_the_trials_own_rule():
    """Its groups, its mirror images, its median distance."""
    training, samples = pictures(8, 1), pictures(21, 2)
    training[5] = training[2]
    groups, seeds = np.array([0, 1, 2, 3, 4, 2, 6, 7]), range(50)
    found = nearest_two(samples, training, groups=groups, flips=True)
    taken = take_distances(
        found,
        samples,
        training[:0],
        training,
        groups=groups,
        comparison=Comparison(flips=True),
        seeds=seeds,
    )
    copies = noisy_copies(training, float(np.median(found.d1)), seeds)
    by_hand = nearest_two(copies, training, groups=groups, flips=True)
    np.testing.assert_array_equal(taken.copies.d1, by_hand.d1)
    np.testing.assert_array_equal(taken.copies.d2, by_hand.d2)
    for other in ({"groups": groups}, {"flips": True}):
        assert (nearest_two(copies, training, **other).d2 != by_hand.d2).any(), (
            "the rule matters here"
        )


@pytest.mark.parametrize("aim", [0.0, 2.5, 40.0, 300.0])
def test_noisy_copies_lie_where_they_should(aim):
    """Rounding and clipping included; each source alike; a copy depends on its seed alone."""
    images = torch.cat([pictures(3, 0, (1, 8, 8)), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
    copies = noisy_copies(images, aim, range(400))
    found = nearest_two(copies, images)
    assert (found.d1 <= aim).all()
    assert found.d1**2 == pytest.approx(aim**2, abs=max(3.0, 0.03 * aim**2)), (
        "the next grey value of a pixel is too far"
    )
    counts = np.bincount(found.i1, minlength=4)
    assert ((counts - 100) ** 2 / 100).sum() < 16, "chi-square of 3, p ~ 1e-3"
    assert torch.equal(noisy_copies(images, aim, range(370, 390)), copies[370:390])


def test_no_copy_is_farther_than_pixels_go():
    black = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert noisy_copies(black, 1e5, range(20)).unique().tolist() == [0, 255]


# ---------------------------------------------------------------- C_T


def test_c_t_is_standard_normal_if_both_are_drawn_alike():
    rng = np.random.default_rng(0)
    scores = np.array([c_t(rng.exponential(size=40), rng.exponential(size=60)) for _ in range(500)])
    assert scores.mean() == pytest.approx(0, abs=4 / math.sqrt(500))
    assert scores.std() == pytest.approx(1, abs=0.1)
    assert (scores < -1.645).mean() == pytest.approx(0.05, abs=0.03)


def test_c_t_counts_pairs():
    """U by counting, and the extremes: ±√(3mn/(m + n + 1)) if all generated images are farther or
    nearer."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 23).astype(float), rng.integers(0, 9, 17).astype(float)
    u = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    assert c_t(a, b) == pytest.approx((u - 23 * 17 / 2) / math.sqrt(23 * 17 * 41 / 12))
    limit = math.sqrt(3 * 23 * 17 / 41)
    assert c_t(a, b + 99) == pytest.approx(-limit)
    assert c_t(a + 99, b) == pytest.approx(limit)


# ---------------------------------------------------------------- membership


def test_auroc_counts_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 23).astype(float), rng.integers(0, 9, 17).astype(float)
    share = np.mean([(x < y) + 0.5 * (x == y) for x in a for y in b])
    assert auroc(a, b) == pytest.approx(share)
    assert auroc(b, a) == pytest.approx(1 - share)
    assert (auroc(a, a + 9), auroc(a + 9, a), auroc(a, a)) == (1, 0, 0.5)


@pytest.mark.parametrize(("n", "m"), [(2, 3), (4, 3), (16, 256)])
def test_the_error_of_an_auroc_by_all_orders_or_by_many(n, m):
    if n + m < 9:
        orders = np.array(list(itertools.permutations(range(n + m))), dtype=float)
    else:
        orders = np.random.default_rng(0).permuted(np.tile(np.arange(n + m), (4000, 1)), axis=1)
    shares = (orders[:, :n, None] < orders[:, None, n:]).mean((1, 2))
    exact = n + m < 9
    assert shares.mean() == pytest.approx(0.5, abs=1e-9 if exact else 0.005)
    assert auroc_error(n, m) == pytest.approx(shares.std(), rel=1e-9 if exact else 0.05)


def test_a_network_that_knows_no_image_has_no_membership():
    """Never trained, it sees training and held-out digits alike: a half, within errors that are the
    null's own, over subsets."""
    digits, scores = load(Digits()), []
    for seed in range(10):
        order = subset_order(digits, seed)
        sets = [torch.from_numpy(digits.images[part]) for part in (order[:60], order[60:180])]
        network = DDPMpp(width=4, depth=1, multipliers=(1,), attention=())
        one = trainer(network, sets[0])
        errors = [denoising_errors(one.denoising_errors, (x, None), [0.2, 0.4]) for x in sets]
        scores.append((membership(*errors) - 0.5) / auroc_error(60, 120))
    assert np.mean(scores) == pytest.approx(0, abs=4 / math.sqrt(10))
    assert 0.4 < np.std(scores) < 1.8, "chi-square of 9, p ~ 1e-3"


# ---------------------------------------------------------------- loss gap


def trainer(network, images, batch=7):
    recipe = StandardTrainer(length=4, batch=batch, ema_decay=0.5, ema_rampup=0.0, warmup=0)
    configuration = Configuration(data=Digits(), network=network, diffusion=EDM(), trainer=recipe)
    return Trainer(configuration, images, 0, torch.device("cpu"))


def test_the_optimum_has_the_gap_that_its_distances_say():
    """At small noise it returns the nearest training image: no error on those, d1² on all
    others."""
    digits = load(Digits())
    order = subset_order(digits, 0)
    training, held_out = (
        torch.from_numpy(digits.images[part]) for part in (order[:40], order[40:140])
    )
    one = trainer(Optimum(), training)
    d1 = nearest_two(held_out, training).d1 / 127.5
    assert one.denoising_errors(training, 0.01) == pytest.approx(np.zeros(40), abs=1e-9)
    assert one.denoising_errors(held_out, 0.01) == pytest.approx(d1**2 / 64, rel=0.05)
    errors = [
        denoising_errors(one.denoising_errors, (images, None), [0.01, LOSS_SIGMA])
        for images in (training, held_out)
    ]
    assert [part.shape for part in errors] == [(2, 40), (2, 100)]
    first, second = ([part[[level]] for part in errors] for level in range(2))
    assert loss_gap(*first) == pytest.approx(np.mean(d1**2) / 64 / 0.01**2, rel=0.02)
    assert loss_gap(*second) > 1
    assert membership(*errors) == membership(*first) == 1
    assert membership(*reversed(errors)) == 0


def test_denoising_errors_by_hand():
    """By the average of the weights, whatever the batch, and it leaves training as it was."""
    images = pictures(10, 0, (1, 8, 8))
    network = DDPMpp(width=4, depth=1, multipliers=(1,), attention=(), dropout=0.5)
    one, other = trainer(network, images), trainer(network, images, batch=3)
    errors = one.denoising_errors(images, 0.3)
    assert errors == pytest.approx(other.denoising_errors(images, 0.3), rel=1e-5)
    np.testing.assert_array_equal(errors, one.denoising_errors(images, 0.3))
    undisturbed = trainer(network, images)
    for trained in (one, undisturbed):
        trained.train_until(0.5)
        trained.denoising_errors(images, 0.3) if trained is one else None
        trained.train_until(1)
    for a, b in zip(one.weights, undisturbed.weights, strict=True):
        assert torch.equal(a, b)
    seen = []
    one.denoiser.forward = lambda x, sigma, labels=None: seen.append((x, sigma)) or x * 0
    y = images.float() / 127.5 - 1
    errors = one.denoising_errors(images, 0.3)
    assert errors == pytest.approx(y.square().mean((1, 2, 3)).numpy(), rel=1e-5)
    noise = torch.cat([x for x, _ in seen]) - y
    assert torch.cat([sigma for _, sigma in seen]).tolist() == pytest.approx([0.3] * 10)
    assert noise.std().item() == pytest.approx(0.3, rel=0.1)
    assert noise.mean().item() == pytest.approx(0, abs=0.05)


# ---------------------------------------------------------------- the rows


def documented():
    """Names in the first column of the table of docs/measures.md."""
    lines = (ROOT / "docs" / "measures.md").read_text().splitlines()
    start = lines.index("| name | in one sentence | source | checked against |") + 2
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])]


def test_every_measure_is_documented_and_nothing_else():
    known = ["r_mem", *MEASURES, *rows_of(Snapshot)]
    assert sorted(documented()) == sorted(known)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_computed_from_distances_or_where_its_row_says(name):
    row = MEASURES[name]
    assert (row.compute is None) == bool(row.place)
    if row.place:
        pkgutil.resolve_name(row.place)  # raises if there is no such thing
    assert row.title
    assert row.says == row.says.strip(" .")


def test_titles_tell_columns_apart():
    assert len({row.title for row in MEASURES.values()}) == len(MEASURES)


def test_a_result_holds_every_measure_after_its_outcome():
    fields = list(Result.model_fields)
    start = fields.index("best_images_trained") + 1
    assert fields[start : start + len(MEASURES)] == list(MEASURES)


def test_each_image_is_denoised_with_its_own_label():
    """Whatever the batch: the optimum of one image a label knows each of them by its label."""
    images, labels = pictures(10, 0, (1, 8, 8)), torch.arange(10)
    configuration = Configuration(
        data=Digits(),
        labels=UniqueLabels(),
        network=Optimum(),
        diffusion=EDM(),
        trainer=StandardTrainer(batch=3),
    )
    trainer = Trainer(configuration, images, 0, torch.device("cpu"), labels)
    assert trainer.denoising_errors(images, 5.0, labels) == pytest.approx(np.zeros(10), abs=1e-9)
    assert trainer.denoising_errors(images, 5.0, labels.flip(0)).min() > 0.1

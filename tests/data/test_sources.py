"""Sources of images, their content digest, and the subsets trials train on."""

import io
import json
import os
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from search_spaces.table import SPACES
from sweep.cli.main import main
from sweep.report.gallery import pictures_of
from sweep.run.checks import Sweep
from trainables.config.data import Arrays, Cifar10, Digits, Folder, Mnist5k, Photos
from trainables.data.array_files import ArrayArchive
from trainables.data.images import ImageData, resized, subset_order
from trainables.data.pictures import COLOURED, CROPPED, DEEP, FLATTENED, FRAMES, RESIZED, TURNED
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)


def labelled(*sizes, seed=0):
    """Data with classes of these sizes, in mixed order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(seed).permutation(labels)
    return ImageData.of(
        np.random.default_rng(seed).integers(0, 256, (len(labels), 1, 2, 2)).astype(np.uint8),
        labels,
        "test",
    )


# ---------------------------------------------------------------- sources


@pytest.fixture(scope="module")
def digits():
    return load(Digits())


def test_digits(digits):
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.dtype == np.uint8
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert len(np.unique(digits.images)) == 17, (
        "the 17 grey values of the source, spread over 0 … 255"
    )
    assert digits.duplicates == 0
    assert set(digits.labels.tolist()) == set(range(10))
    # the first image of the source is a zero: a ring, dark in its middle
    assert digits.labels[0] == 0
    assert digits.images[0, 0, 3:5, 3:5].max() < digits.images[0, 0, 3:5, [1, 5]].max()


def test_digits_are_those_that_scikit_learn_reads(digits):
    from sklearn.datasets import load_digits

    theirs = load_digits()
    assert np.array_equal(digits.images[:, 0], np.rint(theirs.images * (255 / 16)))
    assert np.array_equal(digits.labels, theirs.target)


def test_digits_digest_is_of_the_content(digits):
    assert digits.digest == load(Digits()).digest
    assert digits.digest != load(Digits(resolution=4)).digest
    changed = digits.images.copy()
    changed[-1, 0, -1, -1] ^= 1
    assert ImageData.of(changed, digits.labels, "digits").digest != digits.digest
    assert ImageData.of(digits.images, np.roll(digits.labels, 1), "digits").digest != digits.digest
    assert ImageData.of(digits.images, None, "digits").digest != digits.digest
    assert ImageData.of(digits.images, digits.labels, "elsewhere").digest == digits.digest
    assert (
        ImageData.of(digits.images.reshape(-1, 1, 4, 16), digits.labels, "digits").digest
        != digits.digest
    ), "shape counts"


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


def test_cifar10(cifar_archive, tmp_path):
    root, first = cifar_archive
    data = load(Cifar10(root=str(root)), may_fetch=True)  # unpacks the archive: nothing is fetched
    assert data.images.shape == (50, 3, 32, 32)
    np.testing.assert_array_equal(
        data.images[:10].reshape(10, 3072), first
    )  # red, green, blue planes, as in the file
    np.testing.assert_array_equal(data.labels, np.tile(np.arange(10), 5))
    (root / "cifar-10-python.tar.gz").unlink()
    assert load(Cifar10(root=str(root))).digest == data.digest, (
        "the unpacked directory alone is enough"
    )
    assert load(Cifar10(root=str(root), resolution=16)).images.shape == (50, 3, 16, 16)


def test_cifar10_that_is_not_there(cifar_archive, tmp_path):
    with pytest.raises(UserError, match=r"data\.root: say which directory"):
        load(Cifar10())
    with pytest.raises(UserError, match=r"no intact CIFAR10 in .*data\.download=true") as caught:
        load(Cifar10(root=str(tmp_path / "nowhere")))
    assert "\n" not in str(caught.value)
    root, _ = cifar_archive
    load(Cifar10(root=str(root)), may_fetch=True)
    batch = root / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    (root / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    with pytest.raises(UserError, match="no intact CIFAR10"):
        load(Cifar10(root=str(root)))


def test_cifar10_that_cannot_be_fetched(cifar_archive, tmp_path):
    with pytest.raises(UserError, match="no intact CIFAR10") as caught:
        load(Cifar10(root=str(tmp_path / "empty"), download=True), may_fetch=True)
    assert "\n" not in str(caught.value)


def test_showing_a_sweep_neither_downloads_nor_unpacks(cifar_archive, tmp_path):
    """It may be somebody else's: only `emm run` and `emm trial` do what its configuration says."""
    root, _ = cifar_archive
    for where, there in ((root, ["cifar-10-python.tar.gz"]), (tmp_path / "nowhere", None)):
        settings = {"data.root": str(where), "data.download": True}
        space = SPACES["cifar10-width"].with_settings(settings)
        name = space.configurations[0].name
        for read in (pictures_of(space, Storage(str(tmp_path))).data, Sweep(space).data_of):
            with pytest.raises(
                UserError, match=r"no intact CIFAR10 .*emm run and emm trial fetch and unpack it"
            ):
                read(name)
        assert (sorted(path.name for path in where.iterdir()) if where.exists() else None) == there


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
    assert load(Folder(path=str(tmp_path), resolution=8)).labels is None, (
        "an image without a class: no classes"
    )


def test_folder_of_mixed_images(tmp_path):
    """Grey, with transparency, of a palette, of other sizes: all become what the configuration
    says."""
    Image.new("L", (5, 9), 77).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 8), (77, 77, 77, 250)).save(tmp_path / "transparent.png")
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
        with pytest.raises(UserError, match=r"001\.png: not a readable image"):
            load(Folder(path=str(tmp_path), resolution=8))


def test_arrays_grey_and_without_labels(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", images=COLOUR[..., 0])
    data = load(Arrays(path=str(tmp_path / "x.npz"), resolution=8, channels=1))
    np.testing.assert_array_equal(data.images[:, 0], COLOUR[..., 0])
    assert data.labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"images": COLOUR.astype(np.float32)},
            r"uint8 .* is needed .*, not float32 \[10, 8, 8, 3\]",
        ),
        ({"images": COLOUR.astype(np.int64)}, "not int64"),
        ({"images": COLOUR[..., :2]}, r"not uint8 \[10, 8, 8, 2\]"),
        ({"images": COLOUR[..., 0]}, r"channels=3"),
        ({"images": COLOUR[:0]}, r"no image is in '.*': uint8 \[0, 8, 8, 3\]"),
        ({"pictures": COLOUR}, "no array named images"),
        (
            {"images": COLOUR, "labels": np.zeros(9, int)},
            r"labels must be integers \[10\], not int64 \[9\]",
        ),
        ({"images": COLOUR, "labels": np.zeros(10)}, "not float64"),
        (
            {"images": COLOUR, "groups": np.zeros(9, int)},
            r"groups must be integers \[10\], not int64 \[9\]",
        ),
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
    for content in (
        b"",
        b"text",
        whole[: len(whole) // 2],
        bytes(damaged),
        (tmp_path / "single.npy").read_bytes(),
    ):
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
    np.testing.assert_array_equal(
        resized(wide.transpose(0, 1, 3, 2), 4)[0, 0], np.arange(1, 17).reshape(4, 4).T
    )


def test_planes_are_resized_each_for_itself():
    images = RNG.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    out = resized(images, 8)
    for image in range(2):
        for channel in range(3):
            np.testing.assert_array_equal(
                out[image, channel],
                resized(images[image : image + 1, channel : channel + 1], 8)[0, 0],
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
    [
        labelled(50, 50, 50),
        labelled(5, 40, 17, 1),
        ImageData.of(np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2), None, "t"),
    ],
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
    """Not the first ones of the file: over many seeds each image of a class is drawn equally
    often."""
    data = labelled(10, 10)
    drawn = Counter(index for seed in range(600) for index in subset_order(data, seed)[:4].tolist())
    expected = 600 * 4 / 20
    assert sum((drawn[index] - expected) ** 2 / (expected * 0.8) for index in range(20)) < 45, (
        "chi-square of 18, p ~ 4e-4"
    )


def test_labels_need_not_be_contiguous():
    images = np.arange(80, dtype=np.uint8).reshape(20, 1, 2, 2)
    data = ImageData.of(images, np.array([-3, 700] * 10), "test")
    assert Counter(data.labels[subset_order(data, 0)[:8]].tolist()) == {-3: 4, 700: 4}


def test_the_order_depends_on_content_not_on_its_source(digits):
    elsewhere = ImageData.of(digits.images, digits.labels, "arrays")
    np.testing.assert_array_equal(subset_order(digits, 5), subset_order(elsewhere, 5))
    changed = digits.images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert not np.array_equal(
        subset_order(digits, 5), subset_order(ImageData.of(changed, digits.labels, "digits"), 5)
    )


# ---------------------------------------------------------------- photographs


def test_photos():
    data = load(Photos())
    assert data.images.shape == (3854, 3, 32, 32)
    assert Counter(data.labels.tolist()) == {
        0: 243,
        1: 126,
        2: 216,
        3: 254,
        4: 345,
        5: 837,
        6: 1573,
        7: 260,
    }
    assert data.duplicates == 0, "the black frame of a photograph is left out"
    assert data.images.std(axis=(1, 2, 3)).min() >= 3
    astronaut = np.asarray(
        Image.open(Path(find_spec("skimage").origin).parent / "data" / "astronaut.png")
    )
    wall = astronaut[32:64, 64:96]  # the patch in row 1, column 2
    assert any(np.array_equal(patch.transpose(1, 2, 0), wall) for patch in data.images[:40])
    assert load(Photos(resolution=16, classes=2)).images.shape == (369, 3, 16, 16)


def test_photos_without_their_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'emm-sweep\[photos\]'"):
        load(Photos())
    (tmp_path / "skimage").mkdir()
    (tmp_path / "skimage" / "__init__.py").write_text("")
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
    assert len(load(Cifar10(root="~/root"), may_fetch=True)) == 50


# ---------------------------------------------------------------- nothing is dropped or misread in
# silence


def pictures(root, **named):
    """A folder with these pictures (`a__b`: a/b), uint8 arrays or Pillow's images, as PNG."""
    for name, image in named.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path)
    return root


def read(root, **fields):
    return load(Folder(path=str(root), **{"resolution": 8, **fields}))


def test_ordinary_pictures_are_read_as_ever(tmp_path):
    """Sweeps of earlier versions go on: the digest is that of the version that dropped alpha and
    knew no EXIF."""
    opaque = Image.fromarray(COLOUR[3]).convert("RGBA")
    palette = Image.fromarray(COLOUR[4]).quantize(64)
    grey = Image.fromarray(COLOUR[5, ..., 0])
    pictures(
        tmp_path,
        b__x=COLOUR[0],
        a__y=COLOUR[1],
        a__w=opaque,
        b__p=palette,
        b__g=grey,
        c__t=np.tile(COLOUR[6], (2, 3, 1)),
    )
    data = read(tmp_path)
    assert data.digest == "31aff6e64b0bfbc20be3a5500a354a873c55b424455f94eb55cbb58ff1841a69"
    assert (
        read(tmp_path, channels=1).digest
        == "1f41c42256d051b7749af1343f0e9d254f317109df1f188277e1a87e4d84270b"
    )
    done = f"1 {CROPPED} (c/t.png); 1 {COLOURED} (b/g.png); 1 {RESIZED} (c/t.png)"
    assert data.notes == (f"{tmp_path}: 6 images in 3 classes (a, b, c); {done}",)


UPRIGHT = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
AS_STORED = {  # orientation → how a camera has stored the picture that a viewer shows upright
    1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1], 5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT), 7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(UPRIGHT, -1),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_are_turned_as_their_exif_says(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(AS_STORED[orientation])).save(
        tmp_path / f"a.{suffix}", exif=exif
    )
    data = read(tmp_path, resolution=4)
    np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0), UPRIGHT)
    assert (f"1 {TURNED} (a.{suffix})" in data.notes[0]) is (orientation != 1)


def test_what_is_transparent_is_seen_on_white(tmp_path):
    """Not the colours that a drawing program left below."""
    whole, clear = COLOUR[0], np.arange(8) < 4
    alpha = np.where(clear, 0, 255).astype(np.uint8) * np.ones((8, 1), np.uint8)
    in_palette = Image.fromarray(
        np.where(clear, 0, 1).astype(np.uint8) * np.ones((8, 1), np.uint8)
    ).convert("P")
    in_palette.putpalette([9, 9, 9, 200, 100, 50])
    grey = Image.fromarray(np.dstack([whole[..., 0], alpha]))
    pictures(tmp_path, a=np.dstack([whole, alpha]), c=grey)
    in_palette.save(tmp_path / "b.png", transparency=0)
    data = read(tmp_path)
    assert (data.images[..., :4] == 255).all()
    np.testing.assert_array_equal(data.images[0, ..., 4:], whole.transpose(2, 0, 1)[..., 4:])
    np.testing.assert_array_equal(data.images[1, :, 0, 4], [200, 100, 50])
    np.testing.assert_array_equal(data.images[2, 1, :, 4:], whole[:, 4:, 0])
    assert f"3 {FLATTENED} (a.png)" in data.notes[0]
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 51))
    half.save(tmp_path / "half.png")
    assert (read(tmp_path).images[3] == 204).all(), "a fifth black, the rest white"


def test_every_format_that_can_be_read_is_and_what_is_left_out_is_said(tmp_path):
    pictures(
        tmp_path,
        cat__a=COLOUR[0],
        dog__a=COLOUR[1],
        **{".thumbnails__a": COLOUR[2], "cat__._a": COLOUR[3]},
    )
    suffixes = [".JFIF", ".jp2", ".tga"] + [".avif"] * features.check("avif")
    for suffix in suffixes:
        Image.fromarray(COLOUR[4]).save(tmp_path / "dog" / f"b{suffix}")
    for name in ("dog/a.heic", "dog/b.heic", "dog/a.eps", "README", ".DS_Store"):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    data = read(tmp_path)
    assert len(data) == 2 + len(suffixes)
    np.testing.assert_array_equal(data.labels, [0] + [1] * (len(data) - 1))
    said = "left out: 3 hidden (.DS_Store), 2 .heic (dog/a.heic), 1 without a suffix (README), 1 .eps (dog/a.eps)"
    assert data.notes == (f"{tmp_path}: {len(data)} images in 2 classes (cat, dog); {said}",)
    (tmp_path / "dog" / "a.eps").rename(tmp_path / "dog" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        read(tmp_path)  # and no Ghostscript is started


def test_linked_folders_are_entered_and_no_folder_twice(tmp_path):
    pictures(tmp_path / "elsewhere", x=COLOUR[0], deep__y=COLOUR[1])
    root = pictures(tmp_path / "root", b__z=COLOUR[2])
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "back").symlink_to(root)
    (root / "0").symlink_to(root / "b")
    data = read(root)
    np.testing.assert_array_equal(data.images, COLOUR[[1, 0, 2]].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, [0, 0, 1])
    assert "left out: 2 linked folders that are there already (0)" in data.notes[0]
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png: not a readable image \(.*No such file"):
        read(root)


def test_a_folder_that_cannot_be_read_is_no_empty_folder():
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        root = pictures(Path(name), a__x=COLOUR[0], b__y=COLOUR[1])
        root.chmod(0o755)
        (root / "b").chmod(0o000)
        user = os.geteuid()
        os.seteuid(user or 65534)  # to root, every folder is open
        try:
            with pytest.raises(
                UserError,
                match=r"b: this folder can't be read \(Permission denied\); make it readable",
            ):
                read(root)
        finally:
            os.seteuid(user)
            (root / "b").chmod(0o755)


def png_of_16_bits(pixels):
    """[H, W, 3] uint16 -> the content of a PNG file, which Pillow can't write."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_more_frames_and_finer_colours_are_said(tmp_path):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "b.tif", save_all=True, append_images=[second, second])
    (tmp_path / "c.png").write_bytes(png_of_16_bits(np.full((8, 8, 3), [0xFF12, 0x0034, 0x0056])))
    data = read(tmp_path)
    np.testing.assert_array_equal(
        data.images, np.broadcast_to(np.array([255, 0, 0])[:, None, None], (3, 3, 8, 8))
    )
    assert f"2 {FRAMES} (a.gif)" in data.notes[0]
    assert f"1 {DEEP} (c.png)" in data.notes[0]


def test_names_in_a_note_are_plain_text(tmp_path):
    pictures(
        tmp_path / "a", **{"\x1b[2J\n": COLOUR[0]}, **{f"class{i}__x": COLOUR[1] for i in range(12)}
    )
    (tmp_path / "a" / os.fsdecode(b"caf\xe9.\x07")).write_text("")
    (note,) = read(tmp_path / "a").notes
    assert note.isprintable()
    assert (
        "13 images, without classes: 1 lie in no subfolder (class0, class1, class10, class11"
        in note
    )


def sharded(root):
    """A folder as StyleGAN's and EDM's dataset_tool writes it."""
    return pictures(
        root, **{"00000__img0": COLOUR[0], "00000__img1": COLOUR[1], "00001__img2": COLOUR[2]}
    )


def test_labels_of_a_dataset_json(tmp_path):
    root = sharded(tmp_path)
    of_paths = [
        ["00001/img2.png", 5],
        ["00000/img0.png", 5],
        ["00000\\img1.png", -3],
        ["00001/img3.png", 1],
    ]
    (root / "dataset.json").write_text(json.dumps({"labels": of_paths}))
    data = read(root)
    np.testing.assert_array_equal(data.labels, [5, -3, 5])
    assert (
        "3 images in 2 classes, as dataset.json says (1 more images in it are not there)"
        in data.notes[0]
    )
    (root / "dataset.json").write_text('{"labels": null}')
    assert read(root).labels is None, "shards are no classes"
    assert "without classes, as dataset.json says" in read(root).notes[0]
    (root / "dataset.json").write_text('{"name": "of another program"}')
    np.testing.assert_array_equal(read(root).labels, [0, 0, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"labels": [["00000/img0.png", 5]]}', r"dataset\.json has no label for 00000/img1\.png"),
        (
            '{"labels": [["00000/img0.png", [0, 1]]]}',
            "the label of 00000/img0.png is not an integer",
        ),
        ('{"labels": [["00000/img0.png", 0.5]]}', "is not an integer"),
        ('{"labels": [["00000/img0.png", 1e400]]}', "is not an integer"),
        ('{"labels": 3}', "not a readable list of labels"),
        ('{"labels": [', "not a readable list of labels"),
        ("[" * 100_000, "not a readable list of labels"),
    ],
)
def test_a_dataset_json_that_is_damaged(content, message, tmp_path):
    (sharded(tmp_path) / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_colour_image_is_no_set_of_grey_ones(tmp_path):
    np.savez(tmp_path / "x.npz", images=COLOUR[0])
    with pytest.raises(UserError, match=r"uint8 \[n, height, width, 1\] .* not uint8 \[8, 8, 3\]"):
        load(Arrays(path=str(tmp_path / "x.npz"), resolution=8, channels=1))
    np.savez(tmp_path / "x.npz", images=COLOUR[0, :, :4])
    with pytest.raises(UserError, match=r"uint8 \[n, height, width, 3\]"):
        load(Arrays(path=str(tmp_path / "x.npz"), resolution=8))
    np.savez(tmp_path / "x.npz", images=COLOUR[..., :4, 0])
    assert len(load(Arrays(path=str(tmp_path / "x.npz"), resolution=4, channels=1))) == 10, (
        "grey, as the user says"
    )


def test_arrays_that_are_not_used_are_said(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=COLOUR, label=np.arange(10), names=np.array([{}], dtype=object))
    assert load(Arrays(path=str(path), resolution=8)).notes == (
        f"{path}: 10 images of 8x8 pixels, without classes; left out: label, names",
    )
    np.savez(path, pictures=COLOUR)
    with pytest.raises(UserError, match="no array named images; there are: pictures"):
        load(Arrays(path=str(path), resolution=8))


# ---------------------------------------------------------------- files that attack


def npy(shape, content=b"", dtype="|u1"):
    """An .npy file that promises this shape."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + content


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


class Payload:
    """Unpickling it makes a directory: what code of anybody's could do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path):
    file = io.BytesIO()
    np.save(file, np.array([Payload(path)], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images": npy((10**12, 8, 8, 3), b"x" * 192)}, r"promises uint8 \[1000000000000, 8, 8, 3\], and 192 bytes are there"),
        ({"images": npy((10**400, 8, 8, 3), b"x" * 192)}, r"promises uint8 \[10000"),
        ({"images": npy((-1, 8, 8, 3), b"x" * 192)}, "and 192 bytes are there"),
        ({"images": npy((2, 8, 8, 3), b"x" * 192)}, "and 192 bytes are there"),
        ({"images": npy((1, 8, 8, 3), b"x" * 193)}, "and 193 bytes are there"),
        ({"images": npy((1, 8, 8, 3), b"x" * 192), "labels": npy((10**12,), dtype="<i8")}, "and 0 bytes are there"),
        ({"images": npy((1, 8, 8, 3), b"x" * 192).replace(b"{", b"{" * 5000)}, "not a readable"),
    ],
)  # fmt: skip
def test_arrays_that_promise_more_than_there_is(members, message, tmp_path):
    path = npz(tmp_path / "x.npz", **members)
    with pytest.raises(UserError, match=message) as caught:
        load(Arrays(path=str(path), resolution=8))
    assert len(str(caught.value)) < 500


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """A real one that fills this machine's memory takes minutes to write: here it has little memory
    instead."""
    path = npz(tmp_path / "x.npz", images=npy((1_000_000, 4, 4, 1), bytes(16_000_000)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=20_000_000))
    said = (
        r"1,000,000 images of 4x4 pixels would take 0\.0298 GiB of memory, and 0\.0186 GiB are free"
    )
    with pytest.raises(UserError, match=said):
        load(Arrays(path=str(path), resolution=4, channels=1))
    pictures(tmp_path, **{f"image{i}": COLOUR[i] for i in range(8)})
    with pytest.raises(UserError, match=r"8 images of 1024x1024 pixels would take .* are free"):
        read(tmp_path, resolution=1024)


def test_no_array_runs_code(tmp_path):
    trace = tmp_path / "trace"
    path = npz(tmp_path / "x.npz", images=npy((1, 8, 8, 3), b"x" * 192), labels=pickled(trace))
    with pytest.raises(UserError, match=r"Python objects.* may run code"):
        load(Arrays(path=str(path), resolution=8))
    with open(path, "rb") as file, pytest.raises(ValueError, match="may run code"):
        ArrayArchive(file).read("labels")
    assert not trace.exists()
    np.load(io.BytesIO(pickled(trace)), allow_pickle=True)
    assert trace.exists(), "else this test would see nothing"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("target", [None, "/dev/zero"])
def test_pipes_and_devices_are_not_read(target, tmp_path):
    """Reading these would never end."""
    for name in ("b.png", "dataset.json", "x.npz"):
        (tmp_path / "f").mkdir(exist_ok=True)
        path = tmp_path / "f" / name
        path.symlink_to(target) if target else os.mkfifo(path)
        with pytest.raises(UserError, match=f"{name}.*not a regular file"):
            load(Arrays(path=str(path), resolution=8)) if name == "x.npz" else read(
                pictures(tmp_path / "f", a=COLOUR[0])
            )
        path.unlink()


def test_pictures_too_large_to_read(tmp_path, recwarn):
    whole = png_of_16_bits(np.zeros((1, 1, 3), np.uint16))
    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    bomb = whole.replace(whole[16:33], head + struct.pack(">I", zlib.crc32(b"IHDR" + head)))
    (tmp_path / "a.png").write_bytes(bomb)
    with pytest.raises(UserError, match=r"a\.png: not a readable image \(.*200000000 pixels"):
        read(tmp_path)
    Image.new("1", (95_000_000, 1)).save(tmp_path / "a.png")
    assert len(read(tmp_path, channels=1)) == 1, "as large as a large camera's picture"
    (tmp_path / "a.png").unlink()
    with open(tmp_path / "a.webp", "wb") as sparse:
        sparse.write(b"RIFF\0\0\0\0WEBPVP8 ")
        sparse.truncate(2**33)
    with pytest.raises(UserError, match=r"a\.webp: not a readable image \(8,589,934,592 bytes"):
        read(tmp_path)
    assert not recwarn.list


def test_emm_trial_says_what_it_reads(tmp_path, capsys):
    root = pictures(tmp_path / "[red]", **{f"{'ab'[i % 2]}__{i}": COLOUR[i] for i in range(10)})
    settings = {"data.kind": "folder", "data.path": root, "data.resolution": 8, "trainer.length": 1}
    settings |= {
        "network.width": 4,
        "measurement.n_samples": 4,
        "measurement.n_selection": 4,
        "measurement.snapshots": 2,
    }
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "trial",
                "digits",
                "--config",
                "base",
                "--n",
                "4",
                "--out",
                str(tmp_path / "out"),
                *options,
            ]
        )
    assert ended.value.code == 0
    assert f"note: {root}: 10 images in 2 classes (a, b)\n" in capsys.readouterr().out

"""What subsets, plans and tracking need of every source of images."""

import numpy as np
import pytest
from PIL import Image

from search_spaces.find import find_space
from tests.kinds import kinds_of
from trainables.config.data import (
    Arrays,
    Cifar10,
    Data,
    Digits,
    Duplicates,
    Folder,
    HuggingFace,
    Mix,
    Mnist5k,
    Photos,
    Source,
    Torchvision,
)
from trainables.config.fields import validated
from trainables.data.images import subset_order
from trainables.data.sources import load
from trainables.errors import UserError

RNG = np.random.default_rng(0)


def folder(tmp_path):
    for index, pixels in enumerate(RNG.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)):
        path = tmp_path / "folder" / "abc"[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return Folder(path=str(tmp_path / "folder"), resolution=8)


def arrays(tmp_path):
    images = RNG.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(30) % 3)
    return Arrays(path=str(tmp_path / "x.npz"), resolution=8)


def torchvision(tmp_path):
    """The format of MNIST: two bytes of nothing, the kind of numbers, the number of axes, sizes."""
    raw = tmp_path / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = RNG.integers(0, 256, (30, 28, 28)).astype(np.uint8), np.arange(30) % 3
    for part in ("train", "t10k"):
        sizes = b"".join(size.to_bytes(4) for size in images.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.tobytes())
        head = b"\0\0\x08\x01" + (30).to_bytes(4)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    return Torchvision(name="MNIST", root=str(tmp_path / "sets"), resolution=28, channels=1)


def huggingface(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Image as Picture

    images = [Image.fromarray(x) for x in RNG.integers(0, 256, (30, 8, 8, 3)).astype(np.uint8)]
    kinds = Features(image=Picture(), label=ClassLabel(names=list("abc")))
    content = {"image": images, "label": [index % 3 for index in range(30)]}
    Dataset.from_dict(content, features=kinds).save_to_disk(tmp_path / "set")
    return HuggingFace(path=str(tmp_path / "set"), resolution=8)


# one of each kind; a new one stands here too
SOURCES = {
    Digits: lambda tmp_path: Digits(),
    Mnist5k: lambda tmp_path: Mnist5k(resolution=14),
    Cifar10: lambda tmp_path: Cifar10(root=str(tmp_path / "root")),
    Folder: folder,
    Arrays: arrays,
    Torchvision: torchvision,
    HuggingFace: huggingface,
    Photos: lambda tmp_path: Photos(resolution=16),
}
PUBLIC = {Digits, Mnist5k, Cifar10, Photos}


def named(kind):
    return kind.model_fields["kind"].default


@pytest.fixture(params=SOURCES, ids=named)
def source(request, tmp_path, cifar_archive):
    return SOURCES[request.param](tmp_path)


def other(source, **fields):
    return source.model_copy(update=fields)


def test_every_kind_is_tried():
    assert SOURCES.keys() == set(kinds_of(Data))


def test_it_is_read_as_it_says(source):
    data = load(source, may_fetch=True)
    side = source.resolution
    assert data.images.shape == (len(data), source.channels, side, side)
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int64)
    assert data.labels.shape == (len(data),)
    assert data.images.std() > 10
    assert data.source == source.kind
    assert load(source).digest == data.digest
    assert sorted(subset_order(data, 0).tolist()) == list(range(len(data)))
    if not source.is_private:
        assert source.n_classes == len(np.unique(data.labels)), "what a plan counts on"
        assert data.notes == (), "nothing to be told of what everybody has"


def test_it_is_read_smaller_and_in_part(source):
    data = load(source, may_fetch=True)
    small = load(other(source, resolution=4))
    assert small.images.shape == (len(data), source.channels, 4, 4)
    assert small.digest != data.digest
    np.testing.assert_array_equal(small.labels, data.labels)
    whole, parts = data.images.mean((1, 2, 3)), small.images.mean((1, 2, 3))
    assert np.corrcoef(whole, parts)[0, 1] > 0.9, "the same pictures, in the same order"
    few = load(other(source, classes=2))
    kept = np.isin(data.labels, np.unique(data.labels)[:2])
    np.testing.assert_array_equal(few.images, data.images[kept])
    np.testing.assert_array_equal(few.labels, data.labels[kept])
    with pytest.raises(UserError, match=r"^data\.classes: 99 is more than"):
        load(other(source, classes=99))


def test_it_mixes_and_is_copied(source):
    n = len(load(source, may_fetch=True))
    both = load(other(source, mix=Mix(share=0.5, data=source)))
    assert len(both) == 2 * both.second.sum() == pytest.approx(2 * n, abs=2 * source.n_classes)
    copied = load(other(source, duplicates=Duplicates(share=1, multiplicity=3)))
    three_each = 3 * len(np.unique(copied.labels))
    images, times = np.unique(subset_order(copied, 0)[:three_each], return_counts=True)
    assert (len(images), set(times.tolist())) == (three_each // 3, {3})


def test_it_survives_json(source):
    again = type(source).model_validate_json(source.model_dump_json())
    assert again == source


# ---------------------------------------------------------------- what may be shown


@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
def test_pictures_of_private_data_stay_in_the_storage(source, is_second):
    """Of a second source too; unless they are asked for."""
    first = source
    if is_second:
        public = {1: Mnist5k, 3: Photos}[source.channels](resolution=source.resolution)
        first = other(public, mix=Mix(share=0.5, data=source))
    digits = find_space("digits-width")
    base = validated(type(digits.base), {**digits.base.model_dump(), "data": first.model_dump()})
    space = digits.model_copy(update={"base": base})
    assert space.images == ("pairs" if type(source) in PUBLIC else "none")
    asked = space.with_settings({"tracking.images": "generated"})
    assert asked.images == "generated"


def test_a_source_is_private_unless_it_says_otherwise():
    class Scans(Source):
        pass

    assert Scans().is_private
    assert {kind for kind in kinds_of(Data) if not kind.is_private} == PUBLIC

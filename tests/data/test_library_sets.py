"""Sets of torchvision and of Hugging Face's `datasets`, on disk in the formats that these libraries
read."""

import io
import json
import pickle
import re
import socket
import struct
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from sweep.cli.main import main
from trainables.config.data import Arrays, Cifar10, Folder, HuggingFace, Torchvision
from trainables.data.sources import load
from trainables.errors import UserError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (30, 28, 28)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(30) * 7 % 10
NAMES = get_args(Torchvision.model_fields["name"].annotation)


def idx(array):
    """An array of uint8 in the IDX format of MNIST: 0 0, 8 for uint8, the number of axes; sizes."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def mnist(root, name="MNIST"):
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    for part, chosen in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(GREY[chosen]))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS[chosen]))
    return str(root)


def saved(root, images, labels):
    np.savez(root / "same.npz", images=images, labels=labels)
    channels = images.shape[3] if images.ndim == 4 else 1
    side = images.shape[1]
    return load(Arrays(path=str(root / "same.npz"), resolution=side, channels=channels))


@pytest.fixture
def offline(monkeypatch):
    """What was asked of the network, all of which fails."""
    asked = []

    def refuse(*where, **more):
        asked.append(where[0])
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


# ---------------------------------------------------------------- torchvision


@pytest.mark.parametrize(
    ("split", "chosen"), [(None, slice(0, 20)), ("train", slice(0, 20)), ("test", slice(20, 30))]
)
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_mnist_as_it_lies_on_the_disk(name, split, chosen, tmp_path):
    root = mnist(tmp_path, name)
    data = load(Torchvision(name=name, root=root, split=split, resolution=28, channels=1))
    assert data.digest == saved(tmp_path, GREY[chosen], LABELS[chosen]).digest
    part = f" {split}" if split else ""
    assert data.notes == (f"torchvision's {name}{part}: {len(GREY[chosen])} images in 10 classes",)


def test_cifar10_is_the_same_by_both_its_kinds(cifar_archive):
    root, _ = cifar_archive
    ours = load(Cifar10(root=str(root)), may_fetch=True)
    theirs = Torchvision(name="CIFAR10", root=str(root), resolution=32)
    assert load(theirs).digest == ours.digest
    small = theirs.model_copy(update={"resolution": 16, "split": "test"})
    assert load(small).images.shape == (10, 3, 16, 16)
    assert len(load(theirs.model_copy(update={"classes": 2}))) == 10


def test_pictures_of_a_set_are_read_by_our_rules(tmp_path):
    """Not by torchvision, which drops alpha and knows no EXIF; and bad ones are named."""
    exif = Image.Exif()
    exif[0x0112] = 6
    root = tmp_path / "eurosat" / "2750"
    for index, image in enumerate(COLOUR):
        path = root / ("Forest", "River")[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **({"exif": exif} if index == 0 else {}))
    clear = np.where(np.arange(8) < 3, 0, 255).astype(np.uint8) * np.ones((8, 1), np.uint8)
    Image.fromarray(np.dstack([COLOUR[1], clear])).save(root / "River" / "01.png")
    source = Torchvision(name="EuroSAT", root=str(tmp_path), resolution=8)
    as_folder = load(Folder(path=str(root), resolution=8))
    data = load(source)
    assert data.digest == as_folder.digest
    assert data.notes[0].startswith("torchvision's EuroSAT: 12 images in 2 classes; 1 turned as")
    assert "laid on white (eurosat/2750/River/01.png)" in data.notes[0]
    (root / "Forest" / "02.png").write_bytes(b"no picture")
    (root / "River" / "05.png").write_bytes(b"")
    bad = r"data\.name=EuroSAT: 2 of 12 .* eurosat/2750/Forest/02\.png: .*River/05\.png: .*skip_bad"
    with pytest.raises(UserError, match=bad):
        load(source)
    good = load(source.model_copy(update={"skip_bad": True}))
    assert good.labels.tolist() == [0] * 5 + [1] * 5


def test_a_set_with_parts_and_options(tmp_path):
    root = tmp_path / "food-101"
    listed = {
        "train": {"cake": ["cake/1", "cake/2"], "soup": ["soup/1"]},
        "test": {"cake": ["cake/3"], "soup": ["soup/2"]},
    }
    for part, of_part in listed.items():
        for number, path in enumerate(path for paths in of_part.values() for path in paths):
            file = root / "images" / f"{path}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(COLOUR[number]).save(file)
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / f"{part}.json").write_text(json.dumps(of_part))
    source = Torchvision(name="Food101", root=str(tmp_path), resolution=8)
    assert load(source).labels.tolist() == [0, 0, 1]
    assert load(source.model_copy(update={"split": "test"})).labels.tolist() == [0, 1]
    with pytest.raises(UserError, match=r"^data\.name=Food101: Unknown value 'val' .*train.*test"):
        load(source.model_copy(update={"split": "val"}))


def test_of_faces_the_class_is_who_it_is(tmp_path, monkeypatch):
    """CelebA's files, as they come; torchvision's own choice would be forty attributes."""
    from torchvision.datasets import CelebA

    monkeypatch.setattr(CelebA, "file_list", [])  # the checksums of the real ones
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{index:06}.jpg" for index in range(1, 7)]
    for name, image in zip(names, COLOUR, strict=False):
        Image.fromarray(image).save(root / "img_align_celeba" / name)
    tables = {
        "list_eval_partition": ["0", "0", "2", "0", "0", "1"],
        "identity_CelebA": ["7", "9", "7", "9", "11", "7"],
        "list_bbox_celeba": ["1 2 3 4"] * 6,
        "list_landmarks_align_celeba": ["1 2"] * 6,
        "list_attr_celeba": ["1 -1"] * 6,
    }
    heads = {
        "list_bbox_celeba": "x y w h",
        "list_landmarks_align_celeba": "x y",
        "list_attr_celeba": "a b",
    }
    for table, values in tables.items():
        lines = [f"{name} {value}" for name, value in zip(names, values, strict=True)]
        head = ["6", heads[table]] if table in heads else []
        (root / f"{table}.txt").write_text("\n".join([*head, *lines]) + "\n")
    source = Torchvision(name="CelebA", root=str(tmp_path), resolution=8)
    assert load(source).labels.tolist() == [7, 9, 9, 11]
    assert load(source.model_copy(update={"split": "all"})).labels.tolist() == [7, 9, 7, 9, 11, 7]
    with pytest.raises(UserError, match=r"^data\.name=CelebA: its labels are no single classes"):
        load(source.model_copy(update={"options": {"target_type": "attr"}}))


def test_what_a_set_calls_unlabelled_has_no_classes(tmp_path, monkeypatch):
    from torchvision.datasets import STL10

    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)  # it is not the real one
    (tmp_path / "stl10_binary").mkdir()
    columns_first = RNG.integers(0, 256, (2, 3, 96, 96)).astype(np.uint8)
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").write_bytes(columns_first.tobytes())
    data = load(Torchvision(name="STL10", root=str(tmp_path), split="unlabeled", resolution=96))
    assert data.labels is None
    np.testing.assert_array_equal(data.images, columns_first.transpose(0, 1, 3, 2))
    assert data.notes == ("torchvision's STL10 unlabeled: 2 images, without classes",)


def test_fake_data_needs_no_root():
    options = {"size": 40, "image_size": [3, 8, 8], "num_classes": 4}
    source = Torchvision(name="FakeData", resolution=8, options=options)
    data = load(source)
    assert (data.images.shape, data.labels.min(), data.labels.max()) == ((40, 3, 8, 8), 0, 3)
    assert load(source).digest == data.digest
    with pytest.raises(UserError, match=r"^data\.split: FakeData has no parts"):
        load(source.model_copy(update={"split": "test"}))
    known = r"^data\.options\.sice: FakeData has these options: size, image_size, num_classes, random_offset$"
    with pytest.raises(UserError, match=known):
        load(source.model_copy(update={"options": {"sice": 3}}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "MNIST"}, r"^data\.root: say which directory holds MNIST"),
        ({"name": "MNIST", "root": ".", "split": "val"}, r"^data\.split: MNIST has train and test, not 'val'$"),
        ({"name": "MNIST", "root": ".", "options": {"x": 1}}, r"^data\.options\.x: MNIST has these options: none$"),
        ({"name": "EMNIST", "root": "."}, r"^data\.options\.split: EMNIST needs it$"),
        ({"name": "EMNIST", "root": ".", "options": {"split": "all"}}, r"^data\.name=EMNIST: .* 'all'.*balanced"),
        ({"name": "FER2013", "root": ".", "download": True}, r"^data\.download: torchvision does not fetch FER2013"),
    ],
)  # fmt: skip
def test_what_a_set_has_not(fields, message):
    with pytest.raises(UserError, match=message):
        load(Torchvision(**fields, resolution=28))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "FakeData"])
def test_no_set_is_fetched_unasked(name, tmp_path, offline):
    """By none of them, also where torchvision would by default; and no directory is made."""
    options = {"options": {"split": "letters"}} if name == "EMNIST" else {}
    source = Torchvision(name=name, root=str(tmp_path), resolution=8, **options)
    elsewhere = source.model_copy(update={"root": str(tmp_path / "nowhere")})
    for one, may_fetch in ((elsewhere, True), (elsewhere, False), (source, False)):
        with pytest.raises(UserError, match=f"no intact {name} in "):
            load(one, may_fetch)
    with pytest.raises(UserError) as caught:
        load(source, may_fetch=True)
    line = str(caught.value)
    assert line.startswith(f"data.root: no intact {name} in ")
    assert "\n" not in line
    can_be_fetched = "--set data.download=true" in line
    if can_be_fetched:
        with pytest.raises(UserError, match="; emm run and emm trial fetch and unpack it"):
            load(source.model_copy(update={"download": True}))
    assert can_be_fetched == (name not in {"FER2013", "ImageNet"})
    assert offline == []
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_fetched_when_that_is_asked_for(tmp_path, offline):
    source = Torchvision(name="KMNIST", root=str(tmp_path), resolution=28, download=True)
    with pytest.raises(UserError, match=r"no intact KMNIST in .*\(.*\)$"):
        load(source, may_fetch=True)
    assert len(offline) > 0


def test_a_wrong_name_is_answered_by_all_that_there_are(capsys):
    words = ["plan", "digits", "--set", "data.kind=torchvision", "--set", "data.name=Mnist"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--set", "data.resolution=28"])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("emm: error: data.name: ")
    assert line.endswith("not 'Mnist'\n")
    assert all(f"'{name}'" in line for name in NAMES)


# ---------------------------------------------------------------- Hugging Face


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def rows(labels=None, **columns):
    """A `datasets.Dataset` of COLOUR; labels: of three classes."""
    import datasets

    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    content = {
        "img": [{"bytes": png(image), "path": None} for image in COLOUR],
        "label": list(np.arange(12) % 3 if labels is None else labels),
    }
    made = datasets.Dataset.from_dict(content, features=datasets.Features(kinds), split="train")
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def parquet(root, **parts):
    (root / "data").mkdir(parents=True)
    for name, part in parts.items():
        part.to_parquet(root / "data" / f"{name}-00000-of-00001.parquet")
    return str(root)


def hugging(path, **fields):
    return load(HuggingFace(path=str(path), **{"resolution": 8, **fields}))


@pytest.fixture
def same(tmp_path):
    return saved(tmp_path, COLOUR, np.arange(12) % 3)


def test_every_form_of_a_local_directory(tmp_path, same, offline, monkeypatch):
    """Parquet as the Hub has it, what save_to_disk writes, and folders of pictures; no network, and
    no copy of them is left behind."""
    import datasets

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    rows().save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=rows(), test=rows().select([3])).save_to_disk(tmp_path / "dict")
    parquet(tmp_path / "parquet", train=rows(), test=rows().select([3, 4]))
    for index, image in enumerate(COLOUR):
        path = tmp_path / "pictures" / "train" / "abc"[index // 4] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    before = sorted(cache.rglob("*")) if cache.exists() else None
    for form in ("saved", "dict", "parquet"):
        data = hugging(tmp_path / form)
        assert data.digest == same.digest, form
        assert data.notes == (
            f"{tmp_path}/{form}, train: 12 images (img) in 3 classes, as the column label says",
        )
    assert len(hugging(tmp_path / "parquet", split="test")) == 2
    assert len(hugging(tmp_path / "dict", split="test")) == 1
    of_pictures = load(Folder(path=str(tmp_path / "pictures" / "train"), resolution=8))
    assert hugging(tmp_path / "pictures").digest == of_pictures.digest
    assert list((tmp_path / "temporary").iterdir()) == []
    assert (sorted(cache.rglob("*")) if cache.exists() else None) == before
    assert offline == []


def test_columns_are_found_or_asked_for(tmp_path):
    more = {"fine": list("ponmlkjihgfe"), "size": list(range(12)), "weight": [0.5] * 12}
    root = parquet(tmp_path / "x", train=rows(**more))
    data = hugging(root)
    assert "as the column label says; left out: the columns fine, size, weight" in data.notes[0]
    by_name = hugging(root, label="fine", image="img")
    assert by_name.labels.tolist() == list(range(11, -1, -1)), "names, sorted"
    assert hugging(root, label="size").labels.tolist() == list(range(12))
    for fields, message in (
        ({"label": "coarse"}, r"^data\.label: there is img, label, fine, size, weight$"),
        ({"label": "weight"}, r"^data\.label: weight of row 0 is neither an integer nor a name$"),
        ({"image": "label"}, r"^data\.image: say which column holds the images; there is img$"),
        ({"split": "test"}, r"^data\.path: .* can't be read \(.*test"),
        ({"config": "other"}, r"^data\.path: .* can't be read \(.*other"),
    ):
        with pytest.raises(UserError, match=message):
            hugging(root, **fields)
    two = rows().rename_column("label", "coarse_label")
    two = two.add_column("image", [{"bytes": png(image), "path": None} for image in COLOUR])
    two = two.cast_column("image", two.features["img"])
    two = two.add_column("fine_label", [1] * 12).cast_column(
        "fine_label", two.features["coarse_label"]
    )
    both = parquet(tmp_path / "two", train=two)
    with pytest.raises(UserError, match=r"^data\.image: say which .*; there is img, image$"):
        hugging(both)
    with pytest.raises(
        UserError, match=r"^data\.label: say which column; .*coarse_label, fine_label$"
    ):
        hugging(both, image="img")


def test_without_labels(tmp_path):
    data = hugging(parquet(tmp_path / "x", train=rows(labels=[-1] * 12)))
    assert data.labels is None
    assert "12 images (img), without classes (label is -1)" in data.notes[0]
    none = hugging(parquet(tmp_path / "y", train=rows().remove_columns("label")))
    assert none.labels is None
    assert none.notes == (f"{tmp_path}/y, train: 12 images (img), without classes",)


def test_bad_rows_are_named_and_left_out(tmp_path, offline):
    """A path in a row is read as any path is: no pipe, and nothing of the network."""
    import datasets

    content = [{"bytes": png(image), "path": None} for image in COLOUR]
    content[2] = {"bytes": b"no picture", "path": "2.png"}
    content[5] = None
    content[7] = {"bytes": None, "path": "https://localhost/7.png"}
    content[9] = {"bytes": None, "path": "/dev/zero"}
    kinds = datasets.Features(img=datasets.Image(), label=datasets.Value("int64"))
    table = pyarrow.table({"img": content, "label": list(range(12))}, schema=kinds.arrow_schema)
    (tmp_path / "x").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "x" / "train.parquet")
    said = r"4 of 12 images can't be read: row 2: not .*, row 5: .*there is none.*row 7.*row 9.*regular"
    with pytest.raises(UserError, match=rf"^data\.path: {said}.*skip_bad=true$"):
        hugging(tmp_path / "x")
    data = hugging(tmp_path / "x", skip_bad=True)
    assert data.labels.tolist() == [0, 1, 3, 4, 6, 8, 10, 11]
    assert offline == []
    assert re.search(r"8 images .*; left out: 4 that can't be read \(row 2: ", data.notes[0])


def test_the_hub_is_asked_only_when_that_is_wanted(tmp_path, offline, monkeypatch):
    from datasets import config
    from huggingface_hub import constants

    source = HuggingFace(name="nobody/of-this-name", resolution=8)
    with pytest.raises(UserError, match=r"can't be read .*--set data\.download=true$") as caught:
        load(source, may_fetch=True)
    assert "\n" not in str(caught.value)
    wanted = source.model_copy(update={"download": True})
    with pytest.raises(UserError, match=r"; emm run and emm trial fetch it$"):
        load(wanted)
    assert offline == []
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again and again
    with pytest.raises(UserError, match=r"can't be read \(.*\)$"):
        load(wanted, may_fetch=True)
    assert len(offline) > 0
    assert not constants.HF_HUB_OFFLINE
    assert not config.HF_HUB_OFFLINE
    with pytest.raises(UserError, match=r"^data\.path: '.*nowhere' is not a directory$"):
        hugging(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^data\.name: '/a' is no name on the Hub; a directory is"):
        load(HuggingFace(name="/a", resolution=8))


def test_what_was_fetched_once_needs_no_network(tmp_path, same, offline, monkeypatch):
    import datasets

    root = parquet(tmp_path / "of-this-name", train=rows())
    datasets.load_dataset(root, cache_dir=str(tmp_path / "cache"))
    # what the library keeps of nobody/of-this-name
    (tmp_path / "cache" / "of-this-name").rename(tmp_path / "cache" / "nobody___of-this-name")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = HuggingFace(name="nobody/of-this-name", resolution=8, download=True)
    assert load(source).digest == same.digest
    assert offline == []


def test_no_code_of_a_directory_is_run(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    (tmp_path / "x" / "pickled.pkl").write_bytes(pickle.dumps(1))
    with pytest.raises(UserError, match=r"^data\.path: .* can't be read"):
        hugging(tmp_path / "x")
    assert not (tmp_path / "trace").exists()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"; pip install 'emm-sweep\[huggingface\]'$"):
        hugging(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets")
    (tmp_path / "datasets").mkdir()  # the user's own, with pictures in it
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"; pip install 'emm-sweep\[huggingface\]'$") as caught:
        hugging(tmp_path)
    assert "\n" not in str(caught.value)

"""ZIP files as StyleGAN's and EDM's dataset_tool writes them, tables of labels, and arrays with names
of anybody's choice."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from trainables.config.data import Arrays, Folder
from trainables.data.sources import load
from trainables.errors import UserError

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def folder(root, **files):
    """`a__b`: a/b.png"""
    for name, image in files.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return root


def zip_of(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, bytes | str) else png(content))
    return path


def read(path, **fields):
    return load(Folder(path=str(path), **{"resolution": 8, **fields}))


# ---------------------------------------------------------------- ZIP files


def edm(labels=LABELS, images=COLOUR):
    """What EDM's dataset_tool.py writes: its names, its list, nothing compressed."""
    names = [f"{index // 4:05d}/img{index:08d}.png" for index in range(len(images))]
    listed = None if labels is None else [[n, int(y)] for n, y in zip(names, labels, strict=True)]
    return dict(zip(names, images, strict=True)) | {"dataset.json": json.dumps({"labels": listed})}


def test_a_zip_of_stylegan_is_the_data_that_it_was_made_of(tmp_path):
    data = read(zip_of(tmp_path / "x.zip", edm()))
    np.testing.assert_array_equal(data.images, COLOUR.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, LABELS)
    np.savez(tmp_path / "x.npz", images=COLOUR, labels=LABELS)
    assert data.digest == load(Arrays(path=str(tmp_path / "x.npz"), resolution=8)).digest
    assert data.notes == (
        f"{tmp_path}/x.zip: 10 images in 7 classes, as dataset.json says; left out: 1 .json (dataset.json)",
    )
    without = read(zip_of(tmp_path / "y.zip", edm(labels=None)))
    assert without.labels is None
    assert "10 images, without classes, as dataset.json says" in without.notes[0]


def test_a_zip_is_the_folder_that_is_in_it(tmp_path):
    """In any order, and with what a Mac adds; also where all of it lies in one folder."""
    files = {
        "b/1.png": COLOUR[0],
        "a/2.png": COLOUR[1],
        "a-b/3.png": COLOUR[2],
        "a/.4.png": "",
        "a/c.txt": "",
    }
    for name, content in files.items():
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else png(content))
    of_folder = read(tmp_path / "x")
    flat = read(zip_of(tmp_path / "flat.ZIP", files))
    macs = {f"__MACOSX/x/._{n}": "" for n in "ab"}
    deep = read(zip_of(tmp_path / "deep.zip", {f"x/{name}": f for name, f in files.items()} | macs))
    assert of_folder.digest == flat.digest == deep.digest
    assert of_folder.labels.tolist() == flat.labels.tolist() == deep.labels.tolist() == [0, 1, 2]
    said = ": 3 images in 3 classes (a, a-b, b); left out: 1 hidden (a/.4.png), 1 .txt (a/c.txt)"
    assert said in of_folder.notes[0]
    assert said in flat.notes[0]
    assert "left out: 2 of macOS (__MACOSX/x/._a), 1 hidden (a/.4.png), 1 .txt" in deep.notes[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for image in COLOUR[:2]:
            archive.writestr("a.png", png(image))
    data = read(tmp_path / "x.zip")
    np.testing.assert_array_equal(data.images[0].transpose(1, 2, 0), COLOUR[1])
    assert "left out: 1 that a later one of the same name replaces (a.png)" in data.notes[0]


def test_a_damaged_zip(tmp_path):
    path = zip_of(
        tmp_path / "x.zip", {"a.png": COLOUR[0], "b.png": COLOUR[1], "../c.png": COLOUR[2]}
    )
    whole = path.read_bytes()
    first = 30 + len("a.png")
    path.write_bytes(whole[: first + 60] + b"damage" + whole[first + 66 :])
    with pytest.raises(UserError, match=r"1 of 2 images can't be read: a\.png: .*CRC"):
        read(path)
    data = read(path, skip_bad=True)
    assert len(data) == 1
    assert "1 hidden (../c.png)" in data.notes[0]
    at = whole.index(b"PK\1\2") + 8
    path.write_bytes(whole[:at] + struct.pack("<H", 1) + whole[at + 2 :])
    with pytest.raises(UserError, match=r"a\.png: not a readable image \(.*encrypted"):
        read(path)
    for content in (b"", whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^data\.path: .*x\.zip: not a readable ZIP file \("):
            read(path)
    with pytest.raises(UserError, match=r"no image in .*; it is empty"):
        read(zip_of(tmp_path / "empty.zip", {}))


# ---------------------------------------------------------------- tables of labels


def table(path, text):
    path.write_text(text)
    return str(path)


def test_labels_of_a_table(tmp_path):
    root = folder(tmp_path / "x", a=COLOUR[0], deep__b=COLOUR[1], c=COLOUR[2])
    names = table(
        tmp_path / "n.csv",
        '\ufeffid,label,file_name\n1,dog,a.png\n2,"ape, big",deep\\b.png\n3,dog,./c.png\n',
    )
    data = read(root, labels_file=names)
    assert data.labels.tolist() == [1, 1, 0], "by their names, a c deep/b"
    assert data.notes == (f"{root}: 3 images in 2 classes (ape, big, dog), as n.csv says",)
    numbers = table(tmp_path / "i.csv", "file,class\nc.png,-2\na.png,10\ndeep/b.png,9\nd.png,7\n")
    data = read(root, labels_file=numbers)
    assert data.labels.tolist() == [10, -2, 9], "as they are"
    assert "in 3 classes, as i.csv says (1 more images in it are not there)" in data.notes[0]
    padded = table(tmp_path / "p.csv", "file,label\na.png,1\nc.png,01\ndeep/b.png,-0\n")
    assert read(root, labels_file=padded).labels.tolist() == [2, 1, 0], (
        "names, of which none are one"
    )
    in_zip = zip_of(
        tmp_path / "x.zip", {"a.png": COLOUR[0], "c.png": COLOUR[2], "deep/b.png": COLOUR[1]}
    )
    assert read(in_zip, labels_file=numbers).digest == data.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", r"t\.csv has no label for b\.png and 1 more$"),
        ("a.png,1\nb.png,2\n", r"first line must name a column file and a column label, and names a\.png, 1"),
        ("", "and names nothing"),
        ("file,label\na.png,1\na.png,2\n", r"a\.png is there with two labels, 1 and 2"),
        ("file,label\na.png,\n", "line 2 has no label"),
        ("file,label\na.png\n", "line 2 has no label"),
        ('file,label\na.png,"1\n', "not a readable table of labels"),
        ("file,label\na.png,\x00\ud800", "not a readable table of labels"),
        (None, "not a readable table of labels .*No such file"),
    ],
)  # fmt: skip
def test_tables_that_say_too_little(text, message, tmp_path):
    root = folder(tmp_path / "x", a=COLOUR[0], b=COLOUR[1], c=COLOUR[2])
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=message) as caught:
        read(root, labels_file=str(path))
    assert str(caught.value).startswith("data.labels_file: ")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- arrays


def arrays(path, **fields):
    return load(Arrays(path=str(path), **{"resolution": 8, **fields}))


def test_arrays_as_others_name_and_lay_them(tmp_path):
    """MedMNIST's names and shape of labels, guided-diffusion's names, channels first, .npy."""
    np.savez(tmp_path / "a.npz", images=COLOUR, labels=LABELS)
    known = arrays(tmp_path / "a.npz")
    np.savez(
        tmp_path / "m.npz",
        train_images=COLOUR,
        train_labels=LABELS[:, None].astype(np.uint8),
        test_images=COLOUR[:2],
    )
    med = arrays(tmp_path / "m.npz", images="train_images", labels="train_labels")
    assert med.notes == (
        f"{tmp_path}/m.npz: 10 images of 8x8 pixels in 7 classes; left out: test_images",
    )
    np.savez(tmp_path / "g.npz", COLOUR.transpose(0, 3, 1, 2), LABELS)
    guided = arrays(tmp_path / "g.npz", images="arr_0", labels="arr_1")
    np.save(tmp_path / "x.npy", np.asfortranarray(COLOUR))
    np.save(tmp_path / "y.npy", LABELS.astype(np.int16))
    alone = arrays(tmp_path / "x.npy", labels_file=str(tmp_path / "y.npy"))
    assert known.digest == med.digest == guided.digest == alone.digest
    other = arrays(tmp_path / "a.npz", labels_file=str(tmp_path / "y.npy"))
    assert other.notes == (
        f"{tmp_path}/a.npz: 10 images of 8x8 pixels in 7 classes; left out: labels",
    )
    assert arrays(tmp_path / "x.npy").labels is None


def test_what_is_read_of_a_mapped_array_stays(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR[..., :1])
    data = arrays(tmp_path / "x.npy", channels=1)
    np.load(tmp_path / "x.npy", mmap_mode="r+")[:] = 0
    np.testing.assert_array_equal(data.images[:, 0], COLOUR[..., 0])


def test_what_was_cut_or_resized_is_said(tmp_path):
    np.save(tmp_path / "x.npy", np.tile(COLOUR, (1, 2, 3, 1)))
    note = arrays(tmp_path / "x.npy").notes[0]
    assert note.endswith(
        ": 10 images of 24x16 pixels, without classes; all cropped to the square in their middle; all resized"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": "train_images"}, r"no array named train_images; there are: images, labels"),
        ({"labels": "y"}, r"no array named y; there are: images, labels"),
        ({"labels_file": "y.npy"}, r"data\.labels_file: must be integers \[10\], not int64 \[9\]"),
        ({"labels_file": "none.npy"}, r"data\.labels_file: none\.npy: not a readable array"),
    ],
)
def test_arrays_that_are_not_there(fields, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", images=COLOUR, labels=LABELS)
    np.save("y.npy", LABELS[:9])
    with pytest.raises(UserError, match=message):
        arrays("x.npz", **fields)

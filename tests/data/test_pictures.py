"""The rules by which pictures are read (docs/data.md): the same for training and for an audit,
whatever the pictures lie in. Expected pixels are worked out by hand."""

import json
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sweep.audit.compare import audit as compare
from sweep.audit.image_sets import open_set
from sweep.cli.main import main
from tests.data.test_sources import png_of_16_bits
from trainables.config.data import Folder
from trainables.data import pictures, regular_files
from trainables.data.sources import load
from trainables.errors import UserError

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
GREY = COLOUR[0, ..., 0]
DEEP = GREY.astype(np.uint16) * 256 + COLOUR[0, ..., 1]  # of which GREY is the upper half


def in_three(grey):
    return np.repeat(np.asarray(grey, dtype=np.uint8)[..., None], 3, axis=2)


def plain(*colour):
    return np.full((8, 8, 3), colour, np.uint8)


def palette(**options):
    image = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 200, 100, 50])
    return lambda path: image.save(path, **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(COLOUR[1]).copy()).save(path, exif=exif)


def frames(path):
    first, second = Image.fromarray(COLOUR[2]), Image.fromarray(COLOUR[3])
    first.save(path, save_all=True, append_images=[second])


def saved(image, **options):
    return lambda path: (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        path, **options
    )


CHEQUERED = np.where((np.arange(64).reshape(8, 8) % 2)[..., None], [200, 100, 50], [9, 9, 9])
# file → how it is made, its pixels in colour, whether it is grey, and what is said
RULES = {
    "grey.png": (saved(GREY), in_three(GREY), True, []),
    "two_levels.png": (saved(Image.fromarray(GREY > 99)), in_three((GREY > 99) * 255), True, []),
    "colour.png": (saved(COLOUR[1]), COLOUR[1], False, []),
    "palette.png": (palette(), CHEQUERED, False, []),
    "palette_clear.png": (
        palette(transparency=0), np.where(CHEQUERED == 9, 255, CHEQUERED), False, [pictures.FLATTENED],
    ),
    # a fifth of 77 and four of white
    "grey_alpha.png": (saved(Image.new("LA", (8, 8), (77, 51))), plain(219), True, [pictures.FLATTENED]),
    "grey_opaque.png": (saved(Image.new("LA", (8, 8), (77, 255))), plain(77), True, []),
    # (255 - ink) (255 - black) / 255
    "cmyk.tif": (
        saved(Image.new("CMYK", (8, 8), (10, 20, 30, 40))), plain(207, 198, 190), False,
        ["in CMYK, made RGB without a colour profile"],
    ),
    "turned.png": (turned, COLOUR[1], False, [pictures.TURNED]),
    "frames.tif": (frames, COLOUR[2], False, [pictures.FRAMES]),
    "frames.png": (frames, COLOUR[2], False, [pictures.FRAMES]),
    "deep.png": (saved(DEEP), in_three(GREY), True, [pictures.DEEP]),
    "deep.tif": (saved(DEEP), in_three(GREY), True, [pictures.DEEP]),
    "deep.pgm": (saved(DEEP), in_three(GREY), True, [pictures.DEEP]),
    "deep_clear.png": (
        saved(DEEP, transparency=int(DEEP[0, 0])),
        in_three(np.where(DEEP[0, 0] == DEEP, 255, GREY)), True, [pictures.DEEP, pictures.FLATTENED],
    ),
    "deep_colour.png": (
        lambda path: path.write_bytes(png_of_16_bits(COLOUR[4].astype(np.uint16) * 256 + 255)),
        COLOUR[4], False, [pictures.DEEP],
    ),
    "of_12_bits.png": (saved(DEEP >> 4), in_three(GREY >> 4), True, [pictures.DEEP, pictures.DARK]),
}  # fmt: skip


@pytest.mark.parametrize("in_a_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", RULES)
def test_one_rule_for_all_who_read_pictures(name, in_a_zip, tmp_path):
    """In training and in an audit, which sees it beside a picture in colour."""
    make, expected, is_grey, words = RULES[name]
    root = tmp_path / "root"
    root.mkdir()
    make(root / name)
    saved(COLOUR[5])(root / "z.png")
    if in_a_zip:
        with zipfile.ZipFile(root := tmp_path / "x.zip", "w") as archive:
            for path in sorted((tmp_path / "root").iterdir()):
                archive.write(path, path.name)
    trained = load(Folder(path=str(root), resolution=8))
    np.testing.assert_array_equal(trained.images[0].transpose(1, 2, 0), expected)
    images = open_set("--train", root)
    found = compare(images, open_set("--generated", root), None, 1 / 3)
    np.testing.assert_array_equal(images.take([0, 1]).numpy(), trained.images)
    said = {f"1 {word} ({name})" for word in [*words, *[pictures.COLOURED] * is_grey]}
    assert set(trained.notes[0].split("; ")[1:]) == said
    assert set(found.notes[0].split("; ")[1:]) == said


@pytest.mark.parametrize("name", RULES)
def test_in_grey(name, tmp_path):
    """Of colours, the luma of ITU-R 601; what is grey already stays as it is, and is not told of."""
    make, expected, is_grey, words = RULES[name]
    make(tmp_path / name)
    data = load(Folder(path=str(tmp_path), resolution=8, channels=1))
    luma = expected @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(data.images[0, 0], luma, atol=1)
    said = {f"1 {word} ({name})" for word in [*words, *[pictures.GREYED] * (not is_grey)]}
    assert set(data.notes[0].split("; ")[1:]) == said


def test_a_palette_of_greys_is_no_conversion(tmp_path):
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    data = load(Folder(path=str(tmp_path), resolution=8, channels=1))
    np.testing.assert_array_equal(data.images[0, 0], GREY)
    assert data.notes == (f"{tmp_path}: 1 images, without classes",)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_more_than_16_bits_are_refused(kind, tmp_path):
    """Pillow would clip them at 255 without a word."""
    Image.fromarray((np.arange(64).reshape(8, 8) * 1000).astype(kind)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep\.tif: it has 32 bits per channel .*at most 16"):
        load(Folder(path=str(tmp_path), resolution=8, channels=1))


def test_every_rule_is_in_the_docs():
    page = (ROOT / "docs" / "data.md").read_text()
    for word in ("16 bits", "palette", "CMYK", "EXIF", "alpha", "frames", "grey", "Text"):
        assert word in page


# ---------------------------------------------------------------- bad ones, all at once


def some_bad(root, n_bad=13):
    """Pictures 00 … 15 in two classes, of which every one from 03 on, `n_bad` of them, is none."""
    for index, image in enumerate(COLOUR):
        path = root / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if 3 <= index < 3 + n_bad:
            path.write_bytes(path.read_bytes()[:50])
    return root


def zipped(root):
    path = root.parent / f"{root.name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root))
    return path


@pytest.mark.parametrize("make", [lambda root: root, zipped], ids=["folder", "zip"])
def test_all_bad_pictures_are_named_at_once(make, tmp_path):
    """Ten of them; the rest are counted."""
    root = make(some_bad(tmp_path / "x"))
    for read in (
        lambda: load(Folder(path=str(root), resolution=8)),
        lambda: open_set("--train", root),
    ):
        with pytest.raises(UserError) as caught:
            read()
        line = str(caught.value)
        assert "\n" not in line
        assert "13 of 16 images can't be read: a/04.png: not a readable image (" in line
        assert len(re.findall(r"[ab]/\d\d\.png", line)) == 10
        assert ", and 3 more; mend or remove them, or leave them out: " in line
        assert line.endswith(("--set data.skip_bad=true", "--skip-bad"))
        assert line.startswith(("data.path: ", "--train "))


@pytest.mark.parametrize("make", [lambda root: root, zipped], ids=["folder", "zip"])
def test_bad_pictures_are_left_out_if_that_is_wanted(make, tmp_path):
    root = make(some_bad(tmp_path / "x", n_bad=2))
    data = load(Folder(path=str(root), resolution=8, skip_bad=True))
    good = np.delete(COLOUR, [3, 4], axis=0)
    labels = np.delete(np.arange(16) % 2, [3, 4])
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(data.images, good[order].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.labels, labels[order])
    assert (
        ": 14 images in 2 classes (a, b); left out: 2 that can't be read (a/04.png: "
        in data.notes[0]
    )
    images = open_set("--train", root, skip_bad=True)
    compare(images, images, None, 1 / 3)
    assert images.notes[0].startswith(
        "--train: 14 images; left out: 2 that can't be read (a/04.png: "
    )
    assert [images.name(index) for index in (1, 2, 8)] == ["a/02.png", "a/06.png", "b/05.png"]
    for path in ("a/04.png", "b/03.png"):
        (tmp_path / "x" / path).unlink()
    assert data.digest == load(Folder(path=str(tmp_path / "x"), resolution=8)).digest


def test_of_none_that_is_good_nothing_is_left(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"1 of 1 images can't be read: a\.png: not a .*\)$"):
        load(Folder(path=str(tmp_path), resolution=8, skip_bad=True))


def test_an_audit_that_leaves_out_bad_pictures(tmp_path, capsys):
    root = some_bad(tmp_path / "x", n_bad=2)
    words = ["audit", "--train", root, "--generated", root, "--holdout", zipped(root)]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--json"])
    assert (ended.value.code, capsys.readouterr().out) == (2, "")
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--json", "--skip-bad"])
    found = json.loads(capsys.readouterr().out)
    assert (ended.value.code, found["n_training"], found["n_memorized"]) == (0, 14, 14)
    assert found["null_in_training"] == 14
    assert [note.split("(")[0] for note in found["notes"]] == [
        f"--{name}: 14 images; left out: 2 that can't be read "
        for name in ("train", "generated", "holdout")
    ]


def test_too_large_a_member_of_a_zip_is_not_unpacked(tmp_path, monkeypatch):
    saved(COLOUR[0])(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.png", "a.png")
        archive.writestr("b.png", bytes(5_000_000))
    monkeypatch.setattr(regular_files, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", only_small(zipfile.ZipFile.read))
    with pytest.raises(UserError, match=r"1 of 2 .* b\.png: .*5,000,000 bytes are more than"):
        load(Folder(path=str(tmp_path / "x.zip"), resolution=8))


def test_a_member_of_a_zip_for_which_there_is_no_memory(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.png", bytes(2**26 + 1))
    monkeypatch.setattr(zipfile.ZipFile, "read", only_small(zipfile.ZipFile.read))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**26))
    with pytest.raises(UserError, match=r"b\.png: .*67,108,865 bytes are more than the 67,108,864"):
        load(Folder(path=str(tmp_path / "x.zip"), resolution=8))


def only_small(read):
    def checked(archive, info):
        assert info.file_size < 1_000_000
        return read(archive, info)

    return checked

"""Images of the user's own: pictures in a folder or a ZIP file, or arrays.

A reader is called with its source and `may_fetch`, which makes no difference here. It raises
UserError for what is missing, damaged, or not what the source says, and its note says what was
found and done.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config.data import Arrays, Folder
from trainables.data.array_files import channels_first, check_images, map_npy, open_npz
from trainables.data.images import resized
from trainables.data.picture_files import is_picture_files, labels_of, list_pictures
from trainables.data.pictures import check_memory, enumerated, fitting, picture_suffixes, read_all
from trainables.data.pools import Ints, Pool
from trainables.errors import UserError
from trainables.text import printable

PATH = "data.path:"  # what messages about files begin with


def read_folder(source: Folder, may_fetch: bool) -> Pool:
    root = Path(source.path).expanduser()
    if not is_picture_files(root):
        raise UserError(f"{PATH} {source.path!r} is not a directory, nor a .zip file")
    files = list_pictures(PATH, root)
    if not files.names:
        left_out = "; ".join(files.said) or "it is empty"
        suffixes = ", ".join(sorted(picture_suffixes()))
        raise UserError(f"{PATH} no image in {source.path!r}; {left_out} (looked for {suffixes})")
    table = Path(source.labels_file).expanduser() if source.labels_file else None
    labels_of(PATH, files, files.names, table)  # before much is read, whether there are any
    images, good, said = read_all(
        PATH, files.pictures, source.channels, source.resolution, source.skip_bad
    )
    labels, classes = labels_of(PATH, files, [files.names[index] for index in good], table)
    words = "; ".join([classes, *files.said, *said])
    return Pool(images, labels, notes=(f"{printable(source.path)}: {len(images):,} images{words}",))


# ---------------------------------------------------------------- arrays


def read_arrays(source: Arrays, may_fetch: bool) -> Pool:
    path = Path(source.path).expanduser()
    read = _read_npy if path.suffix.lower() == ".npy" else _read_npz
    array, labels, groups, left_out = read(source, path)
    n, channels, height, width = shape = check_images(
        PATH, array.shape, array.dtype, source.channels
    )
    if source.labels_file:
        labels = _integers("data.labels_file:", source.labels_file, n)
    images = resized(channels_first(array, channels), source.resolution)
    classes = "without classes" if labels is None else f"in {len(np.unique(labels)):,} classes"
    apart = ", " if labels is None else " "
    words = [f"{n:,} images of {width}x{height} pixels{apart}{classes}"]
    if left_out:
        words.append(f"left out: {enumerated(left_out)}")
    words += [f"all {kind}" for kind in fitting(shape, source.resolution)]
    return Pool(images, labels, groups, notes=(f"{printable(source.path)}: {'; '.join(words)}",))


# images, labels and groups, and the names of what is left out
Found = tuple[NDArray[Any], Ints | None, Ints | None, list[str]]


def _check_room(source: Arrays, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """The number of images of such an array; raises UserError if it holds none, or if there is no
    memory for it and for what is made of it."""
    n, channels, height, width = check_images(PATH, shape, dtype, source.channels)
    if n == 0:
        raise UserError(f"{PATH} no image is in {source.path!r}: {dtype} {list(shape)}")
    size = f"{n:,} images of {width}x{height} pixels"
    check_memory(PATH, size, n * channels * (height * width + source.resolution**2))
    return n


def _read_npy(source: Arrays, path: Path) -> Found:
    mapped = map_npy(PATH, path)
    _check_room(source, mapped.shape, mapped.dtype)
    return np.array(mapped), None, None, []  # what is mapped may change


def _read_npz(source: Arrays, path: Path) -> Found:
    with open_npz(PATH, path) as archive:
        wanted = [source.images]
        if source.labels != "labels":  # asked for by name
            wanted.append(source.labels)
        for name in wanted:
            if name not in archive.names:
                there = f"there are: {enumerated(archive.names)}"
                there = there if archive.names else "there is none at all"
                raise UserError(f"{PATH} {source.path!r} has no array named {name}; {there}")
        header = archive.header(source.images)
        n = _check_room(source, header.shape, header.dtype)
        has_other = bool(source.labels_file)
        names = {"labels": None if has_other else source.labels, "groups": "groups"}
        taken = {what: name for what, name in names.items() if name in archive.names}
        for name in taken.values():
            of_each = archive.header(name)
            _check_integers(f"{PATH} {name}", of_each.shape, of_each.dtype, n)
        images = archive.read(source.images)
        found = {
            what: archive.read(name).reshape(n).astype(np.int64) for what, name in taken.items()
        }
        used = {source.images, *taken.values()}
        left_out = [name for name in archive.names if name not in used]
    return images, found.get("labels"), found.get("groups"), left_out


def _integers(option: str, path: str, n: int) -> Ints:
    array = map_npy(option, Path(path).expanduser())
    _check_integers(option, array.shape, array.dtype, n)
    return np.array(array.reshape(n), dtype=np.int64)


def _check_integers(what: str, shape: tuple[int, ...], dtype: np.dtype[Any], n: int) -> None:
    if shape not in ((n,), (n, 1)) or not np.issubdtype(dtype, np.integer):
        raise UserError(f"{what} must be integers [{n}], not {dtype} {list(shape)}")

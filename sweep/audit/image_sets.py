"""Images made anywhere, read piece by piece: folders of pictures, and array files. Nothing is kept
in memory."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.images import resized
from trainables.data.pictures import (
    check_memory,
    done_to,
    enumerated,
    is_grey,
    list_pictures,
    map_npy,
    open_npz,
    read_picture,
)
from trainables.data.pools import UInt8
from trainables.errors import UserError
from trainables.text import printable


@dataclass
class ImageSet:
    """Images [channels, height, width] uint8, one after the other, all brought to one `Frame`.

    option: how the user named it, for messages. source: a folder's files, or an array [n, C, H, W]
    uint8 (mapped from an .npy file; an .npz file can only be read whole). said: what else there is,
    in words. changed: [n] bool, images that had to be resized or get other colours, so far; done:
    what else was done to pictures so far, kind → their positions.
    """

    option: str
    path: Path
    source: list[Path] | NDArray[Any]
    said: list[str] = field(default_factory=list)
    frame: "Frame | None" = None
    changed: NDArray[np.bool_] = field(init=False)
    done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        self.changed = np.zeros(len(self.source), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The path of a picture below the folder, or the position in an array."""
        if not isinstance(self.source, list):
            return f"[{index}]"
        return printable(self.source[index].relative_to(self.path))

    @property
    def channels(self) -> int:
        """3 if any image is in colour, by their headers; else 1."""
        if not isinstance(self.source, list):
            return int(self.source.shape[1])
        return 1 if all(is_grey(self.option, path) for path in self.source) else 3

    @property
    def notes(self) -> list[str]:
        """What was found, left out and changed; complete when all images were read."""
        kind = "images"
        if not isinstance(self.source, list):
            _, channels, height, width = self.source.shape
            kind = f"{'grey' if channels == 1 else 'colour'} images of {width}x{height} pixels"
        changed = (
            [f"{self.changed.sum():,} of them were resized or recoloured"]
            if self.changed.any()
            else []
        )
        words = [f"{len(self):,} {kind}", *self.said, *done_to(self.done, self.name), *changed]
        return [f"{self.option}: {'; '.join(words)}"]

    def raw(self, index: int) -> UInt8:
        """One image, as a viewer shows it: see `read_picture`."""
        if not isinstance(self.source, list):
            return np.asarray(self.source[index])
        pixels, kinds = read_picture(self.option, self.source[index])
        for kind in kinds:
            self.done[kind].add(index)
        return pixels

    def take(self, indices: Iterable[int]) -> Tensor:
        """[any, C, H, W] uint8. Raises UserError for an image that can't be read or does not fit
        the frame."""
        return torch.from_numpy(np.stack([self._framed(index) for index in indices]))

    def chunks(self, size: int, of: NDArray[np.int64] | None = None) -> Iterator[Tensor]:
        """`size` images at a time, of those at the positions `of`, by default of all."""
        chosen = np.arange(len(self)) if of is None else of
        for start in range(0, len(chosen), size):
            yield self.take(chosen[start : start + size].tolist())

    def _framed(self, index: int) -> UInt8:
        assert self.frame is not None
        image, frame = self.raw(index), self.frame
        if image.shape[1:] != frame.size and not frame.resizes:
            raise UserError(
                f"--resolution R: {self.option} {self.name(index)} is "
                f"{image.shape[2]}x{image.shape[1]} pixels and others are "
                f"{frame.size[1]}x{frame.size[0]}; say to which one resolution all are resized"
            )
        if image.shape == (frame.channels, *frame.size):
            return image
        self.changed[index] = True
        if len(image) > frame.channels:
            raise UserError(
                f"{self.option} {self.name(index)}: it is in colour, and its header says that it "
                "is grey"
            )
        if len(image) < frame.channels:  # grey: the same in all colours
            image = np.repeat(image, frame.channels, axis=0)
        return resized(image[None], frame.size[0])[0] if image.shape[1:] != frame.size else image


@dataclass(frozen=True)
class Frame:
    """What all images are compared as: `size` (height, width). Images of another size are resized,
    or refused."""

    channels: int
    size: tuple[int, int]
    resizes: bool

    @property
    def pixels(self) -> int:
        return self.channels * self.size[0] * self.size[1]


def frame_of(sets: Sequence[ImageSet], resolution: int | None) -> Frame:
    """The size of the first image (or the resolution asked for); grey only if all images of all
    sets are."""
    size = sets[0].raw(0).shape[1:] if resolution is None else (resolution, resolution)
    in_colour = any(images.channels == 3 for images in sets)
    return Frame(3 if in_colour else 1, (size[0], size[1]), resolution is not None)


def open_set(option: str, path: Path, least: int = 1) -> ImageSet:
    """A folder (with all below it), an .npy file, or an .npz file. Raises UserError if there are
    not `least` images."""
    source: list[Path] | NDArray[Any]
    if path.is_dir():
        found = list_pictures(option, path)
        source, said = found.files, found.said
    elif path.suffix == ".npy":
        source, said = _images(option, path, map_npy(option, path)), []
    elif path.suffix == ".npz":
        source, said = _from_archive(option, path)
    else:
        raise UserError(f"{option} {path}: a folder of images, an .npy or an .npz file is needed")
    if len(source) < least:
        others = f" ({'; '.join(said)})" if said else ""
        raise UserError(
            f"{option} {path}: {len(source)} images are there, and {least} or more are "
            f"needed{others}"
        )
    return ImageSet(option, path, source, said)


def _from_archive(option: str, path: Path) -> tuple[NDArray[Any], list[str]]:
    """Its array `images`, else the first, and in words which others there are."""
    with open_npz(option, path) as archive:
        if not archive.names:
            raise UserError(f"{option} {path}: there is no array in it")
        name = "images" if "images" in archive.names else archive.names[0]
        header = archive.header(name)
        _check_images(option, path, header.shape, header.dtype)
        check_memory(f"{option} {path}:", "its images", header.n_bytes)
        array = archive.read(name)
        others = [other for other in archive.names if other != name]
    said = f"the array {printable(name)} was taken, left out: {enumerated(others)}"
    return _images(option, path, array), [said] if others else []


def _images(option: str, path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """[n, C, H, W], a view."""
    _check_images(option, path, array.shape, array.dtype)
    array = array[..., None] if array.ndim == 3 else array
    return array.transpose(0, 3, 1, 2) if array.shape[3] in (1, 3) else array


def _check_images(option: str, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    needed = "uint8 [n, height, width, 1 or 3] is needed"
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        one, many = [1, *shape], [*shape, 1]
        raise UserError(
            f"{option} {path}: {needed}, not {list(shape)}; give one image as {one}, grey images "
            f"as {many}"
        )
    of_colours = len(shape) == 3 or (len(shape) == 4 and {1, 3} & {shape[1], shape[3]})
    if dtype != np.uint8 or not of_colours or 0 in shape[1:]:
        raise UserError(f"{option} {path}: {needed}, not {dtype} {list(shape)}")

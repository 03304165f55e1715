"""Images made anywhere, read piece by piece: folders and ZIP files of pictures, and array files.
Nothing is kept in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.array_files import channels_first, check_images, map_npy, open_npz
from trainables.data.images import resized
from trainables.data.picture_files import is_picture_files, list_pictures
from trainables.data.pictures import (
    COLOURED,
    Pictures,
    check_memory,
    enumerated,
    fitting,
    in_words,
    look_at_all,
)
from trainables.data.pools import Ints, UInt8
from trainables.errors import UserError
from trainables.progress import Advance
from trainables.text import printable

MOST_SIDE = 1024  # pixels, that images may be resized to


@dataclass
class ImageSet:
    """Images [channels, height, width] uint8, one after the other, all brought to one `Frame`.

    option: how the user named it, for messages. source: pictures, or an array [n, C, H, W] uint8
    (mapped from an .npy file; an .npz file can only be read whole). shapes: [n, 3], of each as it
    lies there. said: what else there is and what was done to pictures, in words.
    """

    option: str
    path: Path
    source: Pictures | NDArray[Any]
    shapes: Ints
    said: list[str] = field(default_factory=list)
    frame: "Frame | None" = None

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The path of a picture below the folder, or the position in an array."""
        if isinstance(self.source, Pictures):
            return printable(self.source.names[index])
        return f"[{index}]"

    @property
    def notes(self) -> list[str]:
        """What was found, left out and changed."""
        kind = "images"
        if not isinstance(self.source, Pictures):
            _, channels, height, width = self.source.shape
            kind = f"{'grey' if channels == 1 else 'colour'} images of {width}x{height} pixels"
        return [f"{self.option}: {'; '.join([f'{len(self):,} {kind}', *self.said, *self._fitted])}"]

    @property
    def _fitted(self) -> list[str]:
        """How many images were brought to the frame, in words."""
        assert self.frame is not None
        done: dict[str, list[int]] = {}
        for index, (channels, height, width) in enumerate(self.shapes.tolist()):
            kinds = [COLOURED] if channels < self.frame.channels else []
            if self.frame.resizes:
                kinds += fitting((height, width), self.frame.size[0])
            for one in kinds:
                done.setdefault(one, []).append(index)
        return in_words(done, self.name)

    def fit(self, frame: "Frame") -> None:
        """From now on all images are brought to this frame."""
        self.frame = frame

    def take(self, indices: Iterable[int]) -> Tensor:
        """[any, C, H, W] uint8."""
        return torch.from_numpy(np.stack([self._framed(index) for index in indices]))

    def chunks(
        self,
        size: int,
        of: NDArray[np.int64] | None = None,
        advance: Advance = lambda amount: None,
    ) -> Iterator[Tensor]:
        """`size` images at a time, of those at the positions `of`, by default of all. `advance`: is
        told of those that are done, when the next are asked for."""
        chosen = np.arange(len(self)) if of is None else of
        for start in range(0, len(chosen), size):
            some = chosen[start : start + size].tolist()
            yield self.take(some)
            advance(len(some))

    def _framed(self, index: int) -> UInt8:
        assert self.frame is not None
        if isinstance(self.source, Pictures):
            image, _ = self.source.read(index, self.frame.channels)
        else:
            image = np.broadcast_to(
                self.source[index], (self.frame.channels, *self.source.shape[2:])
            )
        is_fitting = image.shape[1:] == self.frame.size
        return image if is_fitting else resized(image[None], self.frame.size[0])[0]


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
    sets are. Raises UserError if one has another size and may not be resized."""
    _, height, width = sets[0].shapes[0].tolist()
    size = (height, width) if resolution is None else (resolution, resolution)
    for images in sets if resolution is None else ():
        others = np.flatnonzero((images.shapes[:, 1:] != size).any(axis=1))
        if len(others):
            _, other_height, other_width = images.shapes[others[0]]
            raise UserError(
                f"--resolution: {images.option} {images.name(int(others[0]))} is "
                f"{other_width}x{other_height} pixels and {sets[0].option} {sets[0].name(0)} is "
                f"{width}x{height}; add --resolution {_common_side(sets[1])}, by which all are cut "
                "to the square in their middle and resized to that"
            )
    channels = max(int(images.shapes[:, 0].max()) for images in sets)
    return Frame(channels, size, resolution is not None)


def _common_side(images: ImageSet) -> int:
    """Of generated images the most frequent shorter side: what their model was trained at."""
    sides, counts = np.unique(images.shapes[:, 1:].min(axis=1), return_counts=True)
    return int(np.clip(sides[counts.argmax()], 2, MOST_SIDE))


def open_set(option: str, path: Path, least: int = 1, skip_bad: bool = False) -> ImageSet:
    """A folder or a .zip file (with all below it), an .npy file, or an .npz file. Every picture is
    read once, to know what it is.

    Raises UserError if there are not `least` images, and for pictures that can't be read, unless
    these are to be left out.
    """
    if is_picture_files(path):
        return _checked(_of_pictures(option, path, skip_bad), least)
    where = f"{option} {path}:"
    if path.suffix == ".npy":
        array, said = map_npy(option, path), list[str]()
    elif path.suffix == ".npz":
        array, said = _from_archive(option, path)
    else:
        raise UserError(
            f"{where} a folder or a .zip file of images, an .npy or an .npz file is needed"
        )
    n, *shape = check_images(where, array.shape, array.dtype)
    shapes = np.broadcast_to(np.array(shape, dtype=np.int64), (n, 3))
    return _checked(ImageSet(option, path, channels_first(array, shape[0]), shapes, said), least)


def _checked(images: ImageSet, least: int) -> ImageSet:
    if len(images) < least:
        others = f" ({'; '.join(images.said)})" if images.said else ""
        raise UserError(
            f"{images.option} {images.path}: {len(images)} images are there, and {least} or more "
            f"are needed{others}"
        )
    return images


def _of_pictures(option: str, path: Path, skip_bad: bool) -> ImageSet:
    found = list_pictures(option, path).pictures
    shapes = np.zeros((len(found), 3), dtype=np.int64)

    def measure(index: int, pixels: UInt8) -> list[str]:
        shapes[index] = pixels.shape
        return []

    good, said = look_at_all(option, found, measure, skip_bad, "--skip-bad")
    return ImageSet(option, path, found.take(good), shapes[good], [*found.said, *said])


def _from_archive(option: str, path: Path) -> tuple[NDArray[Any], list[str]]:
    """Its array `images`, else the first, and in words which others there are."""
    where = f"{option} {path}:"
    with open_npz(option, path) as archive:
        if not archive.names:
            raise UserError(f"{where} there is no array in it")
        name = "images" if "images" in archive.names else archive.names[0]
        header = archive.header(name)
        check_images(where, header.shape, header.dtype)
        check_memory(where, "its images", header.n_bytes)
        array = archive.read(name)
        others = [other for other in archive.names if other != name]
    said = f"the array {printable(name)} was taken, left out: {enumerated(others)}"
    return array, [said] if others else []

"""Arrays of anybody's, in .npy and .npz files: what a header promises is looked at before anything
is read, and Python objects never are."""

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.data.regular_files import open_regular, reading
from trainables.errors import UserError


class Header(NamedTuple):
    """What the head of an .npy file says of its array, and where its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], size: int) -> Header:
    """The head of an .npy file of `size` bytes. Raises ValueError if it promises other than what is
    there, or objects."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format is not known")
    shape, fortran, dtype = readers[version](file)
    header = Header(shape, dtype, fortran, file.tell())
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and reading these may run code")
    if min(shape, default=0) < 0 or header.n_bytes != size - header.offset:
        raise ValueError(
            f"it promises {dtype} {list(shape)}, and {size - header.offset:,} bytes are there"
        )
    return header


class ArrayArchive:
    """The arrays of an .npz file by name, in its order. What a damaged file makes its methods raise
    may be any exception."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file)
        members = [info for info in self._zip.infolist() if info.filename.endswith(".npy")]
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        self.names = list(self._members)

    def header(self, name: str) -> Header:
        """Of an array; costs next to nothing. See `read_header`."""
        info = self._members[name]
        with self._zip.open(info) as member:
            return read_header(member, info.file_size)

    def read(self, name: str) -> NDArray[Any]:
        """An array, of the size that its header says: to be looked at before."""
        self.header(name)
        with self._zip.open(self._members[name]) as member:
            return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


@contextmanager
def open_npz(option: str, path: Path) -> Iterator[ArrayArchive]:
    with reading(option, path, "array"), open_regular(path) as file:
        yield ArrayArchive(file)


def map_npy(option: str, path: Path) -> NDArray[Any]:
    """The array of an .npy file, mapped: its values are read where they are used."""
    with reading(option, path, "array"), open_regular(path) as file:
        if file.read(2) == b"PK":
            raise ValueError("what is in it is an .npz file")
        file.seek(0)
        header = read_header(file, os.fstat(file.fileno()).st_size)
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)


# ---------------------------------------------------------------- images among them


def check_images(
    option: str, shape: tuple[int, ...], dtype: np.dtype[Any], channels: int | None = None
) -> tuple[int, int, int, int]:
    """n, channels, height, width of an array of images: uint8 [n, height, width(, channels)], or
    channels first.

    channels: 1, 3, or None: either. [n, height, width] is of grey images, unless it may be one
    image in colour (or, where the channels are not known, with transparency). Raises UserError.
    """
    known = (1, 3) if channels is None else (channels,)
    may_be_one = len(shape) == 3 and shape[2] in ((1, 3) if channels else (1, 3, 4))
    whole = (*shape, 1) if len(shape) == 3 and not may_be_one else shape
    is_last = len(whole) == 4 and whole[3] in known
    is_first = len(whole) == 4 and not is_last and whole[1] in known
    if dtype != np.uint8 or not (is_last or is_first) or 0 in shape[1:]:
        needed = f"uint8 [n, height, width, {' or '.join(map(str, known))}] is needed"
        said = f" (data.channels={channels})" if channels else ""
        hint = ""
        if may_be_one:
            one, many = [1, *shape], [*shape, 1]
            hint = f"; give one image as {one}, grey images as {many}"
        raise UserError(f"{option} {needed}{said}, not {dtype} {list(shape)}{hint}")
    if is_last:
        return whole[0], whole[3], whole[1], whole[2]
    return whole[0], whole[1], whole[2], whole[3]


def channels_first(array: NDArray[Any], channels: int) -> NDArray[Any]:
    """[n, channels, height, width], a view of what `check_images` has seen."""
    array = array[..., None] if array.ndim == 3 else array
    return array.transpose(0, 3, 1, 2) if array.shape[3] == channels else array

"""Pictures and arrays from files that anybody made: regular files only, sizes before content,
nothing left out unsaid.

`option` is how the user named the source ("data.path:", "--train"), with which every message
begins.
"""

import json
import math
import os
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from trainables.data.pools import UInt8
from trainables.errors import UserError
from trainables.text import first_line, printable

# Formats of Pillow's that are no pixels: documents, of which EPS starts Ghostscript, video, and
# scientific containers
NO_PICTURES = {"EPS", "WMF", "MPEG", "BUFR", "FITS", "GRIB", "HDF5"}
GREY_MODES = ("1", "L", "LA", "La")
# of a picture: twice Pillow's MAX_IMAGE_PIXELS, where it refuses one itself
MOST_PIXELS = 178_956_970
# of a picture's file, or of a dataset.json: several decoders read the whole of it into memory
MOST_BYTES = 2**31
SHOWN = 10  # names in a note

# what was done to a picture
TURNED = "turned as their EXIF orientation says"
FLATTENED = "with transparency, laid on white"
FRAMES = "with more frames, of which the first is taken"
DEEP = "with 16 bits a channel, of which the upper 8 are taken"
WARNED = "that Pillow warned of"


# ---------------------------------------------------------------- files


def open_regular(path: Path) -> IO[bytes]:
    """Raises OSError for anything but a regular file: reading a pipe or a device may never end."""
    # a pipe without a writer is not waited for
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return open(descriptor, "rb")


def check_memory(option: str, what: str, needed: int) -> None:
    """Raises UserError if `needed` bytes are more than this machine has free."""
    free = psutil.virtual_memory().available
    if needed > free:
        sizes = f"{needed / 2**30:,.3g} GiB of memory, and {free / 2**30:,.3g} GiB are free"
        raise UserError(f"{option} {what} would take {sizes}; give fewer or smaller images")


@contextmanager
def _reading(option: str, path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a decoder raises whatever a damaged file makes it stumble on
        reason = printable(first_line(error)[:200])
        raise UserError(f"{option} {printable(path)}: not a readable {what} ({reason})") from error


# ---------------------------------------------------------------- folders


@dataclass
class PictureFolder:
    """The pictures below a folder, [n] paths sorted, and how many other things there are: kind →
    how many, and the first."""

    root: Path
    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, kind: str, path: Path) -> None:
        self.left_out[kind] += 1
        self.first.setdefault(kind, printable(path.relative_to(self.root)))

    @property
    def said(self) -> list[str]:
        """What was left out, in words; nothing if that is nothing."""
        kinds = [
            f"{count:,} {kind} ({self.first[kind]})"
            for kind, count in self.left_out.most_common(SHOWN)
        ]
        more = ["and others"] if len(self.left_out) > SHOWN else []
        return [f"left out: {', '.join(kinds + more)}"] if kinds else []


@cache
def picture_formats() -> tuple[str, ...]:
    """What the installed Pillow reads, in the order in which it tries them."""
    Image.init()
    return tuple(name for name in Image.ID if name not in NO_PICTURES)


@cache
def picture_suffixes() -> frozenset[str]:
    """Of these formats, in lower case."""
    readable = {*picture_formats(), "MPO"}  # MPO, of some cameras, is opened as JPEG
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in readable
    )


def list_pictures(option: str, root: Path) -> PictureFolder:
    """All pictures below `root`, also behind linked folders; each folder is entered once, a real
    one before links to it.

    Hidden files and folders (.DS_Store, ._a.png, .thumbnails) are left out. Raises UserError for a
    folder that can't be read.
    """
    suffixes, found, entered = picture_suffixes(), PictureFolder(root), set()
    real, linked = [root], list[Path]()
    while real or linked:
        directory = real.pop() if real else linked.pop(0)
        try:
            status = directory.stat()
            with os.scandir(directory) as entries:
                content = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            reason = f"this folder can't be read ({error.strerror})"
            raise UserError(
                f"{option} {printable(directory)}: {reason}; make it readable, or move it away"
            ) from None
        if (status.st_dev, status.st_ino) in entered:
            found.leave_out("linked folders that are there already", directory)
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in content:
            path = directory / entry.name
            if entry.name.startswith("."):
                found.leave_out("hidden", path)
            elif os.path.isdir(path):
                (linked if entry.is_symlink() else real).append(path)
            elif path.suffix.lower() in suffixes:
                found.files.append(path)
            else:
                found.leave_out(printable(path.suffix.lower()) or "without a suffix", path)
    found.files.sort()
    return found


def enumerated(names: list[str]) -> str:
    """The first of many names, for a note."""
    shown = [printable(name if len(name) <= 40 else f"{name[:39]}…") for name in names[:SHOWN]]
    return ", ".join([*shown, "…"] if len(names) > SHOWN else shown)


def listed_labels(option: str, root: Path) -> dict[str, int] | None:
    """Path below `root` → label, by its dataset.json in the format of StyleGAN and EDM; empty if
    this says there are none.

    None without such a file; a dataset.json without a field "labels" is another one. Raises
    UserError if it is damaged, or if labels are not integers.
    """
    path = root / "dataset.json"
    if not os.path.lexists(path):
        return None
    with _reading(option, path, "list of labels"):
        with open_regular(path) as file:
            content = json.loads(_whole(file))
        if not isinstance(content, dict) or "labels" not in content:
            return None
        labels = {name.replace("\\", "/"): label for name, label in content["labels"] or ()}
        wrong = [
            name for name, label in labels.items() if type(label) is not int or abs(label) >= 2**63
        ]
        if wrong:
            raise ValueError(f"the label of {wrong[0]} is not an integer")
    return labels


def _whole(file: IO[bytes]) -> bytes:
    _check_size(file)
    return file.read()


def _check_size(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise ValueError(
            f"{size:,} bytes are more than the {MOST_BYTES:,} that such a file may have"
        )


# ---------------------------------------------------------------- pictures


@contextmanager
def _opened(option: str, path: Path) -> Iterator[tuple[Image.Image, list[warnings.WarningMessage]]]:
    """A picture whose header is read, and Pillow's warnings about it so far."""
    with _reading(option, path, "image"), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        # MOST_PIXELS is what counts
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with open_regular(path) as file:
            _check_size(file)
            with Image.open(file, formats=picture_formats()) as picture:
                pixels = picture.width * picture.height
                if pixels > MOST_PIXELS:
                    raise ValueError(f"{pixels:,} pixels are more than {MOST_PIXELS:,}")
                if picture.mode.startswith(("I", "F")):  # conversion would clip them at 255
                    raise UserError(
                        f"{option} {printable(path)}: 8 bits per channel are needed, "
                        f"and this image has more (mode {picture.mode}); save it with 8"
                    )
                yield picture, warned


def is_grey(option: str, path: Path) -> bool:
    """Whether a picture is grey, by its header."""
    with _opened(option, path) as (picture, _):
        return picture.mode in GREY_MODES


def read_picture(option: str, path: Path, channels: int | None = None) -> tuple[UInt8, list[str]]:
    """[channels, height, width] uint8, as a viewer shows it: turned by its EXIF orientation, what
    is transparent on white.

    channels: 1, 3, or None: 1 for a grey picture and 3 for another. With it come the words (TURNED,
    FLATTENED, …) for what was done to it. Raises UserError for what is no picture, is damaged, has
    more than 8 bits a pixel (grey) or too many pixels.
    """
    with _opened(option, path) as (picture, warned):
        done = [FRAMES] if getattr(picture, "is_animated", False) else []
        if any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ())):
            done.append(DEEP)
        if channels is None:
            channels = 1 if picture.mode in GREY_MODES else 3
        # to be asked before a TIFF file is decoded
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in range(2, 9):
            done.append(TURNED)
        picture.load()
        image = ImageOps.exif_transpose(picture) if TURNED in done else picture
        if image.has_transparency_data:
            whole = image.convert("RGBA")
            if whole.getchannel("A").getextrema() != (255, 255):
                image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
                done.append(FLATTENED)
        image = image.convert("L" if channels == 1 else "RGB")
        rows = np.asarray(image).reshape(image.height, image.width, channels)
        pixels: UInt8 = rows.transpose(2, 0, 1)
        if warned:
            done.append(WARNED)
    return pixels, done


def done_to(done: Mapping[str, Collection[int]], name: Callable[[int], str]) -> list[str]:
    """In words: how many pictures were not taken as they lie there, and the name of the first.
    `done`: kind → positions."""
    return [
        f"{len(those):,} {kind} ({printable(name(min(those)))})"
        for kind, those in sorted(done.items())
    ]


# ---------------------------------------------------------------- arrays


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
    with _reading(option, path, "array"), open_regular(path) as file:
        yield ArrayArchive(file)


def map_npy(option: str, path: Path) -> NDArray[Any]:
    """The array of an .npy file, mapped: its values are read where they are used."""
    with _reading(option, path, "array"), open_regular(path) as file:
        if file.read(2) == b"PK":
            raise ValueError("what is in it is an .npz file")
        file.seek(0)
        header = read_header(file, os.fstat(file.fileno()).st_size)
        order: Literal["F", "C"] = "F" if header.fortran else "C"
        return np.memmap(file, header.dtype, "r", header.offset, header.shape, order)

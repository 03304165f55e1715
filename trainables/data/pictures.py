"""Pictures that anybody made, by one set of rules for whatever reads them: docs/data.md has them
all. Nothing is left out or converted unsaid.

`option` is how the user named the source ("data.path:", "--train"), with which every message
begins.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import IO, Any

import numpy as np
import psutil
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from trainables.data.images import resized
from trainables.data.pools import Ints, UInt8
from trainables.errors import UserError
from trainables.progress import each
from trainables.text import first_line, printable

# Formats of Pillow's that are no pixels: documents, of which EPS starts Ghostscript, video, and
# scientific containers
NO_PICTURES = {"EPS", "WMF", "MPEG", "BUFR", "FITS", "GRIB", "HDF5"}
DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
GREY_MODES = ("1", "L", "LA", "La", *DEEP_GREY)
# of a picture: twice Pillow's MAX_IMAGE_PIXELS, where it refuses one itself
MOST_PIXELS = 178_956_970
SHOWN = 10  # names in a line

# what was done to a picture
TURNED = "turned as their EXIF orientation says"
FLATTENED = "with transparency, laid on white"
FRAMES = "with more frames, of which the first is taken"
DEEP = "with 16 bits a channel, of which the upper 8 are taken"
DARK = "of these with no value above 4,095 of 65,535, and nearly black so"
PROFILE = "in {mode}, made RGB without a colour profile"
GREYED = "in colour, made grey"
COLOURED = "grey, the same in all three colours"
CROPPED = "cropped to the square in their middle"
RESIZED = "resized"
WARNED = "that Pillow warned of"


class BadPicture(ValueError):
    """It can't be read; the text says why."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that are read when they are asked for.

    names: [n], what they are called. opened: position → its file (a regular one, of a size that may
    be read), or the picture as a library has opened it; may raise whatever it likes. said: in
    words, what else is there.
    """

    names: Sequence[str]
    opened: Callable[[int], IO[bytes] | Image.Image]
    said: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, chosen: Ints) -> "Pictures":
        """Those at these positions, all that is said of the whole left behind."""
        names = [self.names[index] for index in chosen]
        return Pictures(names, lambda index: self.opened(int(chosen[index])))

    def read(self, index: int, channels: int | None = None) -> tuple[UInt8, list[str]]:
        """[channels, height, width] uint8, as a viewer shows it: turned by its EXIF orientation,
        what is transparent on white.

        channels: 1, 3, or None: 1 for a grey picture and 3 for another. With it come the words
        (TURNED, FLATTENED, …) for what was done to it. Raises BadPicture for what is no picture, is
        damaged, or has more than 16 bits a channel or too many pixels.
        """
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            # MOST_PIXELS is what counts
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                opened = self.opened(index)
                if isinstance(opened, Image.Image):
                    pixels, done = _pixels(opened, channels)
                else:
                    with opened, Image.open(opened, formats=picture_formats()) as picture:
                        pixels, done = _pixels(picture, channels)
            except BadPicture:
                raise
            except UnidentifiedImageError as error:  # it names the file, which the caller does
                raise BadPicture("not a readable image (no known format)") from error
            except Exception as error:  # a decoder raises whatever a damaged file makes it
                reason = printable(first_line(error)[:100])
                raise BadPicture(f"not a readable image ({reason})") from error
        return pixels, [*done, WARNED] if warned else done


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


# ---------------------------------------------------------------- one picture


def _pixels(picture: Image.Image, channels: int | None) -> tuple[UInt8, list[str]]:
    """See `Pictures.read`."""
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError(f"{picture.width * picture.height:,} pixels are more than {MOST_PIXELS:,}")
    # older Pillows, and all for .pgm, have no mode of their own for it
    is_deep = picture.mode in DEEP_GREY or (
        picture.mode == "I" and picture.format in ("PNG", "PPM")
    )
    if picture.mode.startswith(("I", "F")) and not is_deep:  # conversion would clip them at 255
        raise BadPicture(
            f"it has 32 bits per channel (mode {picture.mode}), and at most 16 can be read"
        )
    done = [FRAMES] if getattr(picture, "is_animated", False) else []
    if is_deep or any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ())):
        done.append(DEEP)
    is_grey = is_deep or picture.mode in GREY_MODES
    if picture.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        done.append(PROFILE.format(mode=picture.mode))
    # to be asked before a TIFF file is decoded
    if picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
        done.append(TURNED)
    picture.load()
    image = ImageOps.exif_transpose(picture) if TURNED in done else picture
    image = _upper_bits(image) if is_deep else image
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        if whole.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
            done.append(FLATTENED)
    channels = channels or (1 if is_grey else 3)
    if channels == 3 and is_grey:
        done.append(COLOURED)
    elif channels == 1 and not is_grey and _has_colours(image):
        done.append(GREYED)
    image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    if DEEP in done and pixels.max() < 16:
        done.append(DARK)
    return pixels, done


def _upper_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits, with 8: with alpha where one of its values is transparent."""
    values = np.asarray(image)
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _has_colours(image: Image.Image) -> bool:
    """A picture of a palette, or of three channels, may be grey all the same."""
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels != pixels[..., :1]).any())


def fitting(shape: Sequence[int], resolution: int) -> list[str]:
    """What `resized` does to images [..., height, width], in words."""
    height, width = shape[-2:]
    words = {CROPPED: height != width, RESIZED: min(height, width) != resolution}
    return [word for word, is_so in words.items() if is_so]


# ---------------------------------------------------------------- all of them


def look_at_all(
    option: str,
    pictures: Pictures,
    use: Callable[[int, UInt8], list[str]],
    skip_bad: bool,
    how_to_skip: str,
    channels: int | None = None,
) -> tuple[Ints, list[str]]:
    """Reads every picture once, in their order, for `use`: (position, pixels) → what it did to it,
    in words. -> the positions of those that could be read, and what is said of all of them.

    Raises UserError that tells of all bad ones at once, unless these are to be left out.
    """
    done, bad = defaultdict[str, list[int]](list), dict[int, str]()
    for index in each(range(len(pictures)), f"reading the pictures of {option.rstrip(':')}"):
        try:
            pixels, kinds = pictures.read(index, channels)
        except BadPicture as error:
            bad[index] = str(error)
            continue
        for kind in [*kinds, *use(index, pixels)]:
            done[kind].append(index)
    names = [f"{printable(pictures.names[index])}: {why}" for index, why in bad.items()]
    more = [f"and {len(bad) - SHOWN:,} more"] if len(bad) > SHOWN else []
    listed = ", ".join(names[:SHOWN] + more)
    if bad and not (skip_bad and len(bad) < len(pictures)):
        hint = "" if skip_bad else f"; mend or remove them, or leave them out: {how_to_skip}"
        raise UserError(
            f"{option} {len(bad):,} of {len(pictures):,} images can't be read: {listed}{hint}"
        )
    good = np.setdiff1d(np.arange(len(pictures)), list(bad))
    said = [f"left out: {len(bad):,} that can't be read ({listed})"] if bad else []
    return good, [*said, *in_words(done, lambda index: printable(pictures.names[index]))]


def in_words(done: Mapping[str, Sequence[int]], name: Callable[[int], str]) -> list[str]:
    """How many images were not taken as they lie there, and the name of the first. `done`: kind →
    positions."""
    return [f"{len(those):,} {kind} ({name(min(those))})" for kind, those in sorted(done.items())]


def read_all(
    option: str, pictures: Pictures, channels: int, resolution: int, skip_bad: bool
) -> tuple[UInt8, Ints, list[str]]:
    """[m, channels, resolution, resolution] uint8, the positions [m] of these, and what is said; see
    `look_at_all`."""
    shape = (len(pictures), channels, resolution, resolution)
    check_memory(
        option,
        f"{len(pictures):,} images of {resolution}x{resolution} pixels",
        int(np.prod(shape, dtype=object)),
    )
    images = np.empty(shape, np.uint8)

    def keep(index: int, pixels: UInt8) -> list[str]:
        images[index] = resized(pixels[None], resolution)[0]
        return fitting(pixels.shape, resolution)

    good, said = look_at_all(option, pictures, keep, skip_bad, "--set data.skip_bad=true", channels)
    return images if len(good) == len(images) else images[good], good, said


def check_memory(option: str, what: str, needed: int) -> None:
    """Raises UserError if `needed` bytes are more than this machine has free."""
    free = psutil.virtual_memory().available
    if needed > free:
        sizes = f"{needed / 2**30:,.3g} GiB of memory, and {free / 2**30:,.3g} GiB are free"
        raise UserError(f"{option} {what} would take {sizes}; give fewer or smaller images")


def enumerated(names: Sequence[Any]) -> str:
    """The first of many names, for a note."""
    texts = [str(name) for name in names[:SHOWN]]
    shown = [printable(text if len(text) <= 40 else f"{text[:39]}…") for text in texts]
    return ", ".join([*shown, "…"] if len(names) > SHOWN else shown)

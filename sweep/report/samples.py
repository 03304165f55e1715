"""Images that a user asked for, as files: a folder of pictures, an array file, or one picture of all
of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.data.pools import Ints, UInt8
from trainables.errors import UserError

SMALLEST = 48  # side of an image in a grid, in pixels: smaller ones are enlarged
GAP = 2  # pixels between two of them


def check_target(target: Path, option: str) -> None:
    """Raises UserError if images can't be written there: nothing is written over."""
    if target.suffix not in ("", ".npz", ".png"):
        raise UserError(f"{option} {target}: give a folder, a file.npz or a grid.png")
    try:
        if target.is_dir() and not target.suffix and not any(target.iterdir()):
            return
        is_there = target.exists() or target.is_symlink()
    except OSError as error:  # a name that is too long, a directory that is closed to us
        raise UserError(f"{option} {target}: {error.strerror}; choose another name") from None
    if is_there:
        raise UserError(f"{option} {target}: it is there already; choose another name")
    above = next(one for one in target.absolute().parents if one.exists())
    if not above.is_dir():
        raise UserError(f"{option} {target}: {above} is a file; choose a directory")


def write_samples(target: Path, images: UInt8, labels: Ints | None) -> None:
    """images [n, 1 or 3, R, R] uint8, labels [n] or None, as `target` has it: `.npz` (`images`, and
    `labels` if there are any), `.png` (a grid, in rows), else a folder (`000000.png`, …; with a
    label `000000-3.png`). Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".npz":
        arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
        with target.open("xb") as stream:
            np.savez_compressed(stream, **arrays)
    elif target.suffix == ".png":
        _write_png(target, _grid(images))
    else:
        target.mkdir(exist_ok=True)
        for number, image in enumerate(images):
            of_label = "" if labels is None else f"-{labels[number]}"
            _write_png(target / f"{number:06d}{of_label}.png", image)


def _write_png(path: Path, image: UInt8) -> None:
    """[1 or 3, height, width] uint8."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    with path.open("xb") as stream:
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="png")


def _grid(images: UInt8) -> NDArray[np.uint8]:
    """About as high as wide, white between: [C, height, width]."""
    n, channels, height, width = images.shape
    scale = max(1, -(-SMALLEST // max(height, width)))
    large = images.repeat(scale, 2).repeat(scale, 3)
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    tiles = np.full(
        (rows * columns, channels, height * scale + GAP, width * scale + GAP), 255, np.uint8
    )
    tiles[:n, :, GAP:, GAP:] = large
    lines = tiles.reshape(rows, columns, *tiles.shape[1:]).transpose(2, 0, 3, 1, 4)
    canvas = lines.reshape(channels, rows * tiles.shape[2], columns * tiles.shape[3])
    return np.pad(canvas, ((0, 0), (0, GAP), (0, GAP)), constant_values=255)

"""What a trial generated, beside the training images that it is nearest to; and what of it may be
shown.

The one way of pixels out of a sweep's storage, but for images that a user asks for (`emm sample`):
`Pictures` gives none of them unless the search space allows it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import matplotlib
import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.report.drawn import Drawing
from sweep.report.style import ORANGE, STYLE, Figure, short
from trainables.data.images import ImageData, resized
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.measure.kept import in_features_of
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage
from trainables.trial.result import Result, read_measurement

UInt8 = NDArray[np.uint8]
COLUMNS, ROWS = 12, 2  # generated images of a gallery
WIDE = 6.9  # inches: both columns of a paper
PAGE_DPI = 150  # as wide as a page is shown; a pixel of an image is many of these
SMALLEST, LARGEST = 48, 96  # side of a picture, in pixels
GAP, FRAME = 5, 4  # pixels around a picture; of them its frame
TEXT = 22  # pixels, below a picture
FRAMED = tuple(bytes.fromhex(ORANGE[1:]))


@dataclass(frozen=True)
class Measured:
    """The final measurement of a trial of n samples. `found`: positions in the whole data set;
    `memorized` [n] bool."""

    samples: UInt8
    found: Neighbours
    memorized: NDArray[np.bool_]


def measured(storage: Storage, result: Result) -> Measured | None:
    """None if the trial did not get so far. Raises DamagedFile."""
    kept = read_measurement(storage, result)
    if kept is None:
        return None
    subset = kept["subset"]
    found = Neighbours(kept["d1"], kept["d2"], subset[kept["i1"]], subset[kept["i2"]])
    memorized, in_features = found.memorized(result.measurement.k), in_features_of(kept)
    if result.measurement.judge == "features" and in_features and in_features.copies is not None:
        memorized = in_features.copies
    return Measured(kept["images"], found, memorized)


@dataclass(frozen=True)
class Gallery:
    """`training`: the images of the whole data set, if they may be shown."""

    title: str
    measured: Measured
    training: UInt8 | None


@dataclass(frozen=True)
class Band:
    """Rows of n <= COLUMNS images below each other, by name; `framed` [n]: of the first row, which;
    `words` [n]: below all of them."""

    rows: dict[str, UInt8]
    framed: NDArray[np.bool_]
    words: list[str]


@dataclass(frozen=True)
class Pictures:
    """What may be shown of the trials of a sweep. `data`: for "pairs", the data of a configuration
    by name."""

    storage: Storage
    images: Literal["none", "generated", "pairs"] = "none"
    data: Callable[[str], ImageData] | None = None

    def of(self, result: Result, found: Measured | None = None) -> Gallery | None:
        """`found`: the measurement of `result`, if it was read already."""
        if self.images == "none":
            return None
        found = found or measured(self.storage, result)
        if found is None:
            return None
        trial = f"{result.spec.name}  {result.spec.title}"
        title = f"{trial}  R_mem {found.memorized.mean():.3f}"
        return Gallery(title, found, self._training(result))

    def _training(self, result: Result) -> UInt8 | None:
        """The data of a trial, if they are still at hand."""
        if self.images != "pairs" or self.data is None:
            return None
        try:
            data = self.data(result.spec.name)
        except UserError:
            return None
        return data.images if data.digest == result.data.digest else None


def pictures_of(space: SearchSpace, storage: Storage) -> Pictures:
    """The data are loaded when a picture of them is first asked for, each source once."""
    sources = {named.name: named.configuration.data for named in space.configurations}
    loaded = cache(load)
    return Pictures(storage, space.images, lambda name: loaded(sources[name]))


def gallery_drawing(
    result: Result, gallery: Gallery, dpi: int = PAGE_DPI, has_pdf: bool = True
) -> Drawing:
    """`gallery`: what may be shown of `result`; `dpi`, `has_pdf`: see `Drawing`."""
    shows = {"trial": result.model_dump(mode="json"), "is_paired": gallery.training is not None}
    return Drawing("gallery", gallery_maker(gallery), shows, dpi, has_pdf)


def gallery_maker(gallery: Gallery) -> Callable[[], Figure]:
    """What draws the first samples, in the order of d1 / d2, with nearest and second nearest training
    image below each; memorized ones are framed. At the end the training images that were copied
    most often among all samples. Without training images, the generated ones alone.

    It holds the pixels that are shown and no more, so that it may be sent to another process.
    """
    found, training = gallery.measured.found, gallery.training
    d1, d2 = found.d1[: COLUMNS * ROWS], found.d2[: COLUMNS * ROWS]
    order = np.argsort(d1 / np.maximum(d2, 1e-9), kind="stable")
    bands: list[Band] = []
    for chosen in np.split(order, range(COLUMNS, len(order), COLUMNS)):
        rows = {"generated": _shown(gallery.measured.samples[chosen])}
        if training is not None:
            rows["nearest"] = _shown(training[found.i1[chosen]])
            rows["second"] = _shown(training[found.i2[chosen]])
        words = [f"{found.d1[i]:.0f} / {found.d2[i]:.0f}" for i in chosen]
        bands.append(Band(rows, gallery.measured.memorized[chosen], words))
    copied, times = _most_copied(gallery.measured)
    if training is not None and len(copied):
        words = [f"{count} ×" for count in times]
        bands.append(
            Band({"most copied": _shown(training[copied])}, np.zeros(len(copied), bool), words)
        )
    return partial(_drawn, gallery.title, bands)


def _shown(images: UInt8) -> UInt8:
    return resized(images, LARGEST) if images.shape[-1] > LARGEST else images


def _most_copied(shown: Measured) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of up to a row of training images, and how many memorized samples copy each."""
    copied, times = np.unique(shown.found.i1[shown.memorized], return_counts=True)
    most = np.argsort(-times, kind="stable")[:COLUMNS]
    return copied[most], times[most]


@matplotlib.rc_context(STYLE)
def _drawn(title: str, bands: list[Band]) -> Figure:
    strips = [_strip(band) for band in bands]
    canvas = np.concatenate(strips)
    side = strips[0].shape[1] // COLUMNS
    scale = WIDE * 0.91 / canvas.shape[1]
    figure = Figure((WIDE, canvas.shape[0] * scale + 0.3))
    height = figure.get_figheight()
    axes = figure.add_axes((0.09, 0.0, 0.91, 1 - 0.3 / height))
    axes.imshow(canvas, interpolation="none", aspect="auto")
    axes.set_axis_off()
    head = f"{short(title, 90)};  below each image d1 / d2, framed: memorized"
    figure.text(0.09, 1 - 0.2 / height, head, parse_math=False)
    small: Any = {"va": "center", "fontsize": 6}
    top = 0
    for band, strip in zip(bands, strips, strict=True):
        for row, name in enumerate(band.rows):
            axes.text(-6, top + (row + 0.5) * side, name, ha="right", **small)
        below = top + strip.shape[0] - TEXT / 2
        for column, word in enumerate(band.words):
            axes.text((column + 0.5) * side, below, word, ha="center", **small)
        top += strip.shape[0]
    return figure


def _strip(band: Band) -> UInt8:
    """The rows of images [n, C, R, R], with room for text below them -> [height, width, 3]"""
    framed, *others = band.rows.values()
    unframed = np.zeros_like(band.framed)
    lines = [_line(framed, band.framed), *(_line(images, unframed) for images in others)]
    return np.concatenate([*lines, np.full((TEXT, lines[0].shape[1], 3), 255, np.uint8)])


def _line(images: UInt8, framed: NDArray[np.bool_]) -> UInt8:
    scale = max(1, -(-SMALLEST // images.shape[-1]))
    # of grey images one channel, which is broadcast to all three
    pixels = images.repeat(scale, 2).repeat(scale, 3).transpose(0, 2, 3, 1)
    side = pixels.shape[1] + 2 * GAP
    tiles = np.full((COLUMNS, side, side, 3), 255, np.uint8)
    inner = GAP - FRAME
    tiles[: len(images)][framed, inner:-inner, inner:-inner] = FRAMED
    tiles[: len(images), GAP:-GAP, GAP:-GAP] = pixels
    return tiles.swapaxes(0, 1).reshape(side, COLUMNS * side, 3)

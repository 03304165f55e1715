"""Images in memory, with the identity of their content; class-balanced nested subsets of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainables.config.identity import derive_seed
from trainables.data.pools import PLAIN, Ints, Rule, UInt8


@dataclass(frozen=True)
class ImageData:
    """A data set at the resolution it is trained and measured at.

    images: [n, channels, resolution, resolution] uint8; labels: [n] int64, or None; digest: SHA-256
    of all that decides the subsets and what they are, taken after resizing; duplicates: number of
    images that equal an earlier one; groups: [n] int64, images of one group are of one thing, or
    None: each is its own; second: [n] bool, those of the second source, or None; rule: how subsets
    choose among them; notes: for each folder or file a line that says what was found and done.
    """

    images: UInt8
    labels: Ints | None
    source: str
    digest: str
    duplicates: int
    groups: Ints | None = None
    second: NDArray[np.bool_] | None = None
    rule: Rule = PLAIN
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        images: UInt8,
        labels: Ints | None,
        source: str,
        groups: Ints | None = None,
        second: NDArray[np.bool_] | None = None,
        rule: Rule = PLAIN,
        notes: Sequence[str] = (),
    ) -> "ImageData":
        """With its digest, number of duplicates and, where images are repeated, groups."""
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
        duplicates = len(images) - distinct
        digest = content.hexdigest()
        return cls(images, labels, source, digest, duplicates, groups, second, rule, tuple(notes))

    def __len__(self) -> int:
        return len(self.images)


def subset_order(dataset: ImageData, seed: int, in_file_order: bool = False) -> Ints:
    """An order of the images whose first N are the training subset of size N: [n] int64.

    So subsets are nested. They are class-balanced: classes take turns, in an order rotated by the
    seed (the largest remainder falls on other classes for other seeds), and a class that runs out
    is passed over. The order depends on the data's content and the seed alone, so all
    configurations see the same subsets. An image that is to be there several times is in the order
    as often, and others, at its end, are not in it. `in_file_order`: the first images of each class
    for every seed.
    """
    rng = np.random.default_rng(derive_seed("subset", dataset.digest, seed))
    order = np.arange(len(dataset)) if in_file_order else rng.permutation(len(dataset))
    labels = np.zeros(len(dataset), dtype=np.int64) if dataset.labels is None else dataset.labels
    classes = np.unique(labels)
    sequences = []
    rotation = 0 if in_file_order else seed % len(classes)
    for turn, label in enumerate(np.roll(classes, rotation)):
        members = order[labels[order] == label]
        second = None if dataset.second is None else dataset.second[members]
        sequences.append(dataset.rule.turns(members, second, phase=(turn + 0.5) / len(classes)))
    turns = np.repeat(np.arange(len(classes)), [len(sequence) for sequence in sequences])
    # the how-manieth of its class each turn is
    rank = np.concatenate([np.arange(len(sequence)) for sequence in sequences])
    balanced: Ints = np.concatenate(sequences)[np.lexsort((turns, rank))]
    return balanced[: len(dataset)]


def resized(images: UInt8, resolution: int) -> UInt8:
    """[n, C, H, W] uint8 -> [n, C, resolution, resolution] uint8: centre crop to a square, then
    PIL's bicubic filter."""
    height, width = images.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side]
    if side == resolution:
        return np.ascontiguousarray(square)
    size = (resolution, resolution)
    planes: Sequence[Any] = [
        Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)
        for plane in square.reshape(-1, side, side)
    ]
    return np.stack([np.asarray(plane) for plane in planes]).reshape(*images.shape[:2], *size)

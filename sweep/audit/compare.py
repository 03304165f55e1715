"""How many of a set of generated images are copies of a training set, and of which images: without
any model.

All sets are read in chunks, so none has to fit into memory; the training set is read once to find
exact duplicates, and once for every block of generated images. With held-out images it is as many
times again, and two times more.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest
from torch import Tensor

from sweep.audit.image_sets import ImageSet, frame_of
from sweep.audit.mirrored import MOST as MOST_MIRRORED, Mirrored, looked_at as looked_at_mirrored
from trainables.config.measurement import Measurement
from trainables.errors import UserError
from trainables.measure.distances import N_OTHERS, N_SPACING, nearest_other
from trainables.measure.feature_rule import InFeatures
from trainables.measure.features import (
    AT_ONCE,
    FeatureSpace,
    nearest_in_features,
    open_features,
)
from trainables.measure.kept import Distances
from trainables.measure.measures import MEASURES, measures
from trainables.measure.neighbours import Comparison, around_of, chunk_size, nearest_two_of
from trainables.measure.r_mem import Floats, Ints, Neighbours
from trainables.progress import work

MEMORY = 2**28  # bytes for a block of generated images, and for a chunk of comparisons
MOST_HELD_OUT = 10_000  # held-out images at most: enough for any null rate that matters
SELF_COMPARISON = 2 * 10**11  # multiplications that a look for near-duplicates may cost


@dataclass(frozen=True)
class Audit:
    """What was found. `distances.found` treats exact duplicates as one image; i1, i2 are positions
    in `training`.

    `null_in_training`: held-out images that equal a training image, and are left out of
    `distances.null`; `features`: the function by whose features the images were compared as well.
    """

    training: ImageSet
    generated: ImageSet
    held_out: ImageSet | None
    k: float
    distances: Distances
    groups: Ints  # [N] training images of one group are equal
    # training images that were compared with all others, at the distances `distances.spacing`
    looked_at: Ints
    nearest_other: Ints  # of these, the nearest different image
    notes: list[str]
    null_in_training: int
    mirrored: Mirrored | None = None  # None where mirrored copies count
    features: str | None = None
    features_rule: str = "ratio"

    @property
    def measures(self) -> dict[str, Any]:
        """Those that need nothing of a model but its images."""
        found = measures(self.distances, len(self.training), self.k)
        of_trials = {name for name, row in MEASURES.items() if not row.of_images}
        return {name: value for name, value in found.items() if name not in of_trials}

    @property
    def copied(self) -> list[tuple[int, int]]:
        """(training image, number of its copies), the most copied first."""
        sources = self.distances.found.i1[self.distances.found.memorized(self.k)]
        return sorted(Counter(sources.tolist()).items(), key=lambda pair: (-pair[1], pair[0]))

    @property
    def duplicates(self) -> list[list[int]]:
        """Groups of equal training images."""
        return [members.tolist() for members in _members(self.groups)]

    @property
    def near_duplicates(self) -> list[list[int]]:
        """Groups of training images that differ by less than k times the median distance of
        neighbours."""
        assert self.distances.spacing is not None
        near = self.distances.spacing < self.k * np.median(self.distances.spacing)
        pairs = self.looked_at[near], self.nearest_other[near]
        n = len(self.groups)
        graph = coo_array((np.ones(near.sum()), pairs), shape=(n, n))
        _, components = connected_components(graph, directed=False)
        return [members.tolist() for members in _members(components.astype(np.int64))]

    def as_json(self) -> dict[str, Any]:
        """The format of `emm audit --json`."""
        found, all_measures = self.distances.found, self.measures
        memorized = found.memorized(self.k)
        doubled = np.bincount(self.groups)[self.groups[found.i1]] > 1
        low, high = exact_bounds(int(memorized.sum()), len(memorized))
        holdout_ratio = None
        if self.distances.null is not None:
            holdout_ratio = _ratio(np.median(found.d1), np.median(self.distances.null.d1))
        return {
            **all_measures,
            "r_mem_low": low,
            "r_mem_high": high,
            "bounds": "Clopper-Pearson; each end by itself holds with 95 %",
            "r_mem_plain": float((memorized & ~doubled).mean()),
            "holdout_ratio": holdout_ratio,
            "null_in_training": self.null_in_training,
            "features": self.features,
            "features_rule": self.features_rule,
            "k": self.k,
            "n_training": len(self.training),
            "copied": [
                {"image": self.training.name(i), "copies": copies} for i, copies in self.copied
            ],
            "duplicates": [self._names(members) for members in self.duplicates],
            "near_duplicates": [self._names(members) for members in self.near_duplicates],
            "looked_at": len(self.looked_at),
            "mirrored": None if self.mirrored is None else asdict(self.mirrored),
            "hints": self.hints,
            "notes": self.notes,
        }

    @property
    def hints(self) -> list[str]:
        """What to do about what is perhaps a mistake."""
        hints = []
        made, trained = self.generated.path.resolve(), self.training.path.resolve()
        if made == trained:
            hints.append("--generated and --train are the same files: nothing is told of a model")
        elif not self.distances.found.d1.any():
            hints.append(
                "every generated image equals a training image, pixel by pixel: is --generated "
                "what a model made?"
            )
        elif self.mirrored is not None and self.mirrored.hint is not None:
            hints.append(self.mirrored.hint)
        return hints

    def _names(self, members: list[int]) -> list[str]:
        return [self.training.name(index) for index in members]


def audit(
    training: ImageSet,
    generated: ImageSet,
    held_out: ImageSet | None,
    k: float,
    resolution: int | None = None,
    flips: bool = False,
    device: torch.device | None = None,
    memory: int = MEMORY,
    how: Measurement | None = None,
) -> Audit:
    """Compares the sets, within about twice `memory` bytes, and in the features that `how` names.
    Raises UserError for images that can't be compared."""
    sets = [images for images in (training, generated, held_out) if images is not None]
    frame = frame_of(sets, resolution)
    for images in sets:
        images.fit(frame)
    how = how or Measurement()
    features = open_features(
        how, (frame.channels, *frame.size), device or torch.device("cpu"), "--features"
    )
    with work("looking for equal training images", len(training)) as advance:
        groups = equal_groups(training.chunks(chunk_size(frame.pixels, memory), advance=advance))
    if groups.max() == 0:
        raise UserError(
            f"{training.option} {training.path}: all images are the same; a second nearest one is "
            "needed"
        )
    most = max(2, memory // (2 * frame.pixels))
    affordable = SELF_COMPARISON // (len(training) * frame.pixels)
    looked_at = spread(len(training), min(most, max(N_SPACING, affordable)))
    turned = spread(len(generated), 0 if flips else min(most, MOST_MIRRORED))
    control = torch.empty((0, frame.channels, *frame.size), dtype=torch.uint8)
    if held_out is not None:
        control = held_out.take(spread(len(held_out), min(most, MOST_HELD_OUT)))
    beside = [control, training.take(looked_at)]
    if len(turned):
        beside.append(generated.take(turned).flip(-1))
    comparison = Comparison(device, flips)
    found, of_beside, repeats = _nearest(generated, beside, training, groups, comparison, memory)
    null, own, *of_turned = of_beside
    mirrored = None
    if of_turned:
        mirrored = looked_at_mirrored(found.at(turned), of_turned[0], groups, k)
    untrained = null.d1 > 0  # what equals a training image is no control
    null, control = null.at(untrained), control[torch.from_numpy(untrained)]
    in_features = None
    if features is not None and len(control):
        in_features = _in_features(features, training, generated, control, groups, flips, memory)
    distances = Distances(
        found=found,
        null=null if len(control) else None,
        repeats=repeats,
        null_repeats=_repeats(control, comparison),
        spacing=own.d2,
        groups=groups,
        in_features=in_features,
    )
    if held_out is not None and len(control):
        distances = _against(held_out, control, training, generated, distances, comparison, memory)
    return Audit(
        training=training,
        generated=generated,
        held_out=held_out,
        k=k,
        distances=distances,
        groups=groups,
        looked_at=looked_at,
        nearest_other=own.i2,
        notes=_notes(sets, len(untrained)),
        null_in_training=int((~untrained).sum()),
        mirrored=mirrored,
        features=how.features,
        features_rule=how.features_rule,
    )


def _nearest(
    generated: ImageSet,
    beside: Sequence[Tensor],
    training: ImageSet,
    groups: Ints,
    comparison: Comparison,
    memory: int,
) -> tuple[Neighbours, list[Neighbours], Floats | None]:
    """The two nearest training images of every generated image, and of the images in each part of
    `beside`, [any, C, H, W] uint8; and the distance of every generated image to the nearest of
    N_OTHERS other ones, [n], None if there are not so many.

    The training set passes by once for every block of generated images. What is in `beside` goes
    with the first block, so that it costs no reading.
    """
    pixels = beside[0].shape[1:].numel()
    size, rows = chunk_size(pixels, memory), max(2, memory // pixels)
    among = spread(len(generated), N_OTHERS)
    others, asked, start = generated.take(among), torch.cat(list(beside)), 0
    parts, repeats = [], []
    passes = math.ceil(len(generated) / rows)
    with work("comparing with the training images", passes * len(training)) as advance:
        for block in generated.chunks(rows):
            chunks, looked = training.chunks(size, advance=advance), torch.cat([block, asked])
            parts.append(
                nearest_two_of(looked, chunks, comparison.device, groups, comparison.flips, memory)
            )
            if len(generated) >= N_OTHERS:
                is_among = np.isin(np.arange(start, start + len(block)), among)
                repeats.append(nearest_other(block, others, is_among, comparison))
            asked, start = asked[:0], start + len(block)
    first, *later = parts
    counts = [len(images) for images in beside]
    ends = np.cumsum([len(first.d1) - sum(counts), *counts])
    of_block, *of_beside = map(first.at, np.split(np.arange(ends[-1]), ends[:-1]))
    found = Neighbours.joined([of_block, *later])
    return found, of_beside, np.concatenate(repeats) if repeats else None


def _repeats(images: Tensor, comparison: Comparison) -> Floats | None:
    """[n], distance of each image to the nearest of N_OTHERS other ones; None if there are not so
    many."""
    if len(images) < N_OTHERS:
        return None
    among = spread(len(images), N_OTHERS)
    is_among = np.isin(np.arange(len(images)), among)
    return nearest_other(images, images[among], is_among, comparison)


def _against(
    held_out: ImageSet,
    control: Tensor,
    training: ImageSet,
    generated: ImageSet,
    taken: Distances,
    comparison: Comparison,
    memory: int,
) -> Distances:
    """The distances `taken`, and those that tell generated images from held-out ones, of which
    `control` are compared with the training images."""
    assert taken.groups is not None
    assert taken.null is not None
    device, flips, groups = comparison.device, comparison.flips, taken.groups
    size, rows = chunk_size(control[0].numel(), memory), max(2, memory // control[0].numel())

    blocks = math.ceil(len(generated) / rows)
    with work("looking how dense the training images are", (1 + blocks) * len(training)) as advance:
        null_around, *around = (
            around_of(block, training.chunks(size, advance=advance), device, groups, flips, memory)
            for block in chain([control], generated.chunks(rows))
        )
    nearest = np.unique(np.concatenate([taken.found.i1, taken.null.i1]))
    spacing = np.full(len(training), np.nan)
    starts = range(0, len(nearest), rows)
    among_them = "comparing training images with each other"
    with work(among_them, len(starts) * len(training)) as advance:
        for start in starts:
            some = nearest[start : start + rows]
            images, chunks = training.take(some), training.chunks(size, advance=advance)
            spacing[some] = nearest_two_of(images, chunks, device, groups, flips, memory).d2
    pool, to_held_out = _pool(held_out, training, size, flips), None
    if len(pool) > groups.max():  # as many as there are different training images
        pool = pool[spread(len(pool), groups.max() + 1)]
        with work("comparing with the held-out images", blocks * len(pool)) as advance:
            parts = []
            for block in generated.chunks(rows):
                chunks = held_out.chunks(size, pool, advance)
                parts.append(nearest_two_of(block, chunks, device, None, flips, memory).d1)
            to_held_out = np.concatenate(parts)
    return replace(
        taken,
        around=np.concatenate(around),
        null_around=null_around,
        source_spacing=spacing[taken.found.i1],
        null_source_spacing=spacing[taken.null.i1],
        to_held_out=to_held_out,
    )


def _pool(held_out: ImageSet, training: ImageSet, size: int, flips: bool) -> Ints:
    """Positions of the different held-out images that equal no training image; flips: nor when they
    are mirrored."""
    names, known = _hashes(held_out.chunks(size)), _hashes(training.chunks(size))
    is_known = np.isin(names, known)
    if flips:
        is_known |= np.isin(_hashes(chunk.flip(-1) for chunk in held_out.chunks(size)), known)
    _, first = np.unique(names, return_index=True)
    return np.setdiff1d(first, np.flatnonzero(is_known))


def _in_features(
    features: FeatureSpace,
    training: ImageSet,
    generated: ImageSet,
    control: Tensor,
    groups: Ints,
    flips: bool,
    memory: int,
) -> InFeatures:
    """The features of a block of generated images are held, those of the training set pass by: once
    for each block. The control, one image or more, goes with the first."""
    asked, null = features.of(control), None
    rows = max(2, memory // max(control[0].numel(), 16 * asked.shape[1]))
    parts, passes = [], math.ceil(len(generated) / rows)
    with work("comparing in features", passes * len(training)) as advance:
        for block in generated.chunks(rows):
            looked = torch.cat([features.of(block), asked])
            passing = features.passing(training.chunks(AT_ONCE, advance=advance), flips)
            near = nearest_in_features(looked, passing, groups)
            parts.append(near.at(slice(len(block))))
            if null is None:
                null, asked = near.at(slice(len(block), None)), asked[:0]
    assert null is not None, "there are generated images"
    return InFeatures(Neighbours.joined(parts), null, features.by_ratio)


def _notes(sets: list[ImageSet], n_control: int) -> list[str]:
    notes = [note for images in sets for note in images.notes]
    if len(sets) == 3 and n_control < len(sets[2]):
        notes.append(
            f"{sets[2].option}: {n_control:,} of {len(sets[2]):,} images, evenly spread, were used"
        )
    return notes


def equal_groups(chunks: Iterator[Tensor]) -> Ints:
    """[N] int64, the same number for equal images, 0, 1, 2 …"""
    _, groups = np.unique(_hashes(chunks), return_inverse=True)
    return groups.astype(np.int64)


def _hashes(chunks: Iterator[Tensor]) -> Ints:
    """[N] int64, the same for equal images: 64 bits of a cryptographic hash of their pixels."""
    hashes = [
        hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest()
        for chunk in chunks
        for image in chunk
    ]
    return np.frombuffer(b"".join(hashes), dtype=np.int64)


def spread(n: int, most: int) -> Ints:
    """At most `most` positions of n, evenly spread: a folder may be sorted by class."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def exact_bounds(n_memorized: int, n_samples: int) -> tuple[float, float]:
    """Clopper–Pearson bounds of a ratio, each a one-sided 95 % bound: 0 of 2,000 excludes only what
    is above 0.15 %."""
    at_least = binomtest(n_memorized, n_samples, alternative="greater").proportion_ci(0.95)
    at_most = binomtest(n_memorized, n_samples, alternative="less").proportion_ci(0.95)
    return float(at_least.low), float(at_most.high)


def _members(names: Ints) -> list[Ints]:
    order = np.argsort(names, kind="stable")
    starts = np.flatnonzero(np.diff(names[order])) + 1
    return [members for members in np.split(order, starts) if len(members) > 1]


def _ratio(a: Any, b: Any) -> float | None:
    return float(a / b) if b else None

"""All distances of a trial, as they are kept with it, and as the rule judges them. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.measure.r_mem import Floats, Ints, Neighbours

PARTS = ("d1", "d2", "i1", "i2")  # of neighbours, by the names under which they are kept

# prefixes of these names: of the generated images none, of all others one
PREFIXES = {
    "found": "",
    "null": "null_",
    "copies": "copies_",
    "without_flips": "without_flips_",
    "with_flips": "with_flips_",
}
# kept by their own names
PLAIN = (
    *("repeats", "null_repeats", "spacing", "groups", "to_held_out"),
    *("source_spacing", "null_source_spacing", "around", "null_around"),
    *("errors", "null_errors"),
)


@dataclass(frozen=True)
class Distances:
    """All distances behind the measures of n generated images; None where they were not taken.
    Pixel values 0–255, L2.

    found: the generated images' nearest training images; null: the same of the held-out images,
    [any]; copies: of noisy copies of training images, [any]; without_flips, with_flips: of the
    generated images, were a mirrored copy none, or one: of the two that which `found` is not.
    repeats: [n], distance of each generated image to the nearest other one among N_OTHERS of them;
    null_repeats: the same of the held-out images; spacing: [any], of training images to the nearest
    other; groups: [N] of the training images, those of a group count as one. to_held_out: [n], of
    each generated image to the nearest of N held-out images; source_spacing: [n], of the training
    image nearest to each generated one to its own nearest other one; around: [n], mean distance of
    each generated image to its N_NEAREST nearest training images; null_source_spacing, null_around:
    the same of the held-out images in `null`. errors, null_errors: [levels, any], denoising errors
    of training and of held-out images at FINAL_SIGMAS, in units of the noise variance.
    """

    found: Neighbours
    null: Neighbours | None = None
    repeats: Floats | None = None
    spacing: Floats | None = None
    groups: Ints | None = None
    null_repeats: Floats | None = None
    copies: Neighbours | None = None
    without_flips: Neighbours | None = None
    with_flips: Neighbours | None = None
    to_held_out: Floats | None = None
    source_spacing: Floats | None = None
    null_source_spacing: Floats | None = None
    around: Floats | None = None
    null_around: Floats | None = None
    errors: Floats | None = None
    null_errors: Floats | None = None

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """By the names under which they are kept."""
        kept: dict[str, NDArray[Any]] = {}
        for name in PLAIN:
            array = getattr(self, name)
            if array is not None:
                kept[name] = array
        for name, prefix in PREFIXES.items():
            neighbours = getattr(self, name)
            if neighbours is not None:
                kept |= {prefix + part: getattr(neighbours, part) for part in PARTS}
        return kept

    @classmethod
    def of_arrays(cls, kept: Mapping[str, NDArray[Any]]) -> "Distances":
        """The inverse of `as_arrays`; what an older version did not keep is None.

        That one kept distances among all the samples, as `others`: they grow smaller with their
        number, and are not read.
        """

        def neighbours(name: str) -> Neighbours | None:
            parts = [PREFIXES[name] + part for part in PARTS]
            return Neighbours(*(kept[part] for part in parts)) if parts[0] in kept else None

        found = neighbours("found")
        assert found is not None
        return cls(
            found,
            null=neighbours("null"),
            copies=neighbours("copies"),
            without_flips=neighbours("without_flips"),
            with_flips=neighbours("with_flips"),
            **{name: kept.get(name) for name in PLAIN},
        )


@dataclass(frozen=True)
class Judged:
    """The distances of a trial on `n_training` images, and what the rule with `k` says of them."""

    distances: Distances
    n_training: int
    k: float

    @cached_property
    def memorized(self) -> NDArray[np.bool_]:
        """[n], of the generated images."""
        return self.distances.found.memorized(self.k)

    @property
    def n_memorized(self) -> int:
        return int(self.memorized.sum())

    @property
    def r_mem(self) -> float:
        return float(self.memorized.mean())

    @cached_property
    def spurious(self) -> NDArray[np.bool_] | None:
        """[n], see `are_spurious`; None without distances among generated images."""
        taken = self.distances
        if taken.repeats is None:
            return None
        return are_spurious(taken.found, taken.repeats, self.k)

    @cached_property
    def null_spurious(self) -> NDArray[np.bool_] | None:
        """The same of the held-out images."""
        taken = self.distances
        if taken.null is None or taken.null_repeats is None:
            return None
        return are_spurious(taken.null, taken.null_repeats, self.k)


def are_spurious(found: Neighbours, repeats: Floats, k: float) -> NDArray[np.bool_]:
    """[n] bool: not memorized, but nearer to another generated image (`repeats`, [n]) than k times
    to any training image.

    Memorized, spurious, generalized after Pham et al. 2025 (arXiv 2505.21777): a spurious sample is
    no copy of the training set and yet the model makes it again and again. They compare both
    distances with constants; here the distance to the training set itself is the scale, as in the
    ratio rule, so that nothing depends on resolution and data.
    """
    return ~found.memorized(k) & (repeats < k * found.d1)

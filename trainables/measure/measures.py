"""What is measured beside R_mem: controls that say what an R_mem is worth, and other views of the
same distances. No torch.

All distances of a trial are taken once (`measure.distances`) and kept; `measures` computes every
number from them, for any k. docs/measures.md says in a sentence what each number means, and where
it comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.measure.r_mem import Floats, Ints, Neighbours

# prefixes of the other distances where all are kept together: of held-out images, of noisy copies,
# and of the generated images were a mirrored copy none (of a trial where it is one), or one
NULL, COPIES, WITHOUT_FLIPS, WITH_FLIPS = "null_", "copies_", "without_flips_", "with_flips_"

LEAST_IN_CELL = 20  # generated images that a cell needs to count in C_T


@dataclass(frozen=True)
class Distances:
    """All distances behind the measures of n generated images; None where they were not taken.
    Pixel values 0–255, L2.

    found: the generated images' nearest training images; null: the same of the held-out images,
    [any]; copies: of noisy copies of training images, [any]; without_flips, with_flips: of the
    generated images, were a mirrored copy none, or one: of the two that which `found` is not.
    repeats: [n], distance of each generated image to the nearest other one among N_OTHERS of them;
    null_repeats: the same of the held-out images; spacing: [any], of training images to the nearest
    other.
    """

    found: Neighbours
    null: Neighbours | None = None
    repeats: Floats | None = None
    spacing: Floats | None = None
    groups: Ints | None = None  # [N], of the training images: those of a group count as one
    null_repeats: Floats | None = None
    copies: Neighbours | None = None
    without_flips: Neighbours | None = None
    with_flips: Neighbours | None = None

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """By the names under which they are kept."""
        arrays = {
            name: getattr(self, name) for name in ("repeats", "null_repeats", "spacing", "groups")
        }
        kept = {name: value for name, value in arrays.items() if value is not None} | vars(
            self.found
        )
        for prefix, of in (
            (NULL, self.null), (COPIES, self.copies), (WITHOUT_FLIPS, self.without_flips), (WITH_FLIPS, self.with_flips)
        ):  # fmt: skip
            kept |= {} if of is None else {prefix + name: value for name, value in vars(of).items()}
        return kept

    @classmethod
    def of_arrays(cls, kept: Mapping[str, NDArray[Any]]) -> "Distances":
        """The inverse of `as_arrays`; what an older version did not keep is None.

        That one kept distances among all the samples, as `others`: they grow smaller with their
        number, and are not read.
        """

        def neighbours(prefix: str) -> Neighbours | None:
            parts = [prefix + part for part in ("d1", "d2", "i1", "i2")]
            return Neighbours(*(kept[part] for part in parts)) if parts[0] in kept else None

        found = neighbours("")
        assert found is not None
        return cls(
            found,
            null=neighbours(NULL),
            copies=neighbours(COPIES),
            without_flips=neighbours(WITHOUT_FLIPS),
            with_flips=neighbours(WITH_FLIPS),
            **{name: kept.get(name) for name in ("repeats", "null_repeats", "spacing", "groups")},
        )


def measures(distances: Distances, n_training: int, k: float) -> dict[str, Any]:
    """Every measure by its name in a result; None where the distances it needs were not taken."""
    found, null = distances.found, distances.null
    memorized = found.memorized(k)
    r_mem = float(memorized.mean())
    copied, n_distinct = found.i1[memorized], n_training
    if distances.groups is not None:
        copied, n_distinct = distances.groups[copied], len(np.unique(distances.groups))
    spurious, spurious_null = (
        None if of is None or repeats is None else are_spurious(of, repeats, k)
        for of, repeats in ((found, distances.repeats), (null, distances.null_repeats))
    )
    without_flips, with_flips = (
        None if of is None else of.r_mem(k)
        for of in (distances.without_flips, distances.with_flips)
    )
    return {
        "r_mem": r_mem,
        # what is kept of one rule only was found by the other; an older version kept neither
        "r_mem_without_flips": r_mem if with_flips is not None else without_flips,
        "r_mem_with_flips": r_mem if without_flips is not None else with_flips,
        "noisy_copier": None if distances.copies is None else distances.copies.r_mem(k),
        "n_samples": len(memorized),
        "n_memorized": int(memorized.sum()),
        "median_d1": float(np.median(found.d1)),
        "nn_distance": None if distances.spacing is None else float(np.median(distances.spacing)),
        "null_rate": None if null is None else null.r_mem(k),
        "null_samples": 0 if null is None else len(null.d1),
        "distinct_copied": len(np.unique(copied)),
        "distinct_expected": expected_distinct(int(memorized.sum()), n_distinct),
        "spurious": None if spurious is None else float(spurious.mean()),
        "spurious_null": None if spurious_null is None else float(spurious_null.mean()),
        "generalized": None if spurious is None else float((~spurious & ~memorized).mean()),
        "c_t": None if null is None else c_t(found.d1, null.d1),
    }


def expected_distinct(n_copies: int, n_training: int) -> float:
    """Distinct images among `n_copies` drawn uniformly, with replacement, from N: N(1 − (1 −
    1/N)^n)."""
    return float(-n_training * np.expm1(n_copies * np.log1p(-1 / n_training)))


def are_spurious(found: Neighbours, repeats: Floats, k: float) -> NDArray[np.bool_]:
    """[n] bool: not memorized, but nearer to another generated image (`repeats`, [n]) than k times
    to any training image.

    Memorized, spurious, generalized after Pham et al. 2025 (arXiv 2505.21777): a spurious sample is
    no copy of the training set and yet the model makes it again and again. They compare both
    distances with constants; here the distance to the training set itself is the scale, as in the
    ratio rule, so that nothing depends on resolution and data.
    """
    return ~found.memorized(k) & (repeats < k * found.d1)


def c_t(
    generated: Floats, held_out: Floats, cells: tuple[Ints, Ints] | None = None
) -> float | None:
    """C_T of Meehan, Chaudhuri and Dasgupta 2020 (arXiv 2004.05675): far below 0, the model copies;
    far above, it underfits.

    Distances to the nearest training image, of n generated and m held-out images. Z_U is the
    Mann–Whitney statistic U (pairs in which the generated image is farther), centred and scaled as
    if both were drawn alike: standard normal if they are. cells: of which cell of a partition each
    image is, int64 [n] and [m] (the authors cluster the training images by k-means); C_T is then
    the mean of the cells' Z_U, weighted by their held-out images, over cells with enough generated
    ones, and None if no cell has. By default there is one cell.
    """
    if cells is None:
        return _z_u(generated, held_out)
    of_generated, of_held_out = cells
    names = [
        name for name in np.unique(of_held_out) if (of_generated == name).sum() >= LEAST_IN_CELL
    ]
    weights = [int((of_held_out == name).sum()) for name in names]
    scores = [
        _z_u(generated[of_generated == name], held_out[of_held_out == name]) for name in names
    ]
    return float(np.average(scores, weights=weights)) if names else None


def _z_u(generated: Floats, held_out: Floats) -> float:
    from scipy.stats import mannwhitneyu  # which takes half a second to import

    m, n = len(generated), len(held_out)
    u = mannwhitneyu(generated, held_out, method="asymptotic").statistic
    return float((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))

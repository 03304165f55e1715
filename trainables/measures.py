"""What is measured beside R_mem: controls that say what an R_mem is worth, and other views of the same distances.

All distances of a trial are taken once (`take_distances`) and kept; `measures` computes every number from them, for any k.
docs/measures.md says in a sentence what each number means, and where it comes from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor

from trainables.memorization import Floats, Ints, Neighbours, nearest_two

NULL = "null_"  # prefix of the held-out images' distances where all are kept together
LEAST_IN_CELL = 20  # generated images that a cell needs to count in C_T
N_LOSS, LOSS_SIGMA = 256, 0.2  # images at most, and noise level (pixels in [−1, 1]), of the loss gap
N_SPACING = 2000  # training images at most whose nearest other one is looked for: a median needs no more


@dataclass(frozen=True)
class Distances:
    """All distances behind the measures of n generated images; None where they were not taken. Pixel values 0–255, L2.

    found: the generated images' nearest training images; null: the same of the held-out images, [any]; others: [n], distance
    of each generated image to the nearest other one; spacing: [any], of training images to the nearest other one.
    """

    found: Neighbours
    null: Neighbours | None = None
    others: Floats | None = None
    spacing: Floats | None = None
    groups: Ints | None = None  # [N], of the training images: those of a group count as one

    def as_arrays(self) -> dict[str, NDArray[Any]]:
        """By the names under which they are kept."""
        kept = {"others": self.others, "spacing": self.spacing, "groups": self.groups, **vars(self.found)}
        kept |= {} if self.null is None else {NULL + name: value for name, value in vars(self.null).items()}
        return {name: value for name, value in kept.items() if value is not None}

    @classmethod
    def of_arrays(cls, kept: Mapping[str, NDArray[Any]]) -> "Distances":
        """The inverse of `as_arrays`; what an older version did not keep is None."""
        parts = ("d1", "d2", "i1", "i2")
        null = Neighbours(*(kept[NULL + part] for part in parts)) if NULL + "d1" in kept else None
        others, spacing, groups = (kept.get(name) for name in ("others", "spacing", "groups"))
        return cls(Neighbours(*(kept[part] for part in parts)), null, others, spacing, groups)


def take_distances(
    found: Neighbours,
    samples: Tensor,
    held_out: Tensor,
    training: Tensor,
    device: torch.device | None = None,
    groups: Ints | None = None,
    flips: bool = False,
) -> Distances:
    """The distances that go with those already `found` for `samples`: [n, C, R, R] uint8, as the other images are.

    groups, flips: as in `nearest_two`, and as `found` was made with.
    """
    null = nearest_two(held_out, training, device, groups, flips) if len(held_out) else None
    spacing = nearest_two(training[:N_SPACING], training, device, groups, flips).d2  # the first is itself, or its double
    others = nearest_two(samples, samples, device, flips=flips).d2 if len(samples) > 1 else None
    return Distances(found, null, others, spacing, groups)


def measures(distances: Distances, n_training: int, k: float) -> dict[str, Any]:
    """Every measure by its name in a result; None where the distances it needs were not taken."""
    found, null = distances.found, distances.null
    memorized = found.memorized(k)
    copied, n_distinct = found.i1[memorized], n_training
    if distances.groups is not None:
        copied, n_distinct = distances.groups[copied], len(np.unique(distances.groups))
    spurious = None if distances.others is None else are_spurious(found, distances.others, k)
    return {
        "r_mem": float(memorized.mean()),
        "n_samples": len(memorized),
        "n_memorized": int(memorized.sum()),
        "median_d1": float(np.median(found.d1)),
        "nn_distance": None if distances.spacing is None else float(np.median(distances.spacing)),
        "null_rate": None if null is None else null.r_mem(k),
        "null_samples": 0 if null is None else len(null.d1),
        "distinct_copied": len(np.unique(copied)),
        "distinct_expected": expected_distinct(int(memorized.sum()), n_distinct),
        "spurious": None if spurious is None else float(spurious.mean()),
        "generalized": None if spurious is None else float((~spurious & ~memorized).mean()),
        "c_t": None if null is None else c_t(found.d1, null.d1),
    }


def expected_distinct(n_copies: int, n_training: int) -> float:
    """Distinct images among `n_copies` drawn uniformly, with replacement, from N: N(1 − (1 − 1/N)^n)."""
    return float(-n_training * np.expm1(n_copies * np.log1p(-1 / n_training)))


def are_spurious(found: Neighbours, others: Floats, k: float) -> NDArray[np.bool_]:
    """[n] bool: not memorized, but nearer to another generated image than k times to any training image.

    Memorized, spurious, generalized after Pham et al. 2025 (arXiv 2505.21777): a spurious sample is no copy of the training
    set and yet the model makes it again and again. They compare both distances with constants; here the distance to
    the training set itself is the scale, as in the ratio rule, so that nothing depends on resolution and data.
    """
    return ~found.memorized(k) & (others < k * found.d1)


def c_t(generated: Floats, held_out: Floats, cells: tuple[Ints, Ints] | None = None) -> float | None:
    """C_T of Meehan, Chaudhuri and Dasgupta 2020 (arXiv 2004.05675): far below 0, the model copies; far above, it underfits.

    Distances to the nearest training image, of n generated and m held-out images. Z_U is the Mann–Whitney statistic U (pairs
    in which the generated image is farther), centred and scaled as if both were drawn alike: standard normal if they are.
    cells: of which cell of a partition each image is, int64 [n] and [m] (the authors cluster the training images by
    k-means); C_T is then the mean of the cells' Z_U, weighted by their held-out images, over cells with enough generated
    ones, and None if no cell has. By default there is one cell.
    """
    if cells is None:
        return _z_u(generated, held_out)
    of_generated, of_held_out = cells
    names = [name for name in np.unique(of_held_out) if (of_generated == name).sum() >= LEAST_IN_CELL]
    weights = [int((of_held_out == name).sum()) for name in names]
    scores = [_z_u(generated[of_generated == name], held_out[of_held_out == name]) for name in names]
    return float(np.average(scores, weights=weights)) if names else None


def _z_u(generated: Floats, held_out: Floats) -> float:
    m, n = len(generated), len(held_out)
    u = mannwhitneyu(generated, held_out, method="asymptotic").statistic
    return float((u - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))


def loss_gap(
    error: Callable[[Tensor, float, Tensor | None], float],
    training: tuple[Tensor, Tensor | None],
    held_out: tuple[Tensor, Tensor | None],
) -> float | None:
    """Denoising error at small noise of held-out images minus that of training images, in units of the noise variance.

    `error(images, σ, labels)`: mean squared error per pixel; both sets are images and their labels, or None. The gap opens
    before R_mem rises (Bonnaire et al. 2025, arXiv 2505.17638). None without held-out images.
    """
    if not len(held_out[0]):
        return None
    of_set = [error(images[:N_LOSS], LOSS_SIGMA, None if of is None else of[:N_LOSS]) for images, of in (training, held_out)]
    return (of_set[1] - of_set[0]) / LOSS_SIGMA**2

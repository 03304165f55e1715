"""Labels a diffusion is conditioned on: of the training subset, of what is sampled, and R_mem by
them.

Labels are 0 … label_dim − 1, int64. Which image has which depends on the data and the seed alone
(unique ones: on its place in the subset), so configurations agree on them as they agree on the
images.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.config.identity import derive_seed
from trainables.config.labels import Labels, RandomLabels
from trainables.config.trial import Configuration
from trainables.data.images import ImageData, subset_order
from trainables.data.pools import Ints
from trainables.errors import UserError

PER_LABEL = 100  # R_mem per label is reported for at most so many


def subset_labels(labels: Labels, data: ImageData, subset: Ints, seed: int) -> Ints | None:
    """Labels of the training subset, [N] int64, or None without conditioning; `subset`: [N],
    indices of its images.

    Copies of an image share its true or random label; a unique label is one training image's own,
    also a copy's.
    """
    if labels.kind == "none":
        return None
    if labels.kind == "unique":
        return np.arange(len(subset))
    if isinstance(labels, RandomLabels):
        rng = np.random.default_rng(derive_seed("labels", data.digest, seed))
        return rng.integers(labels.classes, size=len(data))[subset]
    assert data.labels is not None, "see check_subset"
    return np.unique(data.labels, return_inverse=True)[1][subset].astype(np.int64)


def label_dim(labels: Labels, of_subset: Sequence[int] | Ints | None) -> int:
    """Number of distinct labels the network must know; 0 without conditioning."""
    if isinstance(labels, RandomLabels):
        return labels.classes
    return 0 if of_subset is None else int(max(of_subset)) + 1


def planned_label_dim(
    configuration: Configuration, n: int, of_data: ImageData | None = None
) -> int:
    """`label_dim` at N = `n`, before there is a subset; without the data, as many classes as their
    source says."""
    labels, data = configuration.labels, configuration.data
    if labels.kind == "unique":
        return n
    if labels.kind == "true":
        if of_data is not None and of_data.labels is not None:
            return len(np.unique(of_data.labels))
        return data.classes or data.n_classes
    return label_dim(labels, None)


def check_subset(
    labels: Labels,
    data: ImageData,
    n: int,
    seeds: Iterable[int],
    in_file_order: bool = False,
    pair: bool = False,
) -> None:
    """Raises UserError if a subset of N = `n` of these images can't be trained on, or not with
    these labels.

    `seeds`, `in_file_order`: of the subsets, see `subset_order`. Subsets are nested: what holds for
    N holds for larger ones. `pair`: whether a second model needs as many other images.
    """
    if pair and labels.kind in ("random", "unique"):
        raise UserError(
            f"measurement.pair: labels.kind={labels.kind} says nothing to a model of other images; "
            "choose none or true"
        )
    if pair and 2 * n > len(data):
        raise UserError(
            f"measurement.pair: two models of N={n} need {2 * n} images; {data.source} has {len(data)}"
        )
    if n > len(data):
        raise UserError(f"N={n} is more than the {len(data)} images of {data.source}")
    _check_groups(data, n, seeds, in_file_order)
    if labels.kind != "true":
        return
    if data.labels is None:
        raise UserError(
            f"labels.kind=true: the images of {data.source} have no labels; "
            "choose none, random or unique"
        )
    classes = len(np.unique(data.labels))
    if n < classes:
        raise UserError(
            f"labels.kind=true: N={n} is less than the {classes} classes; "
            f"raise it (search.n_low) or --set data.classes={n}"
        )


def _check_groups(data: ImageData, n: int, seeds: Iterable[int], in_file_order: bool) -> None:
    """Each subset needs images of two groups, copies of an image being a group: else there is no
    second neighbour."""
    if data.groups is None:
        return
    copies = data.rule.multiplicity if data.rule.repeated else 1
    largest = int(np.unique(data.groups, return_counts=True)[1].max())
    if n > copies * largest:
        return
    for seed in seeds:
        subset = subset_order(data, seed, in_file_order)[:n]
        if len(np.unique(data.groups[subset])) < 2:
            repeated = f" (data.duplicates.multiplicity={copies})" if data.rule.repeated else ""
            raise UserError(
                f"N={n}: with seed {seed} these are all of one group{repeated}; "
                "raise it (search.n_low)"
            )


def draw_labels(of_subset: Ints, seeds: Sequence[int], uniform_over: int | None = None) -> Ints:
    """A label for each latent seed, [len(seeds)] int64: that of a training image drawn by the seed.

    `uniform_over`: uniform on 0 … uniform_over − 1 instead, whatever labels the subset has (Gu et
    al. 2023).
    """
    drawn = np.array([derive_seed("label", seed) for seed in seeds], dtype=np.int64)
    if uniform_over:
        return drawn % uniform_over
    return of_subset[drawn % len(of_subset)]


def by_label(
    memorized: NDArray[np.bool_],
    nearest: Ints,
    dim: int,
    subset: Ints,
    labels: Ints | None = None,
    subset_labels: Ints | None = None,
) -> dict[str, Any]:
    """What a conditional trial's result says about labels; nothing without them.

    memorized: [n] bool; nearest: [n], positions in the subset; dim: number of labels; subset: [N],
    indices of the images, the same for copies of one; labels: [n]; subset_labels: [N]. `own_label`:
    share of the memorized samples that copy an image with their label, None if nothing is
    memorized; `r_mem_per_label`: of the labels that were drawn, None for more than PER_LABEL of
    them; `unseen_labels`: share of the samples whose label no training image has.
    """
    if labels is None or subset_labels is None:
        return {}
    # a number for each pair of an image and a label
    pairs, trained_pairs = subset[nearest] * dim + labels, subset * dim + subset_labels
    own = np.isin(pairs, trained_pairs)[memorized]
    per_label = {
        int(label): float(memorized[labels == label].mean()) for label in np.unique(labels)
    }
    return {
        "own_label": float(own.mean()) if len(own) else None,
        "r_mem_per_label": per_label if dim <= PER_LABEL else None,
        "unseen_labels": float((~np.isin(labels, subset_labels)).mean()),
    }

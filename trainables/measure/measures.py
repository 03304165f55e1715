"""What is measured beside R_mem: controls that say what an R_mem is worth, and other views of the
same distances. No torch.

Each measure is one row of `Measures`. Results, reports, tables and MLflow follow from the rows, so
a new measure that the distances tell is one more row here. docs/measures.md says where each comes
from and how to read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trainables.measure.feature_rule import LEAST_HELD_OUT
from trainables.measure.kept import Distances, Judged
from trainables.measure.r_mem import Floats, Ints, Neighbours

# how a value is written for people; "by label" is a mapping, and no number
Written = Literal["share", "distance", "count", "score", "by label"]
# the trials, near an EMM, whose mean stands beside it
Beside = Literal["all trials", "trials that copy"]


@dataclass(frozen=True)
class Measure:
    """A row: all that anybody needs to know of a measure but its name, which is that of its field.

    title: at the head of a column; says: what it means, in one sentence without its full stop;
    compute: it, from the distances; place: the function that tells it, where it takes more than
    distances; beside_emm: the trials whose mean the report shows beside an EMM, if it does;
    in_csv: whether trials.csv has it; of_images: whether an audit, which has no model, tells it.
    """

    title: str
    says: str
    written: Written
    compute: Callable[[Judged], float | None] | None = None
    place: str = ""
    beside_emm: Beside | None = None
    in_csv: bool = False
    of_images: bool = True


# ---------------------------------------------------------------- how they are computed


def _r_mem_without_flips(judged: Judged) -> float | None:
    """Of the two rules one found what was `found`; the other is kept beside it. An older version
    kept neither, and then both are unknown."""
    if judged.distances.with_flips is not None:
        return judged.r_mem
    return _r_mem(judged.distances.without_flips, judged.k)


def _r_mem_with_flips(judged: Judged) -> float | None:
    if judged.distances.without_flips is not None:
        return judged.r_mem
    return _r_mem(judged.distances.with_flips, judged.k)


def _r_mem(neighbours: Neighbours | None, k: float) -> float | None:
    return None if neighbours is None else neighbours.r_mem(k)


def _distinct_copied(judged: Judged) -> int:
    copied, groups = judged.distances.found.i1[judged.memorized], judged.distances.groups
    return len(np.unique(copied if groups is None else groups[copied]))


def _distinct_expected(judged: Judged) -> float:
    groups = judged.distances.groups
    n_distinct = judged.n_training if groups is None else len(np.unique(groups))
    return expected_distinct(judged.n_memorized, n_distinct)


def expected_distinct(n_copies: int, n_training: int) -> float:
    """Distinct images among `n_copies` drawn uniformly, with replacement, from N: N(1 − (1 −
    1/N)^n)."""
    return float(-n_training * np.expm1(n_copies * np.log1p(-1 / n_training)))


def _generalized(judged: Judged) -> float | None:
    if judged.spurious is None:
        return None
    return float((~judged.spurious & ~judged.memorized).mean())


def _share(which: NDArray[np.bool_] | None) -> float | None:
    return None if which is None else float(which.mean())


def _median(values: Floats | None) -> float | None:
    return None if values is None else float(np.median(values))


def _nearer_training(judged: Judged) -> float | None:
    d1, to_held_out = judged.distances.found.d1, judged.distances.to_held_out
    if to_held_out is None:
        return None
    return float(np.mean(d1 < to_held_out) + np.mean(d1 == to_held_out) / 2)


def _authentic(neighbours: Neighbours | None, source_spacing: Floats | None) -> float | None:
    """Of images with these neighbours; see `Distances`."""
    if neighbours is None or source_spacing is None:
        return None
    return float(np.mean(neighbours.d1 > source_spacing))


def _calibrated(judged: Judged) -> float | None:
    taken = judged.distances
    if taken.null is None or taken.around is None or taken.null_around is None:
        return None
    return share_below(
        _ratio(taken.found.d1, taken.around), _ratio(taken.null.d1, taken.null_around)
    )


def _ratio(d1: Floats, around: Floats) -> Floats:
    """[n]; 1 where all images around are at distance 0."""
    return np.divide(d1, around, out=np.ones_like(d1), where=around > 0)


def share_below(values: Floats, null: Floats) -> float | None:
    """Share of `values` below the threshold that all but 1 % of `null` reach; None of fewer than 99
    of these.

    The threshold is one of the m values of the null, number ⌊(m + 1) / 100⌋ from below: a value
    drawn as they are is below it with this number / (m + 1), which is 1 % at most.
    """
    rank = (len(null) + 1) // 100
    return float(np.mean(values < np.sort(null)[rank - 1])) if rank else None


def _in_features(name: str) -> Callable[[Judged], float | None]:
    """An attribute of the distances in features, where they were taken."""

    def computed(judged: Judged) -> float | None:
        in_features = judged.distances.in_features
        return None if in_features is None else getattr(in_features, name)

    return computed


def _c_t(judged: Judged) -> float | None:
    null = judged.distances.null
    return None if null is None else c_t(judged.distances.found.d1, null.d1)


def c_t(generated: Floats, held_out: Floats) -> float:
    """C_T of Meehan, Chaudhuri and Dasgupta 2020 (arXiv 2004.05675) of one cell, the whole space:
    far below 0, the model copies; far above, it underfits.

    Distances to the nearest training image, of generated and held-out images, [any] each. It is the
    share of pairs in which the generated image is farther, centred and scaled as if both were drawn
    alike: standard normal if they are.
    """
    return (auroc(held_out, generated) - 0.5) / auroc_error(len(held_out), len(generated))


def auroc(lower: Floats, higher: Floats) -> float:
    """Share of the pairs in which a value of `lower` [any] is below one of `higher` [any], equal
    ones counting half: Mann–Whitney's U over the number of pairs, ½ if both are drawn alike."""
    from scipy.stats import mannwhitneyu  # which takes half a second to import

    u = mannwhitneyu(higher, lower, method="asymptotic").statistic
    return float(u / (len(lower) * len(higher)))


def auroc_error(n_lower: int, n_higher: int) -> float:
    """Its standard deviation if both are drawn alike, without ties (Mann and Whitney 1947)."""
    return float(np.sqrt((n_lower + n_higher + 1) / (12 * n_lower * n_higher)))


def loss_gap(training: Floats, held_out: Floats) -> float:
    """Mean denoising error of held-out images minus that of training images, [levels, any] each, in
    units of the noise variance. It opens before R_mem rises (Bonnaire et al. 2025, arXiv
    2505.17638)."""
    return float(held_out.mean() - training.mean())


def membership(training: Floats, held_out: Floats) -> float:
    """How well an image's denoising error, [levels, any], summed over noise levels, tells training
    images: the share of pairs in which the training image has the lower one."""
    return auroc(training.sum(0), held_out.sum(0))


def copies_and_isolation(
    judged: Judged, neighbours: Neighbours | None
) -> tuple[Ints, Floats] | None:
    """Of every training image whose isolation is known, [any] each: how many of the images with
    these neighbours copy it, and its distance to the nearest other one. A group is one image, as
    isolated as its least isolated member. None where no distances between training images were
    taken."""
    spacing, groups = judged.distances.spacing, judged.distances.groups
    if neighbours is None or spacing is None:
        return None
    names = np.arange(judged.n_training) if groups is None else groups
    _, group = np.unique(names, return_inverse=True)
    isolation = np.full(group.max() + 1, np.inf)
    np.minimum.at(isolation, group[: len(spacing)], spacing)
    copied = group[neighbours.i1[neighbours.memorized(judged.k)]]
    copies, is_known = np.bincount(copied, minlength=len(isolation)), np.isfinite(isolation)
    return copies[is_known], isolation[is_known]


def _isolation_rho(judged: Judged, neighbours: Neighbours | None) -> float | None:
    """Spearman's; None where it is not defined, since all copies or all distances are the same."""
    from scipy.stats import spearmanr

    found = copies_and_isolation(judged, neighbours)
    if found is None or not all(np.ptp(values) for values in found):
        return None
    return float(spearmanr(*found).statistic)


def _isolation_images(judged: Judged) -> int | None:
    found = copies_and_isolation(judged, judged.distances.found)
    return None if found is None else len(found[0])


def _membership_auroc(judged: Judged) -> float | None:
    training, held_out = judged.distances.errors, judged.distances.null_errors
    return None if training is None or held_out is None else membership(training, held_out)


def _membership_error(judged: Judged) -> float | None:
    training, held_out = judged.distances.errors, judged.distances.null_errors
    if training is None or held_out is None:
        return None
    return auroc_error(training.shape[1], held_out.shape[1])


# ---------------------------------------------------------------- the rows


class Measures(BaseModel):
    """What the result of a trial says beside R_mem: a row for each field. None where it is not
    known."""

    model_config = ConfigDict(frozen=True)

    r_mem_last: Annotated[
        float | None,
        Measure(
            "R_mem at the end",
            "R_mem at the end of the training, with the latents that choose the best snapshot",
            "share",
            place="trainables.trial.training.Training.r_mem_last",
            in_csv=True,
        ),
    ] = None
    r_mem_half: Annotated[
        float | None,
        Measure(
            "R_mem at T/2",
            "R_mem at exactly half of the training, with the latents that choose the best snapshot",
            "share",
            place="trainables.trial.training.Training.r_mem_half",
            in_csv=True,
        ),
    ] = None
    median_d1: Annotated[
        float | None,
        Measure(
            "median d1",
            "distance of a generated image to its nearest training image (median, L2, pixel values "
            "0–255)",
            "distance",
            lambda judged: _median(judged.distances.found.d1),
            beside_emm="all trials",
        ),
    ] = None
    nn_distance: Annotated[
        float | None,
        Measure(
            "NN distance",
            "distance of a training image to its nearest other one (median, L2, pixel values "
            "0–255); the closer training images lie, the stricter the rule",
            "distance",
            lambda judged: _median(judged.distances.spacing),
            beside_emm="all trials",
        ),
    ] = None
    null_rate: Annotated[
        float | None,
        Measure(
            "null rate",
            "the share of images that were never trained on that the rule calls memorized",
            "share",
            lambda judged: _r_mem(judged.distances.null, judged.k),
            beside_emm="all trials",
        ),
    ] = None
    null_samples: Annotated[
        int,
        Measure(
            "null samples",
            "number of the held-out images behind the null rate",
            "count",
            lambda judged: 0 if judged.distances.null is None else len(judged.distances.null.d1),
        ),
    ] = 0
    ceiling: Annotated[
        float | None,
        Measure(
            "ceiling",
            "R_mem of the closed-form optimum, which can only copy; below 1 only where training "
            "images equal each other",
            "share",
            place="trainables.trial.subset.Subset.ceiling",
            beside_emm="all trials",
            in_csv=True,
        ),
    ] = None
    noisy_copier: Annotated[
        float | None,
        Measure(
            "noisy copier",
            "R_mem of copies of the training images with so much noise that they lie at median d1, "
            "in trials that mostly copy: what density leaves of a faithful model whose copies are "
            "that blurred",
            "share",
            lambda judged: _r_mem(judged.distances.copies, judged.k),
            beside_emm="trials that copy",
            in_csv=True,
            of_images=False,
        ),
    ] = None
    r_mem_without_flips: Annotated[
        float | None,
        Measure(
            "R_mem without flips",
            "R_mem were a mirrored copy none; that of the trial if augment=none",
            "share",
            _r_mem_without_flips,
            in_csv=True,
            of_images=False,
        ),
    ] = None
    r_mem_with_flips: Annotated[
        float | None,
        Measure(
            "R_mem with flips",
            "R_mem were a mirrored copy one; that of the trial if augment=flip",
            "share",
            _r_mem_with_flips,
            in_csv=True,
            of_images=False,
        ),
    ] = None
    distinct_copied: Annotated[
        int,
        Measure(
            "distinct copied",
            "number of distinct training images among the memorized samples",
            "count",
            _distinct_copied,
        ),
    ] = 0
    distinct_expected: Annotated[
        float | None,
        Measure(
            "distinct expected",
            "number of distinct training images, were each copy of any training image alike",
            "count",
            _distinct_expected,
        ),
    ] = None
    spurious: Annotated[
        float | None,
        Measure(
            "spurious",
            "share of samples not memorized, but made again among 500 by the model; not known of "
            "fewer",
            "share",
            lambda judged: _share(judged.spurious),
        ),
    ] = None
    spurious_null: Annotated[
        float | None,
        Measure(
            "spurious null",
            "share of held-out images not memorized, but made again among 500 of them",
            "share",
            lambda judged: _share(judged.null_spurious),
        ),
    ] = None
    generalized: Annotated[
        float | None,
        Measure(
            "generalized",
            "share of samples neither memorized nor spurious",
            "share",
            _generalized,
        ),
    ] = None
    nearer_training: Annotated[
        float | None,
        Measure(
            "nearer to training",
            "share of samples nearer to a training image than to any of as many held-out ones; "
            "one half where nothing is copied",
            "share",
            _nearer_training,
            in_csv=True,
        ),
    ] = None
    authentic: Annotated[
        float | None,
        Measure(
            "authentic",
            "share of samples farther from their nearest training image than that is from its own "
            "nearest other one",
            "share",
            lambda judged: _authentic(judged.distances.found, judged.distances.source_spacing),
            in_csv=True,
        ),
    ] = None
    authentic_null: Annotated[
        float | None,
        Measure(
            "authentic null",
            "the same share of held-out images",
            "share",
            lambda judged: _authentic(judged.distances.null, judged.distances.null_source_spacing),
            in_csv=True,
        ),
    ] = None
    calibrated: Annotated[
        float | None,
        Measure(
            "calibrated",
            "share of samples nearer to a training image, for how near the 50 nearest ones are, "
            "than all but 1 % of held-out images",
            "share",
            _calibrated,
            in_csv=True,
        ),
    ] = None
    membership_auroc: Annotated[
        float | None,
        Measure(
            "membership AUROC",
            "share of pairs of a training and a held-out image in which the network removes noise "
            "better from the training image; one half where it does not know them",
            "share",
            _membership_auroc,
            in_csv=True,
            of_images=False,
        ),
    ] = None
    membership_error: Annotated[
        float | None,
        Measure(
            "its null error",
            "standard error of the membership AUROC where it is one half",
            "share",
            _membership_error,
            in_csv=True,
            of_images=False,
        ),
    ] = None
    isolation_rho: Annotated[
        float | None,
        Measure(
            "isolation rho",
            "Spearman's correlation, over training images, of the number of copies with the "
            "distance to the nearest other one; above 0 isolated images are copied more",
            "score",
            lambda judged: _isolation_rho(judged, judged.distances.found),
            in_csv=True,
            of_images=False,
        ),
    ] = None
    isolation_rho_even: Annotated[
        float | None,
        Measure(
            "isolation rho if even",
            "the same of the noisy copier, which copies all training images alike: what the rule "
            "alone makes of it",
            "score",
            lambda judged: _isolation_rho(judged, judged.distances.copies),
            in_csv=True,
            of_images=False,
        ),
    ] = None
    isolation_images: Annotated[
        int | None,
        Measure(
            "isolation images",
            "number of the training images behind the isolation rho, a group being one; 2,000 at "
            "most",
            "count",
            _isolation_images,
            in_csv=True,
            of_images=False,
        ),
    ] = None
    pair_agreement: Annotated[
        float | None,
        Measure(
            "pair agreement",
            "share of samples whose nearest image, of those by a second model that was trained on N "
            "other images, is the one from the same latent; 1 / (number of samples) by chance",
            "share",
            place="trainables.trial.pair.agreement",
            in_csv=True,
            of_images=False,
        ),
    ] = None
    pair_distance: Annotated[
        float | None,
        Measure(
            "pair distance",
            "median distance of the images that both models draw from one latent, over that of "
            "different latents; 1 by chance",
            "share",
            place="trainables.trial.pair.agreement",
            in_csv=True,
            of_images=False,
        ),
    ] = None
    pair_r_mem: Annotated[
        float | None,
        Measure(
            "R_mem of the second",
            "R_mem of the second model, by its own training images",
            "share",
            place="trainables.trial.trial.Trial",
            in_csv=True,
            of_images=False,
        ),
    ] = None
    own_label: Annotated[
        float | None,
        Measure(
            "own label",
            "share of the memorized samples that copy an image of their own label",
            "share",
            place="trainables.data.labels.by_label",
        ),
    ] = None
    r_mem_per_label: Annotated[
        dict[int, float] | None,
        Measure(
            "R_mem per label",
            "R_mem of the conditional samples of each label, for at most 100 labels",
            "by label",
            place="trainables.data.labels.by_label",
        ),
    ] = None
    unseen_labels: Annotated[
        float | None,
        Measure(
            "unseen labels",
            "share of conditional samples whose label no training image has; protocol=paper alone "
            "draws such",
            "share",
            place="trainables.data.labels.by_label",
        ),
    ] = None
    c_t: Annotated[
        float | None,
        Measure(
            "C_T",
            "data-copying statistic against held-out images; far below 0: copies",
            "score",
            _c_t,
        ),
    ] = None
    r_mem_pixels: Annotated[
        float | None,
        Measure(
            "R_mem in pixels",
            "R_mem by the rule in pixels, where R_mem itself is counted in features",
            "share",
            place="trainables.trial.samples.FinalSamples.measure",
            in_csv=True,
            of_images=False,
        ),
    ] = None
    r_mem_features: Annotated[
        float | None,
        Measure(
            "R_mem in features",
            "share of samples that are copies in the features that the measurement names: with a "
            "ratio d1 / d2 (or a distance d1) below that of 99 % of held-out images",
            "share",
            _in_features("r_mem"),
            in_csv=True,
        ),
    ] = None
    features_null: Annotated[
        float | None,
        Measure(
            "null in features",
            "share of held-out images that R_mem in features would count, among those that did not "
            "set its threshold; about 1 % by construction",
            "share",
            _in_features("null_rate"),
            in_csv=True,
        ),
    ] = None
    features_threshold: Annotated[
        float | None,
        Measure(
            "threshold in features",
            "ratio (or distance) under which a sample counts in features; not known of fewer than "
            f"{LEAST_HELD_OUT} held-out images",
            "score",
            _in_features("threshold"),
            in_csv=True,
        ),
    ] = None


def rows_of(model: type[BaseModel]) -> dict[str, Measure]:
    """The rows among the fields of a model, by name."""
    return {
        name: row
        for name, field in model.model_fields.items()
        for row in field.metadata
        if isinstance(row, Measure)
    }


MEASURES = rows_of(Measures)
NUMBERS = {name: row for name, row in MEASURES.items() if row.written != "by label"}
BESIDE_EMM = {name: row for name, row in MEASURES.items() if row.beside_emm is not None}


def measures(distances: Distances, n_training: int, k: float) -> dict[str, Any]:
    """R_mem and every measure that the distances tell, by its name in a result; None where those it
    needs were not taken."""
    judged = Judged(distances, n_training, k)
    counts = {
        "r_mem": judged.r_mem,
        "n_samples": len(judged.memorized),
        "n_memorized": judged.n_memorized,
    }
    computed = {
        name: row.compute(judged) for name, row in MEASURES.items() if row.compute is not None
    }
    return counts | computed

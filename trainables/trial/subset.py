"""What a trial trains on, and what its samples are conditioned on and compared with: all that
follows from data, N and seed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.identity import derive_seed
from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData, subset_order
from trainables.data.labels import draw_labels, label_dim, subset_labels
from trainables.data.pools import Ints, UInt8
from trainables.errors import TrialFailed
from trainables.measure.distances import (
    FINAL_SIGMAS,
    LOSS_SIGMA,
    N_COPIES,
    N_LOSS,
    denoising_errors,
    take_distances,
)
from trainables.measure.feature_rule import LEAST_HELD_OUT, MOST_HELD_OUT
from trainables.measure.features import FeatureBank, FeatureSpace, open_features
from trainables.measure.kept import Distances
from trainables.measure.measures import loss_gap, membership
from trainables.measure.neighbours import comparison_of
from trainables.measure.r_mem import Floats, Neighbours
from trainables.training.team import Team
from trainables.training.trainer import Trainer
from trainables.trial.shared import SharedComparison, sample_optimum

N_CEILING = 256  # samples of the closed-form optimum


def latent_seeds(spec: TrialSpec, digest: str, purpose: str, start: int, end: int) -> list[int]:
    """Of the images number `start` … `end` − 1 that a trial draws for `purpose`. digest: of its data.

    They depend on data and seed alone, so that configurations are compared on the same latents.
    """
    if spec.measurement.protocol == "paper":  # one set of latents for everything
        return list(range(start, end))
    return [derive_seed(purpose, digest, spec.seed, index) for index in range(start, end)]


def sample_labels(spec: TrialSpec, of_subset: Ints, seeds: Sequence[int]) -> Ints:
    """The labels of its samples with these latents' seeds, [len(seeds)] int64; of_subset [N]."""
    dim = label_dim(spec.configuration.labels, of_subset)
    return draw_labels(of_subset, seeds, dim if spec.measurement.protocol == "paper" else None)


class Subset:
    """The training subset of a trial.

    indices: [N] int64, in the data; images: [N, C, R, R] uint8; labels: [N] int64, or None without
    conditioning; groups: [N] int64, or None; held_out: images outside of it, [any, C, R, R] uint8,
    none of them equal to one of its images. `second`: of the second model of a pair, the N images
    that come next in the order of the seed and equal none of the first one's.
    """

    def __init__(
        self,
        spec: TrialSpec,
        data: ImageData,
        device: torch.device,
        team: Team | None = None,
        second: bool = False,
    ) -> None:
        self.spec, self.device, self.digest, self.team = spec, device, data.digest, team
        self.features: FeatureBank | None = None  # until `open_features`
        configuration, measurement, seed = spec.configuration, spec.measurement, spec.seed
        order = subset_order(data, seed, in_file_order=measurement.protocol == "paper")
        self.comparison = comparison_of(spec, device)
        flips = self.comparison.flips
        of_first = order[: spec.n]
        if second:
            order = _second_first(data, order, spec.n, flips)
        self.indices = order[: spec.n]
        untrained = _untrained(data, order, spec.n, flips)
        n_held_out = max(measurement.n_samples, N_LOSS, spec.n)
        if measurement.features is not None:
            n_held_out = max(n_held_out, MOST_HELD_OUT)
        others = np.fromiter(islice(untrained, n_held_out), dtype=np.int64)
        self.images = torch.from_numpy(data.images[self.indices])
        self.held_out = torch.from_numpy(data.images[others])
        self.groups = None if data.groups is None else data.groups[self.indices]
        if team is not None:
            self.comparison = SharedComparison(
                device, flips, team=team, training=self.images, groups=self.groups
            )
        self.labels = subset_labels(configuration.labels, data, self.indices, seed)
        self.label_dim = label_dim(configuration.labels, self.labels)
        # those that samples are conditioned on: the same for both models of a pair
        self.asked = subset_labels(configuration.labels, data, of_first, seed)
        # a unique label is that of a training image: none fits an image held out
        unique = configuration.labels.kind == "unique"
        self.held_out_labels = (
            None if unique else _tensor(subset_labels(configuration.labels, data, others, seed))
        )

    @property
    def label_tensor(self) -> Tensor | None:
        return _tensor(self.labels)

    def latent_seeds(self, purpose: str, start: int, end: int) -> list[int]:
        """See the function `latent_seeds`."""
        return latent_seeds(self.spec, self.digest, purpose, start, end)

    def sample_labels(self, seeds: list[int]) -> Tensor | None:
        """The labels that samples are conditioned on, [len(seeds)]: those of training images drawn
        by the latents' seeds."""
        if self.asked is None:
            return None
        return torch.from_numpy(sample_labels(self.spec, self.asked, seeds))

    def label_arrays(self, seeds: list[int]) -> dict[str, Ints]:
        """Of a conditional trial: the labels of samples with these seeds, and of the subset; else
        nothing."""
        labels = self.sample_labels(seeds)
        if labels is None or self.labels is None:
            return {}
        return {"labels": labels.numpy(), "subset_labels": self.labels}

    def nearest(self, samples: Tensor) -> Neighbours:
        """The two nearest training images of each sample [n, C, R, R] uint8."""
        return self.comparison.nearest(samples, self.images, self.groups)

    def open_features(self) -> None:
        """Lets it compare in features, if the measurement names some: before the training, since
        what they can't do on this device would end the trial only after it.

        Raises UserError if they can't be used, and TrialFailed if R_mem is to be counted in them
        and too few images are held out.
        """
        how = self.spec.measurement
        space = open_features(how, self.images.shape[1:], self.device)
        if space is None:
            return
        self.features = self.bank(space)
        n = len(self.held_out)
        if how.judge == "features" and n < LEAST_HELD_OUT:
            raise TrialFailed(
                f"judge=features needs {LEAST_HELD_OUT} held-out images, and {n} are left"
            )

    def bank(self, space: FeatureSpace) -> FeatureBank:
        """What samples are compared with in features: the training images, and held-out ones, of
        which the threshold needs no more."""
        held_out = self.held_out[: max(self.spec.measurement.n_samples, MOST_HELD_OUT)]
        return FeatureBank(space, self.images, held_out, self.groups, self.comparison.flips)

    def memorized(self, samples: Tensor, found: Neighbours) -> NDArray[np.bool_]:
        """[n], of samples [n, C, R, R] uint8 and their neighbours in pixels: as the measurement
        judges."""
        if self.spec.measurement.judge == "pixels":
            return found.memorized(self.spec.measurement.k)
        assert self.features is not None, "they were opened"
        copies = self.features.look_at(samples).copies
        assert copies is not None, "enough images are held out"
        return copies

    def distances(self, found: Neighbours, samples: Tensor, trainer: object = None) -> Distances:
        """All that go with those already `found` for `samples`; with a trainer, also its denoising
        errors."""
        held_out, n, seed = self.held_out, self.spec.n, self.spec.seed
        null = held_out[: self.spec.measurement.n_samples]
        pool = held_out[:n] if len(held_out) >= n else None
        seeds = [derive_seed("noisy copy", self.digest, seed, index) for index in range(N_COPIES)]
        taken = take_distances(
            found,
            samples,
            null,
            self.images,
            self.comparison,
            self.groups,
            seeds,
            pool=pool,
            features=self.features,
        )
        errors, null_errors = self._errors(trainer, FINAL_SIGMAS) or (None, None)
        return replace(taken, errors=errors, null_errors=null_errors)

    def snapshot_measures(self, trainer: object) -> dict[str, float]:
        """What a snapshot says beside R_mem, by name; nothing where it can't be had, see
        `_errors`."""
        errors = self._errors(trainer, [LOSS_SIGMA])
        if errors is None:
            return {}
        return {"loss_gap": loss_gap(*errors), "membership": membership(*errors)}

    def _errors(self, trainer: object, sigmas: Sequence[float]) -> tuple[Floats, Floats] | None:
        """Denoising errors of training and of held-out images, see `denoising_errors`; None where
        they can't be had: no held-out images or none with labels, a trainer of the user's.

        Raises TrialFailed if they are not finite.
        """
        lacks_labels = self.labels is not None and self.held_out_labels is None
        if lacks_labels or not len(self.held_out) or not isinstance(trainer, Trainer):
            return None
        sets = (self.images, self.label_tensor), (self.held_out, self.held_out_labels)
        training, held_out = (
            denoising_errors(trainer.denoising_errors, images, sigmas) for images in sets
        )
        # averaged weights that are not finite never become so again
        if not (np.isfinite(training).all() and np.isfinite(held_out).all()):
            raise TrialFailed(
                f"denoising errors are not finite after {trainer.position} images, with the weights "
                "that sample; a network of your own may give such numbers in eval mode alone, "
                "else try a lower trainer.lr"
            )
        return training, held_out

    def ceiling(self) -> float:
        """R_mem of the closed-form optimum: below 1 where the data themselves hide copies (exact
        duplicates)."""
        measurement = self.spec.measurement
        seeds = self.latent_seeds("selection", 0, min(N_CEILING, measurement.n_samples))
        labels = self.sample_labels(seeds)
        images, of_images = self.images, self.label_tensor
        samples = sample_optimum(
            images, of_images, seeds, labels, measurement, self.device, self.team
        )
        return self.nearest(samples).r_mem(measurement.k)


def _second_first(data: ImageData, order: Ints, n: int, flips: bool) -> Ints:
    """The first `n` of the untrained images in front of the whole order. Raises TrialFailed if there
    are not so many."""
    second = np.fromiter(islice(_untrained(data, order, n, flips), n), dtype=np.int64)
    if len(second) < n:
        raise TrialFailed(
            f"measurement.pair: of the {len(data)} images only {len(second)} equal none of the "
            f"first {n}; lower search.n_high"
        )
    return np.concatenate([second, order])


def _untrained(data: ImageData, order: Ints, n: int, flips: bool) -> Iterator[int]:
    """Of the images in `order` after the first `n` those that none of these first ones equals, or
    shares its group with.

    flips: nor equals when it is mirrored (left and right).
    """
    groups = np.arange(len(data)) if data.groups is None else data.groups
    trained = {_content(image) for image in data.images[order[:n]]}
    rest = order[n:]
    for index in rest[~np.isin(groups[rest], groups[order[:n]])]:
        image = data.images[index]
        is_mirrored = flips and _content(image[..., ::-1]) in trained
        if _content(image) not in trained and not is_mirrored:
            yield int(index)


def _content(image: UInt8) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _tensor(labels: Ints | None) -> Tensor | None:
    return None if labels is None else torch.from_numpy(np.ascontiguousarray(labels))

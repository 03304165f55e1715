"""Factors of the data: which classes, a mix of two sources, and copies; as plain operations on
arrays."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.errors import UserError

UInt8 = NDArray[np.uint8]
Ints = NDArray[np.int64]


class Pool(NamedTuple):
    """Images that subsets are drawn from.

    images [n, C, R, R] uint8; labels, groups: [n] int64 or None; second: [n] bool, those of the
    second source, or None; notes: for each folder or file a line that says what was found and done.
    """

    images: UInt8
    labels: Ints | None = None
    groups: Ints | None = None
    second: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    def take(self, chosen: Ints) -> "Pool":
        """The images at these positions."""
        return self._replace(
            images=self.images[chosen],
            labels=None if self.labels is None else self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            second=None if self.second is None else self.second[chosen],
        )


def first_classes(pool: Pool, classes: int) -> Pool:
    """The images of the `classes` lowest labels, in their order."""
    if pool.labels is None:
        raise UserError("data.classes: these images have no labels; leave it out")
    there = np.unique(pool.labels)
    if classes > len(there):
        raise UserError(f"data.classes: {classes} is more than the {len(there)} classes there are")
    return pool.take(np.flatnonzero(np.isin(pool.labels, there[:classes])))


def mixed(first: Pool, second: Pool, share: float) -> Pool:
    """As many images of both sources as the share α of the second allows in every class: m (1 − α)
    and m α of them.

    m is the largest number for which there are enough; which images are left out is drawn once and
    for all. Raises UserError if a class is missing in the second source; classes that only it has
    are not used.
    """
    if (first.labels is None) != (second.labels is None):
        raise UserError(
            "data.mix: one of the two sources has labels and the other has none; "
            "give both, or neither"
        )
    if first.groups is not None or second.groups is not None:
        raise UserError("data.mix: images with groups can't be mixed; leave the groups out")
    ours, theirs = _classes(first), _classes(second)
    missing = set(ours.tolist()) - set(theirs.tolist())
    if missing:
        raise UserError(f"data.mix: the second source has no image of class {min(missing)}")
    rng = np.random.default_rng(0)
    of_first, of_second = list[Ints](), list[Ints]()
    for label in np.unique(ours):
        in_first = rng.permutation(np.flatnonzero(ours == label))
        in_second = rng.permutation(np.flatnonzero(theirs == label))
        by_first = len(in_first) / (1 - share) if share < 1 else np.inf
        by_second = len(in_second) / share if share > 0 else np.inf
        m = int(min(by_first, by_second))
        n_second = round(share * m)
        of_first.append(in_first[: m - n_second])
        of_second.append(in_second[:n_second])
    a = first.take(np.sort(np.concatenate(of_first)))
    b = second.take(np.sort(np.concatenate(of_second)))
    labels = None if a.labels is None or b.labels is None else np.concatenate([a.labels, b.labels])
    origin = np.repeat([False, True], [len(a.images), len(b.images)])
    images = np.concatenate([a.images, b.images])
    return Pool(images, labels, None, origin, (*a.notes, *b.notes))


def _classes(pool: Pool) -> Ints:
    """[n] int64; without labels, all are of one class."""
    return np.zeros(len(pool.images), np.int64) if pool.labels is None else pool.labels


@dataclass(frozen=True)
class Rule:
    """How a subset takes its turns within a class: the share of a second source, or the share that
    is there several times.

    `mix`: share of the turns that go to images of the second source. `repeated`: share of the turns
    that go to images that are there `multiplicity` times in a row, each copy taking a turn. Both
    hold for every prefix, to one image of the class.
    """

    mix: float = 0.0
    repeated: float = 0.0
    multiplicity: int = 1

    def turns(self, members: Ints, second: NDArray[np.bool_] | None, phase: float) -> Ints:
        """The sequence of turns of a class, from an order of its images.

        members: [m] int64; second: [m] bool, which of them are of the second source; phase in (0,
        1), other for every class, so that what is rounded evens out between them. -> [m or more]
        int64.
        """
        if second is not None and 0 < self.mix < 1:
            # the j-th image of the second source comes when α turns + phase reach j; those of the
            # first fill the rest
            of_second = (second.cumsum() - phase) / self.mix
            of_first = ((~second).cumsum() - 1 + phase) / (1 - self.mix)
            turn = np.where(second, of_second, of_first)
            members = members[np.argsort(turn, kind="stable")]
        if self.repeated:
            # the share of distinct images that are repeated, for that share of all turns
            share = self.repeated / (self.multiplicity - self.repeated * (self.multiplicity - 1))
            is_repeated = np.diff(np.floor(share * np.arange(len(members) + 1) + phase)) > 0
            members = np.repeat(members, np.where(is_repeated, self.multiplicity, 1))
        return members


PLAIN = Rule()

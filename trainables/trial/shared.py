"""What of a trial's measurement the members of a team share: the search for neighbours, and the
samples of the closed-form optimum."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config.measurement import Measurement
from trainables.diffusion.sampling import from_uint8, sample
from trainables.measure.neighbours import Comparison
from trainables.measure.r_mem import Floats, Ints, Neighbours
from trainables.networks.optimum import OptimalDenoiser
from trainables.training.team import Member, Team


@dataclass(frozen=True, kw_only=True)
class SharedComparison(Comparison):
    """The same comparison: every member takes a share of the samples.

    training, groups: those of the trial, which every member holds, so that they are sent once.
    """

    team: Team
    training: Tensor
    groups: Ints | None

    def __post_init__(self) -> None:
        self.team.tell(_hold, self.training, self.groups)
        _hold(self.team, self.training, self.groups)

    def nearest(self, samples: Tensor, training: Tensor, groups: Ints | None = None) -> Neighbours:
        return Neighbours.joined(self._parts("nearest", samples, training, groups))

    def around(self, samples: Tensor, training: Tensor, groups: Ints | None = None) -> Floats:
        return np.concatenate(self._parts("around", samples, training, groups))

    def _parts(
        self, what: str, samples: Tensor, training: Tensor, groups: Ints | None
    ) -> list[Any]:
        """What the comparison called `what` gives, of the share of each member."""
        team, alone = self.team, Comparison(self.device, self.flips)
        if len(samples) < team.size:
            return [getattr(alone, what)(samples, training, groups)]
        shares = [team.share(len(samples), rank) for rank in range(team.size)]
        is_held = training is self.training and groups is self.groups
        others = None if is_held else (training, groups)
        return team.ask(_compare, [(alone, what, samples[share], others) for share in shares])


def _hold(member: Member, training: Tensor, groups: Ints | None) -> None:
    member.held["training"] = training, groups


def _compare(
    member: Member,
    comparison: Comparison,
    what: str,
    samples: Tensor,
    others: tuple[Tensor, Ints | None] | None,
) -> Any:
    """others: in place of the training images that are held."""
    training, groups = others or member.held["training"]
    return getattr(replace(comparison, device=member.device), what)(samples, training, groups)


def sample_optimum(
    images: Tensor,
    labels: Tensor | None,
    seeds: list[int],
    of_samples: Tensor | None,
    how: Measurement,
    device: torch.device,
    team: Team | None = None,
) -> Tensor:
    """Samples of the closed-form optimum on training images [N, C, R, R] uint8 and labels [N] int64:
    one for each seed, [len(seeds), C, R, R] uint8, with the labels `of_samples` [len(seeds)]."""
    if team is None or len(seeds) < team.size:
        return _optimum(Member(0, [device]), images, labels, seeds, of_samples, how)
    parts = []
    for share in (team.share(len(seeds), rank) for rank in range(team.size)):
        part = None if of_samples is None else of_samples[share]
        parts.append((images, labels, seeds[share], part, how))
    return torch.cat(team.ask(_optimum, parts))


def _optimum(
    member: Member,
    images: Tensor,
    labels: Tensor | None,
    seeds: list[int],
    of_samples: Tensor | None,
    how: Measurement,
) -> Tensor:
    denoiser = OptimalDenoiser(from_uint8(images), labels).to(member.device)
    return sample(denoiser, seeds, images.shape[1:], how, member.device, of_samples)

"""What of a trial's measurement the members of a team share: the search for neighbours, and the
samples of the closed-form optimum."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.config.measurement import Measurement
from trainables.diffusion.sampling import from_uint8, sample
from trainables.measure.neighbours import Comparison
from trainables.measure.r_mem import Ints, Neighbours
from trainables.networks.optimum import OptimalDenoiser
from trainables.training.team import Member, Team


@dataclass(frozen=True, kw_only=True)
class SharedComparison(Comparison):
    """The same comparison: every member takes a share of the samples."""

    team: Team

    def nearest(self, samples: Tensor, training: Tensor, groups: Ints | None = None) -> Neighbours:
        team, alone = self.team, Comparison(self.device, self.flips)
        if len(samples) < team.size:
            return alone.nearest(samples, training, groups)
        shares = [team.share(len(samples), rank) for rank in range(team.size)]
        parts = [(alone, samples[share], training, groups) for share in shares]
        return Neighbours.joined(team.ask(_nearest, parts))


def _nearest(
    member: Member, comparison: Comparison, samples: Tensor, training: Tensor, groups: Ints | None
) -> Neighbours:
    return replace(comparison, device=member.device).nearest(samples, training, groups)


def sample_optimum(
    images: Tensor,
    labels: Tensor | None,
    seeds: list[int],
    of_samples: Tensor | None,
    how: Measurement,
    device: torch.device,
    team: Team | None = None,
) -> Tensor:
    """Samples of the closed-form optimum on training images [N, C, R, R] uint8 and labels [N]: one
    for each seed, [len(seeds), C, R, R] uint8, with the labels `of_samples` [len(seeds)]."""
    if team is None or len(seeds) < team.size:
        return _optimum(device, images, labels, seeds, of_samples, how)
    parts = []
    for share in (team.share(len(seeds), rank) for rank in range(team.size)):
        part = None if of_samples is None else of_samples[share]
        parts.append((images, labels, seeds[share], part, how))
    return torch.cat(team.ask(_member_optimum, parts))


def _member_optimum(
    member: Member,
    images: Tensor,
    labels: Tensor | None,
    seeds: list[int],
    of_samples: Tensor | None,
    how: Measurement,
) -> Tensor:
    return _optimum(member.device, images, labels, seeds, of_samples, how)


def _optimum(
    device: torch.device,
    images: Tensor,
    labels: Tensor | None,
    seeds: list[int],
    of_samples: Tensor | None,
    how: Measurement,
) -> Tensor:
    denoiser = OptimalDenoiser(from_uint8(images), labels).to(device)
    return sample(denoiser, seeds, images.shape[1:], how, device, of_samples)

"""The trainer of a team: the mathematics of one device, on several.

Every member has the weights, draws the noise and the flips of the whole batch, and takes its share
of it; gradients are added up, and all of them take the same step. Weights differ from those of one
device by the order of sums, and by the masks of dropout.
"""

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration
from trainables.training.team import Member, Team
from trainables.training.trainer import Trainer


class TeamTrainer(Trainer):
    """The one of a team's first member, with the life of any trainer; what it does, all do."""

    def __init__(
        self,
        configuration: Configuration,
        images: Tensor,
        seed: int,
        team: Team,
        labels: Tensor | None = None,
    ) -> None:
        self.team = team
        with team.unless_lost():
            team.tell(_build, configuration, images, seed, labels)
            super().__init__(configuration, images, seed, team.device, labels, team)

    def _step(self) -> None:
        # one by one, so that all stop after the same step when this process is interrupted
        with self.team.unless_lost():
            self.team.tell(_step)
            super()._step()

    def _settle(self) -> int:
        with self.team.unless_lost():
            self.team.tell(_settle)
            return super()._settle()

    def sample(
        self, seeds: list[int], measurement: Measurement, labels: Tensor | None = None
    ) -> Tensor:
        if len(seeds) < self.team.size:
            return super().sample(seeds, measurement, labels)
        shares = [self.team.share(len(seeds), rank) for rank in range(self.team.size)]
        self.team.held["trainer"] = super()
        parts = [
            (seeds[share], measurement, None if labels is None else labels[share])
            for share in shares
        ]
        return torch.cat(self.team.ask(_sample, parts))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self.team.unless_lost():
            self.team.tell(_load, "load_state_dict", state)
            Trainer.load_state_dict(self, state)

    def load_sampling_weights(self, values: Mapping[str, Tensor] | Sequence[Tensor]) -> None:
        with self.team.unless_lost():
            self.team.tell(_load, "load_sampling_weights", values)
            super().load_sampling_weights(values)


# ---------------------------------------------------------------- what the members do


def _build(
    member: Member, configuration: Configuration, images: Tensor, seed: int, labels: Tensor | None
) -> None:
    member.held.pop("trainer", None)  # of the trial before, whose memory is needed
    gc.collect()
    if member.device.type == "cuda":
        torch.cuda.empty_cache()
    member.held["trainer"] = Trainer(configuration, images, seed, member.device, labels, member)


def _step(member: Member) -> None:
    trainer: Trainer = member.held["trainer"]
    if not trainer.denoise.training:  # it has sampled
        trainer.denoise.train()
    trainer._step()


def _settle(member: Member) -> None:
    member.held["trainer"]._settle()


def _sample(member: Member, *arguments: Any) -> Tensor:
    images: Tensor = member.held["trainer"].sample(*arguments)
    return images


def _load(member: Member, name: str, state: Any) -> None:
    getattr(member.held["trainer"], name)(state)

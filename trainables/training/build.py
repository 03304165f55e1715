"""What a trial asks of a trainer, and the trainer that a configuration names."""

from typing import Any, Protocol

import torch
from torch import Tensor

from trainables.config.measurement import Measurement
from trainables.config.training import CustomTrainer
from trainables.config.trial import Configuration
from trainables.training.custom import CustomTrainerAdapter
from trainables.training.team import Team
from trainables.training.team_trainer import TeamTrainer
from trainables.training.trainer import Trainer


class AnyTrainer(Protocol):
    """The life of a trainer, ours or a user's: it is built for one configuration, subset, seed and
    device, trains in slices, samples in between, and is kept and loaded.

    However it is sliced, and whatever is sampled in between, its weights are the same; a new one
    that loads its state goes on as if it had never stopped.
    """

    total: int  # images of the whole training
    position: int  # images trained so far
    interrupted: bool  # set by whoever wants `train_until` to end early

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 … 1."""

    def train_until(self, progress: float) -> None:
        """Trains until that share is done. Raises TrialFailed where it can't go on."""

    def take_loss(self) -> float | None:
        """Mean loss per image since the last call, None if the trainer doesn't tell; raises
        TrialFailed if it is not finite."""

    def sample(
        self, seeds: list[int], measurement: Measurement, labels: Tensor | None = None
    ) -> Tensor:
        """One image per seed, by the sampling weights: [len(seeds), C, R, R] uint8 on the CPU;
        labels [len(seeds)] int64. An image depends on its seed and label alone."""

    def state_dict(self) -> dict[str, Any]:
        """All that a new trainer of the same kind needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave; its tensors may be on the CPU."""

    def sampling_weights(self) -> Any:
        """A copy, on the CPU, of what it samples with."""

    def load_sampling_weights(self, values: Any) -> None:
        """Takes over what `sampling_weights` gave: for sampling, not to train on."""


class BuildTrainer(Protocol):
    """How a trainer is built."""

    def __call__(
        self,
        configuration: Configuration,
        images: Tensor,
        labels: Tensor | None,
        seed: int,
        device: torch.device,
    ) -> AnyTrainer:
        """For the subset's images [N, C, R, R] uint8 and labels [N] int64, both on the CPU."""


def build_trainer(
    configuration: Configuration,
    images: Tensor,
    labels: Tensor | None,
    seed: int,
    device: torch.device,
    team: Team | None = None,
) -> AnyTrainer:
    """The trainer that `configuration.trainer.kind` names, for the subset's images [N, C, R, R]
    uint8 and labels [N] int64. team: of processes that train together; one of the user's trains
    alone.

    Raises TrialFailed if the device can't do what the trainer asks, or a builder of the user's
    returns what is no trainer.
    """
    if isinstance(configuration.trainer, CustomTrainer):
        return CustomTrainerAdapter(configuration, images, labels, seed, device)
    if team is not None:
        return TeamTrainer(configuration, images, seed, team, labels)
    return Trainer(configuration, images, seed, device, labels)

"""A trial as Ray Tune sees it: thin, because `trainables.trial` does the work and keeps its own checkpoints."""

import gc
from typing import Any

import ray
import torch
from ray import tune

from trainables.config import Data, TrialSpec, key_of
from trainables.datasets import ImageData
from trainables.storage import Storage
from trainables.trial import Trial, choose_device


class EmmTrainable(tune.Trainable):
    """Trains the trial whose JSON is `config["spec"]`; one actor serves one trial after the other.

    A trial that fails has recorded why and raises: its process ends, whatever state it left the device in, and the fresh one
    that Tune starts finds the record and reports it.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters adds the others
        self, config: dict[str, Any], data: dict[str, ImageData], storage: Storage
    ) -> None:
        self.data, self.storage = data, storage
        torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        spec = TrialSpec.model_validate_json(config["spec"])
        self.trial = Trial(spec, self.data[data_key(spec.configuration.data)], self.storage, choose_device())

    def step(self) -> dict[str, Any]:
        report = self.trial.step()
        return {**report, "done": self.trial.result is not None}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        del self.trial  # and with it everything on the device, before the next one is built
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps nothing for us: a trial's checkpoints are in its own directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""


def data_key(data: Data) -> str:
    """Names a data set among those that a sweep's trials are given."""
    return key_of(data.model_dump(mode="json"))

"""A trial as Ray Tune sees it: thin, because `trainables.trial` does the work and keeps its own checkpoints."""

import gc
import logging
import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

import ray
import torch
from ray import tune

from trainables.config import Data, TrialSpec, key_of
from trainables.datasets import ImageData
from trainables.storage import Storage
from trainables.trial import Trial, choose_device

log = logging.getLogger(__name__)

GRACE_SECONDS = 12.0  # from SIGTERM to the end of the process, whatever it does
NO_CUDA = "Ray gave the trials a GPU, but torch finds no CUDA device there: they train on the CPU"


class EmmTrainable(tune.Trainable):
    """Trains the trial whose JSON is `config["spec"]`; one actor serves one trial after the other.

    A SIGTERM (its node is wanted by others) ends it after the present step of the optimizer, with a checkpoint.

    A trial that fails has recorded why and raises: its process ends, whatever state it left the device in, and the fresh one
    that Tune starts finds the record and reports it.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters adds the others
        self, config: dict[str, Any], data: dict[str, ImageData], storage: Storage
    ) -> None:
        self.data, self.storage = data, storage
        self.preempted = self.at_work = False
        assigned = ray.get_runtime_context().get_assigned_resources()
        torch.set_num_threads(max(1, int(assigned.get("CPU", 1))))
        self.note = {"note": NO_CUDA} if assigned.get("GPU") and not torch.cuda.is_available() else {}
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._preempt)
        self._begin(config)

    def _preempt(self, number: int, frame: FrameType | None) -> None:
        if not self.at_work:
            self._leave()
        self.preempted = True
        self.trial.interrupt()
        timer = threading.Timer(GRACE_SECONDS, os._exit, [128 + number])  # it may be drawing samples, for minutes
        timer.daemon = True
        timer.start()

    def _begin(self, config: dict[str, Any]) -> None:
        spec = TrialSpec.model_validate_json(config["spec"])
        self.trial = Trial(spec, self.data[data_key(spec.configuration.data)], self.storage, choose_device())

    def step(self) -> dict[str, Any]:
        self.at_work = True
        try:
            report = self.trial.step()
        finally:
            self.at_work = False
        if self.preempted and self.trial.result is None:
            self._leave()
        return {**report, **self.note, "done": self.trial.result is not None}

    def _leave(self) -> NoReturn:
        self.cleanup()
        os._exit(128 + signal.SIGTERM)

    def cleanup(self) -> None:
        """Tune stops the trial, finished or not."""
        try:
            if hasattr(self, "trial"):
                self.trial.keep()
        except OSError as error:
            log.warning("no checkpoint was written: %s", error)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
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

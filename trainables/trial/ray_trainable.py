"""A trial as Ray Tune sees it: thin, because `trainables.trial.trial` does the work and keeps its
own checkpoints."""

import gc
import logging
import os
import signal
import threading
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import ray
from ray import tune

from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData
from trainables.data.sources import data_key
from trainables.errors import TrialFailed
from trainables.storage import Storage
from trainables.text import redact_last_resort, redacted

if TYPE_CHECKING:  # the driver names this class without torch: only a trial's process imports it
    from trainables.trial.trial import Trial

log = logging.getLogger(__name__)

GRACE_SECONDS = 12.0  # from SIGTERM to the end of the process, whatever it does
MAX_PAUSE_SECONDS = 60.0  # between attempts while the storage fails
PATIENCE_SECONDS = 600.0  # until a storage that fails is given up
NO_CUDA = "Ray gave the trials a GPU, but torch finds no CUDA device there: they train on the CPU"


class EmmTrainable(tune.Trainable):
    """Trains the trial whose JSON is `config["spec"]`; one actor serves one trial after the other.

    A SIGTERM (its node is wanted by others) ends it after the present step of the optimizer, with a
    checkpoint.

    A trial that fails has recorded why and raises: its process ends, whatever state it left the
    device in. While the storage fails (OSError) the trial keeps what it has and tries again.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters adds the others
        self, config: dict[str, Any], data: dict[str, ImageData], storage: Storage
    ) -> None:
        import torch

        from trainables.training.team import Team
        from trainables.trial.trial import choose_devices, n_threads

        redact_last_resort()
        self.data, self.storage = data, storage
        self.preempted = self.at_work = False
        self.trial: Trial | None = None
        assigned = ray.get_runtime_context().get_assigned_resources()
        devices = choose_devices(int(assigned.get("GPU", 0)))
        torch.set_num_threads(n_threads(assigned.get("CPU", 1), len(devices)))
        # one for all trials of this process
        self.team = Team(devices) if len(devices) > 1 else None
        self.device = devices[0]
        lacks_gpu = bool(assigned.get("GPU")) and not torch.cuda.is_available()
        self.note = {"note": NO_CUDA} if lacks_gpu else {}
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._preempt)
        # what was imported stays: to look through it for garbage after every trial takes half a second
        gc.freeze()
        self._begin(config)

    def _preempt(self, number: int, frame: FrameType | None) -> None:
        if not self.at_work:
            self._leave()
        self.preempted = True
        if self.trial is not None:
            self.trial.interrupt()
        # it may be drawing samples, for minutes
        timer = threading.Timer(GRACE_SECONDS, os._exit, [128 + number])
        timer.daemon = True
        timer.start()

    def _begin(self, config: dict[str, Any]) -> None:
        self.spec = TrialSpec.model_validate_json(config["spec"])
        self.failing_since: float | None = None  # of the storage
        self.pause = 1.0

    def step(self) -> dict[str, Any]:
        self.at_work = True
        try:
            report = self._advance()
        except TrialFailed as error:  # what is raised, Ray and Tune write to logs and files
            trace = "".join(traceback.format_exception(error))
            raise TrialFailed(redacted(trace)) from None
        finally:
            self.at_work = False
        is_done = self.trial is not None and self.trial.result is not None
        if self.preempted and not is_done:
            self._leave()
        return {**report, "done": is_done}

    def _advance(self) -> dict[str, Any]:
        """One step of the trial, which the first one builds; a pause if the storage fails."""
        from trainables.trial.trial import Trial

        try:
            if self.trial is None:
                data = self.data[data_key(self.spec.configuration.data)]
                self.trial = Trial(self.spec, data, self.storage, self.device, team=self.team)
            report = self.trial.step()
            self.failing_since, self.pause = None, 1.0
            return {**report, **self.note}
        except OSError as error:
            return self._wait_for_storage(error)

    def _wait_for_storage(self, error: OSError) -> dict[str, Any]:
        now = time.monotonic()
        self.failing_since = self.failing_since or now
        if now - self.failing_since > PATIENCE_SECONDS:
            raise error
        log.warning("tried again in %.0f s: %s", self.pause, error)
        while time.monotonic() < now + self.pause and not self.preempted:
            time.sleep(0.2)
        self.pause = min(2 * self.pause, MAX_PAUSE_SECONDS)
        report: dict[str, Any] = {"state": "training", "progress": 0.0}
        if self.trial is not None:
            report = self.trial.report()
        note = f"a trial waits for the storage ({type(error).__name__}: {redacted(str(error))})"
        return {**report, "note": note}

    def _leave(self) -> NoReturn:
        self.cleanup()
        os._exit(128 + signal.SIGTERM)

    def cleanup(self) -> None:
        """Tune stops the trial, finished or not."""
        try:
            if self.trial is not None:
                self.trial.keep()
        except OSError as error:
            log.warning("no checkpoint was written: %s", error)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        import torch

        self.cleanup()
        self.trial = None  # and with it everything on the device, before the next one is built
        if self.team is not None:
            self.team.let_go()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps nothing for us: a trial's checkpoints are in its own directory."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""

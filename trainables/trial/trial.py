"""The life of one trial: train to the next snapshot, and again, then measure the best one, record.
No Ray."""

import logging
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData
from trainables.errors import TrialFailed, UserError
from trainables.measure.neighbours import Comparison
from trainables.provenance import ours
from trainables.storage import Storage
from trainables.text import redacted
from trainables.training.build import BuildTrainer, build_trainer
from trainables.training.team import Team
from trainables.trial.checkpoint import Checkpoints
from trainables.trial.files import TrialFiles
from trainables.trial.pair import agreement, second_training
from trainables.trial.result import Result, Snapshot, start_record
from trainables.trial.samples import FinalSamples
from trainables.trial.subset import Subset
from trainables.trial.training import Training, key_of_curve

log = logging.getLogger(__name__)

OUT_OF_MEMORY = (
    "out of memory; lower trainer.micro_batch or measurement.batch, then --retry-failed ({})"
)


@dataclass(frozen=True)
class Pace:
    """How often a trial pauses, in seconds. No result depends on it."""

    slice_seconds: float = 8.0  # of training per step()
    checkpoint_seconds: float = 60.0  # between checkpoints, beside the one at every snapshot


class Trial:
    """One trial in the storage of its sweep, going on from whatever an earlier attempt left there.

    `step()` advances it by some seconds and returns a report; it is finished when `result` is not
    None. `training` is None if an earlier attempt finished it. Raises UserError if the data can't
    give its subset, and TrialFailed, after the cause was recorded, if it can't be built.
    """

    def __init__(
        self,
        spec: TrialSpec,
        data: ImageData,
        sweep: Storage,
        device: torch.device,
        pace: Pace = Pace(),
        build: BuildTrainer = build_trainer,
        team: Team | None = None,
    ) -> None:
        self.spec, self.device, self.team = spec, device, team
        if team is not None:
            build = partial(build_trainer, team=team)
            team.lost = self._record_loss
        self.data, self.pace, self.build = data, pace, build
        self.files = TrialFiles(sweep, start_record(spec, data))
        self.checkpoints = Checkpoints(self.files.storage, pace.checkpoint_seconds)
        self.result = self.files.result
        self.training: Training | None = None
        self.samples: FinalSamples | None = None  # None until the training is over
        self.first: Measured | None = None  # of a pair, once its second model is trained
        self.first_state: dict[str, Any] = {}  # by which the first is then measured again
        self.second_state: dict[str, Any] | None = None  # from which that one goes on
        if self.result is None:
            self.files.start()
            subset = Subset(spec, data, device, team)
            with self._recording_failure():
                subset.open_features()
                training = Training(spec, subset, device, pace.slice_seconds, build)
                self._go_on(training)
            self.training = training

    def _go_on(self, training: Training) -> None:
        """From a finished trial's weights if only what is asked of the final samples differs, else
        from the newest checkpoint."""
        earlier, curve_key = self.files.earlier, key_of_curve(self.spec.measurement)
        state = self.files.newest_state()
        if state is not None and not training.fits(state):
            state = None
        self.second_state = None if state is None else state.get("second")
        weights = None
        if earlier and earlier.complete and key_of_curve(earlier.measurement) == curve_key:
            weights = self.files.weights()
        if earlier is not None and weights is not None:
            training.take_over(earlier, weights)
        elif state is not None:
            training.load_state_dict(state)
            self.checkpoints.position = training.trainer.position

    # ------------------------------------------------------------ one step

    def step(self) -> dict[str, Any]:
        """Trains for some seconds, or measures; returns a report (`state`, `progress`,
        `images_trained`, …).

        Raises TrialFailed after recording the failure; OSError (storage) leaves the trial as it
        was, to be tried again.
        """
        if self.result is None and self.training is not None:
            with self.training.stopwatch.running(), self._recording_failure():
                self._advance(self.training)
        return self.report()

    def _advance(self, training: Training) -> None:
        if not training.is_over:
            if training.advance() or self.checkpoints.is_due:
                self._save_checkpoint(training)
            return
        if self.samples is None:
            n_first = None if self.first is None else len(self.first.arrays["images"])
            self.samples = FinalSamples(training, n_first)
        n = self.samples.n_sufficient
        if n is None:
            self.samples.draw()
        elif self.first is not None:
            self._finish(training, self._compared(self.first, training, self.samples))
        elif self.spec.measurement.pair:
            self._begin_second(training, measured(training, self.samples, n))
        else:
            self._finish(training, measured(training, self.samples, n))

    def _begin_second(self, training: Training, first: "Measured") -> None:
        """Lets the first model of a pair go, and trains the second."""
        watch = training.stopwatch
        self.first, self.first_state = first, training.seen()
        self.samples = self.training = None
        if self.team is not None:
            self.team.held.clear()
        second = second_training(
            self.spec, self.data, self.device, self.pace.slice_seconds, self.build, self.team
        )
        if self.second_state is not None:
            second.load_state_dict(self.second_state)
        second.stopwatch = watch
        self.training = second

    def _compared(self, first: "Measured", training: Training, samples: FinalSamples) -> "Measured":
        """What the first model came to, how its images agree with the second one's, and what both
        took."""
        n = len(first.arrays["images"])
        images = torch.cat(samples.images)[:n]
        memorized = np.concatenate(samples.memorized)[:n]
        arrays, numbers = agreement(
            torch.from_numpy(first.arrays["images"]), images, Comparison(self.device)
        )
        numbers |= {
            "pair_r_mem": float(memorized.mean()),
            "images_trained": self._position(training),
        }
        outcome = first.outcome | numbers
        return replace(first, arrays={**first.arrays, **arrays}, outcome=outcome)

    def _finish(self, training: Training, found: "Measured") -> None:
        result = self._result(training, complete=True, **found.outcome)
        self.files.finish(found.weights, found.arrays, result)
        self.result = result  # only what is written is true

    def _result(self, training: Training | None, **outcome: Any) -> Result:
        """training: None if it could not be built."""
        curve = tuple(self.curve)
        return Result(
            **dict(self.files.record),
            **{"curve": curve, **outcome},
            seconds=0.0 if training is None else training.stopwatch.seconds,
            hardware=hardware(self.device, 1 if self.team is None else self.team.size),
            made_by=ours(),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """What ends the block, a `sys.exit` of the user's code too, is recorded as the trial's failure
        and raised as TrialFailed; OSError is raised as it is."""
        try:
            yield
        except OSError:
            raise
        except (Exception, SystemExit) as error:  # whatever a network raises, it is this trial's
            cause = known_cause(error)
            if cause is None:
                log.exception("trial %s failed", self.files.record.training_key)
                cause = f"{type(error).__name__}: {error}"
            cause = redacted(cause)  # it goes wherever results go
            self._fail(cause)
            raise TrialFailed(cause) from error

    def _fail(self, cause: str) -> None:
        training = self.training
        trained = self._position(training)
        result = self._result(training, complete=False, cause=cause, images_trained=trained)
        self.files.fail(result)
        self.result = result  # also where an earlier result stands in the files

    def _record_loss(self, reason: str) -> None:
        """What another process of the team raised is this trial's failure; one that was killed says
        nothing, and the trial goes on elsewhere."""
        if reason and self.result is None:
            self._fail(redacted(reason))

    # ------------------------------------------------------------ what others ask for

    @property
    def curve(self) -> Sequence[Snapshot]:
        """The snapshots so far, of a pair those of its first model; none of what an earlier attempt
        finished."""
        if self.first is not None:
            return self.first.outcome["curve"]  # type: ignore[no-any-return]
        return () if self.training is None else self.training.curve

    def interrupt(self) -> None:
        """Ends the running `step` after the present step of the optimizer; for signal handlers."""
        if self.training is not None:
            self.training.trainer.interrupted = True

    def keep(self) -> None:
        """Saves what was trained since the last checkpoint, for whoever goes on. OSError: the
        checkpoint before it counts."""
        training = self.training
        if self.result is not None or training is None or training.is_over:
            return
        if self._position(training) > self.checkpoints.position:
            self._save_checkpoint(training)

    def _position(self, training: Training | None) -> int:
        """Images that were trained, of a pair by both models. training: None if it could not be
        built."""
        before: int = 0 if self.first is None else self.first.outcome["images_trained"]
        return before + (0 if training is None else training.trainer.position)

    def _save_checkpoint(self, training: Training) -> None:
        state = training.state_dict()
        if self.first is not None:
            state = {**self.first_state, "second": state, "seconds": state["seconds"]}
        self.checkpoints.save(self._position(training), state)

    def report(self) -> dict[str, Any]:
        """Where the trial stands, in plain values."""
        training, result = self.training, self.result
        if training is not None and result is None:
            report = training.report()
            if self.first is not None:
                report["state"] = f"{report['state']} the second model"
                report.pop("snapshot", None)  # the curve is that of the first
            return report
        assert result is not None, "a trial that is not at work has a result"
        return {
            "state": "complete" if result.complete else "failed",
            "progress": 1.0,
            "images_trained": result.images_trained,
            "seconds": 0.0 if training is None else training.stopwatch.seconds,
        }


@dataclass(frozen=True)
class Measured:
    """What a training came to: what its result says, the arrays that are kept, and what it sampled
    with."""

    outcome: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    weights: Any


def measured(training: Training, samples: FinalSamples, n: int) -> Measured:
    """By the first `n` images."""
    arrays, numbers = samples.measure(n)
    outcome = {
        "curve": tuple(training.curve),
        "right_censored": training.r_mem_last is None,
        "images_trained": training.curve[-1].images_trained,
        "best_images_trained": training.curve[samples.best].images_trained,
        "r_mem_last": training.r_mem_last,
        "r_mem_half": training.r_mem_half,
        **numbers,
    }
    return Measured(outcome, arrays, samples.weights)


def known_cause(error: BaseException) -> str | None:
    """Why a trial failed, in one line that says what to change; None of what nobody foresaw."""
    if isinstance(error, TrialFailed | UserError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OUT_OF_MEMORY.format(str(error).partition("\n")[0])
    if "can't allocate memory" in str(error):  # torch, of the CPU's memory
        return OUT_OF_MEMORY.format(str(error).rpartition("DefaultCPUAllocator: ")[2])
    return None


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_devices(gpus: int) -> list[torch.device]:
    """Of a trial that was given so many whole GPUs: one for each; where torch finds none, as many
    times the CPU."""
    device = choose_device()
    if gpus < 2:
        return [device]
    return [torch.device(device.type, n) if device.type == "cuda" else device for n in range(gpus)]


def n_threads(cpus: float, processes: int = 1) -> int:
    """Of each process of a trial that is given so many CPUs. More than there are free ones slow it
    down by far."""
    return max(1, int(cpus) // processes)


@contextmanager
def threads(cpus: float) -> Iterator[None]:
    """As many as a trial of a sweep has, whose numbers are then the same bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads(cpus))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hardware(device: torch.device, processes: int = 1) -> dict[str, str]:
    """What the trial ran on, and in how many processes, of a device each; recorded, and in no
    key."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "name": name,
        "processes": str(processes),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "host": platform.node(),
        "pid": str(os.getpid()),
    }

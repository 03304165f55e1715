"""The training of a trial from snapshot to snapshot. No files, no Ray."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.config.identity import identity, key_of
from trainables.config.measurement import FEATURES, Measurement
from trainables.config.trial import TrialSpec
from trainables.errors import TrialFailed
from trainables.measure.r_mem import r_mem_interval
from trainables.training.build import BuildTrainer, build_trainer
from trainables.trial.result import Result, Snapshot
from trainables.trial.subset import Subset


class Training:
    """A trainer, and what was seen of it so far.

    curve: the snapshots; best: number of the snapshot that is to be measured, and what the trainer
    sampled with there, None before the first; stopwatch: the wall time of the trial. Raises
    TrialFailed if the trainer can't be built.
    """

    def __init__(
        self,
        spec: TrialSpec,
        subset: Subset,
        device: torch.device,
        slice_seconds: float,
        build: BuildTrainer = build_trainer,
    ) -> None:
        self.subset, self.measurement, self.slice_seconds = subset, spec.measurement, slice_seconds
        self.total = spec.configuration.trainer.train_images(spec.n)
        with _not_the_storage():
            self.trainer = build(
                spec.configuration, subset.images, subset.label_tensor, spec.seed, device
            )
        self.curve: list[Snapshot] = []
        self.best: tuple[int, Any] | None = None
        self.stopwatch = Stopwatch()
        self.rate = 0.0  # progress per second, of the last slice
        self.knows_rate = False  # the first slice is a step, which compiles and allocates

    # ------------------------------------------------------------ where it stands

    @property
    def n_snapshots(self) -> int:
        """Of the whole training."""
        return self.measurement.snapshots_of(self.total)

    @property
    def is_over(self) -> bool:
        """All snapshots are taken, or the last one shows so much copying that the trial is accepted
        early."""
        return len(self.curve) >= self.n_snapshots or self._is_accepted()

    def _is_accepted(self) -> bool:
        if self.measurement.accept is None or not self.curve:
            return False
        last = self.curve[-1]
        low, _ = r_mem_interval(last.n_memorized, last.n_samples)
        return low > self.measurement.accept

    @property
    def r_mem_last(self) -> float | None:
        """At the end of the training; None if it was accepted early."""
        return self._r_mem_at(self.n_snapshots)

    @property
    def r_mem_half(self) -> float | None:
        """At exactly half of the training; None if there is no such snapshot."""
        number = self.measurement.half(self.total)
        return None if number is None else self._r_mem_at(number)

    def _r_mem_at(self, number: int) -> float | None:
        return self.curve[number - 1].r_mem if number <= len(self.curve) else None

    def report(self) -> dict[str, Any]:
        """Where it stands, in plain values."""
        progress = self.trainer.progress
        report: dict[str, Any] = {
            "state": "measuring" if self.is_over else "training",
            "progress": progress,
            "images_trained": self.trainer.position,
            "seconds": self.stopwatch.seconds,
        }
        if self.knows_rate:
            report["seconds_left"] = (1 - progress) / self.rate
        if self.curve:
            report["snapshot"] = self.curve[-1].model_dump()
        return report

    # ------------------------------------------------------------ how it goes on

    def advance(self) -> bool:
        """Trains for a slice, and takes the next snapshot if it is due; returns whether it was."""
        due = self.measurement.due(len(self.curve) + 1, self.total)
        self._train(due)
        if self.trainer.progress < due:
            return False
        self._take_snapshot()
        return True

    def _train(self, due: float) -> None:
        """Trains towards `due`, for about `slice_seconds`, a step at least. How it is sliced does
        not change the weights."""
        before, begin, self.knows_rate = self.trainer.progress, time.monotonic(), self.rate > 0
        least = 1 / max(self.trainer.total, 1)
        slice_end = before + max(self.rate * self.slice_seconds, least)
        with _not_the_storage():
            self.trainer.train_until(min(due, slice_end))
        elapsed = time.monotonic() - begin
        if self.trainer.progress > before and elapsed > 0:
            self.rate = (self.trainer.progress - before) / elapsed

    def _take_snapshot(self) -> None:
        images = self.sample("selection", 0, self.measurement.n_selection)
        neighbours = self.subset.nearest(images)
        memorized = self.subset.memorized(images, neighbours)
        self.curve.append(
            Snapshot(
                images_trained=self.trainer.position,
                loss=self.trainer.take_loss(),
                r_mem=float(memorized.mean()),
                n_samples=len(memorized),
                n_memorized=int(memorized.sum()),
                median_d1=float(np.median(neighbours.d1)),
                seconds=self.stopwatch.seconds,
                **self.subset.snapshot_measures(self.trainer),
            )
        )
        newest = len(self.curve) - 1
        if newest == best_snapshot(self.curve):
            self.best = newest, self.trainer.sampling_weights()

    def sample(self, purpose: str, start: int, end: int) -> Tensor:
        """Images number `start` … `end` − 1 of those for `purpose`: [end − start, C, R, R]
        uint8."""
        seeds = self.subset.latent_seeds(purpose, start, end)
        with _not_the_storage():
            return self.trainer.sample(seeds, self.measurement, self.subset.sample_labels(seeds))

    # ------------------------------------------------------------ how it is kept

    def state_dict(self) -> dict[str, Any]:
        """All that another attempt at the same trial needs to go on."""
        return {"trainer": self.trainer.state_dict(), **self.seen()}

    def seen(self) -> dict[str, Any]:
        """What a training that is over is measured again by: its state without the trainer's."""
        return {
            "curve": [snapshot.model_dump() for snapshot in self.curve],
            "curve_key": key_of_curve(self.measurement),
            "best": self.best,
            "seconds": self.stopwatch.seconds,
        }

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether it is of the same curve: of one of other snapshots it would not be this one's."""
        older = key_of_curve(self.measurement, but=("n_samples",))  # of a version that knew but one
        return state.get("curve_key") in (key_of_curve(self.measurement), older)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.curve = [Snapshot.model_validate(snapshot) for snapshot in state["curve"]]
        if "trainer" in state:
            self.trainer.load_state_dict(state["trainer"])
        else:  # it is over, and another is trained
            self.trainer.position = self.curve[-1].images_trained
        self.best, self.stopwatch.total = state["best"], state["seconds"]

    def take_over(self, finished: Result, weights: Any) -> None:
        """Stands where a finished trial's training ended, ready to be measured again; `weights` are
        those it was measured with."""
        self.curve, self.stopwatch.total = list(finished.curve), finished.seconds
        self.best = best_snapshot(self.curve), weights
        self.trainer.position = self.curve[-1].images_trained


class Stopwatch:
    """Wall time of a trial over all attempts that left a checkpoint."""

    def __init__(self) -> None:
        self.total = 0.0  # seconds, of what has ended
        self.begun: float | None = None  # while it runs

    @property
    def seconds(self) -> float:
        return self.total + (0.0 if self.begun is None else time.monotonic() - self.begun)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.begun = time.monotonic()
        try:
            yield
        finally:
            self.total, self.begun = self.seconds, None


@contextmanager
def _not_the_storage() -> Iterator[None]:
    """An OSError of the user's own network or trainer (a file that this node lacks) is the trial's
    failure, not an outage."""
    try:
        yield
    except OSError as error:
        raise TrialFailed(f"{type(error).__name__}: {error}") from error


def best_snapshot(curve: Sequence[Snapshot]) -> int:
    """Position of the snapshot with the highest R_mem, the last of equals."""
    return max(range(len(curve)), key=lambda position: (curve[position].r_mem, position))


def key_of_curve(
    measurement: Measurement, but: Sequence[str] = ("n_samples", "logit_se", "pair")
) -> str:
    """Identity of what decides the curve and the best snapshot: all of a measurement but how many
    final samples are enough, the features that these alone are looked at in, and a second model."""
    left_out = {*but, *(FEATURES if measurement.judge == "pixels" else ())}
    counted = identity(measurement).items()
    return key_of({name: value for name, value in counted if name not in left_out})

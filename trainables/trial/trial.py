"""The life of one trial: train, sample and measure at snapshots, checkpoint, measure the best one,
record. No Ray."""

import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from trainables.config.identity import identity, key_of
from trainables.config.measurement import Measurement
from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData
from trainables.data.labels import by_label
from trainables.errors import DamagedFile, TrialFailed
from trainables.measure.measures import measures
from trainables.measure.r_mem import Neighbours, n_sufficient, r_mem_interval
from trainables.storage import Storage
from trainables.training.custom import build_trainer
from trainables.trial import checkpoint
from trainables.trial.result import (
    MEASUREMENT,
    RESULT,
    STARTED,
    WEIGHTS,
    Result,
    Snapshot,
    read_result,
    start_record,
    trial_directory,
)
from trainables.trial.subset import Subset

log = logging.getLogger(__name__)

SLICE_SECONDS = 8.0  # of training per step()
OUT_OF_MEMORY = (
    "out of memory; lower trainer.micro_batch or measurement.batch, then --retry-failed ({})"
)
CHECKPOINT_SECONDS = 60.0  # between checkpoints, beside the one at every snapshot …
CHECKPOINT_SHARE = 0.05  # … and longer where saving one would take more than this share of the time


class Trial:
    """One trial in the storage of its sweep, going on from whatever an earlier attempt left there.

    `step()` advances it by some seconds and returns a report; it is finished when `result` is not
    None. Where all files stand: `trials/<training_key>/`.
    """

    def __init__(
        self, spec: TrialSpec, data: ImageData, sweep: Storage, device: torch.device
    ) -> None:
        self.spec, self.data, self.device = spec, data, device
        self.started = start_record(spec, data)
        self.storage = trial_directory(sweep, self.started.training_key)
        self.earlier = earlier = _earlier(self.storage)
        measured = earlier is not None and earlier.measurement_key == self.started.measurement_key
        self.result = earlier if measured else None
        self.is_built = True  # False: it could not be, which `result` records
        self.curve: list[Snapshot] = []
        self.best: tuple[int, Any] | None = None  # snapshot number, what the trainer samples with
        self.measured: list[
            tuple[torch.Tensor, Neighbours]
        ] = []  # images of the final measurement, by batch
        self.seconds = 0.0
        self.rate = 0.0  # progress per second, of the last slice
        self.saved_at, self.kept = (
            time.monotonic(),
            0,
        )  # when the last checkpoint was saved, after how many images
        self.interval = CHECKPOINT_SECONDS  # until the next one
        if self.result is None:
            self._start(earlier)

    def _start(self, earlier: Result | None) -> None:
        self.storage.delete_parts()
        self.storage.write(STARTED, self.started.model_dump_json(indent=1).encode())
        self.subset = Subset(self.spec, self.data, self.device)
        try:
            with self._recording_failure():
                self._build(earlier)
        except TrialFailed:
            self.is_built = False

    def _build(self, earlier: Result | None) -> None:
        subset, spec = self.subset, self.spec
        with _not_the_storage():
            self.trainer = build_trainer(
                spec.configuration, subset.images, subset.label_tensor, spec.seed, self.device
            )
        self._go_on(earlier)

    def _go_on(self, earlier: Result | None) -> None:
        """From a finished trial's weights if only the number of final samples differs, else from
        the newest checkpoint."""
        how = self.spec.measurement
        curve_key, older_key = (
            key_of_curve(how),
            key_of_curve(how, but=("n_samples",)),
        )  # older: a version that knew but one
        if (
            earlier is not None
            and earlier.complete
            and key_of_curve(earlier.measurement) == curve_key
        ):
            if (kept := checkpoint.load(self.storage, WEIGHTS)) is not None:
                self.curve, self.seconds = list(earlier.curve), earlier.seconds
                self.best = best_snapshot(self.curve), kept["ema"]
                self.trainer.position = earlier.images_trained
        elif (state := checkpoint.load_newest(self.storage)) is not None and state.get(
            "curve_key"
        ) in (curve_key, older_key):
            self.trainer.load_state_dict(state["trainer"])
            self.curve = [Snapshot.model_validate(snapshot) for snapshot in state["curve"]]
            self.best, self.seconds = state["best"], state["seconds"]
            self.kept = self.trainer.position

    # ------------------------------------------------------------ one step

    def step(self) -> dict[str, Any]:
        """Trains for some seconds, or measures; returns a report (`state`, `progress`,
        `images_trained`, …).

        Raises TrialFailed after recording the failure; OSError (storage) leaves the trial as it
        was, to be tried again.
        """
        self.begun = time.monotonic()
        if self.result is None:
            with self._recording_failure():
                self._advance()
        self._take_time()
        return self.report()

    def _take_time(self) -> None:
        now = time.monotonic()
        self.seconds, self.begun = self.seconds + now - self.begun, now

    @contextmanager
    def _recording_failure(self) -> Iterator[None]:
        """What ends the block is recorded as the trial's failure and raised as TrialFailed; OSError
        is raised as it is."""
        try:
            yield
        except OSError:
            raise
        except TrialFailed as error:
            self._record_failure(str(error))
            raise
        except (torch.OutOfMemoryError, MemoryError) as error:
            details = str(error).partition("\n")[0]
            self._record_failure(OUT_OF_MEMORY.format(details))
            raise TrialFailed("out of memory") from error
        except Exception as error:
            # a network that raises: whatever it is, it is this trial's failure and is recorded
            if "can't allocate memory" in str(error):  # torch, of the CPU's memory
                self._record_failure(
                    OUT_OF_MEMORY.format(str(error).rpartition("DefaultCPUAllocator: ")[2])
                )
                raise TrialFailed("out of memory") from error
            log.exception("trial %s failed", self.started.training_key)
            self._record_failure(f"{type(error).__name__}: {error}")
            raise TrialFailed(str(error)) from error

    def _advance(self) -> None:
        if not self._is_trained:
            due = self.spec.measurement.due(len(self.curve) + 1, self._train_images)
            self._train(due)
            if self.trainer.progress >= due:
                self._snapshot()
            if self.trainer.progress >= due or time.monotonic() - self.saved_at > self.interval:
                self._save_checkpoint()
        elif (n := self._n_sufficient()) is None:
            self._draw_final_samples()
        else:
            self._finish(n)

    @property
    def _train_images(self) -> int:
        return self.spec.configuration.trainer.train_images(self.spec.n)

    @property
    def _is_trained(self) -> bool:
        """All snapshots are taken, or the last one shows so much copying that the trial is accepted
        early."""
        how = self.spec.measurement
        return len(self.curve) >= how.snapshots_of(self._train_images) or (
            how.accept is not None and self._is_above(how.accept)
        )

    def _is_above(self, bound: float) -> bool:
        return (
            bool(self.curve)
            and r_mem_interval(self.curve[-1].n_memorized, self.curve[-1].n_samples)[0] > bound
        )

    def _train(self, due: float) -> None:
        """Trains towards `due`, for about SLICE_SECONDS, a step at least. How it is sliced does not
        change the weights."""
        before, begin = self.trainer.progress, time.monotonic()
        slice_end = before + max(self.rate * SLICE_SECONDS, 1 / max(self.trainer.total, 1))
        with _not_the_storage():
            self.trainer.train_until(min(due, slice_end))
        elapsed = time.monotonic() - begin
        if self.trainer.progress > before and elapsed > 0:
            self.rate = (self.trainer.progress - before) / elapsed

    def _snapshot(self) -> None:
        how = self.spec.measurement
        seeds = self.subset.latent_seeds("selection", 0, how.n_selection)
        found = self.subset.nearest(self._sample(seeds))
        memorized = found.memorized(how.k)
        self._take_time()
        self.curve.append(
            Snapshot(
                images_trained=self.trainer.position,
                loss=self.trainer.take_loss(),
                r_mem=float(memorized.mean()),
                n_samples=len(memorized),
                n_memorized=int(memorized.sum()),
                median_d1=float(np.median(found.d1)),
                seconds=self.seconds,
                loss_gap=self.subset.loss_gap(self.trainer),
            )
        )
        if (newest := len(self.curve) - 1) == best_snapshot(self.curve):
            self.best = newest, self.trainer.sampling_weights()

    def _sample(self, seeds: list[int]) -> torch.Tensor:
        with _not_the_storage():
            return self.trainer.sample(
                seeds, self.spec.measurement, self.subset.sample_labels(seeds)
            )

    def _draw_final_samples(self) -> None:
        """One batch of images from the best snapshot, with fresh latents, so that its choice does
        not bias R_mem.

        protocol=paper takes the same latents again, and so the maximum over the snapshots.
        """
        how = self.spec.measurement
        if not self.measured:
            assert self.best is not None
            self.trainer.load_sampling_weights(self.best[1])
        drawn = sum(len(images) for images, _ in self.measured)
        seeds = self.subset.latent_seeds("final", drawn, min(drawn + how.batch, how.n_samples))
        images = self._sample(seeds)
        self.measured.append((images, self.subset.nearest(images)))

    def _n_sufficient(self) -> int | None:
        how = self.spec.measurement
        memorized = [found.memorized(how.k) for _, found in self.measured]
        return (
            n_sufficient(np.concatenate(memorized), how.n_samples, how.logit_se)
            if memorized
            else None
        )

    def _finish(self, n: int) -> None:
        """Records the measurement of the first `n` images."""
        assert self.best is not None
        images = torch.cat([images for images, _ in self.measured])[:n]
        found = Neighbours.joined([found for _, found in self.measured]).at(slice(n))
        how, distances = self.spec.measurement, self.subset.distances(found, images)
        memorized = found.memorized(how.k)
        # the weights first, the result last: what has a result has everything
        checkpoint.write(self.storage, WEIGHTS, {"ema": self.best[1]})
        arrays = {"images": images.numpy(), "subset": self.subset.indices, **distances.as_arrays()}
        labels = self.subset.label_arrays(self.subset.latent_seeds("final", 0, n))
        with self.storage.writing(MEASUREMENT) as stream:
            np.savez_compressed(stream, **arrays, **labels)  # type: ignore[arg-type]
        numbers = how.half(self._train_images), how.snapshots_of(self._train_images)
        half, whole = (
            self.curve[n - 1].r_mem if n is not None and len(self.curve) >= n else None
            for n in numbers
        )
        self._take_time()
        self._record(
            complete=True,
            right_censored=whole is None,
            images_trained=self.curve[-1].images_trained,
            best_images_trained=self.curve[self.best[0]].images_trained,
            r_mem_last=whole,
            r_mem_half=half,
            ceiling=self.subset.ceiling(),
            **by_label(memorized, found.i1, self.subset.label_dim, self.subset.indices, **labels),
            **measures(distances, self.spec.n, how.k),
        )
        checkpoint.delete_all(self.storage)

    # ------------------------------------------------------------ what is kept

    def interrupt(self) -> None:
        """Ends the running `step` after the present step of the optimizer; for signal handlers."""
        if self.result is None and hasattr(self, "trainer"):
            self.trainer.interrupted = True

    def keep(self) -> None:
        """Saves what was trained since the last checkpoint, for whoever goes on. OSError: the
        checkpoint before it counts."""
        if (
            self.result is None
            and not self._is_trained
            and hasattr(self, "trainer")
            and self.trainer.position > self.kept
        ):
            self._save_checkpoint()

    def _save_checkpoint(self) -> None:
        state = {
            "trainer": self.trainer.state_dict(),
            "curve": [snapshot.model_dump() for snapshot in self.curve],
            "curve_key": key_of_curve(self.spec.measurement),
            "best": self.best,
            "seconds": self.seconds,
        }
        begin = time.monotonic()
        checkpoint.save(self.storage, self.trainer.position, state)
        self.saved_at, self.kept = time.monotonic(), self.trainer.position
        self.interval = max(CHECKPOINT_SECONDS, (self.saved_at - begin) / CHECKPOINT_SHARE)

    def _record_failure(self, cause: str) -> None:
        """The newest checkpoint stays, for `emm run --retry-failed`."""
        self._record(
            complete=False,
            cause=cause,
            images_trained=self.trainer.position if hasattr(self, "trainer") else 0,
        )
        checkpoint.delete_all(self.storage, but=1)

    def _record(self, **outcome: Any) -> None:
        result = Result(
            **dict(self.started),
            **outcome,
            curve=tuple(self.curve),
            seconds=self.seconds,
            hardware=hardware(self.device),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if (
            result.complete or self.earlier is None or not self.earlier.complete
        ):  # a good result is kept, whatever fails later
            self.storage.write(RESULT, result.model_dump_json(indent=1).encode())
        # only what is written is true, and a failure that leaves an earlier result standing
        self.result = result

    def report(self) -> dict[str, Any]:
        """Where the trial stands, in plain values."""
        if self.result is not None:
            state = "complete" if self.result.complete else "failed"
            return {
                "state": state,
                "progress": 1.0,
                "images_trained": self.result.images_trained,
                "seconds": self.seconds,
            }
        last = self.curve[-1] if self.curve else None
        remaining = (1 - self.trainer.progress) / self.rate if self.rate else None
        return {
            "state": "measuring" if self._is_trained else "training",
            "progress": self.trainer.progress,
            "images_trained": self.trainer.position,
            "seconds": self.seconds,
            **({"seconds_left": remaining} if remaining is not None else {}),
            **({"snapshot": last.model_dump()} if last else {}),
        }


def _earlier(directory: Storage) -> Result | None:
    """The result that is there; a damaged one is trained again."""
    try:
        return read_result(directory)
    except DamagedFile as error:
        log.warning("trained again: %s", error)
        return None


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


def key_of_curve(measurement: Measurement, but: Sequence[str] = ("n_samples", "logit_se")) -> str:
    """Identity of what decides the curve and the best snapshot: all of a measurement but what
    decides how many final samples are enough."""
    return key_of({name: value for name, value in identity(measurement).items() if name not in but})


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware(device: torch.device) -> dict[str, str]:
    """What the trial ran on; recorded, and in no key."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "host": platform.node(),
        "pid": str(os.getpid()),
    }

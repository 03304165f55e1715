"""The last measurements of a sweep, on its cluster."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray

from sweep.run.driver import Run, free_slots
from sweep.store.files import FINAL
from trainables.data.images import ImageData
from trainables.data.sources import data_key
from trainables.errors import TrialFailed
from trainables.storage import Storage
from trainables.trial.result import FinalMeasurement, Result

log = logging.getLogger(__name__)


def measure_finals(run: Run) -> Iterator[tuple[Result, FinalMeasurement | None]]:
    """Measures what `search.final_samples` asks for on the cluster, and writes each outcome as it
    comes; None of a trial that could not be measured.

    What is not measured when the budget ends is left to the next run. Needs a Ray that is
    initialized, and the lock of the sweep.
    """
    per_device, workers = one_device(run.per_trial(), run.resources.workers)
    budget, waiting = run.budget(per_device), run.missing_finals()
    n_samples = run.sweep.space.search.final_samples
    measure = ray.remote(num_cpus=per_device["CPU"], num_gpus=per_device["GPU"])(_measure_final)
    slots = free_slots(per_device, workers)
    shared: dict[str, Any] = {}  # what Ray calls the data, by data_key: each is put there once
    # by Ray's task: the trial, and the seconds that were charged to the budget so far
    running: dict[Any, tuple[Result, float]] = {}
    checked_at = time.monotonic()
    while (waiting or running) and not run.has_ended(budget):
        while waiting and len(running) < slots():
            result = waiting.pop(0)
            key = data_key(result.configuration.data)
            if key not in shared:
                shared[key] = ray.put(run.sweep.data_of(result.spec.name))
            task = measure.remote(result, shared[key], run.storage, n_samples, per_device["CPU"])
            running[task] = result, 0.0
        finished, _ = ray.wait(list(running), timeout=0.5)
        elapsed, checked_at = time.monotonic() - checked_at, time.monotonic()
        budget.spend(elapsed * len(running))  # those that are cancelled have cost it as well
        running = {task: (result, charged + elapsed) for task, (result, charged) in running.items()}
        for task in finished:
            result, charged = running.pop(task)
            measured = _outcome(task, result)
            if measured is None:
                yield result, None
                continue
            final, seconds = measured
            budget.spend(seconds - charged)  # it may have waited for its process
            kept = run.storage.read_json(FINAL) or {}
            run.storage.write_json(FINAL, {**kept, result.training_key: final.model_dump()})
            yield result, final
    for task in running:
        ray.cancel(task, force=True)
    budget.write()


def one_device(
    per_trial: Mapping[str, float], workers: int | None
) -> tuple[dict[str, float], int | None]:
    """What a measurement is given, and how many there are at once, where a trial is given several
    GPUs: the share of one of them, since nothing is gained by measuring together."""
    members = max(1, int(per_trial["GPU"]))
    share = {name: amount / members for name, amount in per_trial.items()}
    return share, None if workers is None else workers * members


def _outcome(task: Any, result: Result) -> tuple[FinalMeasurement, float] | None:
    """Of a task that has ended; None if it failed, since the others are still wanted."""
    try:
        measured: tuple[FinalMeasurement, float] = ray.get(task)
    except (ray.exceptions.RayError, TrialFailed) as error:
        log.warning("no last measurement of %s: %s", result.training_key, error)
        return None
    return measured


def _measure_final(
    result: Result, data: ImageData, storage: Storage, n_samples: int, cpus: float
) -> tuple[FinalMeasurement, float]:
    """The measurement, and the seconds that it took."""
    import torch

    from trainables.trial.final import measure_final
    from trainables.trial.trial import choose_device

    begin = time.monotonic()
    torch.set_num_threads(max(1, int(cpus)))
    measured = measure_final(result, data, storage, n_samples, choose_device())
    return measured, time.monotonic() - begin

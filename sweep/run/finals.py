"""The last measurements of a sweep, on its cluster."""

import time
from collections.abc import Iterator
from typing import Any

import ray
import torch

from sweep.analysis.finals import missing_finals
from sweep.run.driver import Run, _slots, log
from sweep.store.files import FINAL
from trainables.data.images import ImageData
from trainables.data.sources import data_key
from trainables.errors import TrialFailed
from trainables.storage import Storage
from trainables.trial.final import measure_final
from trainables.trial.result import FinalMeasurement, Result
from trainables.trial.trial import choose_device


def measure_finals(one: Run) -> Iterator[tuple[Result, FinalMeasurement | None]]:
    """Measures what `search.final_samples` asks for on the cluster, and writes each outcome as it
    comes; None of a trial that could not be measured. What is not measured when the budget ends is
    left to the next run. Needs a Ray that is initialized, and the lock of the sweep.
    """
    summary, per_trial, budget = one.summary(), one.per_trial(), one.budget()
    waiting, n_samples = missing_finals(summary), summary.space.search.final_samples
    measure = ray.remote(num_cpus=per_trial["CPU"], num_gpus=per_trial["GPU"])(_measure_final)
    slots = _slots(per_trial, one.resources.workers)
    shared: dict[str, Any] = {}  # what Ray calls the data, by data_key: each is put there once
    running: dict[
        Any, tuple[Result, float]
    ] = {}  # with the seconds that were charged to the budget so far
    checked_at = time.monotonic()
    while (waiting or running) and not one.has_ended(budget):
        while waiting and len(running) < slots():
            result = waiting.pop(0)
            data = one.sweep.data_of(result.spec.name)
            key = data_key(result.configuration.data)
            shared[key] = shared.get(key) or ray.put(data)
            task = measure.remote(result, shared[key], one.storage, n_samples, per_trial["CPU"])
            running[task] = result, 0.0
        finished, _ = ray.wait(list(running), timeout=0.5)
        elapsed, checked_at = time.monotonic() - checked_at, time.monotonic()
        budget.spend(elapsed * len(running))  # those that are cancelled have cost it as well
        running = {task: (result, charged + elapsed) for task, (result, charged) in running.items()}
        for done in finished:
            (result, charged), outcome = running.pop(done), None
            try:
                outcome, seconds = ray.get(done)
                budget.spend(seconds - charged)  # it may have waited for its process
                kept = one.storage.read_json(FINAL) or {}
                one.storage.write_json(FINAL, {**kept, result.training_key: outcome.model_dump()})
            except (ray.exceptions.RayError, TrialFailed) as error:  # the others are still wanted
                log.warning("no last measurement of %s: %s", result.training_key, error)
            yield result, outcome
    for task in running:
        ray.cancel(task, force=True)
    budget.write()


def _measure_final(
    result: Result, data: ImageData, storage: Storage, n_samples: int, cpus: float
) -> tuple[FinalMeasurement, float]:
    """The measurement, and the seconds that it took."""
    begin = time.monotonic()
    torch.set_num_threads(max(1, int(cpus)))
    return measure_final(
        result, data, storage, n_samples, choose_device()
    ), time.monotonic() - begin

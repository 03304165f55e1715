"""Runs a sweep: checks everything, takes the lock, brings Optuna up to date with the results, hands the rest to Ray Tune.

Resuming, extending and starting are the same command. There is no `Tuner.restore` and there are no Tune checkpoints: what
was finished is in `trials/`, what was running goes on from its own checkpoint, and everything else follows from these.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
from ray import tune

from search_spaces.space import SearchSpace
from sweep.budget import Budget, Limits
from sweep.finals import missing_finals
from sweep.lock import LOCK
from sweep.machines import Resources
from sweep.pooling import FrozenPriors
from sweep.searcher import EmmSearcher, Listener
from sweep.studies import Studies
from sweep.summary import FINAL, SWEEP, SweepSummary, read_finals, read_sweep, read_trials, summary_of
from sweep.ui import sqlite_url
from trainables.config import Configuration, TrialSpec, configuration_key, identity
from trainables.custom import check_custom
from trainables.datasets import ImageData, load
from trainables.errors import TrialFailed, UserError
from trainables.final import measure_final
from trainables.labels import check_subset, planned_label_dim
from trainables.result import FinalMeasurement, Result, TrialRecord
from trainables.storage import Storage
from trainables.trainable import EmmTrainable, data_key
from trainables.trial import choose_device, start_record

log = logging.getLogger(__name__)

MOST_PER_STUDY = {"cost": 2, "wall": 8}  # trials at once; more would be of small N, end first and tell little
SIGTERM = "ended by SIGTERM; the same command goes on where it stopped"
LEAVE_SECONDS = 4.0  # for trials to end by themselves after a SIGTERM; Tune then gives them 5 more
END_SECONDS = 60.0  # the same, at the end of a budget: they may be drawing samples


@dataclass
class Sweep:
    """A search space with its data loaded: what a driver needs, checked before anything is created."""

    space: SearchSpace
    data: dict[str, ImageData] = field(default_factory=dict)  # by data_key

    def load_data(self) -> None:
        """Raises UserError if a source is missing or has fewer images than the search may ask for."""
        for named in self.space.configurations:
            configuration, search = named.configuration, self.space.search
            data = self._data(configuration, may_fetch=True)
            if search.n_high > (size := len(data)):
                raise UserError(
                    f"search.n_high: {search.n_high} is more than the {size} images there are; --set search.n_high={size}"
                )
            seeds = range(search.max_trials * search.replicates)
            check_subset(configuration.labels, data, search.n_low, seeds, self.space.measurement.protocol == "paper")
            check_custom(configuration, planned_label_dim(configuration, search.n_low, data))
        self._check_keys()

    def data_of(self, name: str) -> ImageData:
        """The data of a configuration, loaded when they are first asked for."""
        (configuration,) = (named.configuration for named in self.space.configurations if named.name == name)
        return self._data(configuration)

    def _data(self, configuration: Configuration, may_fetch: bool = False) -> ImageData:
        key = data_key(configuration.data)
        if key not in self.data:
            self.data[key] = load(configuration.data, may_fetch)
        return self.data[key]

    def record_of(self, spec: TrialSpec) -> TrialRecord:
        return start_record(spec, self.data[data_key(spec.configuration.data)])

    def _check_keys(self) -> None:
        """Raises UserError if two configurations would be one study: they differ only in what decides no result."""
        first: dict[str, str] = {}
        for name, key in self.keys().items():
            if key in first:
                raise UserError(
                    f"{first[key]} and {name} are the same configuration: paths, and what only saves memory, do not count"
                )
            first[key] = name

    def keys(self) -> dict[str, str]:
        """Configuration name → configuration key."""
        return {
            named.name: configuration_key(named.configuration, self._data(named.configuration).digest)
            for named in self.space.configurations
        }


def check_sweep(storage: Storage, sweep: Sweep) -> None:
    """Raises UserError, naming the field, if the storage holds another sweep that these trials can't be compared with."""
    try:
        former = read_sweep(storage)
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"storage: {storage.shown} can't be read ({reason})") from error
    if former is None:
        if any(not name.startswith(LOCK) and name != "emm.log" for name in storage.list()):
            raise UserError(f"{storage.shown} is not empty and holds no sweep; choose another --out")
        return
    if former.space.name != sweep.space.name:
        raise UserError(
            f"{storage.shown} holds the sweep of {former.space.name}, not of {sweep.space.name}; choose another --out"
        )
    for name, key in sweep.keys().items():
        if former.configurations.get(name, key) != key:
            raise UserError(_difference(former.space, sweep.space, name))
    for section, free in (
        ("search", {"precision", "max_trials", "guard", "replicates", "final_samples"}),
        ("measurement", {"batch"}),
    ):
        old, new = getattr(former.space, section), getattr(sweep.space, section)
        for name in type(new).model_fields:
            if name not in free and getattr(old, name) != getattr(new, name):
                raise UserError(_changed(f"{section}.{name}", getattr(old, name), getattr(new, name)))


def _difference(former: SearchSpace, space: SearchSpace, name: str) -> str:
    old, new = ({one.name: one.configuration for one in it.configurations}.get(name) for it in (former, space))
    if old is None:
        return f"{name}: this sweep has had another configuration of that name; choose another name, or another --out"
    for section in ("labels", "network", "diffusion", "trainer"):
        before, after = getattr(old, section), getattr(new, section)
        ours, theirs = identity(before), identity(after)  # of what decides results; another micro_batch is no difference
        for key in sorted(ours | theirs, key=lambda key: key != "kind"):
            if ours.get(key) != theirs.get(key):
                return _changed(f"{section}.{key}", getattr(before, key, None), getattr(after, key, None))
    return f"the data of {name} have changed; choose another --out"


def _changed(path: str, old: Any, new: Any) -> str:
    return f"{path}: this sweep was made with {old}, not {new}, and its trials could not be compared; choose another --out"


class Run:
    """One run of a driver, from an opened storage to a summary.

    `views`: a local directory for Optuna's database and Tune's files.
    """

    def __init__(
        self,
        sweep: Sweep,
        storage: Storage,
        views: Path,
        resources: Resources,
        trainable: type[tune.Trainable] = EmmTrainable,
        limits: Limits = Limits(),  # noqa: B008  frozen
    ) -> None:
        self.sweep, self.storage, self.views, self.resources, self.trainable = sweep, storage, views, resources, trainable
        self.limits = limits
        self.ended: str | None = None  # why it ended before every study had a verdict
        space, former = sweep.space, read_sweep(storage)
        # those that are left out today too, and former names: their trials are still there
        former_keys = former.configurations if former else {}
        self.keys = {**former_keys, **sweep.keys()}
        # by which a pointer to this storage is known to mean this sweep
        self.sweep_id = (former.id if former else None) or uuid4().hex
        dumped = space.model_dump(mode="json")
        content = {"sweep": space.name, "id": self.sweep_id, "space": dumped, "configurations": self.keys}
        storage.write_json(SWEEP, content)
        views.mkdir(parents=True, exist_ok=True)
        self.priors = FrozenPriors(storage, self.keys)
        self.studies = Studies(space, sqlite_url(views / "optuna.db"), self.priors)
        self.studies.forget(former_keys.keys() - self.studies.configurations.keys())
        results, started, _ = read_trials(storage, space, self.keys)
        self.adopted = self.studies.reconcile(results, started)

    @property
    def is_decided(self) -> bool:
        return all(self.studies.verdict(name).state != "searching" for name in self.studies.configurations)

    def fit(self, listeners: Sequence[Listener]) -> None:
        """Trains until every study has a verdict. Needs a Ray that is initialized."""
        per_trial, budget = self.per_trial(), self.budget()
        ended = partial(self.has_ended, budget)
        searcher = EmmSearcher(
            self.studies,
            self.adopted,
            self.storage,
            self.sweep.record_of,
            _slots(per_trial, self.resources.workers),
            [*listeners, budget],
            most_per_study=MOST_PER_STUDY[self.resources.objective],
            ended=ended,
        )
        trainable = tune.with_parameters(self.trainable, data=self.sweep.data, storage=self.storage)
        tuner = tune.Tuner(
            tune.with_resources(trainable, per_trial),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=str(self.views / "ray"),
                failure_config=tune.FailureConfig(max_failures=0),  # the searcher has a lost trial go on
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                stop=searcher.is_unneeded,  # type: ignore[arg-type]
                verbose=0,
            ),
        )
        with _ending_in_time(ended):
            tuner.fit()
        budget.write()
        if searcher.failure is not None:
            raise searcher.failure

    def per_trial(self) -> dict[str, float]:
        """What Ray is asked for, for each trial. Needs a Ray that is initialized."""
        return {"CPU": self.resources.cpus_per_trial, "GPU": _gpus_per_trial(self.resources)}

    def budget(self) -> Budget:
        return Budget(self.storage, self.limits, devices=self.per_trial()["GPU"] or 1)

    def has_ended(self, budget: Budget) -> str | None:
        """Why nothing more is to be done: a signal came, or the budget is spent."""
        self.ended = self.ended or budget.ended()
        return self.ended

    def summary(self) -> SweepSummary:
        results, started, damaged = read_trials(self.storage, self.sweep.space, self.keys)
        return summary_of(self.sweep.space, results, started, self.priors, read_finals(self.storage), damaged)


def measure_finals(one: Run) -> Iterator[tuple[Result, FinalMeasurement | None]]:
    """Measures what `search.final_samples` asks for on the cluster, and writes each outcome as it comes; None of a trial that
    could not be measured. What is not measured when the budget ends is left to the next run. Needs a Ray that is initialized,
    and the lock of the sweep.
    """
    summary, per_trial, budget = one.summary(), one.per_trial(), one.budget()
    waiting, n_samples = missing_finals(summary), summary.space.search.final_samples
    measure = ray.remote(num_cpus=per_trial["CPU"], num_gpus=per_trial["GPU"])(_measure_final)
    slots = _slots(per_trial, one.resources.workers)
    shared: dict[str, Any] = {}  # what Ray calls the data, by data_key: each is put there once
    running: dict[Any, tuple[Result, float]] = {}  # with the seconds that were charged to the budget so far
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
    return measure_final(result, data, storage, n_samples, choose_device()), time.monotonic() - begin


@contextmanager
def _ending_in_time(ended: Callable[[], str | None]) -> Iterator[None]:
    """Interrupts Tune, as Ctrl-C does, if the trials have not ended by themselves some time after they should."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            if reason := ended():
                if not done.wait(LEAVE_SECONDS if reason == SIGTERM else END_SECONDS):
                    os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=watch, name="end", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _gpus_per_trial(resources: Resources) -> float:
    if resources.gpus_per_trial is not None:
        return resources.gpus_per_trial
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def _slots(per_trial: dict[str, float], workers: int | None) -> Callable[[], int]:
    """How many trials may be in flight: `workers`, or what fits the nodes that are there now, looked up once a second.

    At least one: a trial that waits is what tells an autoscaler that a node is wanted.
    """
    looked_up: tuple[float, int] = (-math.inf, 1)

    def slots() -> int:
        nonlocal looked_up
        if workers is not None:
            return workers
        if time.monotonic() - looked_up[0] > 1:
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            fit = [min(int(node.get(name, 0) / need) for name, need in per_trial.items() if need) for node in alive]
            looked_up = (time.monotonic(), max(1, sum(fit)))
        return looked_up[1]

    return slots

"""Runs a sweep: brings Optuna up to date with the results, and hands the rest to Ray Tune.

Resuming, extending and starting are the same command. There is no `Tuner.restore` and there are no
Tune checkpoints: what was finished is in `trials/`, what was running goes on from its own
checkpoint, and everything else follows from these.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import ray
from ray import tune

from sweep.analysis.finals import missing_finals
from sweep.analysis.summary import SweepSummary, summary_of
from sweep.run.checks import Sweep
from sweep.run.listener import Listener
from sweep.run.machines import Resources
from sweep.run.searcher import EmmSearcher
from sweep.run.studies import Studies
from sweep.store.budget import Budget, Limits
from sweep.store.databases import sound_url
from sweep.store.files import SWEEP, Invocation, read_finals, read_sweep, read_trials
from sweep.store.priors import FrozenPriors
from sweep.store.reuse import Former, take_over
from trainables.storage import Storage
from trainables.trial.ray_trainable import EmmTrainable
from trainables.trial.result import Result

log = logging.getLogger(__name__)

# trials at once; more would be of small N, end first and tell little
MOST_PER_STUDY = {"cost": 2, "wall": 8}

SIGTERM = "ended by SIGTERM; the same command goes on where it stopped"

# for trials to end by themselves: after a SIGTERM, where Tune then gives them 5 more; and at the end
# of a budget, when they may be drawing samples
LEAVE_SECONDS, END_SECONDS = 4.0, 60.0

MAX_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"  # Tune's: trials whose processes start at a time


class Run:
    """One run of a driver, from an opened storage to a summary.

    `views`: a local directory for Optuna's database and Tune's files. `only`: the configurations,
    by name, that it trains; the sweep is that of the whole space, and another run goes on with the
    others.
    """

    def __init__(
        self,
        sweep: Sweep,
        storage: Storage,
        views: Path,
        resources: Resources,
        trainable: type[tune.Trainable] = EmmTrainable,
        limits: Limits = Limits(),  # noqa: B008  frozen
        invocation: Invocation | None = None,
        only: Collection[str] | None = None,
        reuse: Sequence[Former] = (),
        tell: Callable[[str], None] = log.warning,
    ) -> None:
        self.sweep, self.storage, self.views = sweep, storage, views
        self.resources, self.trainable, self.limits = resources, trainable, limits
        self.ended: str | None = None  # why it ended before every study had a verdict
        space, former = sweep.space, read_sweep(storage)
        # those that are left out today too, and former names: their trials are still there
        former_keys = former.configurations if former else {}
        self.keys = {**former_keys, **sweep.keys()}
        # by which a pointer to this storage is known to mean this sweep
        self.sweep_id = (former.id if former else None) or uuid4().hex
        self.runs = list(former.runs) if former else []
        if invocation is not None:
            self.runs.append(invocation)
        content = {
            "sweep": space.name,
            "id": self.sweep_id,
            "space": space.model_dump(mode="json"),
            "configurations": self.keys,
            "runs": [run.model_dump(mode="json") for run in self.runs],
        }
        storage.write_json(SWEEP, content)
        keys = set(self.keys.values())
        self.taken_over = [take_over(one, storage, keys, space) for one in reuse]
        views.mkdir(parents=True, exist_ok=True)
        self.priors = FrozenPriors(storage, self.keys)
        self.studies = Studies(space, sound_url(views / "optuna.db", tell), self.priors)
        self.wanted = [name for name in self.studies.configurations if only is None or name in only]
        self.studies.forget(former_keys.keys() - self.studies.configurations.keys())
        results, started, _ = read_trials(storage, space, self.keys)
        self.adopted = self.studies.reconcile(results, started)

    @property
    def is_decided(self) -> bool:
        return all(self.studies.verdict(name).state != "searching" for name in self.wanted)

    @property
    def is_open(self) -> bool:
        """Whether there is something to train, or to measure at last."""
        return not self.is_decided or bool(self.missing_finals())

    def missing_finals(self) -> list[Result]:
        """The trials that are to be measured at last, and are not yet."""
        missing = missing_finals(self.summary())
        return [result for result in missing if result.spec.name in self.wanted]

    @property
    def is_terminated(self) -> bool:
        return self.ended == SIGTERM

    def fit(self, listeners: Sequence[Listener]) -> None:
        """Trains until every study that is wanted has a verdict. Needs a Ray that is initialized."""
        if self.is_decided:
            return
        per_trial, budget = self.per_trial(), self.budget()
        ended = partial(self.has_ended, budget)
        slots = free_slots(per_trial, self.resources.workers)
        searcher = self.searcher(slots, [*listeners, budget], ended)
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
                # the searcher has a lost trial go on
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                stop=searcher.is_unneeded,  # type: ignore[arg-type]
                verbose=0,
            ),
        )
        with _ending_in_time(ended), _starting_at_once(_fitting(per_trial)):
            tuner.fit()
        budget.write()
        if searcher.failure is not None:
            raise searcher.failure

    def searcher(
        self,
        slots: Callable[[], int],
        listeners: Sequence[Listener],
        ended: Callable[[], str | None],
    ) -> EmmSearcher:
        """What proposes the trials of this run."""
        return EmmSearcher(
            self.studies,
            self.adopted,
            self.storage,
            self.sweep.record_of,
            slots,
            listeners,
            most_per_study=MOST_PER_STUDY[self.resources.objective],
            ended=ended,
            wanted=self.wanted,
        )

    def per_trial(self) -> dict[str, float]:
        """What Ray is asked for, for each trial. Needs a Ray that is initialized."""
        return {"CPU": self.resources.cpus_per_trial, "GPU": _gpus_per_trial(self.resources)}

    def budget(self, each: Mapping[str, float] | None = None) -> Budget:
        """each: what Ray is asked for at a time, if it is not a trial's."""
        return Budget(self.storage, self.limits, devices=(each or self.per_trial())["GPU"] or 1)

    def has_ended(self, budget: Budget) -> str | None:
        """Why nothing more is to be done: a signal came, or the budget is spent."""
        spent = budget.ended()
        if spent and not self.ended:  # and what a signal has set meanwhile stays
            self.ended = spent
        return self.ended

    def summary(self) -> SweepSummary:
        results, started, damaged = read_trials(self.storage, self.sweep.space, self.keys)
        return summary_of(
            self.sweep.space,
            results,
            started,
            self.priors,
            read_finals(self.storage),
            damaged,
            self.runs,
        )


@contextmanager
def _ending_in_time(ended: Callable[[], str | None]) -> Iterator[None]:
    """Interrupts Tune, as Ctrl-C does, if the trials have not ended by themselves some time after
    they should."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            reason = ended()
            if reason:
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


@contextmanager
def _starting_at_once(trials: int) -> Iterator[None]:
    """Has Tune start the processes of so many trials at once; by itself it waits for each before it
    asks for the next trial. A value of the user's stands."""
    if MAX_PENDING in os.environ:
        yield
        return
    os.environ[MAX_PENDING] = str(trials)
    try:
        yield
    finally:
        del os.environ[MAX_PENDING]


def _gpus_per_trial(resources: Resources) -> float:
    if resources.gpus_per_trial is not None:
        return resources.gpus_per_trial
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def free_slots(per_trial: dict[str, float], workers: int | None) -> Callable[[], int]:
    """How many trials may be in flight: `workers`, or what fits the nodes that are there now,
    looked up once a second.

    At least one: a trial that waits is what tells an autoscaler that a node is wanted.
    """
    looked_up: tuple[float, int] = (-math.inf, 1)

    def slots() -> int:
        nonlocal looked_up
        if workers is not None:
            return workers
        if time.monotonic() - looked_up[0] > 1:
            looked_up = (time.monotonic(), _fitting(per_trial))
        return looked_up[1]

    return slots


def _fitting(per_trial: dict[str, float]) -> int:
    """How many trials fit the nodes that are there now; at least one."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = [
        min(int(node.get(name, 0) / need) for name, need in per_trial.items() if need)
        for node in alive
    ]
    return max(1, sum(fit))

"""A sweep of a moment, and what MLflow holds of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search_spaces.space import Search, SearchSpace
from sweep.analysis.summary import SweepSummary, summarize
from sweep.store.files import SWEEP
from sweep.tracking.place import DATABASE, Destination, local_tracking
from sweep.tracking.tracker import Tracker
from tests.results import write_trial
from trainables.config.data import Digits
from trainables.config.diffusion import EDM
from trainables.config.measurement import Measurement
from trainables.config.network import DDPMpp, Optimum
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec
from trainables.data.images import ImageData
from trainables.data.sources import load
from trainables.storage import Storage
from trainables.trial.result import Result
from trainables.trial.trial import Trial

DIGITS = load(Digits())
SPACE = SearchSpace(
    name="tiny",
    question="Does it copy?",
    source="a test",
    expectation="it does",
    cost="seconds",
    base=Configuration(
        data=Digits(),
        network=DDPMpp(depth=1, multipliers=(1,), attention=()),
        diffusion=EDM(),
        trainer=StandardTrainer(clock="steps", length=4, batch=8),
    ),
    vary={"network.width": (4, 8)},
    search=Search(n_low=4, n_high=64),
    measurement=Measurement(n_samples=30, n_selection=10, snapshots=2, sampler_steps=6),
)


@dataclass
class Sweep:
    storage: Storage

    @property
    def summary(self) -> SweepSummary:
        return summarize(self.storage)

    def trial(self, name: str, n: int, seed: int, optimum: bool = False) -> Trial:
        (configuration,) = (one.configuration for one in SPACE.configurations if one.name == name)
        if optimum:  # nothing is trained, everything is copied
            configuration = configuration.model_copy(update={"network": Optimum()})
        spec = TrialSpec(
            name=name, configuration=configuration, measurement=SPACE.measurement, n=n, seed=seed
        )
        return Trial(spec, DIGITS, self.storage, torch.device("cpu"))

    def finished(self, name: str, n: int, seed: int, optimum: bool = False) -> Result:
        trial = self.trial(name, n, seed, optimum)
        while trial.result is None:
            trial.step()
        return trial.result


def new_sweep(directory: Path, space: SearchSpace = SPACE) -> Sweep:
    storage = Storage(str(directory))
    storage.write_json(SWEEP, {"space": space.model_dump(mode="json")})
    return Sweep(storage)


def written(
    sweep: Sweep, space: SearchSpace = SPACE, data: ImageData = DIGITS, **more: object
) -> list[Result]:
    """A result of every configuration, without training."""
    named = space.configurations
    return [
        write_trial(sweep.storage, space, one, data, 8 + i, i, **more)
        for i, one in enumerate(named)
    ]


def everything(sweep: Sweep) -> bytes:
    """What a reader of MLflow's database and artifacts can find."""
    root = Path(sweep.storage.root)
    return (root / DATABASE).read_bytes() + b"".join(
        p.read_bytes() for p in root.rglob("artifacts/**/*") if p.is_file()
    )


def destination(sweep: Sweep, images: Any = "pairs") -> Destination:
    return Destination(*local_tracking(Path(sweep.storage.root)), images, lambda name: DIGITS)


def track(sweep: Sweep, where: Destination) -> Tracker:
    return Tracker(
        sweep.summary,
        lambda name: {s.name: s for s in sweep.summary.studies}[name].verdict,
        sweep.storage,
        where,
    )


def runs(where: Destination | str) -> dict[str, Any]:
    """All runs by name; fails on two of one name."""
    from mlflow import MlflowClient

    client = MlflowClient(where if isinstance(where, str) else where.uri)
    experiment = client.get_experiment_by_name("emm-sweep")
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def artifacts(run: Any) -> dict[str, Path]:
    root = Path(run.info.artifact_uri)
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}


def history(where: Destination, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    points = MlflowClient(where.uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def content(where: Destination) -> Any:
    """What the runs say, without what is new in every database."""
    return {
        name: (
            run.info.status,
            {
                name: value
                for name, value in run.data.metrics.items()
                if not name.startswith("system/")
            },
            run.data.params,
            {tag: value for tag, value in run.data.tags.items() if not tag.startswith("mlflow.")},
            history(where, run, "r_mem_snapshot"),
            history(where, run, "emm"),
            {path: file.read_bytes() for path, file in artifacts(run).items()},
        )
        for name, run in runs(where).items()
    }

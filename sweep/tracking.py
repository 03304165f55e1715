"""MLflow's view of a sweep: one experiment, and in it sweep run → study runs → trial runs.

Only the driver (and `emm sync`) writes it, from reports and from the files of finished trials; trials know nothing of it. A
run is found by its tag `emm.key` before it is created, and only what differs is written, so that everything may be written
again: after a restart, after an error, into an empty database. `View` does the writing and raises; `Tracker` is how a
driver uses it, in a thread, best effort.
"""

import io
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.space import SearchSpace
from sweep.bisection import Verdict
from sweep.summary import StudySummary, SweepSummary
from sweep.ui import EXPERIMENT, VIEW, make_grid, prepare_environment, studies_table, sweep_key
from trainables.config import key_of
from trainables.datasets import ImageData
from trainables.errors import UserError
from trainables.memorization import Neighbours, r_mem_interval
from trainables.result import MEASUREMENT, Result, Snapshot, TrialRecord, trial_directory
from trainables.storage import Storage

if TYPE_CHECKING:  # importing mlflow takes seconds: only the thread that writes does it
    from mlflow.entities import Run

log = logging.getLogger(__name__)

NOTE = "mlflow.note.content"  # the description on the page of a run, in Markdown
N_PICTURES = 64
MAX_BATCH = 1000  # metrics in a call
MAX_FAILURES, PAUSE_SECONDS = 3, 60.0  # so many failures in a row, and nothing is tried for so long

Images = Literal["none", "generated", "pairs"]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Destination:
    """Which MLflow a sweep is written to, and what of it.

    `uri`: http(s) address of a server, or `sqlite:///` and the path of a file; `artifacts`: where the files of runs go, None
    for the server's own place; `images`: which pictures are logged; `data`: for "pairs", the data of a configuration by name.
    """

    uri: str
    artifacts: str | None = None
    images: Images = "none"
    data: Callable[[str], ImageData] | None = None


def default_images(space: SearchSpace) -> Images:
    """Which pictures are logged unless the user says otherwise: none of the user's own data."""
    private = any(named.configuration.data.kind in ("folder", "arrays") for named in space.configurations)
    return "none" if private else "pairs"


def sync(summary: SweepSummary, storage: Storage, destination: Destination, live: bool = False) -> None:
    """Makes MLflow agree with the results; doing it again changes nothing. `live`: whether a driver is at work meanwhile.

    Raises UserError if MLflow can't be reached or refuses.
    """
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        View(summary.space, storage, destination).sync(summary, live)
    except MlflowException as error:
        raise UserError(f"MLflow at {destination.uri}: {_first_line(error)}") from error


class Tracker:
    """Tells MLflow what happens in a sweep: a listener of the searcher. Nothing here blocks or raises.

    `verdict` gives the live verdict of a study by its name. An error is logged once per kind; after some in a row nothing is
    tried for a while. What was missed is made up for by `close`, by the next run, or by `emm sync`.
    """

    def __init__(
        self, summary: SweepSummary, verdict: Callable[[str], Verdict], storage: Storage, destination: Destination
    ) -> None:
        self.missed = 0
        self._summary, self._verdict = summary, verdict
        self._studies = {study.name: study for study in summary.studies}
        self._snapshots: dict[str, int] = {}  # images trained at the last snapshot that was told, by training key
        self._open_view = partial(View, summary.space, storage, destination)
        self._view: View | None = None
        self._failures, self._paused_until, self._logged = 0, 0.0, set[type]()
        self._tasks: queue.SimpleQueue[Callable[[View], None] | None] = queue.SimpleQueue()
        self._tasks.put(lambda view: view.sync(summary, live=True))
        prepare_environment()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def trial_started(self, record: TrialRecord) -> None:
        self._update(record, running=[record])
        self._tasks.put(lambda view: view.trial_started(record))

    def trial_progress(self, record: TrialRecord, report: Mapping[str, Any]) -> None:
        """Takes the newest snapshot from a trial's report, if there is a new one."""
        content = report.get("snapshot")
        if not content or self._snapshots.get(record.training_key) == content["images_trained"]:
            return
        snapshot = Snapshot.model_validate(content)
        self._snapshots[record.training_key] = snapshot.images_trained
        self._tasks.put(lambda view: view.trial_curve(record, [snapshot]))

    def trial_finished(self, result: Result) -> None:
        study = self._update(result, results=[result])
        self._tasks.put(lambda view: view.trial_finished(result))
        self._tasks.put(lambda view: view.study_updated(study, live=True))

    def trial_stopped(self, record: TrialRecord) -> None:
        self._tasks.put(lambda view: view.trial_stopped(record))

    def close(self, timeout: float = 30.0) -> None:
        """Writes what is left and what was missed, for at most `timeout` seconds."""
        self._tasks.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive() or self.missed:
            log.warning("MLflow lacks some of this sweep; `emm sync` writes it")

    def _update(self, record: TrialRecord, running: Sequence[TrialRecord] = (), results: Sequence[Result] = ()) -> StudySummary:
        """The study of `record` as it is now, `record` being in what is given and nowhere else."""
        name, key = record.spec.name, record.training_key
        former = self._studies[name]
        self._studies[name] = replace(
            former,
            verdict=self._verdict(name),
            running=[*(other for other in former.running if other.training_key != key), *running],
            results=[*(other for other in former.results if other.training_key != key), *results],
        )
        return self._studies[name]

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if time.monotonic() < self._paused_until:
                self.missed += 1
            else:
                self._attempt(task)
        final = replace(self._summary, studies=list(self._studies.values()))
        if self._attempt(lambda view: view.sync(final, live=False)):
            self.missed = 0

    def _attempt(self, task: Callable[["View"], None]) -> bool:
        try:
            self._view = self._view or self._open_view()
            task(self._view)
        except Exception as error:  # noqa: BLE001  whatever it is, a sweep goes on without MLflow
            self._view, self._failures, self.missed = None, self._failures + 1, self.missed + 1
            if self._failures >= MAX_FAILURES:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            if type(error) not in self._logged:
                self._logged.add(type(error))
                log.warning("MLflow: %s", _first_line(error))
            return False
        self._failures = 0
        return True


class View:
    """Writes runs, in the calling thread; raises MlflowException, OSError, whatever goes wrong."""

    def __init__(self, space: SearchSpace, storage: Storage, destination: Destination) -> None:
        from mlflow import MlflowClient

        self.space, self.storage, self.destination = space, storage, destination
        self.factors = {named.name: named.factors for named in space.configurations}
        self.key = sweep_key(space, storage)
        self.client = MlflowClient(destination.uri)
        self.experiment = self._experiment()
        self.runs = {run.data.tags["emm.key"]: run for run in self._find("emm.sweep", self.key)}  # as they are on the server
        self.steps: dict[str, set[int]] = {}  # of the curves that are logged, by key

    def _experiment(self) -> str:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens with runs, not with chats
        tags[VIEW + self.key] = studies_table(self.space, self.key)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        number = self.client.create_experiment(EXPERIMENT, self.destination.artifacts) if found is None else found.experiment_id
        for name, value in tags.items():
            if found is None or found.tags.get(name) != value:
                self.client.set_experiment_tag(number, name, value)
        return str(number)

    # ------------------------------------------------------------ what happens in a sweep

    def sync(self, summary: SweepSummary, live: bool) -> None:
        """Everything that the storage holds. `live`: a driver is at work; without one, what is not finished is "killed"."""
        for study in summary.studies:
            self.study_updated(study, live)
            for result in study.results:
                self.trial_finished(result)
            for record in study.running:
                self._status(self._trial(record), "RUNNING" if live else "KILLED")
        key = self._sweep()
        decided = sum(study.verdict.state != "searching" for study in summary.studies)
        images_trained = sum(study.images_trained for study in summary.studies)
        self._log(key, {"studies": len(summary.studies), "studies_decided": decided, "images_trained": images_trained})
        self._status(key, _outcome(decided == len(summary.studies), live))

    def study_updated(self, study: StudySummary, live: bool) -> None:
        key, verdict = self._study(study.name), study.verdict
        metrics = {
            **{name: _rounded(getattr(verdict, name)) for name in ("emm", "emm_low", "emm_high", "sd")},
            "n_trials": verdict.n_trials,
            "images_trained": study.images_trained,
            "seconds": sum(result.seconds for result in study.results),
        }
        tags = {"emm.verdict": verdict.state, "emm.reason": verdict.reason, "emm.target": str(study.options.target)}
        self._log(key, metrics, tags=tags, step=verdict.n_trials)
        self._status(key, _outcome(verdict.state != "searching", live))

    def trial_started(self, record: TrialRecord) -> None:
        key = self._trial(record)
        if not self._is_written(key, record):
            self._status(key, "RUNNING")

    def trial_stopped(self, record: TrialRecord) -> None:
        self._status(self._trial(record), "KILLED")

    def trial_curve(self, record: TrialRecord, curve: Sequence[Snapshot], begin: float | None = None) -> None:
        """Adds the snapshots that are missing. `begin`: when the trial would have begun had it never been interrupted, in
        seconds since the epoch; None: the snapshots are of this moment."""
        from mlflow.entities import Metric

        key = self._trial(record)
        run_id = self.runs[key].info.run_id
        if key not in self.steps:
            self.steps[key] = {metric.step for metric in self.client.get_metric_history(run_id, "r_mem_snapshot")}
        missing = [snapshot for snapshot in curve if snapshot.images_trained not in self.steps[key]]
        points = [
            Metric(name, value, _milliseconds(time.time() if begin is None else begin + one.seconds), one.images_trained)
            for one in missing
            for name, value in _curve_metrics(one, record).items()
        ]
        for start in range(0, len(points), MAX_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + MAX_BATCH])
        self.steps[key].update(one.images_trained for one in missing)

    def trial_finished(self, result: Result) -> None:
        end = datetime.fromisoformat(result.finished_at).timestamp() if result.finished_at else time.time()
        key = self._trial(result, begin=end - result.seconds)
        if self._is_written(key, result):
            return
        self._log(key, _result_metrics(result), at=end)
        self.trial_curve(result, result.curve, end - result.seconds)
        if result.complete:
            self._log_measurement(self.runs[key].info.run_id, result)
        cause = {} if result.cause is None else {"emm.cause": result.cause}
        self._log(key, tags={**cause, "emm.written": result.measurement_key})  # the last thing but the status
        self._status(key, "FINISHED" if result.complete else "FAILED", at=end)

    def _is_written(self, key: str, record: TrialRecord) -> bool:
        run = self.runs[key]
        return run.data.tags.get("emm.written") == record.measurement_key and run.info.status in ("FINISHED", "FAILED")

    def _log_measurement(self, run_id: str, result: Result) -> None:
        """Distances and neighbours (positions in the whole data set) of every sample, and the pictures that are allowed."""
        content = trial_directory(self.storage, result.training_key).read(MEASUREMENT)
        if content is None:
            return
        with np.load(io.BytesIO(content)) as kept:
            found = Neighbours(kept["d1"], kept["d2"], kept["subset"][kept["i1"]], kept["subset"][kept["i2"]])
            samples = kept["images"][:N_PICTURES]
        memorized = found.memorized(result.measurement.k)
        table = io.StringIO()
        columns = np.column_stack([found.d1, found.d2, found.i1, found.i2, memorized])
        np.savetxt(table, columns, ["%.9g", "%.9g", "%d", "%d", "%d"], ",", header="d1,d2,i1,i2,memorized", comments="")
        self.client.log_text(run_id, table.getvalue(), "distances.csv")
        if self.destination.images == "none":
            return
        order = np.argsort(found.d1[:N_PICTURES] / np.maximum(found.d2[:N_PICTURES], 1e-9), kind="stable")
        training = self._training_images(result)
        nearest = None if training is None else training[found.i1[order]]
        self.client.log_image(run_id, make_grid(samples[order], nearest, memorized[order]), "samples.png")
        shown = "First samples" if nearest is None else "First samples, each above its nearest training image"
        note = f"{shown}; memorized ones are framed.\n\n![samples](get-artifact?path=samples.png&run_uuid={run_id})"
        self.client.set_tag(run_id, NOTE, note)

    def _training_images(self, result: Result) -> UInt8 | None:
        """The data of a trial, if they may be shown and are still at hand."""
        if self.destination.images != "pairs" or self.destination.data is None:
            return None
        try:
            data = self.destination.data(result.spec.name)
        except UserError:
            return None
        return data.images if data.digest == result.data.digest else None

    # ------------------------------------------------------------ runs, by key; each is made when it is first needed

    def _sweep(self) -> str:
        space = self.space
        search = f"N from {space.search.n_low} to {space.search.n_high}, target R_mem {space.search.target}"
        note = f"**{space.question}**\n\nExpected: {space.expectation}. Source: {space.source}.\n\n{search}."
        tags = {"emm.space": space.name, "emm.storage": self.storage.url, NOTE: note}
        return self._open(self.key, "sweep", space.name, tags)

    def _study(self, name: str) -> str:
        parent = self._sweep()
        note = f"EMM: the largest N of which {name} still memorizes a share of {self.space.search.target}; 95 % interval."
        tags = {"emm.study": name, "mlflow.parentRunId": self.runs[parent].info.run_id, NOTE: note}
        key = self._open(key_of({"sweep": self.key, "study": name}), "study", name, tags)
        self._log(key, params={"configuration": name, **self.factors[name]})
        return key

    def _trial(self, record: TrialRecord, begin: float | None = None) -> str:
        spec = record.spec
        parent = self._study(spec.name)
        tags = {
            "emm.study": spec.name,
            "emm.training_key": record.training_key,
            "mlflow.parentRunId": self.runs[parent].info.run_id,
        }
        title = f"{spec.name} N={spec.n} seed={spec.seed}"
        key = self._open(key_of({"sweep": self.key, "trial": record.training_key}), "trial", title, tags, begin)
        described = {**spec.configuration.model_dump(mode="json"), "measurement": spec.measurement.model_dump(mode="json")}
        given = {"configuration": spec.name, "n": spec.n, "seed": spec.seed}
        self._log(key, params={**given, **self.factors[spec.name], **_flat(described)})
        self._log_data(key, record)
        return key

    def _log_data(self, key: str, record: TrialRecord) -> None:
        run = self.runs[key]
        if run.inputs and run.inputs.dataset_inputs:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = record.data
        dataset = Dataset(
            name=data.source,
            digest=data.digest[:32],  # MLflow takes 36 characters
            source_type="emm",
            source=json.dumps({"kind": data.source, "sha256": data.digest}),
            profile=json.dumps({"images": data.size, "duplicates": data.duplicates}),
        )
        context = InputTag("mlflow.data.context", f"N={record.spec.n} seed={record.spec.seed}")
        self.client.log_inputs(run.info.run_id, [DatasetInput(dataset, [context])])
        self._reread(key)

    def _open(self, key: str, level: str, name: str, tags: Mapping[str, str], begin: float | None = None) -> str:
        if key not in self.runs:
            tags = {"emm.level": level, "emm.key": key, "emm.sweep": self.key, **tags}
            found = self._find("emm.key", key)  # another process may have made it meanwhile
            start = _milliseconds(begin or time.time())
            self.runs[key] = found[0] if found else self.client.create_run(self.experiment, start, tags, name)
        return key

    def _find(self, tag: str, value: str) -> "list[Run]":
        found: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'", max_results=1000, page_token=token)
            found += page
            if not (token := page.token):
                return found

    def _log(
        self,
        key: str,
        metrics: Mapping[str, float | None] | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
        at: float | None = None,
    ) -> None:
        """Writes what differs from what the run holds. A metric that is None now and was a number becomes NaN; parameters
        can't be changed once they are written."""
        from mlflow.entities import Metric, Param, RunTag

        run, now = self.runs[key], _milliseconds(at or time.time())
        old = run.data.metrics
        numbers = {name: math.nan if value is None else value for name, value in (metrics or {}).items()}
        changed = {name: value for name, value in numbers.items() if not _same(old.get(name, math.nan), value)}
        new_params = {name: _text(value) for name, value in (params or {}).items() if name not in run.data.params}
        new_tags = {name: value for name, value in (tags or {}).items() if run.data.tags.get(name) != value}
        if changed or new_params or new_tags:
            self.client.log_batch(
                run.info.run_id,
                [Metric(name, value, now, step) for name, value in changed.items()],
                [Param(name, value) for name, value in new_params.items()],
                [RunTag(name, value) for name, value in new_tags.items()],
            )
            self._reread(key)

    def _status(self, key: str, status: str, at: float | None = None) -> None:
        run = self.runs[key]
        if run.info.status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, _milliseconds(at or time.time()))
        self._reread(key)

    def _reread(self, key: str) -> None:
        self.runs[key] = self.client.get_run(self.runs[key].info.run_id)


# ---------------------------------------------------------------- values


def _outcome(finished: bool, live: bool) -> str:
    return "FINISHED" if finished else "RUNNING" if live else "KILLED"


def _curve_metrics(snapshot: Snapshot, record: TrialRecord) -> dict[str, float]:
    spec = record.spec
    metrics = {
        "r_mem_snapshot": snapshot.r_mem,
        "median_d1_snapshot": snapshot.median_d1,
        "loss": snapshot.loss,
        "progress": snapshot.images_trained / spec.configuration.trainer.train_images(spec.n),
    }
    if snapshot.seconds > 0:
        metrics["images_per_second"] = snapshot.images_trained / snapshot.seconds
    return metrics


def _result_metrics(result: Result) -> dict[str, float | None]:
    metrics: dict[str, float | None] = {}
    if result.complete:
        low, high = r_mem_interval(result.n_memorized, result.n_samples)
        metrics = {"r_mem": result.r_mem, "r_mem_low": low, "r_mem_high": high}
        names = ("r_mem_last", "r_mem_half", "ceiling", "median_d1", "distinct_copied", "n_samples", "n_memorized")
        metrics |= {name: getattr(result, name) for name in names}
    return {**metrics, "images_trained": result.images_trained, "seconds": result.seconds}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return leaves


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _rounded(value: float | None) -> float | None:
    """To five digits, which is more than is known and fits a column."""
    return None if value is None else float(f"{value:.5g}")


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300] or type(error).__name__

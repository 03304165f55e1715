"""MLflow's view of a sweep: one experiment, and in it sweep run → study runs → trial runs.

Only the driver and `emm sync` write it, from reports and from the files of finished trials; trials know nothing of it. A run
is found by its tag `emm.key` before it is created, and only what differs is written, so that everything may be written again:
after a restart, after an error, into an empty database. `View` writes and raises; `Tracker` writes in a thread, best effort.
"""

import json
import logging
import math
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from search_spaces.space import SearchSpace
from sweep import ui
from sweep.bisection import Verdict
from sweep.charts import Figures, overview_figures, study_figures
from sweep.escapes import cut, mlflow_key, visible
from sweep.figures import as_pdf, as_png
from sweep.gallery import Pictures, gallery_figure, measured
from sweep.summary import StudySummary, SweepSummary, read_keys
from trainables.config import key_of
from trainables.datasets import ImageData
from trainables.errors import UserError
from trainables.result import Result, Snapshot, TrialRecord
from trainables.storage import Storage, redacted

if TYPE_CHECKING:  # importing mlflow takes seconds: only the thread that writes does it
    from mlflow.entities import Run

log = logging.getLogger(__name__)

NOTE = "mlflow.note.content"  # the description on the page of a run, in Markdown
MAX_FAILURES, PAUSE_SECONDS = 3, 60.0  # so many failures in a row, and nothing is tried for so long

DPI = 120  # of the gallery: a wider one would push MLflow's columns aside
# characters of the name of a run, of values of parameters and tags; entries of a batch
MAX_NAME, MAX_PARAM, MAX_TAG, MAX_BATCH = 250, 6000, 8000, 100
MAX_NAMED = 5  # of what MLflow has refused
HARDWARE = ("device", "name", "threads", "host")  # tags of a trial: what it ran on

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Destination:
    """Which MLflow a sweep is written to, and what of it.

    `uri`: http(s) address of a server, or `sqlite:///` and the path of a file; `artifacts`: where the files of runs go, None
    for the server's own place; `images`: which pictures are logged; `data`: for "pairs", the data of a configuration by name.
    """

    uri: str
    artifacts: str | None = None
    images: Literal["none", "generated", "pairs"] = "none"
    data: Callable[[str], ImageData] | None = None


def sync(summary: SweepSummary, storage: Storage, destination: Destination, live: bool = False) -> None:
    """Makes MLflow agree with the results; doing it again changes nothing. `live`: whether a driver is at work meanwhile.

    Raises UserError if MLflow can't be reached, or, when all the rest is written, if it has refused some of it.
    """
    ui.prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        View(summary.space, storage, destination).sync(summary, live)
    except MlflowException as error:
        uri = destination.uri
        raise UserError(f"MLflow at {redacted(uri)}: {ui.one_line(error, uri)}") from error


def make_up(summary: SweepSummary, storage: Storage, destination: Destination) -> bool:
    """Writes what an earlier run of a sweep that is decided by now could not; returns whether MLflow holds everything."""
    try:
        sync(summary, storage, destination)
    except Exception as error:  # noqa: BLE001  whatever it is, a sweep has its answer without MLflow
        log.warning("MLflow: %s", ui.one_line(error, destination.uri))
        return False
    return True


class Tracker:
    """Tells MLflow what happens in a sweep: a listener of the searcher. Nothing here blocks or raises.

    `verdict` gives the live verdict of a study by its name. An error is logged, and told to `tell`, once per kind; after
    some in a row nothing is tried for a while. What was missed is made up for by `close`, by the next run, or by `emm sync`.
    """

    def __init__(
        self,
        summary: SweepSummary,
        verdict: Callable[[str], Verdict],
        storage: Storage,
        destination: Destination,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.missed = 0
        self._uri, self._tell = destination.uri, tell
        self._final: SweepSummary | None = None
        self._summary, self._verdict = summary, verdict
        self._studies = {study.name: study for study in summary.studies}
        self._snapshots: dict[str, int] = {}  # images trained at the last snapshot that was told, by training key
        self._open_view = partial(View, summary.space, storage, destination)
        self._view: View | None = None
        self._failures, self._paused_until, self._logged = 0, 0.0, set[type]()
        self._tasks: queue.SimpleQueue[Callable[[View], None] | None] = queue.SimpleQueue()
        self._tasks.put(lambda view: view.sync(summary, live=True))
        self._tasks.put(self._watch)
        self._monitor: Any = None
        ui.prepare_environment()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def trial_started(self, record: TrialRecord) -> None:
        self._update(record, running=[record])
        self._tasks.put(lambda view: view.trial_status(record, "RUNNING"))

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
        self._tasks.put(lambda view: view.trial_status(record, "KILLED"))

    def close(self, timeout: float = 60.0, final: SweepSummary | None = None) -> bool:
        """Writes what is left and what was missed, for at most `timeout` seconds; `final`: what the sweep came to.

        Returns whether MLflow holds everything now.
        """
        self._final = final
        self._tasks.put(None)
        self._thread.join(timeout)
        if lacks := self._thread.is_alive() or bool(self.missed):
            log.warning("MLflow lacks some of this sweep; `emm sync` writes it")
        return not lacks

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
        if self._monitor:
            self._monitor.finish()
        final = self._final or replace(self._summary, studies=list(self._studies.values()))
        if self._attempt(lambda view: view.sync(final, live=False)):
            self.missed = 0

    def _watch(self, view: "View") -> None:
        self._monitor = view.monitor()

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
                reason = ui.one_line(error, self._uri)
                log.warning("MLflow: %s", reason)
                if self._tell:
                    self._tell(f"note: MLflow: {reason}; the sweep goes on without it")
            return False
        self._failures = 0
        return True


class View:
    """Writes runs, in the calling thread; raises MlflowException, OSError, whatever goes wrong."""

    def __init__(self, space: SearchSpace, storage: Storage, destination: Destination) -> None:
        from mlflow import MlflowClient, entities

        self.space, self.storage, self.destination = space, storage, destination
        self.pictures = Pictures(storage, destination.images, destination.data)
        self.factors = {named.name: ui.texts(named.factors) for named in space.configurations}
        self.key, self.keys = ui.sweep_key(space, storage), read_keys(storage)
        self.client, self.entities = MlflowClient(destination.uri), entities
        self.experiment = self._experiment()
        self.runs = {run.data.tags["emm.key"]: run for run in self._find("emm.sweep", self.key)}  # as they are on the server
        self.steps: dict[str, set[int]] = {}  # of the curves that are logged, by key

    def _experiment(self) -> str:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens with runs, not with chats
        tags |= ui.views(self.space, self.key)
        found = self.client.get_experiment_by_name(ui.EXPERIMENT)
        if found is None:
            found = self.client.get_experiment(self.client.create_experiment(ui.EXPERIMENT, self.destination.artifacts))
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self.client.set_experiment_tag(found.experiment_id, name, value)
        return str(found.experiment_id)

    def sync(self, summary: SweepSummary, live: bool) -> None:
        """Everything that the storage holds. `live`: a driver is at work; without one, what is not finished is "killed".

        What MLflow refuses, and what can't be read, is left out and named at the end, by a UserError.
        """
        refused: list[str] = []
        for study in summary.studies:
            with self._apart(study.name, refused):
                self.study_updated(study, live)
            for record in (*study.results, *study.running):
                with self._apart(f"{record.spec.name} N={record.spec.n} seed={record.spec.seed}", refused):
                    self._sync_trial(record, study, live)
        with self._apart(summary.name, refused):
            self._sync_sweep(summary, live)
        if refused:
            more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
            raise UserError(f"MLflow lacks {'; '.join(refused[:MAX_NAMED])}{more}; all the rest is written")

    @contextmanager
    def _apart(self, name: str, refused: list[str]) -> Iterator[None]:
        """What fails in the block costs only itself, while MLflow answers; else its error is raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  MLflow's refusals, damaged files, figures that can't be drawn
            self.client.get_experiment(self.experiment)
            reason = ui.one_line(error, self.destination.uri)
            log.warning("MLflow: %s: %s", visible(name), reason)
            refused.append(f"{cut(name, 100)} ({reason})")

    def _sync_trial(self, record: TrialRecord, study: StudySummary, live: bool) -> None:
        if not isinstance(record, Result):
            self.trial_status(record, "RUNNING" if live else "KILLED")
            return
        self.trial_finished(record)
        if final := study.finals.get(record.training_key):
            self._log(self._trial(record), ui.final_numbers(final))

    def _sync_sweep(self, summary: SweepSummary, live: bool) -> None:
        unfinished = "RUNNING" if live else "KILLED"
        key, decided = self._sweep(), sum(study.verdict.state != "searching" for study in summary.studies)
        images_trained = sum(study.images_trained for study in summary.studies)
        self._log(key, {"studies": len(summary.studies), "studies_decided": decided, "images_trained": images_trained})
        self._status(key, "FINISHED" if decided == len(summary.studies) else unfinished)
        if not live:
            self._draw(key, summary.as_json(), overview_figures(summary), ui.sweep_note(self.space))

    def study_updated(self, study: StudySummary, live: bool) -> None:
        key, verdict = self._study(study.name), study.verdict
        tags = {"emm.verdict": verdict.state, "emm.reason": verdict.reason, "emm.target": str(study.options.target)}
        self._log(key, ui.study_numbers(study), tags=tags, step=verdict.n_trials)
        self._status(key, "FINISHED" if verdict.state != "searching" else "RUNNING" if live else "KILLED")
        if study.complete and (verdict.state != "searching" or not live):
            self._draw(key, study.as_json(), study_figures(study, self.space.search), ui.study_note(study))

    def _draw(self, key: str, content: Mapping[str, Any], figures: Figures, note: str) -> None:
        """Figures of a run and, with them, its description; they are made again only if their `content` is another."""
        fingerprint, run = key_of(content), self.runs[key]
        if run.data.tags.get("emm.figures") == fingerprint:
            return
        made = {name: draw() for name, draw in figures.items()}
        files = {f"figures/{name}.png": as_png(figure) for name, figure in made.items()}
        self._log_files(run.info.run_id, files | {f"figures/{name}.pdf": as_pdf(figure) for name, figure in made.items()})
        shown = "\n\n".join(ui.picture(run.info.run_id, path) for path in files)
        self._log(key, tags={NOTE: f"{note}\n\n{shown}", "emm.figures": fingerprint})

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in files.items():
                path = Path(directory) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(run_id, directory)

    def monitor(self) -> Any:
        """Starts to watch the node that this runs on (CPU, memory, disk, network; GPUs if NVML is there), once a minute.

        Its `finish` ends that. Other nodes are not watched.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        run_id, uri = self.runs[self._sweep()].info.run_id, self.destination.uri
        monitor = SystemMetricsMonitor(run_id, samples_before_logging=6, resume_logging=True, tracking_uri=uri)
        monitor.start()
        return monitor

    def trial_status(self, record: TrialRecord, status: str) -> None:
        key = self._trial(record)
        if not self._is_written(key, record.measurement_key):
            self._status(key, status)

    def trial_curve(self, record: TrialRecord, curve: Sequence[Snapshot], begin: float | None = None) -> None:
        """Adds the snapshots that are missing. `begin`: when the trial would have begun had it never been interrupted, in
        seconds since the epoch; None: the snapshots are of this moment."""
        key = self._trial(record)
        run_id = self.runs[key].info.run_id
        if key not in self.steps:
            self.steps[key] = {metric.step for metric in self.client.get_metric_history(run_id, "r_mem_snapshot")}
        points = []
        for one in curve:
            if one.images_trained not in self.steps[key]:
                self.steps[key].add(one.images_trained)
                at = round(1000 * (time.time() if begin is None else begin + one.seconds))
                points += [
                    self.entities.Metric(name, value, at, one.images_trained)
                    for name, value in ui.curve_numbers(one, record).items()
                ]
        for start in range(0, len(points), 1000):  # MLflow takes no more at once
            self.client.log_batch(run_id, metrics=points[start : start + 1000])

    def trial_finished(self, result: Result) -> None:
        end = datetime.fromisoformat(result.finished_at).timestamp() if result.finished_at else time.time()
        key = self._trial(result, begin=end - result.seconds)
        written = result.measurement_key if result.complete else f"failure of {result.finished_at}"  # it may be tried again
        if self._is_written(key, written):
            return
        self._log(key, ui.result_numbers(result), at=end)
        self.trial_curve(result, result.curve, end - result.seconds)
        if result.complete:
            self._log_measurement(self.runs[key].info.run_id, result)
        tags = {f"emm.{name}": value for name, value in result.hardware.items() if name in HARDWARE}
        if result.cause is not None or "emm.cause" in self.runs[key].data.tags:
            tags["emm.cause"] = result.cause or ""
        self._log(key, tags={**tags, "emm.written": written})  # the last thing but the status
        self._status(key, "FINISHED" if result.complete else "FAILED", at=end)

    def _is_written(self, key: str, written: str) -> bool:
        run = self.runs[key]
        return run.data.tags.get("emm.written") == written and run.info.status in ("FINISHED", "FAILED")

    def _log_measurement(self, run_id: str, result: Result) -> None:
        """Distances and neighbours (positions in the whole data set) of every sample, and the pictures that are allowed."""
        if (found := measured(self.storage, result)) is None:
            return
        files = {"distances.csv": ui.distances_table(found.found, found.memorized).encode()}
        if (gallery := self.pictures.of(result, found)) is not None:
            files["samples.png"] = as_png(gallery_figure(gallery), DPI)
            self.client.set_tag(run_id, NOTE, ui.gallery_note(run_id, gallery.training is not None))
        self._log_files(run_id, files)

    def _sweep(self) -> str:
        tags = {"emm.space": self.space.name, "emm.storage": self.storage.shown, NOTE: ui.sweep_note(self.space)}
        return self._open(self.key, "sweep", self.space.name, tags)

    def _study(self, name: str) -> str:
        # the run of the configuration, under whatever name it was made; parameters then keep the name of that time
        names = [name, *(other for other, key in self.keys.items() if key == self.keys.get(name))]
        candidates = [key_of({"sweep": self.key, "study": other}) for other in names]
        key = next((key for key in candidates if key in self.runs), candidates[0])
        self._open(key, "study", name, {"emm.study": name}, self._sweep())
        tags = {"emm.study": name, "mlflow.runName": name}
        self._log(key, params={"configuration": name, **self.factors[name]}, tags=tags)
        return key

    def _trial(self, record: TrialRecord, begin: float | None = None) -> str:
        spec = record.spec
        tags = {"emm.study": spec.name, "emm.training_key": record.training_key}
        key = key_of({"sweep": self.key, "trial": record.training_key})
        end = f" N={spec.n} seed={spec.seed}"
        name = f"{cut(spec.name, MAX_NAME - len(end))}{end}"
        self._open(key, "trial", name, tags, self._study(spec.name), begin)
        self._log(key, params={**self.factors[spec.name], **ui.parameters(record)}, tags={**tags, "mlflow.runName": name})
        if not (inputs := self.runs[key].inputs) or not inputs.dataset_inputs:
            self.client.log_inputs(self.runs[key].info.run_id, [ui.data_set(record)])
            self._reread(key)
        return key

    def _open(
        self, key: str, level: str, name: str, tags: Mapping[str, str], parent: str | None = None, begin: float | None = None
    ) -> str:
        if key not in self.runs:
            tags = {"emm.level": level, "emm.key": key, "emm.sweep": self.key, **_cut(tags, MAX_TAG)}
            if parent:
                tags["mlflow.parentRunId"] = self.runs[parent].info.run_id
            found = self._find("emm.key", key)  # another process may have made it meanwhile
            start = round(1000 * (begin or time.time()))
            shown = cut(visible(name), MAX_NAME)
            self.runs[key] = found[0] if found else self.client.create_run(self.experiment, start, tags, shown)
        return key

    def _find(self, tag: str, value: str) -> "list[Run]":
        return list(self.client.search_runs([self.experiment], f"tags.`{tag}` = '{value}'", max_results=50_000))

    def _log(
        self,
        key: str,
        metrics: Mapping[str, float | None] = NOTHING,
        params: Mapping[str, str] = NOTHING,
        tags: Mapping[str, str] = NOTHING,
        step: int = 0,
        at: float | None = None,
    ) -> None:
        """Writes what differs from what the run holds. A metric that is None now and was a number becomes NaN; parameters
        can't be changed once they are written. All texts are made such that MLflow takes them; a parameter's own name, if it
        does not, stands in a tag."""
        keys = {name: mlflow_key(name) for name in params}
        if renamed := {key: name for name, key in keys.items() if key != name}:
            tags = {**tags, "emm.renamed": json.dumps(renamed, ensure_ascii=False)}
        params = _cut({keys[name]: value for name, value in params.items()}, MAX_PARAM)
        tags = _cut(tags, MAX_TAG)
        run, now = self.runs[key], round(1000 * (at or time.time()))
        old = run.data.metrics
        numbers = {name: math.nan if value is None else value for name, value in metrics.items()}
        # as text NaN equals NaN, and 1 is 1.0
        changed = {name: value for name, value in numbers.items() if str(float(value)) != str(old.get(name, math.nan))}
        new_params = [self.entities.Param(*one) for one in params.items() if one[0] not in run.data.params]
        new_tags = {name: value for name, value in tags.items() if run.data.tags.get(name) != value}
        if changed or new_params or new_tags:
            for start in range(0, len(new_params), MAX_BATCH):
                self.client.log_batch(run.info.run_id, params=new_params[start : start + MAX_BATCH])
            self.client.log_batch(
                run.info.run_id,
                [self.entities.Metric(name, value, now, step) for name, value in changed.items()],
                tags=[self.entities.RunTag(name, value) for name, value in new_tags.items()],
            )
            self._reread(key)

    def _status(self, key: str, status: str, at: float | None = None) -> None:
        run = self.runs[key]
        if run.info.status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status)
        else:
            self.client.set_terminated(run.info.run_id, status, round(1000 * (at or time.time())))
        self._reread(key)

    def _reread(self, key: str) -> None:
        self.runs[key] = self.client.get_run(self.runs[key].info.run_id)


def _cut(texts: Mapping[str, str], most: int) -> dict[str, str]:
    """As MLflow takes values: none longer than `most` characters, and none that its database can't hold."""
    return {name: cut(visible(text), most) for name, text in texts.items()}

"""MLflow's view of a sweep: one experiment, and in it sweep run → study runs → trial runs.

Only the driver and `emm sync` write it, from reports and from the files of finished trials; trials
know nothing of it. A run is found by its tag `emm.key` before it is created, and only what differs
is written, so that everything may be written again: after a restart, after an error, into an empty
database. `View` writes and raises; `Tracker` writes in a thread, best effort.
"""

import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.space import SearchSpace
from sweep.analysis.study import StudySummary
from sweep.analysis.summary import SweepSummary
from sweep.report.figures import Figures, overview_figures, study_figures
from sweep.report.gallery import Pictures, gallery_figure, measured
from sweep.report.style import as_pdf, as_png
from sweep.store.files import read_keys
from sweep.tracking.charts import views
from sweep.tracking.content import (
    curve_numbers,
    data_set,
    distances_table,
    final_numbers,
    gallery_note,
    parameters,
    picture,
    result_numbers,
    study_note,
    study_numbers,
    sweep_note,
    texts,
)
from sweep.tracking.escapes import mlflow_key
from sweep.tracking.place import EXPERIMENT, one_line, prepare_environment, sweep_key
from trainables.config.identity import key_of
from trainables.errors import UserError
from trainables.storage import Storage, redacted
from trainables.text import cut, visible
from trainables.trial.result import Result, Snapshot, TrialRecord

if TYPE_CHECKING:  # importing mlflow takes seconds: only the thread that writes does it
    from mlflow.entities import Run
from sweep.tracking.place import Destination

log = logging.getLogger(__name__)

NOTE = "mlflow.note.content"  # the description on the page of a run, in Markdown

DPI = 120  # of the gallery: a wider one would push MLflow's columns aside

# characters of the name of a run, of values of parameters and tags; entries of a batch
MAX_NAME, MAX_PARAM, MAX_TAG, MAX_BATCH = 250, 6000, 8000, 100

MAX_NAMED = 5  # of what MLflow has refused

HARDWARE = ("device", "name", "threads", "host")  # tags of a trial: what it ran on

NOTHING: Mapping[str, Any] = {}


def sync(
    summary: SweepSummary, storage: Storage, destination: Destination, live: bool = False
) -> None:
    """Makes MLflow agree with the results; doing it again changes nothing. `live`: whether a driver
    is at work meanwhile.

    Raises UserError if MLflow can't be reached, or, when all the rest is written, if it has refused
    some of it.
    """
    prepare_environment()
    from mlflow.exceptions import MlflowException

    try:
        View(summary.space, storage, destination).sync(summary, live)
    except MlflowException as error:
        uri = destination.uri
        raise UserError(f"MLflow at {redacted(uri)}: {one_line(error, uri)}") from error


class View:
    """Writes runs, in the calling thread; raises MlflowException, OSError, whatever goes wrong."""

    def __init__(self, space: SearchSpace, storage: Storage, destination: Destination) -> None:
        from mlflow import MlflowClient, entities

        self.space, self.storage, self.destination = space, storage, destination
        self.pictures = Pictures(storage, destination.images, destination.data)
        self.factors = {named.name: texts(named.factors) for named in space.configurations}
        self.key, self.keys = sweep_key(space, storage), read_keys(storage)
        self.client, self.entities = MlflowClient(destination.uri), entities
        self.experiment = self._experiment()
        self.runs = {
            run.data.tags["emm.key"]: run for run in self._find("emm.sweep", self.key)
        }  # as they are on the server
        self.steps: dict[str, set[int]] = {}  # of the curves that are logged, by key

    def _experiment(self) -> str:
        tags = {
            "mlflow.experimentKind": "custom_model_development"
        }  # the UI opens with runs, not with chats
        tags |= views(self.space, self.key)
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            found = self.client.get_experiment(
                self.client.create_experiment(EXPERIMENT, self.destination.artifacts)
            )
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self.client.set_experiment_tag(found.experiment_id, name, value)
        return str(found.experiment_id)

    def sync(self, summary: SweepSummary, live: bool) -> None:
        """Everything that the storage holds. `live`: a driver is at work; without one, what is not
        finished is "killed".

        What MLflow refuses, and what can't be read, is left out and named at the end, by a
        UserError.
        """
        refused: list[str] = []
        for study in summary.studies:
            with self._apart(study.name, refused):
                self.study_updated(study, live)
            for record in (*study.results, *study.running):
                with self._apart(
                    f"{record.spec.name} N={record.spec.n} seed={record.spec.seed}", refused
                ):
                    self._sync_trial(record, study, live)
        with self._apart(summary.name, refused):
            self._sync_sweep(summary, live)
        if refused:
            more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
            raise UserError(
                f"MLflow lacks {'; '.join(refused[:MAX_NAMED])}{more}; all the rest is written"
            )

    @contextmanager
    def _apart(self, name: str, refused: list[str]) -> Iterator[None]:
        """What fails in the block costs only itself, while MLflow answers; else its error is
        raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  MLflow's refusals, damaged files, figures that can't be drawn
            self.client.get_experiment(self.experiment)
            reason = one_line(error, self.destination.uri)
            log.warning("MLflow: %s: %s", visible(name), reason)
            refused.append(f"{cut(name, 100)} ({reason})")

    def _sync_trial(self, record: TrialRecord, study: StudySummary, live: bool) -> None:
        if not isinstance(record, Result):
            self.trial_status(record, "RUNNING" if live else "KILLED")
            return
        self.trial_finished(record)
        if final := study.finals.get(record.training_key):
            self._log(self._trial(record), final_numbers(final))

    def _sync_sweep(self, summary: SweepSummary, live: bool) -> None:
        unfinished = "RUNNING" if live else "KILLED"
        key, decided = (
            self._sweep(),
            sum(study.verdict.state != "searching" for study in summary.studies),
        )
        images_trained = sum(study.images_trained for study in summary.studies)
        self._log(
            key,
            {
                "studies": len(summary.studies),
                "studies_decided": decided,
                "images_trained": images_trained,
            },
        )
        self._status(key, "FINISHED" if decided == len(summary.studies) else unfinished)
        if not live:
            self._draw(key, summary.as_json(), overview_figures(summary), sweep_note(self.space))

    def study_updated(self, study: StudySummary, live: bool) -> None:
        key, verdict = self._study(study.name), study.verdict
        tags = {
            "emm.verdict": verdict.state,
            "emm.reason": verdict.reason,
            "emm.target": str(study.options.target),
        }
        self._log(key, study_numbers(study), tags=tags, step=verdict.n_trials)
        self._status(
            key, "FINISHED" if verdict.state != "searching" else "RUNNING" if live else "KILLED"
        )
        if study.complete and (verdict.state != "searching" or not live):
            self._draw(
                key, study.as_json(), study_figures(study, self.space.search), study_note(study)
            )

    def _draw(self, key: str, content: Mapping[str, Any], figures: Figures, note: str) -> None:
        """Figures of a run and, with them, its description; they are made again only if their
        `content` is another."""
        fingerprint, run = key_of(content), self.runs[key]
        if run.data.tags.get("emm.figures") == fingerprint:
            return
        made = {name: draw() for name, draw in figures.items()}
        files = {f"figures/{name}.png": as_png(figure) for name, figure in made.items()}
        self._log_files(
            run.info.run_id,
            files | {f"figures/{name}.pdf": as_pdf(figure) for name, figure in made.items()},
        )
        shown = "\n\n".join(picture(run.info.run_id, path) for path in files)
        self._log(key, tags={NOTE: f"{note}\n\n{shown}", "emm.figures": fingerprint})

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for name, content in files.items():
                path = Path(directory) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(run_id, directory)

    def monitor(self) -> Any:
        """Starts to watch the node that this runs on (CPU, memory, disk, network; GPUs if NVML is
        there), once a minute.

        Its `finish` ends that. Other nodes are not watched.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        run_id, uri = self.runs[self._sweep()].info.run_id, self.destination.uri
        monitor = SystemMetricsMonitor(
            run_id, samples_before_logging=6, resume_logging=True, tracking_uri=uri
        )
        monitor.start()
        return monitor

    def trial_status(self, record: TrialRecord, status: str) -> None:
        key = self._trial(record)
        if not self._is_written(key, record.measurement_key):
            self._status(key, status)

    def trial_curve(
        self, record: TrialRecord, curve: Sequence[Snapshot], begin: float | None = None
    ) -> None:
        """Adds the snapshots that are missing. `begin`: when the trial would have begun had it
        never been interrupted, in seconds since the epoch; None: the snapshots are of this
        moment."""
        key = self._trial(record)
        run_id = self.runs[key].info.run_id
        if key not in self.steps:
            self.steps[key] = {
                metric.step for metric in self.client.get_metric_history(run_id, "r_mem_snapshot")
            }
        points = []
        for one in curve:
            if one.images_trained not in self.steps[key]:
                self.steps[key].add(one.images_trained)
                at = round(1000 * (time.time() if begin is None else begin + one.seconds))
                points += [
                    self.entities.Metric(name, value, at, one.images_trained)
                    for name, value in curve_numbers(one, record).items()
                ]
        for start in range(0, len(points), 1000):  # MLflow takes no more at once
            self.client.log_batch(run_id, metrics=points[start : start + 1000])

    def trial_finished(self, result: Result) -> None:
        end = (
            datetime.fromisoformat(result.finished_at).timestamp()
            if result.finished_at
            else time.time()
        )
        key = self._trial(result, begin=end - result.seconds)
        written = (
            result.measurement_key if result.complete else f"failure of {result.finished_at}"
        )  # it may be tried again
        if self._is_written(key, written):
            return
        self._log(key, result_numbers(result), at=end)
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
        return run.data.tags.get("emm.written") == written and run.info.status in (
            "FINISHED",
            "FAILED",
        )

    def _log_measurement(self, run_id: str, result: Result) -> None:
        """Distances and neighbours (positions in the whole data set) of every sample, and the
        pictures that are allowed."""
        if (found := measured(self.storage, result)) is None:
            return
        files = {"distances.csv": distances_table(found.found, found.memorized).encode()}
        if (gallery := self.pictures.of(result, found)) is not None:
            files["samples.png"] = as_png(gallery_figure(gallery), DPI)
            self.client.set_tag(run_id, NOTE, gallery_note(run_id, gallery.training is not None))
        self._log_files(run_id, files)

    def _sweep(self) -> str:
        tags = {
            "emm.space": self.space.name,
            "emm.storage": self.storage.shown,
            NOTE: sweep_note(self.space),
        }
        return self._open(self.key, "sweep", self.space.name, tags)

    def _study(self, name: str) -> str:
        # the run of the configuration, under whatever name it was made; parameters then keep the
        # name of that time
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
        self._log(
            key,
            params={**self.factors[spec.name], **parameters(record)},
            tags={**tags, "mlflow.runName": name},
        )
        if not (inputs := self.runs[key].inputs) or not inputs.dataset_inputs:
            self.client.log_inputs(self.runs[key].info.run_id, [data_set(record)])
            self._reread(key)
        return key

    def _open(
        self,
        key: str,
        level: str,
        name: str,
        tags: Mapping[str, str],
        parent: str | None = None,
        begin: float | None = None,
    ) -> str:
        if key not in self.runs:
            tags = {
                "emm.level": level,
                "emm.key": key,
                "emm.sweep": self.key,
                **_cut(tags, MAX_TAG),
            }
            if parent:
                tags["mlflow.parentRunId"] = self.runs[parent].info.run_id
            found = self._find("emm.key", key)  # another process may have made it meanwhile
            start = round(1000 * (begin or time.time()))
            shown = cut(visible(name), MAX_NAME)
            self.runs[key] = (
                found[0] if found else self.client.create_run(self.experiment, start, tags, shown)
            )
        return key

    def _find(self, tag: str, value: str) -> "list[Run]":
        return list(
            self.client.search_runs(
                [self.experiment], f"tags.`{tag}` = '{value}'", max_results=50_000
            )
        )

    def _log(
        self,
        key: str,
        metrics: Mapping[str, float | None] = NOTHING,
        params: Mapping[str, str] = NOTHING,
        tags: Mapping[str, str] = NOTHING,
        step: int = 0,
        at: float | None = None,
    ) -> None:
        """Writes what differs from what the run holds. A metric that is None now and was a number
        becomes NaN; parameters can't be changed once they are written. All texts are made such that
        MLflow takes them; a parameter's own name, if it does not, stands in a tag."""
        keys = {name: mlflow_key(name) for name in params}
        if renamed := {key: name for name, key in keys.items() if key != name}:
            tags = {**tags, "emm.renamed": json.dumps(renamed, ensure_ascii=False)}
        params = _cut({keys[name]: value for name, value in params.items()}, MAX_PARAM)
        tags = _cut(tags, MAX_TAG)
        run, now = self.runs[key], round(1000 * (at or time.time()))
        old = run.data.metrics
        numbers = {name: math.nan if value is None else value for name, value in metrics.items()}
        # as text NaN equals NaN, and 1 is 1.0
        changed = {
            name: value
            for name, value in numbers.items()
            if str(float(value)) != str(old.get(name, math.nan))
        }
        new_params = [
            self.entities.Param(*one) for one in params.items() if one[0] not in run.data.params
        ]
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
    """As MLflow takes values: none longer than `most` characters, and none that its database can't
    hold."""
    return {name: cut(visible(text), most) for name, text in texts.items()}

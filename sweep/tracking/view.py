"""Writes pages into MLflow: one experiment, and in it a tree of runs.

A run is found by its tag `emm.key` before it is created, and only what differs is written, so that
everything may be written again: after a restart, after an error, into an empty database. `View`
writes and raises, in the calling thread.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sweep.tracking.database import make_whole
from sweep.tracking.escapes import mlflow_key
from sweep.tracking.page import (
    KEY,
    MAX_NAME,
    NOTE,
    RUN_NAME,
    Attachment,
    DataSource,
    Head,
    Mark,
    Numbers,
    Page,
    Point,
    Status,
    Texts,
)
from sweep.tracking.place import EXPERIMENT, Destination
from trainables.text import cut, visible

if TYPE_CHECKING:  # importing mlflow takes seconds: only the thread that writes does it
    from mlflow.entities import Metric, Run

# characters of values of parameters and tags; parameters, tags, and metrics, of a batch, which
# together may be 1,000
MAX_PARAM, MAX_TAG, MAX_BATCH, MAX_METRICS = 6000, 8000, 100, 800

OWN_NOTE = "emm.note"  # tag of an experiment: the description that we wrote

NOTHING: Mapping[str, Any] = {}


@dataclass
class Held:
    """What a run on the server holds: read once, and from then on what was written too."""

    id: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    has_data: bool

    @classmethod
    def of(cls, run: "Run") -> "Held":
        data, has_data = run.data, bool(run.inputs and run.inputs.dataset_inputs)
        params, tags, metrics = dict(data.params), dict(data.tags), dict(data.metrics)
        return cls(run.info.run_id, run.info.status, params, tags, metrics, has_data)


class View:
    """The runs of one group in MLflow. Raises MlflowException, OSError, whatever goes wrong.

    `group`: a tag, and its value, that all of them have. `tags`: of the experiment.
    """

    def __init__(self, destination: Destination, group: tuple[str, str], tags: Texts) -> None:
        from mlflow import MlflowClient, entities

        make_whole(destination.uri)
        self.client, self.entities = MlflowClient(destination.uri), entities
        self.uri = destination.uri
        self.experiment = self._experiment(tags, destination.artifacts)
        self.runs = {run.tags[KEY]: run for run in self._find(*group)}  # by key
        self.steps: dict[str, set[int]] = {}  # of the curves that are logged, by key

    def _experiment(self, tags: Texts, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            made = self.client.create_experiment(EXPERIMENT, artifacts)
            found = self.client.get_experiment(made)
        for name, value in tags.items():
            if found.tags.get(name) != value:
                self.client.set_experiment_tag(found.experiment_id, name, value)
        return str(found.experiment_id)

    def describe(self, note: str, key: str) -> None:
        """Writes Markdown at the top of the experiment's pages, with the figure `figures/emm.png` of
        the run `key`; what somebody else has written there stays."""
        found = self.client.get_experiment(self.experiment).tags
        if found.get(NOTE, "") != found.get(OWN_NOTE, ""):
            return
        text = f"{note}\n\n{_picture(self.runs[key].id, 'figures/emm.png')}"
        for tag in (OWN_NOTE, NOTE):
            if found.get(tag) != text:
                self.client.set_experiment_tag(self.experiment, tag, text)

    def check_alive(self) -> None:
        """Raises what MLflow's client raises if the server does not answer."""
        self.client.get_experiment(self.experiment)

    def put(self, page: Page) -> None:
        key = self._there(page.head)
        is_written = page.mark is not None and self._has(key, page.mark)
        self._write_numbers(key, Page(page.head) if is_written else page)
        if is_written:
            return
        attachment = page.attachment() if page.attachment is not None else None
        tags = {} if attachment is None else self._attach(key, attachment)
        there = self.runs[key].tags
        last = {name: value or "" for name, value in page.last.items() if value or name in there}
        self._write(key, tags={**tags, **last})
        if page.status is not None:
            self._set_status(key, page.status, page.ended or page.at)

    def lacks(self, page: Page) -> bool:
        """Whether `put` would write what a page is marked for; nothing is asked."""
        key = next((key for key in page.head.keys if key in self.runs), None)
        return key is None or page.mark is None or not self._has(key, page.mark)

    def _has(self, key: str, mark: Mark) -> bool:
        run = self.runs[key]
        is_ended = mark.ended is None or run.status in mark.ended
        return is_ended and run.tags.get(mark.tag) == mark.value

    def opened(self, head: Head) -> str:
        """The key of a run that is there, as are those above it, and that says what its head
        says."""
        key = self._there(head)
        self._write_numbers(key, Page(head))
        return key

    def _there(self, head: Head) -> str:
        """The key of a run that is there; those above it say what their heads say."""
        parent = None if head.parent is None else self.opened(head.parent)
        key = next((key for key in head.keys if key in self.runs), head.keys[0])
        if key not in self.runs:
            self.runs[key] = self._found_or_created(key, head, parent)
        return key

    def _write_numbers(self, key: str, page: Page) -> None:
        """What the head of a page says, its metrics, tags and curve: at once, since every call is
        several writes to a disk."""
        head, run, entities = page.head, self.runs[key], self.entities
        points = [
            entities.Metric(name, value, _milliseconds(point.at), point.step)
            for point in self._new_points(key, page.curve)
            for name, value in point.metrics.items()
        ]
        tags = {**head.tags, **page.tags}
        self._write(key, page.metrics, head.params, tags, points, page.step, page.at)
        if head.data is not None and not run.has_data:
            self.client.log_inputs(run.id, [self._data_input(head.data)])
            run.has_data = True

    def _found_or_created(self, key: str, head: Head, parent: str | None) -> "Held":
        found = self._find(KEY, key)
        if found:  # another process may have made it meanwhile
            return found[0]
        # the tag of its name comes from the name, which may be shorter
        saying = {name: text for name, text in head.tags.items() if name != RUN_NAME}
        tags = _cut({**head.opening, **saying}, MAX_TAG)
        if parent is not None:
            tags["mlflow.parentRunId"] = self.runs[parent].id
        name = cut(visible(head.name), MAX_NAME)
        began = _milliseconds(head.began)
        made = Held.of(self.client.create_run(self.experiment, began, tags, name))
        self.steps[key] = set()
        return made

    def _find(self, tag: str, value: str) -> "list[Held]":
        query = f"tags.`{tag}` = '{value}'"
        found = self.client.search_runs([self.experiment], query, max_results=50_000)
        return [Held.of(run) for run in found]

    def _data_input(self, data: DataSource) -> Any:
        entry = self.entities.Dataset(
            data.name, data.digest, "emm", data.source, profile=data.profile
        )
        tag = self.entities.InputTag("mlflow.data.context", data.context)
        return self.entities.DatasetInput(entry, [tag])

    def _new_points(self, key: str, points: Sequence[Point]) -> Iterator[Point]:
        """Those whose step the run lacks."""
        if points and key not in self.steps:
            metric = next(iter(points[0].metrics))  # all points have it
            history = self.client.get_metric_history(self.runs[key].id, metric)
            self.steps[key] = {point.step for point in history}
        for point in points:
            if point.step not in self.steps[key]:
                self.steps[key].add(point.step)
                yield point

    def _attach(self, key: str, attachment: Attachment) -> dict[str, str]:
        """Writes the files; returns tags to be written after them."""
        run_id = self.runs[key].id
        with tempfile.TemporaryDirectory() as directory:
            for name, content in attachment.files.items():
                path = Path(directory) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            self.client.log_artifacts(run_id, directory)
        if attachment.note is None:
            return {}
        pictures = [_picture(run_id, path) for path in attachment.files if path.endswith(".png")]
        return {NOTE: "\n\n".join([attachment.note, *pictures])}

    def monitor(self, head: Head) -> Any:
        """Starts to watch the node that this runs on (CPU, memory, disk, network; GPUs if NVML is
        there), once a minute.

        Its `finish` ends that. Other nodes are not watched.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(
            self.runs[self.opened(head)].id,
            samples_before_logging=6,
            resume_logging=True,
            tracking_uri=self.uri,
        )
        monitor.start()
        return monitor

    def _write(
        self,
        key: str,
        metrics: Numbers = NOTHING,
        params: Texts = NOTHING,
        tags: Texts = NOTHING,
        points: "Sequence[Metric]" = (),
        step: int = 0,
        at: float | None = None,
    ) -> None:
        """Writes `points`, and of the rest what differs from what the run holds. A metric that is
        None now and was a number becomes NaN; parameters can't be changed once they are written. All
        texts are made such that MLflow takes them; a parameter's own name, if it does not, stands in
        a tag."""
        keys = {name: mlflow_key(name) for name in params}
        renamed = {key: name for name, key in keys.items() if key != name}
        if renamed:
            tags = {**tags, "emm.renamed": json.dumps(renamed, ensure_ascii=False)}
        params = _cut({keys[name]: value for name, value in params.items()}, MAX_PARAM)
        tags = _cut(tags, MAX_TAG)
        run, now, entities = self.runs[key], _milliseconds(at), self.entities
        params = {name: value for name, value in params.items() if name not in run.params}
        tags = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        numbers = {
            name: float(math.nan if value is None else value) for name, value in metrics.items()
        }
        # as text NaN equals NaN, and 1 is 1.0
        numbers = {
            name: value
            for name, value in numbers.items()
            if str(value) != str(run.metrics.get(name, math.nan))
        }
        new_params = [entities.Param(name, value) for name, value in params.items()]
        new_tags = [entities.RunTag(name, value) for name, value in tags.items()]
        new_numbers = [entities.Metric(name, value, now, step) for name, value in numbers.items()]
        new_numbers += points
        while new_params or new_tags or new_numbers:
            self.client.log_batch(
                run.id, new_numbers[:MAX_METRICS], new_params[:MAX_BATCH], new_tags[:MAX_BATCH]
            )
            del new_numbers[:MAX_METRICS], new_params[:MAX_BATCH], new_tags[:MAX_BATCH]
        run.params |= params
        run.tags |= tags
        run.metrics |= numbers

    def _set_status(self, key: str, status: Status, at: float | None) -> None:
        run = self.runs[key]
        if run.status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run.id, status)
        else:
            self.client.set_terminated(run.id, status, _milliseconds(at))
        run.status = status


def _milliseconds(at: float | None) -> int:
    """Since the epoch, as MLflow counts; None: now."""
    return round(1000 * (time.time() if at is None else at))


def _picture(run_id: str, path: str) -> str:
    """Markdown that shows an artifact of a run."""
    return f"![{path}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})"


def _cut(texts: Mapping[str, str], most: int) -> dict[str, str]:
    """As MLflow takes values: none longer than `most` characters, and none that its database can't
    hold."""
    return {name: cut(visible(text), most) for name, text in texts.items()}

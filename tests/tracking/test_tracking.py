"""MLflow as people and `emm sync` see it: real trials, a real database, a real server."""

import io
import json
import socket
import threading
import time
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from sweep.report.drawn import Drawing, ahead
from sweep.store.files import FINAL, SWEEP
from sweep.tracking.charts import MAX_VIEW, VIEW, views
from sweep.tracking.escapes import mlflow_key
from sweep.tracking.place import DATABASE, Destination
from sweep.tracking.sync import SweepView, sync
from sweep.tracking.tracker import Tracker
from tests.tracked import (
    DIGITS,
    SPACE,
    Sweep,
    artifacts,
    content,
    destination,
    history,
    new_sweep,
    runs,
    track,
    written,
)
from trainables.errors import UserError
from trainables.measure.r_mem import r_mem_interval
from trainables.trial.result import MEASUREMENT, RESULT, Result, trial_directory


@pytest.mark.parametrize("name", ["what?", "a%20b", "a#b"])
def test_a_local_mlflow_is_in_its_directory_whatever_that_is_called(
    tmp_path: Path, blank: Path, name: str
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / DATABASE).write_bytes(blank.read_bytes())
    sweep = new_sweep(directory)
    view = SweepView(SPACE, sweep.storage, destination(sweep))
    run = view.writer.runs[view.writer.opened(view.content.sweep_head())]
    view.writer.client.log_text(run.id, "text", "file.txt")
    assert [path.relative_to(directory).parts[0] for path in tmp_path.rglob("file.txt")] == [
        "artifacts"
    ]
    assert list(tmp_path.iterdir()) == [directory]


def test_a_renamed_configuration_keeps_its_run(empty: Sweep) -> None:
    """A factor was added to the sweep: one run of a study and one of a trial, under the names of
    today."""
    where, space = (
        destination(empty, "none"),
        SPACE.model_copy(update={"vary": {"network.width": (4,)}}),
    )
    result = empty.finished("width=4", 8, 0)
    keys = {"width=4": result.configuration_key}
    empty.storage.write_json(
        SWEEP, {"space": space.model_dump(mode="json"), "configurations": keys}
    )
    sync(empty.summary, empty.storage, where)
    before = {name: run.info.run_id for name, run in runs(where).items()}
    wider = space.model_copy(update={"vary": {"network.width": (4,), "network.depth": (1, 2)}})
    keys |= {"width=4,depth=1": result.configuration_key, "width=4,depth=2": "another"}
    empty.storage.write_json(
        SWEEP, {"space": wider.model_dump(mode="json"), "configurations": keys}
    )
    sync(empty.summary, empty.storage, where)
    found = runs(where)
    assert set(found) == {
        "tiny",
        "width=4,depth=1",
        "width=4,depth=1 N=8 seed=0",
        "width=4,depth=2",
    }
    assert found["width=4,depth=1"].info.run_id == before["width=4"]
    assert found["width=4,depth=1 N=8 seed=0"].info.run_id == before["width=4 N=8 seed=0"]
    assert found["width=4,depth=1"].data.params["depth"] == "1"
    assert found["width=4,depth=1 N=8 seed=0"].data.tags["emm.study"] == "width=4,depth=1"


def test_columns_and_axes_are_called_as_the_factors_are() -> None:
    space = SPACE.model_copy(
        update={"vary": {"network.kind": ("mlp",), "diffusion.kind": ("vp",), "a.b": {"x": {}}}}
    )
    texts = views(space, "key").values()
    for factor in space.configurations[0].factors:
        assert all(f"params.`{factor}`" in text for text in texts)
    assert all("params.`kind`" not in text and "params.`b`" not in text for text in texts)


def test_a_sweep_as_it_runs(empty: Sweep) -> None:
    where = destination(empty)
    tracker = track(empty, where)
    trial = empty.trial("width=4", 8, 0)
    tracker.trial_started(trial.files.record)
    while trial.result is None:
        report = trial.step()
        tracker.trial_progress(trial.files.record, report)
        tracker.trial_progress(trial.files.record, report)  # a snapshot may be told more than once
    for _ in range(2):  # a result may be told more than once, too
        tracker.trial_finished(trial.result)
    stopped = empty.trial("width=4", 16, 1)
    tracker.trial_started(stopped.files.record)
    assert tracker.close(40)
    assert tracker.missed == 0

    found, result = runs(where), trial.result
    sweep, study, run = found["tiny"], found["width=4"], found["width=4 N=8 seed=0"]
    levels = [one.data.tags["emm.level"] for one in (sweep, study, run)]
    assert levels == ["sweep", "study", "trial"]
    assert study.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert len(found) == 5  # one sweep, two studies, two trials

    assert run.info.status == "FINISHED"
    assert (
        found["width=4 N=16 seed=1"].info.status == sweep.info.status == "KILLED"
    )  # the sweep was not decided
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    given = {
        "r_mem": result.r_mem,
        "r_mem_low": low,
        "r_mem_high": high,
        "ceiling": 1.0,
        "n_samples": 30,
        "images_trained": 32,
    }
    assert {name: run.data.metrics[name] for name in given} == given
    assert [step for step, _ in history(where, run, "r_mem_snapshot")] == [16, 32]
    assert history(where, run, "loss") == [(one.images_trained, one.loss) for one in result.curve]
    params = {
        "configuration": "width=4",
        "n": "8",
        "seed": "0",
        "width": "4",
        "network.kind": "ddpmpp",
        "network.width": "4",
    }
    params |= {"measurement.n_samples": "30", "trainer.betas": "[0.9, 0.999]"}
    assert {name: run.data.params[name] for name in params} == params
    (entry,) = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("digits", DIGITS.digest[:32])
    assert DIGITS.digest in entry.dataset.source

    verdict = empty.summary.studies[0].verdict
    assert study.data.params == {"configuration": "width=4", "width": "4"}
    assert study.data.metrics["emm"] == pytest.approx(verdict.emm, rel=1e-4)
    assert study.data.metrics["images_trained"] == 32
    assert study.data.tags["emm.verdict"] == "searching"


def test_figures_and_descriptions_of_studies_and_sweep(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []  # figures that other processes may draw, of each sync

    def counted(drawings: Collection[Drawing]) -> AbstractContextManager[None]:
        asked.append(len(drawings))
        return ahead(drawings)

    monkeypatch.setattr("sweep.tracking.sync.ahead", counted)
    empty.finished("width=4", 8, 0)
    where = destination(empty)
    sync(empty.summary, empty.storage, where)
    found = runs(where)
    both = [f"figures/{name}.{kind}" for name in ("study", "training") for kind in ("pdf", "png")]
    assert sorted(artifacts(found["width=4"])) == both
    assert artifacts(found["width=8"]) == {}  # there is nothing to show
    assert set(artifacts(found["tiny"])) == {
        f"figures/{name}.{kind}" for name in ("emm", "cost") for kind in ("pdf", "png")
    }
    note = found["width=4"].data.tags["mlflow.note.content"]
    assert "**width=4**: searching, EMM " in note
    assert f"get-artifact?path=figures%2Fstudy.png&run_uuid={found['width=4'].info.run_id}" in note
    assert "Does it copy?" in found["tiny"].data.tags["mlflow.note.content"]
    drawn = {path: file.stat().st_mtime_ns for path, file in artifacts(found["width=4"]).items()}
    sync(empty.summary, empty.storage, where)
    assert {
        path: file.stat().st_mtime_ns for path, file in artifacts(runs(where)["width=4"]).items()
    } == drawn
    empty.finished("width=4", 16, 1)
    sync(empty.summary, empty.storage, where)
    assert all(
        file.stat().st_mtime_ns > drawn[path]
        for path, file in artifacts(runs(where)["width=4"]).items()
    )
    assert asked == [5, 0, 5], "those that MLflow lacks, and the gallery of the new trial"


def test_the_answer_stands_above_the_runs_and_what_somebody_wrote_stays(empty: Sweep) -> None:
    from mlflow import MlflowClient

    empty.finished("width=4", 8, 0)
    where = destination(empty)
    client, seen = MlflowClient(where.uri), []
    for mine in ("", "mine"):
        if mine:
            client.set_experiment_tag("1", "mlflow.note.content", mine)
            empty.finished("width=4", 16, 1)
        sync(empty.summary, empty.storage, where)
        seen.append(client.get_experiment("1").tags["mlflow.note.content"])
    run = runs(where)["tiny"].info.run_id
    line, figure = seen[0].split("\n\n")
    assert line.startswith("**width=4**: EMM ")
    assert " · **width=8**: " in line
    assert figure == f"![figures/emm.png](get-artifact?path=figures%2Femm.png&run_uuid={run})"
    assert seen[1] == "mine"


def test_the_drivers_node_is_watched_while_a_sweep_runs(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    where = destination(empty)
    for steps in (1, 2):  # a new driver goes on after the last step
        tracker = track(empty, where)
        time.sleep(2)
        assert tracker.close(40)
        recorded = [
            step
            for step, _ in history(where, runs(where)["tiny"], "system/cpu_utilization_percentage")
        ]
        assert recorded == list(range(len(recorded)))
        assert len(recorded) >= steps


def test_mlflow_begins_when_a_trial_trains(empty: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the cores are the trials' own, to start; and what is told meanwhile is not lost."""
    monkeypatch.setattr("sweep.tracking.tracker.BEGIN_SECONDS", 600.0)
    begun = threading.Event()
    monkeypatch.setattr("sweep.tracking.tracker.SweepView", lambda *_: begun.set() or SweepView(*_))
    where = destination(empty)
    tracker, record = track(empty, where), empty.trial("width=4", 8, 0).files.record
    tracker.trial_started(record)
    assert not begun.wait(0.5)
    tracker.trial_progress(record, {"state": "training", "progress": 0.1})
    assert begun.wait(60)
    assert tracker.close(60)
    assert "width=4 N=8 seed=0" in runs(where)


def test_distances_are_kept_with_positions_in_the_whole_data_set(empty: Sweep) -> None:
    result = empty.finished("width=4", 8, 3, optimum=True)
    where = destination(empty)
    sync(empty.summary, empty.storage, where)
    file = artifacts(runs(where)["width=4 N=8 seed=3"])["distances.csv"]
    table = np.genfromtxt(file, delimiter=",", names=True)
    kept = np.load(
        io.BytesIO(trial_directory(empty.storage, result.training_key).read(MEASUREMENT) or b"")
    )
    assert np.allclose(table["d1"], kept["d1"])
    assert table["memorized"].sum() == result.n_memorized == 30
    copied = DIGITS.images[table["i1"].astype(int)].astype(float)
    distance = np.sqrt(((copied - kept["images"]) ** 2).sum((1, 2, 3)))
    assert np.allclose(distance, table["d1"])


def test_sync_again_changes_nothing_and_an_empty_database_is_filled(
    empty: Sweep, blank: Path
) -> None:
    live = destination(empty)
    tracker = track(empty, live)
    tracker.trial_finished(empty.finished("width=4", 8, 0))
    failed = empty.trial("width=8", 8, 0).files.record
    result = Result(**dict(failed), complete=False, cause="out of memory")
    trial_directory(empty.storage, failed.training_key).write(
        RESULT, result.model_dump_json().encode()
    )
    tracker.trial_finished(result)
    tracker.close(40)
    before = content(live)
    assert before["width=8 N=8 seed=0"][0] == "FAILED"
    assert before["width=8 N=8 seed=0"][3]["emm.cause"] == "out of memory"

    for _ in range(2):
        sync(empty.summary, empty.storage, live)
        assert content(live) == before

    root = Path(empty.storage.root)
    (root / "new.db").write_bytes(blank.read_bytes())
    rebuilt = replace(live, uri=f"sqlite:///{root / 'new.db'}", artifacts=str(root / "new"))
    sync(empty.summary, empty.storage, rebuilt)
    assert content(rebuilt) == before


def test_what_is_made_up_for_has_the_time_at_which_it_was(empty: Sweep) -> None:
    from mlflow import MlflowClient

    result, *_ = written(empty)
    sync(empty.summary, empty.storage, where := destination(empty))
    run, end = (
        runs(where)["width=4 N=8 seed=0"],
        round(1000 * datetime.fromisoformat(result.finished_at).timestamp()),
    )
    begin = end - 1000 * result.seconds
    assert (run.info.start_time, run.info.end_time) == (begin, end)
    points = MlflowClient(where.uri).get_metric_history(run.info.run_id, "r_mem_snapshot")
    assert {p.step: p.timestamp for p in points} == {
        s.images_trained: begin + 1000 * s.seconds for s in result.curve
    }
    (point,) = MlflowClient(where.uri).get_metric_history(run.info.run_id, "r_mem")
    assert point.timestamp == end


def test_a_failed_trial_that_is_tried_again_keeps_its_run_and_loses_its_cause(empty: Sweep) -> None:
    where, record = destination(empty), empty.trial("width=4", 8, 0).files.record
    tracker = track(empty, where)
    tracker.trial_finished(Result(**dict(record), complete=False, cause="out of memory"))
    tracker.trial_started(record)
    tracker.close(40)
    assert content(where)["width=4 N=8 seed=0"][0] == "KILLED", (
        "it was going on when the driver ended"
    )
    result = empty.finished("width=4", 8, 0)
    sync(empty.summary, empty.storage, where)
    status, metrics, _, tags, *_ = content(where)["width=4 N=8 seed=0"]
    assert (status, metrics["r_mem"], tags["emm.cause"]) == ("FINISHED", result.r_mem, "")


def test_of_a_trial_that_failed_again_the_last_cause_is_told(empty: Sweep) -> None:
    """While MLflow was away it was tried again, so that no run says that it was going on."""
    where, record = destination(empty), empty.trial("width=4", 8, 0).files.record
    for hour, cause in ((8, "out of memory"), (9, "the loss is not finite")):
        at = f"2026-01-01T0{hour}:00:00+00:00"
        result = Result(**dict(record), complete=False, cause=cause, finished_at=at)
        trial_directory(empty.storage, record.training_key).write(
            RESULT, result.model_dump_json().encode()
        )
        sync(empty.summary, empty.storage, where)
        status, _, _, tags, *_ = content(where)["width=4 N=8 seed=0"]
        assert (status, tags["emm.cause"]) == ("FAILED", cause)


def test_a_new_driver_goes_on_in_the_same_runs(empty: Sweep) -> None:
    where = destination(empty)
    trial = empty.trial("width=4", 8, 0)
    first = track(empty, where)
    first.trial_started(trial.files.record)
    while not trial.curve:
        first.trial_progress(trial.files.record, trial.step())
    first.close(40)
    assert runs(where)["width=4 N=8 seed=0"].info.status == "KILLED"

    again = empty.trial("width=4", 8, 0)
    second = track(empty, where)
    second.trial_started(again.files.record)
    while again.result is None:
        second.trial_progress(again.files.record, again.step())
    second.trial_finished(again.result)
    second.close(40)
    run = runs(where)["width=4 N=8 seed=0"]
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(where, run, "loss")] == [16, 32]


def test_sync_ends_what_a_killed_driver_left_running(empty: Sweep) -> None:
    where, trial = destination(empty), empty.trial("width=4", 8, 0)
    view = SweepView(SPACE, empty.storage, where)
    for trial_of in (trial, empty.trial("width=4", 16, 1)):
        view.writer.put(view.content.trial_status(trial_of.files.record, "RUNNING"))
    empty.finished("width=4", 8, 0)
    sync(empty.summary, empty.storage, where, live=True)
    assert runs(where)["width=4 N=16 seed=1"].info.status == "RUNNING"
    sync(empty.summary, empty.storage, where)
    found = runs(where)
    assert (found["width=4 N=8 seed=0"].info.status, found["width=4 N=16 seed=1"].info.status) == (
        "FINISHED",
        "KILLED",
    )


def test_a_number_that_no_longer_holds_is_withdrawn(empty: Sweep) -> None:
    empty.finished("width=4", 8, 0)
    where, summary = destination(empty), empty.summary
    sync(summary, empty.storage, where)
    assert runs(where)["width=4"].data.metrics["emm"] > 0
    study = replace(
        summary.studies[0],
        verdict=replace(summary.studies[0].verdict, state="above_range", emm=None, emm_high=None),
    )
    sync(replace(summary, studies=[study]), empty.storage, where)
    run = runs(where)["width=4"]
    assert np.isnan(run.data.metrics["emm"])
    assert run.data.tags["emm.verdict"] == "above_range"
    assert run.info.status == "FINISHED"


def test_a_dead_server_costs_the_driver_nothing(
    empty: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    result = empty.finished("width=4", 8, 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and nobody listens
        where = Destination(f"http://127.0.0.1:{unused.getsockname()[1]}")
        verdict = empty.summary.studies[0].verdict
        tracker = Tracker(empty.summary, lambda name: verdict, empty.storage, where)
        begin = time.monotonic()
        for _ in range(200):
            tracker.trial_started(result)
            tracker.trial_progress(result, {"snapshot": result.curve[0].model_dump()})
            tracker.trial_stopped(result)
        assert time.monotonic() - begin < 2
        begin = time.monotonic()
        assert not tracker.close(3)
        assert time.monotonic() - begin < 4
        with pytest.raises(UserError, match="MLflow at http"):
            sync(empty.summary, empty.storage, where)
    assert sum("MLflow: " in record.message for record in caplog.records) <= 1
    assert any("emm sync" in record.message for record in caplog.records)


def test_after_three_failures_in_a_row_nothing_is_tried_for_a_while(empty: Sweep) -> None:
    def fail(view: SweepView) -> None:
        raise OSError("away")

    tracker = track(empty, destination(empty))
    assert tracker.close(40)
    for task in (fail, fail, lambda view: None, fail, fail):
        tracker._attempt(task)
    assert tracker._paused_until < time.monotonic(), "never three in a row"
    tracker._attempt(fail)
    assert 50 < tracker._paused_until - time.monotonic() <= 60


# ---------------------------------------------------------------- what MLflow refuses


def test_mlflow_takes_every_name_of_a_user_s(tmp_path: Path, blank: Path) -> None:
    """Factors and values of 300 characters, of signs that MLflow has no place for, of lines; and
    more than 100 of them."""
    values = ["x" * 300, "x" * 300 + "y"]
    others = {
        "..": "50% #1: 🙂\nb`'",
        "": "only",
        "long": "z" * 7000,
        **{f"option{i}": "a" for i in range(120)},
    }
    factors = {
        "a%🙂\n" + "f" * 300: {name: {"network.width": 4 + 4 * i} for i, name in enumerate(values)}
    }
    factors |= {factor: {value: {}} for factor, value in others.items()}
    space = SPACE.model_copy(update={"vary": factors, "question": "Why? " * 3000})
    (tmp_path / DATABASE).write_bytes(blank.read_bytes())
    sweep = new_sweep(tmp_path, space)
    results = written(sweep, space, cause="c" * 9000)
    where = destination(sweep)
    sync(sweep.summary, sweep.storage, where, live=True)  # without figures
    from mlflow import MlflowClient

    client = MlflowClient(where.uri)
    experiment = client.get_experiment_by_name("emm-sweep")
    found = {
        run.data.tags.get("emm.training_key"): run
        for run in client.search_runs([experiment.experiment_id])
    }
    for result, value in zip(results, values, strict=True):
        run = found[result.training_key]
        renamed = json.loads(run.data.tags["emm.renamed"])
        for factor, text in zip(factors, (value, *others.values()), strict=True):
            assert renamed.get(mlflow_key(factor), factor) == factor
            assert run.data.params[mlflow_key(factor)][:5990] == text[:5990]
        assert run.data.metrics["r_mem"] == result.r_mem
        assert len(run.info.run_name) <= 250
        assert run.info.run_name.endswith(f" N={result.spec.n} seed={result.spec.seed}")
    views = [value for name, value in experiment.tags.items() if name.startswith(VIEW)]
    assert max(map(len, views)) <= MAX_VIEW
    assert all(f"params.`{mlflow_key(next(iter(factors)))}`" in value for value in views)
    before = (tmp_path / DATABASE).read_bytes()
    sync(sweep.summary, sweep.storage, where, live=True)
    assert (tmp_path / DATABASE).read_bytes() == before, "and again changes nothing"


def test_what_is_refused_costs_only_itself(empty: Sweep) -> None:
    """MLflow knows no time before 1970."""
    refused, _ = written(empty)
    old = refused.model_copy(update={"finished_at": "1960-01-01T00:00:00+00:00"})
    trial_directory(empty.storage, old.training_key).write(RESULT, old.model_dump_json().encode())
    where = destination(empty)
    with pytest.raises(
        UserError, match=r"MLflow lacks width=4 N=8 seed=0 \(.*; all the rest is written"
    ):
        sync(empty.summary, empty.storage, where, live=True)
    found = runs(where)
    assert found["width=8 N=9 seed=1"].info.status == "FINISHED"
    assert found["width=8"].data.metrics["n_trials"] == 1
    assert found["tiny"].data.metrics["studies"] == 2


def test_a_server_that_is_lost_meanwhile_is_not_asked_for_every_trial(
    empty: Sweep, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(empty)
    view = SweepView(SPACE, empty.storage, destination(empty))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    view.writer.client = MlflowClient(f"http://{dead}")
    with pytest.raises(MlflowException):
        view.sync(empty.summary, live=True)


# ---------------------------------------------------------------- last measurements


def test_last_measurements_are_written_too(empty: Sweep) -> None:
    key = written(empty)[0].training_key
    empty.storage.write_json(FINAL, {key: {"r_mem": 0.9, "n_samples": 1000, "n_memorized": 900}})
    sync(empty.summary, empty.storage, where := destination(empty), live=True)
    metrics = runs(where)["width=4 N=8 seed=0"].data.metrics
    low, high = r_mem_interval(900, 1000)
    given = {
        "r_mem_final": 0.9,
        "n_samples_final": 1000,
        "r_mem_final_low": low,
        "r_mem_final_high": high,
    }
    assert {name: metrics[name] for name in given} == pytest.approx(given)

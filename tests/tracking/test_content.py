"""The pages of runs, as they are before anything is written: no MLflow is there."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweep.analysis.summary import SweepSummary, summarize
from sweep.report.gallery import Pictures
from sweep.tracking.charts import views
from sweep.tracking.content import Content, curve_numbers, distances_table, final_numbers
from sweep.tracking.page import Page
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.images import ImageData
from trainables.data.sources import load
from trainables.errors import DamagedFile
from trainables.measure.r_mem import Neighbours, r_mem_interval
from trainables.storage import Storage
from trainables.trial.result import MEASUREMENT, FinalMeasurement, Result, trial_directory

SPACE = fake_space((8, 16), n_high=256)


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load(SPACE.base.data)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, data: ImageData) -> Storage:
    made = Storage(str(tmp_path_factory.mktemp("sweep")))
    write_sweep(made, SPACE, data, 3)
    return made


@pytest.fixture(scope="module")
def summary(storage: Storage) -> SweepSummary:
    return summarize(storage)


def content_of(storage: Storage, images: Any = "none", **keys: str) -> Content:
    return Content(SPACE, storage, keys, Pictures(storage, images))


def some_result(summary: SweepSummary, **more: object) -> Result:
    return summary.studies[0].results[0].model_copy(update=more)


def test_pages_are_made_without_mlflow() -> None:
    code = "import sys, sweep.tracking.content; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_are_a_tree_of_three_levels(storage: Storage, summary: SweepSummary) -> None:
    content, result = content_of(storage), some_result(summary)
    trial = content.trial_head(result)
    study = trial.parent
    assert study is not None
    assert study == content.study_head(result.spec.name)
    assert study.parent == content.sweep_head()
    heads = (content.sweep_head(), study, trial)
    assert [head.opening["emm.level"] for head in heads] == ["sweep", "study", "trial"]
    assert {head.opening["emm.sweep"] for head in heads} == {content.key}
    assert len({head.keys for head in heads}) == 3
    assert all(head.opening["emm.key"] == head.keys[0] for head in heads)
    assert trial.name == f"{result.spec.name} N={result.spec.n} seed={result.spec.seed}"


def test_a_run_is_looked_for_under_the_names_its_configuration_had(storage: Storage) -> None:
    today = content_of(storage, **{"width=8": "a", "width=16": "b", "wide": "a"})
    before = content_of(storage)
    before_name = "width=16"
    assert today.study_head("width=8").keys[0] == before.study_head("width=8").keys[0]
    assert len(today.study_head("width=8").keys) == 3  # its own name is among those of its key
    assert before.study_head(before_name).keys[0] not in today.study_head("width=8").keys


def test_a_finished_trial_is_marked_by_what_was_measured(
    storage: Storage, summary: SweepSummary
) -> None:
    result = some_result(summary)
    page = content_of(storage).trial(result)
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    assert {name: page.metrics[name] for name in ("r_mem", "r_mem_low", "r_mem_high")} == {
        "r_mem": result.r_mem,
        "r_mem_low": low,
        "r_mem_high": high,
    }
    assert page.status == "FINISHED"
    assert page.mark is not None
    assert page.mark.value == page.last["emm.written"] == result.measurement_key
    assert list(page.last)[-1] == "emm.written", "the last thing of all"
    end = 1767225600.0  # 2026-01-01T00:00:00+00:00
    assert page.at == end
    assert page.head.began == end - result.seconds
    assert [point.step for point in page.curve] == [one.images_trained for one in result.curve]
    assert [point.at for point in page.curve] == [end - 40 + 10 * i for i in (1, 2, 3, 4)]


def test_the_mark_of_a_failure_holds_for_that_failure_alone(
    storage: Storage, summary: SweepSummary
) -> None:
    content = content_of(storage)
    failed = some_result(summary, complete=False, cause="out of memory", finished_at="2026-01-02")
    page = content.trial(failed)
    assert (page.status, page.last["emm.cause"]) == ("FAILED", "out of memory")
    assert page.attachment is None
    assert "r_mem" not in page.metrics
    again = content.trial(failed.model_copy(update={"finished_at": "2026-01-03"}))
    assert page.mark != again.mark
    assert page.mark != content.trial_status(failed, "RUNNING").mark


def test_nothing_is_read_for_an_attachment_before_it_is_asked_for(
    tmp_path: Path, data: ImageData
) -> None:
    storage = Storage(str(tmp_path))
    write_sweep(storage, SPACE, data, 1)
    result = some_result(summarize(storage))
    trial_directory(storage, result.training_key).write(MEASUREMENT, b"damaged")
    page = content_of(storage).trial(result)
    assert page.attachment is not None
    with pytest.raises(DamagedFile):
        page.attachment()


@pytest.mark.parametrize("images", ["none", "generated"])
def test_an_attachment_has_distances_and_the_pictures_that_are_allowed(
    storage: Storage, summary: SweepSummary, images: str
) -> None:
    result = some_result(summary)
    page = content_of(storage, images).trial(result)
    assert page.attachment is not None
    attachment = page.attachment()
    assert attachment is not None
    assert attachment.files["distances.csv"].startswith(b"d1,d2,i1,i2,memorized\n")
    assert attachment.files["distances.csv"].count(b"\n") == 1 + result.n_samples
    assert (
        ("samples.png" in attachment.files) is (attachment.note is not None) is (images != "none")
    )


def test_figures_are_drawn_for_what_is_decided_or_left(
    storage: Storage, summary: SweepSummary
) -> None:
    content, study = content_of(storage), summary.studies[0]
    searching = replace(study, verdict=replace(study.verdict, state="searching"))
    found = replace(study, verdict=replace(study.verdict, state="found"))

    def marks(pages: list[Page]) -> list[str]:
        return [page.mark.tag for page in pages if page.mark is not None]

    assert marks(content.study(searching, live=True)) == []
    assert marks(content.study(searching, live=False)) == ["emm.figures"]
    assert marks(content.study(found, live=True)) == ["emm.figures"]
    assert marks(content.study(replace(found, results=[]), live=False)) == []
    assert content.study(searching, live=True)[0].status == "RUNNING"
    assert content.study(searching, live=False)[0].status == "KILLED"
    assert content.study(found, live=True)[0].status == "FINISHED"
    again = content.study(replace(found, results=found.results[:-1]), live=True)
    assert again[1].mark != content.study(found, live=True)[1].mark, "other content, other figures"


def test_everything_is_named_and_last_measurements_are_in_it(
    storage: Storage, summary: SweepSummary
) -> None:
    content, result = content_of(storage), some_result(summary)
    finals = {result.training_key: FinalMeasurement(r_mem=0.9, n_samples=1000, n_memorized=900)}
    first = replace(summary.studies[0], finals=finals)
    whole = replace(summary, studies=[first, *summary.studies[1:]])
    made = {name: make() for name, make in content.everything(whole, live=True)}
    assert len(made) == 2 + 6 + 1 + 1, "and the run of the sweep, at its beginning"
    title = f"{result.spec.name} N={result.spec.n} seed={result.spec.seed}"
    assert [len(pages) for name, pages in made.items() if name == title] == [2]
    assert made[title][1].metrics["r_mem_final"] == 0.9
    assert list(made)[-1] == summary.name
    assert made[summary.name][0].metrics["studies"] == 2
    assert not any(
        math.isnan(value)
        for pages in made.values()
        for page in pages
        for value in page.metrics.values()
        if value is not None
    )


@pytest.fixture(scope="module")
def uneven(storage: Storage, summary: SweepSummary) -> SweepSummary:
    """The same with numbers that differ from trial to trial; the last of the first study failed,
    and the second study was not found."""
    results = [
        result.model_copy(
            update={
                "noisy_copier": 0.7 + 0.1 * i,
                "images_trained": 1000 + i,
                "seconds": 100.0 * (i + 1),
                "hardware": {"device": "cuda", "name": "H100", "threads": "3", "host": "node-7"},
            }
        )
        for i, result in enumerate(summary.studies[0].results)
    ]
    failed = {"complete": False, "cause": "out of memory", "r_mem": None}
    results[2] = results[2].model_copy(update=failed)
    options = replace(summary.studies[0].options, target=0.6)
    first = replace(summary.studies[0], results=results, options=options)
    second = replace(
        summary.studies[1], verdict=replace(summary.studies[1].verdict, state="above_range")
    )
    return replace(summary, studies=[first, second])


def test_a_study_is_compared_by_the_numbers_of_all_its_trials(
    storage: Storage, uneven: SweepSummary
) -> None:
    study = uneven.studies[0]
    (page,) = content_of(storage).study(replace(study, results=study.results[:0]), live=True)
    assert page.metrics["slope"] is None
    page, *_ = content_of(storage).study(study, live=True)
    assert study.belief is not None
    assert page.metrics["slope"] == float(f"{study.belief.slope:.3g}")
    assert page.metrics["n_trials"] == page.step == study.verdict.n_trials == 3
    assert page.metrics["images_trained"] == 3003
    assert page.metrics["seconds"] == 600
    assert page.metrics["noisy_copier"] == pytest.approx(0.8), "of the one near the EMM"
    for name in ("emm", "emm_low", "emm_high", "sd"):
        assert page.metrics[name] == pytest.approx(getattr(study.verdict, name), rel=1e-4)
    assert page.tags == {
        "emm.verdict": study.verdict.state,
        "emm.reason": study.verdict.reason,
        "emm.target": "0.6",
    }


def test_a_sweep_counts_what_is_decided_and_all_images(
    storage: Storage, uneven: SweepSummary
) -> None:
    (page,) = content_of(storage).sweep(uneven, live=True)
    images = 3003 + sum(result.images_trained for result in uneven.studies[1].results)
    assert page.metrics == {"studies": 2, "studies_decided": 1, "images_trained": images}
    assert page.status == "RUNNING"


def test_a_trial_has_its_factors_its_machine_and_its_curve(
    storage: Storage, uneven: SweepSummary
) -> None:
    study = uneven.studies[0]
    curve = [
        snapshot.model_copy(
            update={
                "loss_gap": 0.1 * i,
                "membership": 0.5 + 0.1 * i,
                "loss": None if i == 2 else 2.0 / i,
            }
        )
        for i, snapshot in enumerate(study.results[0].curve, 1)
    ]
    result = study.results[0].model_copy(update={"curve": tuple(curve)})
    page = content_of(storage).trial(result)
    expected = {"width": "8", "network.width": "8", "n": str(result.spec.n), "seed": "0"}
    assert expected.items() <= page.head.params.items()
    hardware = {"device": "cuda", "name": "H100", "threads": "3", "host": "node-7"}
    assert {f"emm.{name}": text for name, text in hardware.items()}.items() <= page.last.items()
    total = result.configuration.trainer.train_images(result.spec.n)
    for i, (point, snapshot) in enumerate(zip(page.curve, curve, strict=True), 1):
        assert point.metrics["progress"] == pytest.approx(i / 4, abs=1 / total)
        assert point.metrics["images_per_second"] == snapshot.images_trained / (10 * i)
        assert point.metrics["loss_gap"] == pytest.approx(0.1 * i)
        assert point.metrics["membership"] == pytest.approx(0.5 + 0.1 * i)
        assert point.metrics.get("loss") == (None if i == 2 else 2.0 / i)
        assert point.metrics["r_mem_snapshot"] == snapshot.r_mem
        assert point.metrics["median_d1_snapshot"] == 40.0
    at_once = curve[0].model_copy(update={"seconds": 0.0})
    assert "images_per_second" not in curve_numbers(at_once, result)
    digest = result.data.digest
    source = page.head.data
    assert source is not None
    assert (source.name, source.digest) == ("digits", digest[:32])
    assert json.loads(source.source) == {"kind": "digits", "sha256": digest}
    assert json.loads(source.profile) == {"images": 1797, "duplicates": 0}
    doubled = result.data.model_copy(update={"size": 90, "duplicates": 7})
    again = content_of(storage).trial_head(result.model_copy(update={"data": doubled})).data
    assert again is not None
    assert json.loads(again.profile) == {"images": 90, "duplicates": 7}


def test_a_last_measurement_has_an_interval_of_its_own() -> None:
    low, high = r_mem_interval(700, 1000)
    final = FinalMeasurement(r_mem=0.7, n_samples=1000, n_memorized=700)
    assert final_numbers(final) == {
        "r_mem_final": 0.7,
        "r_mem_final_low": low,
        "r_mem_final_high": high,
        "n_samples_final": 1000,
    }


def test_distances_stand_in_their_columns() -> None:
    found = Neighbours(
        np.array([1.5, 2.25]), np.array([3.5, 9.0]), np.array([4, 5]), np.array([6, 7])
    )
    text = distances_table(found, np.array([False, True]))
    assert text == "d1,d2,i1,i2,memorized\n1.5,3.5,4,6,0\n2.25,9,5,7,1\n"


def test_views_show_studies_and_trials_of_one_sweep_with_their_intervals() -> None:
    studies, trials = (json.loads(text) for text in views(SPACE, "key").values())
    ends = ["metrics.`images_trained`", "metrics.`seconds`"]
    assert studies["selectedColumns"] == [
        *("params.`width`", "tags.`emm.verdict`"),
        *("metrics.`emm`", "metrics.`emm_low`", "metrics.`emm_high`"),
    ]
    assert trials["selectedColumns"] == [
        *("params.`width`", "params.`n`", "params.`seed`"),
        *("metrics.`r_mem`", "metrics.`r_mem_low`", "metrics.`r_mem_high`"),
        *("metrics.`median_d1`", *ends),
    ]
    for view, level in ((studies, "study"), (trials, "trial")):
        assert view["searchFilter"] == f"tags.`emm.level` = '{level}' and tags.`emm.sweep` = 'key'"
    axes = [
        (chart["xaxis"]["key"], chart["yaxis"]["key"])
        for view in (studies, trials)
        for chart in view["compareRunCharts"]
        if chart["type"] == "SCATTER"
    ]
    assert axes == [("width", "emm"), ("n", "r_mem")]
    (line,) = (chart for chart in trials["compareRunCharts"] if chart["type"] == "LINE")
    assert (line["metricKey"], line["xAxisKey"]) == ("r_mem_snapshot", "step")
    assert (line["useGlobalXaxisKey"], line["lineSmoothness"]) == (False, 0)

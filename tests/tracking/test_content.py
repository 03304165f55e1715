"""The pages of runs, as they are before anything is written: no MLflow is there."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.analysis.summary import SweepSummary, summarize
from sweep.report.gallery import Pictures
from sweep.tracking.content import Content
from sweep.tracking.page import Page
from tests.fakes import fake_space
from tests.results import write_sweep
from trainables.data.images import ImageData
from trainables.data.sources import load
from trainables.errors import DamagedFile
from trainables.measure.r_mem import r_mem_interval
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
    assert len(made) == 2 + 6 + 1
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

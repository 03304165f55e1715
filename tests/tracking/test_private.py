"""What stays with the user, whoever reads MLflow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sweep.tracking.content import study_note, sweep_note
from sweep.tracking.place import DATABASE
from sweep.tracking.sync import SweepView, sync
from tests.tracked import SPACE, Sweep, artifacts, destination, everything, new_sweep, runs, written
from trainables.config.data import Arrays, Mix
from trainables.data.sources import load
from trainables.storage import Storage


def test_no_credentials_of_a_storage_are_in_a_tag(empty: Sweep, tmp_path: Path) -> None:
    url = f"memory://AKIA:hush@bucket/{tmp_path.name}?token=hush"
    where = destination(empty)
    SweepView(SPACE, Storage(url), where).sync(empty.summary, live=False)
    tags = [run.data.tags for run in runs(where).values()]
    assert {tag["emm.storage"] for tag in tags if "emm.storage" in tag} == {Storage(url).shown}
    assert "hush" not in str(tags)


@pytest.mark.parametrize("images", ["none", "generated", "pairs"])
def test_pictures_are_those_that_are_allowed(empty: Sweep, images: str) -> None:
    empty.finished("width=4", 8, 0)
    where = destination(empty, images)
    sync(empty.summary, empty.storage, where)
    run = runs(where)["width=4 N=8 seed=0"]
    names = {"distances.csv"} if images == "none" else {"distances.csv", "samples.png"}
    assert set(artifacts(run)) == names
    if images == "none":
        assert "mlflow.note.content" not in run.data.tags
    else:
        assert ("second nearest training image" in run.data.tags["mlflow.note.content"]) is (
            images == "pairs"
        )


def test_places_of_private_data_stay_here(tmp_path: Path, blank: Path) -> None:
    (private := tmp_path / "of-patients").mkdir()
    paths = [private / "ward7.npz", private / "second.npz"]
    for i, path in enumerate(paths):
        np.savez(
            path,
            images=np.random.default_rng(i).integers(0, 256, (80, 8, 8), np.uint8),
            labels=np.arange(80) % 2,
        )
    second = Arrays(path=str(paths[1]), resolution=8, channels=1)
    source = Arrays(path=str(paths[0]), resolution=8, channels=1, mix=Mix(share=0.5, data=second))
    base = SPACE.base.model_copy(update={"data": source})
    how = SPACE.measurement.model_copy(update={"batch": 7})
    vary = {"network.width": (4,)}
    space = SPACE.model_copy(update={"base": base, "vary": vary, "measurement": how})
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / DATABASE).write_bytes(blank.read_bytes())
    sweep = new_sweep(tmp_path / "sweep", space)
    written(sweep, space, load(source))
    assert space.images == "none"
    sync(sweep.summary, sweep.storage, where := destination(sweep, space.images), live=True)
    params = next(run.data.params for name, run in runs(where).items() if " N=" in name)
    assert params["data.kind"] == "arrays"
    assert json.loads(params["data.mix"])["data"]["kind"] == "arrays"
    assert params["measurement.batch"] == "7", "it is no place"
    for word in (b"of-patients", b"ward7", b"second.npz"):
        assert word not in everything(sweep)


def test_credentials_of_the_storage_stay_here(empty: Sweep) -> None:
    (result, *_) = written(empty)
    private = Storage(empty.storage.url)
    # of which nothing but the URL is used
    private.url = "s3://AKIAPUBLIC:topsecret@bucket/x?region=us-east-1"
    view = SweepView(SPACE, private, destination(empty))
    view.writer.put(view.content.trial_status(result, "RUNNING"))
    assert runs(destination(empty))["tiny"].data.tags["emm.storage"].startswith("s3://…@bucket/x")
    for word in (b"AKIAPUBLIC", b"topsecret"):
        assert word not in everything(empty)


def test_descriptions_fetch_nothing(empty: Sweep) -> None:
    texts = {
        "question": "![q](http://evil.example/q)",
        "source": "<img src=//evil.example>",
        "expectation": "[e](//evil)",
    }
    note = sweep_note(SPACE.model_copy(update=texts))
    study = empty.summary.studies[0]
    verdict = replace(study.verdict, reason="![r](http://evil.example/r)")
    note += study_note(replace(study, name="<script>x</script>", verdict=verdict))
    for mark in ("![", "](", "<img", "<script", "http://"):
        assert mark not in note
    assert "&#33;&#91;q&#93;" in note


def test_a_space_without_texts_is_called_by_its_name() -> None:
    note = sweep_note(
        SPACE.model_copy(update=dict.fromkeys(["question", "source", "expectation"], ""))
    )
    head, what, _ = note.split("\n\n")
    assert head == f"**{SPACE.name}**"
    assert what.startswith("EMM is the largest N")

"""The writer alone, on pages that are of no sweep, in a real database."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sweep.tracking import view as writer
from sweep.tracking.page import KEY, NOTE, RUN_NAME, Attachment, Head, Mark, Page, Point
from sweep.tracking.place import Destination, prepare_environment
from sweep.tracking.view import View

PARENT = Head(("house",), "a house", {KEY: "house", "street": "x"})
CHILD = Head(
    ("room",), "a room", {KEY: "room", "street": "x"}, PARENT, {"size": "3"}, {"lit": "no"}
)


@pytest.fixture(scope="module")
def destination(tmp_path_factory: pytest.TempPathFactory) -> Destination:
    prepare_environment()
    directory = tmp_path_factory.mktemp("view")
    return Destination(f"sqlite:///{directory / 'mlflow.db'}", str(directory / "artifacts"))


@pytest.fixture
def opened(destination: Destination) -> Callable[[], View]:
    """A writer as a new process would have it."""
    return lambda: View(destination, ("street", "x"), {"of": "streets"})


def written(view: View, key: str) -> Any:
    return view.client.get_run(view.runs[key].id)


def test_a_run_is_put_below_its_parent_and_found_again(opened: Callable[[], View]) -> None:
    view = opened()
    assert view.opened(CHILD) == "room"
    parent, child = written(view, "house"), written(view, "room")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (child.data.params, child.data.tags["lit"]) == ({"size": "3"}, "no")
    again = opened()
    renamed = replace(CHILD, keys=("chamber", "room"), opening={KEY: "chamber", "street": "x"})
    assert again.opened(renamed) == "room", "under the key that it was made with"
    assert again.runs.keys() == {"house", "room"}
    assert again.client.get_experiment(again.experiment).tags["of"] == "streets"


def test_what_a_new_run_begins_with_is_left_alone_afterwards(opened: Callable[[], View]) -> None:
    view = opened()
    view.opened(PARENT)
    view.opened(replace(PARENT, opening={**PARENT.opening, "street": "y"}, tags={"lit": "yes"}))
    tags = written(view, "house").data.tags
    assert (tags["street"], tags["lit"]) == ("x", "yes")


def test_what_a_new_run_is_to_hold_is_sent_at_once(opened: Callable[[], View]) -> None:
    """But for its data, and what is written when all the rest is; and nothing is asked of it."""
    view, calls, long = opened(), list[str](), "n" * 400
    client = view.client

    class Spy:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(client, name)

    view.client = Spy()
    head = Head(
        ("one",),
        long,
        {KEY: "one", "street": "x", "lit": "yes"},
        params={"size": "3"},
        tags={"lit": "no", RUN_NAME: long},
    )
    points = [Point(1, {"loss": 0.5}, at=10.0), Point(2, {"loss": 0.25}, at=20.0)]
    view.put(Page(head, {"emm": 30.0}, {"state": "found"}, points, step=7))
    assert calls == ["search_runs", "create_run", "log_batch"]
    run = client.get_run(view.runs["one"].id)
    assert (run.data.params, run.data.metrics) == ({"size": "3"}, {"emm": 30.0, "loss": 0.25})
    assert (run.data.tags["lit"], run.data.tags["state"]) == ("no", "found")
    for name, steps in {"emm": [7], "loss": [1, 2]}.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == steps


def test_a_number_that_is_none_is_withdrawn_and_none_is_made_of_nothing(
    opened: Callable[[], View],
) -> None:
    view, head = opened(), replace(PARENT, keys=("n",), opening={KEY: "n", "street": "x"})
    view.put(Page(head, metrics={"a": 1.0, "b": None}))
    assert written(view, "n").data.metrics == {"a": 1.0}
    view.put(Page(head, metrics={"a": None}, step=2))
    assert str(written(view, "n").data.metrics["a"]) == "nan"


def test_a_marked_page_is_written_once_and_its_attachment_made_once(
    opened: Callable[[], View],
) -> None:
    made = []

    def attachment() -> Attachment:
        made.append("")
        return Attachment({"seen.png": b"x", "list.csv": b"y"}, "what is seen")

    head = replace(PARENT, keys=("m",), opening={KEY: "m", "street": "x"})
    page = Page(
        head,
        curve=[Point(1, {"loss": 0.5}, at=10.0), Point(2, {"loss": 0.25}, at=20.0)],
        attachment=attachment,
        last={"cause": None, "done": "1"},
        status="FINISHED",
        mark=Mark("done", "1", ended=("FINISHED",)),
        at=30.0,
    )
    opened().put(replace(page, attachment=None, last={}, curve=page.curve[:1]))  # killed half-way
    for _ in range(2):
        view = opened()
        view.put(page)
    assert len(made) == 1
    run = written(view, "m")
    assert run.info.status == "FINISHED"
    assert "cause" not in run.data.tags
    assert run.data.tags[NOTE].startswith("what is seen\n\n![seen.png](get-artifact?path=seen.png&")
    assert "list.csv" not in run.data.tags[NOTE]
    history = view.client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (1, 0.5, 10_000),
        (2, 0.25, 20_000),
    ]
    view.put(replace(page, mark=None, attachment=None, last={"cause": "rain"}))
    view.put(replace(page, mark=None, attachment=None, last={"cause": None}))
    assert written(view, "m").data.tags["cause"] == ""
    view.put(replace(page, last={"done": "2"}, mark=Mark("done", "2")))
    assert len(made) == 2, "of another content"


def test_a_run_that_has_not_ended_is_not_whole(opened: Callable[[], View]) -> None:
    view, head = opened(), replace(PARENT, keys=("e",), opening={KEY: "e", "street": "x"})
    mark = Mark("done", "1", ended=("FINISHED",))
    view.put(Page(head, last={"done": "1"}))
    view.put(Page(head, status="FINISHED", mark=mark))
    assert written(view, "e").info.status == "FINISHED"
    view.put(Page(head, status="RUNNING", mark=mark))
    assert written(view, "e").info.status == "FINISHED", "it is left alone"
    view.put(Page(head, status="RUNNING"))
    assert written(view, "e").info.status == "RUNNING"


def test_a_curve_of_any_length_is_there_whole(
    opened: Callable[[], View], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow takes so many numbers at a time: here 10 of 27 × 2."""
    monkeypatch.setattr(writer, "MAX_METRICS", 10)
    head = replace(PARENT, keys=("c",), opening={KEY: "c", "street": "x"})
    points = [Point(i, {"loss": 1 / i, "gap": float(i)}, at=float(i)) for i in range(1, 28)]
    view = opened()
    view.put(Page(head, curve=points))
    run_id = written(view, "c").info.run_id
    for name in ("loss", "gap"):
        history = view.client.get_metric_history(run_id, name)
        assert [(one.step, one.value) for one in history] == [
            (point.step, point.metrics[name]) for point in points
        ]


def test_a_tag_and_a_number_that_change_are_written_again(opened: Callable[[], View]) -> None:
    view, head = opened(), replace(PARENT, keys=("t",), opening={KEY: "t", "street": "x"})
    for state, emm, step in (("searching", 20.0, 3), ("found", 30.0, 5), ("found", 30.0, 6)):
        view.put(Page(head, metrics={"emm": emm}, tags={"state": state}, step=step))
    run = written(view, "t")
    assert (run.data.tags["state"], run.data.metrics["emm"]) == ("found", 30.0)
    history = view.client.get_metric_history(run.info.run_id, "emm")
    assert [(one.step, one.value) for one in history] == [(3, 20.0), (5, 30.0)]

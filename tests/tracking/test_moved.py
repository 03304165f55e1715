"""A directory that was copied or moved: its MLflow shows the same runs, from the new place."""

import shutil
from pathlib import Path

import pytest

from sweep.tracking.database import file_of
from sweep.tracking.moved import settle
from sweep.tracking.place import DATABASE, sweep_key
from sweep.tracking.server import serve
from sweep.tracking.sync import sync
from tests.tracked import (
    SPACE,
    Sweep,
    artifacts,
    content,
    destination,
    runs,
)
from trainables.errors import UserError
from trainables.storage import Storage


@pytest.fixture
def copied(empty: Sweep, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Sweep]:
    """A sweep that MLflow knows, and its copy elsewhere; the first is then removed."""
    empty.finished("width=4", 8, 0)
    where = destination(empty)
    sync(empty.summary, empty.storage, where)
    study = runs(where)["width=4"].info.run_id
    from mlflow import MlflowClient

    MlflowClient(where.uri).set_tag(study, "mlflow.note.content", "seen by me")
    elsewhere = tmp_path_factory.mktemp("else") / "a copy"
    shutil.copytree(empty.storage.root, elsewhere)
    return empty, Sweep(Storage(str(elsewhere)))


def test_the_copy_has_the_same_runs_and_its_own_files(copied: tuple[Sweep, Sweep]) -> None:
    first, copy = copied
    before = runs(destination(first))
    root = Path(copy.storage.root)
    shutil.rmtree(Path(first.storage.root) / "artifacts")
    key = sweep_key(SPACE, copy.storage)
    assert settle(root, copy.storage, key)
    after = runs(destination(copy))
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    assert after["width=4"].info.start_time == before["width=4"].info.start_time
    assert after["width=4"].data.tags["mlflow.note.content"] == "seen by me"
    files = artifacts(after["width=4"])
    assert "figures/study.png" in files
    assert all(file.is_relative_to(root) and file.stat().st_size for file in files.values())
    assert first.storage.root not in (root / DATABASE).read_bytes().decode(errors="replace")
    assert not settle(root, copy.storage, key), "once is enough"


def test_sync_of_a_copy_goes_on_in_the_same_runs(copied: tuple[Sweep, Sweep]) -> None:
    _, copy = copied
    copy.finished("width=8", 16, 0)
    sync(copy.summary, copy.storage, destination(copy))
    after = content(destination(copy))
    assert sorted(after) == [
        "tiny",
        "width=4",
        "width=4 N=8 seed=0",
        "width=8",
        "width=8 N=16 seed=0",
    ]
    again = content(destination(copy))
    sync(copy.summary, copy.storage, destination(copy))
    assert content(destination(copy)) == again


def test_what_was_not_moved_and_what_is_no_copy_is_left_alone(
    copied: tuple[Sweep, Sweep], tmp_path: Path
) -> None:
    first, copy = copied
    root = Path(first.storage.root)
    database = (root / DATABASE).read_bytes()
    assert not settle(root, first.storage, sweep_key(SPACE, first.storage))
    assert (root / DATABASE).read_bytes() == database
    assert not settle(tmp_path / "nothing", first.storage, "key")
    from mlflow import MlflowClient

    where = destination(copy)
    client = MlflowClient(where.uri)
    client.create_run(
        client.get_experiment_by_name("emm-sweep").experiment_id, tags={"emm.sweep": "x"}
    )
    assert not settle(Path(copy.storage.root), copy.storage, "key"), "two sweeps are in it"


def test_a_damaged_database_is_the_users_mistake(empty: Sweep) -> None:
    file = file_of(destination(empty).uri)
    assert file is not None
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="delete that file, and `emm sync` writes it again"):
        serve(empty.storage, file.parent, print)


def test_what_sync_makes_up_for_began_and_ended_with_its_trials(
    empty: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [empty.finished("width=4", 8, 0), empty.finished("width=4", 16, 1)]
    monkeypatch.setattr("sweep.tracking.view.time.time", lambda: 4e9)  # much later
    sync(empty.summary, empty.storage, destination(empty))
    found = runs(destination(empty))
    trials = [found[f"width=4 {result.spec.title}"].info for result in results]
    first, last = min(one.start_time for one in trials), max(one.end_time for one in trials)
    for name in ("width=4", "tiny"):
        assert (found[name].info.start_time, found[name].info.end_time) == (first, last), name

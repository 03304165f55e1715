"""Where a sweep is kept, what it may cost, and its removal."""

import json
import logging
import os
import stat
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from sweep import api
from sweep.cli import run as cli_run
from sweep.cli.main import main
from sweep.cli.options import parse_deadline, with_zone
from sweep.run.studies import Studies
from sweep.store import budget, lock
from sweep.store.budget import Budget, Limits, hours_spent
from sweep.store.databases import sqlite_url
from sweep.store.files import FINAL, SWEEP
from sweep.store.lock import LOCK, Lock
from sweep.store.places import (
    POINTER,
    TRUTH,
    VIEWS,
    check_views,
    create_private,
    new_place,
    place,
    purge,
    remember,
)
from sweep.store.priors import PRIORS
from sweep.tracking.place import local_tracking, sweep_key
from tests.fakes import fake_space
from trainables.errors import UserError
from trainables.storage import Storage


def sweep_in(storage):
    space = fake_space()
    content = {
        "sweep": space.name,
        "id": "7",
        "space": space.model_dump(mode="json"),
        "configurations": {},
    }
    storage.write_json(SWEEP, content)
    storage.write("trials/abc/result.json", b"{}")
    storage.write("spent/x.json", b'{"device_hours": 1.5}')
    storage.write_json(FINAL, {})
    storage.write_json(PRIORS, {})
    return space


# ---------------------------------------------------------------- places


def test_a_directory_remembers_a_storage_elsewhere_for_its_owner_only(tmp_path):
    views, url = tmp_path / "views", f"file://{tmp_path}/store"
    remember(new_place(views, url))
    found = place(str(views))
    assert (found.storage.url, found.views) == (url, views)
    assert stat.S_IMODE((views / "storage.json").stat().st_mode) == 0o600
    assert new_place(views, None).storage.url == url, "without --storage as well"
    sweep_in(found.storage)
    assert purge(found) == []
    assert not views.exists()
    assert not list((tmp_path / "store").iterdir())


def test_it_does_where_both_have_one_path(tmp_path):
    views, url = tmp_path / "x", f"memory://{tmp_path}/x"
    remember(new_place(views, url))
    assert new_place(views, None).storage.url == url


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_storage_is_the_place_of_its_views(tmp_path, form):
    here = place(form.format(tmp_path / "x"))
    assert here.views == tmp_path / "x"
    remember(here)
    assert not (tmp_path / "x").exists(), "nothing is to be remembered"
    assert sweep_key(fake_space(), here.storage) == sweep_key(
        fake_space(), Storage(str(tmp_path / "x"))
    )
    assert place("memory://bucket/x").views is None


def test_credentials_are_no_part_of_a_sweep_s_name():
    keys = {
        sweep_key(fake_space(), Storage(f"s3://me:{word}@bucket/x?region=us-east-1"))
        for word in ("a", "b")
    }
    assert len(keys) == 1


@pytest.mark.parametrize("inside", ["", "/below"])
def test_a_file_is_no_place(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        new_place(tmp_path / f"file{inside}", None)


def test_a_directory_with_a_sweep_takes_no_other_storage(tmp_path):
    sweep_in(Storage(str(tmp_path / "a")))
    with pytest.raises(UserError, match="a sweep is kept there already"):
        new_place(tmp_path / "a", str(tmp_path / "b"))


# what a user may have there, called like a report
MINE = ("report-draft.tex", "report-keynote.pdf", "report-k", "report-with-coauthors/draft.tex")


@pytest.mark.parametrize("url", [None, "memory://bucket/purge"])
def test_purge_removes_a_sweep_and_nothing_else(tmp_path, url, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.5)  # of the dead driver that is waited for
    here = place(url or str(tmp_path / "sweep"))
    storage = here.storage
    with pytest.raises(UserError, match="holds no sweep"):
        purge(here)
    sweep_in(storage)
    storage.write("thesis.tex", b"")
    if url is None:
        for kind in ("k0.25", "features-my_eye.features", "with-other"):
            storage.write(f"report-{kind}/report.json", b"{}")
            storage.write(f"report-{kind}/index.html", b"")
        for name in MINE:
            storage.write(name, b"")
    storage.write(
        f"{LOCK}dead.json",
        b'{"token": "dead", "host": "elsewhere", "pid": 1, "renewed": 0, "replaces": []}',
    )
    with Lock(storage), pytest.raises(UserError, match="is being run by process"):
        purge(here)
    assert storage.exists("trials/abc/result.json")
    mine = ["thesis.tex"] if url else sorted([*MINE, "thesis.tex"])
    assert purge(here) == ([] if url else sorted(name.partition("/")[0] for name in mine))
    assert all(map(storage.exists, ["thesis.tex", *mine]))
    if url is None:
        sweep_in(storage)
        for name in mine:
            storage.delete(name)
        (tmp_path / "sweep/report-with-coauthors").rmdir()
        for name in (f"{LOCK}3.json", SWEEP, "mlflow.db"):  # what killed writes have left
            storage.write(f"{name}.0123abcd.part", b"")
        assert purge(here) == []
        assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("number", range(1, len(TRUTH)))
def test_a_purge_that_is_interrupted_is_done_again(tmp_path, monkeypatch, number):
    """Whatever it has removed by then: while anything of the sweep is left, it is known to be one."""
    here, removed = place(str(tmp_path / "sweep")), []
    sweep_in(here.storage)

    def interrupted(storage, of=""):
        removed.append(of)
        if len(removed) == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "delete_parts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            purge(here)
    assert purge(here) == []
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("name", ["optuna.db", "report", "artifacts"])
def test_what_a_user_has_in_a_directory_is_no_view_of_a_sweep(tmp_path, name):
    """It would be written over by `emm run`, and removed by `emm purge`."""
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} is there already, and no storage.json says"):
        new_place(tmp_path, "memory://bucket/other")
    (tmp_path / name).rename(tmp_path / "thesis")
    here = new_place(tmp_path, "memory://bucket/other")
    remember(here)
    (tmp_path / name).mkdir()
    assert new_place(tmp_path, "memory://bucket/other").views == here.views


def test_a_run_that_ends_at_once_has_left_its_pointer(tmp_path, monkeypatch):
    """So that the same command goes on in what it has written by then."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sweep.run.driver.Run", killed)
    where = ["--out", str(tmp_path / "views"), "--storage", str(tmp_path / "store")]
    with pytest.raises(SystemExit):
        main(["run", "digits-width", *where])
    assert (tmp_path / "views/emm.log").exists()
    assert new_place(tmp_path / "views", str(tmp_path / "store")).views == tmp_path / "views"


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_directory_that_belongs_to_a_storage_takes_no_other_one(tmp_path, is_linked):
    views, url = tmp_path / "views", f"file://{tmp_path}/store"
    remember(new_place(views, url))
    (tmp_path / "link").symlink_to("views")
    out = tmp_path / "link" if is_linked else views
    with pytest.raises(UserError, match=f"belongs to the sweep in {url}; leave --storage out"):
        new_place(out, f"file://{tmp_path}/other")
    assert new_place(out, url).views == views
    assert place(str(out)).storage.url == url


def test_a_link_to_a_directory_is_the_same_sweep(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, link = place(str(tmp_path / "real")), place(str(tmp_path / "link"))
    assert sweep_key(fake_space(), real.storage) == sweep_key(fake_space(), link.storage)
    assert link.views == new_place(tmp_path / "link", None).views == real.views


# ---------------------------------------------------------------- pointers, links, rights of
# somebody else's


@pytest.fixture
def pointed(tmp_path):
    """A directory whose pointer names a storage with a sweep; emm's own."""
    here = new_place(tmp_path / "views", f"file://{tmp_path}/store")
    sweep_in(here.storage)
    here.storage.delete("trials/abc/result.json")
    remember(here, "7")
    return tmp_path / "views"


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert error.startswith("emm: error: ")
    assert error.count("\n") == 1
    return error


def test_a_notebook_finds_what_a_pointer_names(pointed):
    assert api.read(str(pointed)).name == "fake"


@pytest.mark.parametrize(
    "trick",
    [
        *("its group may write it", "others may write it", "another owner's"),
        *("a link", "a pipe", "no object", "a number"),
    ],
)
def test_a_pointer_that_somebody_else_may_have_written_is_not_followed(
    pointed, tmp_path, capsys, trick
):
    pointer, url = pointed / POINTER, "s3://me:hush@bucket/x?endpoint_override=evil:9000"
    pointer.write_text(json.dumps({"storage": url}))
    if trick.endswith("may write it"):
        pointer.chmod(0o602 if trick.startswith("others") else 0o620)
    elif trick == "another owner's":
        if os.geteuid():
            pytest.skip("only root can give files away")
        os.chown(pointer, 65534, 65534)
    elif trick == "a link":
        pointer.rename(tmp_path / "elsewhere")
        pointer.symlink_to(tmp_path / "elsewhere")
    elif trick == "a pipe":
        pointer.unlink()
        os.mkfifo(pointer, 0o600)
    else:
        pointer.write_text("[1]" if trick == "no object" else '{"storage": 1}')
    for command in ("status", "report", "purge", "sync"):
        error = refused(capsys, command, pointed)
        assert "give the URL of the storage" in error
        assert "hush" not in error
        if trick.endswith(("may write it", "another owner's")):
            assert "s3://…@bucket/x?endpoint_override=evil:9000" in error


def test_purge_through_a_pointer_is_of_the_sweep_that_it_was_written_for(pointed, tmp_path, capsys):
    store = Storage(str(tmp_path / "store"))
    for content in ({"storage": store.url, "id": "8"}, {"storage": store.url}):
        Storage(str(pointed)).write_json(POINTER, content, mode=0o600)
        assert store.url in refused(capsys, "purge", pointed, "--yes")
        assert store.exists(SWEEP)
    made = store.read_json(SWEEP)
    store.write_json(
        SWEEP, {**made, "id": None}
    )  # as older versions made it: two without an id need not be of one sweep
    assert store.url in refused(capsys, "purge", pointed, "--yes")
    store.write_json(SWEEP, made)
    Storage(str(pointed)).write_json(POINTER, {"storage": store.url, "id": "7"}, mode=0o600)
    with pytest.raises(SystemExit) as ended:
        main(["purge", str(pointed), "--yes"])
    assert ended.value.code == 0
    assert not store.list()
    assert not pointed.exists()


@pytest.mark.parametrize("name", [*VIEWS, *TRUTH])
def test_nothing_is_written_through_a_link(tmp_path, name):
    sweep_in(Storage(str(tmp_path / "sweep")))
    path = tmp_path / "sweep" / name
    if path.exists():
        path.rename(tmp_path / "victim")
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"is a link" if name != POINTER else r"can't be read"):
        check_views(place(str(tmp_path / "sweep")))


@pytest.mark.parametrize("command", ["report", "sync"])
def test_commands_that_read_write_through_no_link(tmp_path, capsys, command):
    storage = Storage(str(tmp_path / "sweep"))
    sweep_in(storage)
    storage.delete("trials/abc/result.json")
    (tmp_path / "victim").mkdir()
    for name in ("report", "optuna.db"):
        (tmp_path / "sweep" / name).symlink_to(tmp_path / "victim" / name)
    assert "is a link" in refused(capsys, command, tmp_path / "sweep")
    assert not list((tmp_path / "victim").iterdir())


@contextmanager
def as_nobody():
    """With the rights of somebody who owns nothing, where the tests run as root, who may do
    everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_that_cannot_be_written_is_read_and_the_rest_is_said_in_a_line(
    short_path, capsys
):
    storage = Storage(str(short_path / "sweep"))
    sweep_in(storage)
    storage.delete("trials/abc/result.json")
    for path, mode in ((short_path / "sweep", 0o555), (short_path, 0o755)):
        path.chmod(mode)
    before = {path.name: path.stat().st_mtime_ns for path in (short_path / "sweep").iterdir()}
    with as_nobody():
        for command in (("report",), ("sync",), ("purge", "--yes")):
            assert "can't be written" in refused(capsys, *command, short_path / "sweep")
        with pytest.raises(SystemExit) as ended:
            main(["status", str(short_path / "sweep")])
    (short_path / "sweep").chmod(0o755)
    assert ended.value.code == 0
    assert before == {
        path.name: path.stat().st_mtime_ns for path in (short_path / "sweep").iterdir()
    }


def test_what_a_run_makes_is_its_owner_s(tmp_path):
    """What was there stays as it was: somebody may share it with others."""
    (tmp_path / "shared").mkdir(mode=0o755)
    for name in ("shared", "new/deep"):
        here = new_place(tmp_path / name, f"{tmp_path}/store-of-{name}")
        create_private(here)
    modes = {
        path: stat.S_IMODE((tmp_path / path).stat().st_mode)
        for path in ("shared", "new/deep", "store-of-shared")
    }
    assert modes == {"shared": 0o755, "new/deep": 0o700, "store-of-shared": 0o700}


def test_the_log_is_its_owner_s_and_holds_no_secret(tmp_path):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        root.handlers = []  # `_log_to` would close pytest's
        cli_run._log_to(tmp_path / "emm.log")
        logging.getLogger("somebody").warning("no answer: %s", "http://me:hush@host:5000")
        (handler,) = root.handlers
        handler.close()
    finally:
        root.handlers = before
        root.setLevel(level)
    assert "http://…@host:5000" in (tmp_path / "emm.log").read_text()
    assert "hush" not in (tmp_path / "emm.log").read_text()
    assert stat.S_IMODE((tmp_path / "emm.log").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["100%", "a%20b", "what?", "a#b", "{x}", "ü @:;&='"])
def test_a_database_is_in_its_directory_whatever_that_is_called(tmp_path, name):
    directory = tmp_path / name
    directory.mkdir()
    Studies(fake_space((8,)), sqlite_url(directory / "optuna.db"))
    assert (directory / "optuna.db").stat().st_size
    assert list(tmp_path.iterdir()) == [directory]
    assert local_tracking(directory)[0] == sqlite_url(directory / "mlflow.db")


# ---------------------------------------------------------------- budget


def test_hours_of_devices_add_up_over_runs(tmp_path):
    storage, record = Storage(str(tmp_path)), SimpleNamespace()
    for _ in range(2):
        one = Budget(storage, Limits(hours=3.0), devices=0.5)
        for _ in range(4):
            assert one.ended() is None
            one.trial_progress(record, {"time_this_iter_s": 1800.0})
        one.write()
    assert hours_spent(storage) == pytest.approx(2.0)
    last = Budget(storage, Limits(hours=3.0), devices=2.0)
    last.trial_progress(record, {"time_this_iter_s": 1800.0})
    assert "the budget of 3 device hours is spent (3)" in last.ended()


def test_what_is_spent_is_written_now_and_then(tmp_path, monkeypatch):
    """So that a driver that is killed has spent it."""
    storage, clock = Storage(str(tmp_path)), SimpleNamespace(**vars(time))
    now = [1000.0]
    clock.monotonic = lambda: now[0]
    monkeypatch.setattr(budget, "time", clock)
    one = Budget(storage, Limits(), devices=2.0)
    for now[0], written in ((1020.0, 0.0), (1031.0, 1.0), (1060.0, 1.0), (1062.0, 2.0)):
        one.spend(900.0)
        assert hours_spent(storage) == pytest.approx(written)


def test_a_deadline_comes():
    now = time.time()
    for text, seconds in (("90s", 90), ("1.5m", 90), ("6h", 21_600), ("2d", 172_800)):
        assert parse_deadline(text) - now == pytest.approx(seconds, abs=5)
    at = datetime.now().astimezone() + timedelta(hours=1)
    assert parse_deadline(at.isoformat()) == pytest.approx(at.timestamp())
    for text in ("soon", "6", "-6h", "2020-01-01T00:00"):
        with pytest.raises(UserError, match="--deadline"):
            parse_deadline(text)


def test_a_time_means_the_same_elsewhere(monkeypatch):
    assert with_zone("6h") == "6h"
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    sent = with_zone("2199-06-01T18:00")
    assert sent == "2199-06-01T18:00:00-07:00"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert parse_deadline(sent) == datetime(2199, 6, 2, 1, tzinfo=UTC).timestamp()


def test_before_the_deadline_nothing_ends_and_after_it_everything(tmp_path):
    storage = Storage(str(tmp_path))
    assert Budget(storage, Limits(deadline=time.time() + 60), 1).ended() is None
    assert "the deadline has come" in Budget(storage, Limits(deadline=time.time() - 1), 1).ended()
    assert Budget(storage, Limits(), 1).ended() is None

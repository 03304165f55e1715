"""Where a sweep is kept, what it may cost, and its removal."""

import stat
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from sweep.budget import Budget, Limits, hours_spent, parse_deadline, with_zone
from sweep.lock import LOCK, Lock
from sweep.places import new_place, place, purge, remember
from sweep.summary import FINAL, SWEEP
from sweep.ui import sweep_key
from tests.fakes import fake_space
from trainables.errors import UserError
from trainables.storage import Storage


def sweep_in(storage):
    space = fake_space()
    storage.write_json(SWEEP, {"sweep": space.name, "space": space.model_dump(mode="json"), "configurations": {}})
    storage.write("trials/abc/result.json", b"{}")
    storage.write("spent/x.json", b'{"device_hours": 1.5}')
    storage.write_json(FINAL, {})
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


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_storage_is_the_place_of_its_views(tmp_path, form):
    here = place(form.format(tmp_path / "x"))
    assert here.views == tmp_path / "x"
    remember(here)
    assert not (tmp_path / "x").exists(), "nothing is to be remembered"
    assert sweep_key(fake_space(), here.storage) == sweep_key(fake_space(), Storage(str(tmp_path / "x")))
    assert place("memory://bucket/x").views is None


def test_credentials_are_no_part_of_a_sweep_s_name():
    keys = {sweep_key(fake_space(), Storage(f"s3://me:{word}@bucket/x?region=us-east-1")) for word in ("a", "b")}
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


@pytest.mark.parametrize("url", [None, "memory://bucket/purge"])
def test_purge_removes_a_sweep_and_nothing_else(tmp_path, url):
    here = place(url or str(tmp_path / "sweep"))
    storage = here.storage
    with pytest.raises(UserError, match="holds no sweep"):
        purge(here)
    sweep_in(storage)
    storage.write("thesis.tex", b"")
    if url is None:
        storage.write("report-k0.25/index.html", b"")
    storage.write(f"{LOCK}dead.json", b'{"token": "dead", "host": "elsewhere", "pid": 1, "renewed": 0, "replaces": []}')
    with Lock(storage), pytest.raises(UserError, match="is being run by process"):
        purge(here)
    assert storage.exists("trials/abc/result.json")
    assert purge(here) == ([] if url else ["thesis.tex"])
    assert storage.list() == ["thesis.tex"]
    if url is None:
        sweep_in(storage)
        storage.delete("thesis.tex")
        assert purge(here) == []
        assert not (tmp_path / "sweep").exists()


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

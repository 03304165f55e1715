"""Files that are whole or absent, and checkpoints that are whole, passed over, or refused."""

import io
import logging
import os
import pickle
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from tests.trials import start
from trainables.config.network import CustomNetwork
from trainables.errors import DamagedFile, UserError
from trainables.storage import Storage
from trainables.text import RedactedFormatter, redacted
from trainables.trial import checkpoint

STATE = {
    "weights": [torch.arange(5.0)],
    "best": (3, [torch.ones(2)]),
    "position": 7,
    "optimizer": {0: {"step": torch.tensor(1.0)}},
}


# ---------------------------------------------------------------- files


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a machine that loses power may keep the name and lose the content."""
    storage, synced, sync = Storage(str(tmp_path)), [], os.fsync

    def listen(descriptor):
        synced.append((os.fstat(descriptor).st_size, (tmp_path / "x").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", listen)
    storage.write("x", b"12345")
    assert synced == [(5, False)]
    assert (tmp_path / "x").exists()


def test_parts_of_killed_writes_are_not_listed(tmp_path):
    (tmp_path / "checkpoint-00000000000001.pt.1234abcd.part").write_bytes(b"half")
    storage = Storage(str(tmp_path))
    assert storage.list() == []
    assert checkpoint.load_newest(storage) is None


def test_a_trial_that_starts_removes_the_parts_of_killed_writes_from_its_own_directory(tmp_path):
    sweep, part = Storage(str(tmp_path)), "checkpoint-00000000000001.pt.1234abcd.part"
    directory = start(sweep).files.storage
    other = Storage(str(tmp_path / "trials" / "of another"))
    for place in (sweep, directory, other):
        place.write("mine.part", b"")
        Path(place.path(part)).write_bytes(b"half")
    start(sweep)
    left = [path.parent.name for path in tmp_path.rglob(part)]
    assert sorted(left) == sorted([tmp_path.name, "of another"])
    assert directory.exists("mine.part"), "of the user's"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_link_to_a_directory_is_the_same_storage(tmp_path, form):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real, link = (Storage(form.format(tmp_path / name / "sweep")) for name in ("real", "link"))
    assert link.root == real.root
    assert link.identity == real.identity
    assert (link / "x").root == (real / "x").root


def test_two_urls_of_one_storage():
    of, at = "region=us-east-1", "endpoint_override=127.0.0.1:1"
    first, *same = (
        Storage(f"s3://{url}")
        for url in (
            f"b/x?{of}&{at}",
            f"b/x/?{of}&{at}",
            f"KEY:SECRET@b/x?{of}&{at}",
            f"b/x?{at}&{of}",
        )
    )
    assert all(first.is_same(other) for other in same)
    assert first.identity == f"s3://b/x?{of}&{at}", "by which MLflow has known it ever since"
    assert Storage("memory://b/x/").is_same(Storage("memory://b/x"))
    others = f"s3://b/y?{of}&{at}", f"s3://c/x?{of}&{at}", f"s3://b/x?{of}", "memory://b/x"
    assert not any(first.is_same(Storage(url)) for url in others)


def test_a_private_file_is_never_open_to_others(tmp_path, monkeypatch):
    seen, sync = [], os.fsync

    def listen(descriptor):
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", listen)
    Storage(str(tmp_path)).write("x", b"secret", mode=0o600)
    assert [*seen, stat.S_IMODE((tmp_path / "x").stat().st_mode)] == [0o600, 0o600]


# ---------------------------------------------------------------- what is shown

SIGNED = "https://host/x?X-Amz-Date=2026&X-Amz-Credential=hush/2&X-Amz-Security-Token=hush%2B&X-Amz-Signature=hush"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            SIGNED,
            "https://host/x?X-Amz-Date=2026&X-Amz-Credential=…&X-Amz-Security-Token=…&X-Amz-Signature=…",
        ),
        ("abfs://c@host/x?sv=2024&sig=hush", "abfs://…@host/x?sv=2024&sig=…"),
        (
            "gs://b/x?GoogleAccessId=me&Signature=hush&Expires=1",
            "gs://b/x?GoogleAccessId=me&Signature=…&Expires=1",
        ),
        (
            "ftp://h/x?pwd=hush&pass=hush;hush&credentials=hush",
            "ftp://h/x?pwd=…&pass=…&credentials=…",
        ),
        ("ftp://h/x?user=me;sas=hush&passwd=hush", "ftp://h/x?user=me;sas=…&passwd=…"),
        ("http://h/x#access_token=hush", "http://h/x#…"),
        (
            "MLflow at http://me:hush@h:5000/x: no, http://me:hush@h:1 is",
            "MLflow at http://…@h:5000/x: no, http://…@h:1 is",
        ),
        ("mysql+pymysql://me:hu@sh@h/db", "mysql+pymysql://…@h/db"),
        ("'s3://AKIA:hu/sh+@bucket/x' can't", "'s3://…@bucket/x' can't"),
        ("--train https:/me:hush@h:1/x.zip: no", "--train https:/…@h:1/x.zip: no"),
        ("--address me:hush@head:6379: no", "--address …@head:6379: no"),
        (
            "with url: /api/2.0/mlflow?token=hush (Caused",
            "with url: /api/2.0/mlflow?token=… (Caused",
        ),
    ],
)
def test_secrets_are_not_shown_in_a_url_or_a_text_with_urls(text, shown):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a@b?region=x&scheme=http&endpoint_override=host:9000",
        "http://host:5000/a@b",
        "http://127.0.0.1:5000 and me@host",
        "/a:b@c",
        "file:/a@b",
        "file:///a:b@c",
        "trial a: N=8 at 10:15:00, seed=1; k=1/3",
        "/tmp/a#b/c",
    ],
)
def test_what_is_no_secret_is_shown(text):
    assert redacted(text) == text


def test_no_library_gets_a_secret_into_a_log():
    """Neither by its message nor by the exception's."""
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("of somebody")
    handler.setFormatter(RedactedFormatter())
    logger.addHandler(handler)
    try:
        raise OSError("no answer from http://me:hush@host:5000")
    except OSError:
        logger.exception("%s failed", "http://me:hush@host:5000/api")
    finally:
        logger.removeHandler(handler)
    assert "http://…@host:5000/api failed" in stream.getvalue()
    assert "OSError: no answer from http://…@host" in stream.getvalue()
    assert "hush" not in stream.getvalue()


def test_relative_paths_stay_where_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("here")
    monkeypatch.chdir("/")
    storage.write("x", b"1")
    assert (tmp_path / "here" / "x").read_bytes() == b"1"


def test_urls(tmp_path):
    storage = Storage(f"file://{tmp_path}/x")
    assert storage.is_local
    (storage / "trials").write("a", b"1")
    assert (tmp_path / "x" / "trials" / "a").read_bytes() == b"1"
    assert Storage(f"file://{tmp_path}/x/").list("trials") == ["a"]


def test_options_of_a_url_stay_at_its_end(tmp_path):
    """s3://bucket/sweep?region=… / trials is s3://bucket/sweep/trials?region=…"""
    child = Storage(f"file://{tmp_path}/x?region=north") / "trials" / "k"
    assert child.url == f"file://{tmp_path}/x/trials/k?region=north"
    assert child.root == f"{tmp_path}/x/trials/k"
    question = Storage(str(tmp_path / "what?")) / "trials"
    assert question.root == str(tmp_path / "what?" / "trials"), "a directory's name is not a URL"


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "file:///a b"])
def test_a_url_that_nobody_knows(url):
    with pytest.raises(UserError, match=r"storage: .* can't be opened"):
        Storage(url)


# ---------------------------------------------------------------- checkpoints


def same(a, b):
    """Equality of nested states."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def state(position):
    return {**STATE, "position": position}


def as_bytes(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.fixture
def saved(tmp_path):
    storage = Storage(str(tmp_path))
    for position in (5, 90, 1000):
        checkpoint.save(storage, position, state(position))
    return storage


def test_the_newest_is_loaded_and_two_are_kept(saved):
    assert same(checkpoint.load_newest(saved), state(1000))
    assert checkpoint.names(saved) == [
        "checkpoint-00000000000090.pt",
        "checkpoint-00000000001000.pt",
    ]
    saved.write("weights.pt", b"")
    checkpoint.delete_all(saved)
    assert saved.list() == ["weights.pt"]
    assert checkpoint.load_newest(saved) is None


def test_of_those_that_are_left_the_newest_is(saved):
    checkpoint.delete_all(saved, but=1)
    assert checkpoint.names(saved) == ["checkpoint-00000000001000.pt"]
    checkpoint.delete_all(saved, but=2)
    assert len(checkpoint.names(saved)) == 1


@pytest.mark.parametrize(("took", "until_due"), [(1.0, 60.0), (3.0, 60.0), (9.0, 180.0)])
def test_checkpoints_take_a_twentieth_of_the_time_at_most(tmp_path, monkeypatch, took, until_due):
    now = [100.0]

    def slow(*_):
        now[0] += took

    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(checkpoint, "save", slow)
    kept = checkpoint.Checkpoints(Storage(str(tmp_path)), 60.0)
    now[0] += 61
    assert kept.is_due
    kept.save(7, {})
    assert (kept.position, kept.is_due) == (7, False)
    now[0] += until_due - 1
    assert not kept.is_due
    now[0] += 2
    assert kept.is_due


def test_a_damaged_newest_is_passed_over(saved, caplog):
    newest = "checkpoint-00000000001000.pt"
    whole = saved.read(newest)
    middle = bytearray(whole)
    middle[whole.index(torch.arange(5.0).numpy().tobytes()) + 6] ^= 1  # one bit of one weight
    for content in (
        b"",
        whole[:1],
        whole[: len(whole) // 2],
        whole[:-1],
        bytes(middle),
        b"\x00" * len(whole),
        b"text",
    ):
        saved.write(newest, content)
        caplog.clear()
        assert same(checkpoint.load_newest(saved), state(90))
        assert newest in caplog.text
    saved.write(newest, whole)
    assert same(checkpoint.load_newest(saved), state(1000))


def test_any_damaged_byte_is_found_or_harmless(caplog):
    """Every byte of a checkpoint in turn: the state is what it was, or the file is passed over."""
    caplog.set_level(logging.ERROR)
    whole = as_bytes(STATE)

    class OneFile:
        content = whole

        def read(self, name, most=None):
            return self.content

        def path(self, name):
            return name

    file = OneFile()
    assert same(checkpoint.load(file, "x"), STATE)
    refused = 0
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        file.content = bytes(damaged)
        loaded = checkpoint.load(file, "x")
        assert loaded is None or same(loaded, STATE), index
        refused += loaded is None
    assert refused > len(whole) / 3


def test_if_all_are_damaged_it_starts_anew_and_the_new_ones_are_kept(saved):
    for name in checkpoint.names(saved):
        saved.write(name, b"")
    assert checkpoint.load_newest(saved) is None
    checkpoint.save(saved, 5, state(5))
    assert same(checkpoint.load_newest(saved), state(5))
    checkpoint.save(saved, 10, state(10))
    checkpoint.save(saved, 15, state(15))
    assert same(checkpoint.load_newest(saved), state(15))
    assert len(checkpoint.names(saved)) == 2


def test_a_damaged_newest_is_dropped_by_the_next_save(saved):
    saved.write("checkpoint-00000000001000.pt", b"")
    checkpoint.save(saved, 95, state(95))
    assert checkpoint.names(saved) == [
        "checkpoint-00000000000090.pt",
        "checkpoint-00000000000095.pt",
    ]


class Code:
    """Pickles as a call."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_checkpoint_with_code_is_refused(saved, tmp_path):
    marker = str(tmp_path / "executed")
    for content in (
        as_bytes({**STATE, "x": Code(marker)}),
        pickle.dumps({**STATE, "x": Code(marker)}),
    ):
        saved.write("checkpoint-00000000002000.pt", content)
        assert same(checkpoint.load_newest(saved), state(1000))
        assert not os.path.exists(marker)
    torch.load(io.BytesIO(as_bytes({"x": Code(marker)})), weights_only=False)
    assert os.path.exists(marker), "the trap is a real one"


@pytest.mark.parametrize("number", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_a_number_of_64_bits_is_read_as_it_was_written(tmp_path, number):
    storage = Storage(str(tmp_path))
    storage.write_json("x.json", {"seed": number})
    assert storage.read_json("x.json") == {"seed": number}
    assert CustomNetwork(builder="a:b", options={"seed": number}).options == {"seed": number}


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_one_that_no_64_bits_hold_is_refused_before_it_is_written(tmp_path, number):
    (tmp_path / "x.json").write_text(str(number))
    with pytest.raises(DamagedFile, match="digits, which no 64 bits hold"):
        Storage(str(tmp_path)).read_json("x.json")
    for options in ({"seed": number}, {"deep": [{"seed": number}]}):
        with pytest.raises(ValidationError, match="digits, which no 64 bits hold"):
            CustomNetwork(builder="a:b", options=options)


def test_a_missing_file_is_none(tmp_path):
    assert checkpoint.load(Storage(str(tmp_path)), "weights.pt") is None


def test_a_name_that_is_not_utf_8_is_refused_in_a_line(tmp_path):
    """pyarrow knows no other; a file system does."""
    with pytest.raises(UserError, match="its name is not UTF-8"):
        Storage(f"{tmp_path}/b\udcff")

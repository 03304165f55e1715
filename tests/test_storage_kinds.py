"""What every storage promises, whatever is behind its URL: a directory, fsspec, an object store.

A new kind is a line in KINDS.
"""

import pickle

import pytest
import torch
from pyarrow import fs

from sweep.store.lock import Lock, holder_of
from trainables.errors import DamagedFile, UserError
from trainables.storage import Storage
from trainables.trial import checkpoint

# URL of a place of its own, by the name of the kind; {name} is the test's, {path} its directory
KINDS = {
    "directory": "{path}/sweep",
    "odd directory": "{path}/with spaces, ümläuts, # and 100%",
    "directory that is not there yet": "{path}/not/there/yet",
    "file URL": "file://{path}/sweep",
    "fsspec": "memory://bucket/{name}",
    "S3": "s3://emm/{name}?scheme=http&region=us-east-1&endpoint_override={host}",
}


@pytest.fixture(params=KINDS)
def storage(request, tmp_path):
    url = KINDS[request.param]
    host = request.getfixturevalue("s3_host") if "{host}" in url else ""
    return Storage(url.format(path=tmp_path, name=f"test-{tmp_path.name}", host=host))


def everything(storage, directory=""):
    """All names that are there, parts of broken writes included."""
    selector = fs.FileSelector(storage.path(directory), allow_not_found=True)
    return sorted(info.base_name for info in storage.filesystem.get_file_info(selector))


# ---------------------------------------------------------------- files


def test_what_is_written_is_read(storage):
    storage.write("trials/x/a.bin", b"\x00\xff")
    storage.write("trials/x/empty", b"")
    assert storage.read("trials/x/a.bin") == b"\x00\xff"
    assert storage.read("trials/x/empty") == b""
    storage.write("trials/x/a.bin", b"new")
    assert storage.read("trials/x/a.bin") == b"new"
    large = bytes(range(256)) * 2**14
    storage.write("large", large)
    assert storage.read("large") == large


def test_json_is_read_as_it_was_written(storage):
    value = {"ü": [1, None, 0.1], "a": {"b": True}}
    storage.write_json("x.json", value)
    assert storage.read_json("x.json") == value
    storage.write("x.json", b'{"a": ')
    with pytest.raises(DamagedFile, match=r"x\.json is damaged"):
        storage.read_json("x.json")


def test_files_and_directories_are_listed_by_name(storage):
    for name in ("trials/x/b", "trials/x/a", "trials/xy/c", "trials/x/deeper/d", "other"):
        storage.write(name, b"1")
    assert storage.list("trials") == ["x", "xy"]
    assert storage.list("trials/x") == ["a", "b", "deeper"], "not what only begins alike"
    assert storage.list() == ["other", "trials"]
    assert storage.exists()
    assert storage.exists("trials")
    assert storage.exists("trials/x/a")
    assert not storage.exists("trials/x/c")


def test_what_is_deleted_is_gone(storage):
    storage.write("trials/x/a", b"1")
    storage.write("trials/x/b", b"2")
    storage.delete("trials/x/a")
    storage.delete("trials/x/a")
    assert storage.list("trials/x") == ["b"]
    assert storage.read("trials/x/a") is None


def test_what_is_missing_is_no_error(storage):
    assert storage.read("x") is None
    assert storage.read_json("x/y") is None
    assert storage.list("x") == storage.list() == []
    assert not storage.exists("x")
    storage.delete("x")
    storage.delete_parts()
    assert everything(storage) == [], "looking creates nothing"


@pytest.mark.parametrize("name", ["a b", "ü", "50 % #1", "a+b=c&d", "trial,N=8"])
def test_a_name_is_a_name(storage, name):
    storage.write(f"trials/{name}", b"1")
    assert storage.list("trials") == [name]
    assert storage.read(f"trials/{name}") == b"1"


# ---------------------------------------------------------------- whole or absent


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_broken_write_leaves_the_old_file(storage, error):
    storage.write("x/file", b"old")

    def write():
        with storage.writing("x/file") as stream:
            stream.write(b"half of the n")
            assert storage.read("x/file") == b"old", "until the new one is whole"
            raise error

    with pytest.raises(error):
        write()
    assert storage.read("x/file") == b"old"
    assert everything(storage, "x") == ["file"]


def test_parts_are_not_listed_and_are_deleted_by_the_name_they_were_for(storage):
    parts = ["file.1234abcd.part", "other.1234abcd.part"]
    storage.filesystem.create_dir(storage.root, recursive=True)
    for part in parts:
        with storage.filesystem.open_output_stream(storage.path(part)) as stream:
            stream.write(b"half")
    storage.write("file", b"whole")
    storage.write("mine.part", b"of the user's")
    assert storage.list() == ["file"]
    storage.delete_parts("file")
    assert everything(storage) == ["file", "mine.part", parts[1]]
    storage.delete_parts()
    assert everything(storage) == ["file", "mine.part"]


def test_a_file_that_is_larger_than_expected_is_not_read(storage):
    storage.write("x", b"12345")
    assert storage.read("x", most=5) == b"12345"
    with pytest.raises(DamagedFile, match="5 bytes, and at most 4"):
        storage.read("x", most=4)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(storage):
    for position in (1, 2):
        checkpoint.save(storage, position, {"position": position, "weights": torch.arange(1000.0)})
    newest = checkpoint.names(storage)[-1]
    whole = storage.read(newest)
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + b"\x55" * 64 + whole[middle + 64 :]):
        storage.write(newest, damaged)
        assert checkpoint.load_newest(storage)["position"] == 1


# ---------------------------------------------------------------- one storage


def test_a_directory_in_it_is_a_storage(storage):
    inside = storage / "trials" / "x"
    inside.write("a", b"1")
    assert storage.read("trials/x/a") == b"1"
    assert (storage / "trials/x").list() == ["a"]
    assert (storage / "trials/x").identity == inside.identity != storage.identity


def test_a_copy_in_another_process_is_the_same_storage(storage):
    storage.write("x/a", b"1")
    again = pickle.loads(pickle.dumps(storage / "x"))
    assert again.read("a") == b"1"
    again.write("b", b"2")
    assert storage.read("x/b") == b"2"
    assert (again.url, again.identity) == ((storage / "x").url, (storage / "x").identity)


def test_one_at_a_time_holds_its_lock(storage):
    with Lock(storage) as lock:
        assert lock.trouble() is None
        with pytest.raises(UserError, match="is being run by process"), Lock(storage):
            pass
        assert holder_of(storage)["token"] == lock.me["token"]
    assert holder_of(storage) is None
    assert storage.list() == []


def test_a_reserved_name_is_given_once(storage):
    """In directories alone; nothing on an object store asks for it."""
    if storage.is_local:
        assert [storage.reserve("name") for _ in range(2)] == [True, False]
        assert storage.read("name") == b""

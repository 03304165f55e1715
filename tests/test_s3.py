"""Object storage: a loopback S3 server of moto's, through pyarrow; and a file system that only fsspec knows."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import torch
from moto.server import ThreadedMotoServer

from sweep.driver import Sweep, check_sweep
from sweep.lock import Lock, holder_of
from sweep.places import place, purge
from sweep.summary import summarize
from tests.fakes import fake_space
from trainables import checkpoint
from trainables.errors import UserError
from trainables.result import read_all
from trainables.storage import Storage, redacted

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket, as (bucket URL, options of the URL)."""
    secrets = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secrets.items():
            patch.setenv(name, value)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        server = ThreadedMotoServer("127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        build_opener(ProxyHandler({})).open(Request(f"http://{host}:{port}/emm", method="PUT"), timeout=20)
        yield "s3://emm", f"?scheme=http&region=us-east-1&endpoint_override={host}:{port}"
        server.stop()


@pytest.fixture(params=["s3", "fsspec"])
def storage(request, tmp_path):
    name = f"test-{tmp_path.name}"
    if request.param == "fsspec":
        return Storage(f"memory://bucket/{name}")
    base, options = request.getfixturevalue("bucket")
    return Storage(f"{base}/{name}{options}")


def test_write_read_list_delete(storage):
    assert not storage.is_local
    assert storage.read("trials/x/a.bin") is None
    assert storage.list() == storage.list("trials") == []
    storage.write("trials/x/a.bin", b"\x00\xff")
    storage.write_json("trials/x/b.json", {"ü": 1})
    assert (storage / "trials" / "x").read("a.bin") == b"\x00\xff"
    assert storage.list("trials/x") == ["a.bin", "b.json"]
    assert storage.list("trials") == ["x"]
    storage.write("trials/x/a.bin", b"new")
    assert storage.read("trials/x/a.bin") == b"new"
    storage.delete("trials/x/a.bin")
    storage.delete("trials/x/a.bin")
    assert storage.list("trials/x") == ["b.json"]


def test_what_is_interrupted_leaves_the_old_content(storage):
    storage.write("file", b"old")

    def write():
        with storage.writing("file") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert storage.read("file") == b"old"
    assert storage.list() == ["file"]


def test_a_truncated_or_flipped_checkpoint_is_passed_over_for_the_one_before(storage):
    def damage(content):
        return content[: len(content) // 2], content[: len(content) // 2] + b"\x55" * 64 + content[len(content) // 2 + 64 :]

    for position in (1, 2):
        checkpoint.save(storage, position, {"position": position, "weights": torch.arange(1000.0)})
    whole = storage.read(checkpoint.names(storage)[-1])
    for broken in damage(whole):
        storage.write(checkpoint.names(storage)[-1], broken)
        assert checkpoint.load_newest(storage)["position"] == 1


def test_a_lock(storage):
    with Lock(storage) as lock:
        assert lock.is_mine()
        with pytest.raises(UserError, match="is being run by process"), Lock(storage):
            pass
        assert holder_of(storage)["token"] == lock.me["token"]
    assert holder_of(storage) is None
    assert storage.list() == []


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_there(bucket):
    with pytest.raises(UserError, match="can't be"), Lock(Storage(f"s3://nosuch/x{bucket[1]}")):
        pass
    with pytest.raises(UserError, match="can't be read"):
        check_sweep(Storage("s3://emm/x?scheme=http&region=us-east-1&endpoint_override=127.0.0.1:1"), Sweep(fake_space()))


def test_credentials_are_not_shown():
    url = "s3://AKIA:hush@bucket/a@b?region=x&access_key=hush&session_token=hush&scheme=http"
    assert redacted(url) == "s3://…@bucket/a@b?region=x&access_key=…&session_token=…&scheme=http"
    assert redacted("s3://bucket/a@b") == "s3://bucket/a@b"
    with pytest.raises(UserError) as error:
        Storage("nosuch://AKIA:hush@bucket/x")
    assert "hush" not in str(error.value)


def fake_sweep(url, *arguments):
    command = [sys.executable, "-m", "tests.fake_sweep", url, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(url):
    return [(r.spec.name, r.spec.seed, r.spec.n, r.r_mem) for r in read_all(Storage(url))[0]]


@pytest.mark.timeout(280)
@pytest.mark.slow
def test_a_sweep_that_is_killed_with_its_disk_goes_on_from_the_bucket_to_the_same_end(bucket, tmp_path):
    """Each driver has an Optuna database of its own, in a fresh temporary directory: nothing is left but the bucket."""
    url = f"{bucket[0]}/sweep{bucket[1]}"
    first = fake_sweep(url, "1", "8")
    while first.poll() is None and len(outcome(url)) < 2:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = fake_sweep(url, "1", "8")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    undisturbed = fake_sweep(str(tmp_path / "local"), "1", "8")
    undisturbed.communicate(timeout=120)
    assert outcome(url) == outcome(str(tmp_path / "local"))
    (study,) = summarize(Storage(url)).studies
    assert study.verdict.state == "found"
    assert purge(place(url)) == []
    assert Storage(url).list() == []

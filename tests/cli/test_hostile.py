"""Sweeps that somebody else made, or a disk damaged: reading ends, in a line that names the file,
and harms nothing."""

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException

from sweep.analysis.summary import summarize
from sweep.cli.main import main
from sweep.run.retry import reopen_failed
from sweep.store.files import SWEEP, read_space
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.errors import DamagedFile, UserError
from trainables.storage import Storage
from trainables.trial.result import (
    MEASUREMENT,
    RESULT,
    STARTED,
    read_all,
    read_measurement,
    trial_directory,
)

SPACE = fake_space((8,))


@pytest.fixture(scope="module")
def digits():
    return load(Digits())


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A sweep of three trials."""
    storage = Storage(str(tmp_path_factory.mktemp("whole")))
    write_sweep(storage, SPACE, digits, trials=3)
    return storage


@pytest.fixture
def sweep(whole, tmp_path):
    shutil.copytree(whole.root, tmp_path / "sweep")
    return Storage(str(tmp_path / "sweep"))


def first_key(sweep):
    return read_all(sweep).results[0].training_key


def changed(sweep, **fields):
    """The first result, with other fields: as text, since some are more than JSON here writes."""
    content = json.loads(trial_directory(sweep, first_key(sweep)).read(RESULT))
    for path, value in fields.items():
        *sections, name = path.split("__")
        node = content
        for section in sections:
            node = node[section]
        node[name] = value
    return json.dumps(content)


DAMAGE = {
    "truncated": lambda sweep: changed(sweep)[:200],
    "empty": lambda sweep: "",
    "not Unicode": lambda sweep: b"\xff\xfe{}",
    "a list": lambda sweep: "[1, 2]",
    "null": lambda sweep: "null",
    "NaN": lambda sweep: changed(sweep).replace('"r_mem": ', '"r_mem": NaN, "x": ', 1),
    "infinite": lambda sweep: changed(sweep).replace('"seconds": 40.0', '"seconds": 1e400', 1),
    "a wrong type": lambda sweep: changed(sweep, r_mem="much"),
    "R_mem of 3": lambda sweep: changed(sweep, r_mem=3.0),
    "more copies than samples": lambda sweep: changed(sweep, n_memorized=10**6),
    "10^400 images": lambda sweep: changed(sweep, spec__n=10**400),
    "10^12 images": lambda sweep: changed(sweep, spec__n=10**12),
    "seed 10^12": lambda sweep: changed(sweep, spec__seed=10**12),
    "nested without end": lambda sweep: "[" * 10**6,
    "of another directory": lambda sweep: changed(sweep, training_key="../../victim/trials/v1"),
    "of another trial": lambda sweep: changed(sweep, training_key="0" * 32),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_passed_over_and_said(sweep, damage):
    directory, content = trial_directory(sweep, first_key(sweep)), DAMAGE[damage](sweep)
    directory.write(RESULT, content if isinstance(content, bytes) else content.encode())
    results, started, damaged = read_all(sweep)
    assert (len(results), started) == (2, [])
    (line,) = damaged
    assert directory.path(RESULT) in line
    assert "\n" not in line
    assert len(line) < 600
    summary = summarize(sweep)
    assert summary.as_json()["passed_over"] == [line]
    assert summary.studies[0].verdict.n_trials == 2


def test_a_pipe_in_place_of_a_file_is_not_waited_for(sweep):
    directory = trial_directory(sweep, first_key(sweep))
    directory.delete(RESULT)
    os.mkfifo(directory.path(RESULT))
    assert len(read_all(sweep).results) == 2
    assert "no regular file" in read_all(sweep).damaged[0]


def test_a_huge_file_is_not_read(sweep):
    directory = trial_directory(sweep, first_key(sweep))
    os.truncate(directory.path(RESULT), 2**40)  # a hole: it takes no room on the disk
    (line,) = read_all(sweep).damaged
    assert "1,099,511,627,776 bytes" in line


def test_a_huge_measurement_is_not_read(sweep):
    result = read_all(sweep).results[0]
    os.truncate(trial_directory(sweep, result.training_key).path(MEASUREMENT), 2**40)
    with pytest.raises(DamagedFile, match="1,099,511,627,776 bytes"):
        read_measurement(sweep, result)


def test_what_is_no_trial_is_not_looked_at(sweep):
    for name in (".DS_Store", "notes.txt", "0" * 31, "0" * 33, "A" * 32):
        sweep.write(f"trials/{name}", b"")
    sweep.write(f"trials/{'0' * 32}", b"a file in the place of a directory")
    results, _, damaged = read_all(sweep)
    assert len(results) == 3
    assert not damaged


def test_a_key_is_no_way_into_another_sweep(sweep, digits, tmp_path):
    """Neither are its pictures drawn, nor is its failed trial opened again."""
    victim = Storage(str(tmp_path / "victim"))
    write_sweep(victim, SPACE, digits, trials=1)
    (named,) = SPACE.configurations
    failed = write_trial(
        victim, SPACE, named, digits, 40, 1, complete=False, cause="a network that raises"
    )
    key = f"../../victim/trials/{failed.training_key}"
    directory = trial_directory(sweep, first_key(sweep))
    content = {**json.loads(failed.model_dump_json()), "training_key": key}
    directory.write(RESULT, json.dumps(content).encode())
    assert not [
        result for result in summarize(sweep).studies[0].results if result.training_key == key
    ]
    assert not [result for result in reopen_failed(sweep, SPACE) if result.training_key == key]
    assert trial_directory(victim, failed.training_key).exists(RESULT)
    assert not trial_directory(victim, failed.training_key).exists(STARTED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../../outside"}, "name"),
        ({"name": "s3://bucket/x"}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"search": {"n_low": 2, "n_high": 10**12}}, "n_high"),
        ({"vary": {"network.width": "8"}}, "vary"),
    ],
)
def test_a_space_that_is_none_is_refused_in_one_line(sweep, change, words):
    content = sweep.read_json(SWEEP)
    sweep.write_json(SWEEP, {**content, "space": {**content["space"], **change}})
    with pytest.raises(DamagedFile, match=words) as caught:
        read_space(sweep)
    assert str(caught.value).startswith(f"{sweep.shown}/{SWEEP}")
    assert "\n" not in str(caught.value)


def test_millions_of_configurations_are_refused_before_they_are_made(sweep):
    vary = {f"trainer.{name}": list(range(1, 300)) for name in ("length", "batch", "warmup")}
    content = sweep.read_json(SWEEP)
    sweep.write_json(SWEEP, {**content, "space": {**content["space"], "vary": vary}})
    with pytest.raises(UserError, match="26,730,899 configurations"):
        summarize(sweep)


def test_nesting_without_end_is_one_line(tmp_path, capsys):
    deep, file = "[" * 100_000, tmp_path / "deep.yaml"
    file.write_text(f"base: {deep[:20_000]}")
    for arguments in (["digits", "--set", f"network.width={deep}"], [str(file)]):
        with pytest.raises(SystemExit) as left:
            main(["plan", *arguments])
        assert left.value.code == 2
        error = capsys.readouterr().err
        assert error.endswith("it is nested too deeply\n")
        assert error.count("\n") == 1


@pytest.mark.parametrize("file", ["priors.json", "final.json", "spent/a.json", SWEEP])
@pytest.mark.parametrize("content", [b"{", b"[1]", b'{"a": 1}', b'{"a": {"b": []}}'])
def test_other_damaged_files_are_one_line_and_exit_code_2(sweep, file, content, capsys):
    sweep.write(file, content)
    with pytest.raises(SystemExit) as left:
        main(["status", sweep.root])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"emm: error: {sweep.root}/{file}")
    assert error.count("\n") == 1


def saved(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def claiming(kept, shape):
    """The archive, with a head of d1 that promises other values than are there."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(kept)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "d1.npy":
                head = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    head, {"descr": "<f8", "fortran_order": False, "shape": shape}
                )
                content = head.getvalue() + content[128:]
            new.writestr(name, content)
    return buffer.getvalue()


MEASURED = {
    "no archive": lambda kept, arrays: b"not an archive",
    "a part": lambda kept, arrays: kept[: len(kept) // 2],
    "10^12 entries": lambda kept, arrays: claiming(kept, (10**12,)),
    "10^400 entries": lambda kept, arrays: claiming(kept, (10**400,)),
    "no distances": lambda kept, arrays: saved(images=arrays["images"], subset=arrays["subset"]),
    "other lengths": lambda kept, arrays: saved(**{**arrays, "d2": arrays["d2"][:-1]}),
    "beyond the subset": lambda kept, arrays: saved(**{**arrays, "i1": arrays["i1"] + 10**6}),
    "beyond the data": lambda kept, arrays: saved(**{**arrays, "subset": arrays["subset"] + 10**6}),
    "no number": lambda kept, arrays: saved(**{**arrays, "d1": arrays["d1"] * np.nan}),
    "code": lambda kept, arrays: saved(**{**arrays, "d1": np.array([print], dtype=object)}),
}


@pytest.mark.parametrize("damage", MEASURED)
def test_a_damaged_measurement_costs_its_pictures_only(sweep, damage, tmp_path, capsys):
    directory = trial_directory(sweep, first_key(sweep))
    kept = directory.read(MEASUREMENT)
    with np.load(io.BytesIO(kept)) as archive:
        arrays = dict(archive)
    content = MEASURED[damage](kept, arrays)
    for record in read_all(sweep).results:  # whichever of them is shown
        trial_directory(sweep, record.training_key).write(MEASUREMENT, content)
    with pytest.raises(SystemExit) as left:
        main(["report", sweep.root, "--out", str(tmp_path / "report")])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert "passed over: " in said
    assert MEASUREMENT in said
    assert "is damaged" in (tmp_path / "report/index.html").read_text()


def test_a_full_disk_is_one_line(sweep, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Storage, "write_json", full)
    with pytest.raises(SystemExit) as ended:
        main(["report", sweep.root])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert (
        error == "emm: error: [Errno 28] No space left on device; make room, or write elsewhere\n"
    )


def test_a_full_disk_under_a_database_is_one_line(sweep, capsys, monkeypatch):
    """SQLite says so, SQLAlchemy raises that as its own, and MLflow as another."""

    def full(*_):
        engine = sqlalchemy.create_engine("sqlite://")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 2")
            connection.exec_driver_sql("CREATE TABLE few (content)")
            try:
                connection.exec_driver_sql("INSERT INTO few VALUES (zeroblob(100000))")
            except sqlalchemy.exc.OperationalError as error:
                raise MlflowException("it failed") from error

    monkeypatch.setattr(Storage, "write_json", full)
    with pytest.raises(SystemExit) as ended:
        main(["report", sweep.root])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error == "emm: error: database or disk is full; make room, or write elsewhere\n"


@pytest.mark.parametrize("command", ["status", "sync"])
def test_a_storage_that_does_not_answer_is_one_line(tmp_path, capsys, monkeypatch, command):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    nowhere = ["--tracking-uri", f"sqlite:///{tmp_path}/x.db"] if command == "sync" else []
    with pytest.raises(SystemExit) as ended:
        main([command, "s3://b/x?scheme=http&endpoint_override=127.0.0.1:1", *nowhere])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("emm: error: storage: s3://b/x?")
    assert "can't be read (" in error
    assert error.count("\n") == 1

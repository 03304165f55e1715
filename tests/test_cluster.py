"""A cluster as `ray start` makes it, on loopback with a token: jobs, late nodes, signals; and what is refused, quickly."""

import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sweep.budget import hours_spent
from sweep.cli import main
from sweep.cluster import check_address
from sweep.driver import usable_cpus
from sweep.lock import LOCK
from tests.clusters import cluster
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parent.parent
SHORT = [
    *("--set", "measurement.n_samples=40", "--set", "measurement.n_selection=20", "--set", "measurement.snapshots=2"),
    *("--set", "search.max_trials=1", "--set", "search.n_high=64"),
]


def wait_for(condition, timeout=90):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def wait_until_training(process):
    """Until its plain lines tell the progress of a trial."""
    while line := process.stdout.readline():
        if re.search(r"training [1-9]\d*%", line):
            return
    raise AssertionError("it ended before a trial was in training")


def files(out, name):
    return glob.glob(f"{out}/trials/*/{name}")


# ---------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def silent_port():
    """Nothing listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def test_a_server_that_is_not_ray_is_found_out_within_seconds():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address, begin = f"127.0.0.1:{server.getsockname()[1]}", time.monotonic()
        with pytest.raises(UserError, match="no Ray, but something else"):
            check_address(address)
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "digits-width", "--storage", "OUT", "--address", "127.0.0.1:PORT"], "nothing answers there"),
        (["run", "digits-width", "--storage", "OUT", "--address", "ray://127.0.0.1:PORT"], "use HOST:PORT, or emm submit"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://127.0.0.1:PORT"], "nothing answers there"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "127.0.0.1:PORT"], "as http://HOST:8265"),
        (["submit", "digits-width", "--storage", "s3://me:hush@b/x", "--address", "http://h:1"], "everybody may read"),
        (["submit", "digits-width", "--storage", "s3://me:hu/sh@b/x", "--address", "http://h:1"], "everybody may read"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--wrokers", "2"], "--wrokers"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--set", "a=1"], "a"),
        (["submit", "digitz", "--storage", "OUT", "--address", "http://h:1"], "no search space 'digitz'"),
        (["submit", "--storage", "OUT", "--address", "http://h:1"], "SPACE"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--deadline", "soon"], "--deadline soon"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--out", "x"], "--out"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--code", "/nowhere"], "no such directory"),
        (["stop", "--storage", "OUT", "--address", "http://127.0.0.1:PORT"], "nothing answers there"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_within_seconds(tmp_path, capsys, arguments, text, silent_port):
    out, begin = tmp_path / "out", time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main([str(out) if argument == "OUT" else argument.replace("PORT", str(silent_port)) for argument in arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("emm: error: ")
    assert printed.err.count("\n") == 1
    assert text in printed.err
    assert "hush" not in printed.err
    assert not out.exists()
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "99900000 100000\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


# ---------------------------------------------------------------- jobs


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_job_is_found_followed_stopped_and_gone_on_with(short_path):
    """Its own code travels; the token appears nowhere."""
    out, code = short_path / "sweep", short_path / "mine"
    code.mkdir()
    (code / "my_module.py").write_text("")
    with cluster(short_path, cpus=1) as one:
        sent = ["--address", one.dashboard, "--storage", out, *SHORT, "--set", "trainer.length=1200", "--code", code]

        def emm(*arguments):
            with one.emm(*arguments) as process:
                output, _ = process.communicate(timeout=240)
            return process.returncode, output

        returned, output = emm("submit", "digits-width", *sent, "--no-wait")
        assert returned == 0, output
        first = output.splitlines()[0].removeprefix("submitted: ")
        assert first.startswith("emm-digits-width-")
        assert first.endswith("-1")
        follower = one.emm("submit", *sent, "digits-width")  # the order of arguments is free
        assert f"running already: {first}" in follower.stdout.readline()
        wait_until_training(follower)
        follower.send_signal(signal.SIGINT)
        assert f"{first} goes on" in follower.communicate(timeout=20)[0]
        status = json.loads(emm("status", out, "--json")[1])
        assert status["driver"] is not None
        assert emm("purge", out, "--yes")[0] == 2, "a driver runs it"

        begin = time.monotonic()
        returned, output = emm("stop", "--address", one.dashboard, "--storage", out)
        assert (returned, f"ended: {first}" in output) == (0, True), output
        assert time.monotonic() - begin < 30
        logs = "".join(path.read_text() for path in short_path.rglob("job-driver-*.log"))
        assert files(out, "checkpoint-*.pt"), logs
        assert "ended by SIGTERM" in logs
        assert not list(out.glob(f"{LOCK}*")), "it left in time to give the lock back"
        assert "no job runs" in emm("stop", "--address", one.dashboard, "--storage", out)[1]

        returned, output = emm("submit", "digits-width", *sent)
        assert returned == 0, output
        assert f"submitted: {first[:-1]}2" in output
        assert "EMM at target" in output
        done = [json.loads(Path(path).read_text()) for path in files(out, "result.json")]
        assert sorted(result["spec"]["name"] for result in done) == ["width=4", "width=8"]

        token = (short_path / "token").read_bytes()
        for path in [*out.rglob("*"), *short_path.rglob("job-driver-*.log")]:
            assert not path.is_file() or token not in path.read_bytes(), path
        one.environment["RAY_AUTH_TOKEN"] = "0" * 64
        returned, output = emm("stop", "--address", one.dashboard, "--storage", out)
        assert (returned, "it asks for another token" in output) == (2, True), output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nodes_that_come_late_are_used_and_a_gpu_without_cuda_is_said_once(short_path):
    """No slot at the start; then a node with one fake GPU, which two trials share."""
    out = short_path / "sweep"
    with cluster(short_path, cpus=0) as one:
        options = ["--address", one.address, "--gpus-per-trial", "0.5", "--set", "trainer.length=6", *SHORT]
        driver = one.emm("run", "digits-width", "--out", out, *options)
        wait_for(lambda: (out / "sweep.json").exists())
        time.sleep(3)
        assert not files(out, "trial.json")
        one.add(cpus=2, gpus=1)
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert output.count("torch finds no CUDA device") == 1
    results = [json.loads(Path(path).read_text()) for path in files(out, "result.json")]
    assert {result["hardware"]["device"] for result in results} == {"cpu"}
    assert {result["hardware"]["threads"] for result in results} == {"1"}


# ---------------------------------------------------------------- signals


def processes_of(mark):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EMM_MARK") == mark:
                found.append(process)
        except psutil.Error:
            pass
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_a_sigterm_to_a_worker_and_one_to_the_driver_trials_go_on_from_their_checkpoints(tmp_path):
    out, environment = tmp_path / "out", {**os.environ, "EMM_MARK": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sweep", "run", "digits-width", "--out", str(out), *SHORT]
    command += ["--set", "trainer.length=1200", "--workers", "1"]  # some 40 s: a plain line comes every 20 s

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    driver = start()
    wait_until_training(driver)
    (worker,) = [one for one in processes_of(str(tmp_path)) if "Trainable" in " ".join(one.cmdline())]
    worker.terminate()
    worker.wait(timeout=15)
    wait_for(lambda: files(out, "checkpoint-*.pt"), 5)
    left = set(files(out, "checkpoint-*.pt"))
    wait_for(lambda: set(files(out, "checkpoint-*.pt") + files(out, "result.json")) - left)  # another one goes on
    begin = time.monotonic()
    driver.terminate()
    output, _ = driver.communicate(timeout=30)
    assert time.monotonic() - begin < 15
    assert driver.returncode == 143, output
    assert output.endswith("ended by SIGTERM; the same command goes on where it stopped\n")
    wait_for(lambda: not processes_of(str(tmp_path)), 10)
    assert files(out, "checkpoint-*.pt")
    assert not list(out.glob(f"{LOCK}*"))
    again = start()
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    assert len(files(out, "result.json")) == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_budget_and_a_deadline_end_a_sweep_with_what_is_known_and_more_of_them_goes_on(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sweep", "run", "digits-width", "--out", str(out), *SHORT, "--workers", "1"]
    command += ["--set", "trainer.length=600"]

    def run(*limits):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *limits], env=environment, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "EMM at target" in done.stdout
        return done.stdout

    assert "the budget of 0.001 device hours is spent" in run("--budget-hours", "0.001")
    (checkpoint,) = files(out, "checkpoint-*.pt")
    spent = hours_spent(Storage(str(out)))
    assert spent >= 0.001
    assert "the budget of 0.001 device hours is spent" in run("--budget-hours", "0.001"), "that of both runs counts"
    assert hours_spent(Storage(str(out))) == spent
    assert files(out, "checkpoint-*.pt") == [checkpoint]

    begin = time.monotonic()
    assert "the deadline has come" in run("--deadline", "12s")
    assert time.monotonic() - begin < 60
    output = run()
    assert output.count("unresolved, after all 1 trials") == 2
    assert "goes on" not in output
    assert len(files(out, "result.json")) == len(files(out, "trial.json")) == 2

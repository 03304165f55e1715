"""A cluster as `ray start` makes it, on loopback with a token: jobs, late nodes, signals; and what
is refused, quickly."""

import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import ray
from ray.job_submission import JobDetails
from requests.utils import get_environ_proxies

from sweep.cli.main import main
from sweep.run.cluster import check_address
from sweep.run.jobs import Jobs, job_name, not_through_a_proxy, space_in_job, sweep_id
from sweep.run.machines import session_parent, usable_cpus
from sweep.store.budget import hours_spent
from sweep.store.lock import LOCK
from tests.clusters import cluster
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parents[2]
IMAGES = ["--set", "data.kind=folder", "--set", "data.path=my/images", "--set", "data.resolution=8"]
SHORT = [
    *(
        "--set",
        "measurement.n_samples=40",
        "--set",
        "measurement.n_selection=20",
        "--set",
        "measurement.snapshots=2",
    ),
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
        (["run", "digits-width", "--storage", "OUT", "--address", "ray://127.0.0.1:PORT"], "or emm submit"),
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
        (["run", "digits-width", "--out", "OUT", "--address", "somewhere"], "--address somewhere: it has no port"),
        (["run", "digits-width", "--out", "OUT", "--address", "auto"], "which is 127.0.0.2:PORT here: nothing answers there"),
        (["run", "digits-width", "--out", "OUT", "--address", "local"], "--address local: leave it out"),
        (["run", "digits-width", "--out", "OUT", "--gpus-per-trial", "1.5"], "give 1 or less than 1"),
        (["run", "digits-width", "--out", "OUT", "--gpus-per-trial", "nan"], "--gpus-per-trial nan: give a number"),
        (["run", "digits-width", "--out", "OUT", "--cpus-per-trial", "nan"], "--cpus-per-trial nan: give a number"),
        (["run", "digits-width", "--out", "OUT", "--cpus-per-trial", "0"], "--cpus-per-trial 0: give a number"),
        (["run", "digits-width", "--out", "OUT", "--cpus-per-trial", "inf", "--address", "h:1"], "--cpus-per-trial inf"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--gpus-per-trial", "-1"], "-1: give a"),
        (["submit", "digits-width", "--storage", "rel/ative", "--address", "http://h:1"], "works in another directory"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--reuse", "rel"], "--reuse rel: a job w"),
        (["submit", "digits-width", "--storage", "OUT", "--address", "http://h:1", "--reuse", "s3://me:hush@b/x"],
         "everybody may read"),
        (["stop", "--storage", "s3://me:hush@b/x", "--address", "http://h:1"], "everybody may read"),
        (["stop", "--storage", "rel/ative", "--address", "http://h:1"], "works in another directory"),
        (["submit", "SPACE", "--storage", "OUT", "--address", "http://h:1"], "add --code DIR, a directory that holds it"),
        (["submit", "SPACE", "--storage", "OUT", "--address", "http://h:1", "--code", "BIG"], "BIG: 130 MiB"),
        (["submit", "no.yaml", "--storage", "OUT", "--address", "http://h:1"], "no.yaml: no such file"),
        (["submit", "digits", "--storage", "OUT", "--address", "http://h:1", *IMAGES], "data.path=my/images: a job works in"),
        (["submit", "digits", "--storage", "OUT", "--address", "http://h:1", *IMAGES[:2], *IMAGES[4:], "--set", "data.path=/x",
          "--set", "data.labels_file=l.csv"], "data.labels_file=l.csv: a job works in"),
        (["submit", "digits", "--storage", "OUT", "--address", "http://h:1", "--tracking-uri", "sqlite:///m.db"], "--track"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_within_seconds(
    tmp_path, capsys, monkeypatch, arguments, text, silent_port
):
    out, begin, big, space = (
        tmp_path / "out",
        time.monotonic(),
        tmp_path / "BIG",
        tmp_path / "mine.yaml",
    )
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.2:{silent_port}")  # what `auto` stands for
    big.mkdir()
    with (big / "data.bin").open("wb") as sparse:
        sparse.truncate(130 * 1024**2)
    space.write_text("base: digits\nvary: {}\nsearch: {n_low: 8, n_high: 64}\n")
    paths, text = {"OUT": out, "BIG": big, "SPACE": space}, text.replace("PORT", str(silent_port))
    with pytest.raises(SystemExit) as ended:
        main(
            [
                str(paths.get(argument, argument.replace("PORT", str(silent_port))))
                for argument in arguments
            ]
        )
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("emm: error: ")
    assert printed.err.count("\n") == 1
    assert text in printed.err
    assert "hush" not in printed.err
    assert not out.exists()
    assert time.monotonic() - begin < 15


def test_rays_directory_is_short_or_the_run_does_not_begin(tmp_path, monkeypatch, capsys):
    """Paths of Unix sockets have 107 bytes at most."""
    long = tmp_path / ("a" * 60)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert session_parent() == "/tmp"
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(SystemExit):
        main(["run", "digits-width", "--out", str(tmp_path / "out")])
    assert f"RAY_TMPDIR={long}: Ray needs a directory" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("space", "name"),
    [
        ("digits-width", "digits-width"),
        ("a/b c/Breite σ_2.yaml", "Breite-2"),
        ("σ.py", "space"),
        ("x" * 99 + ".yaml", "x" * 40),
    ],
)
def test_a_job_is_named_by_what_a_job_may_be_named(space, name):
    assert job_name(space) == name


def test_a_file_of_a_space_is_found_where_the_job_will_be(tmp_path, monkeypatch):
    (tmp_path / "code" / "configs").mkdir(parents=True)
    (tmp_path / "code" / "configs" / "a.yaml").write_text("")
    (tmp_path / "b.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    code = Path("code")
    assert space_in_job("configs/a.yaml", code) == "configs/a.yaml"
    assert space_in_job("code/configs/a.yaml", code) == "configs/a.yaml"
    assert space_in_job(str(tmp_path / "code" / "configs" / "a.yaml"), code) == "configs/a.yaml"
    with pytest.raises(UserError, match="a job does not see this file"):
        space_in_job("b.yaml", code)


def test_the_same_directory_is_the_same_sweep():
    assert sweep_id("/data/emm/") == sweep_id("/data/emm") == sweep_id("/data/./x/../emm")
    assert sweep_id("s3://b/emm/") == sweep_id("s3://b/emm") != sweep_id("s3://b/emm2")


class Dashboard(BaseHTTPRequestHandler):
    """Of a head that has taken jobs, and has all packages already."""

    protocol_version = "HTTP/1.1"

    def _answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/api/version":
            self._answer({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})
        else:
            self._answer([vars(job) for job in self.server.jobs] if "jobs" in self.path else {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer({"job_id": asked["submission_id"], "submission_id": asked["submission_id"]})

    def log_message(self, *arguments): ...


def test_after_the_tenth_attempt_comes_the_eleventh(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    of_sweep = f"emm-digits-{sweep_id('/nfs/sweep')}"
    names = [f"{of_sweep}-{number}" for number in range(1, 11)]
    with ThreadingHTTPServer(("127.0.0.1", 0), Dashboard) as server:
        server.jobs = [
            JobDetails(
                type="SUBMISSION", submission_id=name, status="FAILED", entrypoint="", message=""
            )
            for name in [*names, "emm-digits-00000000-77", "other"]
        ]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        jobs = Jobs(f"http://127.0.0.1:{server.server_port}", "/nfs/sweep")
        assert jobs.running() is None
        assert jobs.submit("digits", ["run", "digits"], None) == f"{of_sweep}-11"
        server.shutdown()


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.setenv("NO_PROXY", "intranet")
    for host in ("127.0.0.1", "localhost", "head"):
        assert get_environ_proxies(f"http://{host}:8265") != {}
        not_through_a_proxy(f"http://{host}:8265")
        assert (get_environ_proxies(f"http://{host}:8265") == {}) == (host != "head")
    assert get_environ_proxies("http://intranet:8265") == {}


def test_only_cpus_that_it_may_run_on_count():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from sweep.run.machines import usable_cpus; print(usable_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"1\n"
    assert usable_cpus() <= len(os.sched_getaffinity(0))


# ---------------------------------------------------------------- jobs


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_job_is_found_followed_stopped_and_gone_on_with(short_path):
    """Its own code travels; the token appears nowhere."""
    out, code = short_path / "sweep", short_path / "mine"
    code.mkdir()
    (code / "my_module.py").write_text("")
    with cluster(short_path, cpus=1) as one:
        sent = [
            "--address",
            one.dashboard,
            "--storage",
            out,
            *SHORT,
            "--set",
            "trainer.length=1200",
            "--code",
            code,
        ]

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
        options = [
            "--address",
            one.address,
            "--gpus-per-trial",
            "0.5",
            "--set",
            "trainer.length=6",
            *SHORT,
        ]
        driver = one.emm("run", "digits-width", "--out", out, *options)
        wait_for(lambda: list((out / "ray").glob("*/*")))  # Tune has begun, and asks for trials
        time.sleep(3)
        assert not files(out, "trial.json")
        one.add(cpus=2, gpus=1)
        output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert output.count("torch finds no CUDA device") == 1
    results = [json.loads(Path(path).read_text()) for path in files(out, "result.json")]
    assert {result["hardware"]["device"] for result in results} == {"cpu"}
    assert {result["hardware"]["threads"] for result in results} == {"1"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_trial_on_two_gpus_is_that_of_one_and_survives_the_loss_of_a_process(short_path):
    """On fake ones, so by two processes on CPUs. One of them is killed amid the training, and later
    the other one is told to end: the trial goes on from its checkpoint, nothing is left, and the
    budget is of two devices."""
    out = short_path / "sweep"
    settings = ["trainer.length=200", "search.max_trials=1"]
    with cluster(short_path, cpus=2, gpus=2) as one:
        options = ["--address", one.address, "--gpus-per-trial", "2", "--cpus-per-trial", "2"]
        for setting in settings:
            options += ["--set", setting]
        options += [word.replace("snapshots=2", "snapshots=8") for word in SHORT]
        begin = time.monotonic()
        driver = one.emm("run", "digits", "--out", out, *options)
        wait_for(lambda: files(out, "*.pt"))  # a snapshot was taken
        killed = members()[0]
        killed.kill()
        wait_for(lambda: [found for found in members() if found.pid != killed.pid])
        (other,) = members()
        checkpoints = files(out, "checkpoint-*.pt")
        wait_for(lambda: files(out, "checkpoint-*.pt") != checkpoints)  # it trains
        other.parent().send_signal(signal.SIGTERM)
        wait_for(lambda: not other.is_running())
        output, _ = driver.communicate(timeout=300)
        seconds = time.monotonic() - begin
        wait_for(lambda: not members(), timeout=20)
    assert driver.returncode == 0, output
    (path,) = files(out, "result.json")
    result = json.loads(Path(path).read_text())
    assert result["complete"], result
    assert result["hardware"]["processes"] == "2"
    assert result["seconds"] * 2 / 3600 < hours_spent(Storage(str(out))) < 2 * seconds / 3600


def members():
    """The processes of teams."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_spawned = "multiprocessing.spawn" in " ".join(process.cmdline())
            if is_spawned and "ray" in process.parent().name():
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_job_runs_ours_finds_the_users_modules_and_one_that_is_gone_is_said(short_path):
    """--code holds modules with our names and one of the standard library's, a network and a
    space."""
    out, code = short_path / "sweep", short_path / "mine"
    code.mkdir()
    for name in ("sweep", "trainables", "statistics"):
        (code / f"{name}.py").write_text(f"print('the {name} of the user'); raise SystemExit(0)")
    (code / "my_network.py").write_text((ROOT / "docs" / "examples" / "my_network.py").read_text())
    settings = "{network.kind: custom, network.builder: 'my_network:conv_net', network.options.width: 8, trainer.length: 10}"
    (code / "own.yaml").write_text(
        f"base: digits\nsettings: {settings}\nvary: {{}}\nsearch: {{n_low: 8, n_high: 64}}\n"
    )
    with cluster(short_path, cpus=1) as one:
        sent = ["--address", one.dashboard, "--storage", out, "--code", code]
        with one.emm("submit", code / "own.yaml", *sent, *SHORT) as process:
            output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert "of the user" not in output
        name = re.search(r"submitted: (emm-own-\w+-1)", output)[1]
        (path,) = files(out, "result.json")
        assert json.loads(Path(path).read_text())["complete"]

        code = (
            "import sys; from sweep.run.jobs import Jobs\njobs = Jobs(*sys.argv[1:3]); jobs.client.delete_job(sys.argv[3])\n"
            "jobs.stop(sys.argv[3])\ntry: jobs.follow(sys.argv[3], print)\nexcept ValueError as error: print(error)"
        )
        environment = {
            **one.environment,
            "PYTHONPATH": str(ROOT),
            "http_proxy": "http://127.0.0.1:1",
        }
        command = [sys.executable, "-c", code, one.dashboard, str(out), name]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert "the cluster does not know it any more" in done.stdout, done.stderr


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
def test_after_a_sigterm_to_a_worker_and_one_to_the_driver_trials_go_on_from_their_checkpoints(
    tmp_path,
):
    out, environment = (
        tmp_path / "out",
        {**os.environ, "EMM_MARK": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    command = [sys.executable, "-m", "sweep", "run", "digits-width", "--out", str(out), *SHORT]
    command += [
        "--set",
        "trainer.length=4800",
        "--workers",
        "1",
        "--only",
        "width=4",
    ]  # so long that, on a fast machine too, it trains on after the checkpoint that is waited for

    def start():
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    driver = start()
    wait_until_training(driver)
    (worker,) = [
        one for one in processes_of(str(tmp_path)) if "Trainable" in " ".join(one.cmdline())
    ]
    worker.terminate()
    worker.wait(timeout=15)
    wait_for(lambda: files(out, "checkpoint-*.pt"), 5)
    left = set(files(out, "checkpoint-*.pt"))
    # another process goes on with it, to the next snapshot or for a minute
    wait_for(lambda: set(files(out, "checkpoint-*.pt")) - left, 240)
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
    assert len(files(out, "result.json")) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_budget_and_a_deadline_end_a_sweep_with_what_is_known_and_more_of_them_goes_on(tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "sweep",
        "run",
        "digits-width",
        "--out",
        str(out),
        *SHORT,
        "--workers",
        "1",
    ]
    command += ["--set", "trainer.length=600"]

    def run(*limits):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *limits],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "EMM at target" in done.stdout
        return done.stdout

    assert "the budget of 0.001 device hours is spent" in run("--budget-hours", "0.001")
    (checkpoint,) = files(out, "checkpoint-*.pt")
    spent = hours_spent(Storage(str(out)))
    assert spent >= 0.001
    assert "the budget of 0.001 device hours is spent" in run("--budget-hours", "0.001"), (
        "that of both runs counts"
    )
    assert hours_spent(Storage(str(out))) == spent
    assert files(out, "checkpoint-*.pt") == [checkpoint]

    begin = time.monotonic()
    assert "the deadline has come" in run("--deadline", "12s")
    assert time.monotonic() - begin < 60
    output = run()
    assert output.count("unresolved, after all 1 trials") == 2
    assert "goes on" not in output
    assert len(files(out, "result.json")) == len(files(out, "trial.json")) == 2

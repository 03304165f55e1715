"""What fails, for real: processes, nodes, disks, servers. Afterwards nothing is lost, nothing was
done twice, and the end is the same. Each test adds rows to the table that `make test-all` prints.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest

from sweep.store.lock import LOCK
from sweep.tracking.place import DATABASE
from sweep.tracking.server import server
from tests.clusters import cluster, free_port
from tests.fake_sweep import MOMENTS
from tests.run.test_driver import last_steps, mlflow_runs, trials, verdicts

ROOT = Path(__file__).parents[2]
SAME, OVERLAP = "the same", "intervals overlap"


@pytest.fixture
def mark(monkeypatch, tmp_path):
    """Is in the environment of every process that a test starts."""
    monkeypatch.setenv("EMM_MARK", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield str(tmp_path)
    for process in processes(str(tmp_path)):  # of a test that failed
        with contextlib.suppress(psutil.Error):
            process.kill()


def start(directory, *arguments, workers=1, widths=(8,), **environment):
    command = [sys.executable, "-m", "tests.fake_sweep", directory, workers, *widths, *arguments]
    # without the token of a Ray that an earlier test has had in this process
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env={**ours, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(driver, timeout=280):
    try:
        output, _ = driver.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it did not end in {timeout} s\n{output_of(driver)}")
    assert driver.returncode == 0, output
    return output


def wait_for(driver, condition, timeout=180):
    """Returns what the condition gives, and how many seconds it took. If it is not to be, the output
    of the driver says why."""
    begin = time.monotonic()
    while not (value := condition()):
        has_ended = driver.poll() is not None
        if (has_ended or time.monotonic() - begin > timeout) and not condition():
            pytest.fail(f"it did not happen, {driver.poll()=}\n{output_of(driver)}")
        time.sleep(0.02)
    return value, time.monotonic() - begin


def output_of(driver):
    driver.kill()
    try:
        return driver.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired as slow:  # a process that it began holds its output open
        return slow.output


def steps(directory):
    """Steps that fake trials have taken, of all attempts."""
    return sum(
        path.read_bytes().count(b"\n") for path in Path(directory).glob("trials/*/steps.log")
    )


def results(directory):
    """Training key → (time of the result, R_mem) of every finished trial."""
    paths = Path(directory).glob("trials/*/result.json")
    return {
        path.parent.name: (path.stat().st_mtime_ns, json.loads(path.read_bytes())["r_mem"])
        for path in paths
    }


def running_trial(directory, after=0):
    """Process of a fake trial that is in its second step, once `after` trials are finished; None if
    there is none."""
    for path in (
        Path(directory).glob("trials/*/steps.log") if len(results(directory)) >= after else ()
    ):
        if not path.with_name("result.json").exists() and path.read_text().split()[-1:] == ["0"]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended, or was lost
                process = psutil.Process(int(path.with_name("pid").read_text()))
                if process.status() != psutil.STATUS_ZOMBIE:  # lost, and nobody asks how it ended
                    return process
    return None


def processes(mark):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("EMM_MARK") == mark and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            pass
    return found


def no_process_is_left(mark):
    deadline = time.monotonic() + 60  # Ray's own of a killed driver, on a busy machine
    while left := processes(mark):
        assert time.monotonic() < deadline, [describe(process) for process in left]
        time.sleep(0.2)


def describe(process):
    with contextlib.suppress(psutil.Error):
        return (
            process.status(),
            time.time() - process.create_time(),
            " ".join(process.cmdline())[:200],
        )


def one_trial_each(directory):
    """MLflow's runs of trials: seed → status; fails on two of one trial."""
    runs = mlflow_runs(directory, "trial")
    assert len({run.data.params["seed"] for run in runs}) == len(runs)
    return {int(run.data.params["seed"]): run.info.status for run in runs}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    end(start(directory))
    return directory


@pytest.fixture
def judge(record_property, undisturbed, mark):
    """Compares what a sweep came to with what was finished `before` the fault and with the
    undisturbed sweep."""

    def judged(fault, moment, directory, before, seconds, same=SAME, tracked=True):
        after = results(directory)
        lost = sum(key not in after or after[key][1] != r_mem for key, (_, r_mem) in before.items())
        again = sum(key in after and after[key][0] != at for key, (at, _) in before.items())
        twice = max(again, sum(count > 1 for count in last_steps(directory)))
        if same == SAME:
            is_same = trials(directory) == trials(undisturbed) and verdicts(directory) == verdicts(
                undisturbed
            )
        else:
            (a, b) = (verdicts(where)["width=8"] for where in (directory, undisturbed))
            is_same = (
                a.state == b.state == "found" and a.emm_low < b.emm_high and b.emm_low < a.emm_high
            )
        row = [fault, moment, lost, twice, same if is_same else "OTHERS", seconds]
        record_property("fault", row)
        assert (lost, twice, is_same) == (0, 0, True), row
        if tracked:
            status = one_trial_each(directory)
            finished = {seed for _, seed, _, _ in trials(directory)}
            assert {seed for seed, now in status.items() if now == "FINISHED"} == finished
            unneeded = (
                {"KILLED"} if same == OVERLAP else set()
            )  # at the verdict, of trials that ran beside each other
            assert {status[seed] for seed in status.keys() - finished} <= unneeded
        assert not list(Path(directory).glob(f"{LOCK}*"))
        no_process_is_left(mark)

    return judged


# ---------------------------------------------------------------- processes

FAST = {"a result is written, Optuna not told"}


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if m in FAST else pytest.mark.slow) for m in MOMENTS]
)
@pytest.mark.timeout(300)
def test_the_driver_is_killed(undisturbed, judge, tmp_path, moment):
    if moment == "Optuna's database is built again":  # because the disk with it was lost as well
        start(tmp_path, "--kill", "all is decided, MLflow not closed").communicate(timeout=200)
        (tmp_path / "optuna.db").unlink()
    killed = start(tmp_path, "--kill", moment)
    output, _ = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, output
    before, taken = results(tmp_path), steps(tmp_path)
    again = start(tmp_path)
    _, seconds = wait_for(again, lambda: steps(tmp_path) > taken or again.poll() is not None)
    end(again)
    judge("SIGKILL of the driver", moment, tmp_path, before, seconds)
    study = optuna.load_study(study_name="width=8", storage=f"sqlite:///{tmp_path}/optuna.db")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_process_of_a_trial_is_killed(judge, tmp_path):
    """Two trials, twice each."""
    driver, seconds = start(tmp_path, EMM_STEP_SECONDS="0.3"), []
    for after in (1, 1, 2, 2):
        worker, _ = wait_for(driver, lambda after=after: running_trial(tmp_path, after))
        before, taken = results(tmp_path), steps(tmp_path)
        worker.kill()
        seconds.append(wait_for(driver, lambda taken=taken: steps(tmp_path) > taken)[1])
    end(driver)
    judge("SIGKILL of a trial's process", "in training, 4 times", tmp_path, before, max(seconds))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_two_drivers(judge, tmp_path):
    first = start(tmp_path, EMM_STEP_SECONDS="0.5")
    wait_for(first, lambda: list(tmp_path.glob("trials/*")))
    begin = time.monotonic()
    output, _ = (second := start(tmp_path)).communicate(timeout=60)
    assert second.returncode == 1
    assert f"is being run by process {first.pid}" in output
    before, seconds = results(tmp_path), time.monotonic() - begin
    end(first)
    judge("a second driver", "the first one trains", tmp_path, before, seconds)


# ---------------------------------------------------------------- nodes


def node_of(one, process):
    (node,) = [
        node
        for node in one.nodes
        if node.poll() is None and process in psutil.Process(node.pid).children(recursive=True)
    ]
    return node


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nodes_are_removed_and_come_late(judge, short_path, monkeypatch, tmp_path):
    """Two with a fake GPU each and two trials at once; one is lost, then the last one, then another
    comes."""
    monkeypatch.setenv("EMM_STEP_SECONDS", "0.5")
    rows = []
    with cluster(short_path, cpus=0) as one:
        for _ in range(2):
            one.add(cpus=1, gpus=1)
        driver = start(tmp_path, "--address", one.address, workers=2, **one.environment)
        for moment in ("another one trains on", "it was the last one; another comes 3 s later"):
            worker, _ = wait_for(driver, lambda: running_trial(tmp_path, after=1))
            before, taken = results(tmp_path), steps(tmp_path)
            one.kill(node_of(one, worker))
            if rows:
                time.sleep(3)
                taken = steps(tmp_path)
                one.add(cpus=1, gpus=1)
            _, seconds = wait_for(driver, lambda taken=taken: steps(tmp_path) > taken + 1)
            rows.append((moment, before, seconds))
        end(driver)
    for moment, before, seconds in rows:
        judge("a node with a trial is removed", moment, tmp_path, before, seconds, OVERLAP)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_head_node_and_every_local_disk_are_gone(
    judge, short_path, mark, monkeypatch, tmp_path
):
    """Nothing is left but the storage; another cluster goes on. Its seconds include the start of
    that cluster."""
    monkeypatch.setenv("EMM_STEP_SECONDS", "0.3")
    homes = [short_path / name for name in ("a", "b")]

    def driver_on(one):
        one.add(cpus=1, gpus=1)
        return start(
            tmp_path,
            "--address",
            one.address,
            "--views",
            one.directory / "views",
            **one.environment,
        )

    for home in homes:
        home.mkdir()
    with cluster(homes[0], cpus=0) as one:
        driver = driver_on(one)
        wait_for(driver, lambda: running_trial(tmp_path, after=2))
        driver.kill()
        driver.communicate()
    shutil.rmtree(homes[0])
    before, taken, begin = results(tmp_path), steps(tmp_path), time.monotonic()
    with cluster(homes[1], cpus=0) as one:
        driver = driver_on(one)
        wait_for(driver, lambda: steps(tmp_path) > taken)
        seconds = time.monotonic() - begin
        end(driver)
    for name in ("mlflow.db", "artifacts"):
        (homes[1] / "views" / name).rename(tmp_path / name)
    judge("head node and all local disks are gone", "in training", tmp_path, before, seconds)


# ---------------------------------------------------------------- the MLflow server


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_mlflow_server_is_down_for_a_minute(undisturbed, judge, tmp_path):
    (tmp_path / DATABASE).write_bytes(
        (undisturbed / DATABASE).read_bytes()
    )  # its tables; the runs are of another sweep
    out, port = tmp_path / "sweep", free_port()
    uri = f"http://127.0.0.1:{port}"
    with server(tmp_path, port):
        driver = start(out, "--tracking-uri", uri, EMM_STEP_SECONDS="8")
        wait_for(driver, lambda: len(results(out)) >= 1)
    before = results(out)
    time.sleep(60)
    assert len(results(out)) > len(before), "nothing waits for the server"
    with server(tmp_path, port):
        assert "MLflow holds all" in end(driver, 300)
        begin = time.monotonic()
    runs = [
        run
        for run in mlflow_runs(tmp_path, "trial")
        if run.data.tags["emm.sweep"] != sweep_of(undisturbed)
    ]
    assert sorted(int(run.data.params["seed"]) for run in runs) == [
        seed for _, seed, _, _ in trials(out)
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    judge(
        "the MLflow server is down",
        "for a minute",
        out,
        before,
        time.monotonic() - begin,
        tracked=False,
    )


def sweep_of(directory):
    return mlflow_runs(directory, "sweep")[0].data.tags["emm.key"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_there_is_no_mlflow_server(judge, tmp_path):
    output = end(start(tmp_path, "--tracking-uri", f"http://127.0.0.1:{free_port()}"))
    assert "MLflow lacks some" in output
    before, begin = results(tmp_path), time.monotonic()
    command = [sys.executable, "-m", "sweep", "sync", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    judge(
        "the MLflow server is down",
        "for good; then emm sync",
        tmp_path,
        before,
        time.monotonic() - begin,
    )


# ---------------------------------------------------------------- real trials: disks, signals,
# losses, memory

SETTINGS = [
    "search.n_high=64",
    "search.max_trials=2",
    "measurement.n_samples=40",
    "measurement.n_selection=20",
]
SETTINGS += [
    "measurement.snapshots=4",
    "measurement.batch=20",
    "trainer.length=400",
    "trainer.micro_batch=32",
]
HUNGRY = """
import torch
from torch import nn

class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, noise_level, labels):
        if len(x) > 8:
            torch.empty(len(x) << 44)
        return self.layer(x)

def build(resolution, channels, label_dim):
    return Hungry()
"""


def emm(out, *settings, options=(), directory=ROOT):
    command = [
        sys.executable,
        "-m",
        "sweep",
        "run",
        "digits",
        "--out",
        out,
        "--workers",
        1,
        *options,
    ]
    last = {setting.partition("=")[0]: setting for setting in (*SETTINGS, *settings)}
    command += [part for setting in last.values() for part in ("--set", setting)]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=directory,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def quiet_sweep(tmp_path_factory):
    directory = tmp_path_factory.mktemp("quiet")
    end(emm(directory))
    return directory


def judge_real(record_property, mark, fault, moment, directory, before, seconds, quiet):
    after = results(directory)
    lost = sum(key not in after for key in before)
    again = sum(key in after and after[key] != before[key] for key in before)
    is_same = trials(directory) == trials(quiet) and verdicts(directory) == verdicts(quiet)
    record_property("fault", [fault, moment, lost, again, SAME if is_same else "OTHERS", seconds])
    assert (lost, again, is_same) == (0, 0, True)
    assert set(one_trial_each(directory).values()) == {"FINISHED"}
    no_process_is_left(mark)


def worker_of(mark):
    return next((one for one in processes(mark) if "Trainable" in " ".join(one.cmdline())), None)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_full_disk(quiet_sweep, mark, record_property, tmp_path):
    """No file of the trial's process may grow beyond some bytes, while it has a checkpoint and is
    to write the next."""
    driver = emm(tmp_path)
    wait_for(driver, lambda: results(tmp_path) and list(tmp_path.glob("trials/*/checkpoint-*.pt")))
    before, worker = results(tmp_path), worker_of(mark)
    limits = worker.rlimit(psutil.RLIMIT_FSIZE)
    worker.rlimit(psutil.RLIMIT_FSIZE, (20_000, limits[1]))
    assert any("waits for the storage" in line for line in iter(driver.stdout.readline, "")), (
        "it ended"
    )
    time.sleep(5)
    assert worker.is_running()
    assert len(results(tmp_path)) == len(before)
    worker.rlimit(psutil.RLIMIT_FSIZE, limits)
    _, seconds = wait_for(driver, lambda: len(results(tmp_path)) > len(before))
    end(driver)
    judge_real(
        record_property,
        mark,
        "the disk is full",
        "at a checkpoint, a while",
        tmp_path,
        before,
        seconds,
        quiet_sweep,
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_sigterm(quiet_sweep, mark, record_property, tmp_path):
    """To the process of a trial, then to the driver, which leaves within 15 s."""
    driver = emm(tmp_path)
    wait_for(driver, lambda: list(tmp_path.glob("trials/*/checkpoint-*.pt")))
    worker, before = worker_of(mark), results(tmp_path)
    worker.terminate()
    worker.wait(15)
    _, seconds = wait_for(driver, lambda: worker_of(mark))
    row = ["SIGTERM to a trial's process", "in training", before, seconds]
    wait_for(
        driver,
        lambda: (
            len(results(tmp_path)) == 1 and len(list(tmp_path.glob("trials/*/checkpoint-*.pt")))
        ),
    )
    before, begin = results(tmp_path), time.monotonic()
    driver.terminate()
    output, _ = driver.communicate(timeout=30)
    left = time.monotonic() - begin
    assert driver.returncode == 143, output
    assert left < 15
    end(emm(tmp_path))
    for one in (row, ["SIGTERM to the driver", "in training (seconds: to leave)", before, left]):
        judge_real(record_property, mark, *one[:2], tmp_path, *one[2:], quiet_sweep)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_loss_that_is_not_finite(mark, record_property, tmp_path):
    begin = time.monotonic()
    output = end(emm(tmp_path, "trainer.lr=1e30", "search.max_trials=9"))
    verdict = verdicts(tmp_path)["base"]
    record_property(
        "fault",
        [
            "the loss is not finite",
            "in training",
            "–",
            "–",
            verdict.state,
            time.monotonic() - begin,
        ],
    )
    assert verdict.state == "unresolved"
    assert "3 of 3 trials failed" in verdict.reason
    assert "try a lower trainer.lr" in verdict.reason
    assert output.count("try a lower trainer.lr") >= 3
    assert one_trial_each(tmp_path) == dict.fromkeys(range(3), "FAILED")
    no_process_is_left(mark)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_out_of_memory_and_tried_again_with_less(mark, record_property, tmp_path):
    """A network that asks for 16 TiB for each of more than 8 images: its allocation fails at once
    and for real."""
    (tmp_path / "hungry.py").write_text(HUNGRY)
    network = [
        "network.kind=custom",
        "network.builder=hungry:build",
        "trainer.length=20",
        "search.max_trials=3",
    ]
    out, begin = tmp_path / "out", time.monotonic()
    end(emm(out, *network, directory=tmp_path))
    failed = trials(out)
    assert [r_mem for *_, r_mem in failed] == [None] * 3
    verdict = verdicts(out)["base"]
    assert verdict.state == "unresolved"
    assert "out of memory; lower trainer.micro_batch or measurement.batch" in verdict.reason
    smaller = [*network, "trainer.micro_batch=8", "measurement.batch=8"]
    output = end(emm(out, *smaller, directory=tmp_path))
    assert trials(out) == failed, "not without being asked"
    output = end(emm(out, *smaller, options=["--retry-failed"], directory=tmp_path))
    assert output.count("tried again: base N=") == 3
    again = trials(out)
    state = f"unresolved; {len(again)} trained with --retry-failed"
    record_property(
        "fault", ["out of memory", "in training", "–", "–", state, time.monotonic() - begin]
    )
    assert [trial[:3] for trial in again] == [trial[:3] for trial in failed]
    assert None not in [r_mem for *_, r_mem in again]
    assert set(one_trial_each(out).values()) == {"FINISHED"}
    no_process_is_left(mark)

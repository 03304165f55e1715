"""The files in deploy/, as far as this can be seen without Kubernetes, Slurm and Docker."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sweep.cli_run import _arguments_of_run
from sweep.options import space_of

ROOT = Path(__file__).parent.parent
# of ray.io/v1, by the reference of KubeRay's API
RAYJOB = {
    "spec": {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "cluster": {"rayVersion", "enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "workers": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


@pytest.fixture(scope="module")
def documents():
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text())}


def test_the_rayjob_has_the_fields_of_its_schema(documents):
    spec = documents["RayJob"]["spec"]
    assert documents["RayJob"]["apiVersion"] == "ray.io/v1"
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for name, content in (("spec", spec), ("cluster", cluster), ("head", cluster["headGroupSpec"]), ("workers", workers)):
        assert content.keys() <= RAYJOB[name], name
    assert all(isinstance(value, str) for value in cluster["headGroupSpec"]["rayStartParams"].values())
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"], "Ray counts the limits"


def test_the_entrypoint_is_a_command_that_emm_takes(documents):
    words = shlex.split(documents["RayJob"]["spec"]["entrypoint"])
    assert words[:2] == ["emm", "run"]
    asked = _arguments_of_run(words[2:])
    assert space_of(asked["space"], asked["settings"]).name == "cifar10-width"
    assert (asked["address"], asked["gpus_per_trial"]) == ("auto", 1)
    service = documents["Service"]
    assert asked["tracking_uri"] == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"


def test_names_fit_together_and_no_secret_is_in_the_file(documents):
    pod = documents["Deployment"]["spec"]["template"]
    assert documents["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == documents["PersistentVolumeClaim"]["metadata"]["name"]
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": "emm-storage"}}]
            assert not any(re.search("KEY|SECRET|TOKEN", one["name"]) for one in container.get("env", []))


def test_the_image_has_everything_the_package_needs():
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    words = {line.split()[0] for line in lines}
    assert words <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {"pyproject.toml", "trainables", "search_spaces", "sweep"} <= copied


def test_the_slurm_script_is_bash():
    assert subprocess.run(["bash", "-n", ROOT / "deploy/slurm.sh"], check=False).returncode == 0


FAKES = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'case $1 in show) printf "%s\\n" $3;; *) echo "$@" >> "$EMM_SHARED_DIR/scontrol.log";; esac',
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_slurm_script_runs_on_two_nodes_and_asks_to_be_queued_again(tmp_path, short_path):
    """With stand-ins of srun and scontrol that take loopback addresses for nodes; Ray and the sweep are real."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "127.0.0.2\n127.0.0.3",
        "SLURM_CPUS_PER_TASK": "1",
        "EMM_SHARED_DIR": str(tmp_path),
        "RAY_TMPDIR": str(short_path),
    }
    out = tmp_path / "out"
    command = ["bash", ROOT / "deploy/slurm.sh", "digits-width", "--out", out, "--set", "trainer.length=4000"]
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + 150
        in_training = re.compile(r"width=4 .*training [1-9].*\nwidth=8 .*training [1-9]")
        while not in_training.search((tmp_path / "log").read_text()) and time.monotonic() < deadline:
            assert job.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 143, (tmp_path / "log").read_text()
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "scontrol.log").read_text().split() == ["requeue", str(os.getpid())]
    assert len(list(out.glob("trials/*/checkpoint-*.pt"))) == 2
    assert not list(tmp_path.glob(".emm-*")), "the token is removed"

"""The files in deploy/, as far as this can be seen without Kubernetes, Slurm and Docker."""

import copy
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sweep.cli.options import space_of
from sweep.cli.run import arguments_of_run

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.33"  # whose schemas the manifests are held against


@pytest.fixture(scope="module")
def documents():
    return {
        one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/rayjob.yaml").read_text())
    }


def pods(documents):
    """Every pod's description in the file, by a name."""
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    groups = {
        "head": cluster["headGroupSpec"],
        **{one["groupName"]: one for one in cluster["workerGroupSpecs"]},
    }
    templates = {name: group["template"] for name, group in groups.items()}
    return {
        name: one["spec"]
        for name, one in {
            **templates,
            "mlflow": documents["Deployment"]["spec"]["template"],
        }.items()
    }


def test_the_manifests_are_what_kubernetes_and_kuberay_take(documents):
    schema = json.loads((ROOT / "tests/kuberay_rayjob.json").read_text())
    jsonschema.validate(documents["RayJob"], schema)
    for kind in documents.keys() - {"RayJob"}:
        kubernetes_validate.validate(documents[kind], KUBERNETES, strict=True)
    for name, spec in pods(documents).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_schemas_refuse_what_is_misspelled(documents):
    wrong = copy.deepcopy(documents["RayJob"])
    wrong["spec"]["rayClusterSpec"]["authOptions"] = {"mode": "tokens"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json.loads((ROOT / "tests/kuberay_rayjob.json").read_text()))
    wrong = copy.deepcopy(documents["Deployment"])
    wrong["spec"]["template"]["spec"]["securityContext"]["runAsNonRott"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_ray_counts_the_limits(documents):
    for spec in (pods(documents)["head"], pods(documents)["gpu"]):
        for container in spec["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_nobody_without_a_token_runs_code_beside_the_keys(documents):
    assert documents["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    policy = documents["NetworkPolicy"]["spec"]
    assert (
        policy["podSelector"]["matchLabels"]
        == documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    )
    assert policy["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}
    ]


def test_pods_have_no_more_rights_than_they_need(documents):
    for name, spec in pods(documents).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        # the autoscaler beside the head asks Kubernetes for pods
        assert name == "head" or spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not container["image"].endswith(":latest")


def test_one_version_of_ray_in_image_and_manifest(documents):
    text = (ROOT / "deploy/Dockerfile").read_text()
    asked = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert text.count("pip install") == text.count(
        "pip install --no-cache-dir --constraint constraints.txt"
    )
    assert documents["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == asked
    assert re.search(r"^FROM \S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)


def test_mlflow_answers_its_probes(documents):
    """By the host name that the server's own command allows, at the path that MLflow serves."""
    (container,) = pods(documents)["mlflow"]["containers"]
    allowed = next(one for one in container["args"] if one.startswith("--allowed-hosts="))
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] == "/health"
        (host,) = (header["value"] for header in asked["httpHeaders"] if header["name"] == "Host")
        assert any(fnmatch(host, pattern) for pattern in allowed.partition("=")[2].split(","))


def test_the_entrypoint_is_a_command_that_emm_takes(documents):
    words = shlex.split(documents["RayJob"]["spec"]["entrypoint"])
    assert words[:2] == ["emm", "run"]
    asked = arguments_of_run(words[2:])
    assert space_of(asked["space"], asked["settings"]).name == "cifar10-width"
    assert (asked["address"], asked["gpus_per_trial"]) == ("auto", 1)
    service = documents["Service"]
    assert (
        asked["tracking_uri"]
        == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )


def test_names_fit_together_and_no_secret_is_in_the_file(documents):
    pod = documents["Deployment"]["spec"]["template"]
    assert documents["Service"]["spec"]["selector"] == pod["metadata"]["labels"]
    (volume,) = pod["spec"]["volumes"]
    assert (
        volume["persistentVolumeClaim"]["claimName"]
        == documents["PersistentVolumeClaim"]["metadata"]["name"]
    )
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": "emm-storage"}}]
            assert not any(
                re.search("KEY|SECRET|TOKEN", one["name"]) for one in container.get("env", [])
            )


def test_the_image_has_everything_the_package_needs():
    text = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    words = {line.split()[0] for line in lines}
    assert words <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    assert "USER 1000:1000" in lines, "as runAsUser in deploy/rayjob.yaml"
    copied = {source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert {"pyproject.toml", "trainables", "search_spaces", "sweep"} <= copied
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_slurm_script_is_sound_bash():
    check = [
        Path(sys.executable).parent / "shellcheck",
        "--severity=warning",
        ROOT / "deploy/slurm.sh",
    ]
    found = subprocess.run(check, check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_slurm_script_ends_when_the_head_does_not_start(tmp_path):
    """With a Ray that ends at once, and with one that hangs: a line, exit code 1, no token and no
    process left."""
    for body in ("exit 1", "exec sleep 300"):
        environment = stand_ins(tmp_path, ray=f"case $1 in health-check) exit 1;; *) {body};; esac")
        job = subprocess.run(
            ["bash", ROOT / "deploy/slurm.sh", "digits-width", "--out", tmp_path / "out"],
            env={**environment, "EMM_START_SECONDS": "2"}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert job.returncode == 1
        assert "Ray's head did not start on 127.0.0.2" in job.stderr
        assert not list(tmp_path.glob(".emm-*"))
        assert not (tmp_path / "out").exists()


def test_a_step_of_slurm_gets_the_cpus_of_the_job(tmp_path):
    """Since Slurm 22.05 srun has one CPU unless it is told more."""
    log = tmp_path / "srun.log"
    environment = stand_ins(tmp_path, ray="exit 1", srun=f'echo "$@" >> {log}; exit 1')
    environment |= {"SLURM_CPUS_PER_TASK": "7", "EMM_START_SECONDS": "2"}
    subprocess.run(
        ["bash", ROOT / "deploy/slurm.sh", "digits-width"],
        env=environment,
        capture_output=True,
        timeout=30,
    )
    assert "--cpus-per-task=7" in log.read_text().split()
    assert "--num-cpus=7" in log.read_text().split()


FAKES = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'case $1 in show) printf "%s\\n" $3;; *) echo "$@" >> "$EMM_SHARED_DIR/scontrol.log";; esac',
}


def stand_ins(directory, **more):
    """The environment of a job on two nodes, loopback addresses, with stand-ins of Slurm's programs
    and of those in `more`."""
    for name, text in {**FAKES, **more}.items():
        (directory / name).write_text(f"#!/bin/bash\n{text}\n")
        (directory / name).chmod(0o755)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{directory}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "127.0.0.2\n127.0.0.3",
        "SLURM_CPUS_PER_TASK": "1",
        "EMM_SHARED_DIR": str(directory),
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_slurm_script_runs_on_two_nodes_and_asks_to_be_queued_again(tmp_path, short_path):
    """With stand-ins of srun and scontrol that take loopback addresses for nodes; Ray and the sweep
    are real."""
    environment = {**stand_ins(tmp_path), "RAY_TMPDIR": str(short_path)}
    out = tmp_path / "out"
    command = [
        "bash",
        ROOT / "deploy/slurm.sh",
        "digits-width",
        "--out",
        out,
        "--set",
        "trainer.length=4000",
    ]
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 150
        in_training = re.compile(r"width=4 .*training [1-9].*\nwidth=8 .*training [1-9]")
        while not in_training.search((tmp_path / "log").read_text()):
            assert job.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=60) == 143, (tmp_path / "log").read_text()
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert (tmp_path / "scontrol.log").read_text().split() == ["requeue", str(os.getpid())]
    left = out.glob("trials/*/checkpoint-*.pt")  # a trial may have one of a snapshot as well
    assert len({checkpoint.parent for checkpoint in left}) == 2
    assert not list(tmp_path.glob(".emm-*")), "the token is removed"

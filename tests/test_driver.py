"""A driver with real Ray, started and started again; what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweep.driver import Resources, Run, Sweep, check_local_resources, check_sweep
from sweep.lock import LOCK
from sweep.summary import SWEEP, summarize
from tests.fakes import STEPS, fake_space
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parent.parent


def start(directory, workers, *widths):
    command = [sys.executable, "-m", "tests.fake_sweep", str(directory), str(workers), *map(str, widths)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_to_the_end(directory, workers, *widths):
    process = start(directory, workers, *widths)
    output, _ = process.communicate(timeout=110)
    assert process.returncode == 0, output
    return output


def trials(directory):
    """(name, seed, N, R_mem) of all finished trials."""
    found = []
    for path in Path(directory).glob("trials/*/result.json"):
        result = json.loads(path.read_text())
        found.append((result["spec"]["name"], result["spec"]["seed"], result["spec"]["n"], result["r_mem"]))
    return sorted(found)


def verdicts(directory):
    return {study.name: study.verdict for study in summarize(Storage(str(directory))).studies}


def mlflow_runs(directory, level):
    """Runs of a level that MLflow holds."""
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(experiments, f"tags.`emm.level` = '{level}'")


def last_steps(directory):
    """How often each finished trial took its last step."""
    logs = [path.with_name("steps.log").read_text().split() for path in Path(directory).glob("trials/*/result.json")]
    return [log.count(str(STEPS - 1)) for log in logs]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_workers_find_what_the_formula_says(tmp_path):
    run_to_the_end(tmp_path, 2, 8, 16)
    for name, emm in (("width=8", 16), ("width=16", 32)):
        assert verdicts(tmp_path)[name].state == "found"
        assert verdicts(tmp_path)[name].emm_low < emm < verdicts(tmp_path)[name].emm_high
    assert set(last_steps(tmp_path)) == {1}
    (of_sweep,) = mlflow_runs(tmp_path, "sweep")
    of_studies = {run.info.run_name: run for run in mlflow_runs(tmp_path, "study")}
    assert {run.data.tags["mlflow.parentRunId"] for run in of_studies.values()} == {of_sweep.info.run_id}
    for name, verdict in verdicts(tmp_path).items():
        assert of_studies[name].data.tags["emm.verdict"] == "found"
        assert of_studies[name].data.metrics["emm"] == pytest.approx(verdict.emm, rel=1e-4)
    shown = {(run.data.params["configuration"], int(run.data.params["seed"])) for run in mlflow_runs(tmp_path, "trial")}
    assert {(name, seed) for name, seed, _, _ in trials(tmp_path)} <= shown
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*")}
    run_to_the_end(tmp_path, 2, 8, 16)  # nothing is left to do
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("trials/*/*")}
    assert not list(tmp_path.glob(f"{LOCK}*"))


# ---------------------------------------------------------------- what is refused


def sweep_of(space):
    sweep = Sweep(space)
    sweep.load_data()
    return sweep


def test_a_changed_field_is_refused_by_name_and_an_extension_is_not(tmp_path):
    storage, former = Storage(str(tmp_path)), sweep_of(fake_space())
    storage.write_json(SWEEP, {"sweep": "fake", "space": former.space.model_dump(mode="json"), "configurations": former.keys()})
    check_sweep(storage, former)
    check_sweep(storage, sweep_of(fake_space(precision=0.05, max_trials=50)))
    check_sweep(storage, sweep_of(fake_space(widths=(8, 16, 32))))
    for settings, path in (
        ({"trainer.lr": 0.5}, "trainer.lr"),
        ({"network.depth": 2}, "network.depth"),
        ({"search.n_high": 300}, "search.n_high"),
        ({"measurement.k": 0.5}, "measurement.k"),
        ({"data.kind": "mnist5k", "data.resolution": 8}, "data"),
    ):
        with pytest.raises(UserError, match=path):
            check_sweep(storage, sweep_of(fake_space().with_settings(settings)))


def test_a_configuration_that_was_left_out_in_between_keeps_its_name(tmp_path):
    storage = Storage(str(tmp_path))
    for widths in ((8, 16), (8,)):
        Run(sweep_of(fake_space(widths=widths)), storage, tmp_path, Resources())
    check_sweep(storage, sweep_of(fake_space(widths=(8, 16))))
    changed = sweep_of(fake_space(widths=(16,)).with_settings({"trainer.lr": 0.5}))
    with pytest.raises(UserError, match="width=16: this sweep has had another configuration"):
        check_sweep(storage, changed)


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds no sweep"):
        check_sweep(Storage(str(tmp_path)), sweep_of(fake_space()))


def test_more_images_than_there_are_is_refused():
    with pytest.raises(UserError, match="1797"):
        sweep_of(fake_space(n_high=1798))


@pytest.mark.parametrize(
    ("resources", "option"),
    [
        (Resources(cpus_per_trial=3), "--cpus-per-trial"),
        (Resources(gpus_per_trial=1), "--gpus-per-trial"),
        (Resources(workers=3), "--workers"),
        (Resources(cpus_per_trial=-1), "--cpus-per-trial"),
    ],
)
def test_more_than_the_machine_has_is_refused(resources, option):
    check_local_resources(Resources(cpus_per_trial=2, workers=1), cpus=2, gpus=0)
    with pytest.raises(UserError, match=option):
        check_local_resources(resources, cpus=2, gpus=0)

"""A driver with real Ray, started and started again; what is refused."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import ray
from mlflow import MlflowClient

from search_spaces.table import SPACES
from sweep.analysis.finals import missing_finals
from sweep.analysis.summary import summarize
from sweep.cli.main import main
from sweep.run.checks import Sweep, check_sweep
from sweep.run.driver import MOST_PER_STUDY, SIGTERM, Run, free_slots
from sweep.run.machines import Resources, check_local_resources
from sweep.run.retry import reopen_failed
from sweep.run.studies import Ticket
from sweep.search.belief import base_prior
from sweep.store.files import FINAL, SWEEP
from sweep.store.lock import LOCK, Lock
from sweep.store.priors import PRIORS
from tests.fakes import STEPS, fake_space
from tests.results import write_sweep, write_trial
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage

ROOT = Path(__file__).parents[2]


def start(directory, workers, *widths):
    command = [
        sys.executable,
        "-m",
        "tests.fake_sweep",
        str(directory),
        str(workers),
        *map(str, widths),
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


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
        found.append(
            (result["spec"]["name"], result["spec"]["seed"], result["spec"]["n"], result["r_mem"])
        )
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
    logs = [
        path.with_name("steps.log").read_text().split()
        for path in Path(directory).glob("trials/*/result.json")
    ]
    return [log.count(str(STEPS - 1)) for log in logs]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_workers_find_what_the_formula_says(tmp_path, monkeypatch):
    """Whose processes start together: neither is ready before both have begun."""
    monkeypatch.setenv("EMM_TOGETHER", "2")
    run_to_the_end(tmp_path, 2, 8, 16)
    for name, emm in (("width=8", 16), ("width=16", 32)):
        assert verdicts(tmp_path)[name].state == "found"
        assert verdicts(tmp_path)[name].emm_low < emm < verdicts(tmp_path)[name].emm_high
    assert set(last_steps(tmp_path)) == {1}
    (of_sweep,) = mlflow_runs(tmp_path, "sweep")
    of_studies = {run.info.run_name: run for run in mlflow_runs(tmp_path, "study")}
    assert {run.data.tags["mlflow.parentRunId"] for run in of_studies.values()} == {
        of_sweep.info.run_id
    }
    for name, verdict in verdicts(tmp_path).items():
        assert of_studies[name].data.tags["emm.verdict"] == "found"
        assert of_studies[name].data.metrics["emm"] == pytest.approx(verdict.emm, rel=1e-4)
    shown = {
        (run.data.params["configuration"], int(run.data.params["seed"]))
        for run in mlflow_runs(tmp_path, "trial")
    }
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
    storage.write_json(
        SWEEP,
        {
            "sweep": "fake",
            "space": former.space.model_dump(mode="json"),
            "configurations": former.keys(),
        },
    )
    check_sweep(storage, former)
    check_sweep(storage, sweep_of(fake_space(precision=0.05, max_trials=50)))
    check_sweep(storage, sweep_of(fake_space(widths=(8, 16, 32))))
    check_sweep(storage, sweep_of(fake_space().with_settings({"measurement.batch": 7})))
    for settings, path in (
        ({"trainer.lr": 0.5}, "trainer.lr"),
        ({"labels.kind": "random"}, "labels.kind"),
        ({"diffusion.P_mean": 0.5}, "diffusion.P_mean"),
        ({"network.depth": 2}, "network.depth"),
        ({"search.n_high": 300}, "search.n_high"),
        ({"measurement.k": 0.5}, "measurement.k"),
        ({"data.kind": "mnist5k", "data.resolution": 8}, "data"),
    ):
        with pytest.raises(UserError, match=path):
            check_sweep(storage, sweep_of(fake_space().with_settings(settings)))


REUSE = "emm run … --out NEW --reuse {} takes its trials over"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search.n_high": 300}, REUSE),
        ({"search.target": 0.5}, REUSE),
        ({"measurement.accept": None}, "measurement.accept (--early-accept): this sweep was made"),
        ({"name": "other"}, "write `name: fake` into the space's file to go on with it, or choose"),
    ],
)
def test_what_is_refused_says_the_way_out(tmp_path, change, said):
    space = fake_space().with_settings({"measurement.accept": 0.99})
    storage, former = Storage(str(tmp_path)), sweep_of(space)
    content = {"space": space.model_dump(mode="json"), "configurations": former.keys()}
    storage.write_json(SWEEP, content)
    if "name" in change:
        space = space.model_copy(update=change)
    else:
        space = space.with_settings(change)
    with pytest.raises(UserError) as refused:
        check_sweep(storage, sweep_of(space))
    assert said.format(tmp_path) in str(refused.value)
    assert ("--reuse" in str(refused.value)) == (said is REUSE)
    other = fake_space((24,)).model_copy(update={"name": "another"})
    with pytest.raises(UserError, match="not of another; choose another --out"):
        check_sweep(storage, sweep_of(other))


def test_a_configuration_that_was_left_out_in_between_keeps_its_name(tmp_path):
    storage = Storage(str(tmp_path))
    ids = {
        Run(sweep_of(fake_space(widths=widths)), storage, tmp_path, Resources()).sweep_id
        for widths in ((8, 16), (8,))
    }
    assert ids == {storage.read_json(SWEEP)["id"]}, "by which a pointer knows it"
    check_sweep(storage, sweep_of(fake_space(widths=(8, 16))))
    changed = sweep_of(fake_space(widths=(16,)).with_settings({"trainer.lr": 0.5}))
    with pytest.raises(UserError, match="width=16: this sweep has had another configuration"):
        check_sweep(storage, changed)


def test_as_many_trials_run_as_fit_the_nodes_that_are_there(monkeypatch):
    """On each as many as the scarcer of its CPUs and GPUs allows: 1 and 5; and a worker who waits
    tells an autoscaler that a node is wanted."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 90.0, "GPU": 90.0}},
        {"Alive": True, "Resources": {"CPU": 17.0, "GPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 64.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert free_slots({"CPU": 3, "GPU": 0.5}, None)() == 6
    assert free_slots({"CPU": 3, "GPU": 0.0}, None)() == 1 + 5 + 21
    assert free_slots({"CPU": 3, "GPU": 0.5}, 4)() == 4
    assert free_slots({"CPU": 65, "GPU": 0.0}, None)() == 1


def test_a_decided_sweep_is_open_until_its_last_measurements_are_there(tmp_path):
    space, storage = fake_space((8, 16), final_samples=50), Storage(str(tmp_path))
    write_sweep(storage, space, load(space.base.data), 8)
    run = Run(sweep_of(space), storage, tmp_path, Resources())
    missing = missing_finals(run.summary())
    assert (run.is_decided, run.is_open, len(missing) > 1) == (True, True, True)
    final = {"r_mem": 0.5, "n_samples": 50, "n_memorized": 25}
    storage.write_json(FINAL, {result.training_key: final for result in missing[1:]})
    assert run.is_open
    storage.write_json(FINAL, {result.training_key: final for result in missing})
    assert not run.is_open


def test_an_objective_says_how_many_trials_of_a_study_run_at_once():
    assert MOST_PER_STUDY == {"cost": 2, "wall": 8}
    assert Resources().objective == "wall"


@pytest.mark.parametrize(("gpus", "devices"), [(0.5, 0.5), (2, 2), (0, 1)])
def test_a_budget_is_of_gpus_or_else_of_trials(tmp_path, gpus, devices):
    resources = Resources(cpus_per_trial=4, gpus_per_trial=gpus)
    assert (
        Run(sweep_of(fake_space()), Storage(str(tmp_path)), tmp_path, resources).budget().devices
        == devices
    )


@pytest.fixture
def swept(tmp_path):
    """A sweep over two widths, three trials each, as it was before a factor was added to it."""
    former = sweep_of(fake_space())
    storage = Storage(str(tmp_path))
    Run(former, storage, tmp_path, Resources())
    for named in former.space.configurations:
        for seed in range(3):
            write_trial(
                storage, former.space, named, former.data_of(named.name), (12, 16, 20)[seed], seed
            )
    prior = replace(base_prior(), noise=tuple(reversed(base_prior().noise)))
    storage.write_json(PRIORS, {"width=8": asdict(prior)})  # by name, as older sweeps have it
    Run(former, storage, tmp_path, Resources())
    return storage, prior


def test_adding_a_factor_goes_on_with_what_there_is(swept, tmp_path):
    """Results are found by what they are, whatever they were called: nothing is trained twice,
    nothing ends in a KeyError."""
    storage, prior = swept
    kept = {path: path.read_bytes() for path in tmp_path.glob("trials/*/*")}
    before = {study.name: study for study in summarize(storage).studies}
    lr = fake_space().base.trainer.lr
    wider = fake_space().model_copy(
        update={"vary": {"network.width": (8, 16), "trainer.lr": (lr, 2 * lr)}}
    )
    check_sweep(storage, sweep_of(wider))
    for _ in range(2):  # the same command again
        run = Run(sweep_of(wider), storage, tmp_path, Resources())
    counts = {study.name: len(study.results) for study in run.summary().studies}
    assert counts == {
        "width=8,lr=0.02": 3,
        "width=8,lr=0.04": 0,
        "width=16,lr=0.02": 3,
        "width=16,lr=0.04": 0,
    }
    for study in summarize(storage).studies:
        if study.results:
            former = before[study.name.split(",")[0]]
            assert study.verdict == former.verdict
            assert [r.spec.name for r in study.results] == [study.name] * 3
            assert [r.training_key for r in study.results] == [
                r.training_key for r in former.results
            ]
    assert run.studies.ask("width=8,lr=0.02").number == 3, "seeds go on"
    assert run.priors.get("width=8,lr=0.02") == prior != run.priors.get("width=16,lr=0.02")
    assert run.studies.options("width=8,lr=0.02").prior == prior
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'optuna.db'}")
    assert sorted(names) == sorted(counts), "no study is left under a former name"
    assert kept == {path: path.read_bytes() for path in tmp_path.glob("trials/*/*")}
    back = Run(sweep_of(fake_space()), storage, tmp_path, Resources()).summary()
    assert {study.name: study.verdict for study in back.studies} == {
        name: study.verdict for name, study in before.items()
    }


def test_a_failed_trial_of_a_former_name_is_tried_again(swept, tmp_path):
    storage, _ = swept
    former = sweep_of(fake_space())
    failure = {"complete": False, "r_mem": None, "cause": "out of memory"}
    result = write_trial(
        storage,
        former.space,
        former.space.configurations[0],
        former.data_of("width=8"),
        17,
        3,
        **failure,
    )
    lr = fake_space().base.trainer.lr
    wider = sweep_of(
        fake_space().model_copy(update={"vary": {"trainer.lr": (lr,), "network.width": (8, 16)}})
    )
    (reopened,) = reopen_failed(storage, wider.space, wider.keys())
    assert (reopened.spec.name, reopened.training_key) == ("lr=0.02,width=8", result.training_key)
    run = Run(wider, storage, tmp_path, Resources())
    assert run.adopted == [Ticket("lr=0.02,width=8", 3, 17)]


def test_a_result_of_another_configuration_of_that_name_does_not_count(swept):
    """Its key says whose it is."""
    storage, _ = swept
    other = sweep_of(fake_space().with_settings({"trainer.lr": 0.5}))
    write_trial(
        storage, other.space, other.space.configurations[0], other.data_of("width=8"), 12, 7
    )
    assert [len(study.results) for study in summarize(storage).studies] == [3, 3]


def test_two_names_of_one_configuration_are_refused():
    space = fake_space().model_copy(update={"vary": {"trainer.micro_batch": (8, 16)}})
    with pytest.raises(
        UserError, match="micro_batch=8 and micro_batch=16 are the same configuration"
    ):
        sweep_of(space)


def test_a_signal_is_not_forgotten_while_the_budget_is_asked():
    """It interrupts the question, and its answer must not take its place."""
    run = SimpleNamespace(ended=None)

    class Interrupted:
        def __init__(self, reason):
            self.reason = reason

        def ended(self):
            run.ended = SIGTERM
            return self.reason

    for reason in (None, "the budget is spent"):
        run.ended = None
        assert Run.has_ended(run, Interrupted(reason)) == run.ended == SIGTERM
    run.ended = None
    spent = SimpleNamespace(ended=lambda: "the budget is spent")
    assert Run.has_ended(run, spent) == run.ended == "the budget is spent"


def of_a_rate(configuration, images, labels, seed, device, rate):
    raise AssertionError("nothing is trained")


def test_whole_numbers_and_others_are_told_apart_in_options(tmp_path):
    """They are two configurations; of the data nothing is said."""
    storage = Storage(str(tmp_path))
    custom = {"trainer.kind": "custom", "trainer.builder": f"{__name__}:of_a_rate"}
    former, now = (
        sweep_of(fake_space((8,)).with_settings({**custom, "trainer.options": {"rate": rate}}))
        for rate in (1.0, 1)
    )
    content = {"space": former.space.model_dump(mode="json"), "configurations": former.keys()}
    storage.write_json(SWEEP, content)
    check_sweep(storage, former)
    said = r"trainer\.options: this sweep was made with {'rate': 1\.0}, not {'rate': 1}"
    with pytest.raises(UserError, match=said):
        check_sweep(storage, now)


def test_the_field_that_is_named_is_one_that_counts(swept):
    """Not another micro_batch, which is allowed."""
    storage, _ = swept
    check_sweep(storage, sweep_of(fake_space().with_settings({"trainer.micro_batch": 8})))
    with pytest.raises(UserError, match="the data of width=8 have changed"):
        check_sweep(
            storage,
            sweep_of(fake_space().with_settings({"trainer.micro_batch": 8, "data.classes": 9})),
        )


def test_what_was_found_in_the_data_is_told_once(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8)
    images[50:] = images[0]
    np.savez(tmp_path / "data.npz", images=images, weather=np.arange(3))
    settings = {
        "data.kind": "arrays",
        "data.path": str(tmp_path / "data.npz"),
        "data.resolution": 8,
        "data.channels": 1,
        "search.n_high": 60,
    }
    assert sweep_of(fake_space().with_settings(settings)).notes == [
        "10 of the 60 images of arrays equal another one; copies of them don't count",
        f"{tmp_path}/data.npz: 60 images of 8x8 pixels, without classes; left out: weather",
    ]


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


def test_a_sweep_that_another_driver_began_meanwhile_is_not_overwritten(
    tmp_path, monkeypatch, capsys
):
    """Between the check and the lock, which may be waited for."""
    storage, enter = Storage(str(tmp_path / "out")), Lock.__enter__
    other = {"sweep": "fake", "space": fake_space().model_dump(mode="json"), "configurations": {}}

    def late(lock):
        storage.write_json(SWEEP, other)
        return enter(lock)

    monkeypatch.setattr(Lock, "__enter__", late)
    monkeypatch.setattr("sweep.cli.run._carry_out", lambda *_: True)  # for whom it is too late
    with pytest.raises(SystemExit) as ended:
        main(["run", "digits-width", "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "holds the sweep of fake" in capsys.readouterr().err
    assert storage.read_json(SWEEP) == other
    assert not (tmp_path / "out" / "optuna.db").exists()


def test_a_sweep_is_refused_before_it_starts_if_a_seed_may_find_one_group(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        images=rng.integers(0, 256, (60, 8, 8)).astype(np.uint8),
        groups=np.maximum(np.arange(60) - 44, 0),
    )
    settings = {
        "data.kind": "arrays",
        "data.path": str(tmp_path / "data.npz"),
        "data.resolution": 8,
        "data.channels": 1,
    }
    space = SPACES["digits-width"].with_settings(
        {**settings, "search.n_low": 4, "search.n_high": 60, "search.max_trials": 1}
    )
    Sweep(space).load_data()
    with pytest.raises(
        UserError, match=r"^N=4: with seed [1-9][0-9]* these are all of one group"
    ) as refused:
        Sweep(space.with_settings({"search.max_trials": 20})).load_data()
    seed = int(str(refused.value).split("seed ")[1].split()[0])
    Sweep(space.with_settings({"search.replicates": seed})).load_data()
    with pytest.raises(UserError, match=f"with seed {seed} "):
        Sweep(space.with_settings({"search.replicates": seed + 1})).load_data()

"""What a sweep says of the commands that ran it, and of the code that carried them out."""

import json
from pathlib import Path

import pytest

from search_spaces.table import SPACES
from sweep.cli.main import main
from sweep.report.rows import code_text
from sweep.store.files import SWEEP, Invocation, read_made_sweep
from sweep.tracking.place import local_tracking
from tests.results import write_sweep, write_trial
from trainables.data.sources import load
from trainables.provenance import ours
from trainables.storage import Storage


def shown(*arguments: str) -> str:
    return Invocation.now(["emm", *arguments]).shown


def test_secrets_are_not_even_kept_and_places_are_not_shown() -> None:
    url = "s3://key:secret@host/bucket?signature=abc"
    run = Invocation.now(
        ["emm", "run", "digits-width", "--storage", url, "--set", "data.path=patients"]
    )
    assert "secret" not in run.command
    assert "abc" not in run.command
    assert "host/bucket" in run.command
    assert run.shown == "emm run digits-width --storage … --set data.path=…"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "a/b.yaml", "--out", "/home/me/x"), "emm run … --out …"),
        (("run", "x", "--out=../x"), "emm run x --out=…"),
        (("run", "x", "--out=patients"), "emm run x --out=…"),
        (("run", "x", "--out", "patients", "--quiet"), "emm run x --out … --quiet"),
        (("run", "x", "--set", 'data={"path": "patients"}'), "emm run x --set data=…"),
        (("run", "x", "--set", "data.mix.data={'path': 'p'}"), "emm run x --set data.mix.data=…"),
        (("run", "x", "--set", "data.mix.data.path=mine"), "emm run x --set data.mix.data.path=…"),
        (("run", "x", "--set=data.path=mine"), "emm run x --set=data.path=…"),
        (("run", "x", "--set=data={'path': 'p'}"), "emm run x --set=data=…"),
        (("run", "x", "--set=network.width=8"), "emm run x --set=network.width=8"),
        (("run", "x", "--set", "data.name=mine"), "emm run x --set data.name=…"),
        (("run", "x", "--set", "data.download=true"), "emm run x --set data.download=true"),
        (("run", "x", "--set", "network.width=8"), "emm run x --set network.width=8"),
        (
            ("run", "x", "--targets", ".5,.1", "--workers", "2"),
            "emm run x --targets .5,.1 --workers 2",
        ),
        (
            ("run", "x", "--set", "network.skips=[true, false]"),
            "emm run x --set network.skips=[true, false]",
        ),
    ],
)
def test_what_may_leave_the_storage(arguments: tuple[str, ...], words: str) -> None:
    assert shown(*arguments) == words


@pytest.fixture(scope="module")
def run_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose trials are all there already: nothing is trained."""
    root = tmp_path_factory.mktemp("once") / "sweep"
    space = SPACES["digits-width"]
    storage, data = Storage(str(root)), load(space.base.data)
    write_sweep(storage, space, data, 0)
    for named in space.configurations:
        for seed in range(12):
            n = max(8, round(named.configuration.network.width * 2 * 1.12 ** (seed - 6)))
            write_trial(storage, space, named, data, n, seed)
    for workers in ("1", "2"):
        arguments = ["run", "digits-width", "--out", str(root), "--workers", workers]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["emm", *arguments])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 0
    return root


def test_every_run_is_kept_in_the_sweep(run_twice: Path) -> None:
    runs = read_made_sweep(Storage(str(run_twice))).runs
    assert [run.command[-1] for run in runs] == ["1", "2"]
    assert all(run.ours == ours() and str(run_twice) in run.command for run in runs)
    assert {"torch", "ray", "python"} <= runs[0].packages.keys()
    assert runs[0].at <= runs[1].at


def test_report_and_mlflow_tell_it_without_places(run_twice: Path) -> None:
    told = json.loads((run_twice / "report/report.json").read_text())["runs"]
    command = "emm run digits-width --out … --workers"
    assert [run["command"] for run in told] == [f"{command} 1", f"{command} 2"]
    page = (run_twice / "report/index.html").read_text()
    assert f"{command} 2" in page
    assert str(run_twice) not in page
    assert str(ours()["commit"])[:10] in page
    from mlflow import MlflowClient

    client = MlflowClient(local_tracking(run_twice)[0])
    experiment = client.get_experiment_by_name("emm-sweep")
    for run in client.search_runs([experiment.experiment_id], "tags.`emm.level` != 'trial'"):
        assert run.data.tags["mlflow.source.name"] == f"{command} 2"
        assert run.data.tags["mlflow.source.git.commit"] == ours()["commit"]
        assert run.data.tags["emm.version"] == ours()["version"]


def test_a_sweep_of_before_has_no_runs(run_twice: Path, tmp_path: Path) -> None:
    content = json.loads((run_twice / SWEEP).read_text())
    del content["runs"]
    (tmp_path / SWEEP).write_text(json.dumps(content))
    assert read_made_sweep(Storage(str(tmp_path))).runs == []


def test_code_in_words() -> None:
    whole = {"version": "0.1.0", "commit": "4f1c2d0a9bffff", "clean": False}
    assert code_text(whole) == "0.1.0, 4f1c2d0a9b, changed since"
    assert code_text({**whole, "clean": True}) == "0.1.0, 4f1c2d0a9b"
    assert code_text({"version": None}) == code_text({}) == ""

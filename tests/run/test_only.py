"""Some configurations of a sweep, and what would be run: `emm run --only`, `--dry-run`, `--quiet`."""

import json
import shlex
from pathlib import Path

import optuna
import pytest

from search_spaces.find import find_space
from sweep.run.checks import Sweep
from sweep.run.driver import Run
from sweep.run.machines import Resources
from sweep.run.retry import reopen_failed
from sweep.run.searcher import EmmSearcher
from sweep.store.files import SWEEP
from tests.cli.test_cli import here
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.storage import Storage

SPACE = fake_space((8, 16, 24), max_trials=2)
NAMES = ["width=8", "width=16", "width=24"]
DATA = load(Digits())


@pytest.fixture
def driver(tmp_path):
    """Opens the sweep as a new driver does; `only` as for Run."""
    storage = Storage(str(tmp_path / "sweep"))

    def begin(*only, space=SPACE):
        sweep = Sweep(space)
        sweep.load_data()
        return Run(sweep, storage, tmp_path / "sweep", Resources(), only=only or None)

    return begin


def searcher_of(run):
    return run.searcher(lambda: 2, [], lambda: None)


def finish(run, searcher, trial_id):
    """A trial whose R_mem is a formula; returns what was trained."""
    spec = searcher.live[trial_id].spec
    named = run.studies.configurations[spec.name]
    write_trial(run.storage, run.sweep.space, named, DATA, spec.n, spec.seed)
    searcher.on_trial_complete(trial_id, {})
    return spec.name, spec.n, spec.seed


def train(run):
    """To the end; all that was trained, in its order."""
    searcher, trained, number = searcher_of(run), [], 0
    while (asked := searcher.suggest(str(number))) != EmmSearcher.FINISHED:
        if asked is None:
            trained.append(finish(run, searcher, next(iter(searcher.live))))
        number += 1
        assert number < 300
    return trained


def names_in(trained):
    return {name for name, _, _ in trained}


def test_only_what_is_named_is_trained_and_the_rest_later(driver):
    first = driver("width=16", "width=8")
    assert first.wanted == ["width=8", "width=16"], "in the order of the space"
    done = train(first)
    assert names_in(done) == {"width=8", "width=16"}
    assert first.is_decided
    assert not first.is_open
    written = first.storage.read_json(SWEEP)

    rest = driver()
    assert not rest.is_decided
    assert names_in(train(rest)) == {"width=24"}, "what is known is not trained again"
    assert rest.is_decided
    again = rest.storage.read_json(SWEEP)
    assert again == written, "the sweep is that of the space, whatever was run of it"
    assert list(again["configurations"]) == NAMES
    assert train(driver("width=8")) == []


def test_a_whole_sweep_goes_on_in_parts(driver):
    begun = driver()
    searcher = searcher_of(begun)
    for trial in ("a", "b"):
        searcher.suggest(trial)
    assert {record.spec.name for record in searcher.live.values()} == {"width=8", "width=16"}
    left = {record.spec.name: record.spec for record in searcher.live.values()}
    for record in searcher.live.values():
        begun.storage.write_json(
            f"trials/{record.training_key}/trial.json", json.loads(record.model_dump_json())
        )

    part = driver("width=8")
    assert {ticket.study for ticket in part.adopted} == {"width=8", "width=16"}
    done = train(part)
    assert done[0] == ("width=8", left["width=8"].n, left["width=8"].seed), "it is adopted"
    assert names_in(done) == {"width=8"}

    rest = driver()
    done = train(rest)
    assert names_in(done) == {"width=16", "width=24"}
    assert ("width=16", left["width=16"].n, left["width=16"].seed) in done, "nothing was lost"
    assert rest.is_decided


def test_last_measurements_are_those_of_what_is_named(driver, tmp_path):
    space = fake_space((8, 16), final_samples=50)
    write_sweep(Storage(str(tmp_path / "sweep")), space, DATA, 8)
    whole, part = driver(space=space), driver("width=16", space=space)
    assert names_in((r.spec.name, 0, 0) for r in whole.missing_finals()) == {"width=8", "width=16"}
    assert names_in((r.spec.name, 0, 0) for r in part.missing_finals()) == {"width=16"}
    assert part.is_open


def test_only_what_is_named_is_tried_again(driver):
    run = driver()
    for named in run.sweep.space.configurations:
        write_trial(run.storage, SPACE, named, DATA, 20, 0, complete=False, cause="memory")
    tried = reopen_failed(run.storage, SPACE, run.sweep.keys(), ["width=16"])
    assert [result.spec.name for result in tried] == ["width=16"]


# ---------------------------------------------------------------- as it is typed

RUN = ["run", "digits-width", "--out"]
DECIDED = ["search.max_trials=2", "search.n_low=4", "search.n_high=64", "search.precision=0.01"]
SETTINGS = [word for setting in DECIDED for word in ("--set", setting)]


def files_below(directory):
    return {path: path.stat().st_mtime_ns for path in Path(directory).rglob("*")}


@pytest.fixture
def finished(tmp_path):
    """A sweep of digits-width in which both configurations have all the trials that they may."""
    space = find_space("digits-width").with_settings(
        {name: json.loads(value) for name, value in (one.split("=") for one in DECIDED)}
    )
    storage, sweep = Storage(str(tmp_path / "sweep")), Sweep(space)
    write_sweep(storage, space, DATA, trials=2)
    Run(sweep, storage, tmp_path / "sweep", Resources())
    return tmp_path / "sweep"


def rows_of(output):
    return {line.split()[0]: line for line in output.splitlines() if line.startswith("width=")}


def test_a_dry_run_says_what_is_new_and_creates_nothing(tmp_path, capsys):
    code, output, errors = here(
        capsys, *RUN, tmp_path / "new", *SETTINGS, "--dry-run", "--only", "width=8"
    )
    assert (code, errors) == (0, "")
    assert "digits-width: would be a new sweep in " in output
    assert "N from 4 to 64, until sd(ln EMM) <= 0.01 at R_mem = 0.9; at most 2 trials" in output
    rows = rows_of(output)
    assert "left out" in rows["width=4"]
    assert "trained, first at N = 16" in rows["width=8"]  # the middle of 4 to 64
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_sweep_says_what_is_left_and_changes_nothing(finished, capsys):
    before = files_below(finished)
    code, output, _ = here(capsys, *RUN, finished, *SETTINGS, "--dry-run")
    assert code == 0
    assert "would go on with the sweep in " in output
    assert all("left as it is: unresolved" in row for row in rows_of(output).values())
    more = [*SETTINGS[:-8], *SETTINGS[2:], "--set", "search.max_trials=20"]
    _, output, _ = here(capsys, *RUN, finished, *more, "--dry-run")
    assert all("trained on" in row and "2 complete" in row for row in rows_of(output).values())
    assert files_below(finished) == before


def test_a_dry_run_says_what_is_tried_or_measured_again(tmp_path, capsys):
    storage, space = Storage(str(tmp_path / "sweep")), find_space("digits-width")
    write_sweep(storage, space, DATA, trials=0)
    failing, found = space.configurations
    for seed in range(2):
        write_trial(storage, space, failing, DATA, 8, seed, complete=False, cause="memory")
    for seed, n in enumerate((8, 12, 15, 16, 17, 18, 20, 24)):
        write_trial(storage, space, found, DATA, n, seed)
    command = [*RUN, tmp_path / "sweep", "--dry-run", "--final-samples", "50"]
    rows = rows_of(here(capsys, *command)[1])
    assert "trained on" in rows[failing.name]
    assert rows[failing.name].endswith("  2 failed")
    assert "measured with search.final_samples" in rows[found.name]
    rows = rows_of(here(capsys, *command, "--retry-failed")[1])
    assert "tried again: 2 that failed" in rows[failing.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "width=9"], "--only width=9: digits-width has width=4, width=8"),
        (["--only", "width=8", "--only", "8"], "--only 8: digits-width has width=4, width=8"),
        (["--dry-run", "--set", "search.n_high=5000"], "more than the 1797 images"),
        (["--dry-run", "--cpus-per-trial", "512"], "--cpus-per-trial 512"),
        (["--dry-run", "--set", "network.widht=5000"], "did you mean network.width?"),
    ],
)
def test_what_a_run_refuses_is_refused_before_anything_is_made(tmp_path, capsys, arguments, said):
    code, output, errors = here(capsys, *RUN, tmp_path / "new", *arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert said in errors
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_refused_where_the_run_would_be(finished, capsys):
    code, _, errors = here(capsys, *RUN, finished, *SETTINGS, "--dry-run", "--set", "trainer.lr=1")
    assert code == 2
    assert "trainer.lr: this sweep was made with 0.02, not 1" in errors


def test_only_reaches_the_run(tmp_path, capsys, monkeypatch):
    runs = []
    monkeypatch.setattr("sweep.cli.run._carry_out", lambda run, *_: runs.append(run) or True)
    monkeypatch.setattr("sweep.cli.run._show", lambda *_: None)
    here(capsys, *RUN, tmp_path / "a", "--only", "width=8")
    here(capsys, *RUN, tmp_path / "b")
    assert [run.wanted for run in runs] == [["width=8"], ["width=4", "width=8"]]


def test_a_command_that_is_printed_can_be_typed(tmp_path, capsys, monkeypatch):
    """With a blank in a directory, and what a URL of storage has."""
    monkeypatch.setattr("sweep.cli.run._carry_out", lambda *_: True)
    monkeypatch.setattr("sweep.cli.run._show", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    assert "in MLflow: emm ui 'my sweep'\n" in here(capsys, *RUN, "my sweep")[1]
    assert f"`emm sync '{tmp_path}/my sweep'` makes it" in here(capsys, "ui", "my sweep")[2]

    class Jobs:
        def __init__(self, *_):
            pass

        def running(self):
            return None

        def submit(self, *_):
            return "emm-1"

    monkeypatch.setattr("sweep.run.jobs.Jobs", Jobs)
    asked = ["--address", "http://h:8265", "--storage", "s3://b/x?scheme=http&region=r"]
    output = here(capsys, "submit", "digits-width", *asked, "--no-wait")[1]
    assert f"emm stop {shlex.join(asked)} ends it" in output


def test_a_damaged_view_of_optuna_stops_nothing(tmp_path, capsys):
    """Neither of the commands that open it."""
    space, directory = tmp_path / "digits.py", tmp_path / "sweep"
    sweep = Sweep(SPACE)
    sweep.load_data()
    storage = Storage(str(directory))
    train(Run(sweep, storage, directory, Resources()))
    space.write_text(f"SPACE = {SPACE.model_dump()!r}")
    for command in (["sync"], ["run", str(space), "--only", "width=8", "--out"]):
        (directory / "optuna.db").write_text("garbage\n")
        code, output, _ = here(capsys, *command, directory)
        assert code == 0
        assert "optuna.db was damaged (file is not a database), and is made again from" in output
        names = optuna.get_all_study_names(f"sqlite:///{directory / 'optuna.db'}")
        assert set(names) == set(NAMES)


def test_quietly_there_is_the_result_alone(capsys):
    url = "memory://bucket/quiet"
    space = find_space("digits-width").with_settings(
        {name: json.loads(value) for name, value in (one.split("=") for one in DECIDED)}
    )
    write_sweep(Storage(url), space, DATA, trials=2)
    code, output, errors = here(
        capsys, "run", "digits-width", "--storage", url, *SETTINGS, "--quiet"
    )
    assert code == 0
    lines = output.splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [
        ["width=4", "unresolved"], ["width=8", "unresolved"]
    ]  # fmt: skip
    assert len(lines) == 4, "the two rows, and two lines of heads"
    assert errors == (
        f"MLflow lacks this sweep: emm sync {url} --tracking-uri http://HOST:PORT writes it\n"
    )

"""What another sweep has trained of the same configurations is not trained again: `--reuse`."""

import shutil

import pytest

from search_spaces.find import find_space
from sweep.run.checks import Sweep, check_sweep
from sweep.run.driver import Run
from sweep.run.machines import Resources
from sweep.store.files import SWEEP, read_trials
from sweep.store.reuse import former_trials, take_over
from tests.cli.test_cli import here
from tests.fakes import fake_space
from tests.results import write_sweep, write_trial
from tests.run.test_only import DATA, train
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import STARTED, TrialRecord, trial_directory

FIRST = fake_space((8, 16), max_trials=6)
SECOND = FIRST.model_copy(
    update={
        "name": "another",
        "vary": {"wide": {"no": {"network.width": 8}, "very": {"network.width": 24}}},
    }
)


def sweep_of(space):
    sweep = Sweep(space)
    sweep.load_data()
    return sweep


def started(space, directory, reuse=()):
    return Run(sweep_of(space), Storage(str(directory)), directory, Resources(), reuse=reuse)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished sweep, and what it trained."""
    directory = tmp_path_factory.mktemp("first")
    return directory, train(started(FIRST, directory))


def test_a_shared_configuration_is_trained_once(first, tmp_path):
    """Under another name, and to the same verdict."""
    directory, trained = first
    alone = started(SECOND, tmp_path / "alone")
    assert {name for name, _, _ in train(alone)} == {"wide=no", "wide=very"}
    former = former_trials(str(directory), Storage(str(tmp_path / "again")))
    again = started(SECOND, tmp_path / "again", [former])
    assert [len(taken) for taken in again.taken_over] == [
        sum(name == "width=8" for name, _, _ in trained)
    ]
    assert {name for name, _, _ in train(again)} == {"wide=very"}
    assert again.studies.verdict("wide=no") == alone.studies.verdict("wide=no")
    assert started(SECOND, tmp_path / "again", [former]).taken_over == [[]], "they are there"


def test_what_was_measured_otherwise_does_not_fit(first, tmp_path):
    how = SECOND.measurement
    space = SECOND.model_copy(
        update={"measurement": how.model_copy(update={"n_samples": how.n_samples + 1})}
    )
    former = former_trials(str(first[0]), Storage(str(tmp_path)))
    assert started(space, tmp_path, [former]).taken_over == [[]]


def test_a_seed_is_of_one_trial_and_n_in_the_range(first, tmp_path):
    """A trial's number in its study is its seed: what is here, finished or not, keeps its own."""
    (named, _), done = FIRST.configurations, Storage(str(tmp_path / "done"))
    write_sweep(done, FIRST, DATA, 0)
    for n, seed in ((20, 0), (30, 1), (35, 1), (3, 2), (401, 3), (25, 4), (25, FIRST.search.cap)):
        write_trial(done, FIRST, named, DATA, n, seed)
    other = Storage(str(tmp_path / "other"))
    write_sweep(other, FIRST, DATA, 0)
    for n, seed in ((40, 1), (50, 4), (60, 5)):
        write_trial(other, FIRST, named, DATA, n, seed)
    storage = Storage(str(tmp_path / "new"))
    run = started(FIRST, tmp_path / "new")
    write_trial(storage, FIRST, named, DATA, 45, 0)
    reuse = [former_trials(str(tmp_path / name), storage) for name in ("done", "other")]
    run = started(FIRST, tmp_path / "new", reuse)
    taken = [[(one.spec.n, one.spec.seed) for one in of_one] for of_one in run.taken_over]
    assert [[seed for _, seed in of_one] for of_one in taken] == [[1, 4], [5]]
    assert taken[0][0][0] in (30, 35), "one of the two with seed 1"
    assert [one.n for one in run.studies.observations("width=8")] == [
        45,
        *(n for of_one in taken for n, _ in of_one),
    ]
    assert len(run.summary().studies[0].complete) == 4, "none that its study does not count"


def test_what_is_cut_off_is_taken_over_again(first, tmp_path, monkeypatch):
    """What is left of a copy says that a trial has begun, which is no reason to train it."""
    former, target = former_trials(str(first[0]), Storage(str(tmp_path))), Storage(str(tmp_path))
    for result in former.results:
        record = TrialRecord.model_validate(
            result.model_dump(include=set(TrialRecord.model_fields))
        )
        directory = trial_directory(former.storage, result.training_key)
        directory.write(STARTED, record.model_dump_json().encode())
    keys = {result.configuration_key for result in former.results}
    whole, written = Storage.write, []

    def fails_at_the_end(storage, name, content, mode=0o666):
        written.append(name)
        if name == "result.json":
            raise OSError("the disk is full")
        whole(storage, name, content, mode)

    monkeypatch.setattr(Storage, "write", fails_at_the_end)
    with pytest.raises(OSError, match="disk is full"):
        take_over(former, target, keys, FIRST)
    assert len(written) > 1
    monkeypatch.undo()
    of_all = {f"{number}": key for number, key in enumerate(keys)}
    begun = read_trials(target, FIRST, of_all)
    assert (begun.results, len(begun.started)) == ([], 1)
    assert take_over(former, target, keys, FIRST) == former.results


def test_a_dry_run_says_what_would_be_taken_over(tmp_path, capsys):
    """Width 8 of one question is depth 1 of another."""
    space, done = find_space("digits-width"), Storage(str(tmp_path / "done"))
    write_sweep(done, space, DATA, 0)
    for named in space.configurations:
        write_trial(done, space, named, DATA, 8, 0)
    asked = ["run", "digits-depth", "--reuse", tmp_path / "done", "--out", tmp_path / "new"]
    code, printed, errors = here(capsys, *asked, "--dry-run")
    assert (code, errors) == (0, "")
    assert f"would be taken over: 1 of the 2 trials in {tmp_path / 'done'}" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("depth=1"))
    assert row.endswith("1 complete")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", [None, b"{", b"{}"])
def test_the_trials_of_a_sweep_whose_file_is_lost_are_taken_over(first, tmp_path, capsys, content):
    """As each command that finds no sweep there says."""
    old = tmp_path / "old one"
    shutil.copytree(first[0], old)
    (old / SWEEP).unlink()
    if content is not None:
        (old / SWEEP).write_bytes(content)
    remedy = f"emm run … --out NEW --reuse '{old}' takes its trials over"
    for command in ("status", "sync"):
        code, _, errors = here(capsys, command, old)
        assert (code, errors.count("\n")) == (2, 1)
        assert remedy in errors
    with pytest.raises(UserError, match="--reuse") as refused:
        check_sweep(Storage(str(old)), sweep_of(FIRST))
    assert remedy in str(refused.value)
    again = started(FIRST, tmp_path / "new", [former_trials(str(old), Storage(str(tmp_path)))])
    assert [len(taken) for taken in again.taken_over] == [len(first[1])]
    assert again.is_decided


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nothing", "--reuse {}: no finished trial is there; leave it out"),
        ("out", "--reuse {}: this is the sweep itself; leave it out"),
    ],
)
def test_what_can_not_be_reused(tmp_path, capsys, where, said):
    asked = ["run", "digits-width", "--reuse", tmp_path / where, "--out", tmp_path / "out"]
    code, _, errors = here(capsys, *asked)
    assert code == 2
    assert said.format(tmp_path / where) in errors
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="no finished trial"):
        former_trials(str(tmp_path / "nothing"), Storage(str(tmp_path)))

"""Studies agree with the results, whatever was lost; the searcher, driven by hand, without Ray."""

import math
import sqlite3
from contextlib import closing

import optuna
import pytest
from ray.tune.utils.util import flatten_dict

from sweep.analysis.summary import summary_of
from sweep.run.searcher import EmmSearcher
from sweep.run.studies import Studies, Ticket
from sweep.store.databases import sound_url, sqlite_url
from tests.fakes import fake_r_mem, fake_space
from trainables.config.data import Digits
from trainables.data.sources import load
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial import checkpoint
from trainables.trial.result import RESULT, Result, read_result, start_record, trial_directory

DATA = load(Digits())
SPACE = fake_space((8,))
NAME = "width=8"


def record_of(spec):
    return start_record(spec, DATA)


def result_of(spec, **outcome):
    n_memorized = round(fake_r_mem(spec) * 2000)
    measured = {
        "complete": True,
        "r_mem": n_memorized / 2000,
        "n_samples": 2000,
        "n_memorized": n_memorized,
    }
    return Result(**dict(record_of(spec)), **{**measured, **outcome})


def history(studies, length=100):
    """Asks and tells until the verdict (or `length` trials)."""
    results = []
    while studies.verdict(NAME).state == "searching" and len(results) < length:
        results.append(result_of(studies.spec(studies.ask(NAME))))
        studies.tell(results[-1])
    return results


@pytest.fixture(scope="module")
def undisturbed():
    return history(Studies(SPACE))


def test_a_study_finds_the_emm(undisturbed):
    studies = Studies(SPACE)
    studies.reconcile(undisturbed, [])
    verdict = studies.verdict(NAME)
    assert verdict.state == "found"
    assert verdict.emm_low < 16 < verdict.emm_high
    assert [result.spec.seed for result in undisturbed] == list(range(len(undisturbed)))


def test_rebuilt_from_any_prefix_it_asks_what_it_would_have_asked(undisturbed, tmp_path):
    for length in range(len(undisturbed)):
        studies = Studies(SPACE, f"sqlite:///{tmp_path / f'{length}.db'}")
        assert studies.reconcile(undisturbed[:length], []) == []
        assert studies.ask(NAME) == Ticket(NAME, length, undisturbed[length].spec.n)


def test_results_that_were_not_told_are_told(undisturbed, tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    first = Studies(SPACE, url)
    asked = [first.ask(NAME), first.ask(NAME), first.ask(NAME)]
    results = [result_of(first.spec(ticket)) for ticket in asked]
    first.tell(
        results[0]
    )  # the driver dies here: the other two are asked for, one of them is finished
    second = Studies(SPACE, url)
    assert second.reconcile([results[0], results[2]], []) == [asked[1]]
    states = [trial.state.name for trial in optuna.load_study(study_name=NAME, storage=url).trials]
    assert states == ["COMPLETE", "RUNNING", "COMPLETE"]


def test_a_database_that_is_built_again_says_what_the_former_one_did(undisturbed, monkeypatch):
    """And is not told trial by trial, which takes a tenth of a second each."""
    failed = result_of(undisturbed[1].spec, complete=False, r_mem=None, cause="no memory",
                       n_samples=0, n_memorized=0)  # fmt: skip
    results = [undisturbed[0], failed, *undisturbed[2:]]
    told, built = Studies(SPACE), Studies(SPACE)
    told.reconcile([], [record_of(result.spec) for result in results])
    for result in results:
        told.tell(result)
    monkeypatch.setattr(optuna.Study, "tell", None)
    built.reconcile(results, [])
    rows = [
        [(t.number, t.state, t.values, t.params, t.user_attrs) for t in study.get_trials()]
        for study in (told._studies[NAME], built._studies[NAME])
    ]
    assert rows[0] == rows[1]


def test_started_trials_keep_number_and_n_when_the_database_is_lost():
    first = Studies(SPACE)
    tickets = [first.ask(NAME) for _ in range(3)]
    records = [record_of(first.spec(ticket)) for ticket in tickets]
    second = Studies(SPACE)
    assert second.reconcile([result_of(records[2].spec)], records[:1]) == [tickets[0]]
    assert second.ask(NAME).number == 3  # number 1 left no trace and is not given out again


def test_a_database_that_contradicts_the_results_is_rebuilt(undisturbed, tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    Studies(SPACE, url).reconcile([result_of(undisturbed[0].spec, r_mem=0.25)], [])
    Studies(SPACE, url).reconcile(undisturbed, [])
    trials = optuna.load_study(study_name=NAME, storage=url).trials
    assert [trial.value for trial in trials] == [result.r_mem for result in undisturbed]


def test_a_database_of_another_search_is_rebuilt_and_no_trial_is_told_for_it(
    undisturbed, tmp_path, monkeypatch
):
    """A range of N that the results do not know; so far, a trial of number -1 was told to have
    failed."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    other = Studies(fake_space((8,), n_high=300), url)
    other.ask(NAME)
    told = []
    monkeypatch.setattr(optuna.Study, "tell", lambda study, trial, *_, **__: told.append(trial))
    studies = Studies(SPACE, url)
    assert studies.reconcile([], []) == []
    assert told == []
    monkeypatch.undo()
    studies.reconcile(undisturbed[:2], [])
    assert [o.n for o in studies.observations(NAME)] == [
        result.spec.n for result in undisturbed[:2]
    ]
    assert studies.ask(NAME).n == undisturbed[2].spec.n


DAMAGE = {
    "garbage": lambda content: b"garbage\n",
    "the first half": lambda content: content[: len(content) // 2],
    "nothing": lambda content: b"",
    "a page of zeros": lambda content: content[:8192] + bytes(4096) + content[12288:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_made_again(undisturbed, tmp_path, damage):
    path, told = tmp_path / "optuna.db", []
    Studies(SPACE, sound_url(path, told.append)).reconcile(undisturbed, [])
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    studies = Studies(SPACE, sound_url(path, told.append))
    assert studies.reconcile(undisturbed, []) == []
    assert studies.verdict(NAME).state == "found"
    assert len(studies.observations(NAME)) == len(undisturbed)
    if damage != "nothing":  # SQLite takes that for a new one
        (line,) = told
        assert line.startswith(f"{path} was damaged (")
        assert line.endswith("), and is made again from the results")


@pytest.mark.parametrize(
    "loss", ["DROP TABLE trials", "DROP TABLE studies", "DELETE FROM trials WHERE number = 0"]
)
def test_a_database_that_lacks_a_table_or_a_row_is_made_again(undisturbed, tmp_path, loss):
    """SQLite finds nothing wrong with it; Optuna makes the tables again, without their rows."""
    path, told = tmp_path / "optuna.db", []
    Studies(SPACE, sound_url(path, told.append)).reconcile(undisturbed, [])
    with closing(sqlite3.connect(path)) as other:
        other.execute(loss)
        other.commit()
    studies = Studies(SPACE, sound_url(path, told.append))
    assert studies.reconcile(undisturbed, []) == []
    assert len(studies.observations(NAME)) == len(undisturbed)
    lost = "studies" if "studies" in loss else "trials"
    (line,) = told
    assert line.startswith(f"{path} was damaged (what ")
    assert line.endswith(f"belongs to is not in {lost}), and is made again from the results")


def test_the_database_of_a_newer_optuna_is_the_users_to_remove(tmp_path):
    path = tmp_path / "optuna.db"
    Studies(SPACE, sqlite_url(path))
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE alembic_version SET version_num = 'v999.0'")
        other.commit()
    with pytest.raises(UserError, match=r"optuna.db: .* or remove it: it is made again"):
        Studies(SPACE, sqlite_url(path))


def test_a_database_that_is_sound_or_in_use_is_not_touched(undisturbed, tmp_path):
    path, told = tmp_path / "optuna.db", []
    Studies(SPACE, sound_url(path, told.append)).reconcile(undisturbed, [])
    before = path.stat()
    sound_url(path, told.append)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"optuna.db can't be read \(database is locked\)"):
            sound_url(path, told.append)
    after = path.stat()
    assert (after.st_ino, after.st_size, told) == (before.st_ino, before.st_size, [])


def test_results_may_come_from_a_generator(undisturbed):
    """Of which the first study left nothing for the second."""
    studies = Studies(fake_space((16, 8)))
    assert studies.reconcile(iter(undisturbed), iter([])) == []
    assert len(studies.observations(NAME)) == len(undisturbed)


def test_of_two_results_with_one_seed_the_first_counts(undisturbed, caplog):
    """A study that was searched under two names at once: nothing is overwritten in silence."""
    second = result_of(Studies(SPACE).spec(Ticket(NAME, 0, 399)))
    studies = Studies(SPACE)
    studies.reconcile([undisturbed[0], second], [])
    assert [o.n for o in studies.observations(NAME)] == [undisturbed[0].spec.n]
    assert second.training_key in caplog.text


@pytest.mark.parametrize("is_finished", [True, False])
@pytest.mark.parametrize("mine", ["asked at another n", "lost before it began"])
def test_a_database_that_another_machine_has_overtaken_is_rebuilt(tmp_path, mine, is_finished):
    """Two machines, each with a database of its own, run the sweep in turn; the storage is what
    they share."""
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    here, spec = Studies(SPACE, url), Studies(SPACE).spec(Ticket(NAME, 0, 50))
    if mine == "asked at another n":
        assert here.ask(NAME).n != 50
    else:
        here.reconcile([result_of(Studies(SPACE).spec(Ticket(NAME, 1, 30)))], [])
    results, started = ([result_of(spec)], []) if is_finished else ([], [record_of(spec)])
    studies = Studies(SPACE, url)
    assert studies.reconcile(results, started) == ([] if is_finished else [Ticket(NAME, 0, 50)])
    assert [observation.n for observation in studies.observations(NAME)] == [50] * is_finished


def test_a_trial_that_failed_here_and_was_tried_again_elsewhere_counts(undisturbed, tmp_path):
    url, spec = f"sqlite:///{tmp_path / 'optuna.db'}", undisturbed[0].spec
    failed = result_of(
        spec, complete=False, r_mem=None, n_samples=0, n_memorized=0, cause="out of memory"
    )
    for result, sizes in ((failed, []), (undisturbed[0], [spec.n])):
        studies = Studies(SPACE, url)
        studies.reconcile([result], [])
        assert [observation.n for observation in studies.observations(NAME)] == sizes


def test_a_trial_that_died_before_its_n_was_stored_gets_one(tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    studies = Studies(SPACE, url)
    studies._studies[NAME].ask()  # asked, and no suggest_int: the driver was killed in between
    assert Studies(SPACE, url).reconcile([], []) == [Ticket(NAME, 0, studies.options(NAME).start)]


def test_after_results_are_gone_a_study_is_judged_anew(undisturbed):
    studies = Studies(SPACE)
    for results, state in ((undisturbed, "found"), (undisturbed[:2], "searching"), ([], None)):
        studies.reconcile(results, [])
        assert studies.verdict(NAME).n_trials == len(results)
        assert studies.verdict(NAME).state == (state or "searching")


def test_telling_twice_changes_nothing(undisturbed):
    studies = Studies(SPACE)
    studies.reconcile(undisturbed, [])
    before = studies.verdict(NAME)
    for result in undisturbed:
        studies.tell(result)
    assert studies.verdict(NAME) == before


def test_failures_end_a_study_with_their_cause():
    studies = Studies(SPACE)
    while studies.verdict(NAME).state == "searching":
        spec = studies.spec(studies.ask(NAME))
        studies.tell(
            result_of(
                spec,
                complete=False,
                cause="the loss is not finite",
                r_mem=None,
                n_samples=0,
                n_memorized=0,
            )
        )
    assert studies.verdict(NAME).state == "unresolved"
    assert "the loss is not finite" in studies.verdict(NAME).reason


def test_summary_from_results_alone_equals_the_live_verdict(undisturbed):
    live = Studies(SPACE)
    live.reconcile(undisturbed, [])
    (study,) = summary_of(SPACE, undisturbed, []).studies
    assert study.verdict == live.verdict(NAME)
    assert math.isclose(study.belief.median, study.verdict.emm)


# ---------------------------------------------------------------- the searcher


class Seen:
    """A listener that writes down what it is told."""

    def __init__(self):
        self.events = []

    def trial_started(self, record):
        self.events.append(("started", record.spec.name))

    def trial_progress(self, record, report):
        self.events.append(("progress", record.spec.name))

    def trial_finished(self, result):
        self.events.append(("finished" if result.complete else "failed", result.spec.name))

    def trial_stopped(self, record):
        self.events.append(("stopped", record.spec.name))


@pytest.fixture
def searcher(tmp_path):
    studies = Studies(fake_space((8, 16)))
    return EmmSearcher(studies, [], Storage(str(tmp_path)), record_of, lambda: 2, [Seen()])


def finish(searcher, trial_id, **outcome):
    result = result_of(searcher.live[trial_id].spec, **outcome)
    trial_directory(searcher.storage, result.training_key).write(
        RESULT, result.model_dump_json().encode()
    )
    searcher.on_trial_complete(trial_id=trial_id, result={})


def test_it_spreads_over_studies_and_keeps_to_its_slots(searcher):
    assert searcher.suggest("a") is not None
    assert searcher.suggest("b") is not None
    assert searcher.suggest("c") is None
    assert {record.spec.name for record in searcher.live.values()} == {"width=8", "width=16"}


def test_it_finishes_only_when_all_is_decided_and_nothing_runs(searcher):
    number, suggestion = 0, None
    while suggestion != "FINISHED":
        suggestion = searcher.suggest(str(number))
        if suggestion is None:
            finish(searcher, next(iter(searcher.live)))
        number += 1
        assert number < 200
    assert not searcher.live
    assert all(
        searcher.studies.verdict(name).state == "found" for name in searcher.studies.configurations
    )


def test_adopted_trials_go_first(tmp_path):
    studies = Studies(SPACE)
    ticket = studies.ask(NAME)
    searcher = EmmSearcher(studies, [ticket], Storage(str(tmp_path)), record_of, lambda: 2, [])
    searcher.suggest("a")
    spec = searcher.live["a"].spec
    assert (spec.seed, spec.n) == (ticket.number, ticket.n)
    searcher.suggest("b")
    assert searcher.live["b"].spec.seed == ticket.number + 1


def test_a_process_that_keeps_dying_is_a_failed_trial_unless_it_gets_further(searcher):
    """Two are lost; a checkpoint is written; two more; another; five more are lost."""
    lost = []
    for attempt in range(9):
        searcher.suggest(str(attempt))
        record = searcher.live[str(attempt)]
        lost.append(record.spec)
        directory = trial_directory(searcher.storage, record.training_key)
        assert read_result(directory) is None
        if attempt in (2, 4):
            checkpoint.save(directory, 50 * attempt, {})
        searcher.on_trial_complete(str(attempt), error=True)
    result = Result.model_validate_json(
        trial_directory(searcher.storage, record.training_key).read(RESULT)
    )
    assert lost == [record.spec] * 9, "it goes on at the same N and seed"
    assert not result.complete
    assert result.cause
    assert searcher.listeners[0].events[-1] == ("failed", record.spec.name)


def test_a_lost_trial_goes_on_as_it_is_before_a_new_one_begins(tmp_path):
    searcher = EmmSearcher(Studies(SPACE), [], Storage(str(tmp_path)), record_of, lambda: 3, [])
    for number in "abc":
        searcher.suggest(number)
    lost = searcher.live["c"].spec
    searcher.on_trial_complete("c", error=True)
    searcher.suggest("d")
    assert searcher.live["d"].spec == lost
    assert lost.seed == 2


def test_adopted_trials_of_a_decided_study_are_left(tmp_path):
    studies = Studies(fake_space((8, 16)))
    history(studies)
    assert studies.verdict(NAME).state == "found"
    left = Ticket(NAME, 40, 30)
    searcher = EmmSearcher(studies, [left], Storage(str(tmp_path)), record_of, lambda: 1, [])
    searcher.suggest("a")
    assert searcher.live["a"].spec.name == "width=16"
    assert searcher.adopted == [left], "the study may open again"


def test_when_it_is_to_end_what_runs_is_stopped_and_nothing_is_asked(searcher):
    searcher.suggest("a")
    assert not searcher.is_unneeded("a", {})
    searcher.ended = lambda: "the deadline has come"
    assert searcher.is_unneeded("a", {})
    assert not searcher.is_unneeded("nobody", {})
    assert searcher.suggest("b") == "FINISHED"


def test_a_stopped_trial_is_no_observation(searcher):
    searcher.suggest("a")
    name = searcher.live["a"].spec.name
    searcher.on_trial_complete("a", result={"progress": 0.5})
    assert searcher.studies.verdict(name).n_trials == 0
    assert searcher.listeners[0].events[-1] == ("stopped", name)


def test_listeners_get_the_report_as_the_trial_gave_it(searcher, monkeypatch):
    """Tune hands a searcher flat dictionaries."""
    heard = []
    monkeypatch.setattr(
        searcher.listeners[0], "trial_progress", lambda record, report: heard.append(report)
    )
    searcher.suggest("a")
    report = {"state": "training", "snapshot": {"r_mem": 0.5, "images_trained": 10}}
    searcher.on_trial_result("a", flatten_dict(report))
    assert heard == [report]


def test_the_last_report_of_a_trial_is_heard_before_its_end(searcher, monkeypatch):
    """Tune tells it with the end alone; its seconds are of the budget, its snapshot of the curve."""
    seen, heard = searcher.listeners[0], []
    tell = seen.trial_progress

    def progress(record, report):
        heard.append(report)
        tell(record, report)

    monkeypatch.setattr(seen, "trial_progress", progress)
    searcher.suggest("a")
    name = searcher.live["a"].spec.name
    report = {"time_this_iter_s": 8.0, "snapshot": {"r_mem": 0.5, "images_trained": 10}}
    searcher.on_trial_complete("a", flatten_dict(report))
    assert heard == [report]
    assert seen.events == [("started", name), ("progress", name), ("stopped", name)]


def test_what_lies_below_a_dip_is_not_pooled():
    measured = [
        (80, 0.96),
        (160, 0.6),
        (110, 0.87),
        (95, 0.92),
        (10, 1.0),
        (25, 0.5),
        (20, 0.75),
        (16, 0.93),
    ]
    shapes = []
    for guard, count in ((True, 8), (False, 4)):
        studies = Studies(fake_space((8,), guard=guard))
        specs = [
            studies.spec(Ticket(NAME, number, n)) for number, (n, _) in enumerate(measured[:count])
        ]
        studies.reconcile(
            [result_of(spec, r_mem=r) for spec, (_, r) in zip(specs, measured, strict=False)], []
        )
        shapes.append(studies.shape(NAME))
    assert shapes[0] == pytest.approx(shapes[1])


def test_a_result_under_a_former_name_is_taken_under_the_present_one(searcher):
    """The trial is found done: an earlier driver trained it and called its configuration
    otherwise."""
    searcher.suggest("a")
    record = searcher.live["a"]
    spec = record.spec.model_copy(update={"name": "called otherwise"})
    trial_directory(searcher.storage, record.training_key).write(
        RESULT, result_of(spec).model_dump_json().encode()
    )
    searcher.on_trial_complete("a", result={})
    assert searcher.failure is None
    assert searcher.studies.verdict(record.spec.name).n_trials == 1
    assert searcher.listeners[0].events[-1] == ("finished", record.spec.name)


def test_unknown_trial_ids_are_passed_over(searcher):
    searcher.on_trial_result("nobody", {})
    searcher.on_trial_complete("nobody", result={})


def test_the_objective_cost_lets_workers_idle(tmp_path):
    searcher = EmmSearcher(
        Studies(SPACE), [], Storage(str(tmp_path)), record_of, lambda: 8, [], most_per_study=2
    )
    suggested = [searcher.suggest(str(number)) for number in range(4)]
    assert [suggestion is not None for suggestion in suggested] == [True, True, False, False]


def test_a_result_that_cannot_be_taken_ends_the_asking(searcher):
    searcher.suggest("a")
    trial_directory(searcher.storage, searcher.live["a"].training_key).write(RESULT, b"not JSON")
    searcher.on_trial_complete("a", result={})
    assert searcher.failure is not None
    assert searcher.suggest("b") == "FINISHED"


def test_a_result_that_cannot_be_read_just_now_is_taken_later(searcher):
    """A file in the place of its directory stands for a storage that fails."""
    searcher.suggest("a")
    record = searcher.live["a"]
    searcher.storage.write(f"trials/{record.training_key}", b"")
    searcher.on_trial_complete("a", result={})
    assert searcher.failure is None
    assert searcher.suggest("b") is not None
    assert searcher.live["b"].spec == record.spec
    searcher.storage.delete(f"trials/{record.training_key}")
    finish(searcher, "b")
    assert searcher.studies.verdict(record.spec.name).n_trials == 1


def test_a_storage_that_outlasts_the_patience_of_a_trial_ends_the_asking(searcher):
    searcher.suggest("a")
    searcher.storage.write(f"trials/{searcher.live['a'].training_key}", b"")
    searcher.on_trial_complete("a", error=True)
    assert isinstance(searcher.failure, OSError)
    assert searcher.suggest("b") == "FINISHED"


def test_more_trials_reopen_a_study(undisturbed, tmp_path):
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    few = fake_space((8,), max_trials=2)
    studies = Studies(few, url)
    studies.reconcile(undisturbed[:2], [])
    assert studies.verdict(NAME).state == "unresolved"
    more = Studies(fake_space((8,), max_trials=20), url)
    more.reconcile(undisturbed[:2], [])
    assert more.verdict(NAME).state == "searching"

"""How long a sweep will still take: closed forms, with trials of round numbers."""

from typing import Any

import pytest

from sweep.report.left import seconds_left
from sweep.search.rules import NOT_JUDGED, Options, Verdict
from tests.fakes import fake_space
from trainables.config.trial import TrialSpec
from trainables.data.sources import load
from trainables.trial.result import Result, TrialRecord, start_record

SPACE = fake_space((8, 16))
DIGITS = load(SPACE.base.data)
IMAGES, CONSTANT = Options(10, 1000), Options(10, 1000, cost="constant")
KNOWN = Verdict("searching", 50.0, 40.0, 60.0, 0.2, "sd", 2)


def record(name: str, n: int, seed: int) -> TrialRecord:
    named = next(one for one in SPACE.configurations if one.name == name)
    how, configuration = SPACE.measurement, named.configuration
    return start_record(
        TrialSpec(name=name, configuration=configuration, measurement=how, n=n, seed=seed), DIGITS
    )


def result(name: str, n: int, seed: int, seconds: float, **more: Any) -> Result:
    fields = {"complete": True, "r_mem": 0.5, "n_samples": 10, "n_memorized": 5, "seconds": seconds}
    return Result.model_validate({**dict(record(name, n, seed)), **fields, **more})


DONE = [result("width=8", 40, 0, 80.0), result("width=8", 60, 1, 120.0)]  # 2 s an image


@pytest.mark.parametrize(
    ("options", "verdict", "seconds"),
    [
        (IMAGES, KNOWN, 2 * (4.9 * 50 - 100)),
        (IMAGES, NOT_JUDGED, 2 * (4.9 * 100 - 100)),  # its EMM may be the middle of the range
        (CONSTANT, KNOWN, 100 * (5.9 - 2)),
    ],
)
def test_what_is_not_trained_yet(options: Options, verdict: Verdict, seconds: float) -> None:
    assert seconds_left({"width=8": (options, verdict)}, DONE, [], 1) == pytest.approx(seconds)


def test_trials_that_run_count_as_far_as_they_are_not_done() -> None:
    """One has 70 s of its 100 to go; another says that its training takes 90 s yet."""
    searching = {"width=8": (IMAGES, KNOWN)}
    next_ones = 2 * (4.9 * 50 - 100 - 50)
    trial = record("width=8", 50, 2), {"seconds": 30.0}
    assert seconds_left(searching, DONE, [trial], 1) == pytest.approx(next_ones + 70)
    slow = record("width=8", 50, 2), {"seconds": 30.0, "seconds_left": 90.0}
    assert seconds_left(searching, DONE, [slow], 1) == pytest.approx(next_ones + 90)


def test_workers_share_it_but_no_search_is_shorter_than_its_trials_in_a_row() -> None:
    searching = {name: (CONSTANT, KNOWN) for name in ("width=8", "width=16")}
    done = [*DONE, result("width=16", 40, 0, 10.0)]
    parts = 100 * 3.9, 10 * 4.9
    assert seconds_left(searching, done, [], 1) == pytest.approx(sum(parts))
    assert seconds_left(searching, done, [], 2) == pytest.approx(max(parts))
    alike = {name: (CONSTANT, KNOWN) for name in ("width=8", "width=16")}
    assert seconds_left(alike, DONE, [], 4) == pytest.approx(100 * 5.9), "the pace of the others"


def test_before_a_trial_has_ended_those_that_run_tell_how_long_they_take() -> None:
    searching = {"width=8": (CONSTANT, NOT_JUDGED)}
    trial = record("width=8", 40, 0), {"seconds": 20.0, "seconds_left": 30.0}
    assert seconds_left(searching, [], [trial], 1) == pytest.approx(30 + 50 * 4.9)
    assert seconds_left(searching, [], [(record("width=8", 40, 0), {})], 1) is None
    failed = result("width=8", 40, 0, 5.0, complete=False, r_mem=None, cause="x")
    assert seconds_left(searching, [failed], [], 1) is None, "it tells nothing"


def test_nothing_is_left_of_a_sweep_that_is_decided() -> None:
    assert seconds_left({}, DONE, [], 1) is None

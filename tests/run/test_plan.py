"""What a search space will cost: measured as trials will be trained, and less what is there already."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from search_spaces.find import find_space
from search_spaces.table import SPACES
from sweep.run import measured
from sweep.run.checks import _low_rates, look_at_data
from sweep.run.measured import measured_rates
from sweep.run.plan import plan
from sweep.search.cost import COSTS, search_cost, units_left, wall_time
from sweep.search.rules import Options
from tests.fakes import Yours
from trainables.errors import TrialFailed

CPU = torch.device("cpu")
SPACE = SPACES["digits"]
YOURS = {"trainer.kind": "custom", "trainer.builder": "tests.fakes:Yours"}
CUSTOM = SPACE.with_settings(
    {**YOURS, "trainer.clock": "epochs", "trainer.length": 100, "trainer.batch": 10}
)


def rates(monkeypatch: pytest.MonkeyPatch, calls: int, **settings: Any) -> Any:
    """Those of a trainer of the user's, in images of so many calls, and not per second."""
    Yours.built = []
    monkeypatch.setattr(measured, "_rate", lambda work, device: sum(work() for _ in range(calls)))
    space = CUSTOM.with_settings(settings) if settings else CUSTOM
    configuration = space.configurations[0].configuration
    return measured_rates(configuration, space.measurement, 16, 0, CPU)


def test_a_trainer_of_the_users_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for ever more of its 100 × 16 images; what it has trained counts, and its images."""
    found = rates(monkeypatch, 3)
    assert Yours.built[0].asked == [20 / 1600, 60 / 1600, 140 / 1600]
    assert found.trained == 140
    assert found.sampled == 3 * 10 * CUSTOM.measurement.network_calls
    assert Yours.built[0].images.shape == (16, 1, 8, 8)
    assert Yours.built[0].labels is None


def test_a_training_that_is_over_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rates(monkeypatch, 8, **{"labels.kind": "true"})
    assert [one.asked[-1] for one in Yours.built] == [1.0, 1.0]
    assert found.trained == 2 * 1600
    assert Yours.built[0].labels.tolist() == [*range(10), *range(6)]


def test_what_the_users_trainer_does_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrialFailed, match="sample"):
        rates(monkeypatch, 1, **{"trainer.options": {"fails": True}})


def test_times_of_a_trainer_of_the_users_are_known_once_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (told,) = plan(CUSTOM, 10.0)
    assert (told.hours_low, told.hours_search, told.hours_left, told.parameters) == (
        None,
        None,
        None,
        0,
    )
    monkeypatch.setattr(measured, "_rate", lambda work, device: 10.0)
    (row,) = plan(CUSTOM, 10.0, CPU)
    how, images = CUSTOM.measurement, CUSTOM.base.trainer.train_images(CUSTOM.search.n_low)
    snapshots = how.snapshots_of(images)
    sampled = (how.n_samples + snapshots * how.n_selection) * how.network_calls
    assert row.hours_low == pytest.approx((images + sampled) / 10 / 3600)


def test_it_is_measured_with_the_threads_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    former, seen = torch.get_num_threads(), []

    def rate(work: Any, device: torch.device) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    monkeypatch.setattr(measured, "_rate", rate)
    plan(SPACE, None, CPU, threads=former + 1)
    assert seen == [former + 1] * 2
    assert torch.get_num_threads() == former


ONE = Options(100, 40_000)


def test_what_a_search_still_costs() -> None:
    """4.9 trainings at the EMM where a trial costs N, 5.9 trials else."""
    assert units_left("images", ONE, 100, []) == pytest.approx(490)
    assert units_left("images", ONE, 100, [50, 80], [200]) == pytest.approx(160)
    assert units_left("constant", ONE, 100, [50, 80], [200]) == pytest.approx(2.9)
    assert units_left("images", ONE, 100, [400, 400]) == 100, "one more at least"
    assert units_left("constant", ONE, 100, range(9)) == 1
    assert units_left("images", ONE, 100, [400], [400]) == 0, "which runs"


@pytest.mark.parametrize(
    ("asked", "images", "constant"),
    [
        ({}, 5.2, 6.4),
        ({"replicates": 2}, 5.9, 7.9),
        ({"replicates": 3}, 7.6, 10.8),
        ({"replicates": 5}, 11.4, 16.8),
        ({"targets": (0.5,)}, 10.0, 8.1),
        ({"targets": (0.5, 0.1)}, 15.2, 9.1),
        ({"guard": True}, 9.0, 7.0),
        ({"replicates": 2, "targets": (0.5,)}, 11.3, 9.6),
    ],
)
def test_a_search_that_is_asked_more_costs_what_simulated_ones_do(
    asked: dict[str, Any], images: float, constant: float
) -> None:
    """docs/search.md: means of 60 logistic configurations, in trainings at the EMM and in trials."""
    options = Options(100, 40_000, **asked)
    assert search_cost("images", options) == pytest.approx(images, rel=0.2)
    assert search_cost("constant", options) == pytest.approx(constant, rel=0.2)


def test_a_plan_and_the_time_left_know_what_is_asked() -> None:
    search = SPACE.search.model_copy(update={"replicates": 3, "targets": (0.5,), "guard": True})
    more = SPACE.model_copy(update={"search": search})
    (one, *_), (other, *_) = plan(SPACE, 10.0), plan(more, 10.0)
    assert one.hours_search
    assert other.hours_search
    cost = COSTS[SPACE.base.trainer.clock]
    ratio = search_cost(cost, search) / search_cost(cost, SPACE.search)
    assert other.hours_search == pytest.approx(ratio * one.hours_search)
    assert ratio > 2
    options = Options(100, 40_000, replicates=3)
    assert units_left("constant", options, 100, [50] * 6) == pytest.approx(5.9 * 1.72 - 6)


@pytest.mark.parametrize(
    ("configurations", "workers", "simulated"),
    [(1, 1, 4.98), (4, 1, 20.6), (16, 1, 86), (4, 8, 3.44), (16, 8, 12.7), (16, 64, 4.09)],
)
def test_the_wall_time_is_near_that_of_simulated_sweeps(
    configurations: int, workers: int, simulated: float
) -> None:
    """docs/search.md, in trainings at the EMM; one study with eight workers takes half of that."""
    assert wall_time([4.9] * configurations, workers) == pytest.approx(simulated, rel=0.25)


def test_no_search_costs_more_than_all_the_trials_that_it_may_have() -> None:
    for cost in ("images", "constant"):
        assert search_cost(cost, replace(ONE, max_trials=3)) == 3
        assert search_cost(cost, replace(ONE, max_trials=3, replicates=2)) == 6


def test_fewer_samples_never_cost_more() -> None:
    hours = []
    for n_samples in (5, 50, 500):
        measurement = SPACE.measurement.model_copy(update={"n_samples": n_samples})
        first, *_ = plan(SPACE.model_copy(update={"measurement": measurement}), 10.0)
        hours.append(first.hours_low)
    assert hours == sorted(hours)


@pytest.mark.parametrize(
    ("settings", "percent"),
    [
        ({}, None),
        # rises for 100 steps, and falls from the 15th on: at most (t/100)(60 − t)/45 of it, at 30
        ({"trainer.length": 60}, 20),
        ({"trainer.length": 60, "trainer.warmup": 10}, None),
        ({"trainer.length": 60, "trainer.decay": 0.0}, 60),
    ],
)
def test_a_learning_rate_that_is_never_reached_is_said(
    settings: dict[str, Any], percent: int | None
) -> None:
    _, notes = look_at_data(find_space("digits").with_settings(settings))
    said = [note for note in notes if "of trainer.lr at most" in note]
    assert len(said) == (percent is not None)
    if percent is not None:
        (reached,) = re.findall(r"reaches (\d+)% of trainer.lr", said[0])
        assert int(reached) == pytest.approx(percent, abs=2)


def test_no_space_of_ours_has_a_rate_that_is_never_reached() -> None:
    for space in SPACES.values():
        assert _low_rates(space) == [], space.name

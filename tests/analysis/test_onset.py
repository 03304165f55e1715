"""When copying sets in, trial by trial, and as a law of N: closed forms, brute force, and data of a
known law."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.special import log_ndtr
from scipy.stats import linregress, norm, t as student

from sweep.analysis.onset import (
    LEVELS,
    NUMBERS,
    Growth,
    Law,
    Onset,
    growth_of,
    onset_numbers,
    onset_of,
)
from sweep.analysis.summary import summarize, summary_of
from sweep.report.rows import GROWTH, growth_rows, length_rows, onset_rows
from sweep.tracking.content import result_numbers, study_numbers
from tests.summaries import (
    NAMES,
    SPACE,
    VERDICTS,
    failure,
    page_of,
    study,
    sweep_of,
    trial,
)
from trainables.config.fields import with_fields
from trainables.storage import Storage
from trainables.trial.result import Result, Snapshot

OLD = Path(__file__).parents[1] / "store" / "old_sweep"
MANY = 10**12  # images of a snapshot of which counts + ½ are the counts


def snapshot(images: int, copies: float, n_samples: int = 100) -> Snapshot:
    return Snapshot(
        images_trained=images,
        loss=1.0,
        r_mem=copies / n_samples,
        n_samples=n_samples,
        n_memorized=round(copies),
        median_d1=1.0,
        seconds=1.0,
    )


def logistic(tau: float, slope: float, at: Sequence[int]) -> tuple[Snapshot, ...]:
    """R_mem is ½ at tau, and its logit rises by `slope` for each e-fold of images."""
    shares = [1 / (1 + (tau / images) ** slope) for images in at]
    return tuple(snapshot(i, share * MANY, MANY) for i, share in zip(at, shares, strict=True))


# ---------------------------------------------------------------- of one trial


@pytest.mark.parametrize("at", [(100, 900, 5000), (250, 500, 750, 1000), (399, 401, 1599, 1601)])
def test_the_onset_on_a_logistic_curve_does_not_depend_on_the_snapshots(
    at: tuple[int, ...],
) -> None:
    """Its logit is a line in ln images, so that it is found exactly: ½ at τ, .9 at τ 9^(1/slope)."""
    curve = logistic(400.0, math.log(9) / math.log(2), at)
    half, most = (onset_of(curve, level) for level in LEVELS)
    assert half is not None
    assert (half.images, half.side) == (pytest.approx(400, rel=1e-6), "at")
    assert most is not None
    assert most.images == pytest.approx(800, rel=1e-6)


def test_counts_and_a_half_between_two_snapshots_by_hand() -> None:
    curve = [snapshot(100, 0, 10), snapshot(300, 8, 10)]
    low, high = math.log(0.5 / 10.5), math.log(8.5 / 2.5)
    share = (0 - low) / (high - low)
    assert onset_of(curve, 0.5) == Onset(pytest.approx(100 * 3**share), "at")


@pytest.mark.parametrize(
    ("copies", "half"),
    [
        ((50, 80, 90, 100), Onset(100, "before")),
        ((0, 10, 49, 49), Onset(800, "after")),
        ((0, 0, 0, 50), Onset(pytest.approx(800), "at")),
        ((0, 0, 0, 0), Onset(800, "after")),
    ],
)
def test_a_bound_is_told_from_an_onset(copies: tuple[int, ...], half: Onset) -> None:
    images = (100, 200, 400, 800)
    assert onset_of(list(map(snapshot, images, copies)), 0.5) == half


def test_it_is_the_first_time() -> None:
    images = (100, 200, 400, 800)
    dip, plain = (
        onset_of(list(map(snapshot, images, copies)), 0.5)
        for copies in ((20, 60, 40, 90), (20, 60, 60, 90))
    )
    assert dip == plain
    assert dip is not None
    assert 100 < dip.images < 200


@pytest.mark.parametrize("n_samples", [1, 2, 3, 5, 8])
def test_few_images_put_it_nowhere_else(n_samples: int) -> None:
    """All of 3 are copies, yet 3.5 of 4 is less than .9."""
    curve = [snapshot(100, 0, n_samples), snapshot(300, n_samples, n_samples)]
    onset = onset_of(curve, 0.9)
    assert onset is not None
    assert 100 < onset.images <= 300.0001


def test_nothing_trained_has_no_onset() -> None:
    assert onset_of([], 0.5) is None
    assert onset_of([snapshot(0, 100)], 0.5) is None


def test_the_numbers_of_a_trial() -> None:
    """In images, in epochs of N images and in steps of 64; of a failure none."""
    curve = (snapshot(640, 40, 80), snapshot(6400, 60, 80))
    numbers = onset_numbers(trial("a", 20, 0, curve=curve))
    assert numbers == {
        "onset_50": "before", "images_to_50": 640, "epochs_to_50": 32, "steps_to_50": 10,
        "onset_90": "after", "images_to_90": 6400, "epochs_to_90": 320, "steps_to_90": 100,
    }  # fmt: skip
    assert list(numbers) == [name for names in NUMBERS.values() for name in names]
    failed = onset_numbers(failure("a", 20, 0).model_copy(update={"curve": curve}))
    assert set(failed) == set(numbers)
    assert set(failed.values()) == {None}
    assert set(onset_numbers(trial("a", 20, 0)).values()) == {None}, "of one without snapshots"


def test_mlflow_is_told_no_bound_for_a_number() -> None:
    curve = (snapshot(640, 40, 80), snapshot(3200, 79, 80), snapshot(6400, 80, 80))
    numbers = result_numbers(trial("a", 20, 0, curve=curve))
    assert numbers["images_to_50"] is numbers["steps_to_50"] is None
    known = onset_numbers(trial("a", 20, 0, curve=curve))
    assert 640 < numbers["images_to_90"] == known["images_to_90"] < 3200  # type: ignore[operator]
    assert "onset_90" not in numbers


# ---------------------------------------------------------------- over N


def trials_of(n: Sequence[float], tau: Sequence[float], end: float = math.inf) -> list[Result]:
    """With a snapshot just before and just after each onset; those of after `end` never get there."""
    results = []
    for seed, (size, images) in enumerate(zip(n, tau, strict=True)):
        # whole numbers of images, so that τ is the wider apart the more of them there are
        around = (round(images * 1000) - 1, round(images * 1000) + 1)
        curve = logistic(images * 1000, 4.0, around)
        if images > end:
            curve = (snapshot(round(end * 1000), 0),)
        results.append(trial("a", int(size), seed, curve=curve))
    return results


N = np.array([8, 8, 12, 16, 16, 24, 32, 48, 64, 64], dtype=float)
NOISE = np.random.default_rng(3).standard_normal(len(N))


def grown(tau: np.ndarray, end: float = math.inf) -> Growth:
    return growth_of(trials_of(N, list(tau), end), 0.5)


def test_without_bounds_the_power_law_is_least_squares() -> None:
    """With the t-interval of scipy's linregress, in ln τ against ln N."""
    tau = 30 * N**0.7 * np.exp(0.2 * NOISE)
    growth = grown(tau)
    assert growth.counts == {"at": 10, "before": 0, "after": 0}
    law, line = growth.laws["power"], linregress(np.log(N), np.log(tau * 1000))
    reach = student.ppf(0.975, 8)
    assert law.b is not None
    expected = [line.slope + side * reach * line.stderr for side in (0, -1, 1)]
    assert [law.b.value, law.b.low, law.b.high] == pytest.approx(expected, rel=1e-3)
    expected = [line.intercept + side * reach * line.intercept_stderr for side in (0, -1, 1)]
    assert np.log([law.a.value, law.a.low, law.a.high]) == pytest.approx(expected, rel=1e-3)
    residuals = np.log(tau * 1000) - line.intercept - line.slope * np.log(N)
    rss = float(residuals @ residuals)
    assert law.sd == pytest.approx(math.sqrt(rss / 8), rel=1e-3)
    likelihood = norm.logpdf(residuals, scale=math.sqrt(rss / 10)).sum()
    assert law.aicc == pytest.approx(-2 * likelihood + 2 * 3 + 2 * 3 * 4 / (10 - 3 - 1), abs=1e-4)


def test_without_bounds_the_proportional_law_is_a_mean() -> None:
    ratio = np.log(1000 * 30) + 0.2 * NOISE
    law = grown(np.exp(ratio) / 1000 * N).laws["proportional"]
    reach = student.ppf(0.975, 9) * ratio.std(ddof=1) / math.sqrt(10)
    ends = [ratio.mean() + side * reach for side in (0, -1, 1)]
    assert np.log([law.a.value, law.a.low, law.a.high]) == pytest.approx(ends, rel=1e-4)
    assert law.sd == pytest.approx(ratio.std(ddof=1), rel=1e-4)
    assert law.b is None


def test_without_bounds_the_affine_law_is_least_squares_too() -> None:
    """Of ln τ: as scipy's curve_fit finds it, whose intervals leave out the curvature."""
    tau = (400 + 25 * N) * np.exp(0.1 * NOISE)
    law = grown(tau).laws["affine"]
    found, cov = curve_fit(
        lambda n, a, b: np.log(a + b * n), N, np.log(1000 * tau), p0=(4e5, 2.5e4)
    )
    reach = student.ppf(0.975, 8) * np.sqrt(np.diag(cov))
    assert law.b is not None
    for estimate, value, half in zip((law.a, law.b), found, reach, strict=True):
        assert estimate.value == pytest.approx(value, rel=1e-3)
        assert estimate.high - estimate.value == pytest.approx(half, rel=0.1)
        assert estimate.value - estimate.low == pytest.approx(half, rel=0.1)


def test_bounds_enter_as_bounds() -> None:
    """The likelihood of the proportional law over a grid, with three trials that never got there
    and one that was there at once."""
    tau = 30 * N * np.exp(0.3 * NOISE)
    results = trials_of(N, list(tau), end=900)
    results[1] = trial("a", 8, 1, curve=(snapshot(300_000, 100),))
    growth = growth_of(results, 0.5)
    after = tau > 900
    after[1] = False
    assert growth.counts == {"at": 9 - after.sum(), "before": 1, "after": after.sum()}
    assert after.sum() == 3
    at = ~after
    at[1] = False
    ratio = np.log(1000 * tau) - np.log(N)
    bound, early = math.log(900e3) - np.log(N), math.log(300e3 / 8)
    ln_a = np.linspace(9.8, 10.8, 401)[:, None]
    sd = np.linspace(0.1, 0.6, 401)
    table = log_ndtr((early - ln_a) / sd)
    for number in range(len(N)):
        if at[number]:
            table = table + norm.logpdf(ratio[number], ln_a, sd)
        elif after[number]:
            table = table + log_ndtr((ln_a - bound[number]) / sd)
    i, j = np.unravel_index(table.argmax(), table.shape)
    law = growth.laws["proportional"]
    assert math.log(law.a.value) == pytest.approx(float(ln_a[i, 0]), abs=0.003)
    k, n = 2, int(at.sum())
    assert law.sd == pytest.approx(float(sd[j]) * math.sqrt(n / (n - 1)), abs=0.002)
    expected = -2 * float(table.max()) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert law.aicc == pytest.approx(expected, abs=1e-3)


def test_a_bound_that_is_left_out_would_mislead() -> None:
    """Of 120 trials of one law a third never get there, the later ones: the others alone grow with
    too low a power."""
    rng = np.random.default_rng(0)
    n = np.round(np.exp(rng.uniform(math.log(8), math.log(64), 120)))
    tau = 30 * n * np.exp(0.4 * rng.standard_normal(120))
    everything = trials_of(n, list(tau), end=1000)
    law = growth_of(everything, 0.5).laws["power"]
    alone = [r for r, images in zip(everything, tau, strict=True) if images <= 1000]
    assert 35 <= 120 - len(alone) <= 50
    without = growth_of(alone, 0.5).laws["power"]
    assert law.b is not None
    assert without.b is not None
    assert law.b.low < 1 < law.b.high
    assert without.b.high < 1


@pytest.mark.parametrize(
    ("form", "tau"),
    [("proportional", 30 * N), ("affine", 900 + 30 * N), ("power", 30 * N**2)],
)
def test_the_law_of_the_data_is_preferred(form: str, tau: np.ndarray) -> None:
    growth = grown(tau * np.exp(0.05 * NOISE))
    assert growth.preferred[0] == form
    assert {law.form for law in growth.laws.values()} == {"proportional", "affine", "power"}
    others = [law.aicc - growth.laws[growth.preferred[0]].aicc for law in growth.laws.values()]
    assert len(growth.preferred) == sum(more < 2 for more in others)


def test_exact_data_have_no_spread() -> None:
    law = grown(400 + 25 * N).laws["affine"]
    assert law.b is not None
    assert (law.a.value, law.b.value) == pytest.approx((400e3, 25e3), rel=1e-3)
    assert law.sd == pytest.approx(0.01 * math.sqrt(10 / 8))
    assert law.a.low < law.a.value < law.a.high < 1.1 * law.a.value


def test_too_few_onsets_tell_no_law() -> None:
    """Its AICc needs two onsets more than a law has parameters, its spread among them."""

    def forms(count: int, sizes: Sequence[int] = (8, 16, 32, 64, 24)) -> set[str]:
        many = trials_of(sizes[:count], [30.0 * n for n in sizes[:count]])
        never = trials_of([128] * 9, [9000.0] * 9, end=100)
        return set(growth_of([*many, *never], 0.5).laws)

    assert forms(3) == set()
    assert forms(4) == {"proportional"}
    assert forms(5) == {"proportional", "affine", "power"}
    assert forms(5, (16,) * 5) == set(), "of one N"
    assert growth_of([], 0.9).laws == {}


def test_sizes_that_hardly_differ_tell_no_power() -> None:
    """Of one that could be anything, e^700 for the images at N = 1 too, no file could be written."""
    noise = np.exp(0.3 * np.random.default_rng(0).standard_normal(6))
    sizes = [9990, 9994, 9998, 10_002, 10_006, 10_010]
    growth = growth_of(trials_of(sizes, [*(30.0 * np.array(sizes) * noise)]), 0.5)
    assert "proportional" in growth.laws
    assert "power" not in growth.laws
    json.dumps(growth.as_json(), allow_nan=False)


@pytest.mark.parametrize("size", [100, 20_000])
def test_whether_a_power_is_told_does_not_hang_on_the_unit_of_n(size: int) -> None:
    """The images at N = 1 are far from N = 20,000, and nobody asks for them."""
    n = np.round(size * np.exp(np.linspace(-0.125, 0.125, 6)))
    tau = 30 * n * np.exp(0.3 * np.random.default_rng(4).standard_normal(6))
    growth = growth_of(trials_of(list(n), list(tau)), 0.5)
    assert growth.exponent is not None
    assert growth.exponent.value == pytest.approx(
        linregress(np.log(n), np.log(tau)).slope, rel=1e-3
    )
    assert growth.exponent.high - growth.exponent.low > 4


def test_the_intervals_hold() -> None:
    """Of 200 studies of 10 trials each, of which a third never get there, 95 % of the intervals of
    the power have it in them."""
    rng, hits, count = np.random.default_rng(1), 0, 0
    for _ in range(200):
        n = np.round(np.exp(rng.uniform(math.log(8), math.log(64), 10)))
        tau = 30 * n * np.exp(0.25 * rng.standard_normal(10))
        results = trials_of(n, list(tau), end=float(np.quantile(tau, 0.67)))
        law: Law | None = growth_of(results, 0.5).laws.get("power")
        if law is not None and law.b is not None:
            count += 1
            hits += law.b.low <= 1 <= law.b.high
    assert count > 190
    assert 0.9 <= hits / count <= 0.99


# ---------------------------------------------------------------- what is shown


def test_the_rows_of_a_study() -> None:
    """The formula in numbers, the bounds counted; a study without a law has no row."""
    results = trials_of(N, list((400 + 25 * N) * np.exp(0.02 * NOISE)), end=1900)
    one, none = study("a", VERDICTS["found"], results), study("b", VERDICTS["searching"])
    summary = sweep_of(one, none)
    (half,) = growth_rows(summary)  # none of them was seen to reach .9
    assert len(half) == len(GROWTH)
    assert half[:4] == ("a", "0.5", "8 (2 after)", "affine")
    a, b = (float(part.replace(",", "")) for part in half[4].removesuffix(" N").split(" + "))
    law = one.growth[0].laws["affine"]
    assert law.b is not None
    assert (a, b) == pytest.approx((law.a.value, law.b.value), rel=0.01)
    assert (a, b) == pytest.approx((400e3, 25e3), rel=0.1)
    said = summary.as_json()["configurations"][0]["onset"][0]
    assert (said["level"], said["at"], said["before"], said["after"]) == (0.5, 8, 0, 2)
    assert said["preferred"][0] == "affine"
    assert said["laws"]["affine"]["b"]["low"] < 25e3 < said["laws"]["affine"]["b"]["high"]


def test_the_rows_of_the_trials() -> None:
    curve = (snapshot(640, 40, 80), snapshot(6400, 60, 80))
    both = [trial("a", 20, 0, curve=curve), failure("a", 30, 1), trial("a", 10, 2)]
    assert onset_rows(sweep_of(study("a", VERDICTS["found"], both))) == [
        ("a", "10", "2", *"------"),
        ("a", "20", "0", "< 640", "< 32.0", "< 10.0", "> 6,400", "> 320", "> 100"),
    ]


def test_the_page_and_the_files_have_them(tmp_path: Path) -> None:
    constant = with_fields(SPACE.base, {"trainer.decay": 0.0})
    results = [
        r.model_copy(update={"spec": r.spec.model_copy(update={"configuration": constant})})
        for r in trials_of(N, list(400 + 25 * N))
    ]
    summary = sweep_of(study("a", VERDICTS["found"], results))
    page = page_of(summary, tmp_path)
    rows = {"growth": growth_rows, "onsets": onset_rows, "lengths": length_rows}
    for name, of_summary in rows.items():
        assert page.tables[name][1:] == [list(row) for row in of_summary(summary)]
        assert len(page.tables[name][0]) == len(page.tables[name][1])
    with (tmp_path / "trials.csv").open() as file:
        written = {int(row["seed"]): row for row in csv.DictReader(file)}
    for seed, result in enumerate(results):
        numbers = onset_numbers(result)
        assert {name: written[seed][name] for name in numbers} == {
            name: str(value) for name, value in numbers.items()
        }


def test_older_results_tell_it_too() -> None:
    """A sweep of a version that knew of no onset."""
    trials = summarize(Storage(str(OLD))).as_json()["configurations"][0]["trials"]
    assert {t["onset_50"] for t in trials if t["state"] == "complete"} >= {"at", "after"}


def test_mlflow_has_the_power_of_a_study() -> None:
    results = trials_of(N, list(30 * N**0.7 * np.exp(0.05 * NOISE)))
    one = summary_of(
        SPACE,
        [
            r.model_copy(update={"spec": r.spec.model_copy(update={"name": NAMES[0]})})
            for r in results
        ],
        [],
    ).studies[0]
    assert study_numbers(one)["onset_exponent"] == pytest.approx(0.7, abs=0.05)
    assert study_numbers(replace(one, results=results[:3]))["onset_exponent"] is None

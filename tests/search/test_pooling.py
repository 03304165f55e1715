"""What studies of a sweep share: noise and shape, frozen when a study starts; never the EMM."""

import math
from dataclasses import asdict, replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import expit, logit

from sweep.analysis.contrasts import Known, compared
from sweep.analysis.summary import summary_of
from sweep.run.studies import Studies
from sweep.search.belief import (
    NOISES,
    SHAPE,
    SLOPES,
    Observation,
    base_prior,
    belief,
    lognormal,
)
from sweep.search.pooling import pool, pool_each
from sweep.search.rules import Options
from sweep.store.priors import PRIORS, FrozenPriors
from tests.fakes import fake_space
from tests.run.test_studies import result_of
from trainables.config.fields import with_fields
from trainables.storage import Storage

SPACE = fake_space((8, 12, 16, 20, 24))
# (N, R_mem) of two studies
A = [(8, 0.999), (20, 0.96), (26, 0.91), (32, 0.86), (60, 0.4)]
B = [(8, 0.999), (20, 0.99), (40, 0.93), (44, 0.88), (50, 0.86), (90, 0.4)]


def decided(storage, names):
    """Studies, searched one after the other to their verdicts, and their results."""
    studies = Studies(SPACE, priors=FrozenPriors(storage))
    results = []
    for name in names:
        while studies.verdict(name).state == "searching":
            results.append(result_of(studies.spec(studies.ask(name))))
            studies.tell(results[-1])
    return studies, results


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("sweep")))
    names = [named.name for named in SPACE.configurations]
    return storage, *decided(storage, names)


def test_the_fifth_study_searches_with_what_four_found(swept):
    _, studies, _ = swept
    assert studies.priors.get("width=20") == base_prior()
    pooled = studies.priors.get("width=24")
    assert pooled != base_prior()
    noise_of = [
        float(np.sqrt(np.dot(p.noise, np.arange(len(p.noise)) ** 2)))
        for p in (pooled, base_prior())
    ]
    assert all(math.isfinite(value) for value in noise_of)


def test_a_study_that_was_not_found_tells_the_others_nothing():
    """Three were found, one gave up: too few to search the fifth with."""
    *names, unresolved, last = (named.name for named in SPACE.configurations)
    studies, _ = decided(None, names)
    for _ in range(3):
        spec = studies.spec(studies.ask(unresolved))
        failure = {"complete": False, "cause": "out of memory", "r_mem": None}
        studies.tell(result_of(spec, **failure, n_samples=0, n_memorized=0))
    assert studies.verdict(unresolved).state == "unresolved"
    studies.ask(last)
    assert studies.priors.get(last) == base_prior()


def test_a_frozen_prior_outlives_the_database_and_the_process(swept):
    storage, studies, results = swept
    again = Studies(SPACE, priors=FrozenPriors(storage))
    again.reconcile(results, [])
    for name in studies.configurations:
        assert again.verdict(name) == studies.verdict(name)
        assert again.priors.get(name) == studies.priors.get(name)


def test_a_prior_is_frozen_once(tmp_path):
    priors = FrozenPriors(Storage(str(tmp_path)))
    first, other = (
        replace(base_prior(), curve=curve) for curve in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    )
    priors.freeze("a", first)
    priors.freeze("a", other)
    for opened in (priors, FrozenPriors(Storage(str(tmp_path)))):
        opened.freeze("a", other)
        assert opened.get("a") == first


def test_a_prior_is_frozen_once_under_all_names_of_a_configuration(tmp_path):
    keys = {"a": "k", "wide": "k", "b": "l"}
    first, other = (
        replace(base_prior(), curve=curve) for curve in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    )
    priors = FrozenPriors(Storage(str(tmp_path)), keys)
    priors.freeze("a", first)
    priors.freeze("wide", other)
    priors.freeze("b", other)
    for opened in (priors, FrozenPriors(Storage(str(tmp_path)), keys)):
        assert [opened.get(name) for name in keys] == [first, first, other]


def test_what_an_older_sweep_froze_by_name_is_found_under_all_names_of_a_configuration(tmp_path):
    storage, frozen = Storage(str(tmp_path)), replace(base_prior(), curve=(1.0, 0.0, 0.0))
    storage.write_json(PRIORS, {"a": asdict(frozen)})
    keys = {"a": "k", "wide": "k", "b": "l"}
    priors = FrozenPriors(storage, keys)
    assert [priors.get(name) for name in keys] == [frozen, frozen, base_prior()]
    priors.freeze("wide", base_prior())
    assert FrozenPriors(storage, keys).get("a") == frozen


def test_priors_json_of_an_older_sweep_is_read(tmp_path):
    storage, slope = Storage(str(tmp_path)), list(lognormal(np.geomspace(0.8, 32, 21), 5, 0.4))
    storage.write_json(PRIORS, {"a": {**asdict(base_prior()), "slope": slope}})
    assert FrozenPriors(storage).get("a").slope == (*[0.0] * 6, *slope)


def test_the_report_pools_and_says_what_a_study_knows_alone(swept):
    storage, _, results = swept
    summary = summary_of(SPACE, results, [], FrozenPriors(storage))
    assert all(
        study.verdict.emm_low < 2 * study.factors["width"] < study.verdict.emm_high
        for study in summary.studies
    )
    assert any(study.pooled for study in summary.studies)
    for study in summary.studies:
        verdict, prior = study.verdict, study.options.prior
        assert (prior == base_prior()) is not study.pooled
        own = belief(study.observations, 4, 400, 0.9, prior)
        assert (verdict.emm, verdict.emm_low, verdict.emm_high, verdict.sd) == pytest.approx(
            (own.median, *own.interval(), own.sd)
        ), "all four numbers under one prior"
    for study, said in zip(summary.studies, summary.as_json()["configurations"], strict=True):
        assert study.pooled is not study.contradicts
        assert (said["alone_low"], said["alone_high"]) == study.alone
        assert study.pooled is (said["alone_low"] != said["emm_low"])
    assert len(summary.contrasts) == 10


def test_what_a_study_tells_of_its_shape_is_read_at_its_own_target():
    """R_mem of .04 to .02 is graded where .1 is sought; where .9 is, it says "far below" alone."""
    sizes, slope = (30, 36, 42, 46), 2.0
    finished = [
        Observation(n, float(expit(logit(0.04) - slope * math.log(n / 30))), 20_000) for n in sizes
    ]
    share_near_the_slope = []
    for target in (0.1, 0.9):
        weights = Options(4, 400, target).shape(finished).sum((0, 2))
        near = abs(np.log(SLOPES / slope)) < math.log(2)
        share_near_the_slope.append(weights[near].sum() / weights.sum())
    assert share_near_the_slope[0] > 0.7
    assert share_near_the_slope[1] < 0.2


def certain(*shape):
    """What a study tells that knows its shape: the positions of its curve, slope and noise."""
    table = np.zeros(SHAPE)
    table[shape] = 1.0
    return table


def bell(values, mean, sd):
    weights = np.array([NormalDist(mean, sd).pdf(math.log(value)) for value in values])
    return weights / weights.sum()


@pytest.mark.parametrize("count", [3, 60])
def test_what_is_pooled_of_studies_that_know_their_shape(count):
    """The base prior is one study among them (two for each curve), noise is stretched by a quarter
    away from .2, and a part stays wide: a tenth of the slope, and of the noise the more the fewer
    there are."""
    pooled, base = pool([certain(1, 16, 5)] * count), base_prior()
    expected = np.full(3, 2 / (count + 6))
    expected[1] += count / (count + 6)
    assert pooled.curve == pytest.approx(expected)
    unlike = 0.1 + 0.4 / (count + 1)
    for name, values, position, floor, stretch, share, wide in (
        ("slope", SLOPES, 16, 0.2, 1, 0.1, bell(SLOPES, math.log(3), 1)),
        ("noise", NOISES, 5, 0.25, 1.25, unlike, bell(NOISES, math.log(0.8), 0.5)),
    ):
        weights = np.array(getattr(base, name)) / (count + 1)
        weights[position] += count / (count + 1)
        mean = weights @ np.log(values)
        sd = max(floor, math.sqrt(weights @ (np.log(values) - mean) ** 2))
        assert (sd == floor) is (count == 60)
        mean, sd = math.log(0.2) + stretch * (mean - math.log(0.2)), stretch * sd
        assert getattr(pooled, name) == pytest.approx(
            (1 - share) * bell(values, mean, sd) + share * wide, rel=1e-6, abs=1e-12
        )


@pytest.mark.parametrize(("times", "is_alone"), [(1.2, False), (1.4, False), (1.7, True)])
def test_a_study_stands_alone_where_the_base_prior_explains_it_better_by_half(times, is_alone):
    others = [certain(1, 20, 5)] * 3
    base, pooled = (prior.on(SLOPES) for prior in (base_prior(), pool(others)))
    alike, unlike = (1, 20, 5), (0, 8, 8)
    # of two shapes, so much of the second that the base prior explains both together so much better
    share = (times * pooled[alike] - base[alike]) / (base[unlike] - times * pooled[unlike])
    assert share > 0
    table = certain(*alike) + share * certain(*unlike)
    *_, last = pool_each([*others, table])
    assert (last is None) is is_alone


def test_a_recipe_is_a_trainer_and_a_diffusion():
    named = SPACE.configurations[0]

    def changed(**fields):
        return named.model_copy(
            update={"configuration": with_fields(named.configuration, fields)}
        ).recipe

    assert (
        changed(**{"network.width": 64, "data.kind": "mnist5k", "labels.kind": "true"})
        == named.recipe
    )
    others = [
        {"diffusion.P_mean": 0.0},
        {"diffusion.kind": "vp"},
        {"trainer.lr": 0.5},
        {"trainer.length": 7},
    ]
    assert len({named.recipe, *(changed(**fields) for fields in others)}) == 5


def test_the_interval_of_a_ratio_is_that_of_independent_beliefs():
    rng = np.random.default_rng(0)
    a, b = (belief([Observation(n, r, 2000) for n, r in trials], 4, 400) for trials in (A, B))
    of_a, of_b = (rng.choice(one.ln_emm, 200_000, p=one.probabilities) for one in (a, b))
    (said,) = compared([Known.by(a, "a", {}), Known.by(b, "b", {})]).pairs
    low, middle, high = np.exp(np.quantile(of_b - of_a, [0.025, 0.5, 0.975]))
    assert said.ratio == pytest.approx(middle, rel=0.03)
    # the sd of so few trials' beliefs, whose tails are heavy, makes it rather wide
    assert 1 <= math.log(said.high / said.low) / math.log(high / low) < 1.1
    assert math.sqrt(said.low * said.high) == pytest.approx(said.ratio)


def test_other_recipes_are_not_pooled():
    space = fake_space((8, 16)).model_copy(
        update={"vary": {"trainer.lr": (0.01, 0.02, 0.03, 0.04, 0.05)}}
    )
    studies = Studies(space)
    results = []
    for name in studies.configurations:
        while studies.verdict(name).state == "searching":
            results.append(result_of(studies.spec(studies.ask(name))))
            studies.tell(results[-1])
    assert all(studies.priors.get(name) == base_prior() for name in studies.configurations)
    assert not any(
        study.pooled or study.contradicts for study in summary_of(space, results, []).studies
    )

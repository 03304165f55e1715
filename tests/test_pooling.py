"""What studies of a sweep share: noise and shape, frozen when a study starts; never the EMM."""

import math

import numpy as np
import pytest

from sweep.pooling import FrozenPriors
from sweep.posterior import base_prior
from sweep.studies import Studies
from sweep.summary import summary_of
from tests.fakes import fake_space
from tests.test_studies import result_of
from trainables.storage import Storage

SPACE = fake_space((8, 12, 16, 20, 24))


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
    noise_of = [float(np.sqrt(np.dot(p.noise, np.arange(len(p.noise)) ** 2))) for p in (pooled, base_prior())]
    assert all(math.isfinite(value) for value in noise_of)


def test_a_frozen_prior_outlives_the_database_and_the_process(swept):
    storage, studies, results = swept
    again = Studies(SPACE, priors=FrozenPriors(storage))
    again.reconcile(results, [])
    for name in studies.configurations:
        assert again.verdict(name) == studies.verdict(name)
        assert again.priors.get(name) == studies.priors.get(name)


def test_a_prior_is_frozen_once(tmp_path):
    priors = FrozenPriors(Storage(str(tmp_path)))
    priors.freeze("a", base_prior())
    other = Studies(SPACE).priors.get("a")
    priors.freeze("a", other)
    assert FrozenPriors(Storage(str(tmp_path))).get("a") == base_prior()


def test_the_report_pools_and_says_what_a_study_knows_alone(swept):
    storage, _, results = swept
    summary = summary_of(SPACE, results, [], FrozenPriors(storage))
    assert all(study.verdict.emm_low < 2 * study.factors["width"] < study.verdict.emm_high for study in summary.studies)
    assert any(study.pooled for study in summary.studies)
    for study, said in zip(summary.studies, summary.as_json()["configurations"], strict=True):
        assert study.pooled is not study.contradicts
        assert (said["alone_low"], said["alone_high"]) == study.alone
        assert study.pooled is (said["alone_low"] != said["emm_low"])
    assert len(summary.contrasts) == 10


def test_other_recipes_are_not_pooled():
    space = fake_space((8, 16)).model_copy(update={"vary": {"trainer.lr": (0.01, 0.02, 0.03, 0.04, 0.05)}})
    studies = Studies(space)
    results = []
    for name in studies.configurations:
        while studies.verdict(name).state == "searching":
            results.append(result_of(studies.spec(studies.ask(name))))
            studies.tell(results[-1])
    assert all(studies.priors.get(name) == base_prior() for name in studies.configurations)
    assert not any(study.pooled or study.contradicts for study in summary_of(space, results, []).studies)

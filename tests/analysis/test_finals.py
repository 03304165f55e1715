"""The last measurement: of trials picked by N, with latents of its own, on a real Ray; it changes
no verdict."""

import time
from dataclasses import replace

import numpy as np
import pytest
import ray
import torch

from search_spaces.recipes import DIGITS
from search_spaces.space import Search, SearchSpace
from sweep.analysis.finals import missing_finals, nearest_trials
from sweep.analysis.summary import summarize
from sweep.report.rows import final_lines
from sweep.run import finals as run_finals
from sweep.run.checks import Sweep
from sweep.run.driver import Run
from sweep.run.finals import measure_finals, one_device
from sweep.run.machines import Resources, start_ray
from sweep.store.budget import Limits, hours_spent
from sweep.store.files import read_finals
from tests.fakes import fake_space
from tests.results import write_sweep
from tests.summaries import SPACE, VERDICTS, failure, study, sweep_of, trial
from tests.trials import CPU, DATA, OPTIMUM, SPEC, finish, start
from trainables.config.data import Arrays
from trainables.config.fields import with_fields
from trainables.config.measurement import Measurement
from trainables.config.network import Optimum
from trainables.data.labels import draw_labels
from trainables.data.sources import load
from trainables.errors import TrialFailed
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage
from trainables.training.trainer import Trainer
from trainables.trial.final import measure_final
from trainables.trial.result import FinalMeasurement, read_all
from trainables.trial.subset import Subset


def test_other_images_of_the_same_network(tmp_path, monkeypatch):
    sweep = Storage(str(tmp_path))
    finish(start(sweep))
    (result,) = read_all(sweep).results
    seen, compared, compare = [], [], Subset.nearest

    def nearest(subset, samples):
        seen.append(samples)
        compared.append(compare(subset, samples))
        return compared[-1]

    monkeypatch.setattr(Subset, "nearest", nearest)
    first, again = (measure_final(result, DATA, sweep, 10, CPU) for _ in range(2))
    assert first == again
    found = Neighbours.joined(compared[:3])
    assert (
        found.memorized(1 / 3).sum()
        < first.n_memorized
        == found.memorized(SPEC.measurement.k).sum()
    )
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    with np.load(sweep.path(f"trials/{result.training_key}/measurement.npz")) as kept:
        assert not np.array_equal(kept["images"], torch.cat(seen[:3]).numpy())
    assert read_all(sweep)[0] == [result]


def test_last_images_are_of_latents_of_each_seed_and_of_the_labels_of_its_subset(
    tmp_path, monkeypatch
):
    sampled, original, seen = [], Trainer.sample, {}

    def sample(trainer, seeds, how, labels=None):
        sampled.append((seeds, labels))
        return original(trainer, seeds, how, labels)

    for seed in (0, 1):
        sweep = Storage(str(tmp_path / str(seed)))
        spec = with_fields(OPTIMUM, {"seed": seed, "configuration.labels.kind": "unique"})
        finish(start(sweep, spec))
        (result,) = read_all(sweep).results
        monkeypatch.setattr(Trainer, "sample", sample)
        sampled.clear()
        measured = measure_final(result, DATA, sweep, 10, CPU)
        monkeypatch.undo()
        assert measured.r_mem == 1.0
        for seeds, labels in sampled:
            assert labels.tolist() == draw_labels(np.arange(SPEC.n), seeds).tolist()
        seen[seed] = {one for seeds, _ in sampled for one in seeds}
    assert len(seen[0] | seen[1]) == 20


def test_the_optimum_still_copies(tmp_path):
    sweep = Storage(str(tmp_path))
    finish(start(sweep, OPTIMUM))
    (result,) = read_all(sweep).results
    assert measure_final(result, DATA, sweep, 30, CPU).r_mem == 1.0


def test_without_weights_it_says_so(tmp_path):
    sweep = Storage(str(tmp_path))
    finish(start(sweep))
    (result,) = read_all(sweep).results
    sweep.delete(f"trials/{result.training_key}/weights.safetensors")
    with pytest.raises(TrialFailed, match=f"N={SPEC.n}, seed 0"):
        measure_final(result, DATA, sweep, 10, CPU)


def test_measured_again_are_all_seeds_at_the_nearest_n_on_each_side():
    """By N alone; at an N that is the EMM it counts as below it. What has fewer images than are
    asked for is measured once more."""
    sizes = (20, 30, 30, 34, 34, 36, 36, 40, 90)
    results = [trial("a", n, seed) for seed, n in enumerate(sizes)]
    failed = failure("a", 35, 20)
    one = study("a", VERDICTS["found"], [*results[::-1], failed])  # EMM 35.2
    assert sorted(r.spec.seed for r in nearest_trials(one)) == [3, 4, 5, 6]
    on_it = replace(one, verdict=replace(one.verdict, emm=36.0))
    assert sorted(r.spec.seed for r in nearest_trials(on_it)) == [5, 6, 7]
    assert nearest_trials(replace(one, verdict=VERDICTS["unresolved"])) == []
    finals = {
        results[seed].training_key: FinalMeasurement(r_mem=0.5, n_samples=n, n_memorized=n // 2)
        for seed, n in ((3, 999), (4, 1000), (5, 2000))
    }
    search = SPACE.search.model_copy(update={"final_samples": 1000})
    summary = sweep_of(
        replace(one, finals=finals), space=SPACE.model_copy(update={"search": search})
    )
    assert sorted(r.spec.seed for r in missing_finals(summary)) == [3, 6]
    assert missing_finals(sweep_of(replace(one, finals=finals))) == [], "none is asked for"


@pytest.fixture
def twins(tmp_path):
    """A sweep of the optimum on images that all come twice: copies whose twin is there too don't
    count, so R_mem falls with N, without any training."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "twins.npz", images=np.concatenate([images, images]))
    space = SearchSpace(
        name="twins",
        question="?",
        source="",
        expectation="",
        cost="",
        base=DIGITS.model_copy(
            update={
                "data": Arrays(path=str(tmp_path / "twins.npz"), resolution=4, channels=1),
                "network": Optimum(),
            }
        ),
        vary={},
        search=Search(n_low=4, n_high=200, target=0.7, precision=0.4, final_samples=400),
        measurement=Measurement(n_samples=200, n_selection=20, snapshots=2, batch=200),
    )
    return Run(
        Sweep(space), Storage(str(tmp_path / "sweep")), tmp_path / "sweep", Resources(workers=2)
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_sweep_ends_with_it(twins):
    start_ray(twins.resources)
    try:
        twins.sweep.load_data()
        twins.fit([])
        before = twins.summary()
        (study,) = before.studies
        assert study.verdict.state == "found"
        near = nearest_trials(study)
        assert missing_finals(before) == near
        assert 1 <= len({result.spec.n for result in near}) <= 2
        away = {r.training_key: abs(np.log(r.spec.n / study.verdict.emm)) for r in study.complete}
        assert min(away.values()) == min(away[r.training_key] for r in near)
        twins.limits = Limits(deadline=time.time())
        assert list(measure_finals(twins)) == [], "nothing after the deadline"
        assert "the deadline has come" in twins.ended
        twins.limits, twins.ended, spent = Limits(), None, hours_spent(twins.storage)
        outcomes = list(measure_finals(twins))
        assert hours_spent(twins.storage) > spent
    finally:
        ray.shutdown()
    after = summarize(twins.storage)
    assert after.studies[0].verdict == study.verdict
    assert not missing_finals(after)
    assert len(final_lines(after)) == len(outcomes) == len(near)
    for result, last in outcomes:
        assert last.n_samples == 400
        sd = np.sqrt(result.r_mem * (1 - result.r_mem) * (1 / 200 + 1 / 400))
        assert abs(last.r_mem - result.r_mem) < 5 * sd + 1e-9
    said = [
        trial["final"] for trial in after.as_json()["configurations"][0]["trials"] if trial["final"]
    ]
    assert len(said) == len(near)


@pytest.mark.timeout(240)
def test_last_measurements_keep_to_the_workers_share_their_data_and_cost_until_they_are_cancelled(
    tmp_path, monkeypatch
):
    """On a real Ray, with a measurement that only says when it ran."""
    space, storage = fake_space((8, 16), final_samples=50), Storage(str(tmp_path / "sweep"))
    write_sweep(storage, space, load(space.base.data), 8)
    one = Run(Sweep(space), storage, tmp_path / "sweep", Resources(workers=1))
    missing = missing_finals(one.summary())
    assert len({result.spec.name for result in missing}) == 2
    assert len(missing) >= 3

    def measure(result, data, storage, n_samples, cpus):
        begin, name = time.time(), f"times/{result.training_key}"
        time.sleep(60.0 if storage.exists("is slow") else 0.3)
        storage.write_json(name, [begin, time.time()])
        return FinalMeasurement(r_mem=0.5, n_samples=n_samples, n_memorized=n_samples // 2), 0.3

    puts, put = [], ray.put
    monkeypatch.setattr(run_finals, "_measure_final", measure)
    monkeypatch.setattr(ray, "put", lambda value: (puts.append(value), put(value))[1])
    start_ray(one.resources)
    try:
        assert len(list(measure_finals(one))) == len(missing)
        assert hours_spent(storage) * 3600 == pytest.approx(0.3 * len(missing))
        assert len(puts) == 1
        storage.delete("final.json")
        storage.write("is slow", b"")
        one.limits = Limits(hours=hours_spent(storage) + 1.5 / 3600)
        before = hours_spent(storage)
        assert list(measure_finals(one)) == []
        assert "budget" in one.ended
        assert 1.5 <= (hours_spent(storage) - before) * 3600 < 10
        storage.delete("is slow")
        one.limits, one.ended = Limits(), None
        list(measure_finals(one))
    finally:
        ray.shutdown()
    times = sorted(storage.read_json(f"times/{name}") for name in storage.list("times"))
    assert all(end <= begin for (_, end), (begin, _) in zip(times, times[1:], strict=False))
    assert read_finals(storage).keys() == {result.training_key for result in missing}


def test_of_several_gpus_each_measurement_gets_one():
    """So that all of them measure, and as many more trials at once as a trial has GPUs."""
    assert one_device({"CPU": 8, "GPU": 4}, 2) == ({"CPU": 2, "GPU": 1}, 8)
    assert one_device({"CPU": 8, "GPU": 4}, None) == ({"CPU": 2, "GPU": 1}, None)
    for gpus in (0, 0.5, 1):
        assert one_device({"CPU": 3, "GPU": gpus}, 2) == ({"CPU": 3, "GPU": gpus}, 2)

"""Writes the files of a sweep whose R_mem is a formula, pictures and curves included, without
training anything."""

import numpy as np

from search_spaces.space import NamedConfiguration, SearchSpace
from sweep.analysis.cautions import cautions
from sweep.analysis.summary import SweepSummary
from sweep.store.files import SWEEP
from tests.fakes import fake_r_mem
from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData, subset_order
from trainables.storage import Storage
from trainables.trial.result import (
    MEASUREMENT,
    RESULT,
    Result,
    Snapshot,
    start_record,
    trial_directory,
)


def write_sweep(storage: Storage, space: SearchSpace, data: ImageData, trials: int) -> None:
    """`trials` of every configuration, at N around 2 × width."""
    storage.write_json(
        SWEEP, {"sweep": space.name, "space": space.model_dump(mode="json"), "configurations": {}}
    )
    for named in space.configurations:
        emm = 2.0 * named.configuration.network.width
        for seed in range(trials):
            n = round(emm * np.exp(0.6 * (2 * seed / max(1, trials - 1) - 1)))
            write_trial(storage, space, named, data, n, seed)


def write_trial(
    storage: Storage,
    space: SearchSpace,
    named: NamedConfiguration,
    data: ImageData,
    n: int,
    seed: int,
    **more: object,
) -> Result:
    how = space.measurement
    spec = TrialSpec(
        name=named.name, configuration=named.configuration, measurement=how, n=n, seed=seed
    )
    record, r_mem = start_record(spec, data), fake_r_mem(spec)
    directory, rng = trial_directory(storage, record.training_key), np.random.default_rng(seed)
    subset = subset_order(data, seed)[:n]
    memorized = np.arange(how.n_samples) < round(r_mem * how.n_samples)
    i1 = rng.integers(0, n, how.n_samples)
    noise = np.where(memorized, 4.0, 60.0)[:, None, None, None] * rng.standard_normal(
        (how.n_samples, *data.images.shape[1:])
    )
    images = np.clip(data.images[subset[i1]] + noise, 0, 255).astype(np.uint8)
    with directory.writing(MEASUREMENT) as stream:
        d1 = np.where(memorized, 40.0, 400.0) + rng.random(how.n_samples)
        np.savez_compressed(
            stream,
            images=images,
            d1=d1,
            d2=np.full_like(d1, 500),
            i1=i1,
            i2=(i1 + 1) % n,
            subset=subset,
        )
    total = spec.configuration.trainer.train_images(n)
    curve = [
        Snapshot(
            images_trained=total * (i + 1) // 4, loss=1 / (i + 1), r_mem=r_mem * (i + 1) / 4, n_samples=how.n_selection,
            n_memorized=round(r_mem * (i + 1) / 4 * how.n_selection), median_d1=40.0, seconds=10.0 * (i + 1),
        )
        for i in range(4)
    ]  # fmt: skip
    fields = {
        "complete": True, "r_mem": float(memorized.mean()), "n_samples": how.n_samples, "n_memorized": int(memorized.sum()),
        "images_trained": total, "best_images_trained": total, "r_mem_last": r_mem, "r_mem_half": r_mem / 2, "ceiling": 1.0,
        "median_d1": float(np.median(d1)), "nn_distance": 510.0, "null_rate": 0.01, "null_samples": 500,
        "distinct_copied": len(np.unique(i1[memorized])), "distinct_expected": float(len(np.unique(i1[memorized]))),
        "curve": tuple(curve), "seconds": 40.0, "hardware": {"device": "cpu"}, "finished_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    result = Result.model_validate(dict(record) | fields | more)
    directory.write(RESULT, result.model_dump_json().encode())
    return result


def caution_lines(summary: SweepSummary) -> list[str]:
    """`cautions`, whole, a line for each."""
    return [
        f"{one.what}: {'; '.join(one.names)}" if one.of else one.what for one in cautions(summary)
    ]

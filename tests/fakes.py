"""A trial whose R_mem is a formula, so that driver, search and tracking can be run for real in
seconds."""

import math
import os
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

import torch
from ray import tune
from torch import Tensor

from search_spaces.recipes import DIGITS
from search_spaces.space import Search, SearchSpace
from trainables.config.identity import derive_seed
from trainables.config.measurement import Measurement
from trainables.config.trial import TrialSpec
from trainables.data.images import ImageData
from trainables.data.sources import data_key
from trainables.storage import Storage
from trainables.trial.result import (
    RESULT,
    STARTED,
    Result,
    read_result,
    start_record,
    trial_directory,
)

SLOPE, NOISE = 4.0, 0.2  # of logit R_mem per ln N; standard deviation between seeds
STEPS, STEP_SECONDS = 3, 0.05


def fake_space(widths: tuple[int, ...] = (8, 16), **search: Any) -> SearchSpace:
    """Configurations whose EMM is 2 × width."""
    settings = {"n_low": 4, "n_high": 400, "precision": 0.15, "max_trials": 20, **search}
    return SearchSpace(
        name="fake",
        question="Does the sweep find what the formula says?",
        source="a formula",
        expectation="EMM = 2 × width",
        cost="seconds",
        base=DIGITS,
        vary={"network.width": widths},
        search=Search(**settings),
        measurement=Measurement(n_samples=2000),
    )


def true_emm(spec: TrialSpec) -> float:
    return 2.0 * spec.configuration.network.width  # type: ignore[union-attr]


def fake_r_mem(spec: TrialSpec) -> float:
    """Logistic in ln N, 0.9 at the EMM, with a normal deviate of the seed on the logit."""
    deviate = sum(derive_seed("noise", spec.seed, spec.n, i) / 2**63 for i in range(12)) - 6
    logit = math.log(9) - SLOPE * math.log(spec.n / true_emm(spec)) + NOISE * deviate
    return 1 / (1 + math.exp(-logit))


class FakeTrainable(tune.Trainable):
    """Takes STEPS steps and writes what a real trial writes; each step leaves a line in
    `steps.log`.

    A step takes EMM_STEP_SECONDS, of the environment of Ray; a process is not ready before
    EMM_TOGETHER trials have begun. The process of a trial is in `pid`.
    """

    def setup(self, config: dict[str, Any], data: dict[str, ImageData], storage: Storage) -> None:
        self.data, self.sweep = data, storage
        self.begin(config)
        while len(storage.list("trials")) < int(os.environ.get("EMM_TOGETHER", 1)):
            time.sleep(STEP_SECONDS)

    def begin(self, config: dict[str, Any]) -> None:
        self.spec = TrialSpec.model_validate_json(config["spec"])
        self.record = start_record(self.spec, self.data[data_key(self.spec.configuration.data)])
        self.directory = trial_directory(self.sweep, self.record.training_key)
        self.directory.write(STARTED, self.record.model_dump_json().encode())
        self.directory.write("pid", str(os.getpid()).encode())
        self.taken = 0

    def step(self) -> dict[str, Any]:
        if (result := read_result(self.directory)) is None:
            time.sleep(float(os.environ.get("EMM_STEP_SECONDS", STEP_SECONDS)))
            self.directory.write(
                "steps.log", (self.directory.read("steps.log") or b"") + f"{self.taken}\n".encode()
            )
            self.taken += 1
            if self.taken == STEPS:
                result = self.finish()
        return {"state": "training", "progress": self.taken / STEPS, "done": result is not None}

    def finish(self) -> Result:
        how = self.spec.measurement
        n_memorized = round(fake_r_mem(self.spec) * how.n_samples)
        result = Result(
            **dict(self.record),
            complete=True,
            r_mem=n_memorized / how.n_samples,
            n_samples=how.n_samples,
            n_memorized=n_memorized,
            images_trained=self.spec.configuration.trainer.train_images(self.spec.n),
            finished_at=datetime.now(UTC).isoformat(),
        )
        self.directory.write(RESULT, result.model_dump_json().encode())
        return result

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


class Yours:
    """A trainer that knows how often it was built, and with what."""

    built: ClassVar[list["Yours"]] = []

    def __init__(
        self,
        configuration: Any,
        images: Tensor,
        labels: Tensor | None,
        seed: int,
        device: torch.device,
        fails: bool = False,
    ) -> None:
        self.images, self.labels, self.fails = images, labels, fails
        self.asked: list[float] = []
        Yours.built.append(self)

    def train_until(self, progress: float) -> None:
        self.asked.append(progress)

    def sample(self, seeds: list[int], labels: Tensor | None) -> Tensor:
        return self.images[: 1 if self.fails else len(seeds)]

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

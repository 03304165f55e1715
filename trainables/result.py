"""What is known of a trial: `result.json`, the only truth about a finished one."""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainables.config import Configuration, Measurement, TrialSpec
from trainables.errors import UserError
from trainables.storage import Storage

RESULT, STARTED, MEASUREMENT, WEIGHTS = "result.json", "trial.json", "measurement.npz", "weights.pt"
FAILED = "result-failed.json"  # the last failure of a trial that is tried again

# what a result says beside R_mem
MEASURES = (
    "ceiling", "median_d1", "nn_distance", "null_rate", "null_samples", "distinct_copied", "distinct_expected", "spurious",
    "generalized", "c_t", "own_label",
)  # fmt: skip


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # a newer version may have more fields


class DataSummary(Record):
    source: str
    digest: str = Field(description="SHA-256 of the whole data set's images and labels")
    size: int = Field(description="images in the whole data set")
    duplicates: int = Field(description="images of it that equal an earlier one")


class Snapshot(Record):
    """A point of a trial at which it sampled and measured, with the latents that choose the best one."""

    images_trained: int
    loss: float | None = Field(description="mean loss per image since the last snapshot; None if the trainer does not tell")
    r_mem: float = Field(ge=0, le=1)
    n_samples: int
    n_memorized: int
    median_d1: float = Field(description="median distance to the nearest training image, pixel values 0–255, L2")
    seconds: float = Field(description="wall time of the trial so far")
    loss_gap: float | None = Field(
        None, description="denoising error at small noise, held-out minus training images, / noise variance"
    )


class TrialRecord(Record):
    """What is written when a trial starts (`trial.json`), so that it can be adopted."""

    spec: TrialSpec
    training_key: str
    measurement_key: str
    configuration_key: str
    data: DataSummary


class Result(TrialRecord):
    """What is written when a trial ends (`result.json`). If it failed, `complete` is false and `cause` says why."""

    complete: bool
    cause: str | None = None
    r_mem: float | None = Field(None, description="at the best snapshot, with fresh latents")
    n_samples: int = 0
    n_memorized: int = 0
    right_censored: bool = False
    images_trained: int = 0
    best_images_trained: int = Field(0, description="where the best snapshot was")
    r_mem_last: float | None = Field(None, description="at the end of the training, with the selection latents")
    r_mem_half: float | None = Field(None, description="at half of the training, with the selection latents")
    ceiling: float | None = Field(None, description="R_mem of the closed-form optimum on the same subset")
    median_d1: float | None = Field(None, description="median distance of the samples to the nearest training image")
    nn_distance: float | None = Field(None, description="median distance of training images to the nearest other one")
    null_rate: float | None = Field(None, description="R_mem of held-out images put in place of generated ones")
    null_samples: int = Field(0, description="number of those held-out images")
    distinct_copied: int = Field(0, description="number of distinct training images among the memorized samples")
    r_mem_per_label: dict[int, float] | None = Field(None, description="of conditional samples, for at most 100 labels")
    own_label: float | None = Field(None, description="share of the memorized samples that copy an image of their own label")
    distinct_expected: float | None = Field(None, description="the same, if each copy were of any training image alike")
    spurious: float | None = Field(None, description="share of samples not memorized, but made again by the model")
    generalized: float | None = Field(None, description="share of samples neither memorized nor spurious")
    c_t: float | None = Field(None, description="data-copying statistic against held-out images; far below 0: copies")
    curve: tuple[Snapshot, ...] = ()
    seconds: float = 0.0
    hardware: dict[str, str] = {}
    finished_at: str = ""

    @property
    def configuration(self) -> Configuration:
        return self.spec.configuration

    @property
    def measurement(self) -> Measurement:
        return self.spec.measurement


class FinalMeasurement(Record):
    """A last measurement of many images, of a trial near the EMM. It does not enter the belief."""

    r_mem: float = Field(ge=0, le=1)
    n_samples: int
    n_memorized: int


def trial_directory(storage: Storage, training_key: str) -> Storage:
    return storage / f"trials/{training_key}"


def read_result(storage: Storage) -> Result | None:
    """The result in a trial's directory, or None."""
    content = storage.read(RESULT)
    return None if content is None else parsed(Result, json.loads(content), f"{storage.shown}/{RESULT}")


Kind = TypeVar("Kind", bound=BaseModel)
NEWER = {"extra_forbidden", "union_tag_invalid", "literal_error"}  # what pydantic calls fields and values that are not known


def parsed(kind: type[Kind], content: Any, file: str) -> Kind:
    """What a file of a sweep says. Raises UserError if only a newer version of this program can have written it."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        unknown = [".".join(map(str, one["loc"])) for one in error.errors() if one["type"] in NEWER]
        if not unknown:
            raise
        raise UserError(f"{file} was written by a newer emm-sweep ({unknown[0]} is not known here); update this one") from None


def read_all(storage: Storage) -> tuple[list[Result], list[TrialRecord]]:
    """All results of a sweep's storage, and the trials that started and have none; both sorted by (name, seed)."""
    results, open_trials = [], []
    for key in storage.list("trials"):
        directory = trial_directory(storage, key)
        if (result := read_result(directory)) is not None:
            results.append(result)
        elif (content := directory.read(STARTED)) is not None:
            open_trials.append(parsed(TrialRecord, json.loads(content), f"{directory.shown}/{STARTED}"))
    return sorted(results, key=_position), sorted(open_trials, key=_position)


def _position(trial: TrialRecord) -> tuple[str, int]:
    return trial.spec.name, trial.spec.seed

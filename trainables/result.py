"""What is known of a trial: `result.json`, the only truth about a finished one."""

from pydantic import BaseModel, ConfigDict, Field

from trainables.config import Configuration, Measurement, TrialSpec
from trainables.storage import Storage

RESULT, STARTED, MEASUREMENT, WEIGHTS = "result.json", "trial.json", "measurement.npz", "weights.pt"


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
    loss: float = Field(description="mean denoising loss per image since the last snapshot")
    r_mem: float = Field(ge=0, le=1)
    n_samples: int
    n_memorized: int
    median_d1: float = Field(description="median distance to the nearest training image, pixel values 0–255, L2")
    seconds: float = Field(description="wall time of the trial so far")


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
    median_d1: float | None = None
    nn_distance: float | None = None
    null_rate: float | None = None
    null_samples: int = 0
    distinct_copied: int = Field(0, description="number of distinct training images among the memorized samples")
    distinct_expected: float | None = None
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


def trial_directory(storage: Storage, training_key: str) -> Storage:
    return storage / f"trials/{training_key}"


def read_result(storage: Storage) -> Result | None:
    """The result in a trial's directory, or None."""
    content = storage.read(RESULT)
    return None if content is None else Result.model_validate_json(content)


def read_all(storage: Storage) -> tuple[list[Result], list[TrialRecord]]:
    """All results of a sweep's storage, and the trials that started and have none; both sorted by (name, seed)."""
    results, open_trials = [], []
    for key in storage.list("trials"):
        directory = trial_directory(storage, key)
        if (result := read_result(directory)) is not None:
            results.append(result)
        elif (content := directory.read(STARTED)) is not None:
            open_trials.append(TrialRecord.model_validate_json(content))
    return sorted(results, key=_position), sorted(open_trials, key=_position)


def _position(trial: TrialRecord) -> tuple[str, int]:
    return trial.spec.name, trial.spec.seed

"""What is known of a trial: `result.json`, the only truth about a finished one."""

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainables.config.fields import explain
from trainables.config.measurement import Measurement
from trainables.config.trial import Configuration, TrialSpec, configuration_key
from trainables.data.array_files import ArrayArchive
from trainables.data.images import ImageData
from trainables.data.labels import check_subset
from trainables.data.pictures import check_memory
from trainables.errors import DamagedFile, UserError
from trainables.measure.measures import Measure, Measures, rows_of
from trainables.progress import each
from trainables.storage import MOST_JSON, Storage, parse_json
from trainables.text import redacted

RESULT, STARTED, MEASUREMENT = "result.json", "trial.json", "measurement.npz"
WEIGHTS, OTHER_WEIGHTS = "weights.safetensors", "weights.pt"
FAILED = "result-failed.json"  # the last failure of a trial that is tried again

Kind = TypeVar("Kind", bound=BaseModel)


class Record(BaseModel):
    # a newer version may have more fields
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class DataSummary(Record):
    source: str
    digest: str = Field(description="SHA-256 of the whole data set's images and labels")
    size: int = Field(description="images in the whole data set")
    duplicates: int = Field(description="images of it that equal an earlier one")


class Snapshot(Record):
    """A point of a trial at which it sampled and measured, with the latents that choose the best
    one."""

    images_trained: int
    loss: float | None = Field(
        description="mean loss per image since the last snapshot; None if the trainer does not tell"
    )
    r_mem: float = Field(ge=0, le=1)
    n_samples: int
    n_memorized: int
    median_d1: float = Field(
        description="median distance to the nearest training image, pixel values 0–255, L2"
    )
    seconds: float = Field(description="wall time of the trial so far")
    loss_gap: Annotated[
        float | None,
        Measure(
            "loss gap",
            "denoising error at small noise, held-out minus training images, / noise variance",
            "score",
            place="trainables.measure.measures.loss_gap",
        ),
    ] = None
    membership: Annotated[
        float | None,
        Measure(
            "membership",
            "share of pairs in which the training image has a lower denoising error at small noise "
            "than the held-out one",
            "share",
            place="trainables.measure.measures.membership",
        ),
    ] = None


SNAPSHOT_MEASURES = rows_of(Snapshot)


class TrialRecord(Record):
    """What is written when a trial starts (`trial.json`), so that it can be adopted."""

    spec: TrialSpec
    training_key: str
    measurement_key: str
    configuration_key: str
    data: DataSummary


class Outcome(TrialRecord):
    """How a trial ended. If it failed, `complete` is false and `cause` says why."""

    complete: bool
    cause: str | None = None
    r_mem: float | None = Field(
        None, ge=0, le=1, description="at the best snapshot, with fresh latents"
    )
    n_samples: int = 0
    n_memorized: int = 0
    right_censored: bool = False
    images_trained: int = Field(0, description="repeats included; of a pair by both models")
    best_images_trained: int = Field(0, description="where the best snapshot was")


class Result(Measures, Outcome):
    """What is written when a trial ends (`result.json`): its record, its outcome, its measures."""

    curve: tuple[Snapshot, ...] = ()
    seconds: float = 0.0
    hardware: dict[str, str] = {}
    made_by: dict[str, str | bool | None] = {}  # version, commit, clean of the code
    finished_at: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.complete:
            return self
        counts_fit = 0 <= self.n_memorized <= self.n_samples and self.n_samples > 0
        if self.r_mem is None or not counts_fit:
            raise ValueError("a finished trial needs R_mem, and n_memorized of n_samples")
        return self

    @property
    def configuration(self) -> Configuration:
        return self.spec.configuration

    @property
    def measurement(self) -> Measurement:
        return self.spec.measurement


def start_record(spec: TrialSpec, data: ImageData) -> TrialRecord:
    """Identity of a trial on these data. Raises UserError if they can't give a subset of N images,
    or not with labels."""
    how = spec.measurement
    in_file_order = how.protocol == "paper"
    check_subset(spec.configuration.labels, data, spec.n, [spec.seed], in_file_order, how.pair)
    return TrialRecord(
        spec=spec,
        training_key=spec.training_key(data.digest),
        measurement_key=spec.measurement_key(data.digest),
        configuration_key=configuration_key(spec.configuration, data.digest),
        data=DataSummary(
            source=data.source, digest=data.digest, size=len(data), duplicates=data.duplicates
        ),
    )


def read_measurement(storage: Storage, result: Result) -> dict[str, NDArray[Any]] | None:
    """The arrays of a trial's final measurement by name, None if there are none; `storage` is that
    of the sweep.

    Raises DamagedFile if they can't be read, are more than the memory holds, or don't fit each
    other: `images` [n, C, R, R] uint8, `d1`, `d2`, `i1`, `i2` [n], and `subset` [N], positions in
    the data, in which `i1` and `i2` are positions.
    """
    directory = trial_directory(storage, result.training_key)
    return read_arrays(directory, MEASUREMENT, partial(_check_measurement, result=result))


def read_arrays(
    storage: Storage, name: str, check: Callable[[Mapping[str, NDArray[Any]]], None]
) -> dict[str, NDArray[Any]] | None:
    """The arrays of an .npz file by name, None if there is none.

    Raises DamagedFile if they can't be read, are more than the memory holds, or `check` raises.
    """
    content = storage.read(name, psutil.virtual_memory().available)
    if content is None:
        return None
    file = storage.path(name)
    try:
        archive = ArrayArchive(io.BytesIO(content))
        check_memory(file, "", sum(archive.header(one).n_bytes for one in archive.names))
        kept = {one: archive.read(one) for one in archive.names}
        check(kept)
    except Exception as error:  # a damaged archive makes its readers raise whatever they stumble on
        reason = str(error).partition("\n")[0][:200]
        raise DamagedFile(f"{redacted(file)} is damaged ({reason})") from error
    return kept


def _check_measurement(kept: Mapping[str, NDArray[Any]], result: Result) -> None:
    missing = {"images", "d1", "d2", "i1", "i2", "subset"} - kept.keys()
    if missing:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    n, images, subset = len(kept["d1"]), kept["images"], kept["subset"]
    lengths_fit = all(kept[name].shape == (n,) for name in ("d1", "d2", "i1", "i2"))
    if not n or not lengths_fit or len(images) != n:
        raise ValueError("its arrays have different lengths")
    if images.dtype != np.uint8 or images.ndim != 4 or subset.ndim != 1:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}")
    for name, n_images in (("i1", len(subset)), ("i2", len(subset)), ("subset", result.data.size)):
        positions = kept[name]
        is_whole = np.issubdtype(positions.dtype, np.integer)
        if not is_whole or not ((positions >= 0) & (positions < n_images)).all():
            raise ValueError(f"{name} are no positions in {n_images:,} images")
    for name in ("d1", "d2"):
        distances = kept[name]
        if not np.issubdtype(distances.dtype, np.floating) or not np.isfinite(distances).all():
            raise ValueError("a distance is no number")


class FinalMeasurement(Record):
    """A last measurement of many images, of a trial near the EMM. It does not enter the belief."""

    r_mem: float = Field(ge=0, le=1)
    n_samples: int
    n_memorized: int


def trial_directory(storage: Storage, training_key: str) -> Storage:
    return storage / f"trials/{training_key}"


def read_result(storage: Storage) -> Result | None:
    """The result in a trial's directory, or None. Raises as `parsed` does."""
    return _read(Result, storage, RESULT)


def _read(kind: type[Kind], storage: Storage, name: str) -> Kind | None:
    content, file = storage.read(name, MOST_JSON), f"{storage.shown}/{name}"
    return None if content is None else parsed(kind, parse_json(content, file), file)


# what pydantic calls fields and values that are not known
NEWER = {"extra_forbidden", "union_tag_invalid", "literal_error"}


def parsed(kind: type[Kind], content: Any, file: str) -> Kind:
    """What a file of a sweep says. Raises DamagedFile, with the field, if it says nothing of the
    kind, and UserError if only a newer version of this program can have written it.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        unknown = [part["loc"] for part in error.errors() if part["type"] in NEWER]
        if not unknown:
            raise DamagedFile(f"{file} is damaged ({explain(error, kind)[:200]})") from None
        field = ".".join(map(str, unknown[0]))
        raise UserError(
            f"{file} was written by a newer emm-sweep ({field} is not known here); update this one"
        ) from None


class Trials(NamedTuple):
    """What a sweep's storage says of its trials. `damaged`: a line for every file that says
    nothing, which is passed over."""

    results: list[Result]
    started: list[TrialRecord]  # and have no result
    damaged: list[str]


SomeTrial = TypeVar("SomeTrial", bound=TrialRecord)
KEY = re.compile(r"[0-9a-f]{32}")
MOST_SEEDS = 10**6  # of a study: its seeds count its trials


def read_all(storage: Storage) -> Trials:
    """All trials of a sweep, sorted by (name, seed). What is not named by a key in `trials/` is not
    looked at."""
    results: list[Result] = []
    started: list[TrialRecord] = []
    damaged: list[str] = []
    for key in each(list(filter(KEY.fullmatch, storage.list("trials"))), "reading the trials"):
        directory = trial_directory(storage, key)
        result = _read_or_tell(Result, directory, RESULT, key, damaged)
        if result is not None:
            results.append(result)
            continue
        record = _read_or_tell(TrialRecord, directory, STARTED, key, damaged)
        if record is not None:
            started.append(record)
    return Trials(sorted(results, key=_position), sorted(started, key=_position), damaged)


def _read_or_tell(
    kind: type[SomeTrial], directory: Storage, name: str, key: str, damaged: list[str]
) -> SomeTrial | None:
    """The record in a trial's directory; None if there is none, or a damaged one, of which
    `damaged` then has a line.

    A record must be of the trial in whose directory it is: whoever reads on takes its key for a
    path.
    """
    file = f"{directory.shown}/{name}"
    try:
        record = _read(kind, directory, name)
        if record is not None and record.training_key != key:
            raise DamagedFile(f"{file} is of another trial, {record.training_key[:40]!r}")
        if record is not None and record.spec.seed > MOST_SEEDS:
            raise DamagedFile(
                f"{file} is of seed {record.spec.seed}; a study has at most {MOST_SEEDS:,}"
            )
    except NotADirectoryError:  # it only has the name of a trial
        return None
    except DamagedFile as error:
        damaged.append(str(error))
        return None
    return record


def _position(trial: TrialRecord) -> tuple[str, int]:
    return trial.spec.name, trial.spec.seed

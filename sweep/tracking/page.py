"""What MLflow is to hold of a run, as plain values: made by `content`, put there by `view`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sweep.report.drawn import Drawing

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Texts = Mapping[str, str]
Numbers = Mapping[str, float | None]

# tags of every run: what it is found by; its name; its description, in Markdown
KEY, RUN_NAME, NOTE = "emm.key", "mlflow.runName", "mlflow.note.content"

SWEEP_KEY = "emm.sweep"  # tag of all runs of a sweep

MAX_NAME = 250  # characters of the name of a run


@dataclass(frozen=True)
class DataSource:
    """MLflow's entry of a data set. `source`, `profile`: JSON; `context`: what it was used for."""

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass(frozen=True)
class Head:
    """Which run it is, and what it says of itself whenever anything is written to it.

    `keys`: values of its tag `emm.key`: today's, then those under which it may have been made
    earlier. `opening`: tags that a new run begins with, and that are left alone afterwards.
    `began`: seconds since the epoch; None: now.
    """

    keys: tuple[str, ...]
    name: str
    opening: Texts
    parent: "Head | None" = None
    params: Texts = field(default_factory=dict)
    tags: Texts = field(default_factory=dict)
    data: DataSource | None = None
    began: float | None = None


@dataclass(frozen=True)
class Point:
    """Of a run's curves. `at`: seconds since the epoch; None: now."""

    step: int
    metrics: Mapping[str, float]
    at: float | None = None


@dataclass(frozen=True)
class Attachment:
    """Files by their paths, and the description of the run, in Markdown, under which its pictures
    are shown; None leaves the description alone."""

    files: Mapping[str, bytes]
    note: str | None = None


@dataclass(frozen=True)
class Mark:
    """A tag which says that all of a page is written; `ended`: in a run of one of these states."""

    tag: str
    value: str
    ended: tuple[Status, ...] | None = None


@dataclass(frozen=True)
class Page:
    """What a run is to hold; of this, what differs is written, in the order of the fields.

    A metric that is None becomes NaN where it was a number. `curve`: steps that the run has are
    passed over. `attachment`: what takes time to make; it is made when it is written, and None if
    there is nothing. `drawings`: of which it is made. `last`: tags; of them None empties one that
    the run has. `mark`: a run that has it is left alone. `step`: of the metrics. `at`: of the
    metrics and of the end, in seconds since the epoch; None: now. `ended`: of the end alone.
    """

    head: Head
    metrics: Numbers = field(default_factory=dict)
    tags: Texts = field(default_factory=dict)
    curve: Sequence[Point] = ()
    attachment: Callable[[], Attachment | None] | None = None
    drawings: Sequence[Drawing] = ()
    last: Mapping[str, str | None] = field(default_factory=dict)
    status: Status | None = None
    mark: Mark | None = None
    step: int = 0
    at: float | None = None
    ended: float | None = None

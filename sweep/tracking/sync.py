"""MLflow's view of a sweep: sweep run → study runs → trial runs, made to agree with the results.

Only the driver and `emm sync` write it, from reports and from the files of finished trials; trials
know nothing of it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from search_spaces.space import SearchSpace
from sweep.analysis.summary import SweepSummary
from sweep.report.drawn import Drawing, ahead
from sweep.report.gallery import Pictures
from sweep.store.files import read_sweep
from sweep.tracking.charts import views
from sweep.tracking.content import Content, answer_note
from sweep.tracking.database import REMEDY, file_of
from sweep.tracking.moved import settle
from sweep.tracking.page import SWEEP_KEY, Page
from sweep.tracking.place import Destination, one_line, prepare_environment
from sweep.tracking.view import View
from trainables.errors import UserError
from trainables.progress import each
from trainables.storage import Storage
from trainables.text import cut, redacted, visible

log = logging.getLogger(__name__)

MAX_NAMED = 5  # of what MLflow has refused
MOST_GALLERIES = 100  # that are read before they are wanted: of images of 96 pixels 230 MB


def sync(
    summary: SweepSummary,
    storage: Storage,
    destination: Destination,
    live: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Makes MLflow agree with the results; doing it again changes nothing. `live`: whether a driver
    is at work. `meanwhile`: is done before MLflow is asked, when figures of a new database are being
    drawn.

    Raises UserError if MLflow can't be reached, or, when all the rest is written, if it has refused
    some of it.
    """
    prepare_environment()
    file = file_of(destination.uri)
    if file is None or file.exists():
        meanwhile()
        with _told_to_user(destination):
            SweepView(summary.space, storage, destination).sync(summary, live)
        return
    # a new database lacks everything: it is drawn while MLflow is imported and makes its tables
    content = _content(summary.space, storage, destination)
    drawings = _undrawn(content, summary, live, lambda page: True)
    with ahead(drawings):
        meanwhile()
        with _told_to_user(destination):
            SweepView(summary.space, storage, destination).write(summary, live)


@contextmanager
def _told_to_user(destination: Destination) -> Iterator[None]:
    """Makes a UserError of what MLflow raises in the block. Entering it imports MLflow."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        uri, file = destination.uri, file_of(destination.uri)
        remedy = "" if file is None else f"; if {file} is damaged: {REMEDY}"
        raise UserError(f"MLflow at {redacted(uri)}: {one_line(error, uri)}{remedy}") from error


def _content(space: SearchSpace, storage: Storage, destination: Destination) -> Content:
    pictures = Pictures(storage, destination.images, destination.data)
    made = read_sweep(storage)
    keys, runs = ({}, []) if made is None else (made.configurations, made.runs)
    return Content(space, storage, keys, pictures, runs[-1] if runs else None)


def _undrawn(
    content: Content, summary: SweepSummary, live: bool, lacks: Callable[[Page], bool]
) -> list[Drawing]:
    """What pages that MLflow lacks are made of, in the order in which they are wanted."""
    drawings, galleries = list[Drawing](), 0
    for study in summary.studies:
        drawings += [
            one for page in content.study(study, live) if lacks(page) for one in page.drawings
        ]
        for result in study.complete:
            if galleries < MOST_GALLERIES and lacks(content.trial(result)):
                drawings += filter(None, [content.gallery(result)])
                galleries += 1
    pages = content.sweep(summary, live)
    return drawings + [one for page in pages if lacks(page) for one in page.drawings]


class SweepView:
    """The pages of a sweep, and the writer that puts them. Making one asks storage and MLflow."""

    def __init__(self, space: SearchSpace, storage: Storage, destination: Destination) -> None:
        self.content = _content(space, storage, destination)
        key = self.content.key
        if destination.artifacts is not None and (file := file_of(destination.uri)) is not None:
            settle(file.parent, storage, key)
        # the UI opens with runs, not with chats
        tags = {"mlflow.experimentKind": "custom_model_development", **views(space, key)}
        self.writer = View(destination, (SWEEP_KEY, key), tags)
        self.is_local = destination.artifacts is not None  # and then of this sweep alone

    def sync(self, summary: SweepSummary, live: bool) -> None:
        """Writes everything that the storage holds, and meanwhile draws ahead what MLflow lacks;
        see `write`."""
        with ahead(_undrawn(self.content, summary, live, self.writer.lacks)):
            self.write(summary, live)

    def write(self, summary: SweepSummary, live: bool) -> None:
        """Everything that the storage holds. `live`: a driver is at work; without one, what is not
        finished is "killed".

        What MLflow refuses, and what can't be read, is left out and named at the end, by a
        UserError.
        """
        refused: list[str] = []
        everything = list(self.content.everything(summary, live))
        for name, make_pages in each(everything, "writing to MLflow"):
            with self._apart(name, refused):
                for page in make_pages():
                    self.writer.put(page)
        if self.is_local and not live:
            with self._apart("the description", refused):
                self.writer.describe(answer_note(summary), self.content.key)
        if refused:
            more = f" and {len(refused) - MAX_NAMED} more" if len(refused) > MAX_NAMED else ""
            raise UserError(
                f"MLflow lacks {'; '.join(refused[:MAX_NAMED])}{more}; all the rest is written"
            )

    @contextmanager
    def _apart(self, name: str, refused: list[str]) -> Iterator[None]:
        """What fails in the block costs only itself, while MLflow answers; else its error is
        raised."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  MLflow's refusals, damaged files, figures that can't be drawn
            self.writer.check_alive()
            reason = one_line(error, self.writer.uri)
            log.warning("MLflow: %s: %s", visible(name), reason)
            refused.append(f"{cut(name, 100)} ({reason})")

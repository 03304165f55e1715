"""Long work shows: a bar on a terminal, a line now and then in a log, and every part of it counted."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from search_spaces.find import find_space
from sweep.analysis.summary import summarize
from sweep.audit import compare
from sweep.audit.compare import audit
from sweep.audit.image_sets import open_set
from sweep.report.files import write_report
from sweep.report.progress import Bars
from sweep.tracking.place import destination
from sweep.tracking.sync import sync
from tests.results import write_sweep
from trainables.config.data import Digits, Folder
from trainables.data.sources import load
from trainables.progress import Advance, each, shown_by, work
from trainables.storage import Storage


def console(is_terminal: bool) -> Console:
    return Console(
        file=io.StringIO(), width=80, force_terminal=is_terminal, force_interactive=is_terminal,
        color_system=None,
    )  # fmt: skip


def text_of(bars: Bars, is_there: Callable[[str], bool]) -> str:
    """What was written, once it is as it is waited for."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        text: str = bars.console.file.getvalue()  # type: ignore[attr-defined]
        if is_there(text):
            return text
        time.sleep(0.01)
    raise AssertionError(text)


class Seen:
    """Whoever is shown work, and keeps it: [what, total, done, over]."""

    def __init__(self) -> None:
        self.work: list[tuple[str, float | None, float, bool]] = []

    @contextmanager
    def show(self, what: str, total: float | None) -> Iterator[Advance]:
        place, done = len(self.work), [0.0]
        self.work.append((what, total, 0, False))

        def advance(amount: float) -> None:
            done[0] += amount
            self.work[place] = (what, total, done[0], False)

        yield advance
        self.work[place] = (what, total, done[0], True)

    def check(self, *whats: str) -> None:
        """All that was begun is over, and done to the last."""
        assert {what for what, *_ in self.work} >= set(whats)
        assert all(over and total in (None, done) for _, total, done, over in self.work), self.work


def test_a_log_gets_a_line_with_what_is_done_and_left() -> None:
    with Bars(console(False), plain_seconds=0.02) as bars, shown_by(bars.show):
        with work("outside"), work("reading [b]x[/b]", 50_000) as advance:
            advance(100)
            advance(1100)
            text = text_of(bars, lambda text: "left" in text)
        assert "outside" not in text, "the innermost says more"
        assert "reading [b]x[/b]: 1,200 of 50,000, " in text
        assert "\x1b" not in text
        with work("waiting"):
            assert "waiting: 0 s" in text_of(bars, lambda text: "waiting" in text)
        count = len(bars.console.file.getvalue())  # type: ignore[attr-defined]
        with work("short", 1):
            pass
    assert len(bars.console.file.getvalue()) == count  # type: ignore[attr-defined]


def test_a_terminal_gets_a_bar_that_goes() -> None:
    with Bars(console(True), bar_seconds=0.0) as bars, shown_by(bars.show):
        for number in each(range(4), "reading pictures"):
            if number == 2:
                text_of(bars, lambda text: "━" in text)
                text = text_of(bars, lambda text: "2 of 4" in text)
    assert "reading pictures" in text
    text = bars.console.file.getvalue()  # type: ignore[attr-defined]
    assert text.endswith("\x1b[2K\x1b[?25h\r"), "the line is erased"
    assert text.count("\x1b[?25h") == text.count("\x1b[?25l") == 1, "the cursor is back"


def test_short_work_shows_nothing() -> None:
    for is_terminal in (False, True):
        with Bars(console(is_terminal)) as bars, shown_by(bars.show), work("short"):
            pass
        assert bars.console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_what_an_error_ended_is_not_shown_any_more() -> None:
    """The traceback keeps the loop, and so the work, alive."""

    def read() -> None:
        pictures = each(range(4), "reading")
        for _ in pictures:
            raise ValueError("damaged")

    kept = None
    try:
        with Bars(console(False)) as bars, shown_by(bars.show):
            read()
    except ValueError as error:
        kept = error
        assert bars.thread is None
        assert bars.progress.task_ids == []
        assert not [one for one in threading.enumerate() if one.name == "progress"]
    assert kept is not None


def test_the_work_of_other_threads_is_not_shown() -> None:
    seen = Seen()

    def reading() -> None:
        assert list(each([1, 2], "theirs")) == [1, 2]

    with shown_by(seen.show):
        thread = threading.Thread(target=reading)
        thread.start()
        thread.join()
        list(each([1, 2], "ours"))
    list(each([1], "after"))
    assert seen.work == [("ours", 2, 2, True)]


def test_pictures_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    seen = Seen()
    with shown_by(seen.show):
        load(Folder(path=str(tmp_path), resolution=8, channels=1))
    seen.check("loading the data (folder)", "reading the pictures of data.path")
    assert seen.work[1][1] == 5


@pytest.mark.parametrize("memory", [2**14, 2**28])
def test_every_pass_of_an_audit_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("t", 40), ("g", 700), ("h", 60)):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (n, 8, 8, 1)).astype(np.uint8))
    monkeypatch.setattr(compare, "MOST_HELD_OUT", 50)
    train, made, held = (open_set("--x", tmp_path / f"{name}.npy") for name in "tgh")
    seen = Seen()
    with shown_by(seen.show):
        audit(train, made, held, 1 / 3, memory=memory)
    seen.check(
        "looking for equal training images",
        "comparing with the training images",
        "looking how dense the training images are",
        "comparing training images with each other",
        "comparing with the held-out images",
    )


def test_a_report_is_counted(tmp_path: Path) -> None:
    write_sweep(Storage(str(tmp_path)), find_space("digits-width"), load(Digits()), 1)
    seen = Seen()
    with shown_by(seen.show):
        write_report(summarize(Storage(str(tmp_path))), tmp_path / "report")
    seen.check("reading the trials", "drawing figures", "writing the page")
    assert seen.work[0] == ("reading the trials", 2, 2, True)


@pytest.mark.slow
def test_what_is_written_to_mlflow_is_counted(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    space, digits = find_space("digits-width"), load(Digits())
    write_sweep(storage, space, digits, 2)
    seen = Seen()
    with shown_by(seen.show):
        where = destination(space, tmp_path, None, lambda name: digits)
        sync(summarize(storage), storage, where)
    seen.check("writing to MLflow")
    assert ("writing to MLflow", 2 + 2 + 4, 8, True) in seen.work, (
        "the sweep twice, studies, trials"
    )


def test_a_ctrl_c_as_the_thread_starts_is_a_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        Bars(console(False)) as bars,
        shown_by(bars.show),
        work("long"),
    ):
        raise AssertionError("it does not come so far")

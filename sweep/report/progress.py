"""What is shown while long work is done: bars on a terminal, a line now and then elsewhere."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from trainables.progress import Advance
from trainables.text import duration, time_left

BAR_SECONDS = 0.5  # until work is long enough for a bar
PLAIN_SECONDS = 15.0  # between lines, where there is no terminal; shorter work has none


class Bars:
    """Of all work that is being done, one below the other; see `trainables.progress.Show`.

    A thread draws, so that work which says nothing for long is seen to go on. What is there when
    the block ends goes with it: an error may have ended it.
    """

    def __init__(
        self,
        console: Console,
        bar_seconds: float = BAR_SECONDS,
        plain_seconds: float = PLAIN_SECONDS,
    ) -> None:
        self.console, self.bar_seconds, self.plain_seconds = console, bar_seconds, plain_seconds
        # what is printed meanwhile goes where it would
        self.progress = Progress(
            *(_What(), BarColumn(bar_width=12), _HowFar()),
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        for task in self.progress.task_ids:
            self._end(task)

    @contextmanager
    def show(self, what: str, total: float | None) -> Iterator[Advance]:
        task = self.progress.add_task(what, total=total)
        if self.thread is None:
            self.over.clear()
            self.thread = threading.Thread(target=self._draw, name="progress", daemon=True)
            self.thread.start()
        try:
            yield partial(self.progress.advance, task)
        finally:
            self._end(task)

    def _end(self, task: TaskID) -> None:
        if task in self.progress.task_ids:
            self.progress.remove_task(task)
        if self.thread is not None and not self.progress.task_ids:
            self.over.set()
            with suppress(RuntimeError):  # a Ctrl-C came before it had started
                self.thread.join()
            self.thread = None

    def _draw(self) -> None:
        if self.console.is_interactive:
            if not self.over.wait(self.bar_seconds):
                with self.progress:
                    self.over.wait()
            return
        while not self.over.wait(self.plain_seconds):
            for task in self.progress.tasks[-1:]:  # the innermost
                line = f"{task.description}: {how_far(task)}"
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def how_far(task: Task) -> str:
    """`1,200 of 50,000, 2 min left`; of work whose amount nobody knows, how long it takes."""
    if task.total is None:
        return duration(task.elapsed or 0)
    done = f"{task.completed:,.0f} of {task.total:,.0f}"
    left = task.time_remaining
    return done if left is None or task.finished else f"{done}, {time_left(left)} left"


class _What(ProgressColumn):
    """Text that obeys no markup: names are the user's."""

    def render(self, task: Task) -> Text:
        return Text(task.description, overflow="ellipsis", no_wrap=True)


class _HowFar(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text(how_far(task), no_wrap=True)

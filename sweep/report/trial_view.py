"""What the terminal shows while one trial runs: a bar with the time left; elsewhere a line now and
then."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sweep.report.live import PLAIN_SECONDS, progress_text


class TrialView:
    """On a terminal the bar stays at the bottom, below the lines that are told; elsewhere how far
    the trial is comes as a line, `plain_seconds` after the last one."""

    def __init__(self, title: str, console: Console, plain_seconds: float = PLAIN_SECONDS) -> None:
        self.console, self.plain_seconds = console, plain_seconds
        self.told_at = time.monotonic()
        words = TextColumn("{task.fields[words]}", markup=False)
        name = TextColumn("{task.description}", markup=False)
        self.bar = Progress(
            name,
            BarColumn(20),
            words,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(title, total=1.0, words="starting")

    def __enter__(self) -> "TrialView":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, report: dict[str, Any]) -> None:
        """`report`: of `Trial.step`."""
        words = progress_text(report)
        self.bar.update(self.task, completed=report.get("progress", 0.0), words=words)
        if self.bar.disable and time.monotonic() - self.told_at > self.plain_seconds:
            self.tell(words)

    def tell(self, line: str) -> None:
        self.told_at = time.monotonic()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

"""What the terminal shows while a sweep runs: one line per study, and a line for every trial that ends."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sweep.bisection import Options, Verdict
from sweep.studies import Studies
from sweep.wording import belief_text
from trainables.memorization import r_mem_interval
from trainables.result import Result, TrialRecord

PLAIN_SECONDS = 20.0  # between lines on what is running, where the output is not a terminal


class Terminal:
    """A listener of the searcher. On a terminal the studies' lines stay at the bottom; elsewhere they come now and then."""

    def __init__(self, studies: Studies, console: Console) -> None:
        self.studies, self.console = studies, console
        self.running: dict[str, tuple[TrialRecord, dict[str, Any]]] = {}  # by training key
        self.live = Live(console=console, get_renderable=self.lines, refresh_per_second=2) if console.is_terminal else None
        self.printed_at = time.monotonic()
        self.notes: set[str] = set()  # that were printed

    def __enter__(self) -> "Terminal":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def trial_started(self, record: TrialRecord) -> None:
        self.running[record.training_key] = record, {}

    def trial_progress(self, record: TrialRecord, report: dict[str, Any]) -> None:
        self.running[record.training_key] = record, report
        if (note := report.get("note")) and note not in self.notes:
            self.notes.add(note)
            self._print(f"note: {note}")
        if self.live is None and time.monotonic() - self.printed_at > PLAIN_SECONDS:
            self.printed_at = time.monotonic()
            self._print(*[self.line(name) for name in self.studies.configurations])

    def trial_finished(self, result: Result) -> None:
        self.running.pop(result.training_key, None)
        self._print(finished_line(result, self.studies.verdict(result.spec.name), self.studies.options(result.spec.name)))

    def trial_stopped(self, record: TrialRecord) -> None:
        self.running.pop(record.training_key, None)

    def lines(self) -> Group:
        return Group(*[Text(self.line(name), no_wrap=True, overflow="ellipsis") for name in self.studies.configurations])

    def line(self, name: str) -> str:
        """A study in one line: trials so far, belief of the EMM, what is training at which N and how far."""
        verdict = self.studies.verdict(name)
        running = [self._running(*trial) for trial in self.running.values() if trial[0].spec.name == name]
        doing = "training " + ", ".join(running) if running else "waiting" if verdict.state == "searching" else verdict.state
        return f"{name}  {verdict.n_trials} trials  {belief_text(verdict, self.studies.options(name))}  {doing}"

    @staticmethod
    def _running(record: TrialRecord, report: dict[str, Any]) -> str:
        left = report.get("seconds_left")
        return f"N={record.spec.n} {report.get('progress', 0.0):.0%}" + (f" ({left:.0f} s left)" if left else "")

    def _print(self, *lines: str) -> None:
        for line in lines:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def finished_line(result: Result, verdict: Verdict, options: Options) -> str:
    where = f"{result.spec.name}  N={result.spec.n} seed={result.spec.seed}"
    if not result.complete:
        return f"{where}  failed: {result.cause}"
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    r_mem = f"R_mem {result.r_mem:.3f} [{low:.3f}, {high:.3f}]"
    return f"{where}  {r_mem}  {result.seconds:.0f} s  -> {belief_text(verdict, options)} ({verdict.state})"

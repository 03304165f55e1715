"""What the terminal shows while a sweep runs: studies and running trials, and a line for every
trial that ends."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweep.report.left import seconds_left
from sweep.search.rules import Options, Verdict
from sweep.search.words import belief_text, counted, emm_text, interval_text
from trainables.measure.r_mem import r_mem_interval
from trainables.text import span, time_left
from trainables.trial.result import Result, TrialRecord

PLAIN_SECONDS = 20.0  # between lines on what is running, where the output is not a terminal
AROUND = 6  # lines of a live view beside those of studies and trials
# so far: the report judges each study once more, with what the others tell
COLUMNS = ("configuration", "trials", "EMM so far", "95 % interval", "state")


class Terminal:
    """A listener of the searcher. On a terminal the view stays at the bottom; elsewhere lines come
    now and then.

    `names`: of the studies; `verdict`, `options`: of a study now, by its name; `finished`: trials of
    earlier runs; `plain_seconds`: between the lines.

    A thread of rich's draws while Tune's thread tells what happens: what it reads is replaced here,
    never changed.
    """

    def __init__(
        self,
        names: Iterable[str],
        verdict: Callable[[str], Verdict],
        options: Callable[[str], Options],
        console: Console,
        plain_seconds: float = PLAIN_SECONDS,
        finished: Iterable[Result] = (),
    ) -> None:
        self._verdict, self._options, self.console = verdict, options, console
        self.plain_seconds = plain_seconds
        names = list(names)
        self.verdicts = {name: verdict(name) for name in names}
        self.options = {name: options(name) for name in names}
        self.running: dict[str, tuple[TrialRecord, dict[str, Any]]] = {}  # by training key
        self.finished = {result.training_key: result for result in finished}
        self.ended = self.failed = 0  # in this run
        self.most_at_once = 1
        self.began = time.monotonic()
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, get_renderable=self.view, refresh_per_second=2)
        self.printed_at = time.monotonic()
        self.notes: set[str] = set()  # that were printed

    def __enter__(self) -> "Terminal":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
        if self.ended:
            self._print(self.closing())

    # ------------------------------------------------------------ what happens

    def trial_started(self, record: TrialRecord) -> None:
        self.running = {**self.running, record.training_key: (record, {})}
        self.most_at_once = max(self.most_at_once, len(self.running))

    def trial_progress(self, record: TrialRecord, report: dict[str, Any]) -> None:
        self.running = {**self.running, record.training_key: (record, report)}
        note = report.get("note")
        if note and note not in self.notes:
            self.notes.add(note)
            self._print(f"note: {note}")
        if self.live is None and time.monotonic() - self.printed_at > self.plain_seconds:
            self.printed_at = time.monotonic()
            self._print(self.headline(), *[self.line(name) for name in self._busy()])

    def trial_finished(self, result: Result) -> None:
        name = result.spec.name
        self._end(result)
        self.failed += not result.complete
        self.ended += 1
        self.finished = {**self.finished, result.training_key: result}
        self.verdicts = {**self.verdicts, name: self._verdict(name)}
        self.options = {**self.options, name: self._options(name)}
        self._print(finished_line(result, self.verdicts[name], self.options[name]))

    def trial_stopped(self, record: TrialRecord) -> None:
        self._end(record)

    def _end(self, record: TrialRecord) -> None:
        key = record.training_key
        self.running = {other: trial for other, trial in self.running.items() if other != key}

    # ------------------------------------------------------------ how it is shown

    def view(self, is_whole: bool = False) -> RenderableType:
        """The studies, those that are trained first, as many as the window has room for; then the
        running trials. is_whole: all studies, whatever the window."""
        studies, trials = self._grid(*COLUMNS), self._grid("", "", "", has_head=False)
        running = list(self.running.values())
        room = max(3, self.console.height - AROUND - len(running))
        room = len(self.verdicts) if is_whole else room
        busy = self._busy()
        order = sorted(
            self.verdicts,
            key=lambda name: (name not in busy, self.verdicts[name].state != "searching"),
        )
        shown = set(order[:room])
        for name in self.verdicts:
            if name in shown:
                studies.add_row(*self._study(name))
        for record, report in running:
            bar: RenderableType = Text("")
            if "progress" in report:
                bar = ProgressBar(completed=report["progress"], total=1.0, width=12)
            trials.add_row(f"{record.spec.name}  {record.spec.title}", bar, progress_text(report))
        hidden = [Text(f"… and {len(order) - room} more studies")] if len(order) > room else []
        return Group(studies, *hidden, trials, Text(self.headline(), style="bold"))

    @staticmethod
    def _grid(*titles: str, has_head: bool = True) -> Table:
        """Where there is no room, names go on in the next line; numbers are never cut."""
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=has_head)
        for place, title in enumerate(titles):
            grid.add_column(
                title,
                no_wrap=place > 0,
                overflow="fold",
                justify="right" if title in COLUMNS[1:4] else "left",
            )
        return grid

    def _study(self, name: str) -> list[Text]:
        verdict, options = self.verdicts[name], self.options[name]
        emm, interval = emm_text(verdict, options), interval_text(verdict)
        words = (name, str(verdict.n_trials), emm, interval, self._state(name))
        style = "" if verdict.state == "searching" else "dim"
        return [Text(word, style=style) for word in words]

    def _busy(self) -> dict[str, None]:
        """Names of the studies that are being trained, in the order of the table."""
        names = {record.spec.name for record, _ in self.running.values()}
        return dict.fromkeys(name for name in self.verdicts if name in names)

    def _state(self, name: str) -> str:
        state = self.verdicts[name].state
        return state if state != "searching" or name in self._busy() else "waiting"

    def headline(self) -> str:
        """The whole sweep in one line."""
        states = Counter(map(self._state, self.verdicts))
        if self.failed:
            states["trials failed"] = self.failed
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        left = self.seconds_left()
        about = (
            "" if left is None else f"; about {time_left(left)} left at the usual number of trials"
        )
        studies = "1 study" if len(self.verdicts) == 1 else f"{len(self.verdicts)} studies"
        return f"{studies}: {counts}{about}"

    def seconds_left(self) -> float | None:
        """See `sweep.report.left`."""
        searching = {
            name: (self.options[name], verdict)
            for name, verdict in self.verdicts.items()
            if verdict.state == "searching"
        }
        known, running = self.finished.values(), self.running.values()
        return seconds_left(searching, known, running, self.most_at_once)

    def closing(self) -> str:
        """What this run did: `29 trials, 8 min 35 s, 2 workers`."""
        trials = counted(self.ended, "trial") + (f" ({self.failed} failed)" if self.failed else "")
        took = span(time.monotonic() - self.began)
        return f"{trials}, {took}, {counted(self.most_at_once, 'worker')}"

    def line(self, name: str) -> str:
        """A study in one line: trials so far, belief of the EMM, what is training at which N and
        how far."""
        verdict = self.verdicts[name]
        running = [
            f"N={record.spec.n} {progress_text(report)}"
            for record, report in self.running.values()
            if record.spec.name == name
        ]
        doing = ", ".join(running) or self._state(name)
        belief = belief_text(verdict, self.options[name])
        return f"{name}  {counted(verdict.n_trials, 'trial')}  so far {belief}  {doing}"

    def _print(self, *lines: str) -> None:
        for line in lines:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def still(
    names: Sequence[str],
    verdicts: dict[str, Verdict],
    options: dict[str, Options],
    running: Iterable[TrialRecord],
    console: Console,
) -> RenderableType:
    """The same view of a sweep of which only its files are known: nobody tells how far trials are."""
    terminal = Terminal(names, verdicts.__getitem__, options.__getitem__, console)
    for record in running:
        terminal.trial_started(record)
        terminal.trial_progress(record, {"state": "training"})
    return terminal.view(is_whole=True)


def progress_text(report: dict[str, Any]) -> str:
    """How far a trial is, by what its step reports: "training 25%, 9 s left"."""
    state = str(report.get("state", "starting"))
    done = f"{state} {report['progress']:.0%}" if "progress" in report else state
    seconds = report.get("seconds_left")
    return f"{done}, {time_left(seconds)} left" if seconds else done


def finished_line(result: Result, verdict: Verdict, options: Options) -> str:
    where = f"{result.spec.name}  {result.spec.title}"
    if not result.complete:
        return f"{where}  failed: {result.cause}"
    low, high = r_mem_interval(result.n_memorized, result.n_samples)
    r_mem = f"R_mem {result.r_mem:.3f} [{low:.3f}, {high:.3f}]"
    belief = f"so far {belief_text(verdict, options)} ({verdict.state})"
    return f"{where}  {r_mem}  {result.seconds:.0f} s  -> {belief}"

"""What stands in the terminal while a sweep runs, at a terminal and in a log."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from sweep.report.live import COLUMNS, Terminal
from sweep.run.studies import Studies
from sweep.search.words import emm_text, interval_text
from tests.fakes import fake_space
from trainables.data.sources import load
from trainables.text import time_left
from trainables.trial.result import Result, TrialRecord, start_record

ROOT = Path(__file__).parents[2]
SPACE = fake_space((8, 16))
DIGITS = load(SPACE.base.data)


class Screen:
    """A terminal on studies in memory."""

    def __init__(
        self, widths: tuple[int, ...] = (8, 16), height: int = 24, is_terminal: bool = True
    ) -> None:
        self.studies = Studies(fake_space(widths))
        self.console = Console(
            file=io.StringIO(),
            width=90,
            height=height,
            force_terminal=is_terminal,
            color_system=None,
        )
        self.terminal = Terminal(
            self.studies.configurations, self.studies.verdict, self.studies.options, self.console
        )

    def start(self, name: str) -> TrialRecord:
        record = start_record(self.studies.spec(self.studies.ask(name)), DIGITS)
        self.terminal.trial_started(record)
        return record

    def finish(self, record: TrialRecord, **outcome: object) -> None:
        fields = {
            "complete": True,
            "r_mem": 0.9,
            "n_samples": 100,
            "n_memorized": 90,
            "seconds": 12.0,
            **outcome,
        }
        result = Result.model_validate(dict(record) | fields)
        self.studies.tell(result)
        self.terminal.trial_finished(result)

    @property
    def view(self) -> list[str]:
        with self.console.capture() as captured:
            self.console.print(self.terminal.view())
        return [line.rstrip() for line in captured.get().splitlines()]

    @property
    def printed(self) -> str:
        return self.console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_view_shows_studies_trials_and_what_is_left() -> None:
    screen = Screen()
    record = screen.start("width=8")
    screen.terminal.trial_progress(
        record, {"state": "training", "progress": 0.25, "seconds_left": 450.0}
    )
    text = "\n".join(screen.view)
    assert f"width=8  N={record.spec.n} seed=0" in text
    assert "training 25%, 8 min left" in text
    assert "━" in text
    assert screen.view[-1].startswith("2 studies: 1 searching, 1 waiting; about ")
    screen.finish(record)
    text = "\n".join(screen.view)
    head, _, left = screen.view[-1].partition("; about ")
    assert head == "2 studies: 2 waiting"
    seconds = screen.terminal.seconds_left()
    assert seconds is not None
    assert left == f"{time_left(seconds)} left at the usual number of trials"
    assert "training" not in text
    (row,) = [line for line in screen.view if line.startswith("width=8 ")]
    assert row.split()[1] == "1"
    verdict = screen.studies.verdict("width=8")
    assert f"{verdict.emm:.3g}" in row
    assert "R_mem 0.900 [0.826, 0.945]  12 s" in screen.printed


def test_a_failure_is_printed_with_its_cause() -> None:
    screen = Screen()
    screen.finish(
        screen.start("width=8"), complete=False, r_mem=None, cause="out of [red]memory[/red]"
    )
    assert "failed: out of [red]memory[/red]" in screen.printed
    assert screen.view[-1].endswith("1 trials failed")


def test_forty_studies_fit_the_window_and_those_that_train_are_seen() -> None:
    screen = Screen(tuple(range(4, 164, 4)), height=20)
    screen.start("width=80")
    assert len(screen.view) <= 20
    assert any(line.startswith("width=80 ") for line in screen.view)
    assert "… and 27 more studies" in screen.view
    assert not any("more studies" in line for line in Screen((4, 8, 12), height=9).view)
    assert "… and 1 more studies" in Screen((4, 8, 12, 16), height=9).view


def test_a_log_gets_lines_now_and_then() -> None:
    screen = Screen(is_terminal=False)
    record = screen.start("width=16")
    screen.terminal.trial_progress(record, {"progress": 0.1})
    assert screen.printed == ""
    screen.terminal.plain_seconds = 0.0
    screen.terminal.trial_progress(
        record, {"state": "training", "progress": 0.5, "seconds_left": 30.0}
    )
    head, line = screen.printed.splitlines()
    assert head.startswith("2 studies: 1 waiting, 1 searching; about ")
    assert (
        line == f"width=16  0 trials  so far EMM - [-]  N={record.spec.n} training 50%, 30 s left"
    )
    assert "\x1b" not in screen.printed


def test_at_the_end_a_line_says_what_was_done() -> None:
    screen = Screen(is_terminal=False)
    with screen.terminal:
        pass
    assert screen.printed == "", "nothing was"
    with screen.terminal as terminal:
        first, second = screen.start("width=8"), screen.start("width=16")
        terminal.began -= 515.4
        screen.finish(first)
        screen.finish(second, complete=False, r_mem=None, cause="out of memory")
        screen.finish(screen.start("width=8"))
    assert screen.printed.splitlines()[-1] == "3 trials (1 failed), 8 min 35 s, 2 workers"


def test_earlier_trials_tell_how_long_a_sweep_takes() -> None:
    screen, again = Screen(), Screen()
    screen.finish(screen.start("width=8"))
    assert again.terminal.seconds_left() is None
    terminal = Terminal(
        again.studies.configurations,
        again.studies.verdict,
        again.studies.options,
        again.console,
        finished=screen.terminal.finished.values(),
    )
    assert terminal.seconds_left() is not None


def test_names_that_have_no_room_go_on_and_numbers_stay() -> None:
    screen = Screen()
    screen.finish(screen.start("width=8"))
    screen.console.width = 56
    terminal = screen.terminal
    verdicts, options = terminal.verdicts, terminal.options
    terminal.verdicts = {name + "," + "x" * 30: verdicts[name] for name in verdicts}
    terminal.options = {name + "," + "x" * 30: options[name] for name in options}
    verdict = verdicts["width=8"]
    row = next(line for line in screen.view if line.startswith("width=8,"))
    numbers = re.split("  +", row)[-3:]
    assert numbers == [emm_text(verdict, options["width=8"]), interval_text(verdict), "waiting"]
    assert any(re.search(" +".join(COLUMNS[1:]), line) for line in screen.view)
    assert "".join(screen.view).count("x") == 60
    assert "…" not in "".join(screen.view)


def test_a_thread_draws_while_trials_come_and_go() -> None:
    screen = Screen()
    records = [screen.start("width=8"), *(screen.start("width=16") for _ in range(20))]
    broken, done = list[Exception](), threading.Event()

    def draw() -> None:
        try:
            while not done.is_set():
                screen.terminal.headline()
        except RuntimeError as error:
            broken.append(error)

    interval, thread = sys.getswitchinterval(), threading.Thread(target=draw)
    sys.setswitchinterval(1e-6)
    thread.start()
    deadline = (
        time.monotonic() + 1.5
    )  # a dictionary that changes while it is read was seen within .15 s
    try:
        while time.monotonic() < deadline and not broken:
            for record in records:
                screen.terminal.trial_stopped(record)
            for record in records:
                screen.terminal.trial_started(record)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert broken == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ctrl_c_at_a_terminal_stops_cleanly_and_says_how_to_resume(tmp_path: Path) -> None:
    code = "from sweep.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        "digits-width",
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    master, slave = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm",
        "COLUMNS": "100",
        "LINES": "30",
    }
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    text, interrupted = "", False
    while True:
        if select.select([master], [], [], 1)[0]:
            try:
                text += os.read(master, 65536).decode(errors="replace")
            except OSError:  # its end
                break
        if not interrupted and "training " in text and "left" in text:
            os.kill(process.pid, signal.SIGINT)
            interrupted = True
    assert process.wait(60) == 130
    assert "interrupted; the same command goes on where it stopped" in text
    assert "Traceback" not in text
    left = subprocess.run(
        ["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert not left

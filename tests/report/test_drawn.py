"""Figures are drawn once, when what they show has changed, and by several processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from matplotlib.figure import Figure

from sweep.analysis.study import StudySummary
from sweep.report import drawn, hands
from sweep.report.drawn import DRAWN, Drawing, _take_back, ahead, rendered
from sweep.report.files import write_report
from sweep.report.study_figures import study_figure
from tests.summaries import VERDICTS, curve, study, sweep_of


def test_a_second_report_draws_what_has_changed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def counted(shown: StudySummary, *more: Any) -> Any:
        drawn.append(shown.name)
        return study_figure(shown, *more)

    monkeypatch.setattr("sweep.report.figures.study_figure", counted)
    first, other = curve("a", 35.0, (20, 40, 80)), curve("b", 90.0, (50, 100, 200))
    studies = [study("a", VERDICTS["searching"], first), study("b", VERDICTS["searching"], other)]
    page = write_report(sweep_of(*studies), tmp_path).read_bytes()
    assert sorted(drawn) == ["a", "b"]
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(sweep_of(*studies), tmp_path)
    assert len(drawn) == 2, "nothing has changed"
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    more = study("b", VERDICTS["searching"], [*other, *curve("b", 91.0, (400,))])
    assert write_report(sweep_of(studies[0], more), tmp_path).read_bytes() != page
    assert drawn[2:] == ["b"], "the study with a new trial"
    next(tmp_path.glob("study-01-*.pdf")).unlink()
    rendered.cache_clear()
    write_report(sweep_of(studies[0], more), tmp_path)
    assert drawn[3:] == ["a"], "the one whose file is lost"


def test_a_damaged_list_of_what_is_drawn_costs_a_drawing(tmp_path: Path) -> None:
    summary = sweep_of(study("a", VERDICTS["searching"], curve("a", 35.0, (20, 40, 80))))
    write_report(summary, tmp_path)
    whole = (tmp_path / DRAWN).read_text()
    (tmp_path / DRAWN).write_text("{half")
    write_report(summary, tmp_path)
    assert (tmp_path / DRAWN).read_text() == whole


def test_what_no_process_has_begun_is_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sleepy(ThreadPoolExecutor):
        """Begins nothing."""

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        def submit(self, *_: Any) -> Any:
            return Future()

    monkeypatch.setattr("sweep.report.drawn.FEW", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr("sweep.report.hands.ProcessPoolExecutor", Sleepy)
    one, other = (Drawing("study", partial(Figure, (1, 1)), {"emm": emm}) for emm in (1.5, 2.5))
    with ahead([one, other]):
        assert rendered(one)[0].startswith(b"\x89PNG")
    assert rendered(other)[1].startswith(b"%PDF"), "afterwards nothing is waited for"


@pytest.mark.parametrize("is_sound", [True, False])
def test_what_is_wanted_last_is_drawn_here_while_another_process_is_at_the_first(
    monkeypatch: pytest.MonkeyPatch, is_sound: bool
) -> None:
    """And an error is told to who wants the figure that it is of."""
    there: Future[Any] = Future()
    there.set_running_or_notify_cancel()
    made: list[str] = []

    def draw(name: str) -> Figure:
        made.append(name)
        if name == "third":  # by now the other process has done it
            there.set_result((b"png", b"pdf"))
        if name == "last" and not is_sound:
            raise ValueError("it can't be drawn")
        return Figure((1, 1))

    names = ("first", "second", "third", "last")
    wanted = {name: Drawing("study", partial(draw, name), (name, is_sound)) for name in names}
    away = {wanted["first"]: there, **{wanted[name]: Future[Any]() for name in names[1:]}}
    monkeypatch.setattr("sweep.report.drawn._away", away)
    assert rendered(wanted["first"]) == (b"png", b"pdf")
    assert made == ["last", "third"]
    rendered(wanted["third"])
    rendered(wanted["second"])
    assert made == ["last", "third", "second"], "each once"
    if is_sound:
        rendered(wanted["last"])
    else:
        with pytest.raises(ValueError, match="it can't be drawn"):
            rendered(wanted["last"])
    assert len(made) == 3


def test_what_nobody_wants_any_more_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread gives up its figures while this one draws in place of waiting."""
    there: Future[Any] = Future()
    there.set_running_or_notify_cancel()
    made: list[str] = []

    def draw(name: str) -> Figure:
        made.append(name)
        _take_back({wanted["second"]: away[wanted["second"]]})
        there.set_result((b"png", b"pdf"))
        return Figure((1, 1))

    names = ("first", "second", "last")
    wanted = {name: Drawing("study", partial(draw, name), (name, "given up")) for name in names}
    away = {wanted["first"]: there, **{wanted[name]: Future[Any]() for name in names[1:]}}
    monkeypatch.setattr("sweep.report.drawn._away", away)
    rendered(wanted["first"])
    assert made == ["last"]
    assert list(away) == [wanted["last"]]


def test_an_early_process_that_is_killed_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sweep.report.drawn.FEW", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    with hands.begun_early(True):
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        deadline = time.monotonic() + 30
        while not getattr(hands._early[0], "_broken"):  # noqa: B009  of Python's pool, no Executor's
            assert time.monotonic() < deadline
            time.sleep(0.01)
        studies = [study("a", VERDICTS["searching"], curve("a", 37.0, (20, 40, 80)))]
        write_report(sweep_of(*studies), tmp_path)
    assert len(list(tmp_path.glob("*.pdf"))) == 3
    assert "all figures are drawn here" in caplog.text


def test_threads_that_hand_out_at_once_leave_the_main_module_as_it_was() -> None:
    class Slow(ThreadPoolExecutor):
        def submit(self, *_: Any) -> Any:
            time.sleep(0.02)
            return Future()

    main = sys.modules["__main__"]
    with Slow() as pool, ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: [hands.hand_out(pool, print) for _ in range(5)], range(4)))
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("module", ["sweep/search/belief.py", "trainables/measure/r_mem.py"])
def test_a_figure_is_drawn_again_by_code_that_works_out_something_else(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.read_bytes

    def changed(path: Path) -> bytes:
        return whole(path) + (b"# more" if str(path).endswith(module) else b"")

    before = drawn._drawn_by.__wrapped__()
    monkeypatch.setattr(Path, "read_bytes", changed)
    assert drawn._drawn_by.__wrapped__() != before


def test_a_process_that_was_begun_early_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.report.drawn.FEW", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    with hands.begun_early(True):
        (before,) = multiprocessing.active_children()
        with ahead([Drawing("study", partial(Figure, (1, 1)), "early")]):
            (future,) = drawn._away.values()
            assert future.result()[0].startswith(b"\x89PNG")
            assert [one.pid for one in multiprocessing.active_children()] == [before.pid]
        assert before.is_alive(), "there may be more to draw"
    assert not before.is_alive()
    with hands.begun_early(False):
        assert multiprocessing.active_children() == []


def test_figures_are_being_drawn_while_the_rest_is_worked_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.report.drawn.FEW", 1)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    told: list[str] = []

    def look() -> None:
        told.extend(one.kind for one in drawn._away)

    shown = sweep_of(study("a", VERDICTS["searching"], curve("a", 36.0, (20, 40, 80))))
    write_report(shown, tmp_path, meanwhile=look)
    assert told == ["study"]
    assert drawn._away == {}


def test_a_figure_is_drawn_once_for_all_who_show_it() -> None:
    made = []

    def draw() -> Figure:
        made.append(1)
        return Figure((1, 1))

    first, again = (rendered(Drawing("study", draw, {"emm": 35.0})) for _ in range(2))
    assert first is again
    rendered(Drawing("study", draw, {"emm": 36.0}))
    rendered(Drawing("training", draw, {"emm": 35.0}))
    assert len(made) == 3, "another one for what is not the same"


@pytest.mark.parametrize("is_broken", [False, True])
def test_other_processes_draw_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    """And what they don't bring back is drawn here."""
    drawn_there: list[Any] = []

    class Pool(ProcessPoolExecutor):
        def submit(self, call: Any, *arguments: Any) -> Any:  # type: ignore[override]
            drawn_there.append(arguments)
            future = super().submit(call, *arguments)
            if is_broken:
                future = Future()
                future.set_exception(BrokenExecutor("killed"))
            future.cancel = lambda: False  # as if each had begun before it is asked for
            return future

    studies = [study("a", VERDICTS["searching"], curve("a", 35.0, (20, 40, 80)))]
    write_report(sweep_of(*studies), tmp_path / "here")
    monkeypatch.setattr("sweep.report.drawn.FEW", 1)
    monkeypatch.setattr("sweep.report.hands.ProcessPoolExecutor", Pool)
    rendered.cache_clear()
    write_report(sweep_of(*studies), tmp_path / "there")
    assert len(drawn_there) == len(list((tmp_path / "there").glob("*.pdf"))) == 3
    here, there = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("here", "there")
    )
    assert here == there


SCRIPT = """
from functools import partial

import joblib
from matplotlib.figure import Figure

from sweep.report import drawn

print("begun")
drawn.FEW, joblib.cpu_count = 1, lambda: 2
figures = [drawn.Drawing("study", partial(Figure, (1, 1)), number) for number in range(4)]
with drawn.ahead(figures):
    there = list(drawn._away.values())
    print(len([future.result() for future in there]), flush=True)
    input()
"""


def test_what_draws_runs_no_script_of_the_users_again_and_ends_with_it(tmp_path: Path) -> None:
    """A script that has no guard, and that is killed."""
    (tmp_path / "script.py").write_text(SCRIPT)
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    assert [script.stdout.readline() for _ in range(2)] == ["begun\n", "4\n"]
    processes = psutil.Process(script.pid).children(recursive=True)
    script.kill()
    _, left = psutil.wait_procs(processes, timeout=60)
    assert processes
    assert not left
    script.communicate()


INTERRUPTED = """
import signal
import time
from functools import partial

import joblib
from matplotlib.figure import Figure

from sweep.report import drawn

signal.signal(signal.SIGINT, signal.default_int_handler)  # as where no shell has it ignored
drawn.FEW, joblib.cpu_count = 1, lambda: 2
big = [drawn.Drawing("study", partial(Figure, (1, 1), label=bytes(999_999)), n) for n in range(9)]
with drawn.ahead(big):
    print("drawing", flush=True)
    for _ in range(600):  # a signal just before a sleep would not end it
        time.sleep(0.1)
"""


def test_a_ctrl_c_while_figures_are_drawn_ends_all(tmp_path: Path) -> None:
    """What is to be drawn is more than a pipe holds: whoever writes waits for a reader, for ever if
    that one was ended."""
    (tmp_path / "script.py").write_text(INTERRUPTED)
    script = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "drawing\n"
    os.killpg(script.pid, signal.SIGINT)  # as a terminal does
    _, told = script.communicate(timeout=40)
    assert told.count("KeyboardInterrupt") == 1, "of the script alone"


KILLED = """
import time
from functools import partial

import joblib
import psutil
from matplotlib.figure import Figure

from sweep.report import drawn

drawn.FEW, joblib.cpu_count = 1, lambda: 2
big = [drawn.Drawing("study", partial(Figure, (1, 1), label=bytes(999_999)), n) for n in range(9)]
with drawn.ahead(big):
    time.sleep(0.05)
    for process in psutil.Process().children():
        if "spawn_main" in " ".join(process.cmdline()):
            process.kill()
    print(len([drawn.rendered(one) for one in big]), flush=True)
"""


def test_a_process_that_is_killed_amid_its_orders_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Most of which are taken back; what is not is more than a pipe holds."""
    (tmp_path / "script.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "script.py")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40)
    assert (ended.stdout, ended.returncode) == ("9\n", 0), ended.stderr


LEFT_DRAWING = """
import sys
import threading
import time

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from sweep.report.drawn import Drawing, rendered

path = findfont("DejaVu Sans")


def draw():
    begun.set()
    for _ in range(1000):
        FT2Font(path).set_text("copies")
    return Figure((1, 1))


begun = threading.Event()
draw_one = lambda: [rendered(Drawing("study", draw, number)) for number in range(100)]
threading.Thread(target=draw_one, daemon=True).start()
begun.wait()
time.sleep(float(sys.argv[1]))
sys.exit(3)
"""


def test_a_process_ends_as_it_was_told_while_a_thread_draws(tmp_path: Path) -> None:
    """Python ends a thread where it stands, amid C++ that aborts then."""
    (tmp_path / "script.py").write_text(LEFT_DRAWING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for seconds in "0", ".05", ".1":
        command = [sys.executable, str(tmp_path / "script.py"), seconds]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
        assert done.returncode == 3, done.stderr.decode()[-500:]

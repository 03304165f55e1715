"""Processes beside this one, that draw.

They are fresh ones: of this one Ray and MLflow may have left threads, which a copy of it would not
survive.
"""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import resource_tracker
from types import ModuleType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MOST = 8  # of them: each imports what draws, for a second

_early: list[Executor] = []
_handing = threading.Lock()  # one thread at a time changes what a process begins with


def count() -> int:
    """How many there may be: one for each core but that of this process."""
    import joblib

    return min(int(joblib.cpu_count()) - 1, MOST)


@contextmanager
def begun_early(is_wanted: bool) -> Iterator[None]:
    """A first one imports what draws while this process, in the block, does its own imports and
    reads; `hands` gives it there."""
    if not is_wanted or _early or count() < 1:
        yield
        return
    with _hands() as pool:
        hand_out(pool, import_module, "sweep.report.figures")
        _early.append(pool)
        try:
            yield
        finally:
            _early.remove(pool)


@contextmanager
def hands() -> Iterator[Executor]:
    """Those that were begun early, or others, which end with the block."""
    if _early:
        yield _early[0]
        return
    with _hands() as pool:
        yield pool


def _hands() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count(), context, _begin, gc.get_threshold())


def hand_out(pool: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """As `submit`. A process that this begins hears no Ctrl-C, which would leave this one waiting for
    somebody to read its orders; and it does not run the main module of this one first: of a user's
    script that would be all of it, again."""
    with _handing:
        resource_tracker.ensure_running()  # which lets the signal through when it has begun
        main = sys.modules["__main__"]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            future = pool.submit(call, *args, **kwargs)
        finally:
            sys.modules["__main__"] = main
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _hear_of_a_break(future)
    return future


def _hear_of_a_break(future: Future[T]) -> None:
    """Also when it was cancelled: else, where a process is killed, Python 3.11 stops at the first that
    was, before it lets go of the pipe that this process then waits for at its end."""
    tell = future.set_exception

    def told(error: BaseException | None) -> None:
        with suppress(InvalidStateError):
            tell(error)

    future.set_exception = told  # type: ignore[method-assign, assignment]


def _begin(*threshold: int) -> None:
    """It looks for garbage as seldom as the process that began it, and ends with that: it would wait
    for work of one that was killed for ever."""
    gc.set_threshold(*threshold)
    atexit.register(gc.freeze)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

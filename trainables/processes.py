"""Processes that work beside this one, and begin afresh.

Of this one Ray and MLflow may have left threads, which a copy of it would not survive.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

Made = TypeVar("Made")


@contextmanager
def meanwhile(workers: int, tasks: Sequence[Callable[[], Made]]) -> Iterator[list[Future[Made]]]:
    """`workers` processes do the tasks, from the first on, while this one does the block; at its end
    those that none has begun are dropped, and the others waited for.

    Tasks, what they return and what they raise are pickled.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        with _nothing_run_first():
            futures = [pool.submit(task) for task in tasks]
        try:
            yield futures
        finally:
            for future in futures:
                future.cancel()


def _end_with_parent() -> None:
    """A process would wait for work of one that was killed for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _nothing_run_first() -> Iterator[None]:
    """A process that is started in the block does not run this one's main module before it begins:
    of a user's script that would be all of it, again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

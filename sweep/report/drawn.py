"""Figures as files of a report: only those whose content has changed are drawn, several at once."""

import atexit
import hashlib
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sweep.report.style import DPI, as_pdf, as_png
from trainables.config.identity import key_of
from trainables.errors import DamagedFile
from trainables.progress import each
from trainables.storage import Storage

log = logging.getLogger(__name__)

DRAWN = "figures.json"  # name → what the figure of that name shows, as a key

FEW = 12  # figures that are drawn sooner than a process has started


@dataclass(frozen=True, eq=False)
class Drawing:
    """`shows`: all that a figure of this kind depends on, as JSON: two that show the same are one.
    `make` may be sent to another process. `dpi`: of the PNG."""

    kind: str
    make: Callable[[], Figure]
    shows: Any
    dpi: int = DPI
    has_pdf: bool = True

    @cached_property
    def key(self) -> str:
        files = {"dpi": self.dpi, "has_pdf": self.has_pdf}
        return key_of({"kind": self.kind, "shows": self.shows, "drawn_by": _drawn_by(), **files})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawing) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


Rendered = tuple[bytes, bytes]  # PNG, PDF (empty if it is not wanted)


_away: dict[Drawing, Future[Rendered]] = {}  # what other processes have been told to draw


@lru_cache(maxsize=32)
def rendered(drawing: Drawing) -> Rendered:
    """Once for MLflow and the report; here, unless another process is at it."""
    future = _away.pop(drawing, None)
    if future is None or future.cancel():
        return _render(drawing.make, drawing.dpi, drawing.has_pdf)
    try:
        return future.result()
    except BrokenExecutor as error:  # killed, perhaps for want of memory
        log.warning("a figure (%s) is drawn here: %s", drawing.kind, error)
        return _render(drawing.make, drawing.dpi, drawing.has_pdf)


# Held while a figure is drawn, and for good when the process ends: a thread that Python then ends
# amid matplotlib's C++, where it reads a font, would take the process down by an abort.
_drawing = threading.Lock()
atexit.register(_drawing.acquire)


def _render(make: Callable[[], Figure], dpi: int, has_pdf: bool) -> Rendered:
    with _drawing:
        figure = make()
        png = as_png(figure, dpi)
        if not has_pdf:
            return png, b""
        figure.set_layout_engine("none")  # it stays as it was laid out
        return png, as_pdf(figure)


@cache
def _drawn_by() -> str:
    """Another version of this room, or of matplotlib, may draw the same otherwise."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join([*code, matplotlib.__version__.encode()])).hexdigest()


def write_figures(files: Storage, drawings: Mapping[str, Drawing]) -> dict[str, bytes]:
    """Writes NAME.png and NAME.pdf of every drawing, unless they are there and show just that;
    returns the PNGs, in the order of the drawings."""
    try:
        former = files.read_json(DRAWN)
    except DamagedFile:  # then all of them are drawn
        former = None
    known = former if isinstance(former, dict) else {}
    keys = {name: drawing.key for name, drawing in drawings.items()}
    images: dict[str, bytes | None] = {}
    for name, key in keys.items():
        is_there = known.get(name) == key and files.exists(f"{name}.pdf")
        images[name] = files.read(f"{name}.png") if is_there else None
    missing = {name: drawings[name] for name, image in images.items() if image is None}
    with ahead(missing.values()):
        # the processes begin at the other end
        for name, drawing in each(list(reversed(missing.items())), "drawing figures"):
            png, pdf = rendered(drawing)
            files.write(f"{name}.png", png)
            files.write(f"{name}.pdf", pdf)
            images[name] = png
    files.write_json(DRAWN, keys)
    return {name: image for name, image in images.items() if image is not None}


@contextmanager
def ahead(drawings: Collection[Drawing]) -> Iterator[None]:
    """Meanwhile, if they are many, processes of their own draw them, from the first on; `rendered`
    takes what they have, waits for what they have begun, and draws the rest.

    The processes are fresh ones: of this one Ray and MLflow may have left threads, which a copy of
    it would not survive.
    """
    import joblib

    workers = min(joblib.cpu_count() - 1, len(drawings) // FEW)  # beside this one
    if workers < 1:
        yield
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        with _nothing_run_first():
            there = {one: pool.submit(_render, one.make, one.dpi, one.has_pdf) for one in drawings}
        _away.update(there)
        try:
            yield
        finally:
            for drawing, future in there.items():
                _away.pop(drawing, None)
                future.cancel()


def _end_with_parent() -> None:
    """A process that draws would wait for work of one that was killed for ever."""
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

"""Figures as files of a report: only those whose content has changed are drawn, several at once."""

import atexit
import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sweep.report.hands import count, hand_out, hands
from sweep.report.style import DPI, as_pdf, as_png
from trainables.config.identity import key_of
from trainables.errors import DamagedFile
from trainables.measure import r_mem
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
_changing = threading.Lock()  # held where it is looked at and changed by what was seen


@lru_cache(maxsize=32)
def rendered(drawing: Drawing) -> Rendered:
    """Once for MLflow and the report; here, unless another process is at it."""
    future = _away.pop(drawing, None)
    if future is None or future.cancel():
        return _here(drawing)
    _draw_until(future)
    try:
        return future.result()
    except BrokenExecutor as error:  # killed, perhaps for want of memory
        log.warning("a figure (%s) and all others are drawn here: %s", drawing.kind, error)
        _away.clear()
        return _here(drawing)


def _draw_until(future: Future[Rendered]) -> None:
    """While another process is at what `future` stands for, what nobody has begun is drawn here,
    the last wanted first."""
    for drawing, waiting in reversed(list(_away.items())):
        if future.done():
            return
        drawn: Future[Rendered] = Future()
        drawn.set_running_or_notify_cancel()
        with _changing:  # another thread may want it by now, or nobody any more
            if _away.get(drawing) is not waiting or not waiting.cancel():
                continue
            _away[drawing] = drawn
        try:
            drawn.set_result(_here(drawing))
        except Exception as error:  # noqa: BLE001  of that figure alone, for whoever wants it
            drawn.set_exception(error)


def _here(drawing: Drawing) -> Rendered:
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
    """Another version of what works out figures and draws them, or of matplotlib, may draw the same
    otherwise."""
    here, measure = Path(__file__).parent, Path(r_mem.__file__).parent
    rooms = (here, here.parent / "analysis", here.parent / "search", measure)
    code = [path.read_bytes() for room in rooms for path in sorted(room.glob("*.py"))]
    return hashlib.sha256(b"".join([*code, matplotlib.__version__.encode()])).hexdigest()


def write_figures(files: Storage, drawings: Mapping[str, Drawing]) -> dict[str, bytes]:
    """Writes NAME.png and NAME.pdf of every drawing, unless they are there and show just that;
    returns the PNGs, in the order of the drawings."""
    missing = undrawn(files, drawings)
    with ahead(missing.values()):
        # first what no process is told, then what they would come to last
        in_turn = sorted(reversed(missing.items()), key=lambda named: named[1] in _away)
        for name, drawing in each(in_turn, "drawing figures"):
            png, pdf = rendered(drawing)
            files.write(f"{name}.png", png)
            files.write(f"{name}.pdf", pdf)
    files.write_json(DRAWN, {name: drawing.key for name, drawing in drawings.items()})
    images = {name: files.read(f"{name}.png") for name in drawings}
    return {name: image for name, image in images.items() if image is not None}


def undrawn(files: Storage, drawings: Mapping[str, Drawing]) -> dict[str, Drawing]:
    """Those whose files are not there, or show something else."""
    try:
        former = files.read_json(DRAWN)
    except DamagedFile:  # then all of them are drawn
        former = None
    known = former if isinstance(former, dict) else {}
    return {
        name: drawing
        for name, drawing in drawings.items()
        if known.get(name) != drawing.key
        or not (files.exists(f"{name}.png") and files.exists(f"{name}.pdf"))
    }


@contextmanager
def ahead(drawings: Collection[Drawing]) -> Iterator[None]:
    """Meanwhile, if they are many, processes of their own draw them, from the first on; `rendered`
    takes what they have, and draws the rest. What such processes are told already is left to them."""
    drawings = [drawing for drawing in drawings if drawing not in _away]
    if len(drawings) < FEW or count() < 1:
        yield
        return
    there: dict[Drawing, Future[Rendered]] = {}
    with hands() as pool:
        try:
            for one in drawings:
                there[one] = hand_out(pool, _render, one.make, one.dpi, one.has_pdf)
                _away[one] = there[one]
        except BrokenExecutor as error:  # it was killed before it drew anything
            log.warning("all figures are drawn here: %s", error)
        try:
            yield
        finally:
            _take_back(there)


def _take_back(there: Mapping[Drawing, Future[Rendered]]) -> None:
    for drawing, future in there.items():
        with _changing:
            _away.pop(drawing, None)
        future.cancel()

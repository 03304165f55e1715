"""Figures as files of a report: only those whose content has changed are drawn, several at once."""

import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sweep.report.style import as_pdf, as_png
from trainables.config.identity import key_of
from trainables.storage import Storage

log = logging.getLogger(__name__)

DRAWN = "figures.json"  # name → what the figure of that name shows, as a key

FEW = 12  # figures that are drawn sooner than a process has started


@dataclass(frozen=True, eq=False)
class Drawing:
    """`shows`: all that a figure of this kind depends on, as JSON: two that show the same are one.
    `travels`: whether another process may draw it; what holds many pixels stays here."""

    kind: str
    make: Callable[[], Figure]
    shows: Any
    travels: bool = True

    @cached_property
    def key(self) -> str:
        return key_of({"kind": self.kind, "shows": self.shows, "drawn_by": _drawn_by()})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Drawing) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


Rendered = tuple[bytes, bytes]  # PNG, PDF


@lru_cache(maxsize=32)
def rendered(drawing: Drawing) -> Rendered:
    """Once for MLflow and the report."""
    return _render(drawing.make)


def _render(make: Callable[[], Figure]) -> Rendered:
    figure = make()
    return as_png(figure), as_pdf(figure)


@cache
def _drawn_by() -> str:
    """Another version of this room, or of matplotlib, may draw the same otherwise."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join([*code, matplotlib.__version__.encode()])).hexdigest()


def write_figures(files: Storage, drawings: Mapping[str, Drawing]) -> dict[str, bytes]:
    """Writes NAME.png and NAME.pdf of every drawing, unless they are there and show just that;
    returns the PNGs, in the order of the drawings."""
    former = files.read_json(DRAWN)
    known = former if isinstance(former, dict) else {}
    keys = {name: drawing.key for name, drawing in drawings.items()}
    images: dict[str, bytes | None] = {}
    for name, key in keys.items():
        is_there = known.get(name) == key and files.exists(f"{name}.pdf")
        images[name] = files.read(f"{name}.png") if is_there else None
    missing = {name: drawings[name] for name, image in images.items() if image is None}
    for name, (png, pdf) in _rendered(missing):
        files.write(f"{name}.png", png)
        files.write(f"{name}.pdf", pdf)
        images[name] = png
    files.write_json(DRAWN, keys)
    return {name: image for name, image in images.items() if image is not None}


def _rendered(drawings: Mapping[str, Drawing]) -> Iterator[tuple[str, Rendered]]:
    """Each as it comes: here, and of many those that travel in processes of their own meanwhile.

    The processes are fresh ones: of this one Ray and MLflow may have left threads, which a copy of
    it would not survive.
    """
    import joblib

    away: dict[str, Future[Rendered]] = {}
    travelling = {name: one for name, one in drawings.items() if one.travels}
    workers = min(max(1, joblib.cpu_count() - 1), len(travelling) // FEW)  # beside this one
    with ExitStack() as stack:
        if workers:
            fresh = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, fresh))
            away = {name: pool.submit(_render, one.make) for name, one in travelling.items()}
        for name, drawing in drawings.items():
            if name not in away:
                yield name, rendered(drawing)
        for name, future in away.items():
            try:
                yield name, future.result()
            except BrokenExecutor as error:  # killed, perhaps for want of memory
                log.warning("%s is drawn here: %s", name, error)
                yield name, rendered(drawings[name])

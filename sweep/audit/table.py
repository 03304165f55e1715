"""The table of an audit: every generated image, the training images nearest to it, and the verdict."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from sweep.audit.compare import Audit
from sweep.report.files import cell
from trainables.errors import UserError
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage

NEAR = "nearest", "second", "d1", "d2"

# position: in the order in which the images were read, from 0
COLUMNS = "position", "image", *NEAR, "copy"
IN_FEATURES = *(f"{name}_in_features" for name in NEAR), "copy_in_features"


def write_table(found: Audit, out: Path) -> None:
    """A CSV file with a row for every generated image. Raises UserError if it can't be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seen = found.distances.in_features
    writer.writerow([*COLUMNS, *(IN_FEATURES if seen else ())])
    parts = [_rows(found, found.distances.found, found.distances.found.memorized(found.k).tolist())]
    if seen is not None:
        copies = [None] * len(found.generated) if seen.copies is None else seen.copies.tolist()
        parts.append(_rows(found, seen.found, copies))
    for position, columns in enumerate(zip(*parts, strict=True)):
        name = cell(found.generated.name(position))
        writer.writerow([position, name, *(value for part in columns for value in part)])
    try:
        Storage(str(out.absolute().parent)).write(out.name, text.getvalue().encode())
    except OSError as error:
        raise UserError(f"--csv {out}: can't be written ({error.strerror})") from None


def _rows(
    found: Audit, near: Neighbours, copies: list[bool] | list[None]
) -> Iterator[tuple[str | float, ...]]:
    """Names, distances and the verdict, "" where it is not known."""
    words = {True: "yes", False: "no", None: ""}
    numbers = zip(near.i1.tolist(), near.i2.tolist(), near.d1, near.d2, copies, strict=True)
    for i1, i2, d1, d2, is_copy in numbers:
        names = [cell(found.training.name(index)) for index in (i1, i2)]
        yield *names, float(d1), float(d2), words[is_copy]

"""The page of an audit: one file that loads nothing from anywhere, with the copies beside what they
are copies of."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sweep.audit.compare import Audit
from sweep.audit.figure import histogram, ratios
from sweep.audit.image_sets import ImageSet
from sweep.audit.words import lines
from sweep.report import html
from sweep.report.style import as_png
from trainables.errors import UserError
from trainables.measure.r_mem import Neighbours
from trainables.storage import Storage

COPIES, OTHERS = 60, 12  # generated images shown: the nearest copies, and the nearest that are none


def write_page(found: Audit, out: Path) -> None:
    """Raises UserError if it can't be written."""
    nearest, memorized = found.distances.found, found.distances.found.memorized(found.k)
    order = np.lexsort((nearest.d1, ratios(nearest)))
    copies, others = order[memorized[order]][:COPIES], order[~memorized[order]][:OTHERS]
    content = found.as_json()
    sets = (found.training, found.generated, found.held_out)
    text = html.page(
        "audit.html",
        sets=[images for images in sets if images is not None],
        k=found.k,
        found=lines(content),
        histogram=html.data_uri(as_png(histogram(found))),
        galleries=[
            ("Nearest copies", "", [_card(found, nearest, row) for row in copies.tolist()]),
            (
                "Nearest images that are no copies",
                "",
                [_card(found, nearest, row) for row in others.tolist()],
            ),
            (
                "Copies in features that are none in pixels",
                ", all in features",
                _cards_in_features(found, memorized),
            ),
        ],
        lists={
            "Copied training images": [
                f"{source['image']}: {source['copies']} copies" for source in content["copied"]
            ],
            "Equal training images": [", ".join(names) for names in content["duplicates"]],
            "Nearly equal training images": [
                ", ".join(names) for names in content["near_duplicates"]
            ],
        },
    )
    try:
        Storage(str(out.absolute().parent)).write(out.name, text.encode())
    except OSError as error:
        raise UserError(f"--out {out}: can't be written ({error.strerror})") from None


def _card(found: Audit, near: Neighbours, row: int, digits: int = 1) -> dict[str, Any]:
    """Pictures, names and distances of a generated image and its two neighbours."""
    shown = (
        (found.generated, row),
        (found.training, int(near.i1[row])),
        (found.training, int(near.i2[row])),
    )
    return {
        "images": [_uri(images, index) for images, index in shown],
        "names": [images.name(index) for images, index in shown],
        "distances": f"d1 {near.d1[row]:.{digits}f}, d2 {near.d2[row]:.{digits}f}",
    }


def _cards_in_features(found: Audit, memorized: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The nearest first."""
    seen = found.distances.in_features
    if seen is None or seen.copies is None:
        return []
    rows = np.flatnonzero(seen.copies & ~memorized)
    nearest_first = rows[np.argsort(seen.score(seen.found)[rows], kind="stable")]
    return [_card(found, seen.found, row, digits=3) for row in nearest_first[:COPIES].tolist()]


def _uri(images: ImageSet, index: int) -> str:
    pixels: Tensor = images.take([index])[0]
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(stream, "PNG")
    return html.data_uri(stream.getvalue())

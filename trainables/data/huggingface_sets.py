"""Images of a set of Hugging Face's `datasets`, an extra: the set is opened by the library, its
pictures are read by our rules. The network is asked only where the user wants it."""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trainables.config.data import HuggingFace
from trainables.data.picture_files import numbered
from trainables.data.pictures import Pictures, enumerated, read_all
from trainables.data.pools import Ints, Pool
from trainables.data.regular_files import check_size, open_small
from trainables.errors import UserError
from trainables.text import first_line, printable

HUB_NAME = r"[\w.-]+(/[\w.-]+)?"
SAVED = ("state.json", "dataset_dict.json")  # one of these is in what save_to_disk writes


def read_huggingface(source: HuggingFace, may_fetch: bool) -> Pool:
    """Raises UserError if the extra or the set is not there, or if it is not clear which columns
    are meant."""
    try:
        # a folder of the user's that is called so has none
        from datasets import Dataset  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"data.kind=huggingface: {printable(first_line(error))}; "
            "pip install 'emm-sweep[huggingface]'"
        ) from error
    where = f"data.{'path' if source.path else 'name'}:"
    with _opened(where, source, may_fetch) as dataset:
        image, label = _image_column(source, dataset), _label_column(source, dataset)
        pictures = _pictures(dataset, image)
        images, good, said = read_all(
            where, pictures, source.channels, source.resolution, source.skip_bad
        )
        labels, classes = _labels(dataset, label, good)
        others = [name for name in dataset.column_names if name not in (image, label)]
    left_out = [f"left out: the columns {enumerated(others)}"] if others else []
    what = f"{printable(source.path or source.name)}, {printable(source.split)}: {len(images):,} images"
    words = [f"{what} ({printable(image)}){classes}", *left_out, *said]
    return Pool(images, labels, notes=("; ".join(words),))


# ---------------------------------------------------------------- the set


@contextmanager
def _opened(where: str, source: HuggingFace, may_fetch: bool) -> Iterator[Any]:
    """The part asked for, a `datasets.Dataset`."""
    import datasets

    local, is_local = Path(source.path).expanduser(), bool(source.path)
    if is_local and not local.is_dir():
        raise UserError(f"data.path: {source.path!r} is not a directory")
    if not is_local and not re.fullmatch(HUB_NAME, source.name):
        raise UserError(
            f"data.name: {source.name!r} is no name on the Hub; a directory is data.path"
        )
    fetches = source.download and may_fetch and not is_local
    # of a local directory, which may be private, no copy stays behind
    with tempfile.TemporaryDirectory(prefix="emm-data-") as cache, _network(fetches):
        try:
            if is_local and any((local / name).exists() for name in SAVED):
                dataset = _part(source, datasets.load_from_disk(local))
            else:
                dataset = datasets.load_dataset(
                    str(local.absolute()) if is_local else source.name,
                    source.config,
                    split=source.split,
                    revision=None if is_local else source.revision,
                    cache_dir=cache if is_local else None,
                )
        except UserError:
            raise
        except Exception as error:  # the library raises of every kind
            reason = printable(first_line(error)[:300])
            raise UserError(
                f"{where} {source.path or source.name!r} can't be read ({reason})"
                f"{'' if is_local else _hint(source, may_fetch)}"
            ) from error
        yield dataset


def _part(source: HuggingFace, saved: Any) -> Any:
    """Of what was saved, which is one part, that may not know its name, or several by name."""
    parts = saved if isinstance(saved, dict) else {str(saved.split or source.split): saved}
    if source.split not in parts:
        raise UserError(f"data.split: there is {enumerated(list(parts))}, not {source.split}")
    return parts[source.split]


def _hint(source: HuggingFace, may_fetch: bool) -> str:
    if not source.download:
        return "; give data.path, or let it be fetched by --set data.download=true"
    return "" if may_fetch else "; emm run and emm trial fetch it"


@contextmanager
def _network(is_wanted: bool) -> Iterator[None]:
    """Without it, as HF_HUB_OFFLINE=1 has it: which the library reads once, when it is imported."""
    from datasets import config
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (config, constants)
    before = [(module, module.HF_HUB_OFFLINE) for module in modules]
    for module, was in before:
        module.HF_HUB_OFFLINE = was or not is_wanted
    try:
        yield
    finally:
        for module, was in before:
            module.HF_HUB_OFFLINE = was


# ---------------------------------------------------------------- its columns


def _image_column(source: HuggingFace, dataset: Any) -> str:
    from datasets import Image

    columns = [name for name, kind in dataset.features.items() if isinstance(kind, Image)]
    if source.image is None and len(columns) == 1:
        return str(columns[0])
    if source.image is None or source.image not in columns:
        there = enumerated(columns) or f"none among {enumerated(dataset.column_names)}"
        raise UserError(f"data.image: say which column holds the images; there is {there}")
    return source.image


def _label_column(source: HuggingFace, dataset: Any) -> str | None:
    from datasets import ClassLabel

    features = dataset.features
    if source.label is not None:
        if source.label not in features:
            raise UserError(f"data.label: there is {enumerated(list(features))}")
        return source.label
    columns = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    if len(columns) > 1 and "label" not in columns:
        raise UserError(f"data.label: say which column; there is {enumerated(columns)}")
    if "label" in features:
        return "label"
    return str(columns[0]) if columns else None


def _pictures(dataset: Any, column: str) -> Pictures:
    from datasets import Image

    encoded = dataset.select_columns([column]).cast_column(column, Image(decode=False))

    def opened(row: int) -> IO[bytes]:
        picture = encoded[row][column]
        if picture is None:
            raise ValueError("there is none")
        if picture["bytes"] is None:
            return open_small(Path(picture["path"]))
        check_size(len(picture["bytes"]))
        return io.BytesIO(picture["bytes"])

    return Pictures([f"row {row}" for row in range(len(encoded))], opened)


def _labels(dataset: Any, column: str | None, rows: Ints) -> tuple[Ints | None, str]:
    """[m] of these rows: numbers as they are, names by their place among the sorted ones; None
    where there are none, or -1 of all."""
    if column is None:
        return None, ", without classes"
    values = dataset.select_columns([column]).with_format(None)[:][column]
    chosen = [values[row] for row in rows]
    wrong = [
        row for row, value in zip(rows, chosen, strict=True) if not isinstance(value, int | str)
    ]
    if wrong:
        raise UserError(f"data.label: {column} of row {wrong[0]} is neither an integer nor a name")
    labels, classes = numbered([str(int(v)) if isinstance(v, int) else v for v in chosen])
    if (labels == -1).all():
        return None, f", without classes ({printable(column)} is -1)"
    return labels, f" in {classes}, as the column {printable(column)} says"

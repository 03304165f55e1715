"""Classification sets of torchvision, read from the user's copy by torchvision itself; its pictures
by our rules."""

import inspect
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from trainables.config.data import Torchvision
from trainables.data.pictures import Pictures, read_all
from trainables.data.pools import Ints, Pool
from trainables.data.regular_files import open_small
from trainables.errors import UserError
from trainables.text import first_line, printable

# set by a field of the source, or by us
OURS = {"self", "root", "train", "download", "loader"}
TRANSFORMS = {"transform", "target_transform", "transforms"}
# in the root, what torchvision makes, or unpacks, where it is not there
MADE = {"Caltech101": ["caltech101"], "Caltech256": ["caltech256"], "ImageNet": ["meta.bin"]}
# where torchvision's own choice gives no class
CHOSEN = {"CelebA": {"target_type": "identity"}}


def read_torchvision(source: Torchvision, may_fetch: bool) -> Pool:
    """Raises UserError if the set is not there, or not whole, or has no single class for each."""
    dataset = open_set(source, may_fetch)
    where = f"data.name={source.name}:"
    targets: list[Any] = [None] * len(dataset)

    def opened(index: int) -> IO[bytes] | Image.Image:
        picture, targets[index] = dataset[index]
        if isinstance(picture, Image.Image):
            return picture
        names[index] = os.path.relpath(picture, Path(source.root).expanduser())
        return open_small(Path(picture))

    names = [f"[{index}]" for index in range(len(dataset))]
    images, good, said = read_all(
        where, Pictures(names, opened), source.channels, source.resolution, source.skip_bad
    )
    labels = _labels(where, [targets[index] for index in good])
    classes = ", without classes" if labels is None else f" in {len(np.unique(labels)):,} classes"
    part = f" {printable(source.split)}" if source.split else ""
    words = [f"torchvision's {source.name}{part}: {len(images):,} images{classes}", *said]
    return Pool(images, labels, notes=("; ".join(words),))


def open_set(source: Torchvision, may_fetch: bool) -> Any:
    """The set, of which an item is a picture, or its path, and its class."""
    from torchvision import datasets

    kind = getattr(datasets, source.name, None)
    if kind is None:
        raise UserError(
            f"data.name={source.name}: the installed torchvision has none; "
            "pip install --upgrade torchvision"
        )
    known = _parameters(kind)
    arguments = _arguments(source, known)
    if source.download and "download" not in known:
        raise UserError(f"data.download: torchvision does not fetch {source.name}; get it yourself")
    if "root" in known:
        arguments["root"] = _root(
            source, may_fetch and (source.download or "download" not in known)
        )
    if "download" in known:  # some fetch by default
        arguments["download"] = source.download and may_fetch
    if "loader" in known:  # so that all pictures are read by the same rules
        arguments["loader"] = str
    try:
        return kind(**arguments)
    except Exception as error:  # each class raises what it likes
        reason = printable(first_line(error)[:200])
        if isinstance(error, TypeError | ValueError):  # an argument
            raise UserError(f"data.name={source.name}: {reason}") from error
        raise _not_there(source, may_fetch, reason, "download" in known) from error


def check_root(name: str, root: str) -> None:
    """Raises UserError if it is not said where a set lies; torchvision is not needed for that."""
    if not root:
        raise UserError(f"data.root: say which directory holds {name} (--set data.root=DIR)")


def _root(source: Torchvision, may_be_made: bool) -> Path:
    check_root(source.name, source.root)
    root = Path(source.root).expanduser()
    for path in (root, *(root / name for name in MADE.get(source.name, ()))):
        if not may_be_made and not path.exists():
            reason = f"there is no {printable(path)}"
            raise _not_there(source, False, reason, source.name != "ImageNet")
    return root


def _not_there(
    source: Torchvision, may_fetch: bool, reason: str, can_be_fetched: bool
) -> UserError:
    hint = ""
    if can_be_fetched and not source.download:
        hint = "; put it there, or let it be fetched by --set data.download=true"
    elif not may_fetch and (source.download or source.name in MADE):
        hint = "; emm run and emm trial fetch and unpack it"
    return UserError(f"data.root: no intact {source.name} in {source.root!r} ({reason}){hint}")


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """What a class may be called with: also what it passes on to the next above it."""
    found: dict[str, inspect.Parameter] = {}
    for one in kind.__mro__:
        here = inspect.signature(one.__init__).parameters  # type: ignore[misc]
        found = {**here, **found}
        if all(parameter.kind != parameter.VAR_KEYWORD for parameter in here.values()):
            break
    return {
        name: parameter
        for name, parameter in found.items()
        if parameter.kind == parameter.POSITIONAL_OR_KEYWORD and name not in TRANSFORMS
    }


def _arguments(source: Torchvision, known: dict[str, inspect.Parameter]) -> dict[str, Any]:
    """What chooses the part of a set: `data.split`, and `data.options`."""
    arguments: dict[str, Any] = dict(CHOSEN.get(source.name, {}))
    ours = OURS | ({"split"} if "train" not in known else set())
    free = [name for name in known if name not in ours]
    for name, value in source.options.items():
        if name not in free:
            there = ", ".join(free) or "none"
            raise UserError(f"data.options.{name}: {source.name} has these options: {there}")
        arguments[name] = tuple(value) if isinstance(value, list) else value
    if source.split is not None and "train" in known:
        if source.split not in ("train", "test"):
            raise UserError(f"data.split: {source.name} has train and test, not {source.split!r}")
        arguments["train"] = source.split == "train"
    elif source.split is not None and "split" in known:
        arguments["split"] = source.split
    elif source.split is not None:
        raise UserError(f"data.split: {source.name} has no parts; leave it out")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name in free and name not in arguments:
            raise UserError(f"data.options.{name}: {source.name} needs it")
    return arguments


def _labels(where: str, targets: list[Any]) -> Ints | None:
    """[n]; None where a set has none, or says -1 of all."""
    if all(target is None for target in targets):
        return None
    with suppress(TypeError, ValueError, RuntimeError):
        labels = np.array([int(target) for target in targets], dtype=np.int64)
        return None if (labels == -1).all() else labels
    raise UserError(f"{where} its labels are no single classes; see data.options")

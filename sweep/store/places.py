"""Where a sweep is kept: its storage, and the local directory of its views, which remembers a
storage elsewhere.

The *pointer* in that directory is believed only if nobody but this user can have written it: it
says to whom credentials are sent, and what `emm purge` removes.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from sweep.store.budget import SPENT
from sweep.store.files import FINAL, SWEEP, read_space, read_sweep
from sweep.store.lock import LOCK, Lock
from sweep.store.priors import PRIORS
from trainables.errors import UserError
from trainables.storage import Storage, parse_json
from trainables.text import redacted

POINTER = "storage.json"  # in the directory of the views
TRUTH = ("trials", SPENT, PRIORS, FINAL, SWEEP)  # the last one last: with it, it is a sweep
VIEWS = (
    "optuna.db",
    "optuna.db-journal",
    "mlflow.db",
    "mlflow.db-journal",
    "artifacts",
    "ray",
    "report",
    "emm.log",
    POINTER,
)
OTHER_REPORT = re.compile(r"report-(k|features-|with-).+")
MOST_BYTES = 100_000  # of a pointer
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path has one slash of the two
INSTEAD = "give the URL of the storage in place of the directory, or remove this file"


@dataclass(frozen=True)
class Place:
    storage: Storage
    views: Path | None  # real path; None: there is no local directory
    sweep_id: str | None = None  # of the sweep that the pointer was written for
    is_pointed: bool = False  # the storage was found by a pointer


def place(name: str) -> Place:
    """The sweep that a DIR or URL stands for. Raises UserError for a pointer that is not to be
    believed."""
    if not name:
        raise UserError("'' names no sweep; give its directory or URL (is a variable not set?)")
    directory = Path(os.path.realpath(name))
    if "://" not in name and (pointer := _pointer(directory)) is not None:
        return Place(Storage(pointer["storage"]), directory, pointer.get("id"), is_pointed=True)
    storage = Storage(name)
    if not storage.is_local:
        return Place(storage, None)
    check_directory(name, Path(storage.root))
    return Place(storage, Path(storage.root))


def check_directory(asked: str, directory: Path, of_url: str = "choose a directory") -> None:
    """Raises UserError, beginning with what was asked for, if a file stands in the way of a
    directory, if it can't be looked for, or if it is a URL; `of_url`: what is to be done with
    that."""
    check_no_url(asked, directory, of_url)
    for path in (directory.absolute(), *directory.absolute().parents):
        try:
            is_file = path.exists() and not path.is_dir()
        except OSError as error:  # a name that is too long, a directory that is closed to us
            raise UserError(f"{asked}: {error.strerror}; choose another directory") from None
        if is_file:
            raise UserError(f"{asked}: {path} is a file; choose a directory")


def make_directory(directory: Path, mode: int = 0o777) -> None:
    """With those above it; one that exists stays as it is. Raises UserError if it can't be made."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{directory} can't be made ({error.strerror}); choose another directory"
        ) from None


def check_no_url(asked: str, path: Path, instead: str) -> None:
    """Raises UserError for a URL that was given in place of a path."""
    if URL.match(str(path)):
        url = redacted(re.sub(":/+", "://", asked, count=1))
        raise UserError(f"{url}: a URL is no path on this machine; {instead}")


def _pointer(directory: Path) -> dict[str, Any] | None:
    """What the pointer in a directory says; None if there is none."""
    path = directory / POINTER
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: it can't be read ({error.strerror}); {INSTEAD}") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise UserError(f"{path} is no pointer to a storage; {INSTEAD}")
        content = parse_json(file.read(), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("storage"), str):
        raise UserError(f"{path} names no storage; {INSTEAD}")
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"{path} may be somebody else's, so that {redacted(content['storage'])}, which it "
            f"names, is not opened; {INSTEAD}"
        )
    return content


def new_place(out: Path | None, url: str | None) -> Place:
    """For `--out` and `--storage`. Creates nothing; raises UserError if they name no place for a
    sweep."""
    if out is None and url is None:
        raise UserError("--out DIR: say where the sweep is kept (or --storage URL)")
    if url is not None and (not url or ("://" not in url and URL.match(url))):
        raise UserError(f"--storage {redacted(url)!r}: a URL with :// or a path is needed")
    if out is None:
        return place(str(url))
    check_directory(f"--out {out}", out, "it goes to --storage")
    former = place(str(out))
    if url is None:
        return former
    storage = Storage(url)
    if (out / SWEEP).exists() and not storage.is_same(former.storage):
        raise UserError(
            f"--out {out}: a sweep is kept there already; choose another directory beside --storage"
        )
    if former.is_pointed and not storage.is_same(former.storage):
        raise UserError(
            f"--out {out}: it belongs to the sweep in {former.storage.shown}; leave --storage out "
            "to go on with that one, "
            f"or choose another directory"
        )
    theirs = [name for name in VIEWS if os.path.lexists(out / name)]
    if theirs and not former.is_pointed and not storage.is_same(former.storage):
        raise UserError(
            f"--out {out}: {theirs[0]} is there already, and no {POINTER} says that it is of the "
            f"sweep in {storage.shown}; choose another directory"
        )
    return Place(storage, Path(os.path.realpath(out)))


def check_writable(*paths: Path) -> None:
    """Raises UserError if nothing can be written there, or if it is a link: whoever made a
    directory could have anything overwritten by a link in it. Missing directories are no trouble
    where they can be made.
    """
    for path in paths:
        if path.is_symlink():
            raise UserError(
                f"{path} is a link, and nothing is written through one; remove it, or use another "
                "directory"
            )
        there = next(one for one in (path, *path.parents) if one.exists())
        if not os.access(there, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise UserError(
                f"{there} can't be written by you; give yourself the right, or use another "
                "directory"
            )


def check_views(here: Place) -> None:
    """The same, for everything that is written beside the truth and, where it is local, for the
    truth."""
    if here.views is not None:
        check_writable(here.views, *(here.views / name for name in VIEWS))
    if here.storage.is_local:
        root = Path(here.storage.root)
        check_writable(root, *(root / name for name in TRUTH))


def create_private(here: Place) -> None:
    """Makes the directories of a new sweep, for its owner's eyes only; those that exist stay as
    they are."""
    root = Path(here.storage.root) if here.storage.is_local else None
    for directory in (root, here.views):
        if directory is not None and not directory.exists():
            make_directory(directory, 0o700)


@contextmanager
def views_of(here: Place) -> Iterator[Path]:
    """The directory of the views; of a sweep that has none a temporary one."""
    if here.views is not None:
        yield here.views
        return
    with tempfile.TemporaryDirectory(prefix="emm-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def remember(here: Place, sweep_id: str | None = None) -> None:
    """Leaves the URL of a storage elsewhere in the directory of the views, for its owner's eyes
    only."""
    if here.views is None or (here.storage.is_local and here.storage.root == str(here.views)):
        return
    here.views.mkdir(parents=True, exist_ok=True)
    Storage(str(here.views)).write_json(
        POINTER, {"storage": here.storage.url, "id": sweep_id}, mode=0o600
    )


def check_pointed(here: Place) -> None:
    """Raises UserError if a pointer was not written for the very sweep that is in the storage
    now."""
    if not here.is_pointed:
        return
    found = read_sweep(here.storage)
    if here.sweep_id is None or found is None or found.id != here.sweep_id:
        raise UserError(
            f"{here.views}: its sweep is kept in {here.storage.shown}, and it can't be told "
            "whether that is still the same "
            f"one; give that URL to remove it, or leave --yes out and be asked"
        )


def purge(here: Place) -> list[str]:
    """Removes a sweep and its views; returns the names of what else is in the directory and stays.

    Raises UserError if there is no sweep, or a driver runs it: it takes the lock of the sweep.
    """
    read_space(here.storage)
    for directory in (here.views, Path(here.storage.root) if here.storage.is_local else None):
        if directory is not None and directory.exists():
            check_writable(directory)
    with Lock(here.storage):
        _remove(here.storage, TRUTH)
        if here.views is not None:
            _remove(Storage(str(here.views)), [*VIEWS, *_other_reports(here.views)])
    here.storage.delete_parts(of=LOCK)
    if here.views is None or not here.views.is_dir():
        return []
    left = sorted(path.name for path in here.views.iterdir())
    if not left:
        here.views.rmdir()
    return left


def _other_reports(views: Path) -> list[str]:
    """Directories with a report by another eye or beside another sweep; a user's own may be called
    alike."""
    return [
        path.name
        for path in views.iterdir()
        if OTHER_REPORT.fullmatch(path.name) and (path / "report.json").is_file()
    ]


def _remove(storage: Storage, names: Iterable[str]) -> None:
    for name in names:
        (info,) = storage.filesystem.get_file_info([storage.path(name)])
        if info.type == fs.FileType.Directory:
            storage.filesystem.delete_dir(info.path)
        elif info.type == fs.FileType.File:
            storage.filesystem.delete_file(info.path)
        storage.delete_parts(of=f"{name}.")

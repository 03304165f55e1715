"""Where a sweep is kept: its storage, and the local directory of its views, which remembers a storage elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from sweep.budget import SPENT
from sweep.lock import LOCK, holder_of
from sweep.pooling import PRIORS
from sweep.summary import FINAL, SWEEP, read_space
from trainables.errors import UserError
from trainables.storage import Storage

POINTER = "storage.json"  # in the directory of the views
TRUTH = ("trials", SPENT, PRIORS, FINAL, SWEEP)  # the last one last: with it, it is a sweep
VIEWS = ("optuna.db", "mlflow.db", "artifacts", "ray", "report", "emm.log", POINTER)


@dataclass(frozen=True)
class Place:
    storage: Storage
    views: Path | None  # None: there is no local directory


def place(name: str) -> Place:
    """The sweep that a DIR or URL stands for."""
    directory = Path(name).absolute()
    if "://" not in name and (directory / POINTER).is_file():
        return Place(Storage(Storage(name).read_json(POINTER)["storage"]), directory)
    storage = Storage(name)
    return Place(storage, Path(storage.root) if storage.is_local else None)


def new_place(out: Path | None, url: str | None) -> Place:
    """For `--out` and `--storage`. Creates nothing; raises UserError if they name no place for a sweep."""
    if out is None and url is None:
        raise UserError("--out DIR: say where the sweep is kept (or --storage URL)")
    for path in () if out is None else (out.absolute(), *out.absolute().parents):
        if path.exists() and not path.is_dir():
            raise UserError(f"--out {out}: {path} is a file; choose a directory")
    if out is None:
        return place(str(url))
    former = place(str(out))
    if url is None:
        return former
    if (out / SWEEP).exists() and Storage(url).root != former.storage.root:
        raise UserError(f"--out {out}: a sweep is kept there already; choose another directory beside --storage")
    return Place(Storage(url), out.absolute())


def remember(here: Place) -> None:
    """Leaves the URL of a storage elsewhere in the directory of the views, for its owner's eyes only."""
    if here.views is None or here.storage.root == str(here.views):
        return
    here.views.mkdir(parents=True, exist_ok=True)
    pointer = here.views / POINTER
    pointer.touch(mode=0o600)
    Storage(str(here.views)).write_json(POINTER, {"storage": here.storage.url})
    pointer.chmod(0o600)


def purge(here: Place) -> list[str]:
    """Removes a sweep and its views; returns the names of what else is in the directory and stays.

    Raises UserError if there is no sweep, or a driver runs it.
    """
    read_space(here.storage)
    if (holder := holder_of(here.storage)) is not None:
        raise UserError(f"{here.storage.shown} is being run by process {holder['pid']} on {holder['host']}; end it first")
    claims = [name for name in here.storage.list() if name.startswith(LOCK)]
    _remove(here.storage, [*TRUTH, *claims])
    if here.views is None:
        return []
    reports_at_k = [path.name for path in here.views.glob("report-k*")]
    _remove(Storage(str(here.views)), [*VIEWS, *reports_at_k])
    left = sorted(path.name for path in here.views.iterdir())
    if not left:
        here.views.rmdir()
    return left


def _remove(storage: Storage, names: list[str]) -> None:
    for name in names:
        (info,) = storage.filesystem.get_file_info([storage.path(name)])
        if info.type == fs.FileType.Directory:
            storage.filesystem.delete_dir(info.path)
        elif info.type == fs.FileType.File:
            storage.filesystem.delete_file(info.path)

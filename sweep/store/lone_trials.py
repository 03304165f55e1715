"""Trials that `emm trial --out` left in a directory: no sweep, and any number of them."""

from typing import Literal

from sweep.store.files import read_sweep
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import Result, Trials, read_all, trial_directory

Images = Literal["none", "generated", "pairs"]
SHOWN = "pictures.json"  # what may be shown of a trial, as `emm trial` was told
KINDS: dict[str, Images] = {"none": "none", "generated": "generated", "pairs": "pairs"}


def holds_lone_trials(storage: Storage) -> bool:
    return read_sweep(storage) is None and bool(storage.list("trials"))


def read_lone_trials(storage: Storage) -> Trials:
    """By name, N and seed. Raises UserError if there are none."""
    found = read_all(storage)
    if not any(found):
        raise UserError(f"{storage.shown} holds no trial")
    order = sorted(found.results, key=lambda one: (one.spec.name, one.spec.n, one.spec.seed))
    return found._replace(results=order)


def allow_pictures(storage: Storage, training_key: str, images: Images) -> None:
    """In a file beside the trial's own, so that several commands may write into one directory."""
    trial_directory(storage, training_key).write_json(SHOWN, images)


def allowed_pictures(storage: Storage, result: Result) -> Images:
    """What was asked for when the trial was made; without that, none of private data."""
    by_data: Images = "none" if result.configuration.data.holds_private else "pairs"
    told = trial_directory(storage, result.training_key).read_json(SHOWN)
    if told is None:  # older versions kept those of all trials in one file
        of_all = storage.read_json(SHOWN)
        told = of_all.get(result.training_key) if isinstance(of_all, dict) else None
    return KINDS.get(str(told), by_data)

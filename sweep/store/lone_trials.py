"""Trials that `emm trial --out` left in a directory: no sweep, and any number of them."""

from typing import Any, Literal

from sweep.store.files import read_sweep
from trainables.errors import UserError
from trainables.storage import Storage
from trainables.trial.result import Result, Trials, read_all

Images = Literal["none", "generated", "pairs"]
SHOWN = "pictures.json"  # training key → what may be shown of it, as `emm trial` was told
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
    storage.write_json(SHOWN, {**_shown(storage), training_key: images})


def allowed_pictures(storage: Storage, result: Result) -> Images:
    """What was asked for when the trial was made; without that, none of private data."""
    by_data: Images = "none" if result.configuration.data.holds_private else "pairs"
    return KINDS.get(str(_shown(storage).get(result.training_key)), by_data)


def _shown(storage: Storage) -> dict[str, Any]:
    content = storage.read_json(SHOWN)
    return content if isinstance(content, dict) else {}

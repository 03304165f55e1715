"""The files of a sweep beside its trials: what was asked, and what is read back from it."""

import logging
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeVar, get_args

from pydantic import Field, RootModel

from search_spaces.space import SearchSpace
from trainables.config.data import Data
from trainables.config.identity import IGNORED
from trainables.errors import DamagedFile, UserError
from trainables.provenance import ours, packages, yours
from trainables.storage import Storage
from trainables.text import first_line, redacted
from trainables.trial.result import FinalMeasurement, Record, TrialRecord, Trials, parsed, read_all

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", bound=TrialRecord)

SWEEP = "sweep.json"

FINAL = "final.json"  # last measurements, by training key

# fields of data that say where they lie
PLACES = {
    name
    for kind in get_args(get_args(Data)[0])
    for name, field in kind.model_fields.items()
    if field.json_schema_extra == IGNORED and field.annotation is str
}


class Finals(RootModel[dict[str, FinalMeasurement]]):
    """What is in `final.json`: last measurements by training key."""


PLACE_OPTIONS = {"--out", "--storage", "--reuse"}


class Invocation(Record):
    """One run of a driver: the command, and the code that carried it out."""

    at: str = Field(description="when it began, UTC")
    command: str
    ours: dict[str, str | bool | None] = Field(description="version, commit, clean")
    yours: dict[str, str | bool | None] = Field(
        {}, description="commit, clean of the repository that it was started in, if there is one"
    )
    packages: dict[str, str] = Field({}, description="name → version")
    code: dict[str, str] = Field(
        {}, description="of the user's: what names it, with its version → SHA-256 of its file"
    )

    @property
    def shown(self) -> str:
        """The command as it may leave the storage: without directories and other places, which are
        the user's own."""
        words = shlex.split(self.command)
        return " ".join(
            "…" if before in PLACE_OPTIONS else _without_place(word)
            for before, word in zip(["", *words], words, strict=False)
        )

    @classmethod
    def now(cls, command: Sequence[str], code: Mapping[str, str] | None = None) -> Self:
        """Of this process, by this command; what is secret in it is left out. `code`: the user's."""
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=shlex.join(map(redacted, command)),
            ours=ours(),
            yours=yours(Path.cwd()),
            packages=packages(),
            code=dict(code or {}),
        )


def _without_place(word: str) -> str:
    """A word of a command, in which what is a place, or the name of one of the data, is "…"."""
    setting = word.removeprefix("--set=")
    name, equals, value = setting.partition("=")
    if _is_place(name):
        return "…"
    is_named = name in PLACE_OPTIONS or name.rpartition(".")[2] in PLACES
    is_whole_source = name.rpartition(".")[2] == "data" and value.startswith("{")
    is_place = _is_place(value) or is_named or is_whole_source
    return f"{word.removesuffix(value)}…" if equals and is_place else word


def _is_place(text: str) -> bool:
    return "/" in text or "\\" in text


class SweepFile(Record):
    """What is in `sweep.json`."""

    id: str | None = Field(
        None, description="of this sweep, by which a pointer to its storage is known to mean it"
    )
    space: SearchSpace
    configurations: dict[str, str] = Field({}, description="configuration name → configuration key")
    runs: list[Invocation] = Field([], description="of drivers, in their order")


def read_sweep(storage: Storage) -> SweepFile | None:
    """None if there is no sweep. Raises DamagedFile if the file is broken, UserError if the storage
    does not answer."""
    try:
        content = storage.read_json(SWEEP)
        return None if content is None else parsed(SweepFile, content, f"{storage.shown}/{SWEEP}")
    except OSError as error:
        raise UserError(f"storage: {storage.shown} can't be read ({first_line(error)})") from error
    except DamagedFile as error:
        raise DamagedFile(f"{error}; {reuse_of(storage)}") from None


def reuse_of(storage: Storage) -> str:
    """For people: how another sweep gets the trials of one that can't go on as it is asked to."""
    return f"emm run … --out NEW --reuse {shlex.quote(storage.shown)} takes its trials over"


def read_space(storage: Storage) -> SearchSpace:
    """The search space that a sweep's storage was made for. Raises UserError if there is no
    sweep."""
    return read_made_sweep(storage).space


def read_made_sweep(storage: Storage) -> SweepFile:
    found = read_sweep(storage)
    if found is None and storage.list("trials"):
        raise UserError(
            f"{storage.shown} holds no sweep but trials, as of emm trial; emm report shows them, "
            f"and {reuse_of(storage)}"
        )
    if found is None:
        raise UserError(
            f"{storage.shown} holds no sweep; give the DIR or URL of one that `emm run` made"
        )
    return found


def read_keys(storage: Storage) -> dict[str, str]:
    """Name → configuration key, of all configurations that a sweep has had, under every name that
    they have had."""
    found = read_sweep(storage)
    return {} if found is None else found.configurations


def read_trials(storage: Storage, space: SearchSpace, keys: Mapping[str, str]) -> Trials:
    """The results of the configurations of `space`, and their trials that started and have none, by
    (name, seed).

    A trial belongs to the configuration whose key it has (`keys`: by name), and is given the name
    which that has in `space`: it may have been called otherwise when the trial was written. Where a
    name has no key, names must do.
    """
    return under_names(read_all(storage), space, keys)


def under_names(trials: Trials, space: SearchSpace, keys: Mapping[str, str]) -> Trials:
    """What `read_trials` returns of these."""
    names = {keys[named.name]: named.name for named in space.configurations if named.name in keys}
    unknown = {named.name for named in space.configurations} - set(names.values())
    by_time = sorted(trials.results, key=lambda result: (result.finished_at, result.training_key))
    results = _renamed(by_time, names, unknown)
    return Trials(results, _renamed(trials.started, names, unknown), trials.damaged)


def _renamed(
    trials: Sequence[Kind], names: Mapping[str, str], unknown: Collection[str]
) -> list[Kind]:
    """Those that belong to one of `names` (by configuration key), or are called as one of
    `unknown`."""
    found = []
    for trial in trials:
        former = trial.spec.name
        name = names.get(trial.configuration_key, former if former in unknown else None)
        if name is not None:
            found.append(trial if name == former else renamed(trial, name))
    return sorted(found, key=lambda trial: (trial.spec.name, trial.spec.seed))


def renamed(trial: Kind, name: str) -> Kind:
    """The same trial under another name of its configuration."""
    return trial.model_copy(update={"spec": trial.spec.model_copy(update={"name": name})})


def read_finals(storage: Storage) -> dict[str, FinalMeasurement]:
    return parsed(Finals, storage.read_json(FINAL) or {}, f"{storage.shown}/{FINAL}").root


def by_seed(trials: Sequence[Kind]) -> dict[int, Kind]:
    """Of two with one seed the first counts. No study asks for two; one that was searched under two
    names at once may."""
    found: dict[int, Kind] = {}
    for trial in trials:
        if trial.spec.seed in found:
            log.warning(
                "%s has the seed %d of another trial and does not count",
                trial.training_key,
                trial.spec.seed,
            )
        else:
            found[trial.spec.seed] = trial
    return found

"""A sweep before it runs: its data, and whether its storage holds another one. No Ray."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.space import MAY_CHANGE, SearchSpace
from sweep.run.own_code import changed_code
from sweep.store.files import read_sweep, reuse_of
from sweep.store.lock import LOCK, Lock
from sweep.store.places import Place, check_views, create_private, views_of
from trainables.config.identity import IGNORED, identity, key_of
from trainables.config.training import StandardTrainer
from trainables.config.trial import Configuration, TrialSpec, configuration_key
from trainables.data.images import ImageData
from trainables.data.labels import check_subset, planned_label_dim
from trainables.data.sources import data_key, load
from trainables.errors import UserError
from trainables.measure.feature_rule import LEAST_HELD_OUT
from trainables.storage import Storage
from trainables.trial.result import TrialRecord, start_record

if TYPE_CHECKING:
    import torch

    from trainables.measure.features import FeatureSpace

log = logging.getLogger(__name__)

LEAST_N = 2  # that search.n_low may be
LOW_RATE = 0.9  # of the learning rate that was asked for, below which it is said


@dataclass
class Sweep:
    """A search space with its data loaded: what a driver needs, checked before anything is
    created."""

    space: SearchSpace
    data: dict[str, ImageData] = field(default_factory=dict)  # by data_key
    changed: list[str] = field(default_factory=list)  # code of the user's, a line each

    def load_data(self, may_fetch: bool = True) -> None:
        """Raises UserError if a source is missing or has fewer images than the search may ask for.
        may_fetch: see `trainables.data.sources.load`."""
        for named in self.space.configurations:
            configuration, search = named.configuration, self.space.search
            data = self._data(configuration, may_fetch)
            how, size = self.space.measurement, len(data)
            most = size // 2 if how.pair else size
            if search.n_high > most:
                what = "half of " if how.pair else ""
                are = "1 image there is" if size == 1 else f"{size} images there are"
                raise UserError(
                    f"search.n_high: {search.n_high} is more than {what}the {are}; "
                    f"{_lower(self.space, most)}"
                )
            _check_held_out(self.space, size)
            seeds = range(search.cap)
            check_subset(
                configuration.labels,
                data,
                search.n_low,
                seeds,
                how.protocol == "paper",
                how.pair,
            )
            _check_custom(configuration, planned_label_dim(configuration, search.n_low, data))
        check_features(self.space)
        self._check_keys()

    @property
    def notes(self) -> list[str]:
        """What is to be said of the data that are loaded, of rates of learning, and of the user's
        code; a line each."""
        by_source = {data.source: data for data in self.data.values()}
        notes = [
            f"{data.duplicates} of the {len(data)} images of {source} equal another one; "
            "copies of them don't count"
            for source, data in by_source.items()
            if data.duplicates
        ]
        notes += [note for data in self.data.values() for note in data.notes]
        notes += _low_rates(self.space)
        return list(dict.fromkeys([*notes, *self.changed]))

    def data_of(self, name: str) -> ImageData:
        """The data of a configuration, loaded when they are first asked for."""
        (configuration,) = (
            named.configuration for named in self.space.configurations if named.name == name
        )
        return self._data(configuration)

    def _data(self, configuration: Configuration, may_fetch: bool = False) -> ImageData:
        key = data_key(configuration.data)
        if key not in self.data:
            self.data[key] = load(configuration.data, may_fetch)
        return self.data[key]

    def record_of(self, spec: TrialSpec) -> TrialRecord:
        return start_record(spec, self.data[data_key(spec.configuration.data)])

    def _check_keys(self) -> None:
        """Raises UserError if two configurations would be one study: they differ only in what
        decides no result."""
        first: dict[str, str] = {}
        for name, key in self.keys().items():
            if key in first:
                raise UserError(
                    f"{first[key]} and {name} are the same configuration: paths, and what only "
                    "saves memory, do not count"
                )
            first[key] = name

    def keys(self) -> dict[str, str]:
        """Configuration name → configuration key."""
        return {
            named.name: configuration_key(
                named.configuration, self._data(named.configuration).digest
            )
            for named in self.space.configurations
        }


def _low_rates(space: SearchSpace) -> list[str]:
    """A line for each recipe whose learning rate is never near trainer.lr: a training that was made
    shorter keeps its warm-up."""
    notes = []
    for named in space.configurations:
        recipe = named.configuration.trainer
        if isinstance(recipe, StandardTrainer):
            ends = space.search.n_low, space.search.n_high
            highest = min(recipe.highest_lr_factor(n) for n in ends)
            if highest < LOW_RATE:
                notes.append(
                    f"{named.name}: the learning rate reaches {highest:.0%} of trainer.lr at most: "
                    f"trainer.warmup={recipe.warmup} and trainer.decay={recipe.decay:g} leave no "
                    "more of the training"
                )
    return notes


def _check_custom(configuration: Configuration, label_dim: int) -> None:
    """See `check_custom`; torch is imported only where there is code of the user's."""
    if "custom" in (configuration.network.kind, configuration.trainer.kind):
        from trainables.training.custom import check_custom

        check_custom(configuration, label_dim)


def _check_held_out(space: SearchSpace, size: int) -> None:
    """Raises UserError if R_mem is to be counted in features and too few images would be left to
    take the threshold from."""
    most, search = size - LEAST_HELD_OUT, space.search
    if space.measurement.judge == "features" and search.n_high > most:
        raise UserError(
            f"search.n_high: judge=features needs {LEAST_HELD_OUT} of the {size} images held out; "
            f"{_lower(space, most)}"
        )


def _lower(space: SearchSpace, most: int) -> str:
    """What makes the range of N end at `most`, if anything does."""
    if most > space.search.n_low:
        return f"--set search.n_high={most}"
    if most > LEAST_N:
        return f"--set search.n_low={LEAST_N} --set search.n_high={most}"
    return "more are needed"


def check_features(space: SearchSpace) -> None:
    """Raises UserError if the function that gives images their features can't be used; torch is
    imported only where there is one."""
    if space.measurement.features is not None:
        import torch

        features_of(space, torch.device("cpu"))


def features_of(
    space: SearchSpace, device: "torch.device", option: str = "measurement.features"
) -> "FeatureSpace":
    """Those that the measurement names, on a device, checked with images of every size in the
    space; see `open_features`."""
    from trainables.measure.features import open_features

    sources = [named.configuration.data for named in space.configurations]
    for shape in {(data.channels, data.resolution, data.resolution) for data in sources}:
        features = open_features(space.measurement, shape, device, option)
    assert features is not None, "they are asked for where there are some"
    return features


def look_at_data(space: SearchSpace) -> tuple[Sweep | None, list[str]]:
    """The sweep of a space whose data are here, and what is to be said of them; None, and why, if
    they are not. Raises UserError where a run with these data would."""
    sweep = Sweep(space)
    try:
        for named in space.configurations:
            sweep.data_of(named.name)
    except UserError as missing:
        return None, [f"{missing}; N was not checked against the data"]
    sweep.load_data(may_fetch=False)
    return sweep, sweep.notes


def checked_sweep(space: SearchSpace, here: Place, may_fetch: bool = True) -> Sweep:
    """A sweep with its data. Raises UserError if it can't be run there; creates nothing, but for
    data that may be fetched."""
    sweep = Sweep(space)
    sweep.load_data(may_fetch)
    check_sweep(here.storage, sweep)
    check_views(here)
    former = read_sweep(here.storage)
    sweep.changed = changed_code(space, former.runs if former else ())
    return sweep


@contextmanager
def open_sweep(
    space: SearchSpace, here: Place, tell: Callable[[str], None] = log.warning
) -> Iterator[tuple[Sweep, Path]]:
    """Checks a sweep and locks its place: gives it with its data, and the directory of its views.

    Raises UserError, and has created nothing, if it can't be run there or somebody else does.
    """
    sweep = checked_sweep(space, here)
    create_private(here)
    with Lock(here.storage, tell=tell), views_of(here) as views:
        check_sweep(here.storage, sweep)  # another driver may have begun one meanwhile
        yield sweep, views


def check_sweep(storage: Storage, sweep: Sweep) -> None:
    """Raises UserError, naming the field, if the storage holds another sweep that these trials
    can't be compared with."""
    former = read_sweep(storage)
    if former is None:
        if any(not name.startswith(LOCK) and name != "emm.log" for name in storage.list()):
            rescue = f"; {reuse_of(storage)}" if storage.list("trials") else ""
            raise UserError(
                f"{storage.shown} is not empty and holds no sweep; choose another --out{rescue}"
            )
        return
    if former.space.name != sweep.space.name:
        name = former.space.name
        is_same = not set(former.configurations.values()).isdisjoint(sweep.keys().values())
        mend = (
            f"write `name: {name}` into the space's file to go on with it, or " if is_same else ""
        )
        raise UserError(
            f"{storage.shown} holds the sweep of {name}, not of {sweep.space.name}; "
            f"{mend}choose another --out"
        )
    for name, key in sweep.keys().items():
        if former.configurations.get(name, key) != key:
            raise UserError(_difference(former.space, sweep.space, name))
    for section in ("search", "measurement"):
        old, new = getattr(former.space, section), getattr(sweep.space, section)
        for name, described in type(new).model_fields.items():
            is_free = described.json_schema_extra in (MAY_CHANGE, IGNORED)
            if not is_free and getattr(old, name) != getattr(new, name):
                path = f"{section}.{name}"
                values = getattr(old, name), getattr(new, name)
                if section == "search":
                    raise UserError(f"{_made_with(path, *values)}; {reuse_of(storage)}")
                raise UserError(_changed(path, *values))


def _difference(former: SearchSpace, space: SearchSpace, name: str) -> str:
    old, new = _configuration(former, name), _configuration(space, name)
    if old is None:
        return (
            f"{name}: this sweep has had another configuration of that name; choose another name, "
            "or another --out"
        )
    for section in ("labels", "network", "diffusion", "trainer"):
        before, after = getattr(old, section), getattr(new, section)
        # of what decides results; another micro_batch is no difference
        ours, theirs = identity(before), identity(after)
        for key in sorted(ours | theirs, key=lambda key: key != "kind"):
            if key_of({key: ours.get(key)}) != key_of({key: theirs.get(key)}):  # 1 is not 1.0
                return _changed(
                    f"{section}.{key}", getattr(before, key, None), getattr(after, key, None)
                )
    return f"the data of {name} have changed; choose another --out"


def _configuration(space: SearchSpace, name: str) -> Configuration | None:
    by_name = {named.name: named.configuration for named in space.configurations}
    return by_name.get(name)


def _changed(path: str, old: Any, new: Any) -> str:
    made = _made_with(path, old, new)
    return f"{made}, and its trials could not be compared; choose another --out"


def _made_with(path: str, old: Any, new: Any) -> str:
    option = " (--early-accept)" if path == "measurement.accept" else ""
    return f"{path}{option}: this sweep was made with {old}, not {new}"

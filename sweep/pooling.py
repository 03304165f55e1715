"""What the studies of a sweep tell each other: the shape of R_mem(N) and its noise, never the EMM.

A handful of trials can't tell the noise between seeds from the slope of the curve; all trials of a sweep can, where the
configurations share a training recipe. The prior that a study searches with is frozen, on the sweep's storage, when it
starts, so that what it asks next never depends on what other studies do meanwhile.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from search_spaces.space import NamedConfiguration
from sweep.posterior import Array, Prior, base_prior, pool, pool_each
from trainables.config import identity, key_of
from trainables.errors import DamagedFile
from trainables.storage import Storage

PRIORS = "priors.json"
MIN_POOLED = 4  # finished studies that share a recipe


class FrozenPriors:
    """The prior that each study searches with. Without a storage they are kept in memory.

    `keys`: name → configuration key, former names too. Priors are kept by that key, since a configuration may be given another
    name; those of older sweeps, which are kept by name, are found by the key that the name stands for.
    """

    def __init__(self, storage: Storage | None = None, keys: Mapping[str, str] = MappingProxyType({})) -> None:
        self.storage, self.keys = storage, keys
        content = (storage.read_json(PRIORS) if storage else None) or {}
        try:
            self._priors = {keys.get(key, key): Prior(**values) for key, values in content.items()}
        except (TypeError, ValueError, AttributeError) as error:  # of JSON that is no table of priors
            assert storage is not None
            raise DamagedFile(f"{storage.shown}/{PRIORS} is damaged ({error})") from None

    def get(self, name: str) -> Prior:
        return self._priors.get(self.keys.get(name, name)) or base_prior()

    def freeze(self, name: str, prior: Prior) -> None:
        """Sets the prior of a study, unless it has one."""
        if (key := self.keys.get(name, name)) not in self._priors:
            self._priors[key] = prior
            if self.storage:
                self.storage.write_json(PRIORS, {study: asdict(frozen) for study, frozen in self._priors.items()})


def recipe(named: NamedConfiguration) -> str:
    """Configurations of one recipe are expected to have like noise and shape: same trainer, same diffusion."""
    configuration = named.configuration
    return key_of({"trainer": identity(configuration.trainer), "diffusion": identity(configuration.diffusion)})


def search_prior(tables: Sequence[Array]) -> Prior:
    """The prior of a study that starts when the studies behind `tables`, all of its recipe, are finished."""
    return pool(tables) if len(tables) >= MIN_POOLED else base_prior()


def report_priors(recipes: Mapping[str, str], tables: Mapping[str, Array]) -> dict[str, Prior | None]:
    """For every finished study (a key of `tables`) the prior to report it with, pooled from the others of its recipe.

    None where it stands alone: there are too few others, or its own trials contradict them.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in tables:
        groups[recipes[name]].append(name)
    priors: dict[str, Prior | None] = {}
    for names in groups.values():
        pooled = pool_each([tables[name] for name in names]) if len(names) >= MIN_POOLED else [None] * len(names)
        priors.update(zip(names, pooled, strict=True))
    return priors

"""The prior that each study searches with: frozen, on the sweep's storage, when the study starts.

So what it asks next never depends on what other studies do meanwhile.
"""

from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType

from sweep.search.belief import Prior, base_prior
from trainables.errors import DamagedFile
from trainables.storage import Storage

PRIORS = "priors.json"


class FrozenPriors:
    """The prior that each study searches with. Without a storage they are kept in memory.

    `keys`: name → configuration key, former names too. Priors are kept by that key, since a
    configuration may be given another name; those of older sweeps, which are kept by name, are
    found by the key that the name stands for.
    """

    def __init__(
        self, storage: Storage | None = None, keys: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.storage, self.keys = storage, keys
        content = (storage.read_json(PRIORS) if storage else None) or {}
        try:
            self._priors = {keys.get(key, key): Prior(**values) for key, values in content.items()}
        except (TypeError, ValueError, AttributeError) as error:
            assert storage is not None  # JSON that is no table of priors comes from there
            raise DamagedFile(f"{storage.shown}/{PRIORS} is damaged ({error})") from None

    def get(self, name: str) -> Prior:
        return self._priors.get(self.keys.get(name, name)) or base_prior()

    def freeze(self, name: str, prior: Prior) -> None:
        """Sets the prior of a study, unless it has one."""
        key = self.keys.get(name, name)
        if key not in self._priors:
            self._priors[key] = prior
            if self.storage:
                self.storage.write_json(
                    PRIORS, {study: asdict(frozen) for study, frozen in self._priors.items()}
                )
